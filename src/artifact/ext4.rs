//! Makes an empty ext4 file system in a sparse file: a few dozen blocks are written, whatever its
//! size (Linux: Documentation/filesystems/ext4, fs/ext4/ext4.h).
//!
//! With a journal, since guests end without warning; with checksums of all metadata; bitmaps and
//! inode tables of unused groups are left to Linux, for which zeros are enough.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes of a block.
const BLOCK: usize = 4096;
const BLOCK_LEN: u64 = 4096;
/// As many blocks as one block of bitmap has bits.
const GROUP_BLOCKS: u32 = 32_768;
/// One inode for 16 KiB, as mke2fs has it.
const GROUP_INODES: u32 = 8192;
const INODE_LEN: u32 = 256;
const TABLE_BLOCKS: u32 = GROUP_INODES * INODE_LEN / 4096;
const DESCRIPTOR_LEN: u32 = 32;
/// 16 MiB: enough that no transaction of a small guest waits for it.
const JOURNAL_BLOCKS: u32 = 4096;
/// A smaller rest of a group is left out.
const LAST_GROUP_BLOCKS_MIN: u32 = 1024;
/// The smallest and the largest file that is made into one.
pub const LEN_MIN: u64 = 64 << 20;
/// 16 TiB less a group: 32-bit block numbers.
pub const LEN_MAX: u64 = (16 << 40) - (128 << 20);

const ROOT_INODE: u32 = 2;
const JOURNAL_INODE: u32 = 8;
/// The first inode that is not reserved.
const FIRST_INODE: u32 = 11;
/// HAS_JOURNAL, EXT_ATTR, DIR_INDEX.
const FEATURES_COMPAT: u32 = 0x4 | 0x8 | 0x20;
/// FILETYPE, EXTENTS.
const FEATURES_INCOMPAT: u32 = 0x2 | 0x40;
/// SPARSE_SUPER, LARGE_FILE, HUGE_FILE, DIR_NLINK, EXTRA_ISIZE, METADATA_CSUM.
const FEATURES_RO_COMPAT: u32 = 0x1 | 0x2 | 0x8 | 0x20 | 0x40 | 0x400;
/// Descriptor flags: nothing in the table or bitmap yet, and the table is zeros.
const INODE_UNINIT: u16 = 1;
const BLOCK_UNINIT: u16 = 2;
const INODE_ZEROED: u16 = 4;
const S_IFDIR: u16 = 0o040_000;
const S_IFREG: u16 = 0o100_000;

/// Linux's crc32c, which leaves out the last inversion.
fn crc(seed: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!seed, bytes)
}

/// The file system to be.
struct Plan {
    blocks: u32,
    groups: u32,
    descriptor_blocks: u32,
    uuid: [u8; 16],
    seed: u32,
    now_s: u32,
}

/// Formats `file`, which must be empty, to `len` bytes.
///
/// # Errors
/// `InvalidInput` for a length that is too small or too large; the host's.
pub fn format(file: &File, len: u64, uuid: [u8; 16], now_s: u32) -> io::Result<()> {
    if !(LEN_MIN..=LEN_MAX).contains(&len) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "64 MiB to 16 TiB"));
    }
    let plan = Plan::new(len, uuid, now_s);
    file.set_len(len)?;
    let descriptors = plan.descriptors();
    for group in (0..plan.groups).filter(|group| plan.has_superblock(*group)) {
        let first = u64::from(group * GROUP_BLOCKS) * BLOCK_LEN;
        let superblock = plan.superblock(group);
        file.write_all_at(&superblock, if group == 0 { 1024 } else { first })?;
        file.write_all_at(&descriptors, first + BLOCK_LEN)?;
    }
    for group in [0, plan.groups - 1] {
        plan.write_block(file, plan.bitmap_block(group), &plan.block_bitmap(group))?;
    }
    plan.write_block(file, plan.bitmap_block(0) + 1, &inode_bitmap())?;
    plan.write_inodes(file)?;
    plan.write_block(
        file,
        plan.first_free(),
        &plan.folder(ROOT_INODE, &[".", "..", "lost+found"]),
    )?;
    plan.write_block(file, plan.first_free() + 1, &plan.folder(FIRST_INODE, &[".", ".."]))?;
    plan.write_block(file, plan.first_free() + 2, &journal())?;
    file.sync_data()
}

impl Plan {
    fn new(len: u64, uuid: [u8; 16], now_s: u32) -> Plan {
        let blocks = u32::try_from(len / BLOCK_LEN).unwrap_or(u32::MAX);
        let rest = blocks % GROUP_BLOCKS;
        let whole = if rest < LAST_GROUP_BLOCKS_MIN { blocks - rest } else { blocks };
        let blocks = whole.max(LAST_GROUP_BLOCKS_MIN);
        let groups = blocks.div_ceil(GROUP_BLOCKS);
        let descriptor_blocks = (groups * DESCRIPTOR_LEN).div_ceil(4096);
        Plan { blocks, groups, descriptor_blocks, uuid, seed: crc(u32::MAX, &uuid), now_s }
    }

