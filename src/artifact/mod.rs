//! Kernels, initramfs images, disks and OCI images: opened with care, since clients name them.

pub mod build;
mod download;
mod erofs;
pub mod ext4;
pub mod fetch;
pub mod folders;
mod initramfs;
pub mod oci;
pub mod partition;
pub mod progress;
mod qcow2;
pub mod seed;
pub mod source;
pub mod store;
mod tree;
pub mod volume;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Read;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use folders::Folders;

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
pub fn open_kernel(path: &Path, named: NamedBy<'_>) -> Result<File, ArtifactError> {
    let file = open(path, Access::default(), named)?;
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
pub fn open_initramfs(path: &Path, named: NamedBy<'_>) -> Result<File, ArtifactError> {
    open(path, Access::default(), named)
}

/// Opens a disk: a regular file or block device, not empty. A disk that is written to is locked
/// (flock) against every other use, one that is only read against writers, until it is closed.
///
/// # Errors
/// [`ArtifactError::Unusable`] for a missing file, one of another kind, or one in use.
pub fn open_disk(path: &Path, readonly: bool, named: NamedBy<'_>) -> Result<File, ArtifactError> {
    let file = open(path, Access { write: !readonly, block_device: true }, named)?;
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
pub fn look_at_disk(path: &Path, named: NamedBy<'_>) -> Result<(), ArtifactError> {
    open(path, Access { write: false, block_device: true }, named).map(drop)
}

/// Who has said where a file is.
#[derive(Clone, Copy, Debug)]
pub enum NamedBy<'a> {
    /// The configuration, or this program.
    Daemon,
    /// A client, who may name files in these folders.
    Client(&'a Folders),
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, Default)]
struct Access {
    write: bool,
    block_device: bool,
}

/// Opens without blocking on a FIFO and looks before it trusts.
fn open(path: &Path, access: Access, named: NamedBy<'_>) -> Result<File, ArtifactError> {
    if !path.is_absolute() {
        return Err(unusable(path, "is not an absolute path"));
    }
    let handle = match named {
        NamedBy::Daemon => None,
        NamedBy::Client(folders) => Some(File::from(folders.find(path, access.write)?)),
    };
    let meta = match &handle {
        Some(handle) => handle.metadata(),
        None => std::fs::metadata(path),
    };
    let meta = meta.map_err(|error| match error.kind() {
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
    let mut options = OpenOptions::new();
    options.read(true).write(access.write).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
    let opened = match handle {
        Some(handle) => folders::reopen(&handle.into(), &options),
        None => options.open(path),
    };
    opened.map_err(|source| ArtifactError::Host { step: "open", path: path.to_owned(), source })
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
            let reason = reason(open_kernel(&path(name), NamedBy::Daemon));
            assert!(reason.contains(text), "{name}: {reason}");
        }
        assert!(reason(open_kernel(Path::new("vmlinux"), NamedBy::Daemon)).contains("absolute"));
    }

    #[test]
    fn a_disk_has_one_writer_or_many_readers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::write(&path, [0; 512]).unwrap();
        let reader = open_disk(&path, true, NamedBy::Daemon).unwrap();
        let another = open_disk(&path, true, NamedBy::Daemon).unwrap();
        assert!(reason(open_disk(&path, false, NamedBy::Daemon)).contains("in use"));
        drop((reader, another));
        let _writer = open_disk(&path, false, NamedBy::Daemon).unwrap();
        assert!(reason(open_disk(&path, true, NamedBy::Daemon)).contains("in use"));
        assert!(reason(open_disk(folder.path(), true, NamedBy::Daemon)).contains("is a directory"));
    }
}
