//! File I/O that does not block the device loop: io_uring, or a few threads where the host forbids
//! it. Completions are told by an eventfd.
//!
//! Every transfer has a buffer of its own, owned by the engine until it is complete: whatever the
//! guest does meanwhile, the kernel never writes to memory that is gone.
#![expect(unsafe_code, reason = "io_uring is told addresses of buffers that this file owns")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use io_uring::{IoUring, opcode, types};
use vmm_sys_util::eventfd::EventFd;

use crate::vmm::lock;
use crate::vmm::virtio::blk::pool::Pool;

/// Entries of a ring: transfers under way at once.
const ENTRIES: u32 = 64;
/// How long the end of a machine waits for the disk; then buffers are left to the kernel.
const DRAIN_TIMEOUT_S: u64 = 5;

/// What to do with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Fill the buffer.
    Read,
    /// Store the buffer; when `durable`, past the host's cache.
    Write {
        /// As with O_DSYNC.
        durable: bool,
    },
    /// Make all completed writes durable.
    Flush,
}

/// One transfer.
#[derive(Debug)]
pub struct Transfer {
    /// The caller's name for it.
    pub token: u64,
    /// What to do.
    pub operation: Operation,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// From where or whereto; its length counts.
    pub buffer: Vec<u8>,
}

/// A finished transfer and how it went.
pub type Completion = (Transfer, io::Result<()>);

/// The file's I/O.
pub struct Engine {
    file: Arc<File>,
    event: Arc<EventFd>,
    backend: Backend,
    in_flight: usize,
}

enum Backend {
    Ring(Box<Ring>),
    Pool { pool: Arc<Pool>, done: Arc<Mutex<Vec<Completion>>> },
}

struct Ring {
    ring: IoUring,
    /// What is under way, by the entry's user data, with the bytes done so far.
    slots: Vec<Option<(Transfer, usize)>>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("in_flight", &self.in_flight).finish_non_exhaustive()
    }
}

impl Engine {
    /// Transfers under way at most.
    pub const IN_FLIGHT_MAX: usize = ENTRIES as usize;

    /// Prefers io_uring; takes `pool` where that is forbidden or unknown.
    ///
    /// # Errors
    /// The host has no descriptor or memory left.
    pub fn new(file: File, pool: &Arc<Pool>) -> io::Result<Engine> {
        let event = Arc::new(EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?);
        let backend = match IoUring::new(ENTRIES) {
            Ok(ring) => {
                ring.submitter().register_eventfd(event.as_raw_fd())?;
                let slots = std::iter::repeat_with(|| None).take(Engine::IN_FLIGHT_MAX).collect();
                Backend::Ring(Box::new(Ring { ring, slots }))
            }
            Err(error) => {
                tracing::info!(%error, "no io_uring here: disks use threads");
                Backend::pool(pool)
            }
        };
        Ok(Engine { file: Arc::new(file), event, backend, in_flight: 0 })
    }

    /// Becomes readable when transfers complete.
    pub fn event(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// Transfers under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Begins a transfer; [`Engine::submit`] sets it going. The caller keeps to
    /// [`Engine::IN_FLIGHT_MAX`].
    ///
    /// # Errors
    /// No room, or no thread: the transfer was not begun.
    pub fn begin(&mut self, transfer: Transfer) -> io::Result<()> {
        match &mut self.backend {
            Backend::Ring(ring) => {
                let slot = ring.slots.iter().position(Option::is_none);
                let slot = slot.ok_or(io::ErrorKind::QuotaExceeded)?;
                ring.slots[slot] = Some((transfer, 0));
                if let Err(error) = ring.push(&self.file, slot) {
                    ring.slots[slot] = None;
                    return Err(error);
                }
            }
            Backend::Pool { pool, done } => {
                let (file, event, done) =
                    (Arc::clone(&self.file), Arc::clone(&self.event), Arc::clone(done));
                pool.run(Box::new(move || {
                    let completion = perform(&file, transfer);
                    lock(&done).push(completion);
                    // Fails only when it is readable already.
                    let _ = event.write(1);
                }))?;
            }
        }
        self.in_flight += 1;
        Ok(())
    }

    /// Hands what was begun to the kernel.
    ///
    /// # Errors
    /// The kernel's answer; what was begun is tried again with the next call.
    pub fn submit(&mut self) -> io::Result<()> {
        match &mut self.backend {
            Backend::Ring(ring) => ring.ring.submit().map(drop),
            Backend::Pool { .. } => Ok(()),
        }
    }

    /// Takes what has completed. Clears the event.
    pub fn completed(&mut self) -> Vec<Completion> {
        let _ = self.event.read();
        let completions = match &mut self.backend {
            Backend::Ring(ring) => ring.reap(&self.file),
            Backend::Pool { done, .. } => std::mem::take(&mut *lock(done)),
        };
        self.in_flight -= completions.len();
        completions
    }
}

impl Backend {
    fn pool(pool: &Arc<Pool>) -> Backend {
        Backend::Pool { pool: Arc::clone(pool), done: Arc::default() }
    }
}

/// On a thread of the pool.
fn perform(file: &File, mut transfer: Transfer) -> Completion {
    let Transfer { operation, offset, buffer, .. } = &mut transfer;
    let result = match operation {
        Operation::Read => file.read_exact_at(buffer, *offset),
        Operation::Write { durable } => file
            .write_all_at(buffer, *offset)
            .and_then(|()| if *durable { file.sync_data() } else { Ok(()) }),
        Operation::Flush => file.sync_data(),
    };
    (transfer, result)
}

impl Ring {
    /// Queues what is left of the transfer in `slot`.
    fn push(&mut self, file: &File, slot: usize) -> io::Result<()> {
        let Some((transfer, done)) = &mut self.slots[slot] else { return Ok(()) };
        let fd = types::Fd(file.as_raw_fd());
        let rest = &mut transfer.buffer[*done..];
        let len = u32::try_from(rest.len()).map_err(io::Error::other)?;
        let offset = transfer.offset + u64::try_from(*done).map_err(io::Error::other)?;
        let entry = match transfer.operation {
            Operation::Read => opcode::Read::new(fd, rest.as_mut_ptr(), len).offset(offset).build(),
            Operation::Write { durable } => {
                let flags = if durable { libc::RWF_DSYNC } else { 0 };
                opcode::Write::new(fd, rest.as_ptr(), len).offset(offset).rw_flags(flags).build()
            }
            Operation::Flush => opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
        };
        let user_data = u64::try_from(slot).map_err(io::Error::other)?;
        // SAFETY: the buffer stays in its slot, neither moved nor freed, until the kernel's
        // completion has been taken; the engine's drop waits for it or leaks it.
        let pushed = unsafe { self.ring.submission().push(&entry.user_data(user_data)) };
        pushed.map_err(io::Error::other)
    }

