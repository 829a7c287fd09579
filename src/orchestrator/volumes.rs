//! Volumes: one ext4 file for each, `volumes/NAME.ext4` in the state folder.
//!
//! The row comes first. A volume that is `new` has no file: it is made when something needs it, so
//! that a VM and the volumes of its manifest are one change of the store. One that is `deleting` is
//! nobody's; what a crash has left of it is removed at the next start. A file without a row is never
//! touched: it may be all that is left of someone's data.
//!
//! The file is locked (flock) by the VM that runs with it, by a backup, by a change of its size.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use volant_protocol::MountConfig;

use crate::artifact::volume::{self, UnpackError};
use crate::artifact::{self, ArtifactError, NamedBy};
use crate::model::{Kind, Vm, Volume, VolumeName, VolumeState};
use crate::orchestrator::pipe::{self, Chunk, Sink, Source};
use crate::orchestrator::{Error, Orchestrator, Shared, now_ms};
use crate::store::{Store, StoreError};
use crate::sys::crash;
use crate::vmm::DiskSpec;

/// How long a client may take nothing of a backup: it holds the volume meanwhile.
const BACKUP_STILL_MAX: Duration = Duration::from_secs(60);

/// A refusal that concerns volumes.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// No volume of that name.
    #[error("there is no volume {0:?}")]
    NotFound(String),
    /// A volume of that name exists.
    #[error("a volume called {0:?} exists")]
    Taken(String),
    /// VMs have it.
    #[error("volume {volume:?} is attached to VM {vm:?}")]
    InUse {
        /// The volume.
        volume: String,
        /// One such VM.
        vm: String,
    },
    /// Something holds its file.
    #[error("volume {0:?} is held by a VM that runs, or by a backup")]
    Held(String),
    /// Its size breaks a rule.
    #[error("{0}")]
    Size(String),
    /// What was sent is no backup.
    #[error(transparent)]
    Backup(UnpackError),
    /// The host's disk is full.
    #[error("the disk with the state folder is full")]
    DiskFull,
    /// The file that the store knows is not there.
    #[error("the file of volume {0:?} is gone")]
    Lost(String),
    /// The host refused.
    #[error("{step}")]
    Host {
        /// The attempted step.
        step: &'static str,
        /// Its answer.
        #[source]
        source: io::Error,
    },
}

impl VolumeError {
    /// Who must act.
    pub fn kind(&self) -> Kind {
        match self {
            VolumeError::NotFound(_) => Kind::NotFound,
            VolumeError::Taken(_) | VolumeError::InUse { .. } | VolumeError::Held(_) => {
                Kind::Conflict
            }
            VolumeError::Size(_) | VolumeError::Backup(_) => Kind::Invalid,
            VolumeError::DiskFull => Kind::Exhausted,
            VolumeError::Lost(_) | VolumeError::Host { .. } => Kind::Internal,
        }
    }

    /// Stable code; docs/http-status.md lists them.
    pub fn code(&self) -> &'static str {
        match self {
            VolumeError::NotFound(_) => "volume_not_found",
            VolumeError::Taken(_) => "volume_exists",
            VolumeError::InUse { .. } | VolumeError::Held(_) => "volume_in_use",
            VolumeError::Size(_) => "invalid_volume_size",
            VolumeError::Backup(_) => "invalid_backup",
            VolumeError::DiskFull => "disk_full",
            VolumeError::Lost(_) | VolumeError::Host { .. } => "internal",
        }
    }

    /// What the user can do about it, if there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            VolumeError::NotFound(_) => Some("`volantd ctl volumes ls` shows what there is"),
            VolumeError::InUse { .. } => {
                Some("one VM may write to it, or many read it; delete that VM first")
            }
            VolumeError::Held(_) => Some("stop the VM, or wait for the end of the backup"),
            _ => None,
        }
    }

    fn host(step: &'static str) -> impl FnOnce(io::Error) -> VolumeError {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => VolumeError::DiskFull,
            _ => VolumeError::Host { step, source },
        }
    }

    /// A refusal of the store that concerns volumes.
    pub fn of_store(error: StoreError) -> Result<VolumeError, StoreError> {
        match error {
            StoreError::NoVolume(name) => Ok(VolumeError::NotFound(name)),
            StoreError::VolumeInUse { volume, vm } => Ok(VolumeError::InUse { volume, vm }),
            other => Err(other),
        }
    }
}

