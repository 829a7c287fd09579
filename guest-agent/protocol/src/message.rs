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
    /// The image that becomes the root; none leaves it in the initramfs.
    #[serde(default)]
    pub root: Option<RootConfig>,
    /// What is mounted in the root, in this order.
    #[serde(default)]
    pub mounts: Vec<MountConfig>,
    /// Whether to offer a shell on the serial console.
    pub console_shell: bool,
    /// What to start, once, when everything else is set.
    #[serde(default)]
    pub workload: Option<Workload>,
}

/// A root of two layers: the disk of serial [`crate::ROOT_DISK_SERIAL`], read-only, and what is
/// written over it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootConfig {
    /// Written to the disk of serial [`crate::OVERLAY_DISK_SERIAL`], else kept in memory.
    pub persistent: bool,
    /// Folders that are made if they are missing.
    pub folders: Vec<String>,
}

/// An ext4 disk that is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountConfig {
    /// Serial of the disk.
    pub serial: String,
    /// Where; made if it is missing.
    pub path: String,
    /// Nothing is written to it.
    pub readonly: bool,
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
    /// What this agent can do: words of [`crate::capability`].
    pub capabilities: Vec<String>,
    /// Kernel release of the guest.
    pub kernel: String,
    /// Milliseconds since the guest booted.
    pub uptime_ms: u64,
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
