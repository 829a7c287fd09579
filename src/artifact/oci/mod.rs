//! OCI and Docker images: documents, archives, registries, and the way from layers to a root.

mod archive;
mod convert;
mod document;
mod layer;
mod pax;
mod pull;
mod registry;
mod run;

use std::io;
use std::time::Duration;

use crate::artifact::ArtifactError;
use crate::artifact::fetch::FetchError;
use crate::model::Digest;

pub use archive::{BlobSink, Imported, import};
pub use convert::{Layer, build_root, root_digest, unpack};
pub use document::*;
pub use layer::Limits;
pub use pull::{Fetched, blocking, ensure_root, pull};
pub use registry::{Credentials, credentials_in, failure};
pub use run::{environment, folders, workload};

/// Why an image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Somebody has asked for its end.
    #[error("it was cancelled")]
    Cancelled,
    /// It breaks the format or a limit.
    #[error("the image is refused: {0}")]
    Invalid(String),
    /// It is, or holds, something of another kind.
    #[error("the image is refused: {0}")]
    MediaType(String),
    /// A layer breaks the format or a limit.
    #[error("the image is refused: layer {number}: {reason}")]
    Layer {
        /// Counted from 1, the lowest.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Bytes are not what their name says.
    #[error("{what} has the digest {found} and not {expected}")]
    Digest {
        /// Which bytes.
        what: String,
        /// What they are called.
        expected: Digest,
        /// What they are.
        found: Digest,
    },
    /// The registry cannot be asked.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The registry wants other credentials.
    #[error("{0} does not let us read that")]
    Unauthorized(String),
    /// The registry has no such image.
    #[error("{registry} has no {what}")]
    NotInRegistry {
        /// The registry.
        registry: String,
        /// What was asked for.
        what: String,
    },
    /// The registry wants to be left alone for a while.
    #[error("{registry} takes no more requests for now")]
    RateLimited {
        /// The registry.
        registry: String,
        /// For how long.
        retry_after: Duration,
    },
    /// The registry failed.
    #[error("{registry} answered with status {status}")]
    Registry {
        /// The registry.
        registry: String,
        /// HTTP status.
        status: u16,
    },
    /// The store may not grow any more.
    #[error("the image store would take more than its {bytes_max} bytes")]
    StoreFull {
        /// What it may take.
        bytes_max: u64,
    },
    /// A file of the host cannot be taken.
    #[error(transparent)]
    File(#[from] ArtifactError),
    /// The host's disk is full.
    #[error("the disk with the state folder is full")]
    DiskFull,
    /// The host refused.
    #[error("{step}")]
    Host {
        /// The attempted step.
        step: &'static str,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
}

impl ImageError {
    /// Whether it may help to try again.
    pub fn is_passing(&self) -> bool {
        match self {
            ImageError::Fetch(error) => error.is_passing(),
            ImageError::RateLimited { .. } => true,
            ImageError::Registry { status, .. } => 500 <= *status,
            _ => false,
        }
    }

    /// How long it asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            ImageError::RateLimited { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    fn invalid(text: impl Into<String>) -> ImageError {
        ImageError::Invalid(text.into())
    }

    /// A refusal of the host, its most usual one by name.
    pub fn io(step: &'static str) -> impl FnOnce(io::Error) -> ImageError {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ImageError::DiskFull,
            _ => ImageError::Host { step, source },
        }
    }
}

#[cfg(test)]
pub use pull::tests::{reply, serve};
#[cfg(test)]
mod tests;
