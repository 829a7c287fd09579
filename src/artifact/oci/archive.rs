//! Imports: what `docker save`, `skopeo copy` and `umoci` write into one file. Every blob goes into
//! the store under its own digest; the documents in the archive then lead to an image.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use serde::Deserialize;
use tar::EntryType;

use crate::artifact::oci::document::{
    Compression, DOCUMENT_LEN_MAX, Descriptor, Document, Manifest, OCI_CONFIG, OCI_LAYER,
    OCI_MANIFEST, choose, json,
};
use crate::artifact::oci::{ImageError, layer, unpack};
use crate::model::Digest;

/// Files in one archive: a handful for each of 127 layers.
const FILES_MAX: usize = 4096;
/// Where container tools keep an image's name.
const NAME_ANNOTATIONS: [&str; 2] =
    ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// Where blobs go.
pub trait BlobSink {
    /// Stores what `blob` yields, under its digest.
    ///
    /// # Errors
    /// It cannot be read or stored.
    fn store(&self, blob: &mut dyn Read) -> Result<(Digest, u64), ImageError>;

    /// A small blob that is stored.
    ///
    /// # Errors
    /// It is not there, or larger than a document.
    fn document(&self, digest: Digest) -> Result<Vec<u8>, ImageError>;
}

/// An image in an archive.
#[derive(Debug)]
pub struct Imported {
    /// The name in the archive, if it has one.
    pub name: Option<String>,
    /// Digest of its manifest, which is in the store as everything that it refers to is.
    pub manifest: Digest,
}

