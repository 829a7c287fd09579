//! The default runtime's initramfs: volary as /init, busybox with its applets as links.
//!
//! Same inputs, same bytes: no clock, no owner of the build, entries in a fixed order.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use cpio::NewcBuilder;
use sha2::{Digest, Sha256};

use crate::artifact::{ArtifactError, unusable};

/// Grows when the layout below changes, so that an older cached image is not taken for it.
const LAYOUT_VERSION: u8 = 2;
/// Where busybox keeps the names of its applets: sorted, each ended by a zero byte, `[` first.
const APPLETS_BEGIN: &[u8] = b"\0[\0[[\0";
/// More names than busybox has; the end is the first byte that no name has.
const APPLETS_MAX: usize = 1024;
/// Folders of the image, mount points included.
pub const FOLDERS: &[&str] =
    &["bin", "dev", "etc", "mnt", "proc", "root", "run", "sys", "tmp", "usr", "var"];
/// Links, so that every usual path finds the applets.
pub const LINKS: &[(&str, &str)] =
    &[("sbin", "bin"), ("usr/bin", "../bin"), ("usr/sbin", "../bin")];
const FILES: &[(&str, &str)] = &[
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/hosts", "127.0.0.1 localhost\n"),
    ("etc/profile", "export PS1='\\h:\\w\\$ '\n"),
];
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFCHR: u32 = 0o020_000;

/// Builds the image into `folder`, named by the digest of its inputs, and returns its path; instant
/// when it exists.
///
/// # Errors
/// [`ArtifactError`].
pub fn default_initramfs(
    folder: &Path,
    volary: &Path,
    busybox: Option<&Path>,
) -> Result<PathBuf, ArtifactError> {
    let volary = read(volary)?;
    let busybox = busybox.map(read).transpose()?.unwrap_or_default();
    let mut digest = Sha256::new();
    digest.update([LAYOUT_VERSION]);
    digest.update((volary.len() as u64).to_le_bytes());
    digest.update(&volary);
    digest.update(&busybox);
    let hex: String = digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let path = folder.join(format!("default-{hex}.cpio"));
    if path.exists() {
        return Ok(path);
    }
    let host = |step| {
        let path = path.clone();
        move |source| ArtifactError::Host { step, path, source }
    };
    let image = build(&volary, &busybox).map_err(host("build"))?;
    fs::create_dir_all(folder).map_err(host("make the folder of"))?;
    let partial = path.with_extension("partial");
    fs::write(&partial, image).map_err(host("write"))?;
    fs::rename(&partial, &path).map_err(host("rename"))?;
    Ok(path)
}

fn read(path: &Path) -> Result<Vec<u8>, ArtifactError> {
    fs::read(path).map_err(|error| unusable(path, format!("cannot be read: {error}")))
}

fn build(volary: &[u8], busybox: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut image = entries(volary, busybox)?;
    cpio::newc::trailer(&mut image.bytes)?;
    Ok(image.bytes)
}

/// The default image without its end, for those that put more into it, and the last inode's number.
///
/// # Errors
/// [`ArtifactError`].
pub fn base(volary: &Path, busybox: Option<&Path>) -> Result<(Vec<u8>, u32), ArtifactError> {
    let busybox = busybox.map(read).transpose()?.unwrap_or_default();
    let image = entries(&read(volary)?, &busybox);
    let image = image.map_err(|error| unusable(volary, format!("cannot be packed: {error}")))?;
    Ok((image.bytes, image.inode))
}

fn entries(volary: &[u8], busybox: &[u8]) -> std::io::Result<Image> {
    let mut image = Image { bytes: Vec::new(), inode: 0 };
    for folder in FOLDERS {
        let mode = if *folder == "tmp" { 0o1777 } else { 0o755 };
        image.add(folder, S_IFDIR | mode, b"")?;
    }
    image.add_device("dev/console", 0o600, 5, 1)?;
    image.add_device("dev/null", 0o666, 1, 3)?;
    image.add("init", S_IFREG | 0o755, volary)?;
    for (name, text) in FILES {
        image.add(name, S_IFREG | 0o644, text.as_bytes())?;
    }
    for (name, target) in LINKS {
        image.add(name, S_IFLNK | 0o777, target.as_bytes())?;
    }
    if !busybox.is_empty() {
        image.add("bin/busybox", S_IFREG | 0o755, busybox)?;
        for applet in applets(busybox) {
            image.add(&format!("bin/{applet}"), S_IFLNK | 0o777, b"busybox")?;
        }
    }
    Ok(image)
}

struct Image {
    bytes: Vec<u8>,
    inode: u32,
}

impl Image {
    fn add(&mut self, name: &str, mode: u32, data: &[u8]) -> std::io::Result<()> {
        self.inode += 1;
        let entry = NewcBuilder::new(name).ino(self.inode).mode(mode).nlink(1);
        let len = u32::try_from(data.len()).map_err(std::io::Error::other)?;
        let mut writer = entry.write(&mut self.bytes, len);
        writer.write_all(data)?;
        writer.finish().map(|_| ())
    }

    /// The kernel opens /dev/console for PID 1 before anything is mounted; where there is none, a
    /// Rust program opens /dev/null in its place before main, or aborts.
    fn add_device(&mut self, name: &str, mode: u32, major: u32, minor: u32) -> std::io::Result<()> {
        self.inode += 1;
        let entry = NewcBuilder::new(name).ino(self.inode).mode(S_IFCHR | mode).nlink(1);
        let entry = entry.rdev_major(major).rdev_minor(minor);
        entry.write(&mut self.bytes, 0).finish().map(|_| ())
    }
}

/// The applet names inside a busybox binary, read from its table without running it.
fn applets(busybox: &[u8]) -> Vec<&str> {
    let found = busybox.windows(APPLETS_BEGIN.len()).position(|window| window == APPLETS_BEGIN);
    let Some(begin) = found else { return Vec::new() };
    let is_name = |name: &&[u8]| {
        !name.is_empty()
            && name.len() < 32
            && name.iter().all(|c| matches!(c, b'!'..=b'~') && *c != b'/')
    };
    let names = busybox[begin + 1..].split(|byte| *byte == 0).take_while(is_name);
    let mut last = "";
    names
        .take(APPLETS_MAX)
        .filter_map(|name| std::str::from_utf8(name).ok())
        .take_while(|name| {
            // Sorted: the first that is not larger belongs to something else.
            let grows = last < *name;
            last = name;
            grows
        })
        .filter(|name| *name != "busybox" && *name != "init")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applets_are_read_from_the_table() {
        let binary = b"junk\0\x01[\0[[\0ash\0cat\0sh\0zcat\0\0more\0";
        assert_eq!(applets(b"nothing here"), Vec::<&str>::new());
        let mut with_zero = b"junk\0".to_vec();
        with_zero.extend_from_slice(&binary[6..]);
        assert_eq!(applets(&with_zero), ["[", "[[", "ash", "cat", "sh", "zcat"]);
    }

    #[test]
    fn same_inputs_same_image() {
        let folder = tempfile::tempdir().unwrap();
        let volary = folder.path().join("volary");
        fs::write(&volary, "agent").unwrap();
        let first = default_initramfs(folder.path(), &volary, None).unwrap();
        let bytes = fs::read(&first).unwrap();
        fs::remove_file(&first).unwrap();
        assert_eq!(default_initramfs(folder.path(), &volary, None).unwrap(), first);
        assert_eq!(fs::read(&first).unwrap(), bytes);
        fs::write(&volary, "other").unwrap();
        assert_ne!(default_initramfs(folder.path(), &volary, None).unwrap(), first);
    }
}
