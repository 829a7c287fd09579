//! A file system's tree in memory: names and attributes here, the contents of files in the image
//! that is being written ([`Extent`]s). Layers are laid over each other in it, so that no name that
//! comes from an image is ever given to the host's file system.
//!
//! The work for one entry is bounded by [`STEPS_MAX`], that for all whiteouts of a layer by the
//! number of entries below.

use std::collections::BTreeMap;

/// Index of an inode; stable for the life of the tree.
pub type InodeId = usize;

/// The root folder.
pub const ROOT: InodeId = 0;
/// Bytes of one name (Linux, NAME_MAX).
pub const NAME_LEN_MAX: usize = 255;
/// Bytes of one path and of a symlink's target (Linux, PATH_MAX without its zero).
pub const PATH_LEN_MAX: usize = 4095;
/// Symlinks followed on the way to one entry (Linux, MAXSYMLINKS).
const SYMLINKS_MAX: usize = 40;
/// Names looked up on the way to one entry.
const STEPS_MAX: usize = 4096;
/// Folders in each other: what may be walked recursively.
const DEPTH_MAX: u16 = 512;

/// Where a file's contents are in the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// First block.
    pub block: u32,
    /// Bytes.
    pub len: u64,
}

/// What every inode has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits, 0 to 0o7777.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since the Unix epoch.
    pub mtime_s: i64,
    /// Nanoseconds of the second.
    pub mtime_ns: u32,
    /// Extended attributes: full name and value, sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What an inode is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// Folder.
    Folder(Folder),
    /// Regular file.
    File(Extent),
    /// Symbolic link.
    Symlink(Vec<u8>),
    /// Character device: major, minor.
    CharDevice(u32, u32),
    /// Block device: major, minor.
    BlockDevice(u32, u32),
    /// FIFO.
    Fifo,
}

/// A folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folder {
    /// Its entries by name, in the order of bytes.
    pub entries: BTreeMap<Vec<u8>, Entry>,
    /// The folder that it is in.
    pub parent: InodeId,
    /// Folders above it.
    depth: u16,
    /// The last layer that has removed everything below it here.
    cleared: u16,
}

/// A name in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it names.
    pub inode: InodeId,
    /// The layer that has put it there, 1 and up.
    layer: u16,
}

/// An inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Attributes.
    pub meta: Meta,
    /// Kind and content.
    pub node: Node,
    /// Names that it has.
    pub links: u32,
}

/// Why an entry has no place in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It begins at the root of the host.
    #[error("is an absolute path")]
    Absolute,
    /// It climbs.
    #[error("contains '..'")]
    DotDot,
    /// It leads out of the root by way of a symlink.
    #[error("leads out of the image through a symbolic link")]
    Escape,
    /// It follows too many symlinks, or has too many parts.
    #[error("goes through too many folders or symbolic links")]
    Loop,
    /// A name on the way is too long.
    #[error("has a name longer than {NAME_LEN_MAX} bytes")]
    Name,
    /// It is too long.
    #[error("is longer than {PATH_LEN_MAX} bytes")]
    Length,
    /// It contains a zero byte.
    #[error("contains a zero byte")]
    Zero,
    /// It is too deep.
    #[error("has more than {DEPTH_MAX} folders in each other")]
    Depth,
    /// Something on the way is no folder.
    #[error("leads through what is not a folder")]
    NotAFolder,
    /// The target of a hard link is not there.
    #[error("is a hard link to what does not exist")]
    NoTarget,
    /// The target of a hard link is a folder.
    #[error("is a hard link to a folder")]
    FolderTarget,
    /// The root itself must be a folder.
    #[error("would replace the root folder")]
    Root,
}

/// The tree.
#[derive(Debug)]
pub struct Tree {
    inodes: Vec<Inode>,
    layer: u16,
    dead: Vec<Extent>,
}

impl Default for Tree {
    fn default() -> Tree {
        let meta = Meta { mode: 0o755, ..Meta::default() };
        let root = Inode { meta, node: Node::Folder(Folder::default()), links: 1 };
        Tree { inodes: vec![root], layer: 0, dead: Vec::new() }
    }
}

impl Tree {
    /// What comes now lies over everything that is there.
    pub fn begin_layer(&mut self) {
        self.layer += 1;
    }

    /// Inodes made so far, removed ones included: what bounds the memory.
    pub fn inodes_made(&self) -> usize {
        self.inodes.len()
    }

    /// An inode.
    pub fn inode(&self, id: InodeId) -> &Inode {
        &self.inodes[id]
    }

    /// Contents that no name leads to any more.
    pub fn take_dead(&mut self) -> Vec<Extent> {
        std::mem::take(&mut self.dead)
    }

