//! Which plugins are installed, and the VMs that they make. The store has the truth; this is its
//! reflection with the manifests read, replaced under one lock after each change.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::model::{Kind, NewVm, PluginName, PluginRef, PluginVersion};
use crate::orchestrator::{Error, Orchestrator, now_ms};
use crate::plugin::{self, InvalidManifest, Language, Manifest, MergeError, Refused, VmRequest};
use crate::store::{PluginRow, Store, StoreError};

/// Versions of one plugin.
const VERSIONS_MAX: usize = 100;

/// An installed plugin.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// Unique name.
    pub name: PluginName,
    /// Whether it may be used.
    pub enabled: bool,
    /// The version of new VMs.
    pub current: PluginVersion,
    /// All versions, in the order of their installation.
    pub versions: Vec<InstalledVersion>,
    /// Milliseconds since the Unix epoch.
    pub installed_at_ms: i64,
    /// Milliseconds since the Unix epoch.
    pub updated_at_ms: i64,
}

/// One version of a plugin.
#[derive(Clone, Debug)]
pub struct InstalledVersion {
    /// Its name.
    pub version: PluginVersion,
    /// What it says.
    pub manifest: Arc<Manifest>,
    /// Milliseconds since the Unix epoch.
    pub installed_at_ms: i64,
}

impl Plugin {
    /// The manifest of a version; of the current one if absent.
    pub fn manifest(&self, version: Option<&PluginVersion>) -> Option<&Arc<Manifest>> {
        let version = version.unwrap_or(&self.current);
        self.versions.iter().find(|known| known.version == *version).map(|known| &known.manifest)
    }
}

/// A refusal that concerns plugins.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// No plugin of that name.
    #[error("there is no plugin {0:?}")]
    NotFound(String),
    /// No such version of it.
    #[error("plugin {name:?} has no version {version:?}")]
    VersionNotFound {
        /// The plugin.
        name: String,
        /// The version.
        version: String,
    },
    /// No such artifact of a version.
    #[error("version {version:?} of plugin {plugin:?} has no artifact {artifact:?}")]
    ArtifactNotFound {
        /// The plugin.
        plugin: String,
        /// The version.
        version: String,
        /// The artifact.
        artifact: String,
    },
    /// It has as many artifacts as are kept.
    #[error("plugin {0:?} has as many artifacts as are kept")]
    TooManyArtifacts(String),
    /// It is disabled.
    #[error("plugin {0:?} is disabled")]
    Disabled(String),
    /// The version is installed with another manifest.
    #[error("version {version:?} of plugin {name:?} is installed with another manifest")]
    VersionTaken {
        /// The plugin.
        name: String,
        /// The version.
        version: String,
    },
    /// It has as many versions as are kept.
    #[error("plugin {0:?} has {VERSIONS_MAX} versions")]
    TooManyVersions(String),
    /// No version was installed before the current one.
    #[error("plugin {0:?} has no version before the current one")]
    NoEarlierVersion(String),
    /// VMs are made of it.
    #[error("VM {vm:?} is made of plugin {name:?}")]
    InUse {
        /// The plugin.
        name: String,
        /// One of its VMs.
        vm: String,
    },
    /// The document is no manifest.
    #[error(transparent)]
    Manifest(#[from] InvalidManifest),
    /// The request does not fit the manifest, or the manifest this daemon.
    #[error(transparent)]
    Merge(#[from] MergeError),
}

impl PluginError {
    /// Who must act.
    pub fn kind(&self) -> Kind {
        match self {
            PluginError::NotFound(_)
            | PluginError::VersionNotFound { .. }
            | PluginError::ArtifactNotFound { .. } => Kind::NotFound,
            PluginError::Disabled(_)
            | PluginError::VersionTaken { .. }
            | PluginError::NoEarlierVersion(_)
            | PluginError::InUse { .. } => Kind::Conflict,
            PluginError::TooManyVersions(_) | PluginError::TooManyArtifacts(_) => Kind::Exhausted,
            PluginError::Manifest(_) | PluginError::Merge(_) => Kind::Invalid,
        }
    }

    /// Stable code; docs/http-status.md lists them.
    pub fn code(&self) -> &'static str {
        match self {
            PluginError::NotFound(_) => "plugin_not_found",
            PluginError::VersionNotFound { .. } => "plugin_version_not_found",
            PluginError::ArtifactNotFound { .. } => "plugin_artifact_not_found",
            PluginError::TooManyArtifacts(_) => "plugin_artifacts_exhausted",
            PluginError::Disabled(_) => "plugin_disabled",
            PluginError::VersionTaken { .. } => "plugin_version_exists",
            PluginError::TooManyVersions(_) => "plugin_versions_exhausted",
            PluginError::NoEarlierVersion(_) => "plugin_no_earlier_version",
            PluginError::InUse { .. } => "plugin_in_use",
            PluginError::Manifest(_) => "invalid_manifest",
            PluginError::Merge(MergeError::Unsupported(_)) => "unsupported_manifest",
            PluginError::Merge(MergeError::Runtime { .. } | MergeError::Label { .. }) => {
                "invalid_spec"
            }
        }
    }

    /// What the user can do about it, if there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            PluginError::NotFound(_) => Some("`volantd ctl plugins list` shows what is installed"),
            PluginError::Disabled(_) => Some("`volantd ctl plugins enable NAME` enables it"),
            PluginError::VersionTaken { .. } => Some("give the changed manifest a new version"),
            PluginError::TooManyVersions(_) => Some("remove the plugin, then install it anew"),
            PluginError::InUse { .. } => Some("delete its VMs first"),
            PluginError::Manifest(_) => Some("docs/plugins.md explains the fields"),
            _ => None,
        }
    }
}

