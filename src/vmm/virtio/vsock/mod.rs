//! virtio-vsock, in-process: a connection to a guest port is a Rust value.
//!
//! The protocol in short: packets with a 44-byte header travel over two rings. REQUEST is answered
//! by RESPONSE or RST; RW carries bytes; SHUTDOWN closes one way or both; either side tells with
//! every packet how large its receive buffer is and how much it has taken out of it, and the other
//! never sends more than fits (docs/vsock.md).

mod connection;
mod device;
mod packet;
mod stream;

use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex};

use vmm_sys_util::eventfd::EventFd;

use crate::vmm::virtio::{
    Activation, DeviceError, VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC, VIRTIO_F_VERSION_1,
    VirtioDevice,
};
use device::Inner;
use stream::with;

pub use stream::{Vsock, VsockConnect, VsockListener, VsockStream};

/// Device type (virtio 1.3, 5.10).
const DEVICE_TYPE: u32 = 19;
/// Receive, transmit, event.
const QUEUE_SIZES: [u16; 3] = [256, 256, 64];
const RX: usize = 0;
const TX: usize = 1;
/// Token of the eventfd that continues a batch.
const AGAIN: u32 = 0;

/// The device, given to the transport.
#[derive(Debug)]
pub struct VsockDevice {
    cid: u32,
    inner: Arc<Mutex<Inner>>,
    again: EventFd,
}

impl VsockDevice {
    /// A device for the guest `cid`, and the handle by which the host uses it.
    ///
    /// # Errors
    /// The host has no descriptor left.
    pub fn new(cid: u32) -> std::io::Result<(VsockDevice, Vsock)> {
        let again = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        let inner = Arc::new(Mutex::new(Inner::new(cid, again.try_clone()?)));
        let handle = Vsock { inner: Arc::clone(&inner) };
        Ok((VsockDevice { cid, inner, again }, handle))
    }
}

impl VirtioDevice for VsockDevice {
    fn device_type(&self) -> u32 {
        DEVICE_TYPE
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = u64::from(self.cid).to_le_bytes();
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        for (index, byte) in data.iter_mut().enumerate() {
            *byte = config.get(offset.saturating_add(index)).copied().unwrap_or(0);
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        with(&self.inner, |inner| inner.activate(activation))
    }

    fn reset(&mut self) {
        with(&self.inner, Inner::reset_all);
    }

    fn queue_ready(&mut self, index: usize) -> Result<(), DeviceError> {
        with(&self.inner, |inner| match index {
            RX => {
                inner.rx_ready();
                inner.tx_ready()
            }
            TX => inner.tx_ready(),
            _ => Ok(()),
        })
    }

    fn sources(&self) -> Vec<(RawFd, u32)> {
        vec![(self.again.as_raw_fd(), AGAIN)]
    }

    fn source_ready(&mut self, _: u32) -> Result<(), DeviceError> {
        let _ = self.again.read();
        with(&self.inner, Inner::tx_ready)
    }
}
