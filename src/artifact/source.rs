//! Files by address and digest: from a server or a folder of the host into the store, once.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue, RANGE};
use hyper::{Response, StatusCode};
use sha2::{Digest as _, Sha256};

use crate::artifact::download::{Origin, Target, download};
use crate::artifact::fetch::{Fetcher, Named};
use crate::artifact::folders::{Folders, reopen};
use crate::artifact::oci::{ImageError, blocking, failure};
use crate::artifact::progress::{Phase, ProgressSender};
use crate::artifact::qcow2;
use crate::artifact::store::{ImageStore, Kind};
use crate::model::{Digest, Medium, MediumFormat};

/// Bytes copied at once.
const COPY_LEN: usize = 1 << 20;

/// Where files may come from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// What asks servers.
    pub fetcher: Fetcher,
    /// Folders of the host.
    pub folders: Arc<Folders>,
}

/// Brings a medium, unless it is there. What it is called in the store, and its bytes there.
///
/// # Errors
/// [`ImageError`].
pub async fn bring(
    store: &Arc<ImageStore>,
    sources: &Sources,
    medium: &Medium,
    progress: &ProgressSender,
) -> Result<(Kind, Digest, u64), ImageError> {
    let is_remote = !medium.source.starts_with('/');
    // Without a digest it is named by where it comes from while it is under way.
    let key = medium.digest.unwrap_or_else(|| Digest(Sha256::digest(&medium.source).into()));
    let one = progress.or_cancelled(store.lock(key)).await?;
    let here = medium
        .digest
        .and_then(|digest| store.len_of(Kind::Artifact, digest).map(|len| (digest, len)));
    let (digest, len) = match here {
        Some(here) => here,
        None if is_remote => fetch(store, &sources.fetcher, medium, key, progress).await?,
        None => copy(store, &sources.folders, medium, progress).await?,
    };
    drop(one);
    match medium.format {
        MediumFormat::Raw => Ok((Kind::Artifact, digest, len)),
        MediumFormat::Qcow2 => unpack(store, digest, progress).await,
    }
}

async fn fetch(
    store: &Arc<ImageStore>,
    fetcher: &Fetcher,
    medium: &Medium,
    key: Digest,
    progress: &ProgressSender,
) -> Result<(Digest, u64), ImageError> {
    let origin = Server { fetcher, url: &medium.source };
    let target = Target { kind: Kind::Artifact, key, digest: medium.digest, size: None };
    download(store, target, &origin, progress).await
}

/// A file of a server.
struct Server<'a> {
    fetcher: &'a Fetcher,
    url: &'a str,
}

impl Origin for Server<'_> {
    async fn ask(&self, offset: u64) -> Result<Response<Incoming>, ImageError> {
        let mut headers = HeaderMap::new();
        if 0 < offset
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={offset}-"))
        {
            headers.insert(RANGE, range);
        }
        let answer = self.fetcher.get(self.url, &headers, Named::ByClient).await?;
        match answer.status() {
            status if status.is_success() => Ok(answer),
            StatusCode::RANGE_NOT_SATISFIABLE if 0 < offset => Ok(answer),
            _ => Err(failure(self.url.split('/').nth(2).unwrap_or_default(), &answer, self.url)),
        }
    }
}

/// Copies a file of the host: what has been checked does not change any more.
async fn copy(
    store: &Arc<ImageStore>,
    folders: &Arc<Folders>,
    medium: &Medium,
    progress: &ProgressSender,
) -> Result<(Digest, u64), ImageError> {
    let (store, folders, medium) = (Arc::clone(store), Arc::clone(folders), medium.clone());
    let progress = progress.clone();
    blocking(move || {
        let path = Path::new(&medium.source);
        let handle = folders.find(path, false)?;
        let meta =
            rustix::fs::fstat(&handle).map_err(|e| ImageError::io("look at a file")(e.into()))?;
        if !rustix::fs::FileType::from_raw_mode(meta.st_mode).is_file() {
            return Err(crate::artifact::unusable(path, "is not a regular file").into());
        }
        let mut from = reopen(&handle, OpenOptions::new().read(true))
            .map_err(ImageError::io("open a file"))?;
        store.admit(from.metadata().map_err(ImageError::io("look at a file"))?.len())?;
        let mut to = store.temporary()?;
        let (mut hash, mut buffer, mut len) = (Sha256::new(), vec![0; COPY_LEN], 0);
        loop {
            progress.check()?;
            let count = from.read(&mut buffer).map_err(ImageError::io("read a file"))?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
            to.file.write_all(&buffer[..count]).map_err(ImageError::io("copy a file"))?;
            len += count as u64;
        }
        let found = Digest(hash.finalize().into());
        if let Some(expected) = medium.digest.filter(|expected| *expected != found) {
            return Err(ImageError::Digest { what: medium.source, expected, found });
        }
        store.commit(&to.path, Kind::Artifact, found)?;
        Ok((found, len))
    })
    .await
}

/// Makes a raw disk of a qcow2 file in the store, once.
async fn unpack(
    store: &Arc<ImageStore>,
    digest: Digest,
    progress: &ProgressSender,
) -> Result<(Kind, Digest, u64), ImageError> {
    let _one = progress.or_cancelled(store.lock(digest)).await?;
    if let Some(len) = store.len_of(Kind::Disk, digest) {
        return Ok((Kind::Disk, digest, len));
    }
    progress.send_modify(|now| now.phase = Phase::Converting);
    let (store, progress) = (Arc::clone(store), progress.clone());
    blocking(move || {
        let packed = store.open_file(Kind::Artifact, digest)?;
        let out = store.temporary()?;
        let (mut unpacked, mut looked) = (0, 0);
        let write = |at: u64, bytes: &[u8]| {
            progress.check().map_err(std::io::Error::other)?;
            // Zeros count although they are left out: a small file may hold any number of them.
            unpacked += bytes.len() as u64;
            if looked + LOOK_LEN < unpacked {
                looked = unpacked;
                store.admit(unpacked).map_err(std::io::Error::other)?;
            }
            if bytes.iter().any(|byte| *byte != 0) {
                out.file.write_all_at(bytes, at)?;
            }
            Ok(())
        };
        let len = qcow2::unpack(&packed, write).map_err(|error| match error {
            qcow2::Qcow2Error::Invalid(text) => ImageError::Invalid(text),
            qcow2::Qcow2Error::Io(error) => match error.downcast::<ImageError>() {
                Ok(refused) => refused,
                Err(error) => ImageError::io("unpack a disk")(error),
            },
        })?;
        out.file.set_len(len).map_err(ImageError::io("unpack a disk"))?;
        store.admit(unpacked)?;
        crate::sys::crash::point("artifact.unpacked");
        store.commit(&out.path, Kind::Disk, digest)?;
        Ok((Kind::Disk, digest, len))
    })
    .await
}

/// Bytes between two looks at what the store may take.
const LOOK_LEN: u64 = 256 << 20;

#[cfg(test)]
mod tests;
