//! Who may change a VM, in which order, and what happens after a crash. One public handle.
//!
//! Every VM has a driver task, its only writer. Callers send it a command and wait for the answer.

mod access;
mod actions;
mod answers;
mod build;
mod cmdline;
mod console;
mod driver;
mod error;
mod expose;
mod files;
mod images;
mod jobs;
mod life;
mod machine;
mod media;
mod monitor;
mod overlay;
mod pipe;
mod plugin_artifacts;
mod plugins;
mod policy;
mod processes;
mod pulse;
mod reach;
mod reconcile;
mod start;
mod vm_access;
mod volumes;
mod workload_log;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use volant_protocol::AGENT_PORT;

use crate::artifact::source::Sources;
use crate::logs;
use crate::model::{Event, NewVm, Vm, VmId, VmName, VmState};
use crate::net::{Forward, Network};
use crate::store::{Store, StoreError};
use crate::sys::crash;
use crate::vmm::{Hypervisor, Vsock};
use actions::Load;
use answers::{Answers, DRIVER_GONE, command};
use driver::{Command, Driver};
use jobs::Jobs;
use machine::Live;
use plugins::Registry;
use policy::Change;
use reconcile::reconcile;
use volumes::Volumes;

pub use crate::agent::{
    AgentError, AttachOptions, Attachment, Download, FileWatch, InputSender, Payload, ProcessInput,
    ProcessOutput, StreamObject, WriteOptions,
};
pub use crate::artifact::oci::Credentials;
pub use crate::artifact::progress::{Progress, ProgressSender};
pub use crate::logs::{Entry as LogEntry, Start as LogStart};
pub use crate::plugin::{Language, Refused, VmRequest, schema as manifest_schema};
pub use crate::vmm::Console;
pub use actions::{ActionCall, ActionError, ActionView, Interface, parse_document};
pub use build::Built;
pub use console::Viewer;
pub use error::Error;
pub use images::{ImageDetails, Images, ImagesConfig, Pruned};
pub use jobs::{Job, JobState, JobView};
pub use media::Brought;
pub use plugins::{InstalledVersion, Plugin, PluginError};
pub use vm_access::SignedAddress;
pub use volant_protocol::{
    AgentInfo, Deadline, FileEvent, FileEventKind, FileInfo, FileKind, FileList, GuestMetrics,
    LIST_LEN_MAX, ListeningPort, MoveRequest, ProcessInfo, ProcessRequest, ProcessStatus,
    TerminalSize,
};
pub use volumes::{VolumeError, VolumeInfo};
pub use workload_log::WorkloadLog;

/// Changes of one VM that wait.
const COMMANDS_MAX: usize = 16;
/// Events that a slow subscriber may lag behind before it must catch up from the store.
const EVENTS_LAG_MAX: usize = 1024;

/// What the engine is told at start.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Default kernel.
    pub kernel: PathBuf,
    /// Default initramfs.
    pub initramfs: PathBuf,
    /// Deadline from start to the agent's answer.
    pub boot_timeout: Duration,
    /// What a guest has between the request to shut down and its end.
    pub stop_timeout: Duration,
    /// Name servers told to guests.
    pub dns: Vec<std::net::Ipv4Addr>,
    /// Folder of the workloads' logs.
    pub logs: PathBuf,
    /// Bytes kept of what each workload writes.
    pub log_len_max: u64,
    /// Folder of the volumes.
    pub volumes: PathBuf,
    /// Guest agent, for what is built.
    pub agent: PathBuf,
    /// Static busybox, for what is built; it need not be there.
    pub busybox: PathBuf,
    /// Where the files of VMs may come from.
    pub sources: Sources,
    /// Whether guests' RAM is to be in huge pages.
    pub huge_pages: bool,
    /// MiB that all guests may be given in sum.
    pub memory_mib_max: u64,
    /// Domain and port of the proxy's own listener, as they are in addresses.
    pub proxy_authority: Option<String>,
    /// `http`, or `https` where it has a certificate.
    pub proxy_scheme: &'static str,
}

