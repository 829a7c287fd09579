//! Writes EROFS images (Linux: fs/erofs/erofs_fs.h): read-only, uncompressed, the same bytes for the
//! same tree.
//!
//! ```text
//! block 0      superblock at byte 1024
//! block 1...   contents of files, written while layers are read (data.rs)
//! inodes       each followed by its extended attributes and, if it fits into the block, by its
//!              symlink's target or the last part of its folder's listing (inode.rs, folder.rs)
//! then         the blocks of longer listings
//! ```
//!
//! Inodes come last, when everything about them is known, so that nothing is written twice and file
//! contents are never held in memory.

mod data;
mod folder;
mod inode;

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use crate::artifact::tree::{InodeId, Node, ROOT, Tree};

pub use data::DataArea;
use folder::Listing;
use inode::Planned;
pub use inode::xattr_is_known;

/// Bytes of a block: a page, the most that Linux can mount.
const BLOCK_LEN: u64 = 4096;
/// erofs_fs.h: EROFS_SUPER_OFFSET.
const SUPERBLOCK_AT: u64 = 1024;
/// erofs_fs.h: EROFS_SUPER_MAGIC_V1.
const MAGIC: u32 = 0xe0f5_e1e2;
/// erofs_fs.h: EROFS_FEATURE_COMPAT_SB_CHKSUM and _MTIME.
const FEATURES_COMPAT: u32 = 0x1 | 0x2;
/// The first inode is not number 0, which programs take for "no file".
const FIRST_INODE_AT: u64 = 64;

/// Where everything that is not content goes.
struct Plan {
    inodes: Vec<Option<Planned>>,
    /// In the order of their places.
    order: Vec<InodeId>,
    inodes_block: u32,
    listings_block: u32,
    end_block: u32,
}

/// Writes the inodes of `tree` behind its contents, and the superblock before them. `uuid` is part
/// of the image, so it must follow from what the image is. The file, and its length in bytes.
///
/// # Errors
/// The file cannot be written, or has more blocks than EROFS can count.
pub fn finish(data: DataArea, tree: &Tree, uuid: [u8; 16]) -> io::Result<(File, u64)> {
    let (file, data_end) = data.finish()?;
    let plan = Plan::new(tree, data_end)?;
    let mut out = BufWriter::with_capacity(1 << 20, &file);
    out.seek(SeekFrom::Start(u64::from(plan.inodes_block) * BLOCK_LEN))?;
    let mut at = 0;
    for (number, id) in (1..).zip(&plan.order) {
        let Some(planned) = &plan.inodes[*id] else { continue };
        zeros(&mut out, planned.at - at)?;
        let bytes = plan.encode(tree, *id, planned, number)?;
        out.write_all(&bytes)?;
        at = planned.at + bytes.len() as u64;
    }
    zeros(&mut out, u64::from(plan.listings_block - plan.inodes_block) * BLOCK_LEN - at)?;
    for id in &plan.order {
        plan.write_blocks(tree, *id, &mut out)?;
    }
    out.flush()?;
    drop(out);
    let len = u64::from(plan.end_block) * BLOCK_LEN;
    file.set_len(len)?;
    file.write_all_at(&plan.superblock(uuid), SUPERBLOCK_AT)?;
    Ok((file, len))
}

fn zeros(out: &mut impl Write, count: u64) -> io::Result<()> {
    io::copy(&mut io::repeat(0).take(count), out).map(drop)
}

fn block_after(block: u32, count: u64) -> io::Result<u32> {
    let end = u32::try_from(count).ok().and_then(|count| block.checked_add(count));
    end.ok_or_else(|| io::Error::other("the image has too many blocks"))
}

