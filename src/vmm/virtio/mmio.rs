//! The MMIO transport: registers of one device (virtio 1.3, 4.2.2).
//!
//! Called on vCPU threads under the transport's own mutex, then the device's. The queues'
//! configuration is frozen by DRIVER_OK: it is copied to the device once, validated, and later
//! writes to the registers change nothing until a reset (CVE-2026-5747 was the lack of that).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use crate::vmm::lock;
use crate::vmm::virtio::{Activation, Interrupt, VIRTIO_F_EVENT_IDX, VirtioDevice};

/// "virt", little endian.
const MAGIC: u32 = 0x7472_6976;
/// Version of the non-legacy interface.
const VERSION: u32 = 2;
/// "VOLT": no vendor id is assigned for private use; drivers ignore it.
const VENDOR: u32 = 0x544c_4f56;
/// First byte of the configuration space.
pub const CONFIG: u64 = 0x100;
/// Offset of QueueNotify, where the ioeventfds sit.
pub const QUEUE_NOTIFY: u64 = 0x50;

/// Device status bits (virtio 1.3, 2.1).
const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;
/// Set by the device when only a reset helps.
pub const NEEDS_RESET: u32 = 64;
const FAILED: u32 = 128;

/// One device's registers.
pub struct Transport {
    device: Arc<Mutex<dyn VirtioDevice>>,
    memory: Arc<GuestMemoryMmap>,
    interrupt: Interrupt,
    interrupt_status: Arc<AtomicU32>,
    /// Shared with the device loop, which adds [`NEEDS_RESET`].
    status: Arc<AtomicU32>,
    /// One for each queue; written once after activation so that the loop looks at all queues.
    queue_events: Vec<Arc<EventFd>>,
    queues: Vec<Queue>,
    offered: u64,
    acked: u64,
    device_features_select: u32,
    driver_features_select: u32,
    queue_select: u32,
    active: bool,
    device_type: u32,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").field("device_type", &self.device_type).finish_non_exhaustive()
    }
}

impl Transport {
    /// Puts a device behind registers.
    ///
    /// # Errors
    /// The device names a queue size that is no power of two.
    pub fn new(
        device: Arc<Mutex<dyn VirtioDevice>>,
        memory: Arc<GuestMemoryMmap>,
        irqfd: Arc<EventFd>,
        queue_events: Vec<Arc<EventFd>>,
        status: Arc<AtomicU32>,
    ) -> Result<Transport, virtio_queue::Error> {
        let interrupt_status = Arc::new(AtomicU32::new(0));
        let (queues, offered, device_type) = {
            let device = lock(&device);
            let queues = device.queue_sizes().iter().map(|size| Queue::new(*size));
            (queues.collect::<Result<Vec<_>, _>>()?, device.features(), device.device_type())
        };
        Ok(Transport {
            interrupt: Interrupt::new(Arc::clone(&interrupt_status), irqfd),
            device,
            memory,
            interrupt_status,
            status,
            queue_events,
            queues,
            offered,
            acked: 0,
            device_features_select: 0,
            driver_features_select: 0,
            queue_select: 0,
            active: false,
            device_type,
        })
    }

    /// Raises the interrupt from outside the device: the loop's way to say NEEDS_RESET.
    pub fn interrupt(&self) -> Interrupt {
        self.interrupt.clone()
    }

