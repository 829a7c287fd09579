//! Files of a VM, and what its guest tells of itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a path names; a symbolic link is not followed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FileView {
    /// Last part of the path.
    pub name: String,
    /// Absolute path.
    pub path: String,
    /// `file`, `directory`, `symlink`, `fifo`, `socket` or `device`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes.
    pub size: u64,
    /// Permission bits in octal, as `0644`.
    pub mode: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Owner's name, or its number.
    pub user: String,
    /// Group's name, or its number.
    pub group: String,
    /// RFC 3339, UTC.
    pub modified_at: String,
    /// Where a symbolic link leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_target: Option<String>,
}

/// Answer to `GET .../files/list`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FileListView {
    /// Contents.
    pub entries: Vec<FileView>,
    /// There is more.
    pub truncated: bool,
}

/// `POST .../files/move`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveBody {
    /// What.
    #[schemars(regex(pattern = "^/[^\\x00]*$"))]
    pub from: String,
    /// Its new path.
    #[schemars(regex(pattern = "^/[^\\x00]*$"))]
    pub to: String,
    /// Whether a file that is there is replaced.
    #[serde(default)]
    pub replace: bool,
}

/// Data of the events of `GET .../files/watch`; `type` is the event's name too.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FileEventView {
    /// `started`, `create`, `write`, `remove`, `rename`, `chmod` or `overflow`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Absolute path.
    pub path: String,
}

/// `GET .../guest`: what the agent says of itself.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GuestView {
    /// Version of the protocol between daemon and agent.
    pub protocol_version: u32,
    /// Version of the agent.
    pub agent_version: String,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// Kernel release.
    pub kernel: String,
}

/// `GET .../guest/metrics`: counters from the guest's boot on.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GuestMetricsView {
    /// Virtual CPUs that are online.
    pub cpus: u32,
    /// Time that they were busy, in microseconds.
    pub cpu_busy_us: u64,
    /// Time that they were idle, in microseconds.
    pub cpu_idle_us: u64,
    /// Load average of the last minute.
    pub load_1m: f64,
    /// Bytes of memory that the kernel has.
    pub memory_total: u64,
    /// Bytes that programs could still get.
    pub memory_available: u64,
    /// Bytes of page cache.
    pub memory_cached: u64,
    /// Bytes of the root file system.
    pub disk_total: u64,
    /// Bytes of it in use.
    pub disk_used: u64,
    /// Processes.
    pub processes: u32,
    /// Bytes received by eth0.
    pub net_received: u64,
    /// Bytes sent by eth0.
    pub net_sent: u64,
    /// The guest's clock: RFC 3339, UTC.
    pub time: String,
}

/// One of `GET .../guest/ports`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PortView {
    /// Number.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Address it is bound to.
    pub address: String,
    /// A process that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// That process's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
}

/// Answer to `POST .../guest/time`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TimeSyncView {
    /// How far the guest's clock was ahead of the host's, in milliseconds; negative if behind.
    pub was_ahead_ms: i64,
}
