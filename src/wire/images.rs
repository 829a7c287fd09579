//! Shapes of images.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An image.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ImageView {
    /// Its name in full.
    pub reference: String,
    /// Digest of its configuration.
    pub id: String,
    /// Digest of its manifest.
    pub manifest_digest: String,
    /// Names the read-only root that its layers make; equal layers share one.
    pub root_digest: String,
    /// Bytes of the root.
    pub root_bytes: u64,
    /// Bytes of its layers as they came.
    pub layer_bytes: u64,
    /// RFC 3339, UTC: when it came here.
    pub created_at: String,
}

/// `GET /api/v1/images/{name}`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ImageDetailsView {
    /// The image.
    #[serde(flatten)]
    pub image: ImageView,
    /// What it runs, as its configuration has it.
    pub config: serde_json::Value,
    /// Its layers, the lowest first.
    pub layers: Vec<ImageLayerView>,
}

/// A layer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ImageLayerView {
    /// Its digest.
    pub digest: String,
    /// Its bytes as they came.
    pub bytes: u64,
}

/// The image that a VM runs.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct VmImageView {
    /// What it was called when the VM was made.
    pub reference: String,
    /// The read-only root.
    pub root: String,
    /// What is written over it is gone when the VM stops.
    pub ephemeral: bool,
    /// Size in MiB of the disk for what is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay_mb: Option<u64>,
}

/// `POST /api/v1/images/pull`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PullImage {
    /// `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`.
    pub reference: String,
    /// For this pull; they are not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<RegistryAuth>,
    /// Take the one that is here, if there is one.
    pub if_missing: bool,
}

/// Either a name with a password, or a token.
#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RegistryAuth {
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RegistryAuth(hidden)")
    }
}

/// Data of the SSE event `progress`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ImageProgress {
    /// `resolving`, `downloading`, `converting`, `done`.
    pub phase: String,
    /// Bytes done in this phase.
    pub bytes_done: u64,
    /// Bytes to do in this phase; 0 while nobody knows.
    pub bytes_total: u64,
    /// Bytes that an earlier try had downloaded already.
    pub bytes_resumed: u64,
}

/// `POST /api/v1/images/prune`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PruneImages {
    /// Also images that no VM runs.
    pub all: bool,
    /// Only say what would be removed.
    pub dry_run: bool,
}

/// Something that is, or would be, removed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PrunedView {
    /// `image`, `blob`, `partial`, `root`, `artifact`, `disk`.
    pub kind: String,
    /// Reference or digest.
    pub name: String,
    /// Bytes on the disk.
    pub bytes: u64,
}