    /// The folder and name of `path`; missing folders on the way are made. `None` is the root.
    ///
    /// # Errors
    /// [`PathError`].
    pub fn place(&mut self, path: &[u8]) -> Result<Option<(InodeId, Vec<u8>)>, PathError> {
        let parts = parts(path)?;
        let Some((name, folders)) = parts.split_last() else { return Ok(None) };
        let folder = self.walk(folders, true)?;
        Ok(Some((folder, name.to_vec())))
    }

    /// Puts an inode at `path`, in place of what is there. A folder over a folder changes its
    /// attributes and keeps its entries.
    ///
    /// # Errors
    /// [`PathError`].
    pub fn put(&mut self, path: &[u8], meta: Meta, node: Node) -> Result<(), PathError> {
        let is_folder = matches!(node, Node::Folder(_));
        let Some((folder, name)) = self.place(path)? else {
            if !is_folder {
                return Err(PathError::Root);
            }
            self.inodes[ROOT].meta = meta;
            return Ok(());
        };
        if is_folder
            && let Some(entry) = self.entry(folder, &name)
            && matches!(self.inodes[entry.inode].node, Node::Folder(_))
        {
            self.inodes[entry.inode].meta = meta;
            self.enter(folder, name, entry.inode);
            return Ok(());
        }
        self.remove(folder, &name);
        let node = match node {
            Node::Folder(_) => Node::Folder(self.new_folder(folder)?),
            other => other,
        };
        self.inodes.push(Inode { meta, node, links: 1 });
        self.enter(folder, name, self.inodes.len() - 1);
        Ok(())
    }

    /// Gives what is at `target` another name.
    ///
    /// # Errors
    /// [`PathError`].
    pub fn link(&mut self, path: &[u8], target: &[u8]) -> Result<(), PathError> {
        let target_parts = parts(target)?;
        let (target_name, folders) = target_parts.split_last().ok_or(PathError::FolderTarget)?;
        let found = self.walk(folders, false).map_err(|error| match error {
            PathError::NotAFolder => PathError::NoTarget,
            other => other,
        })?;
        let target = self.entry(found, target_name).ok_or(PathError::NoTarget)?.inode;
        if matches!(self.inodes[target].node, Node::Folder(_)) {
            return Err(PathError::FolderTarget);
        }
        let (folder, name) = self.place(path)?.ok_or(PathError::Root)?;
        if self.entry(folder, &name).is_some_and(|entry| entry.inode == target) {
            return Ok(());
        }
        self.inodes[target].links += 1;
        self.remove(folder, &name);
        self.enter(folder, name, target);
        Ok(())
    }

    /// A whiteout: what lower layers have at `path` is gone.
    ///
    /// # Errors
    /// [`PathError`].
    pub fn white_out(&mut self, folder: &[u8], name: &[u8]) -> Result<(), PathError> {
        let Some(folder) = self.existing(folder)? else { return Ok(()) };
        let Some(entry) = self.entry(folder, name) else { return Ok(()) };
        if entry.layer < self.layer {
            if self.clear(entry.inode) {
                self.remove(folder, name);
            } else {
                self.enter(folder, name.to_vec(), entry.inode);
            }
        }
        Ok(())
    }

    /// An opaque whiteout: what lower layers have in `folder` is gone.
    ///
    /// # Errors
    /// [`PathError`].
    pub fn white_out_all(&mut self, folder: &[u8]) -> Result<(), PathError> {
        if let Some(folder) = self.existing(folder)? {
            self.clear(folder);
        }
        Ok(())
    }

    /// The folder at `path`, if it is one.
    fn existing(&mut self, path: &[u8]) -> Result<Option<InodeId>, PathError> {
        match self.walk(&parts(path)?, false) {
            Ok(folder) => Ok(Some(folder)),
            Err(PathError::NotAFolder) => Ok(None),
            Err(other) => Err(other),
        }
    }

    fn new_folder(&self, parent: InodeId) -> Result<Folder, PathError> {
        let depth = self.folder(parent).map_or(0, |folder| folder.depth) + 1;
        if DEPTH_MAX < depth {
            return Err(PathError::Depth);
        }
        Ok(Folder { entries: BTreeMap::new(), parent, depth, cleared: self.layer })
    }

    fn folder(&self, id: InodeId) -> Option<&Folder> {
        match &self.inodes[id].node {
            Node::Folder(folder) => Some(folder),
            _ => None,
        }
    }

    fn folder_mut(&mut self, id: InodeId) -> Option<&mut Folder> {
        match &mut self.inodes[id].node {
            Node::Folder(folder) => Some(folder),
            _ => None,
        }
    }

