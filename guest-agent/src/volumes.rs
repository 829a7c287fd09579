//! Volumes: ext4 disks of their own, mounted where the host says.
#![expect(unsafe_code, reason = "the ioctl that grows a mounted ext4 file system")]

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;

use rustix::mount::{MountFlags, mount, mount_remount};
use volant_protocol::MountConfig;

use crate::root;

/// `_IOW('f', 16, __u64)` (fs/ext4/ext4.h): the new length in blocks.
const EXT4_IOC_RESIZE_FS: libc::Ioctl = 0x4008_6610;
const BLOCK_LEN: u64 = 4096;
/// Of one group; a shorter rest at the end of a disk than [`REST_BLOCKS_MIN`] is left out, as the
/// host does when it makes a volume.
const GROUP_BLOCKS: u64 = 32_768;
const REST_BLOCKS_MIN: u64 = 1024;
/// Where a superblock has the lower half of its length in blocks.
const BLOCKS_AT: u64 = 1024 + 4;

/// Mounts all.
///
/// # Errors
/// The first that cannot be mounted, in the error's text.
pub fn mount_all(mounts: &[MountConfig]) -> io::Result<()> {
    for one in mounts {
        mount_one(one).map_err(|error| io::Error::other(format!("mount {}: {error}", one.path)))?;
    }
    Ok(())
}

fn mount_one(config: &MountConfig) -> io::Result<()> {
    let device = root::disk_of(&config.serial)?;
    fs::create_dir_all(&config.path)?;
    let place = Path::new(&config.path);
    let before = fs::metadata(place)?;
    let plain = MountFlags::NOATIME | MountFlags::NODEV;
    if config.readonly {
        return mount(&device, place, "ext4", plain | MountFlags::RDONLY, c"").map_err(|error| {
            // A journal that is not empty cannot be gone through on a disk that cannot be written to.
            match error {
                rustix::io::Errno::ROFS => io::Error::other(
                    "it was not closed in order: attach it once where it may be written to",
                ),
                other => other.into(),
            }
        });
    }
    mount(&device, place, "ext4", plain, c"")?;
    if is_new(place)? {
        // As the image has the folder, so that its user may write there.
        chown(place, Some(before.uid()), Some(before.gid()))?;
        fs::set_permissions(place, fs::Permissions::from_mode(before.mode() & 0o7777))?;
    }
    grow(&device, place)
}

/// Whether nothing was ever put there.
fn is_new(place: &Path) -> io::Result<bool> {
    let mut entries = fs::read_dir(place)?;
    Ok(entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == "lost+found")))
}

/// Makes the file system as long as its disk has become.
fn grow(device: &str, place: &Path) -> io::Result<()> {
    let disk = File::open(device)?;
    let name = device.trim_start_matches("/dev/");
    let sectors = fs::read_to_string(format!("/sys/block/{name}/size"))?;
    let sectors: u64 = sectors.trim().parse().map_err(io::Error::other)?;
    let all = sectors * 512 / BLOCK_LEN;
    let rest = all % GROUP_BLOCKS;
    let wanted = if rest < REST_BLOCKS_MIN { all - rest } else { all };
    let mut blocks = [0; 4];
    disk.read_exact_at(&mut blocks, BLOCKS_AT)?;
    if wanted <= u64::from(u32::from_le_bytes(blocks)) {
        return Ok(());
    }
    let folder = File::open(place)?;
    // SAFETY: the kernel reads one u64, which lives over the call.
    match unsafe { libc::ioctl(folder.as_raw_fd(), EXT4_IOC_RESIZE_FS, &raw const wanted) } {
        0 => Ok(()),
        _ => {
            let error = io::Error::last_os_error();
            Err(io::Error::other(format!("grow its file system: {error}")))
        }
    }
}

/// Brings every disk's file system to rest: what is mounted read-only elsewhere next must not have
/// anything left in its journal.
pub fn close_all() {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    for line in mounts.lines().rev() {
        let mut words = line.split(' ');
        let (Some(_), Some(place), Some("ext4")) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        // Where a file is still held open the journal stays, and the next mount goes through it.
        let _ = mount_remount(unescaped(place), MountFlags::RDONLY, c"");
    }
}

/// A path as /proc/mounts has it, with octal escapes.
fn unescaped(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.as_bytes();
    while let Some((first, rest)) = bytes.split_first() {
        let octal = rest.get(..3).filter(|_| *first == b'\\');
        let code =
            octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match code {
            Some(code) => {
                out.push(code);
                bytes = &rest[3..];
            }
            None => {
                out.push(*first);
                bytes = rest;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_mounts_are_read() {
        assert_eq!(unescaped("/srv/my\\040data\\134x"), "/srv/my data\\x");
        assert_eq!(unescaped("/plain"), "/plain");
        assert_eq!(unescaped("/odd\\04"), "/odd\\04");
    }

    #[test]
    fn only_an_untouched_folder_is_new() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("lost+found")).unwrap();
        assert!(is_new(folder.path()).unwrap());
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(!is_new(folder.path()).unwrap());
    }
}
