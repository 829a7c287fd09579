//! Table `events`: what happened, in order, for clients that come back.

use std::net::Ipv4Addr;

use rusqlite::{Row, Transaction, params};

use crate::model::{Event, EventKind, Vm, VmId, VmName};
use crate::store::vms::{find, mac_of};
use crate::store::{Store, StoreError, sqlite};

/// Events kept.
pub const EVENTS_MAX: i64 = 10_000;

impl Store {
    /// Events after `id`, oldest first, at most `limit`; the flag says that some after `id` have
    /// been dropped.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn events_since(
        &self,
        id: i64,
        limit: usize,
    ) -> Result<(Vec<Event>, bool), StoreError> {
        let limit = i64::try_from(limit).unwrap_or(EVENTS_MAX);
        self.transact(move |tx| {
            let step = || sqlite("read events");
            let mut statement = tx
                .prepare(
                    "SELECT id, at_ms, kind, vm_id, name, status, address, message FROM events \
                     WHERE id > ?1 ORDER BY id LIMIT ?2",
                )
                .map_err(step())?;
            let rows = statement.query_map([id, limit], |row| Ok(read(row))).map_err(step())?;
            let events = rows.map(|row| row.map_err(step())?).collect::<Result<Vec<_>, _>>()?;
            let gap = events.first().is_some_and(|event: &Event| id + 1 < event.id);
            Ok((events, gap))
        })
        .await
    }
}

impl Store {
    /// Tells something that changes no state of the VM. `None` if the VM is gone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn append_event(
        &self,
        id: VmId,
        kind: EventKind,
        message: String,
        now_ms: i64,
    ) -> Result<Option<Event>, StoreError> {
        self.transact(move |tx| {
            let Some(vm) = find(tx, "v.id = ?1", &[&id.0])? else { return Ok(None) };
            append(tx, &vm, kind, now_ms, &message).map(Some)
        })
        .await
    }
}

impl Store {
    /// Id of the latest event there has ever been; 0 before the first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn last_event_id(&self) -> Result<i64, StoreError> {
        self.transact(|tx| {
            let last =
                tx.query_row("SELECT coalesce(max(id), 0) FROM events", [], |row| row.get(0));
            last.map_err(sqlite("read the last event"))
        })
        .await
    }
}

/// Appends an event within the change that it tells of, and drops the oldest.
///
/// # Errors
/// [`StoreError`].
pub fn append(
    tx: &Transaction<'_>,
    vm: &Vm,
    kind: EventKind,
    now_ms: i64,
    message: &str,
) -> Result<Event, StoreError> {
    let status = if kind == EventKind::Deleted { "deleted" } else { vm.state.as_str() };
    tx.execute(
        "INSERT INTO events (at_ms, kind, vm_id, name, status, address, message) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            now_ms,
            kind.as_str(),
            vm.id.0,
            vm.name.as_str(),
            status,
            u32::from(vm.ip),
            message
        ],
    )
    .map_err(sqlite("store an event"))?;
    let id = tx.last_insert_rowid();
    tx.execute("DELETE FROM events WHERE id <= ?1", [id - EVENTS_MAX])
        .map_err(sqlite("drop old events"))?;
    Ok(Event {
        id,
        at_ms: now_ms,
        kind,
        vm_id: vm.id,
        name: vm.name.clone(),
        status: status.to_owned(),
        ip: vm.ip,
        mac: vm.mac,
        message: message.to_owned(),
    })
}

fn read(row: &Row<'_>) -> Result<Event, StoreError> {
    let step = || sqlite("read an event");
    let text = |index: usize| row.get::<_, String>(index).map_err(step());
    let corrupt = |what: &str| StoreError::Corrupt(what.to_owned());
    let word = text(2)?;
    let kind = EventKind::ALL.into_iter().find(|kind| kind.as_str() == word);
    let ip = Ipv4Addr::from(row.get::<_, u32>(6).map_err(step())?);
    Ok(Event {
        id: row.get(0).map_err(step())?,
        at_ms: row.get(1).map_err(step())?,
        kind: kind.ok_or_else(|| corrupt("event kind"))?,
        vm_id: VmId(row.get(3).map_err(step())?),
        name: VmName::try_from(text(4)?.as_str()).map_err(|_| corrupt("event name"))?,
        status: text(5)?,
        ip,
        mac: mac_of(ip),
        message: text(7)?,
    })
}