    /// Groups 0, 1 and the powers of 3, 5 and 7.
    fn has_superblock(&self, group: u32) -> bool {
        let power_of = |base: u32| {
            let mut power = base;
            while power < group {
                power = power.saturating_mul(base);
            }
            power == group
        };
        group <= 1 || [3, 5, 7].into_iter().any(power_of)
    }

    /// Block of a group's block bitmap; its inode bitmap and table follow.
    fn bitmap_block(&self, group: u32) -> u32 {
        let before = if self.has_superblock(group) { 1 + self.descriptor_blocks } else { 0 };
        group * GROUP_BLOCKS + before
    }

    /// First block after the tables of group 0: root, lost+found, journal.
    fn first_free(&self) -> u32 {
        self.bitmap_block(0) + 2 + TABLE_BLOCKS
    }

    fn group_blocks(&self, group: u32) -> u32 {
        (self.blocks - group * GROUP_BLOCKS).min(GROUP_BLOCKS)
    }

    fn used_blocks(&self, group: u32) -> u32 {
        let tables = self.bitmap_block(group) + 2 + TABLE_BLOCKS - group * GROUP_BLOCKS;
        if group == 0 { tables + 2 + JOURNAL_BLOCKS } else { tables }
    }

    fn block_bitmap(&self, group: u32) -> Vec<u8> {
        let (used, all) = (self.used_blocks(group), self.group_blocks(group));
        let bit = |index: u32| u8::from(index < used || all <= index) << (index % 8);
        let byte = |at: u32| (at * 8..at * 8 + 8).fold(0, |byte, index| byte | bit(index));
        (0..GROUP_BLOCKS / 8).map(byte).collect()
    }

    fn free_blocks(&self) -> u32 {
        (0..self.groups).map(|group| self.group_blocks(group) - self.used_blocks(group)).sum()
    }

    fn descriptors(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for group in 0..self.groups {
            let bitmap = self.bitmap_block(group);
            let used_inodes = if group == 0 { FIRST_INODE } else { 0 };
            let (mut flags, mut checksums) = (INODE_ZEROED, [0u32; 2]);
            if group == 0 || group == self.groups - 1 {
                checksums[0] = crc(self.seed, &self.block_bitmap(group));
            } else {
                flags |= BLOCK_UNINIT;
            }
            if group == 0 {
                let bits = inode_bitmap();
                checksums[1] = crc(self.seed, &bits[..(GROUP_INODES / 8) as usize]);
            } else {
                flags |= INODE_UNINIT;
            }
            let mut one = Vec::new();
            for number in [bitmap, bitmap + 1, bitmap + 2] {
                one.extend(number.to_le_bytes());
            }
            let free = self.group_blocks(group) - self.used_blocks(group);
            let folders = if group == 0 { 2 } else { 0 };
            for number in [free, GROUP_INODES - used_inodes, folders, u32::from(flags), 0, 0] {
                one.extend(low(number));
            }
            for number in [checksums[0], checksums[1], GROUP_INODES - used_inodes, 0] {
                one.extend(low(number));
            }
            let checksum = crc(crc(self.seed, &group.to_le_bytes()), &one);
            one[30..32].copy_from_slice(&low(checksum));
            out.extend(one);
        }
        out
    }

