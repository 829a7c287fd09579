//! Tables `volumes` and `volume_mounts`.

use rusqlite::{OptionalExtension, Transaction, params};

use crate::model::{InvalidSpec, VmName, Volume, VolumeMount, VolumeName, VolumeState, VolumeUser};
use crate::store::{Store, StoreError, sqlite};

const STATES: [(VolumeState, &str); 3] =
    [(VolumeState::New, "new"), (VolumeState::Made, "made"), (VolumeState::Deleting, "deleting")];

/// A VM's volumes as one column, for the query of VMs.
pub const MOUNTS_COLUMN: &str = "(SELECT json_group_array(json_array(volume, path, readonly)) FROM \
     (SELECT * FROM volume_mounts WHERE vm_id = v.id ORDER BY position))";

fn word(state: VolumeState) -> &'static str {
    STATES.iter().find(|(known, _)| *known == state).map_or("new", |(_, word)| word)
}

fn number(mib: u64) -> i64 {
    i64::try_from(mib).unwrap_or(i64::MAX)
}

impl Store {
    /// Stores a volume.
    ///
    /// # Errors
    /// [`StoreError::VolumeTaken`].
    pub async fn create_volume(
        &self,
        name: VolumeName,
        mib: u64,
        state: VolumeState,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        self.transact(move |tx| {
            if state_of(tx, name.as_str())?.is_some() {
                return Err(StoreError::VolumeTaken);
            }
            insert(tx, name.as_str(), mib, state, now_ms)
        })
        .await
    }

    /// Stores where a volume is in its life, and its size.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_volume(
        &self,
        name: VolumeName,
        state: VolumeState,
        mib: u64,
    ) -> Result<(), StoreError> {
        self.transact(move |tx| {
            let sql = "UPDATE volumes SET state = ?1, mib = ?2 WHERE name = ?3";
            let updated = tx.execute(sql, params![word(state), number(mib), name.as_str()]);
            updated.map(drop).map_err(sqlite("store a volume"))
        })
        .await
    }

    /// Marks a volume that is to be removed: no VM can have it any more.
    ///
    /// # Errors
    /// [`StoreError::NoVolume`], [`StoreError::VolumeInUse`].
    pub async fn begin_volume_removal(&self, name: VolumeName) -> Result<(), StoreError> {
        self.transact(move |tx| {
            let name = name.as_str();
            if state_of(tx, name)?.is_none() {
                return Err(StoreError::NoVolume(name.to_owned()));
            }
            if let Some(user) = users(tx, name)?.into_iter().next() {
                let (volume, vm) = (name.to_owned(), user.vm.to_string());
                return Err(StoreError::VolumeInUse { volume, vm });
            }
            let sql = "UPDATE volumes SET state = 'deleting' WHERE name = ?1";
            tx.execute(sql, [name]).map(drop).map_err(sqlite("mark a volume"))
        })
        .await
    }

    /// Forgets a volume whose file is gone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_volume(&self, name: VolumeName) -> Result<(), StoreError> {
        self.transact(move |tx| {
            let deleted = tx.execute("DELETE FROM volumes WHERE name = ?1", [name.as_str()]);
            deleted.map(drop).map_err(sqlite("delete a volume"))
        })
        .await
    }

    /// All volumes by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_volumes(&self) -> Result<Vec<Volume>, StoreError> {
        self.transact(|tx| {
            let step = || sqlite("list volumes");
            let sql = "SELECT name, mib, state, created_at_ms FROM volumes ORDER BY name";
            let mut statement = tx.prepare(sql).map_err(step())?;
            let row =
                |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
            let rows = statement.query_map([], row).map_err(step())?;
            let rows: Vec<(String, i64, String, i64)> =
                rows.collect::<Result<_, _>>().map_err(step())?;
            let read = |(name, mib, state, created_at_ms): (String, i64, String, i64)| {
                let corrupt = || StoreError::Corrupt("volume".to_owned());
                Ok(Volume {
                    users: users(tx, &name)?,
                    name: VolumeName::try_from(name.as_str()).map_err(|_| corrupt())?,
                    mib: u64::try_from(mib).map_err(|_| corrupt())?,
                    state: known(&state).ok_or_else(corrupt)?,
                    created_at_ms,
                })
            };
            rows.into_iter().map(read).collect()
        })
        .await
    }
}

