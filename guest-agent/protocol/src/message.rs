//! JSON messages.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::Workload;

/// `PUT /v1/config`: everything the guest must know, sent once after boot. Answer: [`AgentInfo`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestConfig {
    /// Host name (the VM's name).
    pub hostname: String,
    /// The network card's settings; none leaves it down.
    pub network: Option<NetworkConfig>,
    /// Environment of every process that the agent starts.
    pub env: BTreeMap<String, String>,
    /// Host time in nanoseconds since the Unix epoch.
    pub unix_time_ns: u64,
    /// Whether to offer a shell on the serial console.
    pub console_shell: bool,
    /// What to start, once, when everything else is set.
    #[serde(default)]
    pub workload: Option<Workload>,
}

/// Static IPv4 settings of `eth0`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// The leased address.
    pub address: Ipv4Addr,
    /// Length of the network prefix, 1 to 32.
    pub prefix_len: u8,
    /// Default route.
    pub gateway: Ipv4Addr,
    /// Name servers for /etc/resolv.conf.
    pub dns: Vec<Ipv4Addr>,
}

/// Answer to `PUT /v1/config` and `GET /v1/health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInfo {
    /// [`crate::PROTOCOL_VERSION`] of the agent.
    pub protocol_version: u32,
    /// Version of the agent's package.
    pub agent_version: String,
    /// What this agent can do, e.g. `exec`, `tcp`.
    pub capabilities: Vec<String>,
    /// Kernel release of the guest.
    pub kernel: String,
    /// Milliseconds since the guest booted.
    pub uptime_ms: u64,
}

/// `POST /v1/exec` with `Upgrade: volant-exec`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Program and arguments; the program is looked up in `PATH` unless it contains `/`.
    pub argv: Vec<String>,
    /// Added to the guest's environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Working directory; `/` if absent.
    #[serde(default)]
    pub cwd: Option<String>,
    /// `name`, `uid` or `uid:gid`; root if absent.
    #[serde(default)]
    pub user: Option<String>,
    /// The process tree is killed after this many milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Whether stdin frames will come; otherwise stdin is empty.
    #[serde(default)]
    pub stdin: bool,
}

/// Payload of an exit frame: how the process ended. Exactly one of `code` and `signal` is set
/// unless the process could not be started, when `error` is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecStatus {
    /// Exit code.
    pub code: Option<i32>,
    /// Number of the signal that ended it.
    pub signal: Option<i32>,
    /// The deadline killed it.
    pub timed_out: bool,
    /// Why it never ran (127: not found, 126: not executable are in `code` too).
    pub error: Option<String>,
}

/// `POST /v1/shutdown`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShutdownRequest {
    /// What follows.
    pub mode: ShutdownMode,
    /// How long processes have between SIGTERM and SIGKILL, in milliseconds.
    pub grace_ms: u64,
}

/// How the guest ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShutdownMode {
    /// The machine ends.
    Poweroff,
    /// The machine ends with the reason "reset".
    Reboot,
}
