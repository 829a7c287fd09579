//! Trees of files as tar streams: what `ctl vms cp` and volary both do.
//!
//! Blocks: callers give it a thread. Modes, times (whole seconds), symbolic and hard links are
//! kept; sockets, pipes and devices are passed over. Whoever unpacks does not trust who packed.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use filetime::FileTime;
use tar::{Archive, Builder, EntryType, Header};

/// Folders of one archive; they wait in memory until their contents are there.
const FOLDERS_MAX: usize = 200_000;
/// Files with several names of one archive.
const LINKS_MAX: usize = 200_000;

/// Writes `path` as a tar stream: a folder's contents relative to it (`.` first), anything else as
/// one entry under its own name.
///
/// # Errors
/// As the file system's and the writer's.
pub fn pack(path: &Path, to: impl Write) -> io::Result<()> {
    let mut packer = Packer { builder: Builder::new(to), links: HashMap::new() };
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_dir() {
        packer.folder(path, Path::new("."), &metadata)?;
        packer.contents(path)?;
    } else {
        let name = path.file_name().unwrap_or(OsStr::new("file"));
        packer.entry(path, Path::new(name), &metadata)?;
    }
    packer.builder.into_inner()?.flush()
}

struct Packer<W: Write> {
    builder: Builder<W>,
    /// Device and inode to the first name of files that have several.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Packer<W> {
    fn contents(&mut self, root: &Path) -> io::Result<()> {
        let mut pending = vec![PathBuf::new()];
        while let Some(folder) = pending.pop() {
            let entries = match fs::read_dir(root.join(&folder)) {
                // It was there a moment ago.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            let mut names =
                entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
            names.sort();
            for name in names {
                let relative = folder.join(&name);
                let path = root.join(&relative);
                let metadata = match fs::symlink_metadata(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    metadata => metadata?,
                };
                if metadata.is_dir() {
                    self.folder(&path, &relative, &metadata)?;
                    pending.push(relative);
                } else {
                    self.entry(&path, &relative, &metadata)?;
                }
            }
        }
        Ok(())
    }

    fn folder(&mut self, path: &Path, name: &Path, metadata: &Metadata) -> io::Result<()> {
        let mut header = header(metadata, EntryType::Directory);
        self.builder.append_data(&mut header, name, io::empty()).map_err(at(path))
    }

    fn entry(&mut self, path: &Path, name: &Path, metadata: &Metadata) -> io::Result<()> {
        if metadata.is_symlink() {
            let target = fs::read_link(path)?;
            let mut header = header(metadata, EntryType::Symlink);
            return self.builder.append_link(&mut header, name, target).map_err(at(path));
        }
        if !metadata.is_file() {
            return Ok(());
        }
        if 1 < metadata.nlink() {
            let inode = (metadata.dev(), metadata.ino());
            if let Some(first) = self.links.get(&inode) {
                let mut header = header(metadata, EntryType::Link);
                return self.builder.append_link(&mut header, name, first).map_err(at(path));
            }
            if self.links.len() < LINKS_MAX {
                self.links.insert(inode, name.to_owned());
            }
        }
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file.map_err(at(path))?,
        };
        let mut header = header(metadata, EntryType::Regular);
        header.set_size(metadata.len());
        // The entry has the size that was announced, whatever happens to the file meanwhile.
        let data = file.chain(io::repeat(0)).take(metadata.len());
        self.builder.append_data(&mut header, name, data).map_err(at(path))
    }
}

fn header(metadata: &Metadata, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_metadata(metadata);
    header.set_entry_type(kind);
    header.set_size(0);
    header
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn archive<R: Read>(from: R) -> Archive<R> {
    let mut archive = Archive::new(from);
    archive.set_preserve_permissions(true);
    archive.set_preserve_mtime(true);
    archive
}

/// Unpacks a tree into the folder `to`, which is made if it is not there. Nothing is written
/// outside it, whatever the archive says.
///
/// # Errors
/// As the reader's and the file system's; an archive that names places outside.
pub fn unpack_tree(from: impl Read, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to).map_err(at(to))?;
    let root = to.canonicalize()?;
    let mut folders = Vec::new();
    let mut archive = archive(from);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        if name.components().any(|part| part == Component::ParentDir) {
            return Err(invalid("the archive names a place outside of the folder"));
        }
        if entry.header().entry_type() == EntryType::Directory {
            if FOLDERS_MAX <= folders.len() {
                return Err(invalid("the archive has too many folders"));
            }
            folders.push((name, entry));
        } else if is_wanted(entry.header().entry_type()) {
            entry.unpack_in(&root)?;
        }
    }
    // Last, children first: a folder may forbid writing, and its time changes with its contents.
    folders.sort_by(|(one, _), (two, _)| two.cmp(one));
    for (name, mut entry) in folders {
        entry.unpack_in(&root)?;
        let path = root.join(relative(&name));
        if path == root {
            let mode = entry.header().mode()?;
            fs::set_permissions(
                &root,
                std::os::unix::fs::PermissionsExt::from_mode(mode & 0o7777),
            )?;
        }
        if fs::symlink_metadata(&path)?.is_dir() {
            let time = i64::try_from(entry.header().mtime()?).unwrap_or(i64::MAX);
            filetime::set_file_mtime(&path, FileTime::from_unix_time(time, 0))?;
        }
    }
    Ok(())
}

