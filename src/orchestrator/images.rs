//! Images: pulled or imported, converted once, kept as long as a name or a VM needs them.
//!
//! A pull or import is a task of its own: whoever asked may hang up. The gate keeps what is being
//! brought, and not yet named, from being swept away: who brings holds it shared, who sweeps alone.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

use crate::artifact::ArtifactError;
use crate::artifact::fetch::{FetchError, Fetcher};
use crate::artifact::oci::{self, Credentials, Fetched, ImageError, Imported, Limits, RunConfig};
use crate::artifact::progress::{Phase, ProgressSender};
use crate::artifact::store::{ImageStore, Stored};
use crate::model::{self, Digest, Image, ImageReference, ImageRoot, ImageWish, NewVm, Workload};
use crate::orchestrator::{Error, Orchestrator, now_ms};
use crate::sys::crash;

/// Digits of an image's id that name it.
const ID_LEN_MIN: usize = 12;

/// Where images are and where they may come from.
#[derive(Debug)]
pub struct Images {
    store: Arc<ImageStore>,
    fetcher: Fetcher,
    limits: Limits,
    auth_file: Option<PathBuf>,
    overlays: PathBuf,
    overlay_mib: u64,
    gate: Arc<RwLock<()>>,
}

/// How [`Images`] is set up.
#[derive(Debug)]
pub struct ImagesConfig {
    /// The store.
    pub store: ImageStore,
    /// What asks registries.
    pub fetcher: Fetcher,
    /// What one image may take.
    pub limits: Limits,
    /// Docker's file of credentials.
    pub auth_file: Option<PathBuf>,
    /// Folder of the VMs' own disks.
    pub overlays: PathBuf,
    /// Size of such a disk, unless its VM says otherwise, in MiB.
    pub overlay_mib: u64,
}

/// Everything about an image.
#[derive(Clone, Debug)]
pub struct ImageDetails {
    /// The record.
    pub image: Image,
    /// What it runs.
    pub run: RunConfig,
    /// Digests of its layers, the lowest first, with their bytes.
    pub layers: Vec<(String, u64)>,
}

/// Something that a prune has removed, or would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pruned {
    /// `image`, `blob`, `partial`, `root`, `artifact` or `disk`.
    pub kind: &'static str,
    /// Reference or digest.
    pub name: String,
    /// Bytes on the disk that are free again.
    pub bytes: u64,
}

impl Images {
    /// Sets up.
    pub fn new(config: ImagesConfig) -> Images {
        let ImagesConfig { store, fetcher, limits, auth_file, overlays, overlay_mib } = config;
        let (store, gate) = (Arc::new(store), Arc::default());
        Images { store, fetcher, limits, auth_file, overlays, overlay_mib, gate }
    }

    /// The files.
    pub fn store(&self) -> &Arc<ImageStore> {
        &self.store
    }

    /// What one image may take.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Size of a VM's own disk, unless it says otherwise, in MiB.
    pub fn overlay_mib(&self) -> u64 {
        self.overlay_mib
    }

    /// Folder of the VMs' own disks.
    pub fn overlays(&self) -> &Path {
        &self.overlays
    }

    /// While the guard lives nothing is swept away.
    pub(super) async fn enter(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.gate).read_owned().await
    }

    /// The credentials of the request, or those that the configuration has for the registry.
    async fn credentials(
        &self,
        given: Option<Credentials>,
        registry: &str,
    ) -> Result<Option<Credentials>, ImageError> {
        let Some(path) = self.auth_file.clone().filter(|_| given.is_none()) else {
            return Ok(given);
        };
        let registry = registry.to_owned();
        oci::blocking(move || {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(ImageError::io("read the file of credentials"))?;
            Ok(oci::credentials_in(&text, &registry))
        })
        .await
    }
}

