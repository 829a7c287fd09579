//! Shapes of a VM's workload.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::wire::ExitView;

/// How a workload is.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct WorkloadView {
    /// `starting`, `ready`, `unhealthy`, `restarting`, `finished`, `failed`.
    pub condition: String,
    /// Why, where there is something to explain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Processes of it that have ended since the VM's start.
    pub exits: u32,
    /// How the latest of them ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<ExitView>,
    /// The kernel killed a process of the latest for want of memory.
    #[serde(default)]
    pub out_of_memory: bool,
    /// Bytes of output that were dropped because nobody took them in time.
    #[serde(default)]
    pub dropped_bytes: u64,
}
