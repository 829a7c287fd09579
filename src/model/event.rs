//! What happened to a VM, as told to subscribers.

use std::net::Ipv4Addr;

use crate::model::{Mac, VmId, VmName};

/// The kinds of lifecycle event; the words on the wire are those of the original Volant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The record exists.
    Created,
    /// A start is under way.
    Starting,
    /// The agent has answered.
    Running,
    /// A stop is under way.
    Stopping,
    /// The machine is gone, as asked or by the guest's own power-off.
    Stopped,
    /// The machine is gone and nobody asked.
    Crashed,
    /// The record is gone.
    Deleted,
    /// The workload is healthy, or runs and has no health check.
    Ready,
    /// The workload's health check has failed as often as it may.
    Unhealthy,
    /// A process of the workload has ended, or could not be started.
    WorkloadExited,
    /// The workload is done and not started again.
    WorkloadFinished,
    /// The workload is given up.
    WorkloadFailed,
    /// The VM's time is over.
    Expired,
}

impl EventKind {
    /// All of them.
    pub const ALL: [EventKind; 13] = [
        EventKind::Created,
        EventKind::Starting,
        EventKind::Running,
        EventKind::Stopping,
        EventKind::Stopped,
        EventKind::Crashed,
        EventKind::Deleted,
        EventKind::Ready,
        EventKind::Unhealthy,
        EventKind::WorkloadExited,
        EventKind::WorkloadFinished,
        EventKind::WorkloadFailed,
        EventKind::Expired,
    ];

    /// The word on the wire and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Created => "VM_CREATED",
            EventKind::Starting => "VM_STARTING",
            EventKind::Running => "VM_RUNNING",
            EventKind::Stopping => "VM_STOPPING",
            EventKind::Stopped => "VM_STOPPED",
            EventKind::Crashed => "VM_CRASHED",
            EventKind::Deleted => "VM_DELETED",
            EventKind::Ready => "VM_READY",
            EventKind::Unhealthy => "VM_UNHEALTHY",
            EventKind::WorkloadExited => "VM_WORKLOAD_EXITED",
            EventKind::WorkloadFinished => "VM_WORKLOAD_FINISHED",
            EventKind::WorkloadFailed => "VM_WORKLOAD_FAILED",
            EventKind::Expired => "VM_EXPIRED",
        }
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Grows by one for each event; survives restarts.
    pub id: i64,
    /// Milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// What happened.
    pub kind: EventKind,
    /// The VM's number.
    pub vm_id: VmId,
    /// The VM's name.
    pub name: VmName,
    /// The state after it, as [`crate::model::VmState::as_str`].
    pub status: String,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its network card.
    pub mac: Mac,
    /// One sentence.
    pub message: String,
}
