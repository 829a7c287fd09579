//! The content-addressed store below the state folder. What has a name here is whole: files are
//! written under another name, checked, synced and renamed.
//!
//! ```text
//! blobs/HEX      layers and documents as they came, by their SHA-256
//! partial/HEX    a download that goes on where it was cut
//! roots/HEX      read-only roots, by the layers that they are made of
//! artifacts/HEX  other files that VMs are made of, by their SHA-256
//! disks/HEX      raw disks, by the SHA-256 of the packed ones that they are made of
//! tmp/           what is being written; emptied at start
//! ```
//!
//! Blocking, but for [`ImageStore::lock`].

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use sha2::{Digest as _, Sha256};

use crate::artifact::oci::{BlobSink, DOCUMENT_LEN_MAX, ImageError};
use crate::model::Digest;

/// Bytes copied at once.
const COPY_LEN: usize = 1 << 18;

/// What kind of thing a digest names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Layers and documents.
    Blob,
    /// Downloads that are not complete.
    Partial,
    /// Read-only roots.
    Root,
    /// Other files that VMs are made of.
    Artifact,
    /// Raw disks made of packed ones.
    Disk,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 5] = [Kind::Blob, Kind::Partial, Kind::Root, Kind::Artifact, Kind::Disk];

    fn folder(self) -> &'static str {
        match self {
            Kind::Blob => "blobs",
            Kind::Partial => "partial",
            Kind::Root => "roots",
            Kind::Artifact => "artifacts",
            Kind::Disk => "disks",
        }
    }

    /// The word for one.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Blob => "blob",
            Kind::Partial => "partial",
            Kind::Root => "root",
            Kind::Artifact => "artifact",
            Kind::Disk => "disk",
        }
    }
}

/// Something in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What kind of thing.
    pub kind: Kind,
    /// Its name.
    pub digest: Digest,
    /// Bytes that it takes on the disk.
    pub bytes: u64,
}

/// The store.
#[derive(Debug)]
pub struct ImageStore {
    root: PathBuf,
    bytes_max: u64,
    names: AtomicU64,
    locks: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
}

impl ImageStore {
    /// Opens the store in `root`, and removes what a crash has left half-written. `bytes_max` is
    /// what everything in it may take together.
    ///
    /// # Errors
    /// The host's.
    pub fn open(root: PathBuf, bytes_max: u64) -> Result<ImageStore, ImageError> {
        let tmp = root.join("tmp");
        match fs::remove_dir_all(&tmp) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(ImageError::io("empty the image store's tmp")(error));
            }
            _ => {}
        }
        for folder in Kind::ALL.map(Kind::folder).into_iter().chain(["tmp"]) {
            let made = fs::create_dir_all(root.join(folder));
            made.map_err(ImageError::io("make the image store"))?;
        }
        let (names, locks) = (AtomicU64::new(0), Mutex::default());
        Ok(ImageStore { root, bytes_max, names, locks })
    }

    /// Where something is or would be.
    pub fn path(&self, kind: Kind, digest: Digest) -> PathBuf {
        self.root.join(kind.folder()).join(digest.hex())
    }

    /// The folders of what clients' VMs open by path.
    pub fn folders(&self) -> Vec<PathBuf> {
        [Kind::Artifact, Kind::Disk].map(|kind| self.root.join(kind.folder())).to_vec()
    }

    /// What a path of this store names.
    pub fn named_by(&self, path: &Path) -> Option<(Kind, Digest)> {
        let digest = Digest::from_hex(path.file_name()?.to_str()?)?;
        Kind::ALL.into_iter().find(|kind| self.path(*kind, digest) == path).map(|k| (k, digest))
    }

    /// Bytes of something, if it is there.
    pub fn len_of(&self, kind: Kind, digest: Digest) -> Option<u64> {
        fs::metadata(self.path(kind, digest)).ok().map(|meta| meta.len())
    }

    /// Opens something that is there.
    ///
    /// # Errors
    /// It is not; the host's.
    pub fn open_file(&self, kind: Kind, digest: Digest) -> Result<File, ImageError> {
        File::open(self.path(kind, digest))
            .map_err(ImageError::io("open a file of the image store"))
    }

    /// One at a time for each digest: who waits finds afterwards what the first one has made.
    pub async fn lock(&self, digest: Digest) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| 0 < lock.strong_count());
            let known = locks.get(&digest).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let lock = Arc::default();
                locks.insert(digest, Arc::downgrade(&lock));
                lock
            })
        };
        lock.lock_owned().await
    }

    /// A new file that has no name in the store yet.
    ///
    /// # Errors
    /// The host's.
    pub fn temporary(&self) -> Result<Temporary, ImageError> {
        // ORDER: only the number's uniqueness counts.
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join("tmp").join(number.to_string());
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(ImageError::io("make a file in the image store"))?;
        Ok(Temporary { path, file })
    }

    /// Gives a file that is complete its name. It is synced first.
    ///
    /// # Errors
    /// The host's.
    pub fn commit(&self, from: &Path, kind: Kind, digest: Digest) -> Result<(), ImageError> {
        let step = || ImageError::io("store a file");
        File::open(from).and_then(|file| file.sync_data()).map_err(step())?;
        fs::rename(from, self.path(kind, digest)).map_err(step())?;
        let folder = File::open(self.root.join(kind.folder()));
        folder.and_then(|folder| folder.sync_all()).map_err(step())
    }

    /// Removes something; that it is not there is no failure.
    ///
    /// # Errors
    /// The host's.
    pub fn remove(&self, kind: Kind, digest: Digest) -> Result<(), ImageError> {
        match fs::remove_file(self.path(kind, digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ImageError::io("remove a file of the image store")(error))
            }
            _ => Ok(()),
        }
    }

    /// Everything in the store.
    ///
    /// # Errors
    /// The host's.
    pub fn list(&self) -> Result<Vec<Stored>, ImageError> {
        let mut found = Vec::new();
        for kind in Kind::ALL {
            let step = || ImageError::io("list the image store");
            for entry in fs::read_dir(self.root.join(kind.folder())).map_err(step())? {
                let entry = entry.map_err(step())?;
                let name = entry.file_name();
                let Some(digest) = name.to_str().and_then(Digest::from_hex) else { continue };
                // Gone meanwhile: it was not there.
                let Ok(meta) = entry.metadata() else { continue };
                found.push(Stored { kind, digest, bytes: meta.blocks() * 512 });
            }
        }
        Ok(found)
    }

    /// Whether `more` bytes may come.
    ///
    /// # Errors
    /// [`ImageError::StoreFull`].
    pub fn admit(&self, more: u64) -> Result<(), ImageError> {
        let used: u64 = self.list()?.iter().map(|stored| stored.bytes).sum();
        if self.bytes_max < used.saturating_add(more) {
            return Err(ImageError::StoreFull { bytes_max: self.bytes_max });
        }
        Ok(())
    }
}

