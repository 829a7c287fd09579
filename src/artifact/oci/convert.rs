//! From layers to a read-only root: unpacks, checks, lays over each other and writes, in one pass
//! and in bounded memory. Blocks for as long as it takes.

use std::fs::File;
use std::io::{self, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use crate::artifact::erofs::{self, DataArea};
use crate::artifact::oci::ImageError;
use crate::artifact::oci::document::Compression;
use crate::artifact::oci::layer::{LayerError, Limits, Target};
use crate::model::Digest;

/// Grows when the same layers would make other bytes.
const FORMAT_VERSION: u32 = 1;
/// Bytes read from a layer at once.
const READ_LEN: usize = 1 << 18;
/// The largest window of a zstd frame, as a power of two: what `zstd --ultra` writes.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// A layer that unpacks to more than so many times its own size is a bomb.
const BOMB_RATIO: u64 = 200;

/// A layer that is here.
#[derive(Debug)]
pub struct Layer {
    /// Its bytes, whose digest has been checked.
    pub file: File,
    /// How they are packed.
    pub compression: Compression,
    /// What they are when they are unpacked.
    pub diff_id: Digest,
}

/// Names the root that these layers make.
pub fn root_digest(diff_ids: &[Digest]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(format!("volant root {FORMAT_VERSION}\n"));
    diff_ids.iter().for_each(|id| hash.update(format!("{id}\n")));
    Digest(hash.finalize().into())
}

/// Writes the root of `layers`, the lowest first, into an empty file. `progress` is told the
/// packed bytes that have been read, and ends it by an error. Its length in bytes.
///
/// # Errors
/// What is wrong with a layer, by its number; the host's refusal.
pub fn build_root(
    layers: Vec<Layer>,
    out: File,
    limits: Limits,
    progress: &dyn Fn(u64) -> Result<(), ImageError>,
) -> Result<u64, ImageError> {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id).collect();
    let mut target = Target::new(DataArea::new(out), limits);
    let mut done = 0;
    for (index, layer) in layers.into_iter().enumerate() {
        let number = index + 1;
        let packed = layer.file.metadata().map_err(ImageError::io("look at a layer"))?.len();
        let begun = done;
        let read = Counted { inner: layer.file, count: 0, each: |count| progress(begun + count) };
        let unpacked = unpack(BufReader::with_capacity(READ_LEN, read), layer.compression)
            .map_err(ImageError::io("unpack a layer"))?;
        let bomb = limits.bomb_bytes_min.max(packed.saturating_mul(BOMB_RATIO));
        let mut stream = Checked { inner: unpacked, hash: Sha256::new(), count: 0, bomb };
        target.apply(&mut stream).map_err(|error| refuse(number, error))?;
        let found = Digest(stream.hash.finalize().into());
        if found != layer.diff_id {
            let expected = layer.diff_id;
            return Err(ImageError::Digest { what: format!("layer {number}"), expected, found });
        }
        done += packed;
    }
    let root = root_digest(&diff_ids);
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&root.0[..16]);
    let written = erofs::finish(target.data, &target.tree, uuid);
    let (file, len) = written.map_err(ImageError::io("write the root"))?;
    file.sync_data().map_err(ImageError::io("sync the root"))?;
    Ok(len)
}

fn refuse(number: usize, error: LayerError) -> ImageError {
    match error {
        LayerError::Io(error) if error.get_ref().is_some_and(|inner| inner.is::<ImageError>()) => {
            error.downcast().unwrap_or_else(ImageError::io("convert a layer"))
        }
        LayerError::Io(error) if error.get_ref().is_none_or(|inner| !inner.is::<Bomb>()) => {
            match error.kind() {
                io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
                    ImageError::Layer { number, reason: format!("cannot be unpacked: {error}") }
                }
                _ => ImageError::io("convert a layer")(error),
            }
        }
        LayerError::Io(_) => ImageError::Layer { number, reason: Bomb.to_string() },
        other => ImageError::Layer { number, reason: other.to_string() },
    }
}

/// Unpacks a stream.
///
/// # Errors
/// The decoder cannot be made.
pub fn unpack<'a>(
    packed: BufReader<impl Read + 'a>,
    compression: Compression,
) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match compression {
        Compression::None => Box::new(packed),
        Compression::Gzip => Box::new(MultiGzDecoder::new(packed)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
    })
}

/// It unpacks to far more than a layer can mean.
#[derive(Debug, thiserror::Error)]
#[error("it unpacks to more than {BOMB_RATIO} times its size: a decompression bomb")]
struct Bomb;

/// Tells how much has been read, and asks whether to go on.
struct Counted<R, F: Fn(u64) -> Result<(), ImageError>> {
    inner: R,
    count: u64,
    each: F,
}

impl<R: Read, F: Fn(u64) -> Result<(), ImageError>> Read for Counted<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count += count as u64;
        (self.each)(self.count).map_err(io::Error::other)?;
        Ok(count)
    }
}

/// Hashes what passes, and stops a bomb.
struct Checked<R> {
    inner: R,
    hash: Sha256,
    count: u64,
    bomb: u64,
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.count += count as u64;
        if self.bomb < self.count {
            return Err(io::Error::other(Bomb));
        }
        Ok(count)
    }
}
