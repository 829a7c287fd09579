//! Which VM answers an action, and where in its guest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::model::{Kind, Vm, VmName, VmState};
use crate::orchestrator::plugins::{Plugin, PluginError};
use crate::orchestrator::{Error, Handle, Orchestrator};
use crate::plugin::{self, Action, Language, Manifest, default_port, full_path};

/// How long an action waits for a VM that is about to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an answer may take to begin when the manifest does not say.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A refusal that concerns actions.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    /// The plugin has no such action.
    #[error("plugin {plugin:?} has no action {action:?}")]
    NotFound {
        /// The plugin.
        plugin: String,
        /// The action.
        action: String,
    },
    /// The VM is of another plugin.
    #[error("VM {vm:?} runs {runtime:?}, which is not what plugin {plugin:?} is for")]
    OtherRuntime {
        /// The VM.
        vm: String,
        /// What it runs.
        runtime: String,
        /// The plugin.
        plugin: String,
    },
    /// The VM's workload is not ready and not about to be.
    #[error("VM {vm:?} is not ready: {reason}")]
    NotReady {
        /// The VM.
        vm: String,
        /// Why.
        reason: String,
    },
    /// No VM of the plugin is ready.
    #[error("no VM of plugin {0:?} is ready")]
    NoneReady(String),
}

impl ActionError {
    /// Who must act.
    pub fn kind(&self) -> Kind {
        match self {
            ActionError::NotFound { .. } => Kind::NotFound,
            ActionError::OtherRuntime { .. } | ActionError::NotReady { .. } => Kind::Conflict,
            ActionError::NoneReady(_) => Kind::Unavailable,
        }
    }

    /// Stable code; docs/http-status.md lists them.
    pub fn code(&self) -> &'static str {
        match self {
            ActionError::NotFound { .. } => "action_not_found",
            ActionError::OtherRuntime { .. } => "runtime_mismatch",
            ActionError::NotReady { .. } => "vm_not_ready",
            ActionError::NoneReady(_) => "no_ready_vm",
        }
    }

    /// What the user can do about it, if there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            ActionError::NotFound { .. } => Some("`volantd ctl plugins show NAME` lists actions"),
            ActionError::NotReady { .. } => Some("`volantd ctl vms logs NAME` shows its output"),
            ActionError::NoneReady(_) => Some("create one with `volantd ctl vms create --plugin`"),
            ActionError::OtherRuntime { .. } => {
                Some("`volantd ctl vms create --plugin` makes one of it")
            }
        }
    }
}

/// What a VM is doing for actions.
#[derive(Debug, Default)]
pub struct Load {
    /// Actions whose answer has not ended.
    in_flight: AtomicUsize,
    /// Actions begun, so that idle VMs take turns.
    begun: AtomicU64,
}

/// Counts one action for as long as its answer lasts.
#[derive(Debug)]
pub struct Busy(Arc<Handle>);