/// A volume, and what of it is on the disk.
#[derive(Clone, Debug)]
pub struct VolumeInfo {
    /// The record.
    pub volume: Volume,
    /// Bytes that it takes on the host.
    pub used_bytes: u64,
}

/// The folder of the files.
#[derive(Debug)]
pub struct Volumes {
    folder: PathBuf,
    /// One change of a file at a time.
    changing: tokio::sync::Mutex<()>,
    restores: AtomicU64,
}

impl Volumes {
    /// Those in `folder`; what a crash has left half-done is finished.
    ///
    /// # Errors
    /// The store's, the host's.
    pub async fn open(folder: PathBuf, store: &Store) -> Result<Volumes, Error> {
        let this = Volumes {
            folder,
            changing: tokio::sync::Mutex::default(),
            restores: AtomicU64::new(0),
        };
        let folder = this.folder.clone();
        blocking("clean the folder of volumes", move || {
            fs::create_dir_all(&folder)?;
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                // No volume's name begins like that.
                if entry.file_name().as_encoded_bytes().starts_with(b".") {
                    fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        })
        .await?;
        for volume in store.list_volumes().await? {
            if volume.state == VolumeState::Deleting {
                this.remove(store, volume.name).await?;
            }
        }
        Ok(this)
    }

    fn path(&self, name: &VolumeName) -> PathBuf {
        self.folder.join(format!("{name}.ext4"))
    }

    fn partial(&self, name: &VolumeName) -> PathBuf {
        self.folder.join(format!(".{name}"))
    }

    async fn find(&self, store: &Store, name: &VolumeName) -> Result<Volume, Error> {
        let all = store.list_volumes().await?;
        let usable =
            |volume: &Volume| volume.name == *name && volume.state != VolumeState::Deleting;
        let found = all.into_iter().find(usable);
        Ok(found.ok_or_else(|| VolumeError::NotFound(name.to_string()))?)
    }

    /// The volume's file, made if it has none yet.
    async fn ensure(&self, store: &Store, name: &VolumeName) -> Result<PathBuf, Error> {
        let _one = self.changing.lock().await;
        let volume = self.find(store, name).await?;
        let (path, partial, len) = (self.path(name), self.partial(name), volume.mib << 20);
        let made = path.clone();
        match volume.state {
            VolumeState::New => {
                blocking("make a volume", move || volume::make(&made, &partial, len)).await?;
                crash::point("volume.made");
                store.set_volume(name.clone(), VolumeState::Made, volume.mib).await?;
            }
            VolumeState::Made | VolumeState::Deleting => {
                let lost = || VolumeError::Lost(name.to_string());
                let found = fs::metadata(&path).map_err(|_| lost())?;
                if found.len() < len {
                    // A crash came between the new size and its effect.
                    blocking("grow a volume", move || {
                        File::options().write(true).open(made)?.set_len(len)
                    })
                    .await?;
                }
            }
        }
        Ok(path)
    }

    async fn remove(&self, store: &Store, name: VolumeName) -> Result<(), Error> {
        let path = self.path(&name);
        blocking("remove a volume", move || match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await?;
        Ok(store.delete_volume(name).await?)
    }

    fn info(&self, volume: Volume) -> VolumeInfo {
        let used = fs::metadata(self.path(&volume.name)).map_or(0, |meta| meta.blocks() * 512);
        let used_bytes = if volume.state == VolumeState::New { 0 } else { used };
        VolumeInfo { volume, used_bytes }
    }

    /// A name for what is being restored that no other restore has.
    fn restored(&self) -> PathBuf {
        // ORDER: only the number's uniqueness counts.
        let number = self.restores.fetch_add(1, Ordering::Relaxed);
        self.folder.join(format!(".restore-{number}"))
    }
}

/// Opens a volume's file for a backup, a guest or a change.
fn open(path: &Path, readonly: bool, name: &VolumeName) -> Result<File, Error> {
    artifact::open_disk(path, readonly, NamedBy::Daemon).map_err(|error| match error {
        ArtifactError::Unusable { .. } if path.exists() => {
            VolumeError::Held(name.to_string()).into()
        }
        other => Error::Artifact(other),
    })
}

async fn blocking<T: Send + 'static>(
    step: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, VolumeError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(VolumeError::host(step))
}

fn serial(index: usize) -> String {
    format!("volume-{index}")
}

/// What the agent is told of a VM's volumes.
pub fn mounts(vm: &Vm) -> Vec<MountConfig> {
    let mounts = vm.spec.volumes.iter().enumerate();
    let mount = |(index, mount): (usize, &crate::model::VolumeMount)| MountConfig {
        serial: serial(index),
        path: mount.path.clone(),
        readonly: mount.readonly,
    };
    mounts.map(mount).collect()
}

/// The disks of a VM's volumes.
///
/// # Errors
/// One sentence for the user.
pub async fn open_disks(shared: &Shared, vm: &Vm) -> Result<Vec<DiskSpec>, String> {
    let mut disks = Vec::new();
    for (index, mount) in vm.spec.volumes.iter().enumerate() {
        let path = shared.volumes.ensure(&shared.store, &mount.volume).await;
        let file = path.and_then(|path| open(&path, mount.readonly, &mount.volume));
        let file = file.map_err(|error| super::chain(&error))?;
        disks.push(DiskSpec { file, readonly: mount.readonly, serial: serial(index) });
    }
    Ok(disks)
}

fn size(mib: u64) -> Result<(), VolumeError> {
    let (min, max) = (Volume::MIB_MIN, Volume::MIB_MAX);
    match (min..=max).contains(&mib) {
        true => Ok(()),
        false => Err(VolumeError::Size(format!("{min} to {max} MiB, not {mib}"))),
    }
}

impl Orchestrator {
    /// All volumes by name.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn list_volumes(&self) -> Result<Vec<VolumeInfo>, Error> {
        let all = self.shared.store.list_volumes().await?.into_iter();
        let known = all.filter(|volume| volume.state != VolumeState::Deleting);
        Ok(known.map(|volume| self.shared.volumes.info(volume)).collect())
    }

