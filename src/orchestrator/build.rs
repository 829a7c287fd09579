//! Builds: what a Volantfile describes, made into an artifact of the store and its manifest.

use std::path::Path;

use bytes::Bytes;
use futures_util::Stream;
use serde_json::{Value, json};

use crate::artifact::build;
use crate::artifact::oci::{self, Fetched, ImageError, Layer, RunConfig};
use crate::artifact::progress::ProgressSender;
use crate::artifact::store::Kind;
use crate::model::{Digest, ImageWish};
use crate::orchestrator::{Error, Orchestrator, PluginError};
use crate::plugin::{self, Language, Strategy, Volantfile};

/// What was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// The whole manifest.
    pub manifest: Value,
    /// Name of the artifact in the store.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: u64,
}

impl Orchestrator {
    /// Builds what the archive's Volantfile, its first entry, says of the files that follow.
    ///
    /// # Errors
    /// [`Error`]; nothing is left then.
    pub async fn build<E: std::error::Error + Send + Sync + 'static>(
        &self,
        archive: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
        progress: ProgressSender,
    ) -> Result<Built, Error> {
        self.open_for_changes()?;
        let _entered = self.shared.images.enter().await;
        let mut archive = self.spool(archive).await?;
        let read = move || build::volantfile(&mut archive).map(|text| (archive, text));
        let (archive, text) = oci::blocking(read).await?;
        let file = plugin::volantfile(&text).map_err(PluginError::from)?;
        let image = match &file.image {
            Some(name) => {
                let wish = ImageWish { name: name.clone(), bring: true, ..ImageWish::default() };
                let image = self.image_of_wish(&wish, progress.clone()).await?;
                let store = self.shared.images.store().clone();
                Some(oci::blocking(move || Fetched::load(&store, image.manifest)).await?)
            }
            None => None,
        };
        let run = image.as_ref().map(|image| image.config.config.clone());
        let (digest, bytes) = self.make(archive, image, progress).await?;
        let manifest = whole(&file, digest, run.as_ref())?;
        Ok(Built { manifest, digest, bytes })
    }

    async fn make(
        &self,
        mut archive: std::fs::File,
        image: Option<Fetched>,
        progress: ProgressSender,
    ) -> Result<(Digest, u64), Error> {
        let images = &self.shared.images;
        let (store, limits) = (images.store().clone(), images.limits());
        let (agent, busybox) =
            (self.shared.config.agent.clone(), self.shared.config.busybox.clone());
        let made = move || {
            let step = || ImageError::io("write what is built");
            let mut out = store.temporary()?;
            match image {
                None => {
                    let busybox = Some(busybox.as_path()).filter(|path| path.exists());
                    let file = std::io::BufWriter::with_capacity(1 << 18, &out.file);
                    build::initramfs(Path::new(&agent), busybox, &mut archive, file)?;
                }
                Some(image) => {
                    let layers = layers(&store, &image)?;
                    let spare = store.temporary()?;
                    let [spare, file] = [&spare.file, &out.file].map(std::fs::File::try_clone);
                    let (spare, file) = (spare.map_err(step())?, file.map_err(step())?);
                    build::rootfs(layers, &mut archive, spare, (file, limits), &|_| {
                        progress.check()
                    })?;
                }
            }
            let digest = build::digest_of(&mut out.file)?;
            let len = out.file.metadata().map_err(step())?.len();
            store.admit(len)?;
            store.commit(&out.path, Kind::Artifact, digest)?;
            Ok((digest, len))
        };
        Ok(oci::blocking(made).await?)
    }

    /// An artifact's bytes.
    ///
    /// # Errors
    /// [`Error::ArtifactNotFound`].
    pub fn open_artifact(&self, digest: &str) -> Result<std::fs::File, Error> {
        let none = || Error::ArtifactNotFound(digest.chars().take(100).collect());
        let found = Digest::try_from(digest).map_err(|_| none())?;
        self.shared.images.store().open_file(Kind::Artifact, found).map_err(|_| none())
    }
}

fn layers(
    store: &crate::artifact::store::ImageStore,
    image: &Fetched,
) -> Result<Vec<Layer>, ImageError> {
    let diff_ids = image.config.diff_ids()?;
    let open = |(layer, diff_id): (&oci::Descriptor, Digest)| {
        let gone = |_| {
            let text = "a layer has been pruned: remove the image and bring it again";
            ImageError::Invalid(text.to_owned())
        };
        let file = store.open_file(Kind::Blob, layer.digest()?).map_err(gone)?;
        Ok(Layer { file, compression: layer.compression()?, diff_id })
    };
    image.manifest.layers.iter().zip(diff_ids).map(open).collect()
}

/// The manifest with what was built in it, checked. An image's own program is the workload unless the
/// Volantfile names one.
fn whole(file: &Volantfile, digest: Digest, run: Option<&RunConfig>) -> Result<Value, Error> {
    let mut manifest = file.manifest.clone();
    let text = |field: &str| manifest[field].as_str().unwrap_or("artifact").replace('/', "_");
    let name = format!("{}-{}", text("name"), text("version"));
    let (field, medium) = match file.strategy {
        Strategy::Initramfs => (
            "initramfs",
            json!({ "url": format!("file:///{name}.cpio"), "checksum": digest.to_string() }),
        ),
        Strategy::Rootfs => (
            "rootfs",
            json!({
                "url": format!("file:///{name}.erofs"), "checksum": digest.to_string(),
                "format": "erofs"
            }),
        ),
    };
    manifest[field] = medium;
    if let Some(run) = run
        && manifest.get("workload").is_none()
        && let Some(own) = oci::workload(run, None)?
    {
        let signal = own.stop_signal.map(|signal| signal.to_string());
        manifest["workload"] = json!({
            "type": "exec", "entrypoint": own.argv, "workdir": own.cwd, "user": own.user,
            "stop_signal": signal, "env": oci::environment(run)
        });
    }
    let bytes = serde_json::to_vec(&manifest).unwrap_or_default();
    let checked = plugin::manifest(&bytes, Language::Json).map_err(PluginError::from)?;
    serde_json::to_value(checked).map_err(|_| Error::Internal("a manifest cannot be encoded"))
}
