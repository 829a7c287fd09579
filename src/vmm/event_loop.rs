//! Device loops: a few threads, shared by all machines, that run the devices' handlers.
//!
//! Each loop is an event-manager. A machine's devices are spread over the loops; a handler holds
//! only its device's mutex, does bounded work and never blocks. A panic in a handler is caught and
//! fails that device's machine alone.

use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use event_manager::{
    EventManager, EventOps, Events, MutEventSubscriber, RemoteEndpoint, SubscriberId,
};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

use crate::vmm::virtio::mmio::NEEDS_RESET;
use crate::vmm::virtio::{DeviceError, Interrupt, VirtioDevice};
use crate::vmm::{Error, host, lock};

type Subscriber = Box<dyn MutEventSubscriber + Send>;

/// Told of a fault of one machine: ends that machine.
pub type OnFault = Arc<dyn Fn(String) + Send + Sync>;

/// The device threads. Dropping the last handle ends them.
#[derive(Debug)]
pub struct EventLoops {
    loops: Vec<EventLoop>,
    next: AtomicUsize,
}

struct EventLoop {
    endpoint: RemoteEndpoint<Subscriber>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl std::fmt::Debug for EventLoop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventLoop").finish_non_exhaustive()
    }
}

impl EventLoops {
    /// Starts `count` threads, at least one.
    ///
    /// # Errors
    /// The host has no thread or descriptor left.
    pub fn start(count: usize) -> Result<EventLoops, Error> {
        let loops = (0..count.max(1)).map(EventLoop::start).collect::<Result<Vec<_>, _>>()?;
        Ok(EventLoops { loops, next: AtomicUsize::new(0) })
    }

    /// Returns once each loop has come round. Blocks.
    ///
    /// # Errors
    /// A loop's thread is gone.
    pub fn pulse(&self) -> Result<(), Error> {
        for event_loop in &self.loops {
            let answered = event_loop.endpoint.call_blocking(|_| Ok::<_, event_manager::Error>(()));
            answered.map_err(|error| {
                host("ask a device loop", std::io::Error::other(error.to_string()))
            })?;
        }
        Ok(())
    }

    /// Puts a device on one of the loops. It is taken off when the returned value is dropped.
    ///
    /// # Errors
    /// The loop's thread is gone.
    pub fn add(self: &Arc<Self>, watched: Watched) -> Result<Registration, Error> {
        // ORDER: only spreads load; no other memory depends on it.
        let index = self.next.fetch_add(1, Ordering::Relaxed) % self.loops.len();
        let subscriber: Subscriber = Box::new(watched);
        let id = self.loops[index]
            .endpoint
            .call_blocking(|manager| {
                Ok::<_, event_manager::Error>(manager.add_subscriber(subscriber))
            })
            .map_err(|error| host("register a device", std::io::Error::other(error.to_string())))?;
        Ok(Registration { loops: Arc::clone(self), index, id })
    }
}

impl EventLoop {
    fn start(index: usize) -> Result<EventLoop, Error> {
        let other = |error: event_manager::Error| {
            host("make a device loop", std::io::Error::other(error.to_string()))
        };
        let mut manager = EventManager::<Subscriber>::new().map_err(other)?;
        let endpoint = manager.remote_endpoint();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name(format!("devices-{index}"))
            .spawn(move || {
                while !stopped.load(Ordering::Acquire) {
                    // Errors of epoll_wait other than EINTR mean a closed epoll: nothing to serve.
                    if manager.run().is_err() {
                        return;
                    }
                }
            })
            .map_err(|error| host("start a device thread", error))?;
        Ok(EventLoop { endpoint, stop, thread: Some(thread) })
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.endpoint.kick();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Keeps a device on its loop.
pub struct Registration {
    loops: Arc<EventLoops>,
    index: usize,
    id: SubscriberId,
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registration").field("loop", &self.index).finish_non_exhaustive()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let id = self.id;
        // Fails only when the loop's thread is gone, and the subscriber with it.
        let _ = self.loops.loops[self.index]
            .endpoint
            .call_blocking(move |manager| manager.remove_subscriber(id).map(drop));
    }
}

/// A device as its loop sees it.
pub struct Watched {
    /// The device.
    pub device: Arc<Mutex<dyn VirtioDevice>>,
    /// Notification of each queue, in order.
    pub queue_events: Vec<Arc<EventFd>>,
    /// The transport's status register.
    pub status: Arc<AtomicU32>,
    /// To tell the driver of a status change.
    pub interrupt: Interrupt,
    /// Ends the machine after a panic.
    pub on_fault: OnFault,
    /// Set by [`Watched::new`].
    sources: Vec<(RawFd, u32)>,
}

impl Watched {
    /// Collects what the loop has to watch.
    pub fn new(
        device: Arc<Mutex<dyn VirtioDevice>>,
        queue_events: Vec<Arc<EventFd>>,
        status: Arc<AtomicU32>,
        interrupt: Interrupt,
        on_fault: OnFault,
    ) -> Watched {
        let sources = lock(&device).sources();
        Watched { device, queue_events, status, interrupt, on_fault, sources }
    }

    fn handle(&self, token: usize) -> Result<(), DeviceError> {
        match self.queue_events.get(token) {
            Some(event) => {
                // Level-triggered: reading it is what makes the next notification visible.
                let _ = event.read();
                lock(&self.device).queue_ready(token)
            }
            None => match self.sources.get(token - self.queue_events.len()) {
                Some((_, source)) => lock(&self.device).source_ready(*source),
                None => Ok(()),
            },
        }
    }
}

impl MutEventSubscriber for Watched {
    fn process(&mut self, events: Events, _: &mut EventOps<'_>) {
        let token = events.data() as usize;
        match catch_unwind(AssertUnwindSafe(|| self.handle(token))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "a device needs a reset by its guest");
                self.status.fetch_or(NEEDS_RESET, Ordering::AcqRel);
                self.interrupt.signal_config();
            }
            Err(_) => (self.on_fault)("a device handler panicked".to_owned()),
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let mut token = 0u32;
        let mut watch = |fd: RawFd, set: EventSet| {
            if ops.add(Events::with_data_raw(fd, token, set)).is_err() {
                (self.on_fault)("a device's descriptor cannot be watched".to_owned());
            }
            token += 1;
        };
        for event in &self.queue_events {
            watch(event.as_raw_fd(), EventSet::IN);
        }
        for (fd, _) in &self.sources {
            watch(*fd, EventSet::IN | EventSet::EDGE_TRIGGERED);
        }
    }
}
