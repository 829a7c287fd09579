//! One file from a server into the store: goes on where it was cut, is named only when it is whole and
//! what it should be.

use std::fs::OpenOptions;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Response, StatusCode};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt;

use crate::artifact::fetch::FetchError;
use crate::artifact::oci::{ImageError, blocking};
use crate::artifact::progress::ProgressSender;
use crate::artifact::store::{ImageStore, Kind};
use crate::model::Digest;

/// Silence while an answer's body comes.
pub const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Tries without a byte gained, and the first pause between them, which doubles.
const TRIES_MAX: u32 = 5;
const PAUSE_FIRST: Duration = Duration::from_millis(250);
/// Bytes collected before they are written.
const WRITE_LEN: usize = 1 << 20;
/// Bytes between two looks at what the store may take, where nobody has said how many come.
const LOOK_LEN: u64 = 64 << 20;

/// Where a download comes from.
pub trait Origin: Sync {
    /// Asks for its bytes from `offset` on.
    fn ask(
        &self,
        offset: u64,
    ) -> impl Future<Output = Result<Response<Incoming>, ImageError>> + Send;
}

/// Tries again, later and later, as long as that may help.
#[derive(Debug)]
pub struct Patience {
    tries_left: u32,
    pause: Duration,
}

impl Patience {
    /// For so many tries in all.
    pub fn of(tries: u32) -> Patience {
        Patience { tries_left: tries.saturating_sub(1), pause: PAUSE_FIRST }
    }

    /// Waits as long as there is hope.
    ///
    /// # Errors
    /// What went wrong, when there is none.
    pub async fn after(&mut self, error: ImageError) -> Result<(), ImageError> {
        if !error.is_passing() || self.tries_left == 0 {
            return Err(error);
        }
        tracing::info!(%error, left = self.tries_left, "a server is asked again");
        tokio::time::sleep(self.pause.max(error.retry_after().unwrap_or_default())).await;
        self.tries_left -= 1;
        self.pause *= 2;
        Ok(())
    }
}

/// What is downloaded.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What it will be in the store.
    pub kind: Kind,
    /// Names the download until it is whole.
    pub key: Digest,
    /// What it must be; none takes what comes.
    pub digest: Option<Digest>,
    /// Its bytes, where that is known.
    pub size: Option<u64>,
}

/// Brings `target` from `origin`. The caller holds the lock of its key.
/// What has come, and how many bytes.
///
/// # Errors
/// [`ImageError`]; what has come is kept for the next try, unless it is not what it must be.
pub async fn download(
    store: &Arc<ImageStore>,
    target: Target,
    origin: &impl Origin,
    progress: &ProgressSender,
) -> Result<(Digest, u64), ImageError> {
    let mut part = Part::open(store, target).await?;
    progress.send_modify(|now| {
        now.bytes_done += part.len;
        now.bytes_resumed += part.len;
    });
    let mut patience = Patience::of(TRIES_MAX);
    let mut before = part.len;
    while let Err(error) = part.go_on(store, origin, progress).await {
        if before < part.len {
            (patience, before) = (Patience::of(TRIES_MAX), part.len);
        }
        progress.or_cancelled(patience.after(error)).await??;
    }
    part.finish(store, progress).await
}

/// A download.
struct Part {
    file: tokio::fs::File,
    hash: Sha256,
    target: Target,
    len: u64,
}

impl Part {
    async fn open(store: &Arc<ImageStore>, target: Target) -> Result<Part, ImageError> {
        let path = store.path(Kind::Partial, target.key);
        let (file, hash, len) = blocking(move || {
            let step = || ImageError::io("open a download");
            let mut file = OpenOptions::new()
                .read(true)
                .append(true)
                .create(true)
                .open(path)
                .map_err(step())?;
            let (mut hash, mut buffer, mut len) = (Sha256::new(), vec![0; WRITE_LEN], 0);
            // Without a digest nobody could tell whether the rest belongs to what is here.
            if target.digest.is_none() {
                file.set_len(0).map_err(step())?;
            }
            loop {
                match file.read(&mut buffer).map_err(step())? {
                    0 => break,
                    count => {
                        hash.update(&buffer[..count]);
                        len += count as u64;
                    }
                }
            }
            if target.size.is_some_and(|size| size < len) {
                file.set_len(0).map_err(step())?;
                (hash, len) = (Sha256::new(), 0);
            }
            Ok((file, hash, len))
        })
        .await?;
        Ok(Part { file: tokio::fs::File::from_std(file), hash, target, len })
    }

