//! How far work that takes long has come, and the wish that it end. Whoever does it tells here and looks
//! here; whoever waits for it holds the other end.

use std::future::Future;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::artifact::oci::ImageError;

/// What is being done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Reading the documents.
    #[default]
    Resolving,
    /// Fetching layers.
    Downloading,
    /// Making the root.
    Converting,
    /// Nothing any more.
    Done,
}

impl Phase {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Resolving => "resolving",
            Phase::Downloading => "downloading",
            Phase::Converting => "converting",
            Phase::Done => "done",
        }
    }
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// Bytes done in this phase.
    pub bytes_done: u64,
    /// Bytes to do in this phase; 0 while nobody knows.
    pub bytes_total: u64,
    /// Bytes of downloads that an earlier try had brought already.
    pub bytes_resumed: u64,
}

/// The end of who works: tells how far it is, of which listeners see the latest only, and knows whether
/// it is to end. Clones are the same end.
#[derive(Clone, Debug, Default)]
pub struct ProgressSender {
    now: watch::Sender<Progress>,
    cancel: CancellationToken,
}

impl ProgressSender {
    /// Tells a change.
    pub fn send_modify(&self, change: impl FnOnce(&mut Progress)) {
        self.now.send_modify(change);
    }

    /// A listener.
    pub fn subscribe(&self) -> watch::Receiver<Progress> {
        self.now.subscribe()
    }

    /// Asks the work to end. It does at its next step that can be left; what has come is kept.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// # Errors
    /// [`ImageError::Cancelled`] once that has been asked for.
    pub fn check(&self) -> Result<(), ImageError> {
        if self.cancel.is_cancelled() { Err(ImageError::Cancelled) } else { Ok(()) }
    }

    /// What `step` gives. It must be one that may be dropped half done.
    ///
    /// # Errors
    /// [`ImageError::Cancelled`].
    pub async fn or_cancelled<T>(&self, step: impl Future<Output = T>) -> Result<T, ImageError> {
        match self.cancel.run_until_cancelled(step).await {
            Some(outcome) => Ok(outcome),
            None => Err(ImageError::Cancelled),
        }
    }
}
