//! Tables `plugins` and `plugin_versions`. A manifest is text here: what it says is not the store's.

use rusqlite::{OptionalExtension, Row, Transaction, params};

use crate::model::{ArtifactEntry, PluginName, PluginRef, PluginVersion};
use crate::store::{Store, StoreError, plugin_artifacts, sqlite};

/// A plugin as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginRow {
    /// Unique name.
    pub name: PluginName,
    /// The version of new VMs.
    pub current: PluginVersion,
    /// Whether it may be used.
    pub enabled: bool,
    /// Milliseconds since the Unix epoch.
    pub installed_at_ms: i64,
    /// Milliseconds since the Unix epoch.
    pub updated_at_ms: i64,
    /// All versions kept, in the order of their installation.
    pub versions: Vec<PluginVersionRow>,
}

/// One version as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginVersionRow {
    /// Unique within the plugin.
    pub version: PluginVersion,
    /// The document, as JSON.
    pub manifest: String,
    /// Milliseconds since the Unix epoch.
    pub installed_at_ms: i64,
}

impl Store {
    /// Stores a version and makes it the current one. A plugin that is new gets `enabled`, one that
    /// is known keeps what it has. The same version with the same manifest is no error; a new one
    /// comes with its artifacts.
    ///
    /// # Errors
    /// [`StoreError::PluginVersionTaken`] when that version has another manifest.
    pub async fn install_plugin(
        &self,
        plugin: PluginRef,
        manifest: String,
        artifacts: Vec<ArtifactEntry>,
        enabled: bool,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        self.transact(move |tx| {
            let (name, version) = (plugin.name.as_str(), plugin.version.as_str());
            tx.execute(
                "INSERT INTO plugins VALUES (?1, ?2, ?3, ?4, ?4) ON CONFLICT (name) \
                 DO UPDATE SET current_version = ?2, updated_at_ms = ?4",
                params![name, version, enabled, now_ms],
            )
            .map_err(sqlite("store a plugin"))?;
            let known: Option<String> = tx
                .query_row(
                    "SELECT manifest FROM plugin_versions WHERE plugin = ?1 AND version = ?2",
                    [name, version],
                    |row| row.get(0),
                )
                .optional()
                .map_err(sqlite("find a plugin's version"))?;
            match known {
                Some(known) if known == manifest => Ok(()),
                Some(_) => Err(StoreError::PluginVersionTaken),
                None => {
                    tx.execute(
                        "INSERT INTO plugin_versions (plugin, version, manifest, installed_at_ms) \
                         VALUES (?1, ?2, ?3, ?4)",
                        params![name, version, manifest, now_ms],
                    )
                    .map_err(sqlite("store a plugin's version"))?;
                    let mut artifacts = artifacts.iter();
                    artifacts
                        .try_for_each(|entry| plugin_artifacts::put(tx, &plugin, entry, now_ms))
                }
            }
        })
        .await
    }

    /// Enables or disables a plugin.
    ///
    /// # Errors
    /// [`StoreError::NoPlugin`].
    pub async fn set_plugin_enabled(
        &self,
        name: PluginName,
        enabled: bool,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        self.transact(move |tx| {
            let changed = tx
                .execute(
                    "UPDATE plugins SET enabled = ?2, updated_at_ms = ?3 WHERE name = ?1",
                    params![name.as_str(), enabled, now_ms],
                )
                .map_err(sqlite("store a plugin"))?;
            if changed == 0 { Err(StoreError::NoPlugin) } else { Ok(()) }
        })
        .await
    }

    /// Makes a version that is kept the current one.
    ///
    /// # Errors
    /// [`StoreError::NoPlugin`] when there is no such plugin or version.
    pub async fn set_plugin_version(
        &self,
        plugin: PluginRef,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        self.transact(move |tx| {
            let changed = tx
                .execute(
                    "UPDATE plugins SET current_version = ?2, updated_at_ms = ?3 WHERE name = ?1 \
                     AND EXISTS (SELECT 1 FROM plugin_versions WHERE plugin = ?1 AND version = ?2)",
                    params![plugin.name.as_str(), plugin.version.as_str(), now_ms],
                )
                .map_err(sqlite("store a plugin"))?;
            if changed == 0 { Err(StoreError::NoPlugin) } else { Ok(()) }
        })
        .await
    }

