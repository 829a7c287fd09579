//! Refusals and failures, as every skin sees them.

use crate::agent::AgentError;
use crate::artifact::ArtifactError;
use crate::artifact::oci::ImageError;
use crate::model::{InvalidReference, InvalidSpec, Kind};
use crate::orchestrator::actions::ActionError;
use crate::orchestrator::images;
use crate::orchestrator::plugins::PluginError;
use crate::orchestrator::volumes::VolumeError;
use crate::store::StoreError;

/// A refusal or failure. Skins look at [`Error::kind`], [`Error::code`], [`Error::hint`] and the
/// Display text only.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No VM of that name.
    #[error("there is no VM {0:?}")]
    NotFound(String),
    /// A VM of that name exists.
    #[error("a VM called {0:?} exists")]
    NameTaken(String),
    /// No job of that number.
    #[error("there is no operation {0:?}")]
    JobNotFound(String),
    /// As much work that takes long is under way as there may be.
    #[error("too many operations are under way")]
    TooManyJobs,
    /// No token of that name.
    #[error("there is no token {0:?}")]
    TokenNotFound(String),
    /// A token of that name exists.
    #[error("a token {0:?} exists already")]
    TokenTaken(String),
    /// The specification breaks a rule.
    #[error(transparent)]
    Spec(#[from] InvalidSpec),
    /// A refusal that concerns plugins.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// A refusal that concerns actions.
    #[error(transparent)]
    Action(#[from] ActionError),
    /// A refusal that concerns volumes.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// A file that the VM needs cannot be used.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// Kernel and initramfs cannot boot in the memory given.
    #[error("{0}")]
    Image(String),
    /// The VM's state forbids it.
    #[error("the VM is {state}: {what}")]
    State {
        /// Its state.
        state: &'static str,
        /// What cannot be done now.
        what: &'static str,
    },
    /// The VM has too many changes waiting.
    #[error("the VM has too many changes waiting")]
    Busy,
    /// Every address is leased.
    #[error("every address of the subnet is leased")]
    NoAddress,
    /// The guests' memory would exceed the share of the host's that they may have.
    #[error("{wanted_mib} MiB more would exceed the {allowed_mib} MiB that guests may have")]
    NoMemory {
        /// What the VM wants.
        wanted_mib: u64,
        /// What all guests may have.
        allowed_mib: u64,
    },
    /// The VM was started and did not get to running.
    #[error("the VM did not start: {0}")]
    StartFailed(String),
    /// The guest's agent does not do what it is asked.
    #[error("the guest's agent does not answer as it should")]
    Agent(#[source] AgentError),
    /// The guest's agent refuses what it is asked, with a known code.
    #[error("{message}")]
    Guest {
        /// Who must act.
        kind: Kind,
        /// Stable word.
        code: &'static str,
        /// One sentence.
        message: String,
    },
    /// The guest's agent has not this capability.
    #[error("the guest's agent does not do {0}")]
    AgentLacks(&'static str),
    /// A port of the host that is asked for is another's.
    #[error("port {port} of the host is taken")]
    PortTaken {
        /// Which.
        port: u16,
    },
    /// Not one of the host's addresses.
    #[error("{0} is no address of the host")]
    NoSuchAddress(std::net::Ipv4Addr),
    /// As many ports are exposed as there may be.
    #[error("no more ports of the host can be exposed")]
    NoExposure,
    /// The daemon has no proxy listener.
    #[error("the daemon has no proxy listener")]
    NoProxy,
    /// The VM was made without an agent.
    #[error("the VM has no agent: it can be looked at by its console and its network only")]
    NoAgent,
    /// Nothing listens on that port in the guest.
    #[error("nothing in the guest listens on port {0}")]
    PortClosed(u16),
    /// The deadline for waiting has passed; the change goes on.
    #[error("the wait is over; the change goes on")]
    WaitTimeout,
    /// The daemon is on its way down.
    #[error("the daemon is shutting down")]
    ShuttingDown,
    /// An image cannot be had.
    #[error(transparent)]
    Images(#[from] ImageError),
    /// No such reference.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// No image of that name.
    #[error("there is no image {0:?}")]
    ImageNotFound(String),
    /// No artifact of that digest.
    #[error("there is no artifact {0:?}")]
    ArtifactNotFound(String),
    /// VMs run it.
    #[error("{image} is the root of {users}")]
    ImageInUse {
        /// The image.
        image: String,
        /// The VMs.
        users: String,
    },
    /// Images are being brought.
    #[error("images are being pulled, imported or used for a new VM")]
    ImagesBusy,
    /// The VMs' disks cannot be cleaned up.
    #[error("the folder of the VMs' disks cannot be used")]
    Overlay(#[source] std::io::Error),
    /// A workload's log cannot be read or removed.
    #[error("the workload's log cannot be used")]
    Log(#[source] std::io::Error),
    /// The database failed.
    #[error("the database failed")]
    Store(#[source] StoreError),
    /// A fault of the daemon.
    #[error("internal fault: {0}")]
    Internal(&'static str),
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Error {
        match error {
            StoreError::NoAddress => Error::NoAddress,
            other => match VolumeError::of_store(other) {
                Ok(refused) => Error::Volume(refused),
                Err(other) => Error::Store(other),
            },
        }
    }
}

/// What the agent may refuse, and whose turn it is then. Other words of it are a fault.
const REFUSALS: [(&str, Kind); 20] = [
    ("invalid_path", Kind::Invalid),
    ("invalid_user", Kind::Invalid),
    ("invalid_range", Kind::Invalid),
    ("invalid_archive", Kind::Invalid),
    ("invalid_query", Kind::Invalid),
    ("file_not_found", Kind::NotFound),
    ("file_exists", Kind::Conflict),
    ("file_forbidden", Kind::Conflict),
    ("file_failed", Kind::Conflict),
    ("not_a_file", Kind::Conflict),
    ("not_a_directory", Kind::Conflict),
    ("is_a_directory", Kind::Conflict),
    ("directory_not_empty", Kind::Conflict),
    ("cross_device", Kind::Conflict),
    ("guest_disk_full", Kind::Exhausted),
    ("process_not_found", Kind::NotFound),
    ("process_state", Kind::Conflict),
    ("process_not_started", Kind::Invalid),
    ("invalid_exec", Kind::Invalid),
    ("processes_exhausted", Kind::Exhausted),
];

impl From<AgentError> for Error {
    fn from(error: AgentError) -> Error {
        let AgentError::Refused { code, message, .. } = &error else { return Error::Agent(error) };
        match REFUSALS.iter().find(|(known, _)| known == code) {
            Some((code, kind)) => Error::Guest { kind: *kind, code, message: message.clone() },
            None => Error::Agent(error),
        }
    }
}

impl Error {
    /// Who must act.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Plugin(error) => error.kind(),
            Error::Action(error) => error.kind(),
            Error::Volume(error) => error.kind(),
            Error::Images(error) => images::classify(error).0,
            Error::NotFound(_)
            | Error::TokenNotFound(_)
            | Error::JobNotFound(_)
            | Error::ImageNotFound(_)
            | Error::ArtifactNotFound(_) => Kind::NotFound,
            Error::NameTaken(_)
            | Error::TokenTaken(_)
            | Error::State { .. }
            | Error::AgentLacks(_)
            | Error::ImageInUse { .. }
            | Error::NoProxy
            | Error::NoAgent
            | Error::PortTaken { .. } => Kind::Conflict,
            Error::ImagesBusy | Error::TooManyJobs => Kind::Unavailable,
            Error::Reference(_) => Kind::Invalid,
            Error::Spec(_) | Error::Image(_) | Error::Artifact(ArtifactError::Unusable { .. }) => {
                Kind::Invalid
            }
            Error::Busy | Error::ShuttingDown | Error::Agent(_) | Error::PortClosed(_) => {
                Kind::Unavailable
            }
            Error::Guest { kind, .. } => *kind,
            Error::NoSuchAddress(_) => Kind::Invalid,
            Error::NoAddress | Error::NoMemory { .. } | Error::NoExposure => Kind::Exhausted,
            Error::WaitTimeout => Kind::Timeout,
            Error::StartFailed(_)
            | Error::Artifact(ArtifactError::Host { .. })
            | Error::Log(_)
            | Error::Overlay(_)
            | Error::Store(_)
            | Error::Internal(_) => Kind::Internal,
        }
    }

    /// Stable code; docs/http-status.md lists them.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Plugin(error) => error.code(),
            Error::Action(error) => error.code(),
            Error::Volume(error) => error.code(),
            Error::NotFound(_) => "vm_not_found",
            Error::NameTaken(_) => "vm_exists",
            Error::TokenNotFound(_) => "token_not_found",
            Error::JobNotFound(_) => "operation_not_found",
            Error::TooManyJobs => "operations_busy",
            Error::TokenTaken(_) => "token_exists",
            Error::Spec(_) => "invalid_spec",
            Error::Artifact(_) | Error::Image(_) => "invalid_artifact",
            Error::State { .. } => "vm_state",
            Error::Busy => "vm_busy",
            Error::NoAddress => "addresses_exhausted",
            Error::NoMemory { .. } => "host_memory_exhausted",
            Error::StartFailed(_) => "vm_start_failed",
            Error::Agent(AgentError::Silent) => "agent_silent",
            Error::Agent(_) => "agent_unreachable",
            Error::Guest { code, .. } => code,
            Error::AgentLacks(_) => "agent_too_old",
            Error::NoProxy => "no_proxy_listener",
            Error::PortTaken { .. } => "port_taken",
            Error::NoSuchAddress(_) => "invalid_exposure",
            Error::NoExposure => "exposures_exhausted",
            Error::NoAgent => "vm_without_agent",
            Error::PortClosed(_) => "port_closed",
            Error::WaitTimeout => "wait_timeout",
            Error::ShuttingDown => "shutting_down",
            Error::Images(error) => images::classify(error).1,
            Error::Reference(_) => "invalid_reference",
            Error::ImageNotFound(_) => "image_not_found",
            Error::ArtifactNotFound(_) => "artifact_not_found",
            Error::ImageInUse { .. } => "image_in_use",
            Error::ImagesBusy => "images_busy",
            Error::Overlay(_) => "internal",
            Error::Log(_) => "log_failed",
            Error::Store(_) => "store_failed",
            Error::Internal(_) => "internal",
        }
    }

    /// What the user can do about it, if there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Error::Plugin(error) => error.hint(),
            Error::Action(error) => error.hint(),
            Error::Volume(error) => error.hint(),
            Error::NotFound(_) => Some("`volantd ctl vms list` shows the VMs there are"),
            Error::Images(error) => images::classify(error).2,
            Error::ImageNotFound(_) => Some("`volantd ctl images pull` brings it"),
            Error::ImageInUse { .. } => Some("delete those VMs first"),
            Error::ImagesBusy => Some("try again when that is done"),
            Error::TooManyJobs => {
                Some("`volantd ctl operations list` shows them; wait, or cancel one")
            }
            Error::NameTaken(_) => Some("choose another name, or delete that VM first"),
            Error::NoMemory { .. } => Some("stop a VM, or raise memory_percent_max"),
            Error::StartFailed(_) => Some("`volantd ctl vms logs NAME` shows the guest's console"),
            Error::AgentLacks(_) => Some("give the VM an initramfs with this version's agent"),
            Error::PortTaken { .. } => Some("choose another port, or none to get any that is free"),
            Error::NoProxy => Some("start the daemon with --proxy-listen"),
            Error::WaitTimeout => Some("look again later, or wait longer with timeout_ms"),
            Error::NoAddress => Some("delete a VM, or configure a larger subnet"),
            _ => None,
        }
    }
}