    /// A read of 1 to 8 bytes at `offset` into the slot.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        if CONFIG <= offset {
            lock(&self.device).read_config(offset - CONFIG, data);
            return;
        }
        data.fill(0);
        if let Ok(word) = <&mut [u8; 4]>::try_from(data) {
            *word = self.read_register(offset).to_le_bytes();
        }
    }

    fn read_register(&self, offset: u64) -> u32 {
        let queue = self.queues.get(self.queue_select as usize);
        match offset {
            0x00 => MAGIC,
            0x04 => VERSION,
            0x08 => self.device_type,
            0x0c => VENDOR,
            0x10 => half(self.offered, self.device_features_select),
            0x34 => queue.map_or(0, |queue| u32::from(queue.max_size())),
            0x44 => queue.map_or(0, |queue| u32::from(queue.ready())),
            0x60 => self.interrupt_status.load(Ordering::Acquire),
            0x70 => self.status.load(Ordering::Acquire),
            // Shared memory regions: none; their length reads as all ones (4.2.2).
            0xb0 | 0xb4 | 0xb8 | 0xbc => u32::MAX,
            _ => 0,
        }
    }

    /// A write of 1 to 8 bytes at `offset` into the slot. The configuration space is read-only.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let Ok(word) = <[u8; 4]>::try_from(data) else { return };
        let value = u32::from_le_bytes(word);
        match offset {
            0x14 => self.device_features_select = value,
            0x20 => self.ack_features(value),
            0x24 => self.driver_features_select = value,
            0x30 => self.queue_select = value,
            0x38 => self.with_queue(|queue| queue.set_size(u16::try_from(value).unwrap_or(0))),
            0x44 => self.with_queue(|queue| queue.set_ready(value == 1)),
            0x64 => {
                self.interrupt_status.fetch_and(!value, Ordering::AcqRel);
            }
            0x70 => self.set_status(value),
            0x80 => self.with_queue(|queue| queue.set_desc_table_address(Some(value), None)),
            0x84 => self.with_queue(|queue| queue.set_desc_table_address(None, Some(value))),
            0x90 => self.with_queue(|queue| queue.set_avail_ring_address(Some(value), None)),
            0x94 => self.with_queue(|queue| queue.set_avail_ring_address(None, Some(value))),
            0xa0 => self.with_queue(|queue| queue.set_used_ring_address(Some(value), None)),
            0xa4 => self.with_queue(|queue| queue.set_used_ring_address(None, Some(value))),
            // QueueNotify is an ioeventfd for the queues that exist; others are nobody's.
            _ => {}
        }
    }

    /// Features may change only between DRIVER and FEATURES_OK.
    fn ack_features(&mut self, value: u32) {
        let status = self.status.load(Ordering::Acquire);
        if status & DRIVER == 0 || status & (FEATURES_OK | FAILED) != 0 {
            return;
        }
        let (shift, mask) = match self.driver_features_select {
            0 => (0, !0xffff_ffffu64),
            1 => (32, 0xffff_ffffu64),
            _ => return,
        };
        self.acked = self.acked & mask | u64::from(value) << shift;
    }

    /// Queues may change only between FEATURES_OK and DRIVER_OK.
    fn with_queue(&mut self, change: impl FnOnce(&mut Queue)) {
        let status = self.status.load(Ordering::Acquire);
        if status & FEATURES_OK == 0 || status & (DRIVER_OK | FAILED) != 0 {
            return;
        }
        if let Some(queue) = self.queues.get_mut(self.queue_select as usize) {
            change(queue);
        }
    }

    fn set_status(&mut self, value: u32) {
        if value == 0 {
            self.reset();
            return;
        }
        let old = self.status.load(Ordering::Acquire);
        // The driver may only add bits, in order (3.1.1).
        if old & !value & !NEEDS_RESET != 0 || old & FAILED != 0 {
            return;
        }
        let steps = [ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK];
        let highest = steps.iter().rposition(|bit| value & bit != 0).unwrap_or(0);
        if value & FAILED == 0 && steps[..highest].iter().any(|bit| value & bit == 0) {
            return;
        }
        let mut new = value | old & NEEDS_RESET;
        if new & FEATURES_OK != 0 && self.acked & !self.offered != 0 {
            new &= !FEATURES_OK;
        }
        self.status.store(new, Ordering::Release);
        if new & DRIVER_OK != 0 && old & DRIVER_OK == 0 && !self.active {
            self.activate();
        }
    }

    fn activate(&mut self) {
        let event_idx = self.acked & VIRTIO_F_EVENT_IDX != 0;
        let mut queues = Vec::with_capacity(self.queues.len());
        for queue in &self.queues {
            let state = queue.state();
            let Ok(mut queue) = Queue::try_from(state) else { return self.fail() };
            queue.set_event_idx(event_idx);
            if !queue.ready() || !queue.is_valid(&*self.memory) {
                return self.fail();
            }
            queues.push(queue);
        }
        let activation = Activation {
            memory: Arc::clone(&self.memory),
            queues,
            interrupt: self.interrupt.clone(),
            features: self.acked,
        };
        if lock(&self.device).activate(activation).is_err() {
            return self.fail();
        }
        self.active = true;
        for event in &self.queue_events {
            // An eventfd is full only when it is readable already.
            let _ = event.write(1);
        }
    }

    fn fail(&mut self) {
        self.status.fetch_or(NEEDS_RESET, Ordering::AcqRel);
        self.interrupt.signal_config();
    }

    fn reset(&mut self) {
        lock(&self.device).reset();
        self.queues.iter_mut().for_each(QueueT::reset);
        self.interrupt_status.store(0, Ordering::Release);
        self.status.store(0, Ordering::Release);
        (self.acked, self.active) = (0, false);
        (self.queue_select, self.device_features_select, self.driver_features_select) = (0, 0, 0);
    }
}

fn half(value: u64, select: u32) -> u32 {
    let shifted = match select {
        0 => value & 0xffff_ffff,
        1 => value >> 32,
        _ => 0,
    };
    u32::try_from(shifted).unwrap_or(0)
}