impl Orchestrator {
    /// Brings an image from its registry and makes its root. With `if_missing` one that is here
    /// already is taken as it is.
    ///
    /// # Errors
    /// [`Error::Images`].
    pub async fn pull_image(
        &self,
        reference: ImageReference,
        credentials: Option<Credentials>,
        if_missing: bool,
        progress: ProgressSender,
    ) -> Result<Image, Error> {
        self.open_for_changes()?;
        if if_missing && let Ok(found) = self.find_image(&reference.to_string()).await {
            progress.send_modify(|now| now.phase = Phase::Done);
            return Ok(found);
        }
        let this = self.clone();
        let work = async move {
            let images = &this.shared.images;
            let _entered = images.enter().await;
            let credentials = images.credentials(credentials, reference.registry()).await?;
            let (store, fetcher) = (&images.store, &images.fetcher);
            let fetched = oci::pull(store, fetcher, &reference, credentials, &progress).await?;
            crash::point("image.fetched");
            this.finish_image(reference.to_string(), &fetched, &progress).await
        };
        tokio::spawn(work).await.map_err(|_| Error::Internal("a pull panicked"))?
    }

    /// Reads an archive (OCI layout or `docker save`, packed or not) and makes the roots of its
    /// images. `name` names its only image; without it they are called as the archive says.
    ///
    /// # Errors
    /// [`Error::Images`].
    pub async fn import_images<E: std::error::Error + Send + Sync + 'static>(
        &self,
        archive: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
        name: Option<ImageReference>,
        progress: ProgressSender,
    ) -> Result<Vec<Image>, Error> {
        self.open_for_changes()?;
        let this = self.clone();
        let _entered = self.shared.images.enter().await;
        let file = this.spool(archive).await?;
        let work = async move {
            let images = &this.shared.images;
            let store = Arc::clone(&images.store);
            let _entered = images.enter().await;
            let found = oci::blocking(move || oci::import(file, &*store)).await?;
            if found.is_empty() {
                return Err(Error::Images(ImageError::Invalid("the archive is empty".to_owned())));
            }
            let named = names(&found, name)?;
            let mut done = Vec::new();
            for (Imported { manifest, .. }, reference) in found.into_iter().zip(named) {
                let store = Arc::clone(&images.store);
                let fetched = oci::blocking(move || Fetched::load(&store, manifest)).await?;
                done.push(this.finish_image(reference, &fetched, &progress).await?);
            }
            Ok(done)
        };
        tokio::spawn(work).await.map_err(|_| Error::Internal("an import panicked"))?
    }

    /// Writes what comes into a file without a name.
    pub(super) async fn spool<E: std::error::Error + Send + Sync + 'static>(
        &self,
        archive: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<std::fs::File, Error> {
        let store = Arc::clone(&self.shared.images.store);
        let made = oci::blocking(move || {
            let temporary = store.temporary()?;
            temporary.file.try_clone().map_err(ImageError::io("make a file in the image store"))
        });
        // Its name is gone by now; it lives as long as it is open.
        let mut file = made.await?;
        let mut archive = pin!(archive);
        let mut len = 0;
        while let Some(bytes) = archive.next().await {
            let bytes = bytes.map_err(|error| ImageError::Invalid(format!("upload: {error}")))?;
            len += bytes.len() as u64;
            let store = Arc::clone(&self.shared.images.store);
            file = oci::blocking(move || {
                store.admit(len)?;
                file.write_all(&bytes).map_err(ImageError::io("store an upload"))?;
                Ok(file)
            })
            .await?;
        }
        let rewound = std::io::Seek::rewind(&mut file);
        rewound.map_err(ImageError::io("read an upload"))?;
        Ok(file)
    }

    async fn finish_image(
        &self,
        reference: String,
        fetched: &Fetched,
        progress: &ProgressSender,
    ) -> Result<Image, Error> {
        let images = &self.shared.images;
        let root_bytes = oci::ensure_root(&images.store, fetched, images.limits, progress).await?;
        let image = Image {
            reference,
            manifest: fetched.digest,
            config: fetched.manifest.config.digest()?,
            root: fetched.root()?,
            root_bytes,
            layer_bytes: fetched.manifest.layer_bytes(),
            created_at_ms: now_ms(),
        };
        self.shared.store.put_image(image.clone()).await?;
        tracing::info!(reference = image.reference, root = %image.root, "an image is here");
        progress.send_modify(|now| now.phase = Phase::Done);
        Ok(image)
    }

    /// All images by name.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn list_images(&self) -> Result<Vec<Image>, Error> {
        Ok(self.shared.store.list_images().await?)
    }

    /// One image, by its reference or by the begin of its id.
    ///
    /// # Errors
    /// [`Error::ImageNotFound`].
    pub async fn find_image(&self, name: &str) -> Result<Image, Error> {
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        let is_id = ID_LEN_MIN <= hex.len() && hex.bytes().all(|c| c.is_ascii_hexdigit());
        let full = ImageReference::try_from(name).ok().map(|reference| reference.to_string());
        let all = self.shared.store.list_images().await?;
        let by_id = |image: &&Image| {
            is_id && [image.config, image.manifest].iter().any(|id| id.hex().starts_with(hex))
        };
        let found = all.iter().find(|image| Some(&image.reference) == full.as_ref());
        let found = found.or_else(|| all.iter().find(by_id)).cloned();
        found.ok_or_else(|| Error::ImageNotFound(name.chars().take(300).collect()))
    }

    /// Everything about an image.
    ///
    /// # Errors
    /// [`Error::ImageNotFound`].
    pub async fn inspect_image(&self, name: &str) -> Result<ImageDetails, Error> {
        let image = self.find_image(name).await?;
        let (store, manifest) = (Arc::clone(&self.shared.images.store), image.manifest);
        let fetched = oci::blocking(move || Fetched::load(&store, manifest)).await?;
        let layers = fetched.manifest.layers.iter().map(|one| (one.digest.clone(), one.size));
        Ok(ImageDetails { image, run: fetched.config.config, layers: layers.collect() })
    }

    /// Removes a name, and what nothing else needs.
    ///
    /// # Errors
    /// [`Error::ImageInUse`] while VMs need it.
    pub async fn remove_image(&self, name: &str) -> Result<(), Error> {
        self.open_for_changes()?;
        let image = self.find_image(name).await?;
        // Nobody creates a VM of it meanwhile.
        let alone = self.shared.images.gate.try_write().map_err(|_| Error::ImagesBusy)?;
        let all = self.shared.store.list_images().await?;
        let other = |one: &&Image| one.root == image.root && one.reference != image.reference;
        let users = self.users_of(image.root);
        if !users.is_empty() && !all.iter().any(|one| other(&one)) {
            let image = image.reference;
            return Err(Error::ImageInUse { image, users: users.join(", ") });
        }
        self.shared.store.delete_image(image.reference).await?;
        self.sweep(false, false).await?;
        drop(alone);
        Ok(())
    }

    /// Names of the VMs that run on a root.
    fn users_of(&self, root: Digest) -> Vec<String> {
        let runs = |vm: &model::Vm| vm.spec.image.as_ref().is_some_and(|image| image.root == root);
        self.list().iter().filter(|vm| runs(vm)).map(|vm| vm.name.to_string()).collect()
    }

    /// Removes what nothing needs: files that no image refers to, downloads that were given up, and
    /// the layers of images whose root is made; with `all` images that no VM runs, and what plugins
    /// that no VM is made of name, as well. With
    /// `dry_run` it only says what it would do.
    ///
    /// # Errors
    /// [`Error::ImagesBusy`] while images are being brought.
    pub async fn prune_images(&self, all: bool, dry_run: bool) -> Result<Vec<Pruned>, Error> {
        self.open_for_changes()?;
        let alone = self.shared.images.gate.try_write().map_err(|_| Error::ImagesBusy)?;
        let mut pruned = Vec::new();
        let mut kept = Vec::new();
        for image in self.shared.store.list_images().await? {
            if all && self.users_of(image.root).is_empty() {
                let name = image.reference.clone();
                pruned.push(Pruned { kind: "image", name, bytes: 0 });
                if !dry_run {
                    self.shared.store.delete_image(image.reference).await?;
                }
            } else {
                kept.push(image);
            }
        }
        pruned.extend(self.sweep_but(kept, true, !all, dry_run).await?);
        drop(alone);
        Ok(pruned)
    }

    async fn sweep(&self, layers: bool, dry_run: bool) -> Result<Vec<Pruned>, Error> {
        let kept = self.shared.store.list_images().await?;
        self.sweep_but(kept, layers, true, dry_run).await
    }

    /// Removes the files that neither `images` nor VMs need. With `layers` those of layers as well,
    /// which are needed for a root only until it is made; with `of_plugins` what installed plugins
    /// name stays.
    async fn sweep_but(
        &self,
        images: Vec<Image>,
        layers: bool,
        of_plugins: bool,
        dry_run: bool,
    ) -> Result<Vec<Pruned>, Error> {
        let store = Arc::clone(&self.shared.images.store);
        let of_vms: Vec<ImageRoot> =
            self.list().into_iter().filter_map(|vm| vm.spec.image).collect();
        let media = self.needed_media(of_plugins);
        let swept = oci::blocking(move || {
            let mut needed: BTreeSet<(&str, Digest)> = BTreeSet::new();
            needed.extend(images.iter().map(|image| ("root", image.root)));
            needed.extend(of_vms.iter().map(|image| ("root", image.root)));
            for image in &images {
                needed.extend([("blob", image.manifest), ("blob", image.config)]);
                if !layers && let Ok(fetched) = Fetched::load(&store, image.manifest) {
                    let digests = fetched.manifest.layers.iter().filter_map(|l| l.digest().ok());
                    needed.extend(digests.map(|digest| ("blob", digest)));
                }
            }
            let mut pruned = Vec::new();
            for Stored { kind, digest, bytes } in store.list()? {
                let word = kind.as_str();
                if needed.contains(&(word, digest)) || media.contains(&(kind, digest)) {
                    continue;
                }
                if !dry_run {
                    store.remove(kind, digest)?;
                }
                pruned.push(Pruned { kind: word, name: digest.to_string(), bytes });
            }
            Ok(pruned)
        });
        Ok(swept.await?)
    }

    /// Fills in what a new VM takes from the image that it wishes. While the guard lives the image
    /// stays.
    pub(super) async fn with_image(
        &self,
        mut new: NewVm,
    ) -> Result<(NewVm, OwnedRwLockReadGuard<()>), Error> {
        let entered = self.shared.images.enter().await;
        let Some(wish) = new.image.take() else { return Ok((new, entered)) };
        let details = self.details_of_wish(&wish).await?;
        let ImageWish { digest, command, workload, ephemeral, overlay_mib, .. } = wish;
        // A registry that was asked by the digest has answered with an index, or with the manifest.
        let pinned = |digest: &Digest| details.image.reference.ends_with(&format!("@{digest}"));
        let wrong = |digest: &Digest| *digest != details.image.manifest && !pinned(digest);
        if let Some(expected) = digest.filter(wrong) {
            let (what, found) = (details.image.reference, details.image.manifest);
            return Err(Error::Images(ImageError::Digest { what, expected, found }));
        }
        let run = RunConfig {
            cmd: if command.is_empty() { details.run.cmd.clone() } else { command },
            ..details.run
        };
        let own = new.spec.workload.as_ref().map(|workload| workload.plain().clone());
        let given = workload.or(own);
        let workload = oci::workload(&run, given)?;
        let own = std::mem::replace(&mut new.spec.env, oci::environment(&run));
        new.spec.env.extend(own);
        new.spec.workload = workload.map(Workload::try_from).transpose()?;
        let mib = overlay_mib.unwrap_or(self.shared.images.overlay_mib);
        new.spec.image = Some(ImageRoot {
            reference: details.image.reference,
            root: details.image.root,
            folders: oci::folders(&run),
            overlay: match ephemeral {
                true => model::Overlay::Ephemeral,
                false => model::Overlay::Persistent { mib },
            },
        });
        Ok((new, entered))
    }
}

