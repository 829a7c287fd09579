//! Descriptors of any kind in the runtime's event loop.
#![expect(unsafe_code, reason = "the runtime wants a promise about the descriptor")]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Registers a descriptor that is non-blocking.
///
/// # Errors
/// Files and the like cannot be waited for.
pub fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is one open descriptor until it is dropped; nothing replaces it.
    Ok(unsafe { AsyncFd::register(fd) }?)
}