    /// Removes a plugin that no VM is made of, with all its versions.
    ///
    /// # Errors
    /// [`StoreError::NoPlugin`], [`StoreError::PluginInUse`].
    pub async fn remove_plugin(&self, name: PluginName) -> Result<(), StoreError> {
        self.transact(move |tx| {
            let used: Option<String> = tx
                .query_row(
                    "SELECT name FROM vms WHERE plugin = ?1 ORDER BY id LIMIT 1",
                    [name.as_str()],
                    |row| row.get(0),
                )
                .optional()
                .map_err(sqlite("find a plugin's VMs"))?;
            if let Some(vm) = used {
                return Err(StoreError::PluginInUse { vm });
            }
            let removed = tx
                .execute("DELETE FROM plugins WHERE name = ?1", [name.as_str()])
                .map_err(sqlite("remove a plugin"))?;
            if removed == 0 { Err(StoreError::NoPlugin) } else { Ok(()) }
        })
        .await
    }

    /// All plugins by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_plugins(&self) -> Result<Vec<PluginRow>, StoreError> {
        self.transact(|tx| {
            let step = || sqlite("list plugins");
            let mut statement = tx
                .prepare(
                    "SELECT name, current_version, enabled, installed_at_ms, updated_at_ms \
                     FROM plugins ORDER BY name",
                )
                .map_err(step())?;
            let rows = statement.query_map([], |row| Ok(read(row))).map_err(step())?;
            let rows = rows.map(|row| row.map_err(step())?).collect::<Result<Vec<_>, _>>()?;
            rows.into_iter()
                .map(|row| Ok(PluginRow { versions: versions(tx, &row.name)?, ..row }))
                .collect()
        })
        .await
    }
}

/// Whether a VM may be made of a plugin; part of the transaction that makes it, so that no plugin is
/// removed or disabled under it.
///
/// # Errors
/// [`StoreError::NoPlugin`].
pub fn check_usable(tx: &Transaction<'_>, plugin: &PluginRef) -> Result<(), StoreError> {
    let usable: Option<bool> = tx
        .query_row(
            "SELECT p.enabled FROM plugins p JOIN plugin_versions v ON v.plugin = p.name \
             WHERE p.name = ?1 AND v.version = ?2",
            [plugin.name.as_str(), plugin.version.as_str()],
            |row| row.get(0),
        )
        .optional()
        .map_err(sqlite("find a plugin"))?;
    if usable == Some(true) { Ok(()) } else { Err(StoreError::NoPlugin) }
}

fn versions(tx: &Transaction<'_>, name: &PluginName) -> Result<Vec<PluginVersionRow>, StoreError> {
    let step = || sqlite("list a plugin's versions");
    let mut statement = tx
        .prepare(
            "SELECT version, manifest, installed_at_ms FROM plugin_versions WHERE plugin = ?1 \
             ORDER BY id",
        )
        .map_err(step())?;
    let rows = statement
        .query_map([name.as_str()], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?)))
        .map_err(step())?;
    rows.map(|row| {
        let (version, manifest, installed_at_ms) = row.map_err(step())?;
        let version = PluginVersion::try_from(version.as_str());
        let version = version.map_err(|error| StoreError::Corrupt(error.to_string()))?;
        Ok(PluginVersionRow { version, manifest, installed_at_ms })
    })
    .collect()
}

fn read(row: &Row<'_>) -> Result<PluginRow, StoreError> {
    let step = || sqlite("read a plugin");
    let text = |index: usize| row.get::<_, String>(index).map_err(step());
    let corrupt = |error: crate::model::InvalidWord| StoreError::Corrupt(error.to_string());
    Ok(PluginRow {
        name: PluginName::try_from(text(0)?.as_str()).map_err(corrupt)?,
        current: PluginVersion::try_from(text(1)?.as_str()).map_err(corrupt)?,
        enabled: row.get(2).map_err(step())?,
        installed_at_ms: row.get(3).map_err(step())?,
        updated_at_ms: row.get(4).map_err(step())?,
        versions: Vec::new(),
    })
}
