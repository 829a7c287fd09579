//! Extensions of tar headers: PAX records, and maps of sparse files in GNU's three ways.

use std::io::{self, Read};

use tar::{GnuExtSparseHeader, Header};

use crate::artifact::oci::layer::LayerError;

/// Extended attributes, as Docker, umoci and GNU tar write them.
const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";
/// Attributes of one entry, and bytes of one name and value (Linux: XATTR_NAME_MAX, XATTR_SIZE_MAX,
/// the latter less one: EROFS counts in 16 bits).
const XATTRS_MAX: usize = 64;
const XATTR_NAME_LEN_MAX: usize = 255;
const XATTR_VALUE_LEN_MAX: usize = 65_535;
/// Bytes of a number in a map that is part of the data.
const MAP_LINE_LEN_MAX: usize = 24;
/// Parts of a map.
const PARTS_MAX: u64 = 65_536;

/// What extended headers say about the next entry.
#[derive(Debug, Default)]
pub struct Overrides {
    /// Its name.
    pub path: Option<Vec<u8>>,
    /// Its link target.
    pub link: Option<Vec<u8>>,
    /// Bytes in the stream.
    pub size: Option<u64>,
    /// Owner.
    pub uid: Option<u64>,
    /// Group.
    pub gid: Option<u64>,
    /// Seconds and nanoseconds.
    pub mtime: Option<(i64, u32)>,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether and how it is sparse.
    pub sparse: SparseRecords,
}

/// `GNU.sparse.*`.
#[derive(Debug, Default)]
pub struct SparseRecords {
    major: Option<u64>,
    len: Option<u64>,
    map: Option<Vec<u64>>,
}

/// A file with holes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sparse {
    /// Offset and length of what is not a hole.
    pub parts: Vec<(u64, u64)>,
    /// Bytes of the file.
    pub len: u64,
    /// The map is at the begin of the entry's data (GNU tar's version 1.0).
    pub in_data: bool,
}

impl Sparse {
    /// A file without holes.
    pub fn whole(len: u64) -> Sparse {
        Sparse { parts: vec![(0, len)], len, in_data: false }
    }
}

impl SparseRecords {
    /// The map that the records describe.
    pub fn build(self) -> Option<Sparse> {
        let len = self.len?;
        match (self.major, self.map) {
            (Some(1), _) => Some(Sparse { parts: Vec::new(), len, in_data: true }),
            (_, Some(map)) => {
                let parts = map.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
                Some(Sparse { parts, len, in_data: false })
            }
            _ => None,
        }
    }
}

/// Reads the records `LENGTH KEY=VALUE\n` of an extended header.
///
/// # Errors
/// It breaks the format or a limit.
pub fn read(bytes: &[u8], out: &mut Overrides) -> Result<(), LayerError> {
    let wrong = || LayerError::Format("an extended header makes no sense");
    let mut rest = bytes;
    while !rest.is_empty() && rest[0] != 0 {
        let space = rest.iter().position(|c| *c == b' ').ok_or_else(wrong)?;
        let len = decimal(&rest[..space]).and_then(|len| usize::try_from(len).ok());
        let len = len.filter(|len| space + 2 <= *len && *len <= rest.len()).ok_or_else(wrong)?;
        let record = rest[space + 1..len].strip_suffix(b"\n").ok_or_else(wrong)?;
        let equals = record.iter().position(|c| *c == b'=').ok_or_else(wrong)?;
        take(&record[..equals], &record[equals + 1..], out)?;
        rest = &rest[len..];
    }
    Ok(())
}

