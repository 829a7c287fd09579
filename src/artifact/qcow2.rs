//! QEMU's copy-on-write format (docs/interop/qcow2.txt), read from the begin to the end: what images of
//! distributions come in. Not its backing files, encryption, external data and extended entries: they
//! lead elsewhere, or nobody ships them. Hostile bytes: every offset is checked, tables are bounded.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

/// `QFI\xfb`.
const MAGIC: u32 = 0x5146_49fb;
/// Of the first version that is known, and of the third.
const HEADER_2_LEN: usize = 72;
const HEADER_3_LEN: usize = 104;
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// QEMU's own limit of the first table: 32 MiB.
const L1_ENTRIES_MAX: u64 = (32 << 20) / 8;
/// 8 TiB.
const LEN_MAX: u64 = 8 << 40;
/// Incompatible features: the file was not closed in order; what is compressed is so by zstd.
const DIRTY: u64 = 1;
const OTHER_COMPRESSION: u64 = 8;
/// Bits of an entry: offset; compressed; reads as zeros.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;
const SECTOR: u64 = 512;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Qcow2Error {
    /// It breaks the format, or needs what is not read.
    #[error("{0}")]
    Invalid(String),
    /// The host refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn invalid(text: impl Into<String>) -> Qcow2Error {
    Qcow2Error::Invalid(format!("the qcow2 disk is refused: {}", text.into()))
}

struct Header {
    cluster_bits: u32,
    len: u64,
    l1_entries: u64,
    l1_at: u64,
    zstd: bool,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) << 32 | u64::from(u32_at(bytes, at + 4))
}

impl Header {
    fn read(file: &File) -> Result<Header, Qcow2Error> {
        let mut bytes = [0; HEADER_3_LEN + 1];
        let len = file.read_at(&mut bytes, 0)?;
        let version = u32_at(&bytes, 4);
        if len < HEADER_2_LEN || u32_at(&bytes, 0) != MAGIC || !(2..=3).contains(&version) {
            return Err(invalid("it does not begin as one of version 2 or 3"));
        }
        let features = if version == 3 { u64_at(&bytes, 72) } else { 0 };
        if version == 3 && len <= HEADER_3_LEN || features & !(DIRTY | OTHER_COMPRESSION) != 0 {
            return Err(invalid("it uses features that are not supported"));
        }
        if u64_at(&bytes, 8) != 0 {
            return Err(invalid("it has a backing file; flatten it with `qemu-img convert`"));
        }
        if u32_at(&bytes, 32) != 0 {
            return Err(invalid("it is encrypted"));
        }
        let header = Header {
            cluster_bits: u32_at(&bytes, 20),
            len: u64_at(&bytes, 24),
            l1_entries: u64::from(u32_at(&bytes, 36)),
            l1_at: u64_at(&bytes, 40),
            zstd: features & OTHER_COMPRESSION != 0 && bytes[HEADER_3_LEN] == 1,
        };
        if !CLUSTER_BITS.contains(&header.cluster_bits) || LEN_MAX < header.len {
            return Err(invalid("its clusters or its length are out of range"));
        }
        let needed = header.len.div_ceil(header.cluster() * header.l2_entries());
        if L1_ENTRIES_MAX < header.l1_entries || header.l1_entries < needed {
            return Err(invalid("its first table does not fit its length"));
        }
        Ok(header)
    }

    fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    fn l2_entries(&self) -> u64 {
        self.cluster() / 8
    }
}

/// Gives the disk's clusters that hold something, if only zeros, to `write`, with their places, in order.
/// The disk's length, in whole sectors.
///
/// # Errors
/// [`Qcow2Error`].
pub fn unpack(
    file: &File,
    mut write: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<u64, Qcow2Error> {
    let header = Header::read(file)?;
    let cluster = header.cluster();
    let size = usize::try_from(cluster).unwrap_or(0);
    let (mut l2, mut data) = (vec![0; size], vec![0; size]);
    let len = header.len.next_multiple_of(SECTOR);
    for (index, at) in (0..len)
        .step_by(usize::try_from(cluster * header.l2_entries()).unwrap_or(usize::MAX))
        .enumerate()
    {
        let mut entry = [0; 8];
        read_at(file, &mut entry, header.l1_at.saturating_add(index as u64 * 8))?;
        let table = u64_at(&entry, 0) & OFFSET;
        if table == 0 {
            continue;
        }
        read_at(file, &mut l2, table)?;
        for (index, entry) in l2.chunks_exact(8).enumerate() {
            let at = at + index as u64 * cluster;
            let entry = u64_at(entry, 0);
            if len <= at || entry == 0 {
                continue;
            }
            if entry & COMPRESSED != 0 {
                decompress(file, &header, entry, &mut data)?;
            } else if entry & ZERO != 0 || entry & OFFSET == 0 {
                continue;
            } else {
                read_at(file, &mut data, entry & OFFSET)?;
            }
            let count = usize::try_from((len - at).min(cluster)).unwrap_or(0);
            write(at, &data[..count])?;
        }
    }
    Ok(len)
}

fn read_at(file: &File, buffer: &mut [u8], at: u64) -> Result<(), Qcow2Error> {
    file.read_exact_at(buffer, at).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput => {
            invalid("a table leads beyond its end")
        }
        _ => error.into(),
    })
}

