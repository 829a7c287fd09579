//! One task per VM: the only one that changes it.
//!
//! Intent is stored before effect: every state change goes to the store first and is published
//! (watchers, events) after. A caller that hangs up changes nothing: the command is already here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use volant_protocol::{AGENT_PORT, ShutdownMode, ShutdownRequest, WorkloadReport};

use crate::agent;
use crate::logs;
use crate::model::{EventKind, Vm, VmState};
use crate::net::Permit;
use crate::orchestrator::machine::{Live, connect};
use crate::orchestrator::monitor::{self, LogPlace, Monitor};
use crate::orchestrator::policy::{Admit, Change, admit};
use crate::orchestrator::start::{self, Started, reason};
use crate::orchestrator::{Error, Handle, Shared, life, now_ms, overlay};
use crate::sys::crash;
use crate::vmm::Exit;

/// Part of the stop timeout that the guest's processes get between SIGTERM and SIGKILL.
const GRACE_SHARE: u32 = 2;

/// A change, and who waits for it.
#[derive(Debug)]
pub struct Command {
    /// What is asked.
    pub change: Change,
    /// Told when the intent is stored or refused.
    pub accepted: oneshot::Sender<Result<Vm, Error>>,
    /// Told when it is done or has failed.
    pub done: oneshot::Sender<Result<Vm, Error>>,
}

impl Command {
    pub(super) fn refuse(self, error: Error) {
        // Whoever asked may have gone.
        let _ = self.accepted.send(Err(error));
    }
}

/// The task's state.
pub struct Driver {
    /// What all drivers share.
    pub shared: Arc<Shared>,
    /// Where the registry finds the VM.
    pub handle: Arc<Handle>,
    /// The truth as published.
    pub vm: watch::Sender<Vm>,
    /// Changes asked for.
    pub commands: mpsc::Receiver<Command>,
    /// The machine, while there is one.
    pub running: Option<Running>,
    /// What the end of its time asks for is not tried before, so that a store that fails is not
    /// asked in a loop.
    pub expire_after: Option<Instant>,
}

/// A machine that is up.
#[derive(Debug)]
pub struct Running {
    live: Live,
    exit: oneshot::Receiver<Exit>,
    /// Of its workload, if it has one.
    monitor: Option<Monitor>,
    /// Held for its end: the guest may send while its machine lives.
    _permit: Option<Permit>,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("vm", &self.vm.borrow().id).finish_non_exhaustive()
    }
}

/// The next report of a monitor that there may not be.
async fn next_report(monitor: Option<&mut Option<Monitor>>) -> WorkloadReport {
    match monitor.and_then(Option::as_mut) {
        Some(monitor) => monitor.next().await,
        None => std::future::pending().await,
    }
}

/// The end of a machine that there may not be.
async fn next_exit(exit: Option<&mut oneshot::Receiver<Exit>>) -> Option<Exit> {
    match exit {
        Some(exit) => exit.await.ok(),
        None => std::future::pending().await,
    }
}

impl Driver {
    /// Serves until the VM is deleted or the daemon ends. `first` is the start that a create asked
    /// for.
    pub async fn run(mut self, first: Option<Command>) {
        let mut next = first;
        loop {
            let command = match next.take() {
                Some(command) => command,
                None => match self.wait().await {
                    Some(command) => command,
                    None => return,
                },
            };
            if self.vm.borrow().state == VmState::Starting && command.change == Change::Start {
                // The start that belongs to a create: its intent is stored already.
                next = self.start(command).await;
                continue;
            }
            let admitted = admit(&self.vm.borrow().state, command.change);
            match (admitted, command.change) {
                (Err(error), _) => command.refuse(error),
                (Ok(Admit::Nothing), _) => self.finish(command),
                (Ok(Admit::Do), Change::SetExpiry(expiry)) => {
                    self.change_expiry(command, expiry).await
                }
                (Ok(Admit::Do), Change::Start) => next = self.begin_start(command).await,
                (Ok(Admit::Do), Change::Stop) => {
                    self.stop().await;
                    self.finish(command);
                }
                (Ok(Admit::Do), Change::Restart) => {
                    self.stop().await;
                    next = self.begin_start(command).await;
                }
                (Ok(Admit::Do), Change::Delete) => {
                    let intent = self.store(VmState::Deleting, EventKind::Stopping, "vm deleting");
                    match intent.await {
                        Ok(()) => return self.delete(command).await,
                        Err(error) => command.refuse(error),
                    }
                }
            }
        }
    }

