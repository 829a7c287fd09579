//! Sockets that the service manager has opened for this process (sd_listen_fds(3)).
#![expect(unsafe_code, reason = "descriptors come as numbers")]

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// The sockets, as duplicates; none without a service manager that passes some. The originals stay open
/// until the process ends.
///
/// # Errors
/// The variables make no sense, or a descriptor is not open.
pub fn sockets() -> io::Result<Vec<OwnedFd>> {
    let mut sockets = Vec::new();
    for fd in sd_notify::listen_fds()? {
        // SAFETY: the service manager has opened it for us, and nobody here closes it.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        sockets.push(fd.try_clone_to_owned()?);
    }
    Ok(sockets)
}