/// The reflection.
#[derive(Debug, Default)]
pub struct Registry {
    plugins: RwLock<BTreeMap<PluginName, Arc<Plugin>>>,
    /// One change at a time, from the store's answer to the reflection.
    changing: tokio::sync::Mutex<()>,
}

impl Registry {
    /// Reads everything from the store.
    ///
    /// # Errors
    /// The store's.
    pub async fn load(&self, store: &Store) -> Result<(), StoreError> {
        let rows = store.list_plugins().await?;
        let plugins = rows.into_iter().map(read).map(|plugin| (plugin.name.clone(), plugin));
        *self.plugins.write().unwrap_or_else(PoisonError::into_inner) = plugins.collect();
        Ok(())
    }

    fn find(&self, name: &PluginName) -> Result<Arc<Plugin>, PluginError> {
        let plugins = self.plugins.read().unwrap_or_else(PoisonError::into_inner);
        plugins.get(name).cloned().ok_or_else(|| PluginError::NotFound(name.to_string()))
    }
}

/// A version whose manifest this program does not understand was stored by another one; it is left
/// out, and told, rather than taking the registry down.
fn read(row: PluginRow) -> Arc<Plugin> {
    let mut versions = Vec::new();
    for stored in row.versions {
        match plugin::manifest(stored.manifest.as_bytes(), Language::Json) {
            Ok(manifest) => versions.push(InstalledVersion {
                version: stored.version,
                manifest: Arc::new(manifest),
                installed_at_ms: stored.installed_at_ms,
            }),
            Err(error) => tracing::error!(
                plugin = %row.name, version = %stored.version, %error,
                "a stored manifest is not understood"
            ),
        }
    }
    Arc::new(Plugin {
        name: row.name,
        enabled: row.enabled,
        current: row.current,
        versions,
        installed_at_ms: row.installed_at_ms,
        updated_at_ms: row.updated_at_ms,
    })
}

/// A name as clients write it.
///
/// # Errors
/// [`PluginError::NotFound`].
pub fn named(text: &str) -> Result<PluginName, PluginError> {
    // A name that cannot be one is a name that is not there.
    PluginName::try_from(text).map_err(|_| PluginError::NotFound(text.to_owned()))
}

