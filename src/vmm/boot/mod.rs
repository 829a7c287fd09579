//! From a kernel file to the state in which the boot vCPU begins.
//!
//! Runs once while the machine is built, on the builder's thread. What it is given (kernel,
//! initramfs, command line) is the user's: wrong bytes make an [`Error::Image`], never a panic.

mod kernel;
mod mptable;
mod params;

use std::fs::File;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::vmm::layout::{CMDLINE, CMDLINE_LEN_MAX, EBDA, HIGH_MEMORY, HIGH_RAM, LOW_RAM_END};
use crate::vmm::{BootProtocol, Error};

/// How the boot vCPU begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// 32-bit protected mode, paging off, EBX = start info.
    Pvh(u64),
    /// 64-bit mode, first GiB mapped to itself, RSI = zero page.
    Linux64(u64),
}

/// What is loaded.
#[derive(Debug)]
pub struct Image<'a> {
    /// ELF or bzImage.
    pub kernel: &'a File,
    /// Any cpio the kernel can unpack.
    pub initramfs: Option<&'a File>,
    /// The whole command line.
    pub cmdline: &'a str,
    /// How an ELF kernel is entered.
    pub protocol: BootProtocol,
    /// For the MP table.
    pub vcpus: u8,
}

/// One range of the memory map that the guest is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: u64,
    len: u64,
    /// E820_RAM or E820_RESERVED.
    kind: u32,
}

const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;

/// Where the initramfs lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Initramfs {
    start: u64,
    len: u64,
}

/// Loads kernel, initramfs, command line, MP table and boot parameters.
///
/// # Errors
/// [`Error::Image`] for files that cannot boot or do not fit.
pub fn load(memory: &GuestMemoryMmap, image: &Image<'_>) -> Result<Entry, Error> {
    let low_end = crate::vmm::memory::low_end(memory);
    let loaded = kernel::load(memory, image.kernel, image.protocol)?;
    let initramfs = match image.initramfs {
        Some(file) => Some(kernel::load_initramfs(memory, file, loaded.end, low_end)?),
        None => None,
    };
    write_cmdline(memory, image.cmdline)?;
    mptable::write(memory, image.vcpus)?;
    let map = memory_map(low_end, high_len(memory));
    match loaded.entry {
        Entry::Pvh(_) => params::write_pvh(memory, &map, initramfs)?,
        Entry::Linux64(_) => params::write_zero_page(memory, &map, initramfs, loaded.setup_header)?,
    }
    Ok(loaded.entry)
}

/// Whether kernel and initramfs are whole and fit into `memory_mib` MiB: what [`load`] would refuse,
/// known before anything is made. Reads headers only.
///
/// # Errors
/// [`Error::Image`].
pub fn check(kernel: &File, initramfs: Option<&File>, memory_mib: u64) -> Result<(), Error> {
    let low_end = memory_mib.saturating_mul(1 << 20).min(LOW_RAM_END);
    let kernel_end = kernel::check(kernel)?;
    let needed_mib = kernel_end.div_ceil(1 << 20);
    if low_end < kernel_end {
        return Err(Error::Image(format!("the kernel alone needs {needed_mib} MiB of memory")));
    }
    let len = initramfs.map(File::metadata).transpose();
    let len = len.map_err(|source| Error::Host { step: "stat the initramfs", source })?;
    match len {
        Some(meta) => kernel::place_initramfs(meta.len(), kernel_end, low_end).map(drop),
        None => Ok(()),
    }
}

fn high_len(memory: &GuestMemoryMmap) -> u64 {
    use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};
    memory.iter().nth(1).map_or(0, GuestMemoryRegion::len)
}

fn memory_map(low_end: u64, high_len: u64) -> Vec<Range> {
    let mut map = vec![
        Range { start: 0, len: EBDA, kind: E820_RAM },
        Range { start: EBDA, len: HIGH_MEMORY - EBDA, kind: E820_RESERVED },
        Range { start: HIGH_MEMORY, len: low_end.min(LOW_RAM_END) - HIGH_MEMORY, kind: E820_RAM },
    ];
    if 0 < high_len {
        map.push(Range { start: HIGH_RAM, len: high_len, kind: E820_RAM });
    }
    map
}

fn write_cmdline(memory: &GuestMemoryMmap, cmdline: &str) -> Result<(), Error> {
    if CMDLINE_LEN_MAX <= cmdline.len() || cmdline.contains('\0') {
        let text = format!("the kernel command line has {} bytes", cmdline.len());
        return Err(Error::Image(format!("{text}, at most {} fit", CMDLINE_LEN_MAX - 1)));
    }
    let mut bytes = cmdline.as_bytes().to_vec();
    bytes.push(0);
    put(memory, CMDLINE, &bytes)
}

/// Writes boot structures, which lie in RAM that every machine has.
fn put(memory: &GuestMemoryMmap, at: u64, bytes: &[u8]) -> Result<(), Error> {
    memory
        .write_slice(bytes, GuestAddress(at))
        .map_err(|error| Error::Image(format!("boot data do not fit at {at:#x}: {error}")))
}
