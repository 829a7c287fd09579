//! Table `vm_access`.

use rusqlite::params;

use crate::model::VmId;
use crate::store::{Store, StoreError, sqlite};

/// Bytes of a VM's access secret.
pub const SECRET_LEN: usize = 32;

impl Store {
    /// Stores a VM's access secret in place of an earlier one, or removes it.
    ///
    /// # Errors
    /// [`StoreError`], also when there is no such VM.
    pub async fn set_access(
        &self,
        id: VmId,
        secret: Option<[u8; SECRET_LEN]>,
    ) -> Result<(), StoreError> {
        self.transact(move |tx| {
            let changed = match secret {
                Some(secret) => tx.execute(
                    "INSERT INTO vm_access (vm_id, secret) VALUES (?1, ?2) \
                     ON CONFLICT (vm_id) DO UPDATE SET secret = excluded.secret",
                    params![id.0, secret],
                ),
                None => tx.execute("DELETE FROM vm_access WHERE vm_id = ?1", [id.0]),
            };
            changed.map(drop).map_err(sqlite("store a VM's access"))
        })
        .await
    }

    /// All access secrets.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_access(&self) -> Result<Vec<(VmId, [u8; SECRET_LEN])>, StoreError> {
        self.transact(|tx| {
            let step = || sqlite("list access");
            let mut statement = tx.prepare("SELECT vm_id, secret FROM vm_access").map_err(step())?;
            let rows = statement.query_map([], |row| Ok((VmId(row.get(0)?), row.get(1)?)));
            rows.map_err(step())?.map(|row| row.map_err(step())).collect()
        })
        .await
    }
}
