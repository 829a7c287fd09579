//! One layer: a tar stream of hostile origin laid over the tree, its file contents appended to the
//! image. Everything that a layer can make large is bounded here.

use std::io::{self, Read};

use tar::{EntryType, Header};

use crate::artifact::erofs::{self, DataArea};
use crate::artifact::oci::ImageError;
use crate::artifact::oci::pax::{self, Overrides, Sparse};
use crate::artifact::tree::{Extent, Folder, Meta, Node, PATH_LEN_MAX, PathError, Tree};

/// Bytes of a tar record.
const RECORD_LEN: u64 = 512;
/// Bytes of a PAX header: a full set of attributes and two long paths have room.
const PAX_LEN_MAX: u64 = 1 << 20;
/// Whiteouts (OCI image specification, layer.md).
const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// AUFS's own names (".wh..wh.plnk" and others): no content of the image.
const AUFS_PREFIX: &[u8] = b".wh..wh.";

/// What one image may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Inodes that all layers make.
    pub inodes_max: usize,
    /// Bytes of all files as they look in the guest, holes and replaced ones included.
    pub bytes_max: u64,
    /// Bytes of all extended attributes.
    pub xattr_bytes_max: usize,
    /// What a layer may unpack to whatever its size; beyond this it may not be a bomb.
    pub bomb_bytes_min: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            inodes_max: 500_000,
            bytes_max: 64 << 30,
            xattr_bytes_max: 64 << 20,
            bomb_bytes_min: 1 << 30,
        }
    }
}

