//! Where the root file system of a disk is: the whole disk, or one of its partitions (UEFI 2.10, 5.3;
//! MBR). Hostile bytes: everything is looked up within bounds.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const SECTOR: u64 = 512;
/// Entries of a table that are looked at: Linux's and everybody's number.
const ENTRIES_MAX: u32 = 128;
/// "Root partition (x86-64)" of the Discoverable Partitions Specification, and "Linux file system data",
/// in the order of bytes that a GPT has.
const ROOT: [u8; 16] = [
    0xe3, 0xbc, 0x68, 0x4f, 0xcd, 0xe8, 0xb1, 0x4d, 0x96, 0xe7, 0xfb, 0xca, 0xf9, 0x84, 0xb7, 0x09,
];
const DATA: [u8; 16] = [
    0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4,
];
/// Kind of a Linux partition in an MBR.
const LINUX: u8 = 0x83;
/// File systems that the guest's kernel has, by a mark in the first sectors of a disk.
const MARKS: [(u64, &[u8]); 3] =
    [(1080, &[0x53, 0xef]), (1024, &[0xe2, 0xe1, 0xf5, 0xe0]), (0, b"hsqs")];

/// Number of the partition with the root; 0 for the disk itself.
///
/// # Errors
/// The host's; `InvalidData` if there is none.
pub fn root_of(disk: &File) -> io::Result<u32> {
    let mut begin = vec![0; 2048];
    disk.read_exact_at(&mut begin, 0)?;
    let has = |(at, mark): &(u64, &[u8])| {
        let at = usize::try_from(*at).unwrap_or(0);
        begin[at..at + mark.len()] == **mark
    };
    if MARKS.iter().any(has) {
        return Ok(0);
    }
    let found = if &begin[512..520] == b"EFI PART" {
        of_gpt(disk, &begin[512..1024])?
    } else if begin[510..512] == [0x55, 0xaa] {
        of_mbr(&begin)
    } else {
        None
    };
    let none = || io::Error::new(io::ErrorKind::InvalidData, "no Linux file system is on the disk");
    found.ok_or_else(none)
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The root partition, else the largest of Linux.
fn of_gpt(disk: &File, header: &[u8]) -> io::Result<Option<u32>> {
    let (table, len) = (number(&header[72..80]), number(&header[84..88]));
    let count = u32::try_from(number(&header[80..84])).unwrap_or(0).min(ENTRIES_MAX);
    if !(128..=4096).contains(&len) {
        return Ok(None);
    }
    let mut best: Option<(u64, u32)> = None;
    for index in 0..count {
        let mut entry = [0; 48];
        let at = table.saturating_mul(SECTOR).saturating_add(u64::from(index) * len);
        if disk.read_exact_at(&mut entry, at).is_err() {
            break;
        }
        let sectors = number(&entry[40..48]).saturating_sub(number(&entry[32..40]));
        if entry[..16] == ROOT {
            return Ok(Some(index + 1));
        }
        if entry[..16] == DATA && best.is_none_or(|(most, _)| most < sectors) {
            best = Some((sectors, index + 1));
        }
    }
    Ok(best.map(|(_, index)| index))
}

fn of_mbr(begin: &[u8]) -> Option<u32> {
    let entry = |index: u32| {
        let at = 446 + usize::try_from(index).unwrap_or(0) * 16;
        let sectors = number(&begin[at + 12..at + 16]);
        (begin[at + 4] == LINUX).then_some((sectors, index + 1))
    };
    (0..4)
        .filter_map(entry)
        .max_by_key(|(sectors, index)| (*sectors, u32::MAX - index))
        .map(|e| e.1)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn of(change: impl Fn(&mut Vec<u8>)) -> Option<u32> {
        let mut bytes = vec![0; 64 << 10];
        change(&mut bytes);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        root_of(&file).ok()
    }

    fn gpt(bytes: &mut [u8], kinds: &[([u8; 16], u64)]) {
        bytes[512..520].copy_from_slice(b"EFI PART");
        bytes[512 + 72] = 2;
        bytes[512 + 80] = 128;
        bytes[512 + 84] = 128;
        for (index, (kind, sectors)) in kinds.iter().enumerate() {
            let at = 1024 + index * 128;
            bytes[at..at + 16].copy_from_slice(kind);
            bytes[at + 40..at + 48].copy_from_slice(&sectors.to_le_bytes());
        }
    }

    #[test]
    fn roots_are_found() {
        assert_eq!(of(|bytes| bytes[1080..1082].copy_from_slice(&[0x53, 0xef])), Some(0));
        assert_eq!(of(|bytes| bytes[..4].copy_from_slice(b"hsqs")), Some(0));
        assert_eq!(of(|bytes| gpt(bytes, &[(DATA, 5), ([1; 16], 99), (DATA, 9)])), Some(3));
        assert_eq!(of(|bytes| gpt(bytes, &[(DATA, 50), (ROOT, 9)])), Some(2));
        let mbr = |bytes: &mut Vec<u8>| {
            bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
            for (index, sectors) in [(0usize, 4u8), (2, 7)] {
                bytes[446 + index * 16 + 4] = LINUX;
                bytes[446 + index * 16 + 12] = sectors;
            }
        };
        assert_eq!(of(mbr), Some(3));
        assert_eq!(of(|_| {}), None);
        assert_eq!(of(|bytes| gpt(bytes, &[([1; 16], 9)])), None);
        let wild = |bytes: &mut Vec<u8>| {
            gpt(bytes, &[]);
            bytes[512 + 72..512 + 80].fill(0xff);
        };
        assert_eq!(of(wild), None);
    }
}