/// What the images of an archive will be called.
fn names(found: &[Imported], name: Option<ImageReference>) -> Result<Vec<String>, Error> {
    let invalid = |text: &str| Error::Images(ImageError::Invalid(text.to_owned()));
    match name {
        Some(name) if found.len() == 1 => Ok(vec![name.to_string()]),
        Some(_) => Err(invalid("the archive holds several images: they cannot share a name")),
        None => found
            .iter()
            .map(|image| {
                let name = image.name.as_deref();
                let name =
                    name.ok_or_else(|| invalid("the archive's image has no name: give one"))?;
                Ok(ImageReference::try_from(name)?.to_string())
            })
            .collect(),
    }
}

/// How [`Error::Images`] looks to callers: who must act, the stable code, what to do about it.
pub fn classify(error: &ImageError) -> (model::Kind, &'static str, Option<&'static str>) {
    use model::Kind as Who;
    match error {
        ImageError::Cancelled => (Who::Conflict, "operation_cancelled", None),
        ImageError::Invalid(_) | ImageError::Layer { .. } => (Who::Invalid, "invalid_image", None),
        ImageError::MediaType(_) => (Who::Invalid, "image_media_type", None),
        ImageError::Digest { .. } => (
            Who::Invalid,
            "image_digest_mismatch",
            Some("what was downloaded has been removed; pull it again, or distrust its source"),
        ),
        ImageError::Unauthorized(_) => (
            Who::Invalid,
            "registry_unauthorized",
            Some("give credentials, or configure images.auth_file; the image may also not exist"),
        ),
        ImageError::NotInRegistry { .. } => {
            (Who::NotFound, "not_in_registry", Some("look at the name and the tag"))
        }
        ImageError::RateLimited { .. } => {
            (Who::Unavailable, "registry_rate_limited", Some("log in, or try again later"))
        }
        ImageError::Registry { .. } => (
            Who::Unavailable,
            "registry_failed",
            Some("try again: what has been downloaded is kept"),
        ),
        ImageError::Fetch(FetchError::Network { .. }) => (
            Who::Unavailable,
            "registry_unreachable",
            Some("try again: what has been downloaded is kept"),
        ),
        ImageError::Fetch(FetchError::HostNotAllowed(_)) => (
            Who::Invalid,
            "host_not_allowed",
            Some("the configuration names hosts: images.hosts, artifacts.hosts"),
        ),
        ImageError::Fetch(FetchError::PlainHttp(_)) => (
            Who::Invalid,
            "host_not_allowed",
            Some("add it to images.plain_http_hosts in the configuration"),
        ),
        ImageError::Fetch(_) => (Who::Invalid, "host_not_allowed", None),
        ImageError::StoreFull { .. } => (
            Who::Exhausted,
            "image_store_full",
            Some("`volantd ctl images prune`, or raise images.store_mib_max"),
        ),
        ImageError::DiskFull => {
            (Who::Exhausted, "disk_full", Some("`volantd ctl images prune` frees space"))
        }
        ImageError::File(ArtifactError::Unusable { .. }) => {
            (Who::Invalid, "invalid_artifact", None)
        }
        ImageError::File(ArtifactError::Host { .. }) | ImageError::Host { .. } => {
            (Who::Internal, "internal", None)
        }
    }
}
