//! The TAP device's ioctls.
#![expect(unsafe_code, reason = "ioctl")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Linux `if_tun.h`.
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;
const TUN_F_CSUM: libc::c_ulong = 1;
const TUN_F_TSO4: libc::c_ulong = 2;
const TUN_F_TSO6: libc::c_ulong = 4;

/// Sets the length of the header before each frame.
///
/// # Errors
/// Not a TAP device.
pub fn set_header_len(tap: &OwnedFd, len: usize) -> io::Result<()> {
    let len = libc::c_int::try_from(len).map_err(io::Error::other)?;
    // SAFETY: the kernel reads one int from the address of a live local.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETVNETHDRSZ, &raw const len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Tells the tap what the guest can take: frames without checksum, and segments of TCP.
///
/// # Errors
/// The kernel has no such offload.
pub fn set_offloads(tap: &OwnedFd, csum: bool, tso4: bool, tso6: bool) -> io::Result<()> {
    let mut flags = 0;
    if csum {
        flags |= TUN_F_CSUM;
        flags |= if tso4 { TUN_F_TSO4 } else { 0 };
        flags |= if tso6 { TUN_F_TSO6 } else { 0 };
    }
    // SAFETY: the argument is a number, no address.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETOFFLOAD, flags) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
