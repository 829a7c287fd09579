//! Shapes of the files that VMs are made of, beside images.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `POST /api/v1/plugins/{plugin}/fetch`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FetchPlugin {
    /// Version of the plugin; the current one if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Take downloads that the manifest has no checksum of.
    pub insecure: bool,
}

/// Something that a plugin's VMs are made of, and that is here.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BroughtView {
    /// Where it comes from.
    pub source: String,
    /// Its digest; an image's is its manifest's.
    pub digest: String,
    /// Bytes here.
    pub bytes: u64,
}

/// A file in the store.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct StoredView {
    /// `artifact`, or `disk`: a raw one made of a packed artifact.
    pub kind: String,
    /// Digest of the artifact.
    pub digest: String,
    /// Bytes on the disk.
    pub bytes: u64,
}
