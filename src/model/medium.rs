//! Files that VMs are made of, and where they come from.

use crate::model::Digest;

/// A file that a new VM needs and that the daemon brings first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Medium {
    /// What it becomes.
    pub role: MediumRole,
    /// `http://`, `https://`, or an absolute path of the host.
    pub source: String,
    /// What it must be; none takes what comes.
    pub digest: Option<Digest>,
    /// What it holds.
    pub format: MediumFormat,
}

/// What a medium becomes in its VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediumRole {
    /// The initramfs.
    Initramfs,
    /// The disk at this place of the list.
    Disk(usize),
    /// The read-only root of an image's kind.
    Root,
}

/// What a medium holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediumFormat {
    /// The bytes themselves.
    Raw,
    /// QEMU's copy-on-write format.
    Qcow2,
}
