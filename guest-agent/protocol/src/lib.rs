//! What volantd and volary say to each other: ports, messages, frames and limits.
//!
//! The agent speaks HTTP/1.1 over vsock. At boot it dials the host ([`HOST_PORT`]) once and serves
//! HTTP **on that connection**, so that the host needs no retry: the host's first request there is
//! `PUT /v1/config`. All later requests arrive on connections that the host opens to
//! [`AGENT_PORT`]. No I/O and no clock here: bytes in, bytes out.

mod file;
mod frame;
mod message;
mod observe;
mod process;
mod signal;
mod workload;

pub use file::{FileEvent, FileEventKind, FileInfo, FileKind, FileList, MoveRequest};
pub use frame::{Decoder, Frame, FrameError, FrameKind};
pub use message::{
    AgentInfo, GuestConfig, MountConfig, NetworkConfig, RootConfig, ShutdownMode, ShutdownRequest,
};
pub use observe::{ClockTime, GuestMetrics, ListeningPort};
pub use process::{
    Deadline, ProcessInfo, ProcessRequest, ProcessStatus, SignalRequest, TerminalSize,
};
pub use signal::signal_number;
pub use workload::{
    HealthCheck, Probe, Restart, RestartPolicy, Workload, WorkloadCondition, WorkloadExit,
    WorkloadReport,
};

/// Serial of the disk with a guest's read-only root.
pub const ROOT_DISK_SERIAL: &str = "volant-root";
/// Serial of the disk with what a guest writes over its root.
pub const OVERLAY_DISK_SERIAL: &str = "volant-overlay";
/// vsock port on which the agent listens.
pub const AGENT_PORT: u32 = 1024;
/// vsock port of the host (CID 2) that the agent dials once at boot.
pub const HOST_PORT: u32 = 1024;
/// Grows when a message changes its meaning; host and agent must have the same.
pub const PROTOCOL_VERSION: u32 = 2;
/// `Upgrade` token of an attachment to a process: [`Frame`]s both ways after the 101.
pub const EXEC_UPGRADE: &str = "volant-exec";
/// `Upgrade` token of a raw byte stream to a TCP port in the guest (`GET /v1/tcp/{port}`).
pub const TCP_UPGRADE: &str = "tcp";
/// `Upgrade` token of `GET /v1/workload`: after the 101 the agent sends [`Frame`]s, first a report,
/// then reports and output as they come. A later follower takes the place of an earlier one.
pub const WORKLOAD_UPGRADE: &str = "volant-workload";
/// The largest payload of one frame, in bytes.
pub const FRAME_LEN_MAX: usize = 64 * 1024;
/// The largest JSON body of a request to the agent, in bytes.
pub const BODY_LEN_MAX: usize = 1024 * 1024;
/// The longest tag of a process, in bytes.
pub const TAG_LEN_MAX: usize = 256;

/// The longest path, in bytes (PATH_MAX of Linux).
pub const PATH_LEN_MAX: usize = 4096;
/// The most files that one listing holds.
pub const LIST_LEN_MAX: usize = 10_000;
/// The largest JSON of a listing, in bytes.
pub const LIST_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Words of [`AgentInfo::capabilities`].
pub mod capability {
    /// `/v1/files`.
    pub const FILES: &str = "files";
    /// `/v1/metrics`, `/v1/ports` and `/v1/time`.
    pub const OBSERVE: &str = "observe";
    /// `/v1/processes`.
    pub const PROCESSES: &str = "processes";
    /// `/v1/tcp/{port}`.
    pub const TCP: &str = "tcp";
    /// `/v1/workload`.
    pub const WORKLOAD: &str = "workload";
    /// `/v1/shutdown`.
    pub const SHUTDOWN: &str = "shutdown";
}
