//! Shapes of builds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `POST /api/v1/builds`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BuiltView {
    /// The plugin's manifest, with the artifact in it.
    pub manifest: serde_json::Value,
    /// Digest of the artifact: `GET /api/v1/artifacts/{digest}`.
    pub digest: String,
    /// Its bytes.
    pub bytes: u64,
}
