//! A look at the database from outside, without changing it: for `volantd doctor`, beside a running
//! daemon or without one.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::model::VmId;
use crate::store::{StoreError, migrate, sqlite};

fn open(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags).map_err(sqlite("open the database"))
}

/// Whether this program can use the database: SQLite's own check of its pages, and its schema's
/// version. Blocks, for a time that grows with its size.
///
/// # Errors
/// [`StoreError::Corrupt`] with SQLite's words, [`StoreError::Newer`], [`StoreError::Sqlite`].
pub fn check(path: &Path) -> Result<(), StoreError> {
    let connection = open(path)?;
    let word: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(sqlite("check the database"))?;
    if word != "ok" {
        return Err(StoreError::Corrupt(word));
    }
    migrate::version(&connection).map(drop)
}

/// The VMs that have a row. Blocks.
///
/// # Errors
/// [`StoreError::Sqlite`].
pub fn vm_ids(path: &Path) -> Result<BTreeSet<VmId>, StoreError> {
    let connection = open(path)?;
    let ids = || -> rusqlite::Result<BTreeSet<VmId>> {
        let mut rows = connection.prepare("SELECT id FROM vms")?;
        rows.query_map([], |row| row.get(0).map(VmId))?.collect()
    };
    ids().map_err(sqlite("list the VMs"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::store::Store;

    #[test]
    fn a_database_that_cannot_be_used_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        assert!(matches!(check(&path), Err(StoreError::Sqlite { .. })), "there is none");
        drop(Store::open(&path).unwrap());
        check(&path).unwrap();
        assert!(vm_ids(&path).unwrap().is_empty());
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch("PRAGMA user_version = 999; PRAGMA wal_checkpoint(TRUNCATE)")
            .unwrap();
        assert!(matches!(check(&path), Err(StoreError::Newer(999))));
        drop(connection);
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[0xa5; 3000], 4096).unwrap();
        assert!(check(&path).is_err(), "a page was overwritten");
    }
}