/// A compressed cluster: an offset in the file, and how many more sectors it reaches into.
fn decompress(file: &File, header: &Header, entry: u64, data: &mut [u8]) -> Result<(), Qcow2Error> {
    let offset_bits = 62 - (header.cluster_bits - 8);
    let offset = entry & ((1 << offset_bits) - 1);
    let sectors = (entry & (COMPRESSED - 1)) >> offset_bits;
    let len = (sectors + 1) * SECTOR - offset % SECTOR;
    let mut packed = vec![0; usize::try_from(len).unwrap_or(0)];
    // The last sector may end with the file.
    let mut count = 0;
    while count < packed.len() {
        match file.read_at(&mut packed[count..], offset + count as u64)? {
            0 => break,
            more => count += more,
        }
    }
    let packed = &packed[..count];
    let unpacked = if header.zstd {
        zstd::stream::read::Decoder::new(packed)?.read_exact(data)
    } else {
        flate2::read::DeflateDecoder::new(packed).read_exact(data)
    };
    unpacked.map_err(|error| invalid(format!("a compressed cluster: {error}")))
}

#[cfg(test)]
pub mod tests {
    use std::io::Write;

    use super::*;

    /// A disk of four clusters: data, nothing, compressed data, zeros by flag.
    pub fn disk(zstd: bool, change: impl Fn(&mut Vec<u8>)) -> File {
        let cluster = 65536usize;
        let mut bytes = vec![0; cluster * 4];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &MAGIC.to_be_bytes());
        put(4, &3u32.to_be_bytes());
        put(20, &16u32.to_be_bytes());
        put(24, &(4 * cluster as u64).to_be_bytes());
        put(36, &1u32.to_be_bytes());
        put(40, &(cluster as u64).to_be_bytes());
        put(100, &112u32.to_be_bytes());
        put(cluster, &((2 * cluster as u64) | (1 << 63)).to_be_bytes());
        put(2 * cluster, &((3 * cluster as u64) | (1 << 63)).to_be_bytes());
        put(3 * cluster, &[7; 100]);
        let plain: Vec<u8> = (0..cluster).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let packed = if zstd {
            put(72, &OTHER_COMPRESSION.to_be_bytes());
            put(104, &[1]);
            zstd::encode_all(plain.as_slice(), 3).unwrap()
        } else {
            let mut out =
                flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
            out.write_all(&plain).unwrap();
            out.finish().unwrap()
        };
        let at = 4 * cluster as u64;
        let more = (packed.len() as u64 - 1) / SECTOR;
        put(2 * cluster + 16, &(COMPRESSED | more << 54 | at).to_be_bytes());
        put(2 * cluster + 24, &ZERO.to_be_bytes());
        bytes.extend(packed);
        change(&mut bytes);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file
    }

    fn raw(file: &File) -> Result<Vec<u8>, String> {
        let mut out = vec![0; 4 * 65536];
        let write = |at: u64, bytes: &[u8]| {
            let at = usize::try_from(at).unwrap();
            out[at..at + bytes.len()].copy_from_slice(bytes);
            Ok(())
        };
        let len = unpack(file, write).map_err(|error| error.to_string())?;
        out.truncate(usize::try_from(len).unwrap());
        Ok(out)
    }

    #[test]
    fn clusters_of_every_kind_come_out() {
        for zstd in [false, true] {
            let out = raw(&disk(zstd, |_| {})).unwrap();
            assert_eq!(out.len(), 4 * 65536);
            assert_eq!((&out[..100], out[100], out[65536]), (&[7; 100][..], 0, 0));
            assert_eq!((out[2 * 65536 + 250], out[2 * 65536 + 251]), (250, 0));
            assert!(out[3 * 65536..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn what_is_broken_or_leads_elsewhere_is_refused() {
        type Change = fn(&mut Vec<u8>);
        let table: [(&str, Change); 10] = [
            ("begin", |bytes| bytes[0] = 0),
            ("begin", |bytes| bytes[7] = 4),
            ("begin", |bytes| bytes.truncate(50)),
            ("backing", |bytes| bytes[15] = 1),
            ("encrypted", |bytes| bytes[35] = 1),
            ("features", |bytes| bytes[79] = 4),
            ("range", |bytes| bytes[23] = 40),
            ("first table", |bytes| bytes[24..32].copy_from_slice(&(1u64 << 40).to_be_bytes())),
            ("beyond", |bytes| bytes[65536 + 2] = 0xff),
            ("compressed", |bytes| bytes[4 * 65536..].fill(0xff)),
        ];
        for (reason, change) in table {
            let error = raw(&disk(false, change)).unwrap_err();
            assert!(error.contains(reason), "{reason}: {error}");
        }
    }
}