/// A version as clients write it.
///
/// # Errors
/// [`PluginError::VersionNotFound`].
pub fn versioned(name: &PluginName, text: &str) -> Result<PluginVersion, PluginError> {
    PluginVersion::try_from(text).map_err(|_| PluginError::VersionNotFound {
        name: name.to_string(),
        version: text.to_owned(),
    })
}

impl Orchestrator {
    /// Installs the manifest in `document` and makes its version the current one. `name`, if given,
    /// must be the manifest's.
    ///
    /// # Errors
    /// [`PluginError`].
    pub async fn install_plugin(
        &self,
        document: &[u8],
        language: Language,
        name: Option<&str>,
    ) -> Result<Arc<Plugin>, Error> {
        self.open_for_changes()?;
        let manifest = plugin::manifest(document, language).map_err(PluginError::from)?;
        if let Some(name) = name.filter(|name| *name != manifest.name) {
            let reason = format!("{:?} is not the name given, {name:?}", manifest.name);
            let refused = vec![Refused::new("/name", reason)];
            return Err(PluginError::Manifest(InvalidManifest { refused }).into());
        }
        let name = named(&manifest.name)?;
        let version = versioned(&name, &manifest.version)?;
        let registry = &self.shared.plugins;
        let text = serde_json::to_string(&manifest)
            .map_err(|_| Error::Internal("a manifest cannot be encoded"))?;
        let _changing = registry.changing.lock().await;
        let known = registry.find(&name).ok();
        if known.is_some_and(|known| {
            VERSIONS_MAX <= known.versions.len() && known.manifest(Some(&version)).is_none()
        }) {
            return Err(PluginError::TooManyVersions(name.to_string()).into());
        }
        let plugin = PluginRef { name: name.clone(), version: version.clone() };
        let (artifacts, enabled) = (plugin::artifacts_of(&manifest), manifest.enabled);
        let store = &self.shared.store;
        let stored = store.install_plugin(plugin, text, artifacts, enabled, now_ms()).await;
        stored.map_err(|error| match error {
            StoreError::PluginVersionTaken => Error::from(PluginError::VersionTaken {
                name: name.to_string(),
                version: version.to_string(),
            }),
            other => other.into(),
        })?;
        registry.load(&self.shared.store).await?;
        Ok(registry.find(&name)?)
    }

    /// All plugins by name.
    pub fn list_plugins(&self) -> Vec<Arc<Plugin>> {
        let plugins = self.shared.plugins.plugins.read().unwrap_or_else(PoisonError::into_inner);
        plugins.values().cloned().collect()
    }

    /// One plugin.
    ///
    /// # Errors
    /// [`PluginError::NotFound`].
    pub fn plugin(&self, name: &str) -> Result<Arc<Plugin>, Error> {
        Ok(self.shared.plugins.find(&named(name)?)?)
    }

    /// The manifest of a version; of the current one if absent.
    ///
    /// # Errors
    /// [`PluginError`].
    pub fn manifest(&self, name: &str, version: Option<&str>) -> Result<Arc<Manifest>, Error> {
        let plugin = self.plugin(name)?;
        let version = version.map(|version| versioned(&plugin.name, version)).transpose()?;
        let manifest = plugin.manifest(version.as_ref()).cloned();
        manifest.ok_or_else(|| {
            let version = version.as_ref().unwrap_or(&plugin.current).to_string();
            PluginError::VersionNotFound { name: plugin.name.to_string(), version }.into()
        })
    }

    /// Enables or disables a plugin. A disabled one makes no VMs and answers no actions; its VMs
    /// go on.
    ///
    /// # Errors
    /// [`PluginError::NotFound`].
    pub async fn set_plugin_enabled(
        &self,
        name: &str,
        enabled: bool,
    ) -> Result<Arc<Plugin>, Error> {
        let name = named(name)?;
        self.change_plugin(&name, |store| {
            store.set_plugin_enabled(name.clone(), enabled, now_ms())
        })
        .await?;
        Ok(self.shared.plugins.find(&name)?)
    }

