//! virtio: what a device is to its transport.
//!
//! A device is plain state behind one mutex. Three parties call it, always with the mutex held: the
//! transport on a vCPU thread (configuration, activation, reset), its device loop (queue
//! notifications and the device's own descriptors), and for vsock the tasks that read and write
//! streams. Nothing in a device blocks, and nothing it does trusts the guest.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

/// Offered by every device: the modern interface (virtio 1.3, 6).
pub const VIRTIO_F_VERSION_1: u64 = 1 << 32;
/// Offered where [`Queue::needs_notification`] is honoured (virtio 1.3, 2.7.10).
pub const VIRTIO_F_EVENT_IDX: u64 = 1 << 29;
/// Offered where chains may be indirect (virtio 1.3, 2.7.5.3).
pub const VIRTIO_F_INDIRECT_DESC: u64 = 1 << 28;

/// Why a device can no longer work with what the guest has done to its queues or requests. The
/// transport sets DEVICE_NEEDS_RESET (virtio 1.3, 2.1.2); the VM and all others go on.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The guest's ring or descriptors are not usable.
    #[error("queue {queue} is broken: {what}")]
    Queue {
        /// Its index.
        queue: usize,
        /// What was seen.
        what: &'static str,
    },
    /// A host resource behind the device failed.
    #[error("{step}")]
    Host {
        /// The attempted step.
        step: &'static str,
        /// The host's answer.
        #[source]
        source: std::io::Error,
    },
}

/// Raises the device's interrupt. Cheap to clone; usable from any thread.
#[derive(Clone, Debug)]
pub struct Interrupt {
    status: Arc<AtomicU32>,
    irqfd: Arc<EventFd>,
}

impl Interrupt {
    /// "Used buffer notification" bit of InterruptStatus (virtio 1.3, 4.2.2).
    pub const USED: u32 = 1;
    /// "Configuration change notification" bit of InterruptStatus.
    pub const CONFIG: u32 = 2;

    /// Pairs the transport's InterruptStatus register with the irqfd.
    pub fn new(status: Arc<AtomicU32>, irqfd: Arc<EventFd>) -> Interrupt {
        Interrupt { status, irqfd }
    }

    /// Tells the driver that buffers were used. Call only if `Queue::needs_notification` says so.
    pub fn signal_used(&self) {
        self.signal(Interrupt::USED);
    }

    /// Tells the driver that the configuration or the status changed.
    pub fn signal_config(&self) {
        self.signal(Interrupt::CONFIG);
    }

    fn signal(&self, bit: u32) {
        // ORDER: the ring's stores come before the bit, the bit before the interrupt; the guest's
        // register read (a vCPU thread, Acquire) then sees the bit that its interrupt is for.
        self.status.fetch_or(bit, Ordering::Release);
        // An eventfd write fails only when its counter would overflow; then the interrupt is
        // pending already.
        let _ = self.irqfd.write(1);
    }
}

/// What a device gets when the driver has set DRIVER_OK.
#[derive(Debug)]
pub struct Activation {
    /// Guest RAM.
    pub memory: Arc<GuestMemoryMmap>,
    /// The queues the driver made ready, validated (`QueueT::is_valid`), in index order; one for
    /// each of [`VirtioDevice::queue_sizes`].
    pub queues: Vec<Queue>,
    /// Raises the device's interrupt.
    pub interrupt: Interrupt,
    /// Features that both sides agreed on.
    pub features: u64,
}

/// A virtio device behind the MMIO transport.
pub trait VirtioDevice: Send {
    /// Device type number (virtio 1.3, 5).
    fn device_type(&self) -> u32;

    /// The largest size of each queue, each a power of two.
    fn queue_sizes(&self) -> &[u16];

    /// Features offered, [`VIRTIO_F_VERSION_1`] included.
    fn features(&self) -> u64;

    /// Reads the configuration space. Bytes beyond its end read as zero. `data` has 1, 2, 4 or 8
    /// bytes.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Takes the queues. Called once per DRIVER_OK, never twice without [`VirtioDevice::reset`].
    ///
    /// # Errors
    /// A host resource could not be set up.
    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError>;

    /// Forgets the queues. In-flight host I/O must not touch guest memory after this returns.
    fn reset(&mut self);

    /// The driver has notified queue `index`. Called on the device loop; also once for each queue
    /// right after activation. A call before activation does nothing.
    ///
    /// # Errors
    /// The device needs a reset.
    fn queue_ready(&mut self, index: usize) -> Result<(), DeviceError>;

    /// Descriptors of the device's own that the loop watches, edge-triggered, for readability,
    /// each with a token of the device's choice. Valid for the device's whole life; asked for once.
    fn sources(&self) -> Vec<(RawFd, u32)> {
        Vec::new()
    }

    /// Descriptor `token` became readable. Called on the device loop. A call before activation does
    /// nothing.
    ///
    /// # Errors
    /// The device needs a reset.
    fn source_ready(&mut self, token: u32) -> Result<(), DeviceError> {
        let _ = token;
        Ok(())
    }
}

pub mod blk;
pub mod mmio;
pub mod net;
mod ring;
pub mod rng;
pub mod vsock;
