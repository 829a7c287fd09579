//! virtio-rng from the host's getrandom. Runs on a device loop.

use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use crate::vmm::virtio::{
    Activation, DeviceError, Interrupt, VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC,
    VIRTIO_F_VERSION_1, VirtioDevice,
};

/// Device type (virtio 1.3, 5.4).
const DEVICE_TYPE: u32 = 4;
const QUEUE_SIZES: [u16; 1] = [64];
/// Bytes given for one request; a guest may ask for gigabytes.
const REQUEST_LEN_MAX: usize = 64 * 1024;
/// Requests answered before other devices get their turn.
const BATCH_MAX: usize = 16;

/// An entropy device.
#[derive(Debug)]
pub struct Rng {
    active: Option<(Arc<GuestMemoryMmap>, Queue, Interrupt)>,
    again: EventFd,
}

impl Rng {
    /// A device without a driver.
    ///
    /// # Errors
    /// The host has no descriptor left.
    pub fn new() -> std::io::Result<Rng> {
        let again = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        Ok(Rng { active: None, again })
    }

    fn serve(&mut self) -> Result<(), DeviceError> {
        let Some((memory, queue, interrupt)) = &mut self.active else { return Ok(()) };
        let broken = |what| DeviceError::Queue { queue: 0, what };
        let memory = &**memory;
        for done in 0.. {
            if done == BATCH_MAX {
                let _ = self.again.write(1);
                break;
            }
            let Some(chain) = queue.pop_descriptor_chain(memory) else {
                match queue.enable_notification(memory) {
                    Ok(true) => continue,
                    Ok(false) => break,
                    Err(_) => return Err(broken("ring out of memory")),
                }
            };
            let head = chain.head_index();
            let mut writer =
                chain.writer(memory).map_err(|_| broken("descriptor out of memory"))?;
            let len = writer.available_bytes().min(REQUEST_LEN_MAX);
            let mut bytes = vec![0u8; len];
            rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())
                .map_err(|errno| DeviceError::Host { step: "getrandom", source: errno.into() })?;
            writer.write_all(&bytes).map_err(|_| broken("descriptor cannot be written"))?;
            let used = u32::try_from(len).unwrap_or(0);
            queue.add_used(memory, head, used).map_err(|_| broken("used ring out of memory"))?;
        }
        if queue.needs_notification(memory).unwrap_or(true) {
            interrupt.signal_used();
        }
        Ok(())
    }
}

impl VirtioDevice for Rng {
    fn device_type(&self) -> u32 {
        DEVICE_TYPE
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC
    }

    fn read_config(&self, _: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn activate(&mut self, mut activation: Activation) -> Result<(), DeviceError> {
        if activation.queues.is_empty() {
            return Err(DeviceError::Queue { queue: 0, what: "no queue" });
        }
        let queue = activation.queues.remove(0);
        self.active = Some((activation.memory, queue, activation.interrupt));
        Ok(())
    }

    fn reset(&mut self) {
        self.active = None;
    }

    fn queue_ready(&mut self, _: usize) -> Result<(), DeviceError> {
        self.serve()
    }

    fn sources(&self) -> Vec<(RawFd, u32)> {
        vec![(self.again.as_raw_fd(), 0)]
    }

    fn source_ready(&mut self, _: u32) -> Result<(), DeviceError> {
        let _ = self.again.read();
        self.serve()
    }
}
