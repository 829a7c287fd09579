//! What VMs are made of beside images: brought, checked by digest, kept as long as a plugin names it or
//! a VM has it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use tokio::sync::OwnedRwLockReadGuard;

use crate::artifact::progress::{Phase, ProgressSender};
use crate::artifact::source::bring;
use crate::artifact::store::{Kind, Stored};
use crate::model::{
    Digest, Image, ImageReference, ImageRoot, ImageWish, MediumRole, NewVm, Overlay, VmName,
};
use crate::orchestrator::images::ImageDetails;
use crate::orchestrator::{Error, Orchestrator, PluginError, VmRequest};
use crate::plugin;

/// Something that a plugin's VMs are made of.
#[derive(Clone, Debug)]
pub struct Brought {
    /// Where it comes from.
    pub source: String,
    /// Its digest; an image's is its manifest's.
    pub digest: Digest,
    /// Bytes here.
    pub bytes: u64,
}

impl Orchestrator {
    /// Brings what a new VM needs and fills in where it is. While the guard lives it stays.
    pub(super) async fn with_media(
        &self,
        mut new: NewVm,
        progress: &ProgressSender,
    ) -> Result<(NewVm, OwnedRwLockReadGuard<()>), Error> {
        let images = &self.shared.images;
        let entered = images.enter().await;
        for medium in std::mem::take(&mut new.media) {
            let (store, sources) = (images.store().clone(), self.shared.config.sources.clone());
            let (progress, source) = (progress.clone(), medium.clone());
            progress.send_modify(|now| now.phase = Phase::Downloading);
            // A task of its own: a caller that hangs up may come back for what is under way.
            let entered = images.enter().await;
            let brought = tokio::spawn(async move {
                let _entered = entered;
                bring(&store, &sources, &source, &progress).await
            });
            let brought = brought.await.map_err(|_| Error::Internal("a download panicked"))?;
            let (kind, digest, _) = brought?;
            let path = images.store().path(kind, digest);
            match medium.role {
                MediumRole::Initramfs => new.spec.initramfs = Some(path),
                MediumRole::Disk(index) => {
                    if let Some(disk) = new.spec.disks.get_mut(index) {
                        (disk.path, disk.private) = (path, !disk.readonly);
                    }
                }
                MediumRole::Root if new.image.is_none() => {
                    new.spec.image = Some(ImageRoot {
                        reference: medium.source,
                        root: digest,
                        folders: Vec::new(),
                        overlay: Overlay::Persistent { mib: images.overlay_mib() },
                    });
                }
                // The request's own image has its place.
                MediumRole::Root => {}
            }
        }
        Ok((new, entered))
    }

    /// Brings everything that VMs of a plugin are made of. `insecure` takes downloads without a
    /// checksum.
    ///
    /// # Errors
    /// [`Error`]; what has come is kept for the next try.
    pub async fn fetch_plugin(
        &self,
        name: &str,
        version: Option<&str>,
        insecure: bool,
        progress: ProgressSender,
    ) -> Result<Vec<Brought>, Error> {
        self.open_for_changes()?;
        if !self.plugin(name)?.enabled {
            return Err(PluginError::Disabled(name.to_owned()).into());
        }
        let manifest = self.manifest(name, version)?;
        // What a VM of it would need, whatever its name.
        let vm = VmName::try_from("any").map_err(|_| Error::Internal("a VM's name"))?;
        let request = VmRequest { insecure, ..VmRequest::named(vm) };
        let planned = plugin::merge(Some(&manifest), request).map_err(PluginError::from)?;
        let media = planned.media.clone();
        let image = planned.image.clone();
        let (made, _stay) = self.with_media(planned, &progress).await?;
        let mut brought = Vec::new();
        let paths = media.iter().map(|medium| match medium.role {
            MediumRole::Initramfs => made.spec.initramfs.clone(),
            MediumRole::Disk(index) => made.spec.disks.get(index).map(|disk| disk.path.clone()),
            MediumRole::Root => {
                let root = made.spec.image.as_ref().map(|image| image.root);
                root.map(|root| self.shared.images.store().path(Kind::Artifact, root))
            }
        });
        for (medium, path) in media.iter().zip(paths) {
            let store = self.shared.images.store();
            let found = path.and_then(|path| store.named_by(&path));
            let (kind, digest) = found.ok_or(Error::Internal("a file without a digest"))?;
            let bytes = store.len_of(kind, digest).unwrap_or(0);
            brought.push(Brought { source: medium.source.clone(), digest, bytes });
        }
        if let Some(wish) = image {
            let Image { reference, manifest, root_bytes, .. } =
                self.image_of_wish(&wish, progress.clone()).await?;
            brought.push(Brought { source: reference, digest: manifest, bytes: root_bytes });
        }
        progress.send_modify(|now| now.phase = Phase::Done);
        Ok(brought)
    }

    /// The image that is wished for, brought if it is to be and is not here.
    pub(super) async fn image_of_wish(
        &self,
        wish: &ImageWish,
        progress: ProgressSender,
    ) -> Result<Image, Error> {
        let pinned = match wish.digest.filter(|_| !wish.name.contains('@')) {
            Some(digest) => format!("{}@{digest}", wish.name),
            None => wish.name.clone(),
        };
        for name in [&wish.name, &pinned] {
            match self.find_image(name).await {
                Ok(image)
                    if wish.digest.is_none_or(|digest| digest == image.manifest)
                        || name == &pinned =>
                {
                    return Ok(image);
                }
                Ok(_) | Err(Error::ImageNotFound(_)) => {}
                Err(other) => return Err(other),
            }
        }
        if !wish.bring {
            // One of another digest is told as such.
            return self.find_image(&wish.name).await;
        }
        let reference = ImageReference::try_from(pinned.as_str())?;
        self.pull_image(reference, None, true, progress).await
    }

    pub(super) async fn details_of_wish(&self, wish: &ImageWish) -> Result<ImageDetails, Error> {
        let image = self.image_of_wish(wish, ProgressSender::default()).await?;
        self.inspect_image(&image.reference).await
    }

    /// What VMs have, and, if they count, what installed plugins name.
    pub(super) fn needed_media(&self, of_plugins: bool) -> BTreeSet<(Kind, Digest)> {
        let store = self.shared.images.store();
        let paths = |vm: crate::model::Vm| -> Vec<PathBuf> {
            let disks = vm.spec.disks.into_iter().map(|disk| disk.path);
            let root = vm.spec.image.map(|image| store.path(Kind::Artifact, image.root));
            disks.chain(vm.spec.initramfs).chain(root).collect()
        };
        let vms = self.list().into_iter().flat_map(paths);
        let mut needed: BTreeSet<_> = vms.filter_map(|path| store.named_by(&path)).collect();
        // What a disk was made of is not needed any more.
        if of_plugins {
            for plugin in self.list_plugins() {
                for version in &plugin.versions {
                    let named = plugin::digests_of(&version.manifest);
                    needed.extend(named.iter().map(|digest| (Kind::Artifact, *digest)));
                    needed.extend(named.iter().map(|digest| (Kind::Disk, *digest)));
                }
            }
        }
        needed
    }

    /// The files that VMs are made of, beside images.
    ///
    /// # Errors
    /// The host's.
    pub async fn list_media(&self) -> Result<Vec<Stored>, Error> {
        let store = self.shared.images.store().clone();
        let all = crate::artifact::oci::blocking(move || store.list()).await?;
        let is_medium = |one: &Stored| matches!(one.kind, Kind::Artifact | Kind::Disk);
        Ok(all.into_iter().filter(is_medium).collect())
    }
}
