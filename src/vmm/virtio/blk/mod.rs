//! virtio-blk over a raw file. Runs on a device loop; the file's I/O is the engine's.

mod engine;
pub mod pool;
mod request;

use std::collections::HashMap;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::RawFd;
use std::sync::Arc;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX,
    VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_ID_BYTES,
};
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;

use crate::vmm::virtio::{
    Activation, DeviceError, Interrupt, VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC,
    VIRTIO_F_VERSION_1, VirtioDevice,
};
use engine::{Completion, Engine, Operation, Transfer};
use pool::Pool;
use request::{Chain, Geometry, Request, SECTOR_LEN, Status};

/// Device type (virtio 1.3, 5.2).
const DEVICE_TYPE: u32 = 2;
const QUEUE_SIZES: [u16; 1] = [128];
/// Segments of a request: the queue's size less header and status.
const SEGMENTS_MAX: u32 = 126;
/// Bytes of a segment; with the above a request stays below [`request::DATA_LEN_MAX`].
const SEGMENT_LEN_MAX: u32 = 32 << 10;
/// Bytes of all transfers under way; the last one begun may go beyond.
const BYTES_IN_FLIGHT_MAX: usize = 8 << 20;
/// Bytes of the serial number.
const SERIAL_LEN: usize = VIRTIO_BLK_ID_BYTES as usize;

/// A disk.
#[derive(Debug)]
pub struct Blk {
    engine: Engine,
    disk: Geometry,
    serial: [u8; SERIAL_LEN],
    next_token: u64,
    /// Transfers of before a reset that are still under way. New ones wait for them, so that an old
    /// write never overtakes a new one.
    stale: usize,
    active: Option<Active>,
}

#[derive(Debug)]
struct Active {
    memory: Arc<GuestMemoryMmap>,
    queue: Queue,
    interrupt: Interrupt,
    /// The driver will not flush: every write has to be durable when it is answered (virtio 1.3,
    /// 5.2.6.2).
    write_through: bool,
    requests: HashMap<u64, Chain>,
    bytes_in_flight: usize,
}

impl Blk {
    /// `file` is a regular file or block device; bytes beyond its last whole sector are not part of
    /// the disk. `serial` names it to the guest, cut to 20 bytes.
    ///
    /// # Errors
    /// The file's size cannot be told, or the host has no descriptors left.
    pub fn new(
        mut file: File,
        readonly: bool,
        serial: &str,
        pool: &Arc<Pool>,
    ) -> std::io::Result<Blk> {
        let sectors = file.seek(SeekFrom::End(0))? / SECTOR_LEN;
        let mut id = [0; SERIAL_LEN];
        for (slot, byte) in id.iter_mut().zip(serial.bytes()) {
            *slot = byte;
        }
        Ok(Blk {
            engine: Engine::new(file, pool)?,
            disk: Geometry { sectors, readonly },
            serial: id,
            next_token: 0,
            stale: 0,
            active: None,
        })
    }

    fn serve(&mut self) -> Result<(), DeviceError> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let memory = Arc::clone(&active.memory);
        let mut answered = false;
        while self.stale == 0
            && self.engine.in_flight() < Engine::IN_FLIGHT_MAX
            && active.bytes_in_flight < BYTES_IN_FLIGHT_MAX
        {
            let Some(chain) = active.queue.pop_descriptor_chain(Arc::clone(&memory)) else {
                match active.queue.enable_notification(&*memory) {
                    Ok(true) => continue,
                    Ok(false) => break,
                    Err(_) => return Err(broken("ring out of memory")),
                }
            };
            let parsed = request::parse(&chain, &memory, self.disk);
            let begun = match parsed.map_err(|_| broken("no room for a status"))? {
                Ok(Request::GetId) => {
                    active.answer(chain, &self.serial, Status::Ok)?;
                    answered = true;
                    continue;
                }
                Ok(request) => active.transfer(request, self.next_token),
                Err(status) => {
                    active.answer(chain, &[], status)?;
                    answered = true;
                    continue;
                }
            };
            let len = begun.buffer.len();
            match self.engine.begin(begun) {
                Ok(()) => {
                    active.requests.insert(self.next_token, chain);
                    active.bytes_in_flight += len;
                    self.next_token += 1;
                }
                Err(error) => {
                    tracing::warn!(%error, "a disk's transfer cannot be begun");
                    active.answer(chain, &[], Status::IoError)?;
                    answered = true;
                }
            }
        }
        let submitted = self.engine.submit();
        submitted.map_err(|source| DeviceError::Host { step: "submit to io_uring", source })?;
        if answered {
            active.signal();
        }
        Ok(())
    }

    /// Answers what has completed.
    fn complete(&mut self) -> Result<(), DeviceError> {
        let mut answered = false;
        for (transfer, result) in self.engine.completed() {
            let known = self.active.as_mut().and_then(|active| {
                active.requests.remove(&transfer.token).map(|chain| (active, chain))
            });
            match known {
                Some((active, chain)) => {
                    active.finish(chain, (transfer, result))?;
                    answered = true;
                }
                None => self.stale = self.stale.saturating_sub(1),
            }
        }
        match &mut self.active {
            Some(active) if answered => active.signal(),
            _ => {}
        }
        Ok(())
    }
}

