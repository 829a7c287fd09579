//! Table `exposures`.

use std::net::Ipv4Addr;

use rusqlite::{Row, Transaction, params};

use crate::model::{Exposure, Transport, VmId};
use crate::store::{Store, StoreError, sqlite};

impl Store {
    /// Stores an exposure.
    ///
    /// # Errors
    /// [`StoreError`], also when the host's port is another's or there is no such VM.
    pub async fn add_exposure(&self, id: VmId, exposure: Exposure) -> Result<(), StoreError> {
        self.transact(move |tx| insert(tx, id.0, exposure)).await
    }

    /// Removes an exposure.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remove_exposure(&self, id: VmId, exposure: Exposure) -> Result<(), StoreError> {
        let Exposure { transport, host_ip, host_port, .. } = exposure;
        self.transact(move |tx| {
            tx.execute(
                "DELETE FROM exposures \
                 WHERE vm_id = ?1 AND transport = ?2 AND host_ip = ?3 AND host_port = ?4",
                params![id.0, transport.as_str(), u32::from(host_ip), host_port],
            )
            .map(drop)
            .map_err(sqlite("remove an exposure"))
        })
        .await
    }

    /// All exposures.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_exposures(&self) -> Result<Vec<(VmId, Exposure)>, StoreError> {
        self.transact(|tx| {
            let step = || sqlite("list exposures");
            let query = "SELECT vm_id, transport, host_ip, host_port, guest_port FROM exposures";
            let mut statement = tx.prepare(query).map_err(step())?;
            let rows = statement.query_map([], |row| Ok(read(row))).map_err(step())?;
            rows.map(|row| row.map_err(step())?).collect()
        })
        .await
    }
}

/// Stores an exposure of the VM `id`.
///
/// # Errors
/// [`StoreError`].
pub fn insert(tx: &Transaction<'_>, id: i64, exposure: Exposure) -> Result<(), StoreError> {
    let Exposure { transport, host_ip, host_port, guest_port } = exposure;
    tx.execute(
        "INSERT INTO exposures VALUES (?1, ?2, ?3, ?4, ?5)",
        params![id, transport.as_str(), u32::from(host_ip), host_port, guest_port],
    )
    .map(drop)
    .map_err(sqlite("store an exposure"))
}

fn read(row: &Row<'_>) -> Result<(VmId, Exposure), StoreError> {
    let step = || sqlite("read an exposure");
    let word: String = row.get(1).map_err(step())?;
    let transport =
        Transport::from_word(&word).ok_or_else(|| StoreError::Corrupt("transport".to_owned()))?;
    let exposure = Exposure {
        transport,
        host_ip: Ipv4Addr::from(row.get::<_, u32>(2).map_err(step())?),
        host_port: row.get(3).map_err(step())?,
        guest_port: row.get(4).map_err(step())?,
    };
    Ok((VmId(row.get(0).map_err(step())?), exposure))
}
