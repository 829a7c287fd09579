//! From a reference to a root in the store: documents, layers (in parallel), conversion. Whoever asks for the same thing meanwhile waits for the first one's result.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use futures_util::TryStreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::Response;
use hyper::body::Incoming;

use crate::artifact::download::{Origin, Target, download};
use crate::artifact::fetch::Fetcher;
use crate::artifact::oci::document::{Descriptor, Document, ImageConfig, Manifest, choose};
use crate::artifact::oci::registry::{Credentials, Registry};
use crate::artifact::oci::{BlobSink, ImageError, Layer, Limits, build_root, root_digest};
use crate::artifact::progress::{Phase, Progress, ProgressSender};
use crate::artifact::store::{ImageStore, Kind};
use crate::model::{Digest, ImageReference};

/// Layers that are fetched at once.
const LAYERS_AT_ONCE: usize = 3;

/// An image whose documents and layers are in the store.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Digest of the manifest.
    pub digest: Digest,
    /// The manifest.
    pub manifest: Manifest,
    /// The configuration.
    pub config: ImageConfig,
}

impl Fetched {
    /// The image of a manifest that is in the store.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn load(store: &ImageStore, digest: Digest) -> Result<Fetched, ImageError> {
        let document = Document::parse(&store.document(digest)?, None)?;
        let Document::Manifest(manifest) = document else {
            return Err(ImageError::invalid("an index where a manifest is due"));
        };
        let config = ImageConfig::parse(&store.document(manifest.config.digest()?)?)?;
        if config.diff_ids()?.len() != manifest.layers.len() {
            return Err(ImageError::invalid("manifest and configuration differ in their layers"));
        }
        Ok(Fetched { digest, manifest, config })
    }

    /// Names the root that the layers make.
    ///
    /// # Errors
    /// None for an image that has been loaded.
    pub fn root(&self) -> Result<Digest, ImageError> {
        Ok(root_digest(&self.config.diff_ids()?))
    }
}

/// Fetches the documents and, unless the root that they make is there, the layers of an image.
///
/// # Errors
/// [`ImageError`].
pub async fn pull(
    store: &Arc<ImageStore>,
    fetcher: &Fetcher,
    reference: &ImageReference,
    credentials: Option<Credentials>,
    progress: &ProgressSender,
) -> Result<Fetched, ImageError> {
    let registry = Registry::new(fetcher, reference, credentials);
    let (mut bytes, mut kind) =
        progress.or_cancelled(registry.manifest(&reference.selector())).await??;
    if let Document::Index(manifests) = Document::parse(&bytes, kind.as_deref())? {
        let ours = choose(&manifests)?.digest()?;
        (bytes, kind) = progress.or_cancelled(registry.manifest(&ours.to_string())).await??;
    }
    let Document::Manifest(manifest) = Document::parse(&bytes, kind.as_deref())? else {
        return Err(ImageError::invalid("an index in an index"));
    };
    let total = manifest.layer_bytes();
    let documents = [&manifest.config];
    fetch_all(store, &registry, &documents, progress).await?;
    let stored = Arc::clone(store);
    let fetched = blocking(move || {
        let (digest, _) = stored.store(&mut bytes.as_slice())?;
        Fetched::load(&stored, digest)
    })
    .await?;
    if store.len_of(Kind::Root, fetched.root()?).is_none() {
        progress.send_modify(|now| {
            *now =
                Progress { phase: Phase::Downloading, bytes_total: total, ..Progress::default() };
        });
        fetch_all(store, &registry, &manifest.layers.iter().collect::<Vec<_>>(), progress).await?;
    }
    Ok(fetched)
}

