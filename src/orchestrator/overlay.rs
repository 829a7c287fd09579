//! The writable disk over a VM's image: a sparse ext4 file for each VM, made before its first start,
//! kept over stops, removed with the VM.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::artifact::oci::ImageError;
use crate::artifact::{self, volume};
use crate::model::{Digest, ImageRoot, Overlay, VmId};
use crate::orchestrator::images::Images;
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
    let file = artifact::open_disk(&root, true).map_err(|error| match root.exists() {
        true => error.to_string(),
        false => format!("the root of {} is not here any more: pull it again", image.reference),
    })?;
    let mut disks = vec![DiskSpec { file, readonly: true, serial: ROOT_SERIAL.to_owned() }];
    if let Overlay::Persistent { mib } = image.overlay {
        let path = ensure(images.overlays(), id, mib).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull => ImageError::DiskFull.to_string(),
            _ => format!("make the VM's disk: {error}"),
        })?;
        let file = artifact::open_disk(&path, false).map_err(|error| error.to_string())?;
        disks.push(DiskSpec { file, readonly: false, serial: OVERLAY_SERIAL.to_owned() });
    }
    Ok(disks)
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

/// Removes the VM's disk, if it has one. Blocks.
///
/// # Errors
/// The host's.
pub fn remove(folder: &Path, id: VmId) -> io::Result<()> {
    match fs::remove_file(path(folder, id)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes the disks of VMs that are not `known`, and those that a crash has left half-made. Blocks.
///
/// # Errors
/// The host's.
pub fn retain(folder: &Path, known: &BTreeSet<VmId>) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.strip_suffix(".ext4")?.parse().ok());
        if id.is_none_or(|id| !known.contains(&VmId(id))) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

impl Images {
    fn root_path(&self, root: Digest) -> PathBuf {
        self.store().path(artifact::store::Kind::Root, root)
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
        retain(folder.path(), &BTreeSet::from([VmId(1)])).unwrap();
        assert!(one.exists() && !two.exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        remove(folder.path(), VmId(1)).unwrap();
        remove(folder.path(), VmId(1)).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
