//! What versions of plugins are made of. Those of a manifest are stored with it; an author may add
//! others, or say more of them.

use crate::model::{ArtifactEntry, PluginArtifact, PluginName, PluginRef, PluginVersion};
use crate::orchestrator::plugins::{named, versioned};
use crate::orchestrator::{Error, Orchestrator, PluginError, now_ms};
use crate::plugin::check_artifact;
use crate::store::StoreError;

impl Orchestrator {
    /// The artifacts of a plugin, of one version if given.
    ///
    /// # Errors
    /// [`PluginError::NotFound`].
    pub async fn plugin_artifacts(
        &self,
        plugin: &str,
        version: Option<&str>,
    ) -> Result<Vec<PluginArtifact>, Error> {
        let (name, version) = self.which(plugin, version)?;
        Ok(self.shared.store.list_artifacts(name, version).await?)
    }

    /// One artifact of a version.
    ///
    /// # Errors
    /// [`PluginError`].
    pub async fn plugin_artifact(
        &self,
        plugin: &str,
        version: &str,
        artifact: &str,
    ) -> Result<PluginArtifact, Error> {
        let all = self.plugin_artifacts(plugin, Some(version)).await?;
        let found = all.into_iter().find(|known| known.entry.name == artifact);
        let none = || PluginError::ArtifactNotFound {
            plugin: plugin.to_owned(),
            version: version.to_owned(),
            artifact: artifact.to_owned(),
        };
        Ok(found.ok_or_else(none)?)
    }

    /// Stores an artifact, in the place of one of the same version and name.
    ///
    /// # Errors
    /// [`PluginError`].
    pub async fn put_plugin_artifact(
        &self,
        plugin: &str,
        version: &str,
        entry: ArtifactEntry,
    ) -> Result<(), Error> {
        self.open_for_changes()?;
        check_artifact(&entry).map_err(PluginError::from)?;
        let (name, version) = self.which(plugin, Some(version))?;
        let not_found =
            || PluginError::VersionNotFound { name: plugin.to_owned(), version: String::new() };
        let target = PluginRef { name, version: version.ok_or_else(not_found)? };
        let stored = self.shared.store.put_artifact(target, entry, now_ms()).await;
        stored.map_err(|error| match error {
            StoreError::NoPlugin => Error::from(PluginError::NotFound(plugin.to_owned())),
            StoreError::TooManyArtifacts => PluginError::TooManyArtifacts(plugin.to_owned()).into(),
            other => other.into(),
        })
    }

    /// Forgets the artifacts of a plugin, of one version if given.
    ///
    /// # Errors
    /// [`PluginError::NotFound`].
    pub async fn delete_plugin_artifacts(
        &self,
        plugin: &str,
        version: Option<&str>,
    ) -> Result<(), Error> {
        self.open_for_changes()?;
        let (name, version) = self.which(plugin, version)?;
        Ok(self.shared.store.delete_artifacts(name, version).await?)
    }

    fn which(
        &self,
        plugin: &str,
        version: Option<&str>,
    ) -> Result<(PluginName, Option<PluginVersion>), Error> {
        let known = self.plugin(plugin)?;
        let name = named(plugin)?;
        let version = version.map(|version| versioned(&known.name, version)).transpose()?;
        Ok((name, version))
    }
}