    /// The next command, which may be what the end of the VM's time asks for; meanwhile the end of
    /// the machine is taken note of, before any command.
    async fn wait(&mut self) -> Option<Command> {
        loop {
            let is_over = life::is_over(self.vm.borrow().expiry, self.expire_after);
            let (exit, monitor) = match &mut self.running {
                Some(Running { exit, monitor, .. }) => (Some(exit), Some(monitor)),
                None => (None, None),
            };
            tokio::select! {
                biased;
                ended = next_exit(exit) => self.ended(ended).await,
                report = next_report(monitor) => self.reported(report).await,
                command = self.commands.recv() => return command,
                then = is_over => {
                    if let Some(command) = self.expired(then).await {
                        return Some(command);
                    }
                }
            }
        }
    }

    /// The workload's state has changed. A crash of the store loses the event, not the state.
    async fn reported(&mut self, report: WorkloadReport) {
        let before = self.vm.borrow().workload.clone();
        let id = self.vm.borrow().id;
        let events = monitor::changes(before.as_ref(), &report);
        self.vm.send_modify(|vm| vm.workload = Some(report));
        for (kind, message) in events {
            match self.shared.store.append_event(id, kind, message, now_ms()).await {
                Ok(event) => event.into_iter().for_each(|event| self.shared.publish(event)),
                Err(error) => {
                    let error = crate::orchestrator::chain(&error);
                    tracing::error!(vm = %id, error, "event not stored");
                }
            }
        }
    }

    /// Follows the workload, if the VM has one.
    async fn watch_workload(&self, live: &Live) -> Option<Monitor> {
        let id = {
            let vm = self.vm.borrow();
            vm.spec.workload.as_ref().map(|_| vm.id)?
        };
        let config = &self.shared.config;
        let place =
            LogPlace { folder: logs::folder(&config.logs, id), len_max: config.log_len_max };
        Some(Monitor::start(live.machine()?.vsock(), place, &self.handle).await)
    }

    pub(super) fn finish(&self, command: Command) {
        let vm = self.vm.borrow().clone();
        let _ = command.accepted.send(Ok(vm.clone()));
        let _ = command.done.send(Ok(vm));
    }

    /// Stores, then publishes.
    ///
    /// # Errors
    /// The store's; the published state is as it was.
    async fn store(&self, state: VmState, kind: EventKind, message: &str) -> Result<(), Error> {
        let id = self.vm.borrow().id;
        let stored =
            self.shared.store.set_state(id, state, kind, message.to_owned(), now_ms()).await?;
        let (vm, event) = stored.ok_or(Error::Internal("the VM's row is gone"))?;
        self.vm.send_modify(|published| {
            (published.state, published.updated_at_ms) = (vm.state, vm.updated_at_ms);
        });
        self.shared.publish(event);
        Ok(())
    }

    /// Tells what has happened already. A store that fails cannot undo it: the daemon's next start
    /// brings the row to the truth.
    async fn set(&self, state: VmState, kind: EventKind, message: &str) {
        if let Err(error) = self.store(state, kind, message).await {
            let id = self.vm.borrow().id;
            tracing::error!(vm = %id, error = crate::orchestrator::chain(&error), "state not stored");
        }
    }

    async fn begin_start(&mut self, command: Command) -> Option<Command> {
        let wanted_mib = self.vm.borrow().spec.memory_mib;
        let intent = match self.shared.admit_memory(wanted_mib) {
            Ok(()) => self.store(VmState::Starting, EventKind::Starting, "vm starting").await,
            refused => refused,
        };
        if let Err(error) = intent {
            command.refuse(error);
            return None;
        }
        self.start(command).await
    }

    /// Starts; a stop or delete that comes meanwhile interrupts it and is returned to be done next.
    async fn start(&mut self, command: Command) -> Option<Command> {
        crash::point("start.stored");
        let vm = self.vm.borrow().clone();
        let Command { accepted, done, .. } = command;
        let _ = accepted.send(Ok(vm.clone()));
        let (shared, handle) = (Arc::clone(&self.shared), Arc::clone(&self.handle));
        let interrupted = CancellationToken::new();
        let publish = |live: &_| handle.publish(live);
        let pipeline = start::run(&shared, &vm, Instant::now(), &interrupted, publish);
        tokio::pin!(pipeline);
        let mut then = None;
        let outcome = loop {
            tokio::select! {
                outcome = &mut pipeline => break outcome,
                Some(next) = self.commands.recv(), if then.is_none() => match next.change {
                    Change::Stop | Change::Delete => {
                        interrupted.cancel();
                        then = Some(next);
                    }
                    Change::SetExpiry(expiry) => self.change_expiry(next, expiry).await,
                    _ => next.refuse(Error::State { state: "starting", what: "wait until it runs" }),
                },
            }
        };
        match outcome {
            // If it ran before the interruption was seen, the command that is next ends it.
            Ok(Started { live, exit, permit, timeline, exits, agent }) => {
                self.handle.parts().agent = agent;
                let monitor = self.watch_workload(&live).await;
                self.running = Some(Running { live, exit, monitor, _permit: permit });
                self.vm.send_modify(|vm| (vm.timeline, vm.boot_exits) = (timeline, exits));
                self.shared.refresh_forwards();
                self.set(VmState::Running, EventKind::Running, "vm running").await;
                let _ = done.send(Ok(self.vm.borrow().clone()));
            }
            Err(text) if then.is_some() => {
                self.withdraw();
                self.set(VmState::Stopped, EventKind::Stopped, "start interrupted").await;
                let _ = done.send(Err(Error::StartFailed(text)));
            }
            Err(text) => {
                self.withdraw();
                tracing::warn!(vm = %vm.id, reason = text, "a VM did not start");
                let failed = VmState::Failed { reason: text.clone() };
                self.set(failed, EventKind::Crashed, &text).await;
                let _ = done.send(Err(Error::StartFailed(text)));
            }
        }
        then
    }