/// How the bytes at the begin of a file are packed.
///
/// # Errors
/// The file cannot be read.
pub fn sniff(file: &mut File) -> io::Result<Compression> {
    let mut magic = [0; 4];
    let mut have = 0;
    while have < magic.len() {
        match file.read(&mut magic[have..])? {
            0 => break,
            count => have += count,
        }
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(compression_of(&magic))
}

fn compression_of(magic: &[u8]) -> Compression {
    match magic {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        _ => Compression::None,
    }
}

/// Reads an archive into the store and finds the images in it.
///
/// # Errors
/// [`ImageError`].
pub fn import(mut file: File, sink: &dyn BlobSink) -> Result<Vec<Imported>, ImageError> {
    let compression = sniff(&mut file).map_err(ImageError::io("look at the archive"))?;
    let stream = unpack(BufReader::with_capacity(1 << 18, file), compression);
    let mut stream = stream.map_err(ImageError::io("unpack the archive"))?;
    let files = Files::read(&mut *stream, sink)?;
    if let Some(index) = files.document("index.json", sink)? {
        return files.oci(&index, sink);
    }
    if let Some(list) = files.document("manifest.json", sink)? {
        return files.docker(&list, sink);
    }
    Err(ImageError::invalid("the archive holds neither index.json nor manifest.json"))
}

/// A file of the archive: its digest and length, or the name that it is a link to.
#[derive(Clone, Debug)]
enum Stored {
    Blob { digest: Digest, len: u64, compression: Compression },
    Link(String),
}

#[derive(Debug, Default)]
struct Files(BTreeMap<String, Stored>);

impl Files {
    fn read(stream: &mut dyn Read, sink: &dyn BlobSink) -> Result<Files, ImageError> {
        let mut files = Files::default();
        layer::each_file(stream, &mut |kind, name, link, data| {
            if FILES_MAX <= files.0.len() {
                return Err(ImageError::invalid(format!("more than {FILES_MAX} files")));
            }
            let stored = match kind {
                EntryType::Symlink | EntryType::Link => Stored::Link(resolve(&name, kind, &link)),
                _ => {
                    let mut sniffed = Sniffed { inner: data, head: Vec::new() };
                    let (digest, len) = sink.store(&mut sniffed)?;
                    Stored::Blob { digest, len, compression: compression_of(&sniffed.head) }
                }
            };
            files.0.insert(clean(&name), stored);
            Ok(())
        })?;
        Ok(files)
    }

    /// A file by its name, links followed.
    fn find(&self, name: &str) -> Option<(Digest, u64, Compression)> {
        let mut name = clean(name);
        for _ in 0..8 {
            match self.0.get(&name)? {
                Stored::Blob { digest, len, compression } => {
                    return Some((*digest, *len, *compression));
                }
                Stored::Link(target) => name = clean(target),
            }
        }
        None
    }

    fn document(&self, name: &str, sink: &dyn BlobSink) -> Result<Option<Vec<u8>>, ImageError> {
        self.find(name).map(|(digest, ..)| sink.document(digest)).transpose()
    }

    /// A blob of an OCI layout, which is stored under the digest that it is called by.
    fn blob(&self, descriptor: &Descriptor) -> Result<Digest, ImageError> {
        let digest = descriptor.digest()?;
        let found = self.find(&format!("blobs/sha256/{}", digest.hex()));
        let missing = || ImageError::invalid(format!("{digest} is not in the archive"));
        let (found, len, _) = found.ok_or_else(missing)?;
        if found != digest {
            let what = "a file of the archive".to_owned();
            return Err(ImageError::Digest { what, expected: digest, found });
        }
        if len != descriptor.size {
            return Err(ImageError::invalid(format!("{digest} has {len} bytes, not as announced")));
        }
        Ok(digest)
    }

    fn oci(&self, index: &[u8], sink: &dyn BlobSink) -> Result<Vec<Imported>, ImageError> {
        let Document::Index(manifests) = Document::parse(index, Some(super::OCI_INDEX))? else {
            return Err(ImageError::MediaType("index.json is no index".to_owned()));
        };
        let mut images = Vec::new();
        for descriptor in &manifests {
            let annotation = |key: &&str| descriptor.annotations.get(*key).cloned();
            let name = NAME_ANNOTATIONS.iter().find_map(annotation);
            let mut manifest = self.blob(descriptor)?;
            let mut document = Document::parse(&sink.document(manifest)?, None)?;
            if let Document::Index(inner) = &document {
                manifest = self.blob(choose(inner)?)?;
                document = Document::parse(&sink.document(manifest)?, None)?;
            }
            let Document::Manifest(parsed) = document else {
                return Err(ImageError::invalid("an index in an index in an index"));
            };
            self.blob(&parsed.config)?;
            parsed.layers.iter().try_for_each(|layer| self.blob(layer).map(drop))?;
            images.push(Imported { name, manifest });
        }
        Ok(images)
    }

    /// `docker save` before it wrote OCI layouts: a manifest is made of what is there.
    fn docker(&self, list: &[u8], sink: &dyn BlobSink) -> Result<Vec<Imported>, ImageError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Saved {
            config: String,
            #[serde(default)]
            repo_tags: Option<Vec<String>>,
            layers: Vec<String>,
        }
        let saved: Vec<Saved> = json(list, "manifest.json")?;
        let mut images = Vec::new();
        for Saved { config, repo_tags, layers } in saved {
            let describe = |name: &String, kind: &dyn Fn(Compression) -> String| {
                let missing = || ImageError::invalid(format!("{name:.200?} is not in the archive"));
                let (digest, size, compression) = self.find(name).ok_or_else(missing)?;
                Ok::<_, ImageError>(Descriptor {
                    media_type: kind(compression),
                    digest: digest.to_string(),
                    size,
                    platform: None,
                    annotations: BTreeMap::new(),
                })
            };
            let layer = |compression| match compression {
                Compression::None => OCI_LAYER.to_owned(),
                Compression::Gzip => format!("{OCI_LAYER}+gzip"),
                Compression::Zstd => format!("{OCI_LAYER}+zstd"),
            };
            let layers = layers.iter().map(|name| describe(name, &layer));
            let manifest = Manifest {
                schema_version: 2,
                media_type: Some(OCI_MANIFEST.to_owned()),
                layers: layers.collect::<Result<_, _>>()?,
                config: describe(&config, &|_| OCI_CONFIG.to_owned())?,
            };
            let text = serde_json::to_vec(&manifest)
                .map_err(|error| ImageError::invalid(error.to_string()))?;
            Document::parse(&text, None)?;
            let (manifest, _) = sink.store(&mut text.as_slice())?;
            images.push(Imported {
                name: repo_tags.and_then(|tags| tags.into_iter().next()),
                manifest,
            });
        }
        Ok(images)
    }
}

/// Remembers the first bytes.
struct Sniffed<'a> {
    inner: &'a mut dyn Read,
    head: Vec<u8>,
}

impl Read for Sniffed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let room = 4usize.saturating_sub(self.head.len()).min(count);
        self.head.extend(&buffer[..room]);
        Ok(count)
    }
}

/// Names are keys of a map only; no file of the host is ever called so.
fn clean(name: &str) -> String {
    name.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>().join("/")
}

/// The name that a link means: a symlink's is relative to its own folder.
fn resolve(name: &str, kind: EntryType, target: &str) -> String {
    if kind == EntryType::Link || target.starts_with('/') {
        return target.to_owned();
    }
    let cleaned = clean(name);
    let mut parts: Vec<&str> = cleaned.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

const _: () = assert!(DOCUMENT_LEN_MAX < 1 << 24, "documents are held in memory");