    fn superblock(&self, group: u32) -> Vec<u8> {
        let mut out = vec![0; 1024];
        let mut long = |at: usize, value: u32| {
            out[at..at + 4].copy_from_slice(&value.to_le_bytes());
        };
        long(0, self.groups * GROUP_INODES);
        long(4, self.blocks);
        long(12, self.free_blocks());
        long(16, self.groups * GROUP_INODES - FIRST_INODE);
        // Blocks and clusters of 1024 << 2 bytes.
        long(24, 2);
        long(28, 2);
        long(32, GROUP_BLOCKS);
        long(36, GROUP_BLOCKS);
        long(40, GROUP_INODES);
        long(48, self.now_s);
        // No check by count of mounts; magic; clean; remount read-only on errors; revision 1.
        long(52, 0xffff << 16);
        long(56, 0xef53 | 1 << 16);
        long(60, 2);
        long(64, self.now_s);
        long(76, 1);
        long(84, FIRST_INODE);
        long(88, INODE_LEN | group << 16);
        long(92, FEATURES_COMPAT);
        long(96, FEATURES_INCOMPAT);
        long(100, FEATURES_RO_COMPAT);
        long(224, JOURNAL_INODE);
        for (at, part) in (236..252).step_by(4).zip(self.uuid.chunks_exact(4)) {
            // The seed of folder hashes: random as the UUID is.
            long(at, u32::from_le_bytes([part[0], part[1], part[2], part[3]]).rotate_left(13));
        }
        // Half MD4; no backup of the journal's inode.
        long(252, 1);
        // User attributes and ACLs are on by default.
        long(256, 0x4 | 0x8);
        long(264, self.now_s);
        // Inodes have, and want, 32 bytes beyond the first 128.
        long(348, 32 | 32 << 16);
        // Signed folder hashes.
        long(352, 1);
        out[104..120].copy_from_slice(&self.uuid);
        // CRC32C.
        out[373] = 1;
        let checksum = crc(u32::MAX, &out[..1020]);
        out[1020..].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    fn inode_seed(&self, number: u32) -> u32 {
        crc(crc(self.seed, &number.to_le_bytes()), &[0; 4])
    }

    fn write_inodes(&self, file: &File) -> io::Result<()> {
        let table = u64::from(self.bitmap_block(0) + 2) * BLOCK_LEN;
        let first = self.first_free();
        let inodes = [
            (ROOT_INODE, S_IFDIR | 0o755, 3, first, 1),
            (FIRST_INODE, S_IFDIR | 0o700, 2, first + 1, 1),
            (JOURNAL_INODE, S_IFREG | 0o600, 1, first + 2, JOURNAL_BLOCKS),
        ];
        for (number, mode, links, block, blocks) in inodes {
            let bytes = self.inode(number, mode, links, block, blocks);
            file.write_all_at(&bytes, table + u64::from((number - 1) * INODE_LEN))?;
        }
        Ok(())
    }

    fn inode(&self, number: u32, mode: u16, links: u16, block: u32, blocks: u32) -> Vec<u8> {
        let mut out = vec![0; INODE_LEN as usize];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &mode.to_le_bytes());
        put(4, &(blocks * 4096).to_le_bytes());
        for at in [8, 12, 16, 144] {
            put(at, &self.now_s.to_le_bytes());
        }
        put(26, &links.to_le_bytes());
        // Sectors; EXTENTS_FL.
        put(28, &(blocks * 8).to_le_bytes());
        put(32, &0x80000u32.to_le_bytes());
        // An extent tree with one leaf of four: all blocks in a row.
        put(40, &[0x0a, 0xf3, 1, 0, 4, 0, 0, 0]);
        put(56, &low(blocks));
        put(60, &block.to_le_bytes());
        put(128, &32u16.to_le_bytes());
        let checksum = crc(self.inode_seed(number), &out);
        out[124..126].copy_from_slice(&low(checksum));
        out[130..132].copy_from_slice(&low(checksum >> 16));
        out
    }

    /// A folder's only block. Entries are `.`, `..` and, in the root, lost+found.
    fn folder(&self, number: u32, names: &[&str]) -> Vec<u8> {
        let mut out = Vec::with_capacity(BLOCK);
        for (index, name) in names.iter().enumerate() {
            let inode = match *name {
                "." => number,
                ".." => ROOT_INODE,
                _ => FIRST_INODE,
            };
            let is_last = index + 1 == names.len();
            let needed = (8 + name.len()).next_multiple_of(4);
            let len = if is_last { BLOCK - 12 - out.len() } else { needed };
            let end = out.len() + len;
            out.extend(inode.to_le_bytes());
            out.extend(u16::try_from(len).unwrap_or(0).to_le_bytes());
            out.extend([u8::try_from(name.len()).unwrap_or(0), 2]);
            out.extend(name.bytes());
            out.resize(end, 0);
        }
        let checksum = crc(self.inode_seed(number), &out);
        out.extend([0, 0, 0, 0, 12, 0, 0, 0xde]);
        out.extend(checksum.to_le_bytes());
        out
    }

    fn write_block(&self, file: &File, block: u32, bytes: &[u8]) -> io::Result<()> {
        file.write_all_at(bytes, u64::from(block) * BLOCK_LEN)
    }
}

fn low(number: u32) -> [u8; 2] {
    let [a, b, ..] = number.to_le_bytes();
    [a, b]
}

/// The reserved inodes and lost+found are used; what is beyond the group is not there.
fn inode_bitmap() -> Vec<u8> {
    let mut out = vec![0; (GROUP_INODES / 8) as usize];
    out[..2].copy_from_slice(&[0xff, 0x07]);
    out.resize(BLOCK, 0xff);
    out
}

/// The journal's superblock (include/linux/jbd2.h: journal_superblock_t, big endian): empty.
fn journal() -> Vec<u8> {
    let mut out = Vec::new();
    // Magic, version 2, no sequence; block length, blocks, first of the log, next id, no start.
    for number in [0xc03b_3998, 4, 0, 4096, JOURNAL_BLOCKS, 1, 1, 0, 0] {
        out.extend(number.to_be_bytes());
    }
    // One user, after three sets of features and a UUID.
    out.extend([0; 28]);
    out.extend(1u32.to_be_bytes());
    out.resize(BLOCK, 0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_little_and_in_its_place() {
        let file = tempfile::NamedTempFile::new().unwrap();
        format(file.as_file(), 10 << 30, [7; 16], 1_700_000_000).unwrap();
        let meta = file.as_file().metadata().unwrap();
        assert_eq!(meta.len(), 10 << 30);
        let used = std::os::unix::fs::MetadataExt::blocks(&meta) * 512;
        assert!(used < 256 << 10, "{used} bytes on disk");
        let mut magic = [0; 2];
        file.as_file().read_exact_at(&mut magic, 1024 + 56).unwrap();
        assert_eq!(magic, [0x53, 0xef]);
        assert!(format(file.as_file(), 1 << 20, [7; 16], 0).is_err());
    }
}
