//! A vCPU and its thread.
//!
//! ```text
//!   Hold ──▶ Run ◀──▶ Hold          Hold: parked, registers settled, may be saved
//!     └───────┴────▶ End            End: the thread returns
//! ```
//! The thread knows nothing of tokio, files or names: KVM_RUN, bus dispatch, mailbox. Exactly one
//! party (the machine) writes the mailbox.
//!
//! Kick order: mailbox, `immediate_exit`, fence, signal. A kick before KVM_RUN is seen by
//! `immediate_exit`, one during it by the signal; a stale kick costs one EINTR.

pub mod cpuid;
mod kick;
pub mod regs;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::vmm::bus::Bus;
use crate::vmm::{Error, Exit, host, lock};

use kick::Kicker;
pub use kick::install_signal_handler;

/// How long a vCPU has to obey: the longest uninterruptible exit is far shorter.
const OBEY_TIMEOUT: Duration = Duration::from_secs(5);

/// What the thread is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Hold,
    Run,
    End,
}

/// What the thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Held,
    Running,
    Ended,
}

#[derive(Debug)]
struct Mailbox {
    state: Mutex<(Order, State)>,
    changed: Condvar,
}

/// Counters that the vCPUs of a machine share.
#[derive(Debug, Default)]
pub struct Counters {
    /// Returns of KVM_RUN.
    pub exits: AtomicU64,
    /// Nanoseconds from the start of building to the first KVM_RUN; 0 before.
    pub first_instruction_ns: AtomicU64,
}

/// Called by a vCPU thread when the machine must end.
pub type Finish = Arc<dyn Fn(Exit) + Send + Sync>;

/// The machine's end of a vCPU thread.
#[derive(Debug)]
pub struct VcpuHandle {
    mailbox: Arc<Mailbox>,
    kicker: Kicker,
    thread: Option<std::thread::JoinHandle<VcpuFd>>,
}

/// What a vCPU thread works with.
pub struct Context {
    /// Where exits go.
    pub bus: Arc<Bus>,
    /// Counters.
    pub counters: Arc<Counters>,
    /// When building began.
    pub built_at: Instant,
    /// Ends the machine.
    pub finish: Finish,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

impl VcpuHandle {
    /// Starts the thread, held. `name` has at most 15 bytes.
    ///
    /// # Errors
    /// The host has no thread left.
    pub fn spawn(mut vcpu: VcpuFd, name: String, context: Context) -> Result<VcpuHandle, Error> {
        let mailbox = Arc::new(Mailbox {
            state: Mutex::new((Order::Hold, State::Held)),
            changed: Condvar::new(),
        });
        let kicker = Kicker::new(&mut vcpu);
        let own = Arc::clone(&mailbox);
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || {
                let outcome = catch_unwind(AssertUnwindSafe(|| {
                    let filtered = crate::vmm::seccomp::confine_this_thread();
                    match filtered {
                        Ok(()) => run(&mut vcpu, &own, &context),
                        Err(error) => Some(Exit::Fault(format!("seccomp: {error}"))),
                    }
                }));
                let exit = outcome
                    .unwrap_or_else(|_| Some(Exit::Fault("a vCPU thread panicked".to_owned())));
                own.enter(State::Ended);
                if let Some(exit) = exit {
                    (context.finish)(exit);
                }
                // Kept mapped until the join: a late kick writes into it.
                vcpu
            })
            .map_err(|error| host("start a vCPU thread", error))?;
        Ok(VcpuHandle { mailbox, kicker, thread: Some(thread) })
    }

    /// Lets the vCPU run.
    pub fn run(&self) {
        self.order(Order::Run);
    }

    /// Asks the vCPU to hold; [`VcpuHandle::wait_held`] waits for it.
    pub fn hold(&self) {
        self.order(Order::Hold);
        self.kick();
    }

    /// Asks the thread to end; [`VcpuHandle::join`] waits for it.
    pub fn end(&self) {
        self.order(Order::End);
        self.kick();
    }

    /// Waits until the vCPU is held or has ended.
    ///
    /// # Errors
    /// It does not obey in time.
    pub fn wait_held(&self) -> Result<(), Error> {
        self.wait_while(OBEY_TIMEOUT, |state| state == State::Running)
    }

    /// Waits for the thread's end and joins it. On the vCPU's own thread it does nothing.
    ///
    /// # Errors
    /// It does not end before the deadline; it is then left behind.
    pub fn join(&mut self, timeout: Duration) -> Result<(), Error> {
        let own =
            self.thread.as_ref().is_some_and(|t| t.thread().id() == std::thread::current().id());
        if own {
            return Ok(());
        }
        self.wait_while(timeout, |state| state != State::Ended)?;
        if let Some(thread) = self.thread.take() {
            // A panic was caught inside and reported as a fault.
            let _ = thread.join();
        }
        Ok(())
    }

