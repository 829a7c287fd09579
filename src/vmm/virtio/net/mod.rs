//! virtio-net over a TAP device. Runs on a device loop.
//!
//! Frames go through one bounded buffer per direction: the tap's header (12 bytes, the same layout
//! as the driver's) and at most one 64 KiB segment. That costs a copy and buys that guest memory is
//! only ever touched by checked copies.

mod io;

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF,
};
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use crate::vmm::virtio::{
    Activation, DeviceError, Interrupt, VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC,
    VIRTIO_F_VERSION_1, VirtioDevice, ring,
};

/// Device type (virtio 1.3, 5.1).
const DEVICE_TYPE: u32 = 1;
const QUEUE_SIZES: [u16; 2] = [256, 256];
const RX: usize = 0;
const TX: usize = 1;
/// `virtio_net_hdr_v1` (virtio 1.3, 5.1.6).
const HEADER_LEN: usize = 12;
/// Offset of `num_buffers` in it.
const NUM_BUFFERS: usize = 10;
/// The largest frame: an IPv4 packet with an Ethernet and a VLAN header.
const FRAME_LEN_MAX: usize = 65_535 + 18;
const BUFFER_LEN: usize = HEADER_LEN + FRAME_LEN_MAX;
/// The shortest frame that has both addresses and a type.
const FRAME_LEN_MIN: usize = 14;
/// Frames handled each way before other devices get their turn.
const BATCH_MAX: usize = 256;

const TAP: u32 = 0;
const AGAIN: u32 = 1;

/// A network card.
#[derive(Debug)]
pub struct Net {
    tap: OwnedFd,
    mac: [u8; 6],
    again: EventFd,
    active: Option<Active>,
}

#[derive(Debug)]
struct Active {
    memory: Arc<GuestMemoryMmap>,
    rx: Queue,
    tx: Queue,
    interrupt: Interrupt,
    mergeable: bool,
    /// One frame from the tap that waits for receive buffers: this many bytes of `frame`.
    pending: usize,
    frame: Vec<u8>,
    out: Vec<u8>,
}

impl Net {
    /// `tap` was opened with IFF_NO_PI | IFF_VNET_HDR and is non-blocking. Sets the vnet header
    /// size here, the offloads at activation.
    ///
    /// # Errors
    /// The host refused an ioctl.
    pub fn new(tap: OwnedFd, mac: [u8; 6]) -> std::io::Result<Net> {
        io::set_header_len(&tap, HEADER_LEN)?;
        let again = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        Ok(Net { tap, mac, again, active: None })
    }

    /// From the tap to the guest.
    fn receive(&mut self) -> Result<(), DeviceError> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let (mut used, mut together) = (false, false);
        for done in 0.. {
            if done == BATCH_MAX {
                let _ = self.again.write(1);
                break;
            }
            if active.pending == 0 {
                match rustix::io::read(&self.tap, &mut active.frame[..]) {
                    Ok(len) if HEADER_LEN < len => active.pending = len,
                    Ok(_) => continue,
                    // EAGAIN: the edge-triggered source tells of the next frame. Anything else
                    // means that the tap is gone or down, which its owner knows.
                    Err(_) => break,
                }
            }
            let Some(buffers) = active.deliver()? else { break };
            (active.pending, used) = (0, true);
            together |= 1 < buffers;
        }
        let wanted = used && active.rx.needs_notification(&*active.memory).unwrap_or(true);
        if wanted || together {
            active.interrupt.signal_used();
        }
        Ok(())
    }

    /// From the guest to the tap.
    fn transmit(&mut self) -> Result<(), DeviceError> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let broken = |what| DeviceError::Queue { queue: TX, what };
        let memory = &*active.memory;
        for done in 0.. {
            if done == BATCH_MAX {
                let _ = self.again.write(1);
                break;
            }
            let Some(chain) = active.tx.pop_descriptor_chain(memory) else {
                match active.tx.enable_notification(memory) {
                    Ok(true) => continue,
                    Ok(false) => break,
                    Err(_) => return Err(broken("ring out of memory")),
                }
            };
            let head = chain.head_index();
            let mut reader =
                chain.reader(memory).map_err(|_| broken("descriptor out of memory"))?;
            let len = reader.available_bytes();
            if (HEADER_LEN + FRAME_LEN_MIN..=BUFFER_LEN).contains(&len) {
                let frame = &mut active.out[..len];
                reader.read_exact(frame).map_err(|_| broken("frame cannot be read"))?;
                // A forged source is dropped here as well as by the bridge's rules. So is what the
                // tap has no room for or refuses (a bad offload header): as on a real wire.
                if frame[HEADER_LEN + 6..HEADER_LEN + 12] == self.mac {
                    let _ = rustix::io::write(&self.tap, frame);
                }
            }
            active.tx.add_used(memory, head, 0).map_err(|_| broken("used ring out of memory"))?;
        }
        if active.tx.needs_notification(memory).unwrap_or(true) {
            active.interrupt.signal_used();
        }
        Ok(())
    }
}

