//! What the guest looks like from inside.

use serde::{Deserialize, Serialize};

/// Answer to `GET /v1/metrics`. Counters grow from the guest's boot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GuestMetrics {
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
    /// Processes, threads not counted.
    pub processes: u32,
    /// Bytes received by eth0.
    pub net_received: u64,
    /// Bytes sent by eth0.
    pub net_sent: u64,
    /// The guest's clock, in milliseconds since the Unix epoch.
    pub unix_ms: u64,
}

/// One of `GET /v1/ports`: something listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ListeningPort {
    /// Number.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Address it is bound to.
    pub address: String,
    /// A process that holds it, if one could be found.
    pub pid: Option<i32>,
    /// That process's name.
    pub program: Option<String>,
}

/// `PUT /v1/time`: the guest's clock is set. Answer: the same, with what the clock was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockTime {
    /// Nanoseconds since the Unix epoch.
    pub unix_time_ns: u64,
}