    fn wait_while(&self, timeout: Duration, busy: impl Fn(State) -> bool) -> Result<(), Error> {
        let deadline = Instant::now() + timeout;
        let mut guard = lock(&self.mailbox.state);
        while busy(guard.1) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(host("stop a vCPU", std::io::ErrorKind::TimedOut));
            }
            // A signal may arrive between the flag's check and KVM_RUN on another kernel's terms;
            // kicking again costs nothing and needs no proof.
            let slice = left.min(Duration::from_millis(50));
            let (next, timed_out) = self
                .mailbox
                .changed
                .wait_timeout(guard, slice)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            guard = next;
            if timed_out.timed_out() {
                self.kick();
            }
        }
        Ok(())
    }

    fn order(&self, order: Order) {
        let mut guard = lock(&self.mailbox.state);
        // End is final.
        if guard.0 != Order::End {
            guard.0 = order;
        }
        self.mailbox.changed.notify_all();
    }

    fn kick(&self) {
        if let Some(thread) = &self.thread {
            self.kicker.kick(thread);
        }
    }
}

impl Mailbox {
    fn enter(&self, state: State) {
        lock(&self.state).1 = state;
        self.changed.notify_all();
    }

    /// Parks until there is an order to run or end. Returns whether to run.
    fn wait_to_run(&self) -> bool {
        let mut guard = lock(&self.state);
        guard.1 = State::Held;
        self.changed.notify_all();
        loop {
            match guard.0 {
                Order::Run => {
                    guard.1 = State::Running;
                    return true;
                }
                Order::End => return false,
                Order::Hold => {
                    guard =
                        self.changed.wait(guard).unwrap_or_else(std::sync::PoisonError::into_inner);
                }
            }
        }
    }

    fn wants_run(&self) -> bool {
        lock(&self.state).0 == Order::Run
    }
}

/// The thread's life. Returns the reason if this vCPU ends the machine, none if it was told to end.
fn run(vcpu: &mut VcpuFd, mailbox: &Mailbox, context: &Context) -> Option<Exit> {
    while mailbox.wait_to_run() {
        vcpu.set_kvm_immediate_exit(0);
        // ORDER: the flag is cleared before the mailbox is read again: a kick that came before the
        // clearing is seen in the mailbox, one that comes after sets the flag again.
        std::sync::atomic::fence(Ordering::SeqCst);
        if mailbox.wants_run() {
            let built = u64::try_from(context.built_at.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let first = &context.counters.first_instruction_ns;
            // ORDER: a statistic; nothing depends on it.
            let _ = first.compare_exchange(0, built, Ordering::Relaxed, Ordering::Relaxed);
            if let Some(exit) = run_until_kicked(vcpu, context) {
                return Some(exit);
            }
        }
        // Completes a port or MMIO access that KVM still has to finish, so that registers settle.
        vcpu.set_kvm_immediate_exit(1);
        let _ = vcpu.run();
    }
    None
}

/// Runs until a kick (none) or the machine's end (its reason).
fn run_until_kicked(vcpu: &mut VcpuFd, context: &Context) -> Option<Exit> {
    loop {
        let outcome = vcpu.run();
        // ORDER: a statistic, read by whoever asks; nothing depends on it.
        context.counters.exits.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Ok(VcpuExit::IoIn(port, data)) => context.bus.port_read(port, data),
            Ok(VcpuExit::IoOut(port, data)) => {
                if let Some(exit) = context.bus.port_write(port, data) {
                    return Some(exit);
                }
            }
            Ok(VcpuExit::MmioRead(address, data)) => context.bus.read(address, data),
            Ok(VcpuExit::MmioWrite(address, data)) => context.bus.write(address, data),
            Ok(VcpuExit::Shutdown) => return Some(Exit::Crashed),
            Ok(VcpuExit::SystemEvent(kind, _)) => return Some(system_event(kind)),
            Ok(VcpuExit::Intr) => return None,
            Ok(VcpuExit::Hlt | VcpuExit::IrqWindowOpen) => {}
            Ok(VcpuExit::FailEntry(reason, cpu)) => {
                return Some(Exit::Fault(format!(
                    "KVM cannot enter the guest: {reason:#x} on CPU {cpu}"
                )));
            }
            Ok(VcpuExit::InternalError) => {
                let text = "KVM cannot run an instruction of the guest (internal error)";
                return Some(Exit::Fault(text.to_owned()));
            }
            Ok(other) => return Some(Exit::Fault(format!("unexpected KVM exit {other:?}"))),
            Err(error) if error.errno() == libc::EINTR => return None,
            Err(error) if error.errno() == libc::EAGAIN => {}
            Err(error) => return Some(Exit::Fault(format!("KVM_RUN: {error}"))),
        }
    }
}

fn system_event(kind: u32) -> Exit {
    match kind {
        kvm_bindings::KVM_SYSTEM_EVENT_SHUTDOWN => Exit::PowerOff,
        kvm_bindings::KVM_SYSTEM_EVENT_RESET => Exit::Reset,
        kvm_bindings::KVM_SYSTEM_EVENT_CRASH => Exit::Crashed,
        other => Exit::Fault(format!("unexpected KVM system event {other}")),
    }
}