/// Whether a call returns before the VM has got there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Return as soon as the intent is stored.
    Accepted,
    /// Return when the VM has got there or failed, at the latest after the time given. When it is
    /// over the error is a timeout; the change goes on.
    Done(Duration),
}

/// What is shared by the handle and the drivers.
#[derive(Debug)]
pub struct Shared {
    config: EngineConfig,
    store: Store,
    network: Network,
    hypervisor: Hypervisor,
    images: Arc<Images>,
    volumes: Volumes,
    vms: RwLock<BTreeMap<VmName, Arc<Handle>>>,
    plugins: Registry,
    jobs: Jobs,
    events: broadcast::Sender<Arc<Event>>,
    drivers: TaskTracker,
    closing: AtomicBool,
    tokens: access::Tokens,
    /// What the firewall leads to guests now.
    forwards: Mutex<Vec<Forward>>,
    /// Held while a port is being exposed.
    exposing: tokio::sync::Mutex<()>,
}

/// One VM as the registry knows it.
#[derive(Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    vm: watch::Receiver<Vm>,
    live: Mutex<LiveParts>,
    load: Load,
    access: vm_access::Access,
    exposures: expose::Exposures,
    console_seat: Arc<console::Seat>,
}

#[derive(Default)]
struct LiveParts {
    vsock: Option<Vsock>,
    console: Option<Arc<dyn Console>>,
    /// Told as the workload's log grows.
    log: Option<watch::Receiver<()>>,
    agent: Option<AgentInfo>,
    /// Cancelled at the end of the machine.
    ended: CancellationToken,
}

impl std::fmt::Debug for LiveParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveParts").field("live", &self.vsock.is_some()).finish_non_exhaustive()
    }
}

impl Handle {
    fn parts(&self) -> MutexGuard<'_, LiveParts> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, live: &Live) {
        if let Some(machine) = live.machine() {
            let mut parts = self.parts();
            parts.vsock = Some(machine.vsock());
            parts.console = Some(machine.console());
            parts.agent = None;
            parts.ended.cancel();
            parts.ended = CancellationToken::new();
        }
    }

    fn publish_log(&self, log: Option<watch::Receiver<()>>) {
        self.parts().log = log;
    }

    /// The VM once it is ready, or is not about to be.
    async fn settled(&self, limit: Duration) -> Result<Vm, Error> {
        let mut watched = self.vm.clone();
        let settled = watched.wait_for(|vm| vm.is_ready() || !vm.is_coming_up());
        match tokio::time::timeout(limit, settled).await {
            Ok(Ok(vm)) => Ok(vm.clone()),
            Ok(Err(_)) => Err(Error::Internal(DRIVER_GONE)),
            Err(_) => Err(Error::WaitTimeout),
        }
    }

    /// The machine has ended; its console stays readable.
    fn withdraw(&self) {
        let mut parts = self.parts();
        (parts.vsock, parts.log, parts.agent) = (None, None, None);
        parts.ended.cancel();
    }
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// An error and its causes in one line, for logs and reasons.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl Shared {
    fn publish(&self, event: Event) {
        // Nobody may be listening.
        let _ = self.events.send(Arc::new(event));
    }

    fn forget(&self, vm: &Vm) {
        self.vms.write().unwrap_or_else(PoisonError::into_inner).remove(&vm.name);
    }

    fn handles(&self) -> Vec<Arc<Handle>> {
        self.vms.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Guests that have, or are getting, a machine count.
    fn admit_memory(&self, wanted_mib: u64) -> Result<(), Error> {
        let has_machine =
            |vm: &Vm| matches!(vm.state, VmState::Starting | VmState::Running | VmState::Stopping);
        let handles = self.handles();
        let used: u64 = handles
            .iter()
            .map(|handle| handle.vm.borrow())
            .filter(|vm| has_machine(vm))
            .map(|vm| vm.spec.memory_mib)
            .sum();
        let allowed_mib = self.config.memory_mib_max;
        if allowed_mib < used.saturating_add(wanted_mib) {
            return Err(Error::NoMemory { wanted_mib, allowed_mib });
        }
        Ok(())
    }
}