impl Active {
    /// Scatters the pending frame over as many receive buffers as it needs, and tells their number.
    /// `None`: there are too few, and none was used.
    fn deliver(&mut self) -> Result<Option<usize>, DeviceError> {
        let broken = |what| DeviceError::Queue { queue: RX, what };
        let memory = &*self.memory;
        let start = self.rx.next_avail();
        let mut filled: Vec<(u16, u32)> = Vec::new();
        let mut at = 0;
        // The count of buffers comes first in the frame, so the chains are kept until it is known.
        let mut chains = Vec::new();
        while at < self.pending {
            let Some(chain) = self.rx.pop_descriptor_chain(memory) else {
                match self.rx.enable_notification(memory) {
                    Ok(true) => continue,
                    Ok(false) => {
                        self.rx.set_next_avail(start);
                        return Ok(None);
                    }
                    Err(_) => return Err(broken("ring out of memory")),
                }
            };
            let head = chain.head_index();
            let writer = chain.writer(memory).map_err(|_| broken("descriptor out of memory"))?;
            let len = writer.available_bytes().min(self.pending - at);
            if len == 0 {
                return Err(broken("empty receive buffer"));
            }
            filled.push((head, u32::try_from(len).unwrap_or(0)));
            chains.push((writer, at, len));
            at += len;
            if !self.mergeable {
                break;
            }
        }
        let count = u16::try_from(filled.len()).unwrap_or(u16::MAX);
        self.frame[NUM_BUFFERS..NUM_BUFFERS + 2].copy_from_slice(&count.to_le_bytes());
        for (mut writer, from, len) in chains {
            let part = &self.frame[from..from + len];
            writer.write_all(part).map_err(|_| broken("receive buffer cannot be written"))?;
        }
        ring::add_used_together(&mut self.rx, memory, &filled)
            .map_err(|_| broken("used ring out of memory"))?;
        Ok(Some(filled.len()))
    }
}

impl VirtioDevice for Net {
    fn device_type(&self) -> u32 {
        DEVICE_TYPE
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        let offloads = [
            VIRTIO_NET_F_CSUM,
            VIRTIO_NET_F_GUEST_CSUM,
            VIRTIO_NET_F_GUEST_TSO4,
            VIRTIO_NET_F_GUEST_TSO6,
            VIRTIO_NET_F_HOST_TSO4,
            VIRTIO_NET_F_HOST_TSO6,
            VIRTIO_NET_F_MRG_RXBUF,
            VIRTIO_NET_F_MAC,
        ];
        let bits = offloads.iter().fold(0, |bits, feature| bits | 1u64 << feature);
        bits | VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        for (index, byte) in data.iter_mut().enumerate() {
            *byte = self.mac.get(offset.saturating_add(index)).copied().unwrap_or(0);
        }
    }

    fn activate(&mut self, mut activation: Activation) -> Result<(), DeviceError> {
        if activation.queues.len() < 2 {
            return Err(DeviceError::Queue { queue: 0, what: "fewer than two queues" });
        }
        let has = |feature: u32| activation.features & 1 << feature != 0;
        let (csum, tso4, tso6) = (
            has(VIRTIO_NET_F_GUEST_CSUM),
            has(VIRTIO_NET_F_GUEST_TSO4),
            has(VIRTIO_NET_F_GUEST_TSO6),
        );
        io::set_offloads(&self.tap, csum, tso4, tso6)
            .map_err(|source| DeviceError::Host { step: "set the tap's offloads", source })?;
        let mergeable = has(VIRTIO_NET_F_MRG_RXBUF);
        let tx = activation.queues.remove(TX);
        let rx = activation.queues.remove(RX);
        self.active = Some(Active {
            memory: activation.memory,
            rx,
            tx,
            interrupt: activation.interrupt,
            mergeable,
            pending: 0,
            frame: vec![0; BUFFER_LEN],
            out: vec![0; BUFFER_LEN],
        });
        Ok(())
    }

    fn reset(&mut self) {
        self.active = None;
    }

    fn queue_ready(&mut self, index: usize) -> Result<(), DeviceError> {
        match index {
            RX => self.receive(),
            TX => self.transmit(),
            _ => Ok(()),
        }
    }

    fn sources(&self) -> Vec<(RawFd, u32)> {
        vec![(self.tap.as_raw_fd(), TAP), (self.again.as_raw_fd(), AGAIN)]
    }

    fn source_ready(&mut self, token: u32) -> Result<(), DeviceError> {
        if token == AGAIN {
            let _ = self.again.read();
            self.transmit()?;
        }
        self.receive()
    }
}