/// A file that goes away unless it is committed.
#[derive(Debug)]
pub struct Temporary {
    /// Where it is.
    pub path: PathBuf,
    /// The file.
    pub file: File,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a commit there is nothing here any more.
        let _ = fs::remove_file(&self.path);
    }
}

impl BlobSink for ImageStore {
    fn store(&self, blob: &mut dyn Read) -> Result<(Digest, u64), ImageError> {
        self.admit(0)?;
        let mut temporary = self.temporary()?;
        let (mut hash, mut len) = (Sha256::new(), 0u64);
        let mut buffer = vec![0; COPY_LEN];
        let mut checked = 0;
        loop {
            let count = match blob.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ImageError::io("read a blob")(error)),
            };
            hash.update(&buffer[..count]);
            temporary.file.write_all(&buffer[..count]).map_err(ImageError::io("store a blob"))?;
            len += count as u64;
            // The cap holds for what is being written as well, give or take a step.
            if self.bytes_max / 64 + (64 << 20) < len - checked {
                self.admit(len)?;
                checked = len;
            }
        }
        self.admit(len)?;
        let digest = Digest(hash.finalize().into());
        if self.len_of(Kind::Blob, digest).is_none() {
            self.commit(&temporary.path, Kind::Blob, digest)?;
        }
        Ok((digest, len))
    }

    fn document(&self, digest: Digest) -> Result<Vec<u8>, ImageError> {
        let file = self.open_file(Kind::Blob, digest)?;
        let mut bytes = Vec::new();
        let read = file.take(DOCUMENT_LEN_MAX + 1).read_to_end(&mut bytes);
        read.map_err(ImageError::io("read a document"))?;
        if DOCUMENT_LEN_MAX < bytes.len() as u64 {
            return Err(ImageError::Invalid(format!("{digest} is too large for a document")));
        }
        let found = Digest(Sha256::digest(&bytes).into());
        if found != digest {
            let what = "a document in the store".to_owned();
            return Err(ImageError::Digest { what, expected: digest, found });
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_name_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let store = ImageStore::open(folder.path().join("a"), 1 << 20).unwrap();
        let (digest, len) = store.store(&mut &b"hello"[..]).unwrap();
        assert_eq!((store.len_of(Kind::Blob, digest), len), (Some(5), 5));
        assert_eq!(store.document(digest).unwrap(), b"hello");
        assert_eq!(store.store(&mut &b"hello"[..]).unwrap(), (digest, 5), "stored once");
        assert_eq!(store.list().unwrap().len(), 1);
        fs::write(store.path(Kind::Blob, digest), "jello").unwrap();
        assert!(matches!(store.document(digest), Err(ImageError::Digest { .. })));
        let kept = store.temporary().unwrap();
        let path = kept.path.clone();
        std::mem::forget(kept);
        drop(store);
        let store = ImageStore::open(folder.path().join("a"), 1 << 20).unwrap();
        assert!(!path.exists(), "what a crash leaves is gone after a start");
        store.remove(Kind::Blob, digest).unwrap();
        store.remove(Kind::Blob, digest).unwrap();
        assert!(store.list().unwrap().is_empty());
    }

    #[test]
    fn the_cap_holds() {
        let folder = tempfile::tempdir().unwrap();
        let store = ImageStore::open(folder.path().to_owned(), 1 << 20).unwrap();
        store.store(&mut io::repeat(1).take(900 << 10)).unwrap();
        let refused = store.store(&mut io::repeat(2).take(900 << 10));
        assert!(matches!(refused, Err(ImageError::StoreFull { .. })), "{refused:?}");
        let tmp = fs::read_dir(folder.path().join("tmp")).unwrap();
        assert_eq!(tmp.count(), 0, "what was refused leaves nothing");
    }

    #[tokio::test]
    async fn one_at_a_time_for_each_digest() {
        let folder = tempfile::tempdir().unwrap();
        let store = ImageStore::open(folder.path().to_owned(), 1 << 20).unwrap();
        let (a, b) = (Digest([1; 32]), Digest([2; 32]));
        let held = store.lock(a).await;
        let _other = store.lock(b).await;
        let waiting = store.lock(a);
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(held);
        waiting.await;
    }
}