    /// The machine has ended by itself.
    async fn ended(&mut self, exit: Option<Exit>) {
        let text = reason(exit.clone());
        self.end_machine().await;
        match exit {
            Some(Exit::PowerOff | Exit::Reset | Exit::Stopped) => {
                self.set(VmState::Stopped, EventKind::Stopped, &text).await;
            }
            _ => {
                self.set(VmState::Failed { reason: text.clone() }, EventKind::Crashed, &text).await;
            }
        }
    }

    /// Nothing reaches the machine any more.
    fn withdraw(&self) {
        self.handle.withdraw();
        self.shared.refresh_forwards();
    }

    /// Ends the machine, if there is one, and takes back its right to send.
    async fn end_machine(&mut self) {
        if let Some(running) = self.running.take() {
            running.live.stop().await;
            if let Some(monitor) = running.monitor {
                monitor.finish().await;
            }
        }
        self.vm.send_modify(|vm| vm.workload = None);
        self.withdraw();
    }

    /// Asks the guest, then ends the machine.
    async fn stop(&mut self) {
        self.set(VmState::Stopping, EventKind::Stopping, "vm stopping").await;
        crash::point("stop.stored");
        let graceful = self.ask_guest_to_end().await;
        crash::point("stop.asked");
        self.end_machine().await;
        crash::point("stop.ended");
        let message = match graceful {
            true => "vm stopped",
            false if !self.vm.borrow().spec.boot_from.has_agent() => {
                "vm stopped: it has no agent that could have been asked"
            }
            false => "vm stopped: the guest did not end in time",
        };
        self.set(VmState::Stopped, EventKind::Stopped, message).await;
    }

    /// Whether the guest has powered itself off within the stop timeout.
    async fn ask_guest_to_end(&mut self) -> bool {
        let has_agent = self.vm.borrow().spec.boot_from.has_agent();
        let Some(running) = &mut self.running else { return true };
        if !has_agent {
            return false;
        }
        let timeout = self.shared.config.stop_timeout;
        let asked = async {
            let vsock = running.live.machine()?.vsock();
            let stream = connect(&vsock, AGENT_PORT).await.ok()?;
            let grace = timeout / GRACE_SHARE;
            let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(0);
            let request = ShutdownRequest { mode: ShutdownMode::Poweroff, grace_ms };
            agent::shutdown(stream, &request).await.ok()?;
            (&mut running.exit).await.ok()
        };
        matches!(tokio::time::timeout(timeout, asked).await, Ok(Some(_)))
    }

    async fn delete(&mut self, command: Command) {
        crash::point("delete.stored");
        if !self.vm.borrow().spec.volumes.is_empty() {
            // What it has written outlives it, and may not have left its memory yet.
            self.ask_guest_to_end().await;
        }
        self.end_machine().await;
        crash::point("delete.ended");
        let vm = self.vm.borrow().clone();
        let _ = command.accepted.send(Ok(vm.clone()));
        let (root, id) = (self.shared.config.logs.clone(), vm.id);
        // What stays is removed by the daemon's next start.
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || logs::remove(&root, id)).await {
            tracing::warn!(vm = %id, %error, "a log was not removed");
        }
        let (overlays, id) = (self.shared.images.overlays().to_owned(), vm.id);
        let removed = tokio::task::spawn_blocking(move || overlay::remove(&overlays, id)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(vm = %id, %error, "a VM's disk was not removed");
        }
        crash::point("delete.overlay");
        let outcome = match self.shared.store.delete_vm(vm.id, now_ms()).await {
            Ok(event) => {
                crash::point("delete.done");
                self.shared.forget(&vm);
                if let Some(event) = event {
                    self.shared.publish(event);
                }
                Ok(vm)
            }
            Err(error) => Err(Error::from(error)),
        };
        let _ = command.done.send(outcome);
    }

    /// How long a caller should give a stop.
    pub fn stop_budget(shared: &Shared) -> Duration {
        shared.config.stop_timeout + Duration::from_secs(15)
    }
}