    /// One request: from here to the end, if nothing comes between.
    async fn go_on(
        &mut self,
        store: &Arc<ImageStore>,
        origin: &impl Origin,
        progress: &ProgressSender,
    ) -> Result<(), ImageError> {
        if self.target.size == Some(self.len) {
            return Ok(());
        }
        if self.target.digest.is_none() && 0 < self.len {
            self.restart(progress).await?;
        }
        let answer = progress.or_cancelled(origin.ask(self.len)).await??;
        if answer.status() == StatusCode::RANGE_NOT_SATISFIABLE && 0 < self.len {
            // There is nothing beyond what is here; its digest tells whether that is all.
            return Ok(());
        }
        if 0 < self.len && answer.status() != StatusCode::PARTIAL_CONTENT {
            self.restart(progress).await?;
        }
        let mut body = answer.into_body();
        if self.target.size.is_none()
            && let Some(rest) = hyper::body::Body::size_hint(&body).exact()
        {
            self.admit(store, rest).await?;
            let all = self.len + rest;
            progress.send_modify(|now| now.bytes_total = now.bytes_total.max(all));
        }
        let mut buffer = Vec::with_capacity(WRITE_LEN);
        let mut looked = self.len;
        let outcome = loop {
            let frame = tokio::time::timeout(BODY_IDLE_TIMEOUT, body.frame());
            let frame = match progress.or_cancelled(frame).await {
                Ok(Ok(Some(Ok(frame)))) => frame,
                Ok(Ok(None)) => break Ok(()),
                Ok(Ok(Some(Err(error)))) => break Err(std::io::Error::other(error)),
                Ok(Err(_)) => break Err(std::io::ErrorKind::TimedOut.into()),
                Err(cancelled) => break Err(std::io::Error::other(cancelled)),
            };
            let Some(data) = frame.data_ref() else { continue };
            let have = self.len + buffer.len() as u64;
            if self.target.size.is_some_and(|size| size < have + data.len() as u64) {
                let text = format!("{} is longer than it was announced to be", self.target.key);
                return Err(ImageError::Invalid(text));
            }
            buffer.extend_from_slice(data);
            progress.send_modify(|now| now.bytes_done += data.len() as u64);
            if WRITE_LEN <= buffer.len() {
                self.write(&mut buffer).await?;
            }
            if self.target.size.is_none() && looked + LOOK_LEN < self.len {
                self.admit(store, 0).await?;
                looked = self.len;
            }
        };
        // What has come is kept, also when no more does.
        self.write(&mut buffer).await?;
        progress.check()?;
        let short = self.target.size.is_some_and(|size| self.len < size);
        let short = short.then(|| std::io::ErrorKind::UnexpectedEof.into());
        match outcome.err().or(short) {
            None => Ok(()),
            Some(cause) => {
                let (step, host) = ("download from", "the server".to_owned());
                Err(ImageError::Fetch(FetchError::Network { step, host, cause }))
            }
        }
    }

    async fn admit(&self, store: &Arc<ImageStore>, more: u64) -> Result<(), ImageError> {
        let store = Arc::clone(store);
        blocking(move || store.admit(more)).await
    }

    async fn write(&mut self, buffer: &mut Vec<u8>) -> Result<(), ImageError> {
        self.hash.update(&buffer);
        let written = self.file.write_all(buffer).await;
        let written = if written.is_ok() { self.file.flush().await } else { written };
        written.map_err(ImageError::io("write a download"))?;
        self.len += buffer.len() as u64;
        buffer.clear();
        Ok(())
    }

    async fn restart(&mut self, progress: &ProgressSender) -> Result<(), ImageError> {
        self.file.set_len(0).await.map_err(ImageError::io("begin a download again"))?;
        let again = self.len;
        progress.send_modify(|now| now.bytes_done = now.bytes_done.saturating_sub(again));
        (self.hash, self.len) = (Sha256::new(), 0);
        Ok(())
    }

    async fn finish(
        self,
        store: &Arc<ImageStore>,
        progress: &ProgressSender,
    ) -> Result<(Digest, u64), ImageError> {
        let found = Digest(self.hash.finalize().into());
        let (store, target, len) = (Arc::clone(store), self.target, self.len);
        let outcome = blocking(move || {
            if let Some(expected) = target.digest.filter(|expected| *expected != found) {
                store.remove(Kind::Partial, target.key)?;
                return Err(ImageError::Digest { what: "a download".to_owned(), expected, found });
            }
            store.commit(&store.path(Kind::Partial, target.key), target.kind, found)?;
            Ok((found, len))
        });
        let outcome = outcome.await;
        if outcome.is_err() {
            progress.send_modify(|now| now.bytes_done = now.bytes_done.saturating_sub(len));
        }
        outcome
    }
}
