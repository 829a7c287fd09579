//! Table `plugin_artifacts`: what a version of a plugin is made of, as its manifest or its author says.

use rusqlite::{Row, Transaction, params};

use crate::model::{ArtifactEntry, PluginArtifact, PluginName, PluginRef, PluginVersion};
use crate::store::{Store, StoreError, sqlite};

/// Artifacts of one plugin, over all versions.
pub const ARTIFACTS_MAX: i64 = 1000;

impl Store {
    /// Stores an artifact, in the place of one of the same version and name.
    ///
    /// # Errors
    /// [`StoreError::NoPlugin`], [`StoreError::TooManyArtifacts`].
    pub async fn put_artifact(
        &self,
        plugin: PluginRef,
        entry: ArtifactEntry,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        self.transact(move |tx| {
            let known: i64 = tx
                .query_row(
                    "SELECT count(*) FROM plugins WHERE name = ?1",
                    [plugin.name.as_str()],
                    |row| row.get(0),
                )
                .map_err(sqlite("find a plugin"))?;
            if known == 0 {
                return Err(StoreError::NoPlugin);
            }
            put(tx, &plugin, &entry, now_ms)?;
            let count: i64 = tx
                .query_row(
                    "SELECT count(*) FROM plugin_artifacts WHERE plugin = ?1",
                    [plugin.name.as_str()],
                    |row| row.get(0),
                )
                .map_err(sqlite("count artifacts"))?;
            if ARTIFACTS_MAX < count { Err(StoreError::TooManyArtifacts) } else { Ok(()) }
        })
        .await
    }

    /// Artifacts of a plugin, of one version if given, in the order in which they came.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_artifacts(
        &self,
        plugin: PluginName,
        version: Option<PluginVersion>,
    ) -> Result<Vec<PluginArtifact>, StoreError> {
        self.transact(move |tx| {
            let step = || sqlite("list artifacts");
            let mut statement = tx
                .prepare(
                    "SELECT id, plugin, version, name, kind, source_url, checksum, format, \
                     local_path, size_bytes, created_at_ms, updated_at_ms FROM plugin_artifacts \
                     WHERE plugin = ?1 AND (?2 = '' OR version = ?2) ORDER BY id",
                )
                .map_err(step())?;
            let version = version.as_ref().map_or("", |version| version.as_str());
            let rows = statement
                .query_map([plugin.as_str(), version], |row| Ok(read(row)))
                .map_err(step())?;
            rows.map(|row| row.map_err(step())?).collect()
        })
        .await
    }

    /// Removes the artifacts of a plugin, of one version if given.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_artifacts(
        &self,
        plugin: PluginName,
        version: Option<PluginVersion>,
    ) -> Result<(), StoreError> {
        self.transact(move |tx| {
            let version = version.as_ref().map_or("", |version| version.as_str());
            tx.execute(
                "DELETE FROM plugin_artifacts WHERE plugin = ?1 AND (?2 = '' OR version = ?2)",
                [plugin.as_str(), version],
            )
            .map(drop)
            .map_err(sqlite("remove artifacts"))
        })
        .await
    }
}

/// Stores an artifact within a change.
///
/// # Errors
/// [`StoreError`].
pub fn put(
    tx: &Transaction<'_>,
    plugin: &PluginRef,
    entry: &ArtifactEntry,
    now_ms: i64,
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO plugin_artifacts (plugin, version, name, kind, source_url, checksum, format, \
         local_path, size_bytes, created_at_ms, updated_at_ms) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10) \
         ON CONFLICT (plugin, version, name) DO UPDATE SET kind = ?4, source_url = ?5, \
         checksum = ?6, format = ?7, local_path = ?8, size_bytes = ?9, updated_at_ms = ?10",
        params![
            plugin.name.as_str(),
            plugin.version.as_str(),
            entry.name,
            entry.kind,
            entry.source_url,
            entry.checksum,
            entry.format,
            entry.local_path,
            i64::try_from(entry.size_bytes).unwrap_or(i64::MAX),
            now_ms
        ],
    )
    .map(drop)
    .map_err(sqlite("store an artifact"))
}

fn read(row: &Row<'_>) -> Result<PluginArtifact, StoreError> {
    let step = || sqlite("read an artifact");
    let text = |index: usize| row.get::<_, String>(index).map_err(step());
    let number = |index: usize| row.get::<_, i64>(index).map_err(step());
    let corrupt = |error: crate::model::InvalidWord| StoreError::Corrupt(error.to_string());
    Ok(PluginArtifact {
        id: number(0)?,
        plugin: PluginRef {
            name: PluginName::try_from(text(1)?.as_str()).map_err(corrupt)?,
            version: PluginVersion::try_from(text(2)?.as_str()).map_err(corrupt)?,
        },
        entry: ArtifactEntry {
            name: text(3)?,
            kind: text(4)?,
            source_url: text(5)?,
            checksum: text(6)?,
            format: text(7)?,
            local_path: text(8)?,
            size_bytes: u64::try_from(number(9)?).unwrap_or(0),
        },
        created_at_ms: number(10)?,
        updated_at_ms: number(11)?,
    })
}