/// What is wrong with a layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// An entry has no place in the image.
    #[error("the entry {name:?} {error}")]
    Path {
        /// Its name, made printable.
        name: String,
        /// Why.
        error: PathError,
    },
    /// An entry breaks the format.
    #[error("the entry {name:?} {reason}")]
    Entry {
        /// Its name, made printable.
        name: String,
        /// How.
        reason: &'static str,
    },
    /// The stream is no tar.
    #[error("the layer is no tar archive: {0}")]
    Format(&'static str),
    /// The stream ends in the middle.
    #[error("the layer ends in the middle of {0}")]
    Truncated(String),
    /// A limit is reached.
    #[error("the image has more than {0}")]
    Limit(String),
    /// The layer cannot be read, or the image not be written.
    #[error("read or write")]
    Io(#[source] io::Error),
}

/// What layers are laid into.
#[derive(Debug)]
pub struct Target {
    /// Names and attributes.
    pub tree: Tree,
    /// Contents.
    pub data: DataArea,
    limits: Limits,
    bytes: u64,
    xattr_bytes: usize,
}

impl Target {
    /// An empty tree over an empty image.
    pub fn new(data: DataArea, limits: Limits) -> Target {
        Target { tree: Tree::default(), data, limits, bytes: 0, xattr_bytes: 0 }
    }

    /// Lays a layer over what is there. Reads `stream` to its end.
    ///
    /// # Errors
    /// [`LayerError`]; the target is of no more use then.
    pub fn apply(&mut self, stream: &mut impl Read) -> Result<(), LayerError> {
        self.tree.begin_layer();
        while let Some((kind, entry)) = next_entry(stream)? {
            self.enter(stream, kind, entry)?;
        }
        let dead = self.tree.take_dead();
        self.data.discard(&dead).map_err(LayerError::Io)?;
        io::copy(stream, &mut io::sink()).map(drop).map_err(|error| broken(error, "its padding"))
    }

    fn enter(
        &mut self,
        stream: &mut impl Read,
        kind: EntryType,
        entry: Entry,
    ) -> Result<(), LayerError> {
        let Entry { path, link, meta, size, sparse, device } = entry;
        let (folder, name) = split(&path);
        let at = |error| LayerError::Path { name: printable(&path), error };
        let refuse = |reason| LayerError::Entry { name: printable(&path), reason };
        let is_file =
            matches!(kind, EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse);
        if name == OPAQUE {
            skip(stream, size, &path)?;
            return self.tree.white_out_all(folder).map_err(at);
        }
        if name.starts_with(WHITEOUT_PREFIX) {
            skip(stream, size, &path)?;
            if name.starts_with(AUFS_PREFIX) {
                return Ok(());
            }
            return self.tree.white_out(folder, &name[WHITEOUT_PREFIX.len()..]).map_err(at);
        }
        self.count(&meta)?;
        let node = match kind {
            // A folder of archives older than ustar.
            EntryType::Regular if path.ends_with(b"/") => Node::Folder(Folder::default()),
            _ if is_file => Node::File(self.contents(stream, size, sparse, &path)?),
            EntryType::Directory => Node::Folder(Folder::default()),
            EntryType::Symlink if link.is_empty() => return Err(refuse("is a link to nothing")),
            EntryType::Symlink if PATH_LEN_MAX < link.len() || link.contains(&0) => {
                return Err(refuse("has a link target that no path can be"));
            }
            EntryType::Symlink => Node::Symlink(link),
            EntryType::Char => Node::CharDevice(device.0, device.1),
            EntryType::Block => Node::BlockDevice(device.0, device.1),
            EntryType::Fifo => Node::Fifo,
            EntryType::Link => {
                skip(stream, size, &path)?;
                return self.tree.link(&path, &link).map_err(at);
            }
            _ => return Err(refuse("is of a kind that no file system has")),
        };
        if !matches!(node, Node::File(_)) {
            skip(stream, size, &path)?;
        }
        self.tree.put(&path, meta, node).map_err(at)
    }

    fn count(&mut self, meta: &Meta) -> Result<(), LayerError> {
        if self.limits.inodes_max <= self.tree.inodes_made() {
            return Err(LayerError::Limit(format!("{} entries", self.limits.inodes_max)));
        }
        self.xattr_bytes += meta.xattrs.iter().map(|(n, v)| n.len() + v.len()).sum::<usize>();
        if self.limits.xattr_bytes_max < self.xattr_bytes {
            let max = self.limits.xattr_bytes_max;
            return Err(LayerError::Limit(format!("{max} bytes of extended attributes")));
        }
        Ok(())
    }

    /// Appends a file's contents; `stored` bytes of the stream are its.
    fn contents(
        &mut self,
        stream: &mut impl Read,
        stored: u64,
        sparse: Option<Sparse>,
        path: &[u8],
    ) -> Result<Extent, LayerError> {
        let refuse = |reason| LayerError::Entry { name: printable(path), reason };
        let map = sparse.unwrap_or_else(|| Sparse::whole(stored));
        self.bytes = self.bytes.saturating_add(map.len);
        if self.limits.bytes_max < self.bytes {
            let gib = self.limits.bytes_max >> 30;
            return Err(LayerError::Limit(format!("{gib} GiB of files")));
        }
        let mut rest = stream.take(stored);
        let parts = match map.in_data {
            true => pax::map_in_data(&mut rest).map_err(|error| broken(error, &name(path)))?,
            false => map.parts,
        };
        let block = self.data.begin().map_err(LayerError::Io)?;
        let mut at = 0u64;
        for (offset, len) in parts {
            let end = offset.checked_add(len).filter(|end| at <= offset && *end <= map.len);
            let end = end.ok_or_else(|| refuse("has a map of holes that makes no sense"))?;
            self.data.skip(offset - at).map_err(LayerError::Io)?;
            self.data.copy(&mut rest, len).map_err(|error| broken(error, &name(path)))?;
            at = end;
        }
        self.data.skip(map.len - at).map_err(LayerError::Io)?;
        self.data.end().map_err(LayerError::Io)?;
        let unread = rest.limit();
        skip_exactly(stream, unread + padding(stored), path)?;
        Ok(Extent { block, len: map.len })
    }
}

/// An entry's header with its extensions applied.
struct Entry {
    path: Vec<u8>,
    link: Vec<u8>,
    meta: Meta,
    /// Bytes in the stream.
    size: u64,
    sparse: Option<Sparse>,
    device: (u32, u32),
}

impl Entry {
    fn new(header: &Header, pax: Overrides) -> Result<Entry, LayerError> {
        let path = pax.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let refuse = |reason| LayerError::Entry { name: printable(&path), reason };
        // A field that was never filled in means zero.
        let fields = header.as_old();
        let number = |pax: Option<u64>, own: io::Result<u64>, field: &[u8], reason| match (pax, own)
        {
            (Some(value), _) | (None, Ok(value)) => Ok(value),
            _ if field.iter().all(|byte| matches!(byte, 0 | b' ')) => Ok(0),
            _ => Err(refuse(reason)),
        };
        let id = |pax, own, field: &[u8], reason| {
            u32::try_from(number(pax, own, field, reason)?).map_err(|_| refuse(reason))
        };
        let link = header.link_name_bytes().map(|name| name.into_owned());
        let (mtime_s, mtime_ns) = match pax.mtime {
            Some(time) => time,
            None => {
                let seconds = number(None, header.mtime(), &fields.mtime, "has no time")?;
                (seconds.cast_signed(), 0)
            }
        };
        let mode =
            number(None, header.mode().map(u64::from), &fields.mode, "has no mode")? & 0o7777;
        let known = |(name, _): &(Vec<u8>, Vec<u8>)| {
            // Overlayfs's own marks would change what the layers below look like.
            erofs::xattr_is_known(name) && !name.starts_with(b"trusted.overlay.")
        };
        let mut xattrs = pax.xattrs;
        xattrs.retain(known);
        xattrs.sort();
        let major = header.device_major().ok().flatten().unwrap_or(0);
        let minor = header.device_minor().ok().flatten().unwrap_or(0);
        // What Linux's own encoding of a device number can hold.
        if 0xfff < major || 0xf_ffff < minor {
            return Err(refuse("has a device number that Linux has not"));
        }
        Ok(Entry {
            link: pax.link.or(link).unwrap_or_default(),
            meta: Meta {
                mode: u16::try_from(mode).unwrap_or(0),
                uid: id(pax.uid, header.uid(), &fields.uid, "has no owner that Linux has")?,
                gid: id(pax.gid, header.gid(), &fields.gid, "has no group that Linux has")?,
                mtime_s,
                mtime_ns,
                xattrs,
            },
            size: number(pax.size, header.entry_size(), &fields.size, "has no size")?,
            sparse: pax.sparse.build(),
            device: (major, minor),
            path,
        })
    }
}

/// Gets kind, name, link and data of a file.
type EachFile<'a> =
    dyn FnMut(EntryType, String, String, &mut dyn Read) -> Result<(), ImageError> + 'a;

/// Reads an archive that is no layer: calls `each` with kind, name, link and data of its files and
/// links.
///
/// # Errors
/// The archive's, and those of `each`.
pub fn each_file(mut stream: &mut dyn Read, each: &mut EachFile<'_>) -> Result<(), ImageError> {
    let refuse = |error: LayerError| match error {
        LayerError::Io(error) => ImageError::io("read the archive")(error),
        other => ImageError::Invalid(other.to_string()),
    };
    while let Some((kind, entry)) = next_entry(&mut stream).map_err(refuse)? {
        let mut data = (&mut stream).take(entry.size);
        if matches!(kind, EntryType::Regular | EntryType::Symlink | EntryType::Link) {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            each(kind, text(&entry.path), text(&entry.link), &mut data)?;
        }
        let unread = data.limit();
        skip_exactly(&mut stream, unread + padding(entry.size), &entry.path).map_err(refuse)?;
    }
    Ok(())
}

/// The next entry with what extended headers say about it; none at the end of the archive.
fn next_entry(stream: &mut impl Read) -> Result<Option<(EntryType, Entry)>, LayerError> {
    let mut pending = Overrides::default();
    while let Some(header) = read_header(stream)? {
        let kind = header.entry_type();
        match kind {
            EntryType::XHeader => pax::read(&extension(stream, &header)?, &mut pending)?,
            EntryType::GNULongName => pending.path = Some(long_name(stream, &header)?),
            EntryType::GNULongLink => pending.link = Some(long_name(stream, &header)?),
            EntryType::XGlobalHeader => drop(extension(stream, &header)?),
            _ => {
                let mut entry = Entry::new(&header, pending)?;
                if kind == EntryType::GNUSparse {
                    entry.sparse = Some(pax::gnu_map(&header, stream)?);
                }
                return Ok(Some((kind, entry)));
            }
        }
    }
    Ok(None)
}

/// The next header; none at the end of the archive. A stream may end without the two empty records.
fn read_header(stream: &mut impl Read) -> Result<Option<Header>, LayerError> {
    let mut bytes = [0; 512];
    let mut have = 0;
    while have < bytes.len() {
        match stream.read(&mut bytes[have..]) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(LayerError::Truncated("a header".to_owned())),
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(broken(error, "a header")),
        }
    }
    if bytes == [0; 512] {
        return Ok(None);
    }
    let header = Header::from_byte_slice(&bytes).clone();
    // The field itself counts as eight spaces (POSIX pax, "ustar Header Block").
    let sum = bytes.iter().enumerate().map(|(at, byte)| {
        if (148..156).contains(&at) { u32::from(b' ') } else { u32::from(*byte) }
    });
    if header.cksum().ok() != Some(sum.sum()) {
        return Err(LayerError::Format("a header's checksum is wrong"));
    }
    Ok(Some(header))
}