/// The one handle by which anything changes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Orchestrator {
    shared: Arc<Shared>,
}

impl Orchestrator {
    /// Takes the parts, finishes or undoes what a crash has left, and is ready.
    ///
    /// # Errors
    /// The store does not let it.
    pub async fn open(
        config: EngineConfig,
        store: Store,
        network: Network,
        hypervisor: Hypervisor,
        images: Images,
    ) -> Result<Orchestrator, Error> {
        let (events, _) = broadcast::channel(EVENTS_LAG_MAX);
        let tokens = access::Tokens::load(&store).await?;
        let volumes = Volumes::open(config.volumes.clone(), &store).await?;
        let shared = Arc::new(Shared {
            config,
            store,
            network,
            hypervisor,
            images: Arc::new(images),
            volumes,
            vms: RwLock::default(),
            plugins: Registry::default(),
            jobs: Jobs::default(),
            events,
            drivers: TaskTracker::new(),
            closing: AtomicBool::new(false),
            tokens,
            forwards: Mutex::default(),
            exposing: tokio::sync::Mutex::default(),
        });
        let this = Orchestrator { shared };
        this.shared.plugins.load(&this.shared.store).await?;
        let vms = reconcile(&this.shared.store).await?;
        let known: BTreeSet<VmId> = vms.iter().map(|vm| vm.id).collect();
        let logs = this.shared.config.logs.clone();
        let overlays = this.shared.images.overlays().to_owned();
        let cleaned = tokio::task::spawn_blocking(move || {
            logs::retain(&logs, &known).map_err(Error::Log)?;
            overlay::retain(&overlays, &known).map_err(Error::Overlay)
        });
        cleaned.await.map_err(|_| Error::Internal("cleaning up panicked"))??;
        for vm in vms {
            this.adopt(vm, expose::Exposures::default(), None);
        }
        this.load_access().await?;
        this.load_exposures().await?;
        Ok(this)
    }

    fn adopt(&self, vm: Vm, exposures: expose::Exposures, first: Option<Command>) -> Arc<Handle> {
        let (commands, queue) = mpsc::channel(COMMANDS_MAX);
        let name = vm.name.clone();
        let (published, watched) = watch::channel(vm);
        let handle = Arc::new(Handle {
            commands,
            vm: watched,
            live: Mutex::default(),
            load: Load::default(),
            access: vm_access::Access::default(),
            exposures,
            console_seat: Arc::default(),
        });
        let driver = Driver {
            shared: Arc::clone(&self.shared),
            handle: Arc::clone(&handle),
            vm: published,
            commands: queue,
            running: None,
            expire_after: None,
        };
        let mut vms = self.shared.vms.write().unwrap_or_else(PoisonError::into_inner);
        vms.insert(name, Arc::clone(&handle));
        self.shared.drivers.spawn(driver.run(first));
        handle
    }

    fn find(&self, name: &VmName) -> Result<Arc<Handle>, Error> {
        let vms = self.shared.vms.read().unwrap_or_else(PoisonError::into_inner);
        vms.get(name).cloned().ok_or_else(|| Error::NotFound(name.to_string()))
    }

    /// Creates a VM, with its exposed ports, and, if `start`, starts it.
    ///
    /// # Errors
    /// [`Error`]; a refused VM leaves nothing behind.
    pub async fn create(&self, new: NewVm, start: bool, wait: Wait) -> Result<Vm, Error> {
        self.open_for_changes()?;
        let (new, media_stay) = self.with_media(new, &ProgressSender::default()).await?;
        let (new, image_stays) = self.with_image(new).await?;
        new.spec.validate()?;
        start::check(&self.shared, &new.spec)?;
        if start {
            self.shared.admit_memory(new.spec.memory_mib)?;
        }
        let this = self.clone();
        // A task of its own: a caller that hangs up between store and registry must not lose a VM.
        let created = tokio::spawn(async move {
            let _stay = (media_stay, image_stays);
            this.insert(new, start).await
        });
        let (vm, answers) = created.await.map_err(|_| Error::Internal("create panicked"))??;
        match answers {
            Some(answers) => answers.wait(wait).await,
            None => Ok(vm),
        }
    }