fn broken(what: &'static str) -> DeviceError {
    DeviceError::Queue { queue: 0, what }
}

impl Active {
    fn transfer(&self, request: Request, token: u64) -> Transfer {
        let (operation, offset, buffer) = match request {
            Request::Read { offset, len } => (Operation::Read, offset, vec![0; len]),
            Request::Write { offset, data } => {
                (Operation::Write { durable: self.write_through }, offset, data)
            }
            // The serial is answered without a transfer.
            Request::Flush | Request::GetId => (Operation::Flush, 0, Vec::new()),
        };
        Transfer { token, operation, offset, buffer }
    }

    fn finish(&mut self, chain: Chain, completion: Completion) -> Result<(), DeviceError> {
        let (transfer, result) = completion;
        self.bytes_in_flight -= transfer.buffer.len();
        match (result, transfer.operation) {
            (Ok(()), Operation::Read) => self.answer(chain, &transfer.buffer, Status::Ok),
            (Ok(()), _) => self.answer(chain, &[], Status::Ok),
            (Err(error), operation) => {
                tracing::warn!(%error, ?operation, offset = transfer.offset, "a disk's transfer failed");
                self.answer(chain, &[], Status::IoError)
            }
        }
    }

    fn answer(&mut self, chain: Chain, data: &[u8], status: Status) -> Result<(), DeviceError> {
        let head = chain.head_index();
        let used = request::answer(chain, &self.memory, data, status)
            .map_err(|_| broken("descriptors cannot be written"))?;
        self.queue
            .add_used(&*self.memory, head, used)
            .map_err(|_| broken("used ring out of memory"))
    }

    fn signal(&mut self) {
        if self.queue.needs_notification(&*self.memory).unwrap_or(true) {
            self.interrupt.signal_used();
        }
    }
}

impl VirtioDevice for Blk {
    fn device_type(&self) -> u32 {
        DEVICE_TYPE
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        let always = [
            VIRTIO_BLK_F_SIZE_MAX,
            VIRTIO_BLK_F_SEG_MAX,
            VIRTIO_BLK_F_BLK_SIZE,
            VIRTIO_BLK_F_FLUSH,
        ];
        let readonly = self.disk.readonly.then_some(VIRTIO_BLK_F_RO);
        let bits =
            always.into_iter().chain(readonly).fold(0, |bits, feature| bits | 1u64 << feature);
        bits | VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC
    }

    /// `struct virtio_blk_config` up to `blk_size` (virtio 1.3, 5.2.4).
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0; 24];
        config[..8].copy_from_slice(&self.disk.sectors.to_le_bytes());
        config[8..12].copy_from_slice(&SEGMENT_LEN_MAX.to_le_bytes());
        config[12..16].copy_from_slice(&SEGMENTS_MAX.to_le_bytes());
        config[20..].copy_from_slice(&512u32.to_le_bytes());
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        for (index, byte) in data.iter_mut().enumerate() {
            *byte = config.get(offset.saturating_add(index)).copied().unwrap_or(0);
        }
    }

    fn activate(&mut self, mut activation: Activation) -> Result<(), DeviceError> {
        if activation.queues.is_empty() {
            return Err(broken("no queue"));
        }
        self.active = Some(Active {
            memory: activation.memory,
            queue: activation.queues.remove(0),
            interrupt: activation.interrupt,
            write_through: activation.features & 1 << VIRTIO_BLK_F_FLUSH == 0,
            requests: HashMap::new(),
            bytes_in_flight: 0,
        });
        Ok(())
    }

    fn reset(&mut self) {
        self.active = None;
        self.stale = self.engine.in_flight();
    }

    fn queue_ready(&mut self, _: usize) -> Result<(), DeviceError> {
        self.serve()
    }

    fn sources(&self) -> Vec<(RawFd, u32)> {
        vec![(self.engine.event(), 0)]
    }

    fn source_ready(&mut self, _: u32) -> Result<(), DeviceError> {
        self.complete()?;
        self.serve()
    }
}

#[cfg(test)]
mod tests;