fn extension(stream: &mut impl Read, header: &Header) -> Result<Vec<u8>, LayerError> {
    let size = header.entry_size().map_err(|_| LayerError::Format("a header without a size"))?;
    if PAX_LEN_MAX < size {
        return Err(LayerError::Format("an extended header is too long"));
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    stream.read_exact(&mut bytes).map_err(|error| broken(error, "an extended header"))?;
    skip_exactly(stream, padding(size), b"an extended header")?;
    Ok(bytes)
}

fn long_name(stream: &mut impl Read, header: &Header) -> Result<Vec<u8>, LayerError> {
    let mut bytes = extension(stream, header)?;
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(bytes)
}

fn padding(size: u64) -> u64 {
    (RECORD_LEN - size % RECORD_LEN) % RECORD_LEN
}

/// Passes over the contents of an entry that has none for us.
fn skip(stream: &mut impl Read, size: u64, path: &[u8]) -> Result<(), LayerError> {
    skip_exactly(stream, size, path)?;
    skip_exactly(stream, padding(size), path)
}

fn skip_exactly(stream: &mut impl Read, count: u64, path: &[u8]) -> Result<(), LayerError> {
    let skipped = io::copy(&mut stream.take(count), &mut io::sink());
    match skipped {
        Ok(skipped) if skipped == count => Ok(()),
        Ok(_) => Err(LayerError::Truncated(name(path))),
        Err(error) => Err(broken(error, &name(path))),
    }
}

fn broken(error: io::Error, place: &str) -> LayerError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => LayerError::Truncated(place.to_owned()),
        _ => LayerError::Io(error),
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    match path.iter().rposition(|c| *c == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

fn name(path: &[u8]) -> String {
    format!("{:?}", printable(path))
}

/// A name for a message: short, and nothing that could move a cursor.
fn printable(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    text.chars().map(|c| if c.is_control() { '?' } else { c }).take(200).collect()
}