    /// Makes an installed version the current one; the one installed before the current one if
    /// absent. VMs keep the version that they were made of.
    ///
    /// # Errors
    /// [`PluginError`].
    pub async fn roll_back_plugin(
        &self,
        name: &str,
        version: Option<&str>,
    ) -> Result<Arc<Plugin>, Error> {
        let plugin = self.plugin(name)?;
        let name = plugin.name.clone();
        let version = match version {
            Some(version) => {
                self.manifest(name.as_str(), Some(version))?;
                versioned(&name, version)?
            }
            None => {
                let mut earlier =
                    plugin.versions.iter().take_while(|known| known.version != plugin.current);
                let last = earlier.by_ref().last();
                let none = || PluginError::NoEarlierVersion(name.to_string());
                last.ok_or_else(none)?.version.clone()
            }
        };
        let target = PluginRef { name: name.clone(), version };
        self.change_plugin(&name, |store| store.set_plugin_version(target, now_ms())).await?;
        Ok(self.shared.plugins.find(&name)?)
    }

    /// Removes a plugin with all its versions.
    ///
    /// # Errors
    /// [`PluginError::InUse`] while VMs are made of it.
    pub async fn remove_plugin(&self, name: &str) -> Result<(), Error> {
        let name = named(name)?;
        self.change_plugin(&name, |store| store.remove_plugin(name.clone())).await
    }

    async fn change_plugin<'a, F>(
        &'a self,
        name: &PluginName,
        change: impl FnOnce(&'a Store) -> F,
    ) -> Result<(), Error>
    where
        F: Future<Output = Result<(), StoreError>>,
    {
        self.open_for_changes()?;
        let registry = &self.shared.plugins;
        let _changing = registry.changing.lock().await;
        change(&self.shared.store).await.map_err(|error| match error {
            StoreError::NoPlugin => Error::from(PluginError::NotFound(name.to_string())),
            StoreError::PluginInUse { vm } => {
                PluginError::InUse { name: name.to_string(), vm }.into()
            }
            other => other.into(),
        })?;
        Ok(registry.load(&self.shared.store).await?)
    }

    /// The VM that a request describes, of a plugin if it names one.
    ///
    /// # Errors
    /// [`PluginError`].
    pub fn plan(
        &self,
        plugin: Option<(&str, Option<&str>)>,
        request: VmRequest,
    ) -> Result<NewVm, Error> {
        let manifest = match plugin {
            None => None,
            Some((name, version)) => {
                let plugin = self.plugin(name)?;
                if !plugin.enabled {
                    return Err(PluginError::Disabled(name.to_owned()).into());
                }
                Some(self.manifest(name, version)?)
            }
        };
        Ok(plugin::merge(manifest.as_deref(), request).map_err(PluginError::from)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn opened() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state.db")).unwrap();
        (folder, store)
    }

    #[tokio::test]
    async fn a_manifest_that_is_not_understood_leaves_the_others() {
        let (_folder, store) = opened().await;
        let reference = |name: &str, version: &str| PluginRef {
            name: PluginName::try_from(name).unwrap(),
            version: PluginVersion::try_from(version).unwrap(),
        };
        let good = serde_json::json!({
            "name": "web", "version": "1", "initramfs": { "url": "builtin:default" },
            "resources": { "cpu_cores": 1, "memory_mb": 64 },
            "workload": { "entrypoint": "httpd" }
        });
        store
            .install_plugin(reference("web", "1"), good.to_string(), Vec::new(), true, 1)
            .await
            .unwrap();
        let broken = "{\"from\": \"the future\"}".to_owned();
        store.install_plugin(reference("web", "2"), broken, Vec::new(), true, 2).await.unwrap();
        let registry = Registry::default();
        registry.load(&store).await.unwrap();
        let plugin = registry.find(&PluginName::try_from("web").unwrap()).unwrap();
        assert_eq!((plugin.versions.len(), plugin.current.as_str()), (1, "2"));
        assert!(plugin.manifest(None).is_none());
        let first = PluginVersion::try_from("1").unwrap();
        assert_eq!(plugin.manifest(Some(&first)).unwrap().name, "web");
    }
}