    async fn insert(&self, mut new: NewVm, start: bool) -> Result<(Vm, Option<Answers>), Error> {
        // Held until the registry has the VM: its ports of the host are nobody else's from now on.
        let _exposing = self.shared.exposing.lock().await;
        let exposures = self.shared.set_aside_for(&mut new)?;
        let network = self.shared.network.config().clone();
        let name = new.name.clone();
        let plugin = new.plugin.as_ref().map(|plugin| plugin.name.to_string());
        let state = if start { VmState::Starting } else { VmState::Stopped };
        let choose = move |used: &_| network.subnet.first_free(network.host_ip, used);
        let stored = self.shared.store.create_vm(new, state, now_ms(), choose).await;
        let (vm, event) = stored.map_err(|error| match error {
            StoreError::NameTaken => Error::NameTaken(name.to_string()),
            // Removed or disabled since the VM was planned.
            StoreError::NoPlugin => PluginError::Disabled(plugin.unwrap_or_default()).into(),
            other => other.into(),
        })?;
        crash::point("create.stored");
        let (command, answers) = command(Change::Start);
        self.adopt(vm.clone(), exposures, start.then_some(command));
        self.shared.publish(event);
        Ok((vm, start.then_some(answers)))
    }

    fn open_for_changes(&self) -> Result<(), Error> {
        // ORDER: a late change is refused by its driver's end as well.
        let closing = self.shared.closing.load(Ordering::Acquire);
        if closing { Err(Error::ShuttingDown) } else { Ok(()) }
    }