fn known(word: &str) -> Option<VolumeState> {
    STATES.iter().find(|(_, known)| *known == word).map(|(state, _)| *state)
}

fn state_of(tx: &Transaction<'_>, name: &str) -> Result<Option<String>, StoreError> {
    tx.query_row("SELECT state FROM volumes WHERE name = ?1", [name], |row| row.get(0))
        .optional()
        .map_err(sqlite("look for a volume"))
}

fn insert(
    tx: &Transaction<'_>,
    name: &str,
    mib: u64,
    state: VolumeState,
    now_ms: i64,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO volumes VALUES (?1, ?2, ?3, ?4)";
    let inserted = tx.execute(sql, params![name, number(mib), word(state), now_ms]);
    inserted.map(drop).map_err(sqlite("store a volume"))
}

fn users(tx: &Transaction<'_>, name: &str) -> Result<Vec<VolumeUser>, StoreError> {
    let step = || sqlite("look for a volume's VMs");
    let sql = "SELECT v.name, m.path, m.readonly FROM volume_mounts m JOIN vms v ON v.id = m.vm_id \
               WHERE m.volume = ?1 ORDER BY v.name";
    let mut statement = tx.prepare_cached(sql).map_err(step())?;
    let rows = statement
        .query_map([name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .map_err(step())?;
    let read = |row: rusqlite::Result<(String, String, bool)>| {
        let (vm, path, readonly) = row.map_err(step())?;
        let vm = VmName::try_from(vm.as_str());
        let vm = vm.map_err(|_| StoreError::Corrupt("name".to_owned()))?;
        Ok(VolumeUser { vm, path, readonly })
    };
    rows.map(read).collect()
}

/// Attaches a new VM's volumes, and stores those that are to be made for it: one writer, or many
/// readers.
///
/// # Errors
/// [`StoreError::NoVolume`], [`StoreError::VolumeInUse`].
pub fn attach(
    tx: &Transaction<'_>,
    vm_id: i64,
    mounts: &[VolumeMount],
    now_ms: i64,
) -> Result<(), StoreError> {
    for (position, mount) in mounts.iter().enumerate() {
        let name = mount.volume.as_str();
        match (state_of(tx, name)?.as_deref(), mount.make_mib) {
            (None, Some(mib)) => insert(tx, name, mib, VolumeState::New, now_ms)?,
            (None | Some("deleting"), _) => return Err(StoreError::NoVolume(name.to_owned())),
            (Some(_), _) => {}
        }
        let forbids = |user: &VolumeUser| !(user.readonly && mount.readonly);
        if let Some(user) = users(tx, name)?.into_iter().find(forbids) {
            let (volume, vm) = (name.to_owned(), user.vm.to_string());
            return Err(StoreError::VolumeInUse { volume, vm });
        }
        let position = i64::try_from(position).unwrap_or(i64::MAX);
        tx.execute(
            "INSERT INTO volume_mounts VALUES (?1, ?2, ?3, ?4, ?5)",
            params![vm_id, position, name, mount.path, mount.readonly],
        )
        .map_err(sqlite("attach a volume"))?;
    }
    Ok(())
}

/// The volumes of a VM, of [`MOUNTS_COLUMN`].
///
/// # Errors
/// [`StoreError::Corrupt`].
pub fn mounts_of(text: &str) -> Result<Vec<VolumeMount>, StoreError> {
    let corrupt = || StoreError::Corrupt("volumes".to_owned());
    let rows: Vec<(String, String, i64)> = serde_json::from_str(text).map_err(|_| corrupt())?;
    let read = |(volume, path, readonly): (String, String, i64)| {
        let volume = VolumeName::try_from(volume.as_str());
        let volume = volume.map_err(|_: InvalidSpec| corrupt())?;
        Ok(VolumeMount { volume, path, readonly: readonly != 0, make_mib: None })
    };
    rows.into_iter().map(read).collect()
}