impl Busy {
    fn new(handle: Arc<Handle>) -> Busy {
        // ORDER: a measure of load; nothing else depends on it.
        handle.load.in_flight.fetch_add(1, Ordering::Relaxed);
        handle.load.begun.fetch_add(1, Ordering::Relaxed);
        Busy(handle)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.load.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An action on its way to a VM.
#[derive(Debug)]
pub struct ActionCall {
    /// The VM that answers.
    pub vm: VmName,
    /// Method of the request to the workload.
    pub method: String,
    /// Path, and query if the manifest has one.
    pub path: String,
    /// TCP port in the guest.
    pub port: u16,
    /// Until the answer must have begun.
    pub timeout: Duration,
    /// To be kept until the answer has ended.
    pub busy: Busy,
}

/// What can be asked of a VM.
#[derive(Clone, Debug, Default)]
pub struct Interface {
    /// Name of its plugin; empty if it has none.
    pub plugin: String,
    /// Version of the plugin.
    pub version: String,
    /// The plugin's actions by name.
    pub actions: Vec<(String, ActionView)>,
    /// Where the workload describes itself: a URL, or a path of a file of the guest or of the
    /// workload's server.
    pub document: Option<String>,
    /// TCP port of the workload's server.
    pub port: Option<u16>,
}

/// What is told of an action.
#[derive(Clone, Debug, Default)]
pub struct ActionView {
    /// For people.
    pub description: String,
    /// JSON Schema of what it takes, if the plugin says so.
    pub input: Option<serde_json::Map<String, serde_json::Value>>,
}

/// A document of a guest as a tree, be it JSON or YAML; `None` if it is neither, or too large.
pub fn parse_document(bytes: &[u8]) -> Option<serde_json::Value> {
    let read = |language| plugin::value(bytes, language).ok();
    read(Language::Json).or_else(|| read(Language::Yaml))
}

impl Orchestrator {
    /// Where a VM answers an action. A VM that is about to be ready is waited for.
    ///
    /// # Errors
    /// [`PluginError`], [`ActionError`], [`Error::NotFound`].
    pub async fn action(
        &self,
        vm: &VmName,
        plugin: &str,
        action: &str,
    ) -> Result<ActionCall, Error> {
        let plugin = self.usable(plugin)?;
        let handle = self.find(vm)?;
        let record = handle.vm.borrow().clone();
        let manifest = manifest_for(&record, &plugin)?;
        let found = find(&manifest, action)?;
        wait_until_ready(&handle).await?;
        Ok(call(handle, &manifest, found))
    }

    /// A ready VM of the plugin that answers an action: the one with the fewest in flight, of those
    /// the one that has answered the fewest.
    ///
    /// # Errors
    /// [`PluginError`], [`ActionError`].
    pub fn action_of_any(&self, plugin: &str, action: &str) -> Result<ActionCall, Error> {
        let plugin = self.usable(plugin)?;
        let mut ready = Vec::new();
        for handle in self.shared.handles() {
            let vm = handle.vm.borrow().clone();
            let Ok(manifest) = manifest_for(&vm, &plugin) else { continue };
            if vm.is_ready() && manifest.actions.contains_key(action) {
                ready.push((handle, manifest));
            }
        }
        let load = |handle: &Handle| {
            let load = &handle.load;
            // ORDER: as in `Busy`.
            (load.in_flight.load(Ordering::Relaxed), load.begun.load(Ordering::Relaxed))
        };
        match ready.into_iter().min_by_key(|(handle, _)| load(handle)) {
            Some((handle, manifest)) => {
                let found = find(&manifest, action)?;
                Ok(call(handle, &manifest, found))
            }
            None => {
                // An action that no VM could have is told as that.
                if let Some(current) = plugin.manifest(None) {
                    find(current, action)?;
                }
                Err(ActionError::NoneReady(plugin.name.to_string()).into())
            }
        }
    }

    /// What a VM can be asked; nothing by name if it is of no plugin.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn interface(&self, name: &VmName) -> Result<Interface, Error> {
        let record = self.get(name)?;
        let Some(made_of) = &record.plugin else { return Ok(Interface::default()) };
        let plugin = self.plugin(made_of.name.as_str())?;
        let manifest = manifest_for(&record, &plugin)?;
        let about = |action: &Action| ActionView {
            description: action.description.clone(),
            input: action.input.clone(),
        };
        let actions = manifest.actions.iter().map(|(name, action)| (name.clone(), about(action)));
        Ok(Interface {
            plugin: manifest.name.clone(),
            version: manifest.version.clone(),
            actions: actions.collect(),
            document: manifest.openapi.clone(),
            port: default_port(&manifest),
        })
    }

    /// Plugin and action that are the AG-UI agent of a VM, if it has one of its own.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn agui_action(&self, name: &VmName) -> Result<Option<(String, String)>, Error> {
        let record = self.get(name)?;
        let Some(made_of) = &record.plugin else { return Ok(None) };
        let plugin = self.plugin(made_of.name.as_str())?;
        let manifest = manifest_for(&record, &plugin)?;
        Ok(manifest.agui.as_ref().map(|action| (manifest.name.clone(), action.clone())))
    }

    fn usable(&self, name: &str) -> Result<Arc<Plugin>, Error> {
        let plugin = self.plugin(name)?;
        if plugin.enabled { Ok(plugin) } else { Err(PluginError::Disabled(name.to_owned()).into()) }
    }
}

/// The manifest by which a VM answers actions of a plugin: the version that it is made of, or the
/// plugin's current one if the VM is of another plugin of the same runtime.
fn manifest_for(vm: &Vm, plugin: &Plugin) -> Result<Arc<Manifest>, Error> {
    let made_of = vm.plugin.as_ref().filter(|made_of| made_of.name == plugin.name);
    let manifest = plugin.manifest(made_of.map(|made_of| &made_of.version)).cloned();
    let manifest = manifest.ok_or(Error::Internal("a stored manifest is not understood"))?;
    if made_of.is_none() && vm.runtime != manifest.runtime {
        return Err(ActionError::OtherRuntime {
            vm: vm.name.to_string(),
            runtime: vm.runtime.clone(),
            plugin: plugin.name.to_string(),
        }
        .into());
    }
    Ok(manifest)
}

fn find<'a>(manifest: &'a Manifest, action: &str) -> Result<&'a Action, ActionError> {
    manifest.actions.get(action).ok_or_else(|| ActionError::NotFound {
        plugin: manifest.name.clone(),
        action: action.to_owned(),
    })
}

fn call(handle: Arc<Handle>, manifest: &Manifest, action: &Action) -> ActionCall {
    let timeout = match action.timeout_ms {
        0 => ANSWER_TIMEOUT,
        timeout_ms => Duration::from_millis(timeout_ms),
    };
    let vm = handle.vm.borrow().name.clone();
    ActionCall {
        vm,
        method: action.method.clone(),
        path: full_path(manifest, &action.path),
        // The rules see to it that there is one.
        port: action.port.or_else(|| default_port(manifest)).unwrap_or(0),
        timeout,
        busy: Busy::new(handle),
    }
}

async fn wait_until_ready(handle: &Handle) -> Result<(), Error> {
    let vm = match handle.settled(READY_TIMEOUT).await {
        Err(Error::WaitTimeout) => handle.vm.borrow().clone(),
        settled => settled?,
    };
    if vm.is_ready() {
        return Ok(());
    }
    let reason = match (&vm.state, &vm.workload) {
        (VmState::Running, Some(report)) if !report.reason.is_empty() => report.reason.clone(),
        (VmState::Running, _) => "its workload has not come up yet".to_owned(),
        (state, _) => format!("it is {}", state.as_str()),
    };
    Err(ActionError::NotReady { vm: vm.name.to_string(), reason }.into())
}
