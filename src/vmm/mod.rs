//! One machine: memory, vCPUs, buses, devices, boot. Façade of the layer.
//!
//! Fds go down, events come up: nothing here opens a path or knows a name, a tokio type or another
//! module of this crate. All state belongs to a [`Machine`] or to the [`Hypervisor`] handle it came
//! from; there are no statics.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

mod boot;
mod build;
mod bus;
mod device;
mod event_loop;
mod kvm;
mod layout;
mod machine;
mod memory;
mod seccomp;
mod vcpu;
pub mod virtio;

pub use boot::check as check_images;
pub use machine::{Hypervisor, Machine, Stats};
pub use virtio::vsock::{Vsock, VsockConnect, VsockListener, VsockStream};

/// What a machine is made of.
#[derive(Debug)]
pub struct Spec {
    /// Short label for thread names and logs, e.g. the VM's number.
    pub label: String,
    /// 1 to 32.
    pub vcpus: u8,
    /// Guest RAM in MiB.
    pub memory_mib: u64,
    /// Whether to ask the host for huge pages behind guest RAM.
    pub huge_pages: bool,
    /// ELF `vmlinux` or `bzImage`; recognised by its first bytes.
    pub kernel: File,
    /// Uncompressed or compressed cpio; copied behind the kernel.
    pub initramfs: Option<File>,
    /// Whole kernel command line but for the virtio-mmio devices, which are appended here.
    pub cmdline: String,
    /// Which entry an ELF kernel is given.
    pub boot_protocol: BootProtocol,
    /// Whether there is a 16550 at 0x3f8.
    pub console: bool,
    /// vsock context id, at least 3.
    pub cid: u32,
    /// Network card.
    pub net: Option<NetSpec>,
    /// Disks: `/dev/vda`, `/dev/vdb` and so on, in this order.
    pub disks: Vec<DiskSpec>,
}

/// A disk in a raw file.
#[derive(Debug)]
pub struct DiskSpec {
    /// A regular file or block device, opened for writing unless `readonly`.
    pub file: File,
    /// The guest cannot write.
    pub readonly: bool,
    /// Shown to the guest, cut to 20 bytes.
    pub serial: String,
}

/// How an ELF kernel is entered. A `bzImage` is always entered by the 64-bit protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootProtocol {
    /// PVH if the kernel has the note, the 64-bit protocol otherwise.
    Auto,
    /// PVH; building fails if the kernel has no note.
    Pvh,
    /// The 64-bit boot protocol.
    Linux64,
}

/// A network card on a TAP device.
#[derive(Debug)]
pub struct NetSpec {
    /// A TAP queue opened with IFF_NO_PI and IFF_VNET_HDR, non-blocking.
    pub tap: OwnedFd,
    /// Its address.
    pub mac: [u8; 6],
}

/// Why the machine is no more. Sent exactly once per machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The guest powered off by the exit port.
    PowerOff,
    /// The guest asked for a reset (exit port or i8042).
    Reset,
    /// Triple fault without notice: the kernel panicked or was made to.
    Crashed,
    /// [`Machine::stop`] ended it.
    Stopped,
    /// KVM, the host or a thread of the machine failed; the text names the step.
    Fault(String),
}

/// Called once, from a thread of the machine, with the reason of its end. Must not block.
pub type OnExit = Box<dyn FnOnce(Exit) + Send>;

/// A failure to build, run or control a machine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel, initramfs or specification cannot boot; the caller's doing.
    #[error("{0}")]
    Image(String),
    /// The host refused a resource.
    #[error("{step}")]
    Host {
        /// The attempted step.
        step: &'static str,
        /// The host's answer.
        #[source]
        source: std::io::Error,
    },
}

/// The serial port's outside: a ring of past output and an input side.
pub trait Console: Send + Sync {
    /// Output from byte `offset` of the stream on (0 is the first byte ever sent), at most
    /// `len_max` bytes, with the offset of the first byte returned: larger than asked for when the
    /// ring has dropped what was asked for. Empty when there is nothing new yet.
    fn read_from(&self, offset: u64, len_max: usize) -> (u64, Vec<u8>);

    /// Registers a waker that is woken once when output beyond `offset` exists or the machine has
    /// ended; wakes at once if it does already.
    fn wake_on_output(&self, offset: u64, waker: &std::task::Waker);

    /// Types `bytes` into the guest; returns how many fitted into the input queue.
    fn write(&self, bytes: &[u8]) -> usize;

    /// Whether the machine has ended, so that no more output can come.
    fn is_closed(&self) -> bool;
}

/// Takes a mutex of one machine. A poisoned one means that a thread of this machine panicked, which
/// has ended the machine already: the data are still sound for tearing it down.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An [`Error::Host`].
fn host(step: &'static str, source: impl Into<io::Error>) -> Error {
    Error::Host { step, source: source.into() }
}
