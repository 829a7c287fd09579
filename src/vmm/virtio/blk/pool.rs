//! A few threads for disks, where the host forbids io_uring. Shared by all machines; started by the
//! first that needs them.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use crate::vmm::lock;

const THREADS: usize = 4;
/// Jobs that wait: every transfer of 64 busy disks. Beyond that a transfer fails.
const QUEUE_LEN: usize = 4096;

/// One piece of blocking work.
pub type Job = Box<dyn FnOnce() + Send>;

/// The threads. They end when the last handle is dropped and the queue is empty.
#[derive(Debug, Default)]
pub struct Pool {
    jobs: Mutex<Option<SyncSender<Job>>>,
}

impl Pool {
    /// Runs `job` on one of the threads.
    ///
    /// # Errors
    /// No thread can be started, or too much waits.
    pub fn run(&self, job: Job) -> io::Result<()> {
        let mut jobs = lock(&self.jobs);
        let sender = match &mut *jobs {
            Some(sender) => sender,
            none => none.insert(start()?),
        };
        sender.try_send(job).map_err(|_| io::ErrorKind::ResourceBusy.into())
    }
}

fn start() -> io::Result<SyncSender<Job>> {
    let (sender, receiver) = sync_channel(QUEUE_LEN);
    let receiver = Arc::new(Mutex::new(receiver));
    for index in 0..THREADS {
        let receiver = Arc::clone(&receiver);
        let builder = std::thread::Builder::new().name(format!("disks-{index}"));
        builder.spawn(move || {
            while let Some(job) = next(&receiver) {
                job()
            }
        })?;
    }
    Ok(sender)
}

/// One thread waits at the channel, the others at the mutex.
fn next(receiver: &Mutex<Receiver<Job>>) -> Option<Job> {
    lock(receiver).recv().ok()
}
