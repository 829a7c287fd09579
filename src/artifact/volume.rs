//! The files of volumes: made empty, packed into a stream, and unpacked from one. Blocks.
//!
//! A backup is the disk's bytes as one zstd frame with a checksum (RFC 8878): `zstd -d` makes a raw
//! disk of it, and one that was cut short or changed on its way is told from a whole one.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::SeekFrom;
use rustix::rand::GetRandomFlags;

use crate::artifact::ext4;
use crate::sys::crash;

/// Bytes packed, unpacked and looked at at once.
const STEP_LEN: usize = 1 << 20;
const STEP: u64 = 1 << 20;
/// Level of zstd: a disk is large, and much of it is nothing.
const LEVEL: i32 = 1;
/// The largest window of a frame, as a power of two.
const WINDOW_LOG_MAX: u32 = 27;
/// Where an ext4 file system has its magic number.
const MAGIC_AT: u64 = 1024 + 56;
const MAGIC: [u8; 2] = [0x53, 0xef];

/// Why a stream is no backup.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It breaks the form, or a rule.
    #[error("it is no backup of a volume: {0}")]
    Invalid(String),
    /// The host refused.
    #[error("write a volume")]
    Host(#[source] io::Error),
}

/// Makes a file with an empty ext4 file system: whole, or not at all.
///
/// # Errors
/// The host's.
pub fn make(path: &Path, partial: &Path, len: u64) -> io::Result<()> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(partial)?;
    let mut uuid = [0; 16];
    rustix::rand::getrandom(&mut uuid, GetRandomFlags::empty())?;
    // RFC 9562: version 4, variant 1.
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now_s = now.map_or(0, |now| u32::try_from(now.as_secs()).unwrap_or(u32::MAX));
    ext4::format(&file, len, uuid, now_s)?;
    crash::point("overlay.made");
    fs::rename(partial, path)
}

/// Packs a disk. Holes are not read.
///
/// # Errors
/// The host's, or that of whoever takes it.
pub fn pack(file: &File, out: impl Write) -> io::Result<()> {
    let len = file.metadata()?.len();
    let mut out = zstd::stream::write::Encoder::new(out, LEVEL)?;
    out.include_checksum(true)?;
    let mut at = 0;
    each_data(file, len, |data, bytes| {
        write_zeros(&mut out, data - at)?;
        at = data + bytes.len() as u64;
        out.write_all(bytes)
    })?;
    write_zeros(&mut out, len - at)?;
    out.finish()?.flush()
}

fn write_zeros(out: &mut impl Write, len: u64) -> io::Result<()> {
    io::copy(&mut io::repeat(0).take(len), out).map(drop)
}

/// Copies a disk into an empty file: by reference where the host's file system can, else its data and
/// not its holes.
///
/// # Errors
/// The host's.
pub fn copy(from: &File, to: &File) -> io::Result<()> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return to.sync_data();
    }
    let len = from.metadata()?.len();
    each_data(from, len, |at, bytes| to.write_all_at(bytes, at))?;
    to.set_len(len)?;
    to.sync_data()
}

/// Gives what is no hole to `each`, in order and in steps.
fn each_data(
    file: &File,
    len: u64,
    mut each: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; STEP_LEN];
    let mut at = 0;
    while at < len {
        at = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => data,
            // Nothing but a hole from here on.
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let hole = rustix::fs::seek(file, SeekFrom::Hole(at))?.min(len);
        while at < hole {
            let count = usize::try_from((hole - at).min(STEP)).unwrap_or(STEP_LEN);
            file.read_exact_at(&mut buffer[..count], at)?;
            each(at, &buffer[..count])?;
            at += count as u64;
        }
    }
    Ok(())
}

/// Unpacks a disk of at most `len_max` bytes into an empty file. Zeros become holes. Its length.
///
/// # Errors
/// [`UnpackError`].
pub fn unpack(packed: impl Read, file: &File, len_max: u64) -> Result<u64, UnpackError> {
    let invalid = |error: io::Error| UnpackError::Invalid(error.to_string());
    let mut packed = zstd::stream::read::Decoder::new(packed).map_err(invalid)?;
    packed.window_log_max(WINDOW_LOG_MAX).map_err(invalid)?;
    let (mut buffer, mut len) = (Vec::with_capacity(STEP_LEN), 0);
    loop {
        buffer.clear();
        let count = packed.by_ref().take(STEP).read_to_end(&mut buffer).map_err(invalid)?;
        if count == 0 {
            break;
        }
        if len_max < len + count as u64 {
            return Err(UnpackError::Invalid(format!("more than {len_max} bytes")));
        }
        if buffer.iter().any(|byte| *byte != 0) {
            file.write_all_at(&buffer, len).map_err(UnpackError::Host)?;
        }
        len += count as u64;
    }
    file.set_len(len).map_err(UnpackError::Host)?;
    let mut magic = [0; 2];
    let read = file.read_exact_at(&mut magic, MAGIC_AT);
    if read.is_err() || magic != MAGIC || !len.is_multiple_of(STEP) || len < ext4::LEN_MIN {
        return Err(UnpackError::Invalid("it holds no ext4 disk of whole MiB".to_owned()));
    }
    file.sync_data().map_err(UnpackError::Host)?;
    Ok(len)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn made(folder: &Path) -> File {
        let (path, partial) = (folder.join("a"), folder.join("b"));
        make(&path, &partial, 128 << 20).unwrap();
        File::options().read(true).write(true).open(path).unwrap()
    }

    fn packed(file: &File) -> Vec<u8> {
        let mut out = Vec::new();
        pack(file, &mut out).unwrap();
        out
    }

    #[test]
    fn a_disk_comes_back_as_it_was_and_as_small() {
        let folder = tempfile::tempdir().unwrap();
        let file = made(folder.path());
        file.write_all_at(b"in the middle", (70 << 20) + 5).unwrap();
        let backup = packed(&file);
        assert!(backup.len() < 100_000, "{} bytes", backup.len());
        let back = tempfile::tempfile().unwrap();
        assert_eq!(unpack(backup.as_slice(), &back, 128 << 20).unwrap(), 128 << 20);
        assert!(back.metadata().unwrap().blocks() * 512 < 8 << 20);
        assert_eq!(packed(&back), backup);
    }

    #[test]
    fn what_is_no_backup_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let backup = packed(&made(folder.path()));
        let unpacked = |bytes: &[u8], max| {
            let file = tempfile::tempfile().unwrap();
            unpack(bytes, &file, max).map_err(|error| error.to_string())
        };
        assert!(unpacked(&backup, 128 << 20).is_ok());
        assert!(unpacked(&backup, 100 << 20).unwrap_err().contains("more than"));
        assert!(unpacked(&backup[..backup.len() - 3], 128 << 20).is_err(), "cut short");
        let mut changed = backup.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        assert!(unpacked(&changed, 128 << 20).is_err(), "changed");
        assert!(unpacked(b"no frame", 128 << 20).is_err());
        assert!(unpacked(b"", 128 << 20).is_err());
        let other = zstd::encode_all(&vec![7u8; 64 << 20][..], 1).unwrap();
        assert!(unpacked(&other, 128 << 20).unwrap_err().contains("no ext4"));
    }
}
