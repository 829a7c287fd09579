//! A live machine and the handle that makes them.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kvm_ioctls::VmFd;
use vm_memory::GuestMemoryMmap;

use crate::vmm::device::SerialPort;
use crate::vmm::event_loop::{EventLoops, Registration};
use crate::vmm::kvm::HostKvm;
use crate::vmm::vcpu::{Counters, VcpuHandle, install_signal_handler};
use crate::vmm::virtio::blk::pool::Pool;
use crate::vmm::{Console, Error, Exit, OnExit, Spec, Vsock, build, lock};

/// The host's KVM, opened and checked once, and the device loops that all machines share.
#[derive(Clone, Debug)]
pub struct Hypervisor {
    kvm: Arc<HostKvm>,
    loops: Arc<EventLoops>,
    disks: Arc<Pool>,
}

impl Hypervisor {
    /// Takes `/dev/kvm`, checks its version and capabilities, and starts `loops` device threads.
    ///
    /// # Errors
    /// [`Error::Host`] names the missing capability.
    pub fn new(kvm: OwnedFd, loops: usize) -> Result<Hypervisor, Error> {
        install_signal_handler()?;
        let kvm = Arc::new(HostKvm::new(kvm)?);
        Ok(Hypervisor { kvm, loops: Arc::new(EventLoops::start(loops)?), disks: Arc::default() })
    }

    /// Returns once all device loops have answered. Blocks.
    ///
    /// # Errors
    /// A loop is gone.
    pub fn pulse(&self) -> Result<(), Error> {
        self.loops.pulse()
    }

    /// Builds a machine, its vCPUs held. Blocks for some milliseconds: not for an async task.
    ///
    /// # Errors
    /// [`Error`]; nothing is left behind.
    pub fn build(&self, spec: Spec, on_exit: OnExit) -> Result<Machine, Error> {
        build::build(&self.kvm, &self.loops, &self.disks, spec, on_exit, Instant::now())
    }
}

/// Numbers of a machine since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Returns of KVM_RUN, all vCPUs.
    pub exits: u64,
    /// Nanoseconds from [`Hypervisor::build`] to the first KVM_RUN; 0 before.
    pub first_instruction_ns: u64,
}

/// The one way in which a machine ends, whoever begins it.
pub struct Ending {
    pub(super) on_exit: Mutex<Option<OnExit>>,
    pub(super) vsock: Vsock,
    pub(super) serial: Arc<SerialPort>,
    /// Filled once all vCPUs are spawned; weak so that threads do not keep themselves alive.
    pub(super) vcpus: Mutex<std::sync::Weak<Mutex<Vec<VcpuHandle>>>>,
}

impl std::fmt::Debug for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ending").finish_non_exhaustive()
    }
}

impl Ending {
    /// Ends the machine: the first reason counts. From any thread of the machine or outside.
    pub fn finish(&self, exit: Exit) {
        let Some(on_exit) = lock(&self.on_exit).take() else { return };
        let vcpus = lock(&self.vcpus).upgrade();
        if let Some(vcpus) = vcpus {
            lock(&vcpus).iter().for_each(VcpuHandle::end);
        }
        // First the reason, then the connections: whoever sees one broken can learn why.
        on_exit(exit);
        self.vsock.close();
        self.serial.close();
    }
}

/// A live machine. Dropping it stops it.
///
/// Field order is drop order: devices leave their loops before the VM goes, the VM before its RAM.
#[derive(Debug)]
pub struct Machine {
    pub(super) vcpus: Arc<Mutex<Vec<VcpuHandle>>>,
    pub(super) registrations: Vec<Registration>,
    pub(super) ending: Arc<Ending>,
    pub(super) counters: Arc<Counters>,
    pub(super) _vm: VmFd,
    pub(super) _memory: Arc<GuestMemoryMmap>,
}

impl Machine {
    /// How long dropping waits for the machine's threads.
    const DROP_TIMEOUT: Duration = Duration::from_secs(5);

    /// Lets the vCPUs run: the first time, or after [`Machine::pause`].
    pub fn resume(&self) {
        lock(&self.vcpus).iter().for_each(VcpuHandle::run);
    }

    /// Stops the vCPUs at an instruction boundary; returns when all have stopped.
    ///
    /// # Errors
    /// [`Error::Host`] when a vCPU does not stop in time.
    pub fn pause(&self) -> Result<(), Error> {
        let vcpus = lock(&self.vcpus);
        vcpus.iter().for_each(VcpuHandle::hold);
        vcpus.iter().try_for_each(VcpuHandle::wait_held)
    }

    /// Ends the machine now and waits for its threads, each at most `timeout`. Idempotent.
    ///
    /// # Errors
    /// [`Error::Host`] when a thread does not end in time.
    pub fn stop(&self, timeout: Duration) -> Result<(), Error> {
        self.ending.finish(Exit::Stopped);
        let mut vcpus = lock(&self.vcpus);
        // The ending may have been begun by a vCPU before this one was told.
        vcpus.iter().for_each(VcpuHandle::end);
        vcpus.iter_mut().try_for_each(|vcpu| vcpu.join(timeout))
    }

    /// The machine's vsock device.
    pub fn vsock(&self) -> Vsock {
        self.ending.vsock.clone()
    }

    /// The serial port. Its output stays readable after the machine's end.
    pub fn console(&self) -> Arc<dyn Console> {
        let console: Arc<SerialPort> = Arc::clone(&self.ending.serial);
        console
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        // ORDER: statistics; nothing depends on them.
        Stats {
            exits: self.counters.exits.load(Ordering::Relaxed),
            first_instruction_ns: self.counters.first_instruction_ns.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Err(error) = self.stop(Machine::DROP_TIMEOUT) {
            tracing::error!(%error, "a machine's thread was left behind");
        }
        self.registrations.clear();
    }
}
