//! One task per VM: the only one that changes it.
//!
//! Intent is stored before effect: every state change goes to the store first and is published
//! (watchers, events) after. A caller that hangs up changes nothing: the command is already here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use volant_protocol::{AGENT_PORT, ShutdownMode, ShutdownRequest};

use crate::agent;
use crate::model::{EventKind, Vm, VmState};
use crate::orchestrator::machine::{Live, connect};
use crate::orchestrator::policy::{Admit, Change, admit};
use crate::orchestrator::start::{self, Started, reason};
use crate::orchestrator::{Error, Handle, Shared, now_ms};
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
    fn refuse(self, error: Error) {
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
    pub live: Option<(Live, oneshot::Receiver<Exit>)>,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("vm", &self.vm.borrow().id).finish_non_exhaustive()
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
                (Ok(Admit::Do), Change::Start) => next = self.begin_start(command).await,
                (Ok(Admit::Do), Change::Stop) => {
                    self.stop(false).await;
                    self.finish(command);
                }
                (Ok(Admit::Do), Change::Restart) => {
                    self.stop(false).await;
                    next = self.begin_start(command).await;
                }
                (Ok(Admit::Do), Change::Delete) => {
                    self.delete(command).await;
                    return;
                }
            }
        }
    }

    /// The next command; meanwhile the end of the machine is taken note of, before any command.
    async fn wait(&mut self) -> Option<Command> {
        loop {
            let Some((_, exit)) = &mut self.live else { return self.commands.recv().await };
            tokio::select! {
                biased;
                ended = exit => self.ended(ended.ok()).await,
                command = self.commands.recv() => return command,
            }
        }
    }

    fn finish(&self, command: Command) {
        let vm = self.vm.borrow().clone();
        let _ = command.accepted.send(Ok(vm.clone()));
        let _ = command.done.send(Ok(vm));
    }

    /// Stores, then publishes. A store that fails leaves the published state as it was.
    async fn set(&self, state: VmState, kind: EventKind, message: &str) {
        let id = self.vm.borrow().id;
        let stored =
            self.shared.store.set_state(id, state, kind, message.to_owned(), now_ms()).await;
        match stored {
            Ok(Some((vm, event))) => {
                self.vm.send_modify(|published| {
                    (published.state, published.updated_at_ms) = (vm.state, vm.updated_at_ms);
                });
                self.shared.publish(event);
            }
            Ok(None) => tracing::error!(vm = %id, "the VM's row is gone"),
            Err(error) => {
                tracing::error!(vm = %id, error = crate::orchestrator::chain(&error), "state not stored");
            }
        }
    }

    async fn begin_start(&mut self, command: Command) -> Option<Command> {
        if let Err(error) = self.shared.admit_memory(self.vm.borrow().spec.memory_mib) {
            command.refuse(error);
            return None;
        }
        self.set(VmState::Starting, EventKind::Starting, "vm starting").await;
        self.start(command).await
    }

    /// Starts; a stop or delete that comes meanwhile interrupts it and is returned to be done next.
    async fn start(&mut self, command: Command) -> Option<Command> {
        let vm = self.vm.borrow().clone();
        let Command { accepted, done, .. } = command;
        let _ = accepted.send(Ok(vm.clone()));
        let (shared, handle) = (Arc::clone(&self.shared), Arc::clone(&self.handle));
        let pipeline = start::run(&shared, &vm, Instant::now(), |live| handle.publish(live));
        tokio::pin!(pipeline);
        let outcome = loop {
            tokio::select! {
                outcome = &mut pipeline => break outcome,
                next = self.commands.recv() => match next {
                    Some(next) if matches!(next.change, Change::Stop | Change::Delete) => {
                        let _ = done.send(Err(Error::StartFailed("it was stopped".to_owned())));
                        self.set(VmState::Stopped, EventKind::Stopped, "start interrupted").await;
                        return Some(next);
                    }
                    Some(next) => next.refuse(Error::State { state: "starting", what: "wait until it runs" }),
                    None => return None,
                },
            }
        };
        match outcome {
            Ok(Started { live, exit, timeline, exits }) => {
                self.live = Some((live, exit));
                self.vm.send_modify(|vm| (vm.timeline, vm.boot_exits) = (timeline, exits));
                self.set(VmState::Running, EventKind::Running, "vm running").await;
                let _ = done.send(Ok(self.vm.borrow().clone()));
            }
            Err(text) => {
                tracing::warn!(vm = %vm.id, reason = text, "a VM did not start");
                let failed = VmState::Failed { reason: text.clone() };
                self.set(failed, EventKind::Crashed, &text).await;
                let _ = done.send(Err(Error::StartFailed(text)));
            }
        }
        None
    }

    /// The machine has ended by itself.
    async fn ended(&mut self, exit: Option<Exit>) {
        let text = reason(exit.clone());
        if let Some((live, _)) = self.live.take() {
            live.stop().await;
        }
        self.handle.withdraw();
        match exit {
            Some(Exit::PowerOff | Exit::Reset | Exit::Stopped) => {
                self.set(VmState::Stopped, EventKind::Stopped, &text).await;
            }
            _ => {
                self.set(VmState::Failed { reason: text.clone() }, EventKind::Crashed, &text).await;
            }
        }
    }

    /// Asks the guest, then ends the machine. `quiet` leaves the state to the caller.
    async fn stop(&mut self, quiet: bool) {
        let Some((live, exit)) = self.live.take() else {
            if !quiet {
                self.set(VmState::Stopped, EventKind::Stopped, "vm stopped").await;
            }
            return;
        };
        if !quiet {
            self.set(VmState::Stopping, EventKind::Stopping, "vm stopping").await;
        }
        let timeout = self.shared.config.stop_timeout;
        let asked = async {
            let vsock = live.machine()?.vsock();
            let stream = connect(&vsock, AGENT_PORT).await.ok()?;
            let grace = timeout / GRACE_SHARE;
            let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(0);
            let request = ShutdownRequest { mode: ShutdownMode::Poweroff, grace_ms };
            agent::shutdown(stream, &request).await.ok()?;
            exit.await.ok()
        };
        let graceful = matches!(tokio::time::timeout(timeout, asked).await, Ok(Some(_)));
        live.stop().await;
        self.handle.withdraw();
        if !quiet {
            let message =
                if graceful { "vm stopped" } else { "vm stopped: the guest did not end in time" };
            self.set(VmState::Stopped, EventKind::Stopped, message).await;
        }
    }

    async fn delete(&mut self, command: Command) {
        self.set(VmState::Deleting, EventKind::Stopping, "vm deleting").await;
        if let Some((live, _)) = self.live.take() {
            live.stop().await;
        }
        self.handle.withdraw();
        let vm = self.vm.borrow().clone();
        let _ = command.accepted.send(Ok(vm.clone()));
        let outcome = match self.shared.store.delete_vm(vm.id, now_ms()).await {
            Ok(event) => {
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
