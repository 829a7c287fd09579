//! Shapes of work that takes long.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::wire::ImageProgress;

/// How such work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobStateWord {
    /// Under way.
    Running,
    /// It has done what it was asked to.
    Succeeded,
    /// It has not.
    Failed,
    /// Somebody has ended it.
    Cancelled,
}

/// Work that takes long.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct JobView {
    /// Number, as long as the daemon runs.
    pub id: u64,
    /// `image.pull`, `image.import`, `plugin.fetch` or `build`.
    pub kind: String,
    /// What it is about: a reference, a plugin.
    pub subject: String,
    /// How it is.
    pub state: JobStateWord,
    /// How far it is.
    pub progress: ImageProgress,
    /// Stable code of why it has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Why it has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// RFC 3339, UTC, once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
}