    fn entry(&self, folder: InodeId, name: &[u8]) -> Option<Entry> {
        self.folder(folder)?.entries.get(name).copied()
    }

    fn enter(&mut self, folder: InodeId, name: Vec<u8>, inode: InodeId) {
        let entry = Entry { inode, layer: self.layer };
        if let Some(folder) = self.folder_mut(folder) {
            folder.entries.insert(name, entry);
        }
    }

    /// Follows `path` from the root as the kernel would inside the image: symlinks lead from the
    /// image's own root.
    fn walk(&mut self, path: &[&[u8]], make: bool) -> Result<InodeId, PathError> {
        let mut folder = ROOT;
        let mut todo: Vec<Vec<u8>> = path.iter().rev().map(|part| part.to_vec()).collect();
        let (mut links, mut steps) = (0, 0);
        while let Some(name) = todo.pop() {
            steps += 1;
            if STEPS_MAX < steps {
                return Err(PathError::Loop);
            }
            if name == b".." {
                if folder == ROOT {
                    return Err(PathError::Escape);
                }
                folder = self.folder(folder).ok_or(PathError::NotAFolder)?.parent;
                continue;
            }
            let Some(entry) = self.entry(folder, &name) else {
                if !make {
                    return Err(PathError::NotAFolder);
                }
                let made = Node::Folder(self.new_folder(folder)?);
                let meta = Meta { mode: 0o755, ..Meta::default() };
                self.inodes.push(Inode { meta, node: made, links: 1 });
                self.enter(folder, name, self.inodes.len() - 1);
                folder = self.inodes.len() - 1;
                continue;
            };
            match &self.inodes[entry.inode].node {
                Node::Folder(_) => folder = entry.inode,
                Node::Symlink(target) => {
                    links += 1;
                    if SYMLINKS_MAX < links {
                        return Err(PathError::Loop);
                    }
                    if target.starts_with(b"/") {
                        folder = ROOT;
                    }
                    let names = target.split(|c| *c == b'/').rev();
                    let names = names.filter(|part| !part.is_empty() && *part != b".");
                    todo.extend(names.map(<[u8]>::to_vec));
                }
                _ => return Err(PathError::NotAFolder),
            }
        }
        Ok(folder)
    }

    /// Removes an entry and, if it is a folder, everything in it.
    fn remove(&mut self, folder: InodeId, name: &[u8]) {
        let Some(folder) = self.folder_mut(folder) else { return };
        let Some(entry) = folder.entries.remove(name) else { return };
        let mut gone = vec![entry.inode];
        while let Some(id) = gone.pop() {
            let inode = &mut self.inodes[id];
            inode.links -= 1;
            if 0 < inode.links {
                continue;
            }
            inode.meta.xattrs = Vec::new();
            match std::mem::replace(&mut inode.node, Node::Fifo) {
                Node::Folder(folder) => gone.extend(folder.entries.values().map(|e| e.inode)),
                Node::File(extent) if 0 < extent.len => self.dead.push(extent),
                _ => {}
            }
        }
    }

    /// Removes what lower layers have put below `id`. Whether nothing of this layer is there.
    fn clear(&mut self, id: InodeId) -> bool {
        let layer = self.layer;
        let Some(folder) = self.folder_mut(id) else { return true };
        if folder.cleared == layer {
            return folder.entries.is_empty();
        }
        folder.cleared = layer;
        let entries: Vec<_> = folder.entries.iter().map(|(n, e)| (n.clone(), *e)).collect();
        for (name, entry) in entries {
            let is_folder = matches!(self.inodes[entry.inode].node, Node::Folder(_));
            // Recursion is bounded by DEPTH_MAX.
            let empty = !is_folder || self.clear(entry.inode);
            if entry.layer < layer && empty {
                self.remove(id, &name);
            }
        }
        self.folder(id).is_none_or(|folder| folder.entries.is_empty())
    }
}

/// The names of a path that was written into an archive.
fn parts(path: &[u8]) -> Result<Vec<&[u8]>, PathError> {
    if PATH_LEN_MAX < path.len() {
        return Err(PathError::Length);
    }
    if path.starts_with(b"/") {
        return Err(PathError::Absolute);
    }
    if path.contains(&0) {
        return Err(PathError::Zero);
    }
    let parts: Vec<&[u8]> =
        path.split(|c| *c == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.contains(&&b".."[..]) {
        return Err(PathError::DotDot);
    }
    if parts.iter().any(|part| NAME_LEN_MAX < part.len()) {
        return Err(PathError::Name);
    }
    Ok(parts)
}

#[cfg(test)]
mod tests;