async fn fetch_all(
    store: &Arc<ImageStore>,
    registry: &Registry<'_>,
    descriptors: &[&Descriptor],
    progress: &ProgressSender,
) -> Result<(), ImageError> {
    let missing = descriptors.iter().map(|descriptor| descriptor.digest().map(|d| (d, descriptor)));
    let missing = missing.collect::<Result<Vec<_>, _>>()?.into_iter();
    let missing = missing.filter(|(digest, _)| store.len_of(Kind::Blob, *digest).is_none());
    let bytes = missing.clone().fold(0, |sum: u64, (_, d)| sum.saturating_add(d.size));
    let checked = Arc::clone(store);
    blocking(move || checked.admit(bytes)).await?;
    let mut running = FuturesUnordered::new();
    for descriptor in descriptors {
        if LAYERS_AT_ONCE <= running.len() {
            running.try_next().await?;
        }
        running.push(fetch_blob(store, registry, descriptor, progress));
    }
    while running.try_next().await?.is_some() {}
    Ok(())
}

/// Brings one blob, unless it is there; goes on where an earlier try was cut.
async fn fetch_blob(
    store: &Arc<ImageStore>,
    registry: &Registry<'_>,
    descriptor: &Descriptor,
    progress: &ProgressSender,
) -> Result<(), ImageError> {
    let (digest, size) = (descriptor.digest()?, descriptor.size);
    let _one = progress.or_cancelled(store.lock(digest)).await?;
    if store.len_of(Kind::Blob, digest).is_some() {
        progress.send_modify(|now| now.bytes_done += size);
        return Ok(());
    }
    let target = Target { kind: Kind::Blob, key: digest, digest: Some(digest), size: Some(size) };
    let origin = Blob { registry, digest };
    download(store, target, &origin, progress).await.map(drop)
}

/// A blob of a registry.
struct Blob<'a> {
    registry: &'a Registry<'a>,
    digest: Digest,
}

impl Origin for Blob<'_> {
    async fn ask(&self, offset: u64) -> Result<Response<Incoming>, ImageError> {
        self.registry.blob(self.digest, offset).await
    }
}

/// Makes the root of an image whose layers are in the store, unless it is there. Its length.
///
/// # Errors
/// [`ImageError`].
pub async fn ensure_root(
    store: &Arc<ImageStore>,
    image: &Fetched,
    limits: Limits,
    progress: &ProgressSender,
) -> Result<u64, ImageError> {
    let root = image.root()?;
    let _one = progress.or_cancelled(store.lock(root)).await?;
    if let Some(len) = store.len_of(Kind::Root, root) {
        return Ok(len);
    }
    let total = image.manifest.layer_bytes();
    progress.send_modify(|now| {
        let resumed = now.bytes_resumed;
        *now = Progress { phase: Phase::Converting, bytes_total: total, ..Progress::default() };
        now.bytes_resumed = resumed;
    });
    let (store, image, progress) = (Arc::clone(store), image.clone(), progress.clone());
    blocking(move || {
        let diff_ids = image.config.diff_ids()?;
        let open = |(layer, diff_id): (&Descriptor, Digest)| {
            let file: File = store.open_file(Kind::Blob, layer.digest()?)?;
            Ok(Layer { file, compression: layer.compression()?, diff_id })
        };
        let layers = image.manifest.layers.iter().zip(diff_ids).map(open);
        let layers = layers.collect::<Result<Vec<_>, ImageError>>()?;
        let out = store.temporary()?;
        let file = out.file.try_clone().map_err(ImageError::io("write the root"))?;
        let told = |bytes| {
            progress.send_modify(|now| now.bytes_done = bytes);
            progress.check()
        };
        let len = build_root(layers, file, limits, &told)?;
        let blocks = out.file.metadata().map_err(ImageError::io("look at the root"))?.blocks();
        store.admit(blocks * 512)?;
        crate::sys::crash::point("image.converted");
        store.commit(&out.path, Kind::Root, root)?;
        Ok(len)
    })
    .await
}

/// Runs what blocks where that is allowed.
///
/// # Errors
/// Its own; that it panicked.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    let outcome = tokio::task::spawn_blocking(work).await;
    outcome
        .unwrap_or_else(|error| Err(ImageError::io("work on images")(std::io::Error::other(error))))
}

#[cfg(test)]
pub mod tests;
