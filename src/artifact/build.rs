//! Artifacts made of files that a client has packed: an initramfs with the agent, or a root over an
//! image. Same inputs, same bytes: no clock, no host, no order but that of the archive. Blocks.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path};

use cpio::NewcBuilder;
use sha2::{Digest as _, Sha256};
use tar::EntryType;

use crate::artifact::initramfs::{FOLDERS, LINKS, base};
use crate::artifact::oci::{Compression, ImageError, Layer, Limits, build_root};
use crate::model::Digest;

/// The archive's first entry.
const VOLANTFILE: &str = "Volantfile";
/// Bytes of it.
const VOLANTFILE_LEN_MAX: u64 = 1 << 20;
const RECORD_LEN: u64 = 512;
/// Bytes of a long name, or of extended records.
const RECORDS_LEN_MAX: u64 = 64 << 10;
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;
/// Entries of one archive.
const ENTRIES_MAX: usize = 200_000;

fn invalid(text: impl Into<String>) -> ImageError {
    ImageError::Invalid(text.into())
}

/// The Volantfile at the begin of an archive; what follows is left for the other functions.
///
/// # Errors
/// There is none.
pub fn volantfile(archive: &mut File) -> Result<Vec<u8>, ImageError> {
    let mut record = [0; 512];
    let lacks = |_| invalid("the archive does not begin with a Volantfile");
    archive.read_exact(&mut record).map_err(lacks)?;
    let header = tar::Header::from_byte_slice(&record);
    let named = header.path().is_ok_and(|path| path.as_ref() == Path::new(VOLANTFILE));
    let len = header.entry_size().unwrap_or(u64::MAX);
    if !named || header.entry_type() != EntryType::Regular || VOLANTFILE_LEN_MAX < len {
        return Err(invalid("the archive does not begin with a Volantfile"));
    }
    let mut text = vec![0; usize::try_from(len).unwrap_or(0)];
    archive.read_exact(&mut text).map_err(lacks)?;
    let padding = len.next_multiple_of(RECORD_LEN) - len;
    let skipped = archive.seek(SeekFrom::Current(i64::try_from(padding).unwrap_or(0)));
    skipped.map_err(ImageError::io("read an archive"))?;
    Ok(text)
}

/// Writes an initramfs: the default one with the files of `archive` in it.
///
/// # Errors
/// What is wrong with the archive; the host's.
pub fn initramfs(
    volary: &Path,
    busybox: Option<&Path>,
    archive: &mut File,
    mut out: impl Write,
) -> Result<(), ImageError> {
    let step = || ImageError::io("write an initramfs");
    let (bytes, mut inode) = base(volary, busybox)?;
    out.write_all(&bytes).map_err(step())?;
    let links = LINKS.iter().map(|(name, _)| *name);
    let mut folders: BTreeSet<String> =
        FOLDERS.iter().copied().chain(links).map(str::to_owned).collect();
    let mut add =
        |out: &mut dyn Write, name: &str, mode, owner: (u32, u32), len, data: &mut dyn Read| {
            inode += 1;
            let entry =
                NewcBuilder::new(name).ino(inode).mode(mode).nlink(1).uid(owner.0).gid(owner.1);
            let mut writer = entry.write(out, len);
            io::copy(data, &mut writer)?;
            writer.finish().map(drop)
        };
    let broken = |error: io::Error| invalid(format!("the archive cannot be read: {error}"));
    bounded(archive).map_err(broken)?;
    let mut archive = tar::Archive::new(archive);
    for (count, entry) in archive.entries().map_err(broken)?.enumerate() {
        let mut entry = entry.map_err(broken)?;
        let path = clean(&entry.path().map_err(broken)?)?;
        if ENTRIES_MAX <= count || path == "init" {
            return Err(invalid("too many files, or one in the place of the agent"));
        }
        let header = entry.header();
        let mode = header.mode().map_err(broken)? & 0o7777;
        let id = |id: io::Result<u64>| {
            u32::try_from(id.map_err(broken)?).map_err(|_| invalid("an owner"))
        };
        let owner = (id(header.uid())?, id(header.gid())?);
        let parents: Vec<_> =
            path.match_indices('/').map(|(at, _)| path[..at].to_owned()).collect();
        for parent in parents {
            if folders.insert(parent.clone()) {
                add(&mut out, &parent, S_IFDIR | 0o755, (0, 0), 0, &mut io::empty())
                    .map_err(step())?;
            }
        }
        let kind = header.entry_type();
        let written = match kind {
            EntryType::Directory if folders.insert(path.clone()) => {
                add(&mut out, &path, S_IFDIR | mode, owner, 0, &mut io::empty())
            }
            EntryType::Directory => Ok(()),
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                let len = u32::try_from(target.len()).unwrap_or(u32::MAX);
                add(&mut out, &path, S_IFLNK | 0o777, owner, len, &mut target.as_slice())
            }
            EntryType::Regular => {
                let len = u32::try_from(entry.size()).map_err(|_| invalid("a file over 4 GiB"))?;
                add(&mut out, &path, S_IFREG | mode, owner, len, &mut entry)
            }
            _ => return Err(invalid(format!("{path}: neither file, folder nor link"))),
        };
        written.map_err(step())?;
    }
    cpio::newc::trailer(&mut out).map_err(step())?;
    out.flush().map_err(step())
}