    async fn change(&self, name: &VmName, change: Change, wait: Wait) -> Result<Vm, Error> {
        self.open_for_changes()?;
        let handle = self.find(name)?;
        let (command, answers) = command(change);
        handle.commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Busy,
            mpsc::error::TrySendError::Closed(_) => Error::NotFound(name.to_string()),
        })?;
        match answers.wait(wait).await {
            // Deleted before its turn came.
            Err(Error::Internal(DRIVER_GONE)) if self.find(name).is_err() => {
                Err(Error::NotFound(name.to_string()))
            }
            answer => answer,
        }
    }

    /// All VMs by name.
    pub fn list(&self) -> Vec<Vm> {
        self.shared.handles().iter().map(|handle| handle.vm.borrow().clone()).collect()
    }

    /// One VM.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn get(&self, name: &VmName) -> Result<Vm, Error> {
        Ok(self.find(name)?.vm.borrow().clone())
    }

    /// Starts a stopped or failed VM.
    ///
    /// # Errors
    /// Conflict when it is not stopped.
    pub async fn start(&self, name: &VmName, wait: Wait) -> Result<Vm, Error> {
        self.change(name, Change::Start, wait).await
    }

    /// Stops a VM: asks the agent, then ends the machine. Idempotent.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn stop(&self, name: &VmName, wait: Wait) -> Result<Vm, Error> {
        self.change(name, Change::Stop, wait).await
    }

    /// Stop, then start, as one change.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn restart(&self, name: &VmName, wait: Wait) -> Result<Vm, Error> {
        self.change(name, Change::Restart, wait).await
    }

    /// Ends the machine and removes everything of the VM. Returns when it is gone.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete(&self, name: &VmName) -> Result<(), Error> {
        let wait = Wait::Done(Driver::stop_budget(&self.shared));
        self.change(name, Change::Delete, wait).await.map(drop)
    }

    /// The VM once it is ready, or is not about to be: failed, unhealthy, finished, stopped.
    ///
    /// # Errors
    /// [`Error::WaitTimeout`] when it is neither within `limit`.
    pub async fn settled(&self, name: &VmName, limit: Duration) -> Result<Vm, Error> {
        self.find(name)?.settled(limit).await
    }

    /// Waits until the VM is as `holds` wants it. Changes nothing.
    ///
    /// # Errors
    /// [`Error::WaitTimeout`] when the time is over, [`Error::NotFound`] when the VM is deleted.
    pub async fn wait_until(
        &self,
        name: &VmName,
        mut holds: impl FnMut(&Vm) -> bool,
        limit: Duration,
    ) -> Result<Vm, Error> {
        let mut vm = self.find(name)?.vm.clone();
        let waited = tokio::time::timeout(limit, vm.wait_for(|vm| holds(vm))).await;
        let waited = waited.map_err(|_| Error::WaitTimeout)?;
        waited.map(|vm| vm.clone()).map_err(|_| Error::NotFound(name.to_string()))
    }

    /// Waits until the VM is deleted, and returns it as it was last seen.
    ///
    /// # Errors
    /// [`Error::WaitTimeout`], or [`Error::NotFound`] when there is none to begin with.
    pub async fn wait_until_gone(&self, name: &VmName, limit: Duration) -> Result<Vm, Error> {
        let vm = self.find(name)?.vm.clone();
        let gone = async {
            let mut vm = vm.clone();
            while vm.changed().await.is_ok() {}
        };
        tokio::time::timeout(limit, gone).await.map_err(|_| Error::WaitTimeout)?;
        Ok(vm.borrow().clone())
    }

    async fn agent(&self, name: &VmName) -> Result<machine::GuestStream, Error> {
        let handle = self.find(name)?;
        if !handle.vm.borrow().spec.boot_from.has_agent() {
            return Err(Error::NoAgent);
        }
        let state = handle.vm.borrow().state.clone();
        let vsock = handle.parts().vsock.clone();
        match (state, vsock) {
            (VmState::Running, Some(vsock)) => {
                Ok(machine::connect(&vsock, AGENT_PORT).await.map_err(AgentError::Io)?)
            }
            (state, _) => Err(Error::State { state: state.as_str(), what: "it is not running" }),
        }
    }

    /// What the agent of a running VM has said of itself.
    ///
    /// # Errors
    /// [`Error`].
    pub fn agent_info(&self, name: &VmName) -> Result<AgentInfo, Error> {
        let handle = self.find(name)?;
        if !handle.vm.borrow().spec.boot_from.has_agent() {
            return Err(Error::NoAgent);
        }
        let info = handle.parts().agent.clone();
        let state = handle.vm.borrow().state.as_str();
        info.ok_or(Error::State { state, what: "its agent has not answered yet" })
    }

    /// Live events; a receiver that lags is told so and can catch up by [`Orchestrator::events_since`].
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.shared.events.subscribe()
    }

    /// Stored events after `id`, oldest first, at most `limit`; the flag says that older ones
    /// after `id` have been dropped.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn events_since(&self, id: i64, limit: usize) -> Result<(Vec<Event>, bool), Error> {
        Ok(self.shared.store.events_since(id, limit).await?)
    }

    /// Asks all guests to shut down and ends those that do not within the stop timeout. New
    /// changes are refused from now on.
    pub async fn shut_down(&self) {
        self.shared.closing.store(true, Ordering::Release);
        let mut stops = tokio::task::JoinSet::new();
        for handle in self.shared.handles() {
            let budget = Driver::stop_budget(&self.shared);
            stops.spawn(async move {
                let (command, answers) = command(Change::Stop);
                if handle.commands.send(command).await.is_ok() {
                    let _ = answers.wait(Wait::Done(budget)).await;
                }
            });
        }
        stops.join_all().await;
    }
}

#[cfg(test)]
mod tests;
