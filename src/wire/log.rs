//! What a workload has written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A message of `GET /ws/v1/vms/{name}/logs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// The VM's name.
    pub name: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// Without its end; what is no UTF-8 is replaced.
    pub line: String,
    /// When it arrived: RFC 3339, UTC.
    pub timestamp: String,
    /// Whether the line goes on in the next message of the same stream.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}
