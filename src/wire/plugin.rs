//! Shapes of the plugin registry. The manifest itself is shown as it is kept; its JSON Schema is at
//! `/api/v1/schemas/plugin-manifest`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `GET /api/v1/plugins`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct PluginList {
    /// Names, sorted, as the original Volant lists them.
    pub plugins: Vec<String>,
    /// The same plugins with what is known of each.
    #[serde(default)]
    pub items: Vec<PluginView>,
}

/// An installed plugin.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PluginView {
    /// Unique name.
    pub name: String,
    /// The version of new VMs.
    pub version: String,
    /// Whether it may be used.
    pub enabled: bool,
    /// The class of workload.
    pub runtime: String,
    /// Names of its actions.
    pub actions: Vec<String>,
    /// VMs that are made of it.
    pub vms: usize,
    /// All versions, in the order of their installation.
    pub versions: Vec<PluginVersionView>,
    /// RFC 3339, UTC.
    pub installed_at: String,
    /// RFC 3339, UTC.
    pub updated_at: String,
}

/// One version of a plugin.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PluginVersionView {
    /// Its name.
    pub version: String,
    /// RFC 3339, UTC.
    pub installed_at: String,
}

/// `POST /api/v1/plugins/{plugin}/enabled`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetEnabled {
    /// Whether it may be used.
    pub enabled: bool,
}

/// `POST /api/v1/plugins/{plugin}/rollback`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rollback {
    /// The version to make current; the one installed before the current one if absent.
    pub version: Option<String>,
}

/// `POST /api/v1/plugins/{plugin}/artifacts`. What is left out is not known.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PutArtifact {
    /// Version of the plugin.
    pub version: String,
    /// Unique within the version.
    pub artifact_name: String,
    /// For example `rootfs` or `initramfs`.
    #[serde(default)]
    pub kind: String,
    /// Where it comes from.
    #[serde(default)]
    pub source_url: String,
    /// `sha256:` and 64 hexadecimal digits.
    #[serde(default)]
    pub checksum: String,
    /// For example `raw`.
    #[serde(default)]
    pub format: String,
    /// Where it is on the host.
    #[serde(default)]
    pub local_path: String,
    /// Its size.
    #[serde(default)]
    pub size_bytes: u64,
}

/// An artifact. The names are those of the original Volant, which shows its own structure.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ArtifactView {
    /// Number.
    #[serde(rename = "ID")]
    pub id: i64,
    /// The plugin.
    pub plugin_name: String,
    /// Its version.
    pub version: String,
    /// Unique within the version.
    pub artifact_name: String,
    /// For example `rootfs` or `initramfs`.
    pub kind: String,
    /// Where it comes from.
    #[serde(rename = "SourceURL")]
    pub source_url: String,
    /// `sha256:` and 64 hexadecimal digits.
    pub checksum: String,
    /// For example `raw`.
    pub format: String,
    /// Where it is on the host.
    pub local_path: String,
    /// Its size; 0 if it is not known.
    pub size_bytes: u64,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// RFC 3339, UTC.
    pub updated_at: String,
}