    /// Takes completions; short transfers are continued.
    fn reap(&mut self, file: &File) -> Vec<Completion> {
        let finished: Vec<_> =
            self.ring.completion().map(|entry| (entry.user_data(), entry.result())).collect();
        let mut completions = Vec::new();
        for (slot, result) in finished {
            let slot = usize::try_from(slot).unwrap_or(usize::MAX);
            let Some(Some((transfer, done))) = self.slots.get_mut(slot) else { continue };
            let outcome = match usize::try_from(result) {
                Err(_) => Err(io::Error::from_raw_os_error(-result)),
                Ok(_) if transfer.operation == Operation::Flush => Ok(()),
                // The file is shorter than it was, or the device is full.
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    *done += count;
                    if *done < transfer.buffer.len() {
                        match self.push(file, slot).and_then(|()| self.ring.submit()) {
                            Ok(_) => continue,
                            Err(error) => Err(error),
                        }
                    } else {
                        Ok(())
                    }
                }
            };
            if let Some((transfer, _)) = self.slots[slot].take() {
                completions.push((transfer, outcome));
            }
        }
        completions
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let timeout = types::Timespec::new().sec(DRAIN_TIMEOUT_S);
        let args = types::SubmitArgs::new().timespec(&timeout);
        while self.slots.iter().any(Option::is_some) {
            let waited = self.ring.submitter().submit_with_args(1, &args);
            for entry in self.ring.completion() {
                let slot = usize::try_from(entry.user_data()).unwrap_or(usize::MAX);
                if let Some(slot) = self.slots.get_mut(slot) {
                    *slot = None;
                }
            }
            if waited.is_err_and(|error| error.raw_os_error() != Some(libc::EINTR)) {
                let left = std::mem::take(&mut self.slots);
                tracing::error!("a disk does not answer: its buffers are left to the kernel");
                std::mem::forget(left);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn wait(engine: &mut Engine) -> Completion {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(completion) = engine.completed().pop() {
                return completion;
            }
            assert!(Instant::now() < deadline, "no completion");
            std::thread::yield_now();
        }
    }

    fn round_trip(mut engine: Engine) {
        let mut transfer = |token, operation, offset, buffer| {
            engine.begin(Transfer { token, operation, offset, buffer }).unwrap();
            engine.submit().unwrap();
            let (transfer, result) = wait(&mut engine);
            assert_eq!((transfer.token, engine.in_flight()), (token, 0));
            result.map(|()| transfer.buffer)
        };
        transfer(1, Operation::Write { durable: false }, 512, vec![7; 1024]).unwrap();
        transfer(2, Operation::Write { durable: true }, 1536, vec![8; 512]).unwrap();
        transfer(3, Operation::Flush, 0, Vec::new()).unwrap();
        let read = transfer(4, Operation::Read, 1024, vec![0; 1024]).unwrap();
        assert_eq!(read, [[7; 512], [8; 512]].concat());
        let error = transfer(5, Operation::Read, 1536, vec![0; 1024]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "beyond the file's end");
    }

    #[test]
    fn both_backends_store_and_load() {
        let file = || {
            let file = tempfile::tempfile().unwrap();
            file.set_len(2048).unwrap();
            file
        };
        let pool = Arc::new(Pool::default());
        round_trip(Engine::new(file(), &pool).unwrap());
        let event = Arc::new(EventFd::new(libc::EFD_NONBLOCK).unwrap());
        let backend = Backend::pool(&pool);
        round_trip(Engine { file: Arc::new(file()), event, backend, in_flight: 0 });
    }

    #[test]
    fn an_engine_dropped_with_transfers_under_way_waits_for_them() {
        let file = tempfile::tempfile().unwrap();
        let mut engine =
            Engine::new(file.try_clone().unwrap(), &Arc::new(Pool::default())).unwrap();
        for token in 0..8 {
            let operation = Operation::Write { durable: true };
            let buffer = vec![1; 65536];
            engine.begin(Transfer { token, operation, offset: token * 65536, buffer }).unwrap();
        }
        engine.submit().unwrap();
        drop(engine);
        assert_eq!(file.metadata().unwrap().len(), 8 * 65536);
    }
}
