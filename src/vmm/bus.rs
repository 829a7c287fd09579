//! Dispatch of exits: virtio-mmio slots by address, a handful of ports by number.
//!
//! Read-only after building, so vCPU threads share it without a lock of its own.

use std::sync::{Arc, Mutex};

use crate::vmm::device::SerialPort;
use crate::vmm::layout::{MMIO, MMIO_SLOT_LEN, PORT_EXIT, PORT_SERIAL};
use crate::vmm::virtio::mmio::Transport;
use crate::vmm::{Exit, lock};

/// Keyboard controller command port; 0xfe asks for a reset.
const PORT_I8042: u16 = 0x64;
const I8042_RESET: u8 = 0xfe;
/// CMOS data port. Reads as zero: all ones would mean "update in progress" and cost the guest a
/// second of polling.
const PORT_CMOS_DATA: u16 = 0x71;
/// What volary writes to [`PORT_EXIT`].
const EXIT_POWER_OFF: u8 = 1;
const EXIT_RESET: u8 = 2;

/// Everything a guest can reach by port or MMIO.
#[derive(Debug)]
pub struct Bus {
    slots: Vec<Mutex<Transport>>,
    serial: Option<Arc<SerialPort>>,
}

impl Bus {
    /// Device `i` of `slots` sits at `MMIO + i * MMIO_SLOT_LEN`.
    pub fn new(slots: Vec<Transport>, serial: Option<Arc<SerialPort>>) -> Bus {
        Bus { slots: slots.into_iter().map(Mutex::new).collect(), serial }
    }

    fn slot(&self, address: u64) -> Option<(&Mutex<Transport>, u64)> {
        let offset = address.checked_sub(MMIO)?;
        let index = usize::try_from(offset / MMIO_SLOT_LEN).ok()?;
        Some((self.slots.get(index)?, offset % MMIO_SLOT_LEN))
    }

    /// MMIO read; addresses of nobody read as all ones.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.slot(address) {
            Some((slot, offset)) => lock(slot).read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// MMIO write; addresses of nobody swallow it.
    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((slot, offset)) = self.slot(address) {
            lock(slot).write(offset, data);
        }
    }

    /// Port read; ports of nobody read as all ones, as on a real bus.
    pub fn port_read(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        let [byte] = data else { return };
        match (port, &self.serial) {
            (PORT_CMOS_DATA, _) => *byte = 0,
            (_, Some(serial)) => {
                if let Some(offset) = serial_offset(port) {
                    *byte = serial.read_register(offset);
                }
            }
            _ => {}
        }
    }

    /// Port write; some end the machine.
    pub fn port_write(&self, port: u16, data: &[u8]) -> Option<Exit> {
        let [byte] = data else { return None };
        match (port, *byte) {
            (PORT_EXIT, EXIT_POWER_OFF) => return Some(Exit::PowerOff),
            (PORT_EXIT, EXIT_RESET) | (PORT_I8042, I8042_RESET) => return Some(Exit::Reset),
            _ => {}
        }
        if let (Some(serial), Some(offset)) = (&self.serial, serial_offset(port)) {
            serial.write_register(offset, *byte);
        }
        None
    }
}

fn serial_offset(port: u16) -> Option<u8> {
    let offset = port.checked_sub(PORT_SERIAL).filter(|offset| *offset < 8)?;
    u8::try_from(offset).ok()
}
