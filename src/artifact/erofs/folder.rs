//! Folders: blocks of entries (erofs_fs.h: erofs_dirent) in the order of their names, each block with
//! its entries first and their names after them.

use std::ops::Range;

use crate::artifact::tree::{Folder, InodeId, Node};

/// A block that a folder's listing is cut into.
const BLOCK: usize = 4096;
/// erofs_fs.h: sizeof(struct erofs_dirent).
const ENTRY_LEN: usize = 12;

/// The names of a folder, `.` and `..` included, in the order that Linux searches in.
#[derive(Debug)]
pub struct Listing<'a> {
    names: Vec<(&'a [u8], InodeId)>,
    blocks: Vec<Range<usize>>,
    len: u64,
}

impl<'a> Listing<'a> {
    /// The listing of folder `id` in `parent`.
    pub fn new(folder: &'a Folder, id: InodeId, parent: InodeId) -> Listing<'a> {
        let mut names: Vec<(&[u8], InodeId)> =
            folder.entries.iter().map(|(name, entry)| (name.as_slice(), entry.inode)).collect();
        for (dots, inode) in [(&b"."[..], id), (&b".."[..], parent)] {
            let at = names.partition_point(|(name, _)| *name < dots);
            names.insert(at, (dots, inode));
        }
        let (mut blocks, mut begin, mut used) = (Vec::new(), 0, 0);
        for (index, (name, _)) in names.iter().enumerate() {
            let needed = ENTRY_LEN + name.len();
            if BLOCK < used + needed {
                blocks.push(begin..index);
                (begin, used) = (index, 0);
            }
            used += needed;
        }
        let len = (blocks.len() * BLOCK + used) as u64;
        blocks.push(begin..names.len());
        Listing { names, blocks, len }
    }

    /// Bytes in all: whole blocks, but for the last.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Blocks, the last one included.
    pub fn block_count(&self) -> usize {
        self.blocks.len()
    }

    /// The bytes of one block, the last one not filled up. `nid` and `node` look an inode up.
    pub fn block<'n>(
        &self,
        index: usize,
        nid: impl Fn(InodeId) -> u64,
        node: impl Fn(InodeId) -> &'n Node,
    ) -> Vec<u8> {
        let names = &self.names[self.blocks[index].clone()];
        let mut out = Vec::with_capacity(BLOCK);
        let mut name_at = names.len() * ENTRY_LEN;
        for (name, inode) in names {
            out.extend(nid(*inode).to_le_bytes());
            out.extend(u16::try_from(name_at).unwrap_or(u16::MAX).to_le_bytes());
            out.extend([file_type(node(*inode)), 0]);
            name_at += name.len();
        }
        names.iter().for_each(|(name, _)| out.extend(*name));
        if index + 1 < self.blocks.len() {
            out.resize(BLOCK, 0);
        }
        out
    }
}

/// Linux, include/linux/fs_types.h: FT_*.
fn file_type(node: &Node) -> u8 {
    match node {
        Node::File(_) => 1,
        Node::Folder(_) => 2,
        Node::CharDevice(..) => 3,
        Node::BlockDevice(..) => 4,
        Node::Fifo => 5,
        Node::Symlink(_) => 7,
    }
}
