//! The nouns of the domain: validated, free of I/O, known to every layer above.
//!
//! Deliberately not serializable: `store` and `api` convert at their own edge, so that neither the
//! database nor the wire format can leak inwards.

mod access;
mod boot;
mod event;
mod expiry;
mod exposure;
mod image;
mod medium;
mod name;
mod plugin;
mod vm;
mod volume;
mod workload;

pub use access::{AuditEntry, Repeat, Scope, Token};
pub use boot::{BootFrom, CloudInit, NetworkMode};
pub use event::{Event, EventKind};
pub use expiry::{Expiry, OnExpiry};
pub use exposure::{Exposure, Transport};
pub use image::{Digest, Image, ImageReference, ImageRoot, ImageWish, InvalidReference, Overlay};
pub use medium::{Medium, MediumFormat, MediumRole};
pub use name::{InvalidName, VmName};
pub use plugin::{
    ArtifactEntry, InvalidWord, PluginArtifact, PluginName, PluginRef, PluginVersion,
};
pub use vm::{BootProtocol, BootStep, Disk, InvalidSpec, Mac, NewVm, Vm, VmId, VmSpec, VmState};
pub use volume::{Volume, VolumeMount, VolumeName, VolumeState, VolumeUser};
pub use workload::Workload;

/// Who must act on a failure. The only thing that skins (REST, ctl, ...) look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The caller sent something that can never work.
    Invalid,
    /// The thing named does not exist.
    NotFound,
    /// The thing named is in a state that forbids this now.
    Conflict,
    /// A limit of the host or the configuration is reached.
    Exhausted,
    /// A peer (guest, agent) does not answer now; trying again may help.
    Unavailable,
    /// The deadline that the caller or the configuration set has passed.
    Timeout,
    /// A fault of the daemon or its host; the chain is in the log.
    Internal,
}
