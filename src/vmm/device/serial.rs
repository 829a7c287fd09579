//! The 16550 at COM1: an output ring kept for later readers, and an input side.
//!
//! The guest's side runs on vCPU threads; readers and writers of the console on any thread. A byte
//! costs the guest two exits, so nothing here does more than copy it.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;

use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

use crate::vmm::{Console, lock};

/// Bytes of output kept.
const OUTPUT_LEN_MAX: usize = 64 * 1024;
/// Bytes of input that wait for the guest.
const INPUT_LEN_MAX: usize = 16 * 1024;
/// Tasks that wait for output at once; one more replaces the oldest, which is woken.
const WAKERS_MAX: usize = 256;

/// The serial port and its outside.
pub struct SerialPort {
    uart: Mutex<Uart>,
    output: Arc<Output>,
}

struct Uart {
    uart: Serial<IrqTrigger, NoEvents, OutputWriter>,
    waiting: VecDeque<u8>,
}

#[derive(Default)]
struct Output {
    ring: Mutex<Ring>,
    closed: AtomicBool,
}

#[derive(Default)]
struct Ring {
    bytes: VecDeque<u8>,
    /// Stream offset of the first byte in `bytes`.
    start: u64,
    wakers: Vec<Waker>,
}

struct IrqTrigger(EventFd);

impl Trigger for IrqTrigger {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        // A full eventfd is a pending interrupt.
        let _ = self.0.write(1);
        Ok(())
    }
}

struct OutputWriter(Arc<Output>);

impl io::Write for OutputWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let wakers = {
            let mut ring = lock(&self.0.ring);
            ring.bytes.extend(bytes);
            let excess = ring.bytes.len().saturating_sub(OUTPUT_LEN_MAX);
            ring.bytes.drain(..excess);
            ring.start += excess as u64;
            std::mem::take(&mut ring.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for SerialPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SerialPort").finish_non_exhaustive()
    }
}

impl SerialPort {
    /// A port that raises its interrupt through `irqfd`.
    pub fn new(irqfd: EventFd) -> SerialPort {
        let output = Arc::new(Output::default());
        let uart = Serial::new(IrqTrigger(irqfd), OutputWriter(Arc::clone(&output)));
        SerialPort { uart: Mutex::new(Uart { uart, waiting: VecDeque::new() }), output }
    }

    /// The guest reads the register at `offset`, 0 to 7.
    pub fn read_register(&self, offset: u8) -> u8 {
        let mut port = lock(&self.uart);
        let value = port.uart.read(offset);
        port.top_up();
        value
    }

    /// The guest writes the register at `offset`, 0 to 7.
    pub fn write_register(&self, offset: u8, value: u8) {
        // Fails only where the output ring or the trigger does: neither can.
        let _ = lock(&self.uart).uart.write(offset, value);
    }

    /// The machine has ended: readers that wait are woken and told.
    pub fn close(&self) {
        self.output.closed.store(true, Ordering::Release);
        let wakers = std::mem::take(&mut lock(&self.output.ring).wakers);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Uart {
    /// Moves waiting input into the UART's FIFO as far as it goes.
    fn top_up(&mut self) {
        let room = self.uart.fifo_capacity().min(self.waiting.len());
        if room == 0 {
            return;
        }
        let chunk: Vec<u8> = self.waiting.iter().take(room).copied().collect();
        if let Ok(taken) = self.uart.enqueue_raw_bytes(&chunk) {
            self.waiting.drain(..taken);
        }
    }
}

impl Console for SerialPort {
    fn read_from(&self, offset: u64, len_max: usize) -> (u64, Vec<u8>) {
        let ring = lock(&self.output.ring);
        let from = offset.max(ring.start);
        let skip = usize::try_from(from - ring.start).unwrap_or(usize::MAX);
        (from, ring.bytes.iter().skip(skip).take(len_max).copied().collect())
    }

    fn wake_on_output(&self, offset: u64, waker: &Waker) {
        let mut ring = lock(&self.output.ring);
        if self.is_closed() || offset < ring.start + ring.bytes.len() as u64 {
            drop(ring);
            waker.wake_by_ref();
            return;
        }
        if ring.wakers.iter().any(|known| known.will_wake(waker)) {
            return;
        }
        if ring.wakers.len() == WAKERS_MAX {
            ring.wakers.remove(0).wake();
        }
        ring.wakers.push(waker.clone());
    }

    fn write(&self, bytes: &[u8]) -> usize {
        let mut port = lock(&self.uart);
        let room = INPUT_LEN_MAX - port.waiting.len().min(INPUT_LEN_MAX);
        let taken = room.min(bytes.len());
        port.waiting.extend(&bytes[..taken]);
        port.top_up();
        taken
    }

    fn is_closed(&self) -> bool {
        self.output.closed.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn ring_keeps_the_newest_bytes_and_their_offsets() {
        let port = SerialPort::new(EventFd::new(libc::EFD_NONBLOCK).unwrap());
        let mut writer = OutputWriter(Arc::clone(&port.output));
        writer.write_all(&vec![b'a'; OUTPUT_LEN_MAX]).unwrap();
        writer.write_all(b"tail").unwrap();
        let (offset, bytes) = port.read_from(0, OUTPUT_LEN_MAX);
        assert_eq!((offset, bytes.len()), (4, OUTPUT_LEN_MAX));
        assert_eq!(port.read_from(OUTPUT_LEN_MAX as u64, 100).1, b"tail");
    }

    #[test]
    fn input_waits_until_the_guest_reads_it() {
        let port = SerialPort::new(EventFd::new(libc::EFD_NONBLOCK).unwrap());
        let input: Vec<u8> = (0..200).collect();
        assert_eq!(port.write(&input), 200);
        let read: Vec<u8> = (0..200).map(|_| port.read_register(0)).collect();
        assert_eq!(read, input);
        assert_eq!(port.write(&vec![0; INPUT_LEN_MAX * 2]), INPUT_LEN_MAX);
    }
}
