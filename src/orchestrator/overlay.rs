//! The disks that a VM has alone: the writable one over its image, a sparse ext4 file, and its copies
//! of disks that others have too. Made before its first start, kept over stops, removed with the VM.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::artifact::oci::ImageError;
use crate::artifact::{self, NamedBy, volume};
use crate::model::{Digest, ImageRoot, Overlay, VmId};
use crate::orchestrator::images::Images;
use crate::sys::crash;
use crate::vmm::DiskSpec;

/// What the agent finds the disks by (guest-agent, root.rs).
const ROOT_SERIAL: &str = volant_protocol::ROOT_DISK_SERIAL;
const OVERLAY_SERIAL: &str = volant_protocol::OVERLAY_DISK_SERIAL;

fn path(folder: &Path, id: VmId) -> PathBuf {
    folder.join(format!("{id}.ext4"))
}

/// The disks of a VM that runs an image: the shared root, and its own overlay unless that is kept
/// in the guest's memory. Blocks.
///
/// # Errors
/// One sentence for the user.
pub fn open_disks(images: &Images, id: VmId, image: &ImageRoot) -> Result<Vec<DiskSpec>, String> {
    let root = images.root_path(image.root);
    let file =
        artifact::open_disk(&root, true, NamedBy::Daemon).map_err(|error| match root.exists() {
            true => error.to_string(),
            false => format!("the root of {} is not here any more: pull it again", image.reference),
        })?;
    let mut disks = vec![DiskSpec { file, readonly: true, serial: ROOT_SERIAL.to_owned() }];
    if let Overlay::Persistent { mib } = image.overlay {
        let path = ensure(images.overlays(), id, mib).map_err(|error| told(&error))?;
        let file = artifact::open_disk(&path, false, NamedBy::Daemon)
            .map_err(|error| error.to_string())?;
        disks.push(DiskSpec { file, readonly: false, serial: OVERLAY_SERIAL.to_owned() });
    }
    Ok(disks)
}

fn told(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull => ImageError::DiskFull.to_string(),
        _ => format!("make the VM's disk: {error}"),
    }
}

/// Makes the VM's copy of its disk number `index` unless it is there: whole, or not at all. Blocks.
///
/// # Errors
/// One sentence for the user.
pub fn ensure_copy(folder: &Path, id: VmId, index: usize, from: &File) -> Result<PathBuf, String> {
    let path = folder.join(format!("{id}-{index}.img"));
    if path.exists() {
        return Ok(path);
    }
    let partial = path.with_extension("partial");
    let copy = || {
        let to =
            File::options().read(true).write(true).create(true).truncate(true).open(&partial)?;
        volume::copy(from, &to)?;
        crash::point("disk.copied");
        fs::rename(&partial, &path)
    };
    copy().map_err(|error| told(&error))?;
    Ok(path)
}

/// Makes the VM's disk unless it is there: whole, or not at all.
fn ensure(folder: &Path, id: VmId, mib: u64) -> io::Result<PathBuf> {
    let path = path(folder, id);
    if path.exists() {
        return Ok(path);
    }
    volume::make(&path, &path.with_extension("partial"), mib << 20)?;
    Ok(path)
}

/// Removes the VM's disks, if it has any. Blocks.
///
/// # Errors
/// The host's.
pub fn remove(folder: &Path, id: VmId) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if owner(&entry.file_name().to_string_lossy()) == Some(id) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Whose disk it is, by its name: `ID.ext4`, `ID-N.img`.
fn owner(name: &str) -> Option<VmId> {
    let copy = || name.strip_suffix(".img")?.split_once('-').map(|(id, _)| id);
    let id = name.strip_suffix(".ext4").or_else(copy)?;
    id.parse().ok().map(VmId)
}

/// Removes the disks of VMs that are not `known`, and those that a crash has left half-made. Blocks.
///
/// # Errors
/// The host's.
pub fn retain(folder: &Path, known: &BTreeSet<VmId>) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let id = owner(&entry.file_name().to_string_lossy());
        if id.is_none_or(|id| !known.contains(&id)) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

impl Images {
    /// Made of an image's layers, or brought as it is.
    fn root_path(&self, root: Digest) -> PathBuf {
        let kinds = [artifact::store::Kind::Root, artifact::store::Kind::Artifact];
        let [made, brought] = kinds.map(|kind| self.store().path(kind, root));
        if brought.exists() && !made.exists() { brought } else { made }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_made_once_and_go_with_their_vm() {
        let folder = tempfile::tempdir().unwrap();
        let one = ensure(folder.path(), VmId(1), 64).unwrap();
        let two = ensure(folder.path(), VmId(2), 64).unwrap();
        fs::write(&one, "kept").unwrap();
        assert_eq!(ensure(folder.path(), VmId(1), 64).unwrap(), one);
        assert_eq!(fs::read(&one).unwrap(), b"kept", "what a guest has written stays");
        fs::write(folder.path().join("3.partial"), "").unwrap();
        let base = tempfile::tempfile().unwrap();
        base.set_len(1 << 20).unwrap();
        let copy = ensure_copy(folder.path(), VmId(2), 0, &base).unwrap();
        fs::write(&copy, "kept").unwrap();
        assert_eq!(ensure_copy(folder.path(), VmId(2), 0, &base).unwrap(), copy);
        assert_eq!(fs::read(&copy).unwrap(), b"kept");
        retain(folder.path(), &BTreeSet::from([VmId(1)])).unwrap();
        assert!(one.exists() && !two.exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        remove(folder.path(), VmId(1)).unwrap();
        remove(folder.path(), VmId(1)).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
