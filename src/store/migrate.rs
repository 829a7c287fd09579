//! Schema versions: `PRAGMA user_version` and numbered files, applied in order, never changed.

use std::time::Duration;

use rusqlite::Connection;

use crate::store::{StoreError, sqlite};

const MIGRATIONS: &[&str] = &[
    include_str!("schema/0001_first.sql"),
    include_str!("schema/0002_disks.sql"),
    include_str!("schema/0003_workload.sql"),
    include_str!("schema/0004_plugins.sql"),
    include_str!("schema/0005_images.sql"),
    include_str!("schema/0006_plugin_artifacts.sql"),
    include_str!("schema/0007_access.sql"),
    include_str!("schema/0008_vm_access.sql"),
    include_str!("schema/0009_exposures.sql"),
    include_str!("schema/0010_volumes.sql"),
    include_str!("schema/0011_boot.sql"),
    include_str!("schema/0012_expiry.sql"),
    include_str!("schema/0013_token_labels.sql"),
    include_str!("schema/0014_network.sql"),
];
/// Only this process writes; another one (a shell) may read for a moment.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Sets the pragmas and brings the schema up to date.
///
/// # Errors
/// [`StoreError::Newer`] for a database of a newer version.
pub fn prepare(connection: &mut Connection) -> Result<(), StoreError> {
    set_pragmas(connection).map_err(sqlite("prepare the database"))?;
    let done = version(connection)?;
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(done) {
        let step = sqlite("migrate the database");
        let transaction = connection.transaction().map_err(sqlite("begin a migration"))?;
        let outcome = transaction
            .execute_batch(migration)
            .and_then(|()| {
                transaction.execute_batch(&format!("PRAGMA user_version = {}", index + 1))
            })
            .and_then(|()| transaction.commit());
        outcome.map_err(step)?;
    }
    Ok(())
}

/// How many of the migrations the database has had.
///
/// # Errors
/// [`StoreError::Newer`] for a database of a newer version.
pub fn version(connection: &Connection) -> Result<usize, StoreError> {
    let version: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(sqlite("read the schema version"))?;
    let done = usize::try_from(version).ok().filter(|done| *done <= MIGRATIONS.len());
    done.ok_or(StoreError::Newer(version))
}

/// WAL with FULL: a commit that was answered survives a power cut, since taps and guests are made
/// on the strength of it.
fn set_pragmas(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)
}