fn take(key: &[u8], value: &[u8], out: &mut Overrides) -> Result<(), LayerError> {
    let wrong = || LayerError::Format("a number in an extended header makes no sense");
    let number = || decimal(value).ok_or_else(wrong);
    if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
        if XATTR_NAME_LEN_MAX < name.len() || XATTR_VALUE_LEN_MAX < value.len() {
            return Err(LayerError::Format("an extended attribute is too long"));
        }
        out.xattrs.retain(|(known, _)| known != name);
        if XATTRS_MAX <= out.xattrs.len() {
            return Err(LayerError::Format("an entry has too many extended attributes"));
        }
        out.xattrs.push((name.to_vec(), value.to_vec()));
        return Ok(());
    }
    match key {
        b"path" => out.path = Some(value.to_vec()),
        // The name that a sparse file's entry stands for; the entry's own is a made-up one.
        b"GNU.sparse.name" => out.path = Some(value.to_vec()),
        b"linkpath" => out.link = Some(value.to_vec()),
        b"size" => out.size = Some(number()?),
        b"uid" => out.uid = Some(number()?),
        b"gid" => out.gid = Some(number()?),
        b"mtime" => out.mtime = Some(time(value).ok_or_else(wrong)?),
        b"GNU.sparse.major" => out.sparse.major = Some(number()?),
        b"GNU.sparse.realsize" | b"GNU.sparse.size" => out.sparse.len = Some(number()?),
        b"GNU.sparse.map" => {
            let numbers = value.split(|c| *c == b',').map(decimal);
            out.sparse.map = Some(numbers.collect::<Option<Vec<u64>>>().ok_or_else(wrong)?);
        }
        b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
            return Err(LayerError::Format("sparse files of GNU tar's version 0.0 are not read"));
        }
        _ => {}
    }
    Ok(())
}

fn decimal(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok().filter(|text| !text.starts_with('+'))?.parse().ok()
}

/// Seconds with a fraction, perhaps before 1970.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let (whole, nanos): (i64, u32) = (seconds.parse().ok()?, digits.parse().ok()?);
    if text.starts_with('-') && 0 < nanos {
        return Some((whole.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((whole, nanos))
}

/// The map in the header of GNU tar's old form, and in the records that may follow it.
///
/// # Errors
/// It makes no sense.
pub fn gnu_map(header: &Header, stream: &mut impl Read) -> Result<Sparse, LayerError> {
    let wrong = || LayerError::Format("a sparse file's map makes no sense");
    let gnu = header.as_gnu().ok_or_else(wrong)?;
    let mut parts = Vec::new();
    let mut take = |listed: &[tar::GnuSparseHeader]| {
        for part in listed.iter().take_while(|part| !part.is_empty()) {
            let (offset, len) = (part.offset(), part.length());
            parts.push((offset.map_err(|_| wrong())?, len.map_err(|_| wrong())?));
        }
        if PARTS_MAX < parts.len() as u64 { Err(wrong()) } else { Ok(()) }
    };
    take(&gnu.sparse)?;
    let mut more = gnu.is_extended();
    while more {
        let mut record = GnuExtSparseHeader::new();
        stream.read_exact(record.as_mut_bytes()).map_err(|_| wrong())?;
        take(&record.sparse)?;
        // A record without a part could go on for ever.
        more = record.is_extended() && !record.sparse[0].is_empty();
    }
    Ok(Sparse { parts, len: gnu.real_size().map_err(|_| wrong())?, in_data: false })
}

/// The map at the begin of an entry's data: numbers, one a line, filled up to a record.
///
/// # Errors
/// `UnexpectedEof` or `InvalidData`.
pub fn map_in_data(data: &mut impl Read) -> io::Result<Vec<(u64, u64)>> {
    let mut read = 0;
    let count = line(data, &mut read)?;
    if PARTS_MAX < count {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a sparse file has too many holes"));
    }
    let mut parts = Vec::new();
    for _ in 0..count {
        parts.push((line(data, &mut read)?, line(data, &mut read)?));
    }
    let mut padding = vec![0; (512 - read % 512) % 512];
    data.read_exact(&mut padding)?;
    Ok(parts)
}

fn line(data: &mut impl Read, read: &mut usize) -> io::Result<u64> {
    let mut text = Vec::new();
    loop {
        let mut byte = [0];
        data.read_exact(&mut byte)?;
        *read += 1;
        if byte[0] == b'\n' {
            break;
        }
        text.push(byte[0]);
        if MAP_LINE_LEN_MAX < text.len() {
            break;
        }
    }
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "a sparse file's map is no number");
    decimal(&text).ok_or_else(wrong)
}
