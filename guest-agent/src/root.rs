//! From the initramfs to an image: a read-only disk under a writable layer becomes the root of
//! everything, this agent included.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_move, unmount};
use volant_protocol::{OVERLAY_DISK_SERIAL, ROOT_DISK_SERIAL, RootConfig};

/// Where the layers are put together; nobody sees them afterwards.
const LOWER: &str = "/mnt/lower";
const UPPER: &str = "/mnt/upper";
const ROOT: &str = "/mnt/root";
/// What goes along into the new root.
const MOVED: [&str; 3] = ["/dev", "/proc", "/sys"];
/// What nobody needs any more: the initramfs is memory.
const FREED: [&str; 2] = ["/bin/busybox", "/init"];

/// Makes the image the root.
///
/// # Errors
/// The step that failed, in the error's text.
pub fn enter(config: &RootConfig) -> io::Result<()> {
    for folder in [LOWER, UPPER, ROOT] {
        fs::create_dir_all(folder)?;
    }
    let disk = disk_of(ROOT_DISK_SERIAL)?;
    let step = |step: &'static str| {
        move |error: rustix::io::Errno| {
            io::Error::other(format!("{step}: {}", io::Error::from(error)))
        }
    };
    let no_data = c"";
    mount_lower(&disk).map_err(step("mount the image"))?;
    if config.persistent {
        let disk = disk_of(OVERLAY_DISK_SERIAL)?;
        mount(&disk, UPPER, "ext4", MountFlags::NOATIME, no_data)
            .map_err(step("mount the VM's disk"))?;
    } else {
        mount("tmpfs", UPPER, "tmpfs", MountFlags::empty(), c"mode=0755")
            .map_err(step("mount memory"))?;
    }
    prepare_upper()?;
    let layers = c"lowerdir=/mnt/lower,upperdir=/mnt/upper/upper,workdir=/mnt/upper/work";
    mount("overlay", ROOT, "overlay", MountFlags::empty(), layers)
        .map_err(step("lay them over each other"))?;
    for place in MOVED {
        let target = format!("{ROOT}{place}");
        // An image may have anything there.
        if !fs::symlink_metadata(&target).is_ok_and(|meta| meta.is_dir()) {
            let _ = fs::remove_file(&target);
            fs::create_dir(&target)?;
        }
        mount_move(place, &target).map_err(step("take the system's folders along"))?;
    }
    for place in ["/run", "/tmp"] {
        // The image has its own; what was here is empty.
        let _ = unmount(place, UnmountFlags::DETACH);
    }
    for file in FREED {
        let _ = fs::remove_file(file);
    }
    rustix::process::chdir(ROOT).map_err(step("go to the new root"))?;
    mount_move(".", "/").map_err(step("make it the root"))?;
    rustix::process::chroot(".").map_err(step("enter it"))?;
    rustix::process::chdir("/").map_err(step("go to its top"))?;
    for folder in &config.folders {
        // One that cannot be made shows when it is used.
        let _ = fs::create_dir_all(folder);
    }
    Ok(())
}

/// Images are erofs; roots that were made elsewhere may be of another kind.
fn mount_lower(disk: &str) -> Result<(), rustix::io::Errno> {
    let mount_as = |kind: &str| mount(disk, LOWER, kind, MountFlags::RDONLY, c"");
    mount_as("erofs").or_else(|error| match error {
        rustix::io::Errno::INVAL => mount_as("squashfs").or_else(|_| mount_as("ext4")),
        other => Err(other),
    })
}

/// The folders for what is written. The upper one is what the root looks like: it has to look as the
/// image's own.
fn prepare_upper() -> io::Result<()> {
    let upper = Path::new("/mnt/upper/upper");
    fs::create_dir_all("/mnt/upper/work")?;
    if !upper.exists() {
        let like = fs::metadata(LOWER)?;
        fs::create_dir(upper)?;
        chown(upper, Some(like.uid()), Some(like.gid()))?;
        fs::set_permissions(upper, fs::Permissions::from_mode(like.mode() & 0o7777))?;
    }
    Ok(())
}

/// The device of the disk with this serial.
///
/// # Errors
/// There is none.
pub fn disk_of(serial: &str) -> io::Result<String> {
    for entry in fs::read_dir("/sys/block")?.flatten() {
        let found = fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
        if found.trim_end() == serial {
            return Ok(format!("/dev/{}", entry.file_name().to_string_lossy()));
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("no disk is called {serial}")))
}
