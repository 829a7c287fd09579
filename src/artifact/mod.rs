//! Kernels, initramfs images, disks and OCI images: opened with care, since clients name them.

mod erofs;
pub mod ext4;
pub mod fetch;
mod initramfs;
pub mod oci;
pub mod store;
mod tree;
pub mod volume;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Read;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub use initramfs::default_initramfs;

/// Offset of "HdrS" in a bzImage (Documentation/arch/x86/boot.rst).
const BZIMAGE_MAGIC_AT: u64 = 0x202;

/// Why an artifact cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The caller named a file that cannot be what it must be; the text says why.
    #[error("{path}: {reason}", path = path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The host refused.
    #[error("{step} {path}", path = path.display())]
    Host {
        /// The attempted step.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// The host's answer.
        #[source]
        source: std::io::Error,
    },
}

fn unusable(path: &Path, reason: impl Into<String>) -> ArtifactError {
    ArtifactError::Unusable { path: path.to_owned(), reason: reason.into() }
}

/// Opens a kernel: a regular file that begins as an ELF x86-64 executable or a bzImage.
///
/// # Errors
/// [`ArtifactError::Unusable`] for a missing, truncated or foreign file.
pub fn open_kernel(path: &Path) -> Result<File, ArtifactError> {
    let file = open(path, Access::default())?;
    let mut magic = [0u8; 20];
    (&file).read_exact(&mut magic).map_err(|_| unusable(path, "is too short to be a kernel"))?;
    if &magic[..4] == b"\x7fELF" {
        // 64 bits, little endian, x86-64 (ELF specification, e_ident and e_machine).
        let known = magic[4] == 2 && magic[5] == 1 && magic[18] == 62 && magic[19] == 0;
        return if known { Ok(file) } else { Err(unusable(path, "is not an x86-64 kernel")) };
    }
    let mut header = [0u8; 4];
    let bzimage = file.read_exact_at(&mut header, BZIMAGE_MAGIC_AT).is_ok() && &header == b"HdrS";
    if bzimage { Ok(file) } else { Err(unusable(path, "is neither an ELF kernel nor a bzImage")) }
}

/// Opens an initramfs: a regular file, not empty.
///
/// # Errors
/// [`ArtifactError`].
pub fn open_initramfs(path: &Path) -> Result<File, ArtifactError> {
    open(path, Access::default())
}

/// Opens a disk: a regular file or block device, not empty. A disk that is written to is locked
/// (flock) against every other use, one that is only read against writers, until it is closed.
///
/// # Errors
/// [`ArtifactError::Unusable`] for a missing file, one of another kind, or one in use.
pub fn open_disk(path: &Path, readonly: bool) -> Result<File, ArtifactError> {
    let file = open(path, Access { write: !readonly, block_device: true })?;
    let locked = if readonly { file.try_lock_shared() } else { file.try_lock() };
    match locked {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(unusable(path, "is in use as a disk already")),
        Err(TryLockError::Error(source)) => {
            Err(ArtifactError::Host { step: "lock", path: path.to_owned(), source })
        }
    }
}

/// Whether a file could be a disk, whoever uses it now.
///
/// # Errors
/// [`ArtifactError::Unusable`] for a missing file or one of another kind.
pub fn look_at_disk(path: &Path) -> Result<(), ArtifactError> {
    open(path, Access { write: false, block_device: true }).map(drop)
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, Default)]
struct Access {
    write: bool,
    block_device: bool,
}

/// Opens without blocking on a FIFO and looks before it trusts.
fn open(path: &Path, access: Access) -> Result<File, ArtifactError> {
    if !path.is_absolute() {
        return Err(unusable(path, "is not an absolute path"));
    }
    let meta = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => unusable(path, "does not exist"),
        _ => unusable(path, format!("cannot be looked at: {error}")),
    })?;
    let kind = meta.file_type();
    let wrong = match () {
        () if kind.is_dir() => Some("is a directory"),
        () if kind.is_socket() => Some("is a socket"),
        () if kind.is_fifo() => Some("is a FIFO"),
        () if kind.is_char_device() => Some("is a character device"),
        () if kind.is_block_device() && !access.block_device => Some("is a block device"),
        () if kind.is_file() && meta.len() == 0 => Some("is empty"),
        () => None,
    };
    if let Some(wrong) = wrong {
        return Err(unusable(path, wrong));
    }
    // O_NONBLOCK: what was looked at may have become a FIFO by now.
    OpenOptions::new()
        .read(true)
        .write(access.write)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
        .map_err(|source| ArtifactError::Host { step: "open", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(result: Result<File, ArtifactError>) -> String {
        result.expect_err("a refusal").to_string()
    }

    #[test]
    fn what_cannot_be_a_kernel_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("empty"), "").unwrap();
        std::fs::write(path("short"), "\x7fELF").unwrap();
        std::fs::write(path("random"), vec![0x5a; 4096]).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        let table = [
            ("missing", "does not exist"),
            ("", "is a directory"),
            ("empty", "is empty"),
            ("short", "too short"),
            ("random", "neither"),
            ("socket", "is a socket"),
        ];
        for (name, text) in table {
            let reason = reason(open_kernel(&path(name)));
            assert!(reason.contains(text), "{name}: {reason}");
        }
        assert!(reason(open_kernel(Path::new("vmlinux"))).contains("absolute"));
    }

    #[test]
    fn a_disk_has_one_writer_or_many_readers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::write(&path, [0; 512]).unwrap();
        let reader = open_disk(&path, true).unwrap();
        let another = open_disk(&path, true).unwrap();
        assert!(reason(open_disk(&path, false)).contains("in use"));
        drop((reader, another));
        let _writer = open_disk(&path, false).unwrap();
        assert!(reason(open_disk(&path, true)).contains("in use"));
        assert!(reason(open_disk(folder.path(), true)).contains("is a directory"));
    }
}
