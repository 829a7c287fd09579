//! Copies kernel and initramfs into guest memory.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use linux_loader::bootparam::setup_header;
use linux_loader::loader::elf::PvhBootCapability;
use linux_loader::loader::{BzImage, Elf, KernelLoader};
use vm_memory::{Address, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, ReadVolatile};

use crate::vmm::boot::{Entry, Initramfs};
use crate::vmm::layout::HIGH_MEMORY;
use crate::vmm::{BootProtocol, Error};

/// Offset of the 64-bit entry in a loaded bzImage (Documentation/arch/x86/boot.rst, 64-bit boot
/// protocol).
const BZIMAGE_ENTRY_64: u64 = 0x200;
/// `xloadflags` bit: the kernel has the 64-bit entry.
const XLF_KERNEL_64: u16 = 1;
/// Initramfs placement is page aligned.
const PAGE: u64 = 4096;

/// A kernel in memory.
#[derive(Debug)]
pub struct Loaded {
    /// Where it begins.
    pub entry: Entry,
    /// First address behind it.
    pub end: u64,
    /// Of a bzImage: its own header, which the zero page repeats.
    pub setup_header: Option<setup_header>,
}

/// Loads an ELF `vmlinux` or a `bzImage`.
///
/// # Errors
/// [`Error::Image`] says what is wrong with the file.
pub fn load(
    memory: &GuestMemoryMmap,
    kernel: &File,
    protocol: BootProtocol,
) -> Result<Loaded, Error> {
    let mut kernel = kernel
        .try_clone()
        .map_err(|error| Error::Host { step: "duplicate the kernel file", source: error })?;
    let mut magic = [0u8; 4];
    kernel.rewind().and_then(|()| kernel.read_exact(&mut magic)).map_err(|_| truncated())?;
    if &magic == b"\x7fELF" {
        load_elf(memory, &mut kernel, protocol)
    } else {
        load_bzimage(memory, &mut kernel)
    }
}

fn truncated() -> Error {
    Error::Image("the kernel file is too short to be a kernel".to_owned())
}

fn load_elf(
    memory: &GuestMemoryMmap,
    kernel: &mut File,
    protocol: BootProtocol,
) -> Result<Loaded, Error> {
    check_program_headers(kernel)?;
    let result = Elf::load(memory, None, kernel, Some(GuestAddress(HIGH_MEMORY)))
        .map_err(|error| Error::Image(format!("the kernel cannot be loaded: {error}")))?;
    let start = result.kernel_load.raw_value();
    let entry = match (protocol, result.pvh_boot_cap) {
        (BootProtocol::Auto | BootProtocol::Pvh, PvhBootCapability::PvhEntryPresent(address)) => {
            Entry::Pvh(address.raw_value())
        }
        (BootProtocol::Pvh, _) => {
            return Err(Error::Image("the kernel has no PVH entry note".to_owned()));
        }
        (BootProtocol::Auto | BootProtocol::Linux64, _) => Entry::Linux64(start),
    };
    Ok(Loaded { entry, end: result.kernel_end, setup_header: None })
}

/// linux-loader trusts some sizes of the header: bounds them before it sees the file.
fn check_program_headers(kernel: &File) -> Result<(), Error> {
    let len = kernel.metadata().map_or(0, |meta| meta.len());
    let mut header = [0u8; 64];
    kernel.read_exact_at(&mut header, 0).map_err(|_| truncated())?;
    let field = |at: usize, n: usize| {
        header[at..at + n].iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte))
    };
    let (phoff, phentsize, phnum) = (field(32, 8), field(54, 2), field(56, 2));
    if phentsize != 56 || phnum == 0 || 64 < phnum {
        return Err(Error::Image(format!(
            "the kernel has {phnum} program headers of {phentsize} bytes"
        )));
    }
    let end = phoff.checked_add(phentsize * phnum).filter(|end| *end <= len);
    end.map(|_| ()).ok_or_else(|| Error::Image("the kernel file is truncated".to_owned()))
}

fn load_bzimage(memory: &GuestMemoryMmap, kernel: &mut File) -> Result<Loaded, Error> {
    let result = BzImage::load(memory, None, kernel, Some(GuestAddress(HIGH_MEMORY)))
        .map_err(|error| Error::Image(format!("not an ELF kernel, nor a bzImage: {error}")))?;
    let header = result
        .setup_header
        .ok_or_else(|| Error::Image("the bzImage has no setup header".to_owned()))?;
    if { header.xloadflags } & XLF_KERNEL_64 == 0 {
        return Err(Error::Image("the bzImage has no 64-bit entry".to_owned()));
    }
    let start = result.kernel_load.raw_value();
    // The decompressor works in place within `init_size` bytes from the preferred address.
    let room = { header.pref_address }.saturating_add(u64::from(header.init_size));
    let end = room.max(result.kernel_end);
    Ok(Loaded { entry: Entry::Linux64(start + BZIMAGE_ENTRY_64), end, setup_header: Some(header) })
}

/// Copies the initramfs to the top of low RAM, page aligned.
///
/// # Errors
/// [`Error::Image`] when it does not fit between the kernel and the top.
pub fn load_initramfs(
    memory: &GuestMemoryMmap,
    file: &File,
    kernel_end: u64,
    low_end: u64,
) -> Result<Initramfs, Error> {
    let len = file
        .metadata()
        .map_err(|error| Error::Host { step: "stat the initramfs", source: error })?
        .len();
    let start = low_end
        .checked_sub(len)
        .map(|start| start & !(PAGE - 1))
        .filter(|start| kernel_end < *start)
        .ok_or_else(|| {
            let room = low_end.saturating_sub(kernel_end);
            Error::Image(format!(
                "the initramfs of {len} bytes does not fit into {room} bytes of memory"
            ))
        })?;
    copy_file(memory, file, start, len)?;
    Ok(Initramfs { start, len })
}

/// Copies `len` bytes of a file to a guest-physical address.
///
/// # Errors
/// The file is shorter than it said, or the host cannot read it.
fn copy_file(memory: &GuestMemoryMmap, file: &File, at: u64, len: u64) -> Result<(), Error> {
    let host = |source| Error::Host { step: "read the initramfs", source };
    let mut file = file.try_clone().map_err(host)?;
    file.seek(SeekFrom::Start(0)).map_err(host)?;
    let size =
        usize::try_from(len).map_err(|_| Error::Image("the initramfs is too large".to_owned()))?;
    let mut slice = memory
        .get_slice(GuestAddress(at), size)
        .map_err(|error| Error::Image(format!("the initramfs does not fit: {error}")))?;
    file.read_exact_volatile(&mut slice)
        .map_err(|error| Error::Image(format!("the initramfs cannot be read whole: {error}")))
}