impl Plan {
    /// Parents come before children, siblings in the order of their names.
    fn new(tree: &Tree, data_end: u32) -> io::Result<Plan> {
        let mut inodes = vec![None; tree.inodes_made()];
        let (mut order, mut at, mut blocks) = (Vec::new(), FIRST_INODE_AT, 0);
        let mut pending = vec![(ROOT, ROOT)];
        while let Some((id, parent)) = pending.pop() {
            if inodes[id].is_some() {
                continue;
            }
            let inode = tree.inode(id);
            let mut planned = inode::plan(inode, id, parent, at, blocks);
            if let Node::Folder(folder) = &inode.node {
                let children = folder.entries.values().rev().map(|entry| (entry.inode, id));
                pending.extend(children);
                let is_folder = |id| matches!(tree.inode(id).node, Node::Folder(_));
                let folders = folder.entries.values().filter(|entry| is_folder(entry.inode));
                planned.links = u32::try_from(2 + folders.count()).unwrap_or(u32::MAX);
            }
            (at, blocks) = (planned.end, blocks + planned.blocks);
            order.push(id);
            inodes[id] = Some(planned);
        }
        let listings_block = block_after(data_end, at.div_ceil(BLOCK_LEN))?;
        let end_block = block_after(listings_block, blocks)?;
        Ok(Plan { inodes, order, inodes_block: data_end, listings_block, end_block })
    }

    fn nid(&self, id: InodeId) -> u64 {
        self.inodes[id].map_or(0, |planned| planned.nid())
    }

    fn listing_block(&self, tree: &Tree, listing: &Listing<'_>, index: usize) -> Vec<u8> {
        listing.block(index, |id| self.nid(id), |id| &tree.inode(id).node)
    }

    /// An inode and what follows it.
    fn encode(
        &self,
        tree: &Tree,
        id: InodeId,
        planned: &Planned,
        number: u32,
    ) -> io::Result<Vec<u8>> {
        let inode = tree.inode(id);
        let first_block = block_after(self.listings_block, planned.block)?;
        let len = inode::content_len(inode, id, planned.parent);
        let mut bytes = inode::encode(inode, len, planned, first_block, number);
        match &inode.node {
            Node::Symlink(target) if planned.inline => bytes.extend(target),
            Node::Folder(folder) if planned.inline => {
                let listing = Listing::new(folder, id, planned.parent);
                bytes.extend(self.listing_block(tree, &listing, listing.block_count() - 1));
            }
            _ => {}
        }
        Ok(bytes)
    }

    /// What of an inode's content is beyond the inodes.
    fn write_blocks(&self, tree: &Tree, id: InodeId, out: &mut impl Write) -> io::Result<()> {
        let Some(planned) = self.inodes[id].filter(|planned| 0 < planned.blocks) else {
            return Ok(());
        };
        let mut write = |mut bytes: Vec<u8>| {
            bytes.resize(usize::try_from(BLOCK_LEN).unwrap_or(0).max(bytes.len()), 0);
            out.write_all(&bytes)
        };
        match &tree.inode(id).node {
            Node::Symlink(target) => write(target.clone()),
            Node::Folder(folder) => {
                let listing = Listing::new(folder, id, planned.parent);
                let blocks = usize::try_from(planned.blocks).unwrap_or(0);
                (0..blocks).try_for_each(|index| write(self.listing_block(tree, &listing, index)))
            }
            _ => Ok(()),
        }
    }

    /// The superblock and the rest of its block, over which its checksum goes.
    fn superblock(&self, uuid: [u8; 16]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(MAGIC.to_le_bytes());
        out.extend([0; 4]);
        out.extend(FEATURES_COMPAT.to_le_bytes());
        // Block length as a power of two; no extra slots.
        out.extend([12, 0]);
        out.extend(u16::try_from(self.nid(ROOT)).unwrap_or(0).to_le_bytes());
        out.extend((self.order.len() as u64).to_le_bytes());
        // When it was built, in seconds and nanoseconds: never, so that equal trees are equal.
        out.extend([0; 12]);
        out.extend(self.end_block.to_le_bytes());
        out.extend(self.inodes_block.to_le_bytes());
        // No shared attributes.
        out.extend([0; 4]);
        out.extend(uuid);
        // No name, no feature that Linux would have to know.
        out.extend([0; 20]);
        out.resize(usize::try_from(BLOCK_LEN - SUPERBLOCK_AT).unwrap_or(0), 0);
        // Linux leaves out the usual last inversion.
        let checksum = !crc32c::crc32c(&out);
        out[4..8].copy_from_slice(&checksum.to_le_bytes());
        out
    }
}
