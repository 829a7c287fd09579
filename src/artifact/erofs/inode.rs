//! Inodes in their extended form (erofs_fs.h: erofs_inode_extended) with inline extended attributes.

use crate::artifact::erofs::BLOCK_LEN;
use crate::artifact::erofs::folder::Listing;
use crate::artifact::tree::{Inode, InodeId, Node};

/// erofs_fs.h: sizeof(struct erofs_inode_extended).
const INODE_LEN: u64 = 64;
/// Where inodes may begin: a number (nid) counts 32 bytes; at 64 none crosses a block.
const INODE_ALIGN: u64 = 64;
const NID_LEN: u64 = 32;
/// erofs_fs.h: sizeof(struct erofs_xattr_ibody_header) and of an erofs_xattr_entry.
const XATTR_HEADER_LEN: u64 = 12;
/// erofs_fs.h: EROFS_INODE_FLAT_PLAIN and EROFS_INODE_FLAT_INLINE, above the bit for "extended".
const FORMAT_PLAIN: u16 = 1;
const FORMAT_INLINE: u16 = 1 | 2 << 1;
/// Prefixes that have a number (erofs_fs.h: EROFS_XATTR_INDEX_*). Linux shows no other names.
const XATTR_PREFIXES: [(&[u8], u8); 5] = [
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
];

/// Where an inode and what belongs to it will be.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    /// Bytes from the begin of the inodes.
    pub at: u64,
    /// Bytes from there to the end of all that follows it.
    pub end: u64,
    /// First of its blocks beyond the inodes, counted from the begin of those.
    pub block: u64,
    /// Its blocks there.
    pub blocks: u64,
    /// The last part of its content follows the inode.
    pub inline: bool,
    /// The folder that it is in (one of them).
    pub parent: InodeId,
    /// Names that it has.
    pub links: u32,
}

impl Planned {
    /// The inode's number.
    pub fn nid(&self) -> u64 {
        self.at / NID_LEN
    }
}

/// Whether an image can hold an extended attribute of this name.
pub fn xattr_is_known(name: &[u8]) -> bool {
    xattr_index(name).is_some()
}

fn xattr_index(name: &[u8]) -> Option<(u8, &[u8])> {
    XATTR_PREFIXES.iter().find_map(|(prefix, index)| {
        let rest = name.strip_prefix(*prefix)?;
        let whole = !prefix.ends_with(b".");
        (whole == rest.is_empty()).then_some((*index, rest))
    })
}

/// Bytes of content that are not in the data area, if the inode has such.
fn metadata_len(inode: &Inode, id: InodeId, parent: InodeId) -> u64 {
    match &inode.node {
        Node::Folder(folder) => Listing::new(folder, id, parent).len(),
        Node::Symlink(target) => target.len() as u64,
        _ => 0,
    }
}

/// Bytes of the inode's content, wherever it is.
pub fn content_len(inode: &Inode, id: InodeId, parent: InodeId) -> u64 {
    match &inode.node {
        Node::File(extent) => extent.len,
        _ => metadata_len(inode, id, parent),
    }
}

/// Decides where an inode goes, `at` being free, and `block` the first free one beyond the inodes.
pub fn plan(inode: &Inode, id: InodeId, parent: InodeId, at: u64, block: u64) -> Planned {
    let header = INODE_LEN + xattrs(inode).len() as u64;
    let len = metadata_len(inode, id, parent);
    // The last part, which may be a whole block and then has no place beside an inode.
    let tail = if len == 0 { 0 } else { (len - 1) % BLOCK_LEN + 1 };
    let blocks = len.div_ceil(BLOCK_LEN);
    let fits = |at: u64| (at + header) % BLOCK_LEN + tail <= BLOCK_LEN;
    let (here, next) = (at.next_multiple_of(INODE_ALIGN), at.next_multiple_of(BLOCK_LEN));
    let place = [here, next].into_iter().find(|at| 0 < tail && fits(*at));
    let (at, inline) = place.map_or((here, false), |at| (at, true));
    let (tail, blocks) = if inline { (tail, blocks - 1) } else { (0, blocks) };
    Planned { at, end: at + header + tail, block, blocks, inline, parent, links: inode.links }
}

/// The inode's bytes with its attributes; the inline part is the caller's to append.
pub fn encode(
    inode: &Inode,
    len: u64,
    planned: &Planned,
    first_block: u32,
    number: u32,
) -> Vec<u8> {
    let xattrs = xattrs(inode);
    let (kind, union) = match &inode.node {
        Node::Folder(_) => (0o040_000, first_block),
        Node::File(extent) => (0o100_000, extent.block),
        Node::Symlink(_) => (0o120_000, first_block),
        Node::CharDevice(major, minor) => (0o020_000, device(*major, *minor)),
        Node::BlockDevice(major, minor) => (0o060_000, device(*major, *minor)),
        Node::Fifo => (0o010_000, 0),
    };
    let format = if planned.inline { FORMAT_INLINE } else { FORMAT_PLAIN };
    let xattr_count = match xattrs.len() as u64 {
        0 => 0,
        len => 1 + (len - XATTR_HEADER_LEN) / 4,
    };
    let mut out = Vec::with_capacity(128);
    out.extend(format.to_le_bytes());
    out.extend(u16::try_from(xattr_count).unwrap_or(u16::MAX).to_le_bytes());
    out.extend((kind | inode.meta.mode).to_le_bytes());
    out.extend([0; 2]);
    out.extend(len.to_le_bytes());
    out.extend(union.to_le_bytes());
    out.extend(number.to_le_bytes());
    out.extend(inode.meta.uid.to_le_bytes());
    out.extend(inode.meta.gid.to_le_bytes());
    out.extend(inode.meta.mtime_s.to_le_bytes());
    out.extend(inode.meta.mtime_ns.to_le_bytes());
    out.extend(planned.links.to_le_bytes());
    out.extend([0; 16]);
    out.extend(xattrs);
    out
}

/// Linux, include/linux/kdev_t.h: new_encode_dev.
fn device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The attributes behind an inode; empty if there are none. Names that Linux would not show are
/// left out ([`xattr_is_known`]).
fn xattrs(inode: &Inode) -> Vec<u8> {
    let mut out = vec![0; 12];
    for (name, value) in &inode.meta.xattrs {
        let Some((index, rest)) = xattr_index(name) else { continue };
        out.extend([u8::try_from(rest.len()).unwrap_or(u8::MAX), index]);
        out.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend(rest);
        out.extend(value);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    if out.len() == 12 { Vec::new() } else { out }
}