/// Looks at the records that tell of the next entry, which are held in memory as a whole, and goes back.
fn bounded(archive: &mut File) -> io::Result<()> {
    let begin = archive.stream_position()?;
    for entry in tar::Archive::new(&mut *archive).entries()?.raw(true) {
        let header = entry?.header().clone();
        let kind = header.entry_type();
        let is_held = kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions();
        if is_held && RECORDS_LEN_MAX < header.entry_size()? {
            return Err(io::Error::other("a name or record that is too long"));
        }
    }
    archive.seek(SeekFrom::Start(begin)).map(drop)
}

fn clean(path: &Path) -> Result<String, ImageError> {
    let wrong = || invalid(format!("{}: no path below the root", path.display()));
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::CurDir | Component::RootDir => {}
            Component::Normal(part) => parts.push(part.to_str().ok_or_else(wrong)?),
            Component::ParentDir | Component::Prefix(_) => return Err(wrong()),
        }
    }
    if parts.is_empty() { Err(wrong()) } else { Ok(parts.join("/")) }
}

/// Writes a root of `layers` with the files of `archive` over them. `spare` is an empty file.
///
/// # Errors
/// As of an image.
pub fn rootfs(
    mut layers: Vec<Layer>,
    archive: &mut File,
    mut spare: File,
    (out, limits): (File, Limits),
    progress: &dyn Fn(u64) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let step = || ImageError::io("pack a layer");
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 18]);
    loop {
        let count = archive.read(&mut buffer).map_err(step())?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        spare.write_all(&buffer[..count]).map_err(step())?;
    }
    spare.rewind().map_err(step())?;
    let diff_id = Digest(hash.finalize().into());
    layers.push(Layer { file: spare, compression: Compression::None, diff_id });
    build_root(layers, out, limits, progress).map(drop)
}

/// What a file is called by its contents.
///
/// # Errors
/// The host's.
pub fn digest_of(file: &mut File) -> Result<Digest, ImageError> {
    let step = || ImageError::io("read what was built");
    file.rewind().map_err(step())?;
    let mut hash = Sha256::new();
    io::copy(file, &mut hash).map_err(step())?;
    Ok(Digest(hash.finalize().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, EntryType, &str)]) -> File {
        let mut tar = tar::Builder::new(tempfile::tempfile().unwrap());
        for (name, kind, data) in entries {
            let mut header = tar::Header::new_ustar();
            let bytes = name.as_bytes();
            header.as_ustar_mut().unwrap().name[..bytes.len()].copy_from_slice(bytes);
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            header.set_uid(0);
            header.set_gid(0);
            let has_data = !matches!(kind, EntryType::Symlink | EntryType::Directory);
            header.set_size(if has_data { data.len() as u64 } else { 0 });
            if *kind == EntryType::Symlink {
                header.set_link_name(data).unwrap();
            }
            header.set_cksum();
            let data = if has_data { *data } else { "" };
            tar.append(&header, data.as_bytes()).unwrap();
        }
        let mut file = tar.into_inner().unwrap();
        file.rewind().unwrap();
        file
    }

    fn build(entries: &[(&str, EntryType, &str)]) -> Result<Vec<u8>, String> {
        let folder = tempfile::tempdir().unwrap();
        let volary = folder.path().join("volary");
        std::fs::write(&volary, "agent").unwrap();
        let mut archive = archive(entries);
        assert_eq!(volantfile(&mut archive).map_err(|e| e.to_string())?, b"text");
        let mut out = Vec::new();
        initramfs(&volary, None, &mut archive, &mut out).map_err(|error| error.to_string())?;
        Ok(out)
    }

    fn names(image: &[u8]) -> Vec<String> {
        let (mut rest, mut names) = (image, Vec::new());
        loop {
            let reader = cpio::newc::Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                return names;
            }
            names.push(reader.entry().name().to_owned());
            rest = reader.finish().unwrap();
        }
    }

    const FIRST: (&str, EntryType, &str) = ("Volantfile", EntryType::Regular, "text");

    #[test]
    fn the_agent_and_the_files_are_in_it_and_it_is_the_same_again() {
        let entries = [
            FIRST,
            ("srv/app/run", EntryType::Regular, "program"),
            ("srv/app/link", EntryType::Symlink, "run"),
            ("usr/bin/tool", EntryType::Regular, "x"),
            ("usr/bin", EntryType::Directory, ""),
        ];
        let image = build(&entries).unwrap();
        assert_eq!(build(&entries).unwrap(), image);
        let names = names(&image);
        assert_eq!(names.iter().filter(|name| *name == "init").count(), 1);
        let own: Vec<_> = names.iter().skip_while(|name| !name.starts_with("srv")).collect();
        assert_eq!(own, ["srv", "srv/app", "srv/app/run", "srv/app/link", "usr/bin/tool"]);
    }

    #[test]
    fn what_has_no_place_is_refused() {
        let table = [
            (("../x", EntryType::Regular, "x"), "no path"),
            (("a/../../x", EntryType::Regular, "x"), "no path"),
            (("init", EntryType::Regular, "x"), "agent"),
            (("/init", EntryType::Regular, "x"), "agent"),
            (("dev/sda", EntryType::Block, ""), "neither"),
            (("x", EntryType::Link, ""), "neither"),
        ];
        for (entry, reason) in table {
            let error = build(&[FIRST, entry]).unwrap_err();
            assert!(error.contains(reason), "{entry:?}: {error}");
        }
        assert!(build(&[("other", EntryType::Regular, "text")]).is_err());
        let long = "x".repeat((64 << 10) + 1);
        for kind in [EntryType::GNULongName, EntryType::XHeader] {
            let error = build(&[FIRST, ("long", kind, &long)]).unwrap_err();
            assert!(error.contains("too long"), "{error}");
        }
    }
}
