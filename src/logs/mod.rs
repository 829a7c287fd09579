//! What workloads have written, kept on the host: a folder for each VM with numbered segments, the
//! oldest removed as new ones begin, so that a VM's log has an upper size whatever its guest does.
//!
//! A segment is text, one entry a line: time of arrival, stream, `F` for a full line or `P` for a
//! part of one, and the bytes as they came, the format that Kubernetes reads from container
//! runtimes. Segments are only appended to and never renamed: a reader that follows needs nothing
//! but its place. Calls here block, and belong on the blocking pool.

mod reader;
mod writer;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::model::VmId;

pub use reader::{Entry, Reader, Start};
pub use writer::Writer;

/// Segments of one VM.
pub const SEGMENTS_MAX: u64 = 4;
/// The least that a VM's log may be limited to, in bytes.
pub const LEN_MIN: u64 = 64 * 1024;

/// Where an entry came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// The word in a segment and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// The folder of a VM's log below that of all logs.
pub fn folder(root: &Path, vm: VmId) -> PathBuf {
    root.join(vm.to_string())
}

/// Removes a VM's log; one that is not there is removed already.
///
/// # Errors
/// The host's.
pub fn remove(root: &Path, vm: VmId) -> io::Result<()> {
    match fs::remove_dir_all(folder(root, vm)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// Removes the logs of VMs that are none of `known`: a crash came between a VM's end and its log's.
///
/// # Errors
/// The host's.
pub fn retain(root: &Path, known: &BTreeSet<VmId>) -> io::Result<()> {
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name();
        // Whatever else is there was not made here.
        let Some(id) = name.to_str().and_then(|name| name.parse().ok()).map(VmId) else { continue };
        if !known.contains(&id) {
            remove(root, id)?;
        }
    }
    Ok(())
}

fn segment(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}.log"))
}

/// Numbers of the segments there are, in order.
fn segments(folder: &Path) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let number: Option<u64> =
            name.to_str().and_then(|name| name.strip_suffix(".log")?.parse().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests;
