//! Shapes of the E2B control plane, by E2B's own names. Fields that are not known are passed over:
//! its clients are newer or older than this.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `POST /v2/sandboxes`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewSandbox {
    /// A template of the configuration, a plugin, or an image.
    #[serde(rename = "templateID")]
    pub template_id: String,
    /// Seconds that it may live.
    pub timeout: Option<u64>,
    /// Names and values of the client's.
    pub metadata: Option<BTreeMap<String, String>>,
    /// Environment of what runs in it.
    pub env_vars: Option<BTreeMap<String, String>>,
    /// Whether it is paused, rather than killed, at the end of its time.
    pub auto_pause: Option<bool>,
    /// Whether such a pause keeps its memory.
    pub auto_pause_memory: Option<bool>,
    /// How it comes back by itself.
    pub auto_resume: Option<Value>,
    /// Whether it reaches the internet.
    #[serde(rename = "allow_internet_access")]
    pub allow_internet_access: Option<bool>,
    /// What it reaches and who reaches it.
    pub network: Option<Value>,
    /// Its identity elsewhere.
    pub iam: Option<Value>,
    /// MCP servers in it.
    pub mcp: Option<Value>,
    /// Volumes.
    pub volume_mounts: Option<Vec<SandboxVolume>>,
}

/// A volume in a sandbox.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SandboxVolume {
    /// The volume.
    pub name: String,
    /// Where it is mounted.
    pub path: String,
}

/// A sandbox as it is given to who has made it, or connects to it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sandbox {
    /// Its template.
    #[serde(rename = "templateID")]
    pub template_id: String,
    /// Its name, which is the VM's.
    #[serde(rename = "sandboxID")]
    pub sandbox_id: String,
    /// Of old; always the same.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// What its services can do, in E2B's numbers.
    pub envd_version: String,
    /// Opens its processes and files.
    pub envd_access_token: String,
    /// Opens its ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic_access_token: Option<String>,
    /// Below which its ports have names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
}

/// A sandbox in a list, and with more alone.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedSandbox {
    /// Its template.
    #[serde(rename = "templateID")]
    pub template_id: String,
    /// Its name.
    #[serde(rename = "sandboxID")]
    pub sandbox_id: String,
    /// Of old; always the same.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339.
    pub end_at: String,
    /// Virtual CPUs.
    pub cpu_count: u32,
    /// RAM in MiB.
    #[serde(rename = "memoryMB")]
    pub memory_mb: u64,
    /// Size of its own disk in MiB.
    #[serde(rename = "diskSizeMB")]
    pub disk_size_mb: u64,
    /// `running` or `paused`.
    pub state: String,
    /// What its services can do, in E2B's numbers.
    pub envd_version: String,
    /// Names and values of the client's.
    pub metadata: BTreeMap<String, String>,
    /// Its volumes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volume_mounts: Vec<SandboxVolume>,
    /// Only of one alone.
    #[serde(flatten)]
    pub detail: Option<SandboxDetail>,
}

/// What is told of one sandbox beyond what a list has.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxDetail {
    /// Opens its processes and files; told to who may use it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envd_access_token: Option<String>,
    /// Below which its ports have names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// What follows the end of its time.
    pub lifecycle: SandboxLifecycle,
}

/// What follows the end of a sandbox's time.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxLifecycle {
    /// `kill` or `pause`.
    pub on_timeout: String,
    /// Whether it comes back by itself: never.
    pub auto_resume: bool,
}

/// `POST /v2/sandboxes/{id}/connect`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct ConnectSandbox {
    /// Seconds that it may live from now.
    pub timeout: Option<u64>,
    /// Whether the memory of a paused one comes back.
    pub memory: Option<bool>,
}

/// `POST /sandboxes/{id}/timeout`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct SandboxTimeout {
    /// Seconds that it may live from now.
    pub timeout: u64,
}

/// `POST /sandboxes/{id}/refreshes`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct SandboxRefresh {
    /// Seconds that it may live from now, at least.
    pub duration: Option<u64>,
}

/// `POST /sandboxes/{id}/pause`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct SandboxPause {
    /// Whether its memory is kept; so if absent.
    pub memory: Option<bool>,
}

/// A look at what a sandbox uses.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxMetric {
    /// RFC 3339.
    pub timestamp: String,
    /// Seconds since the Unix epoch.
    pub timestamp_unix: i64,
    /// Virtual CPUs.
    pub cpu_count: u32,
    /// How busy they are, in percent of all.
    pub cpu_used_pct: f64,
    /// Bytes.
    pub mem_used: u64,
    /// Bytes.
    pub mem_total: u64,
    /// Bytes.
    pub mem_cache: u64,
    /// Bytes.
    pub disk_used: u64,
    /// Bytes.
    pub disk_total: u64,
}

/// `GET /v2/sandboxes/{id}/logs`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SandboxLogs {
    /// The last lines, oldest first.
    pub logs: Vec<SandboxLogEntry>,
}

/// A line that a sandbox's workload has written.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SandboxLogEntry {
    /// RFC 3339.
    pub timestamp: String,
    /// `info`, or `error` for stderr.
    pub level: String,
    /// The line.
    pub message: String,
    /// More of it: the stream.
    pub fields: BTreeMap<String, String>,
}

/// E2B's error.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct E2bError {
    /// HTTP status.
    pub code: u16,
    /// What went wrong.
    pub message: String,
    /// The stable code of docs/http-status.md.
    pub error_code: String,
}