    /// One volume.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`].
    pub async fn volume(&self, name: &VolumeName) -> Result<VolumeInfo, Error> {
        let volumes = &self.shared.volumes;
        Ok(volumes.info(volumes.find(&self.shared.store, name).await?))
    }

    /// Makes an empty volume.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub async fn create_volume(&self, name: VolumeName, mib: u64) -> Result<VolumeInfo, Error> {
        self.open_for_changes()?;
        size(mib)?;
        let state = VolumeState::New;
        self.insert_volume(&name, mib, state).await?;
        let this = self.clone();
        let made = tokio::spawn(async move {
            this.shared.volumes.ensure(&this.shared.store, &name).await?;
            this.volume(&name).await
        });
        made.await.map_err(|_| Error::Internal("making a volume panicked"))?
    }

    async fn insert_volume(
        &self,
        name: &VolumeName,
        mib: u64,
        state: VolumeState,
    ) -> Result<(), Error> {
        let stored = self.shared.store.create_volume(name.clone(), mib, state, now_ms()).await;
        stored.map_err(|error| match error {
            StoreError::VolumeTaken => VolumeError::Taken(name.to_string()).into(),
            other => other.into(),
        })
    }

    /// Makes a volume larger. Its file system follows when a VM writes to it next.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub async fn grow_volume(&self, name: &VolumeName, mib: u64) -> Result<VolumeInfo, Error> {
        self.open_for_changes()?;
        size(mib)?;
        let (this, wanted) = (self.clone(), name.clone());
        let grown = tokio::spawn(async move {
            let (volumes, store) = (&this.shared.volumes, &this.shared.store);
            let path = volumes.ensure(store, &wanted).await?;
            let one = volumes.changing.lock().await;
            let volume = volumes.find(store, &wanted).await?;
            if mib < volume.mib {
                let text = format!("it has {} MiB, and volumes do not shrink", volume.mib);
                return Err(VolumeError::Size(text).into());
            }
            let file = open(&path, false, &wanted)?;
            store.set_volume(wanted, VolumeState::Made, mib).await?;
            crash::point("volume.grown");
            blocking("grow a volume", move || file.set_len(mib << 20)).await?;
            drop(one);
            Ok::<(), Error>(())
        });
        grown.await.map_err(|_| Error::Internal("growing a volume panicked"))??;
        self.volume(name).await
    }

    /// Removes a volume with everything in it.
    ///
    /// # Errors
    /// [`VolumeError::InUse`] while VMs have it, whether they run or not.
    pub async fn delete_volume(&self, name: VolumeName) -> Result<(), Error> {
        self.open_for_changes()?;
        let this = self.clone();
        let removed = tokio::spawn(async move {
            let (volumes, store) = (&this.shared.volumes, &this.shared.store);
            let _one = volumes.changing.lock().await;
            store.begin_volume_removal(name.clone()).await?;
            crash::point("volume.deleting");
            volumes.remove(store, name).await
        });
        removed.await.map_err(|_| Error::Internal("removing a volume panicked"))?
    }

    /// A volume as one packed stream. No VM can write to it until the stream ends, or its reader has
    /// stood still for [`BACKUP_STILL_MAX`].
    ///
    /// # Errors
    /// [`VolumeError::Held`] while a VM runs that may write to it.
    pub async fn backup_volume(
        &self,
        name: &VolumeName,
    ) -> Result<impl Stream<Item = Chunk> + use<>, Error> {
        let path = self.shared.volumes.ensure(&self.shared.store, name).await?;
        let file = open(&path, true, name)?;
        let (sender, queue) = pipe::queue();
        let sink = Sink::new(sender, BACKUP_STILL_MAX);
        let packing = tokio::task::spawn_blocking(move || {
            volume::pack(&file, io::BufWriter::with_capacity(1 << 18, sink))
        });
        let state = (queue, Some(packing));
        Ok(futures_util::stream::unfold(state, async |(mut queue, packing)| {
            if let Some(chunk) = queue.recv().await {
                return Some((chunk, (queue, packing)));
            }
            // A stream that just ended would look whole.
            let packed = packing?.await.unwrap_or_else(|error| Err(io::Error::other(error)));
            let error = packed.err()?;
            tracing::warn!(%error, "a backup has broken off");
            Some((Err(error), (queue, None)))
        }))
    }

    /// A new volume with what a backup holds.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub async fn restore_volume<E: std::error::Error + Send + Sync + 'static>(
        &self,
        name: VolumeName,
        backup: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    ) -> Result<VolumeInfo, Error> {
        self.open_for_changes()?;
        if self.volume(&name).await.is_ok() {
            return Err(VolumeError::Taken(name.to_string()).into());
        }
        let partial = Temporary(self.shared.volumes.restored());
        let (sender, queue) = pipe::queue();
        let target = Arc::new(partial);
        let written = Arc::clone(&target);
        let unpacking = tokio::task::spawn_blocking(move || {
            let file = File::options().read(true).write(true).create_new(true).open(&written.0);
            let file = file.map_err(UnpackError::Host)?;
            volume::unpack(Source::new(queue), &file, Volume::MIB_MAX << 20)
        });
        let mut backup = pin!(backup);
        while let Some(chunk) = backup.next().await {
            let broken = chunk.is_err();
            // The other end is gone when it has refused.
            if sender.send(chunk.map_err(io::Error::other)).await.is_err() || broken {
                break;
            }
        }
        drop(sender);
        let len = unpacking.await.map_err(|_| Error::Internal("unpacking a backup panicked"))?;
        let len = len.map_err(|error| match error {
            UnpackError::Host(source) => VolumeError::host("write a volume")(source),
            refused @ UnpackError::Invalid(_) => VolumeError::Backup(refused),
        })?;
        let this = self.clone();
        let named = tokio::spawn(async move {
            let (volumes, store) = (&this.shared.volumes, &this.shared.store);
            let _one = volumes.changing.lock().await;
            // Until it has its file nobody may use it, and a crash takes it away again.
            this.insert_volume(&name, len >> 20, VolumeState::Deleting).await?;
            crash::point("volume.restoring");
            fs::rename(&target.0, volumes.path(&name))
                .map_err(VolumeError::host("name a volume"))?;
            store.set_volume(name.clone(), VolumeState::Made, len >> 20).await?;
            this.volume(&name).await
        });
        named.await.map_err(|_| Error::Internal("restoring a volume panicked"))?
    }
}

/// A file that goes away unless it is given another name.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // After the renaming there is nothing here any more.
        let _ = fs::remove_file(&self.0);
    }
}