fn is_wanted(kind: EntryType) -> bool {
    kind.is_file() || kind.is_symlink() || kind.is_hard_link() || kind.is_gnu_sparse()
}

fn relative(name: &Path) -> PathBuf {
    name.components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

/// Unpacks an archive of one file or symbolic link as `path`, whatever its name there.
///
/// # Errors
/// As the reader's and the file system's; an archive that holds anything else.
pub fn unpack_one(from: impl Read, path: &Path) -> io::Result<()> {
    let mut archive = archive(from);
    let mut entries = archive.entries()?;
    let mut entry = entries.next().ok_or_else(|| invalid("the archive is empty"))??;
    let kind = entry.header().entry_type();
    if !kind.is_file() && !kind.is_symlink() {
        return Err(invalid("the archive holds no file"));
    }
    entry.unpack(path).map_err(at(path))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(invalid("the archive holds more than one file")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn packed(path: &Path) -> Vec<u8> {
        let mut bytes = Vec::new();
        pack(path, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_tree_comes_back_with_modes_links_and_times() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let long = "n".repeat(120);
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::write(from.join("a/b/run"), "#!/bin/sh\n").unwrap();
        fs::write(from.join("a").join(&long), vec![7; 100_000]).unwrap();
        fs::set_permissions(from.join("a/b/run"), fs::Permissions::from_mode(0o4751)).unwrap();
        fs::hard_link(from.join("a/b/run"), from.join("again")).unwrap();
        symlink("a/b", from.join("link")).unwrap();
        symlink("/no/such", from.join("dangling")).unwrap();
        fs::set_permissions(from.join("a/b"), fs::Permissions::from_mode(0o555)).unwrap();
        let old = FileTime::from_unix_time(1_000_000, 0);
        filetime::set_file_mtime(from.join("a/b/run"), old).unwrap();
        filetime::set_file_mtime(from.join("a/b"), old).unwrap();
        unpack_tree(&packed(&from)[..], &to).unwrap();
        let metadata = |name: &str| fs::symlink_metadata(to.join(name)).unwrap();
        assert_eq!(metadata("a/b/run").mode() & 0o7777, 0o4751);
        assert_eq!(metadata("a/b").mode() & 0o7777, 0o555);
        assert_eq!((metadata("a/b").mtime(), metadata("a/b/run").mtime()), (1_000_000, 1_000_000));
        assert_eq!(metadata("again").ino(), metadata("a/b/run").ino());
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("a/b"));
        assert_eq!(fs::read_link(to.join("dangling")).unwrap(), Path::new("/no/such"));
        assert_eq!(fs::read(to.join("a").join(&long)).unwrap(), vec![7; 100_000]);
        unpack_one(&packed(&from.join("again"))[..], &to.join("one")).unwrap();
        assert_eq!(fs::read(to.join("one")).unwrap(), b"#!/bin/sh\n");
        assert!(unpack_one(&packed(&from)[..], &to.join("two")).is_err());
        fs::set_permissions(from.join("a/b"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(to.join("a/b"), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Name, kind, link target, contents.
    type Forged<'a> = (&'a str, EntryType, &'a str, &'a [u8]);

    /// An archive by hand.
    fn forged(entries: &[Forged<'_>]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (name, kind, target, data) in entries {
            let mut header = Header::new_gnu();
            // The safe setters refuse what is forged here.
            let field = &mut header.as_gnu_mut().unwrap().name;
            field[..name.len()].copy_from_slice(name.as_bytes());
            let field = &mut header.as_gnu_mut().unwrap().linkname;
            field[..target.len()].copy_from_slice(target.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(data.len() as u64);
            header.set_cksum();
            builder.append(&header, *data).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn nothing_is_written_outside() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, outside) = (folder.path().join("inside"), folder.path().join("outside"));
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "kept").unwrap();
        let (file, link) = (EntryType::Regular, EntryType::Symlink);
        let (hard, dir) = (EntryType::Link, EntryType::Directory);
        let out = outside.to_str().unwrap();
        let kept = format!("{out}/kept");
        let attacks: &[&[Forged<'_>]] = &[
            &[("../outside/x", file, "", b"x")],
            &[("a/../../outside/x", file, "", b"x")],
            &[("way", link, "../outside", b""), ("way/x", file, "", b"x")],
            &[("way", link, out, b""), ("way/x", file, "", b"x")],
            &[("way", link, out, b""), ("way/d", dir, "", b"")],
            &[("way", link, out, b""), ("way", dir, "", b"")],
            &[("h", hard, &kept, b""), ("h", file, "", b"changed")],
            &[("way", link, &kept, b""), ("way", file, "", b"changed")],
        ];
        for (index, attack) in attacks.iter().enumerate() {
            let _ = fs::remove_dir_all(&inside);
            // Refused or made harmless: what counts is what it does.
            let _ = unpack_tree(&forged(attack)[..], &inside);
            let left: Vec<_> = fs::read_dir(&outside).unwrap().flatten().collect();
            assert_eq!(left.len(), 1, "attack {index} wrote outside");
            assert_eq!(fs::read(outside.join("kept")).unwrap(), b"kept", "attack {index}");
            let mode = fs::metadata(&outside).unwrap().mode() & 0o777;
            assert_ne!(mode, 0o644, "attack {index} changed the mode outside");
        }
    }
}
