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
    check(&kernel)?;
    let mut magic = [0u8; 4];
    kernel.rewind().and_then(|()| kernel.read_exact(&mut magic)).map_err(|_| truncated())?;
    if &magic == b"\x7fELF" {
        load_elf(memory, &mut kernel, protocol)
    } else {
        load_bzimage(memory, &mut kernel)
    }
}

fn truncated() -> Error {
    Error::Image("the kernel file is truncated".to_owned())
}

fn load_elf(
    memory: &GuestMemoryMmap,
    kernel: &mut File,
    protocol: BootProtocol,
) -> Result<Loaded, Error> {
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

/// Whether the file holds a whole kernel, and the first address behind it once it runs. Reads
/// headers only; what linux-loader trusts in them is bounded here, before it sees the file.
///
/// # Errors
/// [`Error::Image`] says what is wrong with the file.
pub fn check(kernel: &File) -> Result<u64, Error> {
    let len = kernel.metadata().map_or(0, |meta| meta.len());
    let mut magic = [0u8; 4];
    kernel.read_exact_at(&mut magic, 0).map_err(|_| truncated())?;
    if &magic == b"\x7fELF" { check_elf(kernel, len) } else { check_bzimage(kernel, len) }
}

/// The little-endian field of `size` bytes at `at`.
fn field(bytes: &[u8], at: usize, size: usize) -> u64 {
    bytes[at..at + size].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn check_elf(kernel: &File, len: u64) -> Result<u64, Error> {
    const PT_LOAD: u64 = 1;
    const HEADER_LEN: u64 = 56;
    const HEADERS_MAX: u64 = 64;
    let mut header = [0u8; 64];
    kernel.read_exact_at(&mut header, 0).map_err(|_| truncated())?;
    let (start, size, count) =
        (field(&header, 32, 8), field(&header, 54, 2), field(&header, 56, 2));
    if size != HEADER_LEN || count == 0 || HEADERS_MAX < count {
        let text = format!("the kernel has {count} program headers of {size} bytes");
        return Err(Error::Image(text));
    }
    let mut end = 0;
    for index in 0..count {
        let mut header = [0u8; 56];
        let at = start.checked_add(index * HEADER_LEN).ok_or_else(truncated)?;
        kernel.read_exact_at(&mut header, at).map_err(|_| truncated())?;
        if field(&header, 0, 4) != PT_LOAD {
            continue;
        }
        let (offset, in_file) = (field(&header, 8, 8), field(&header, 32, 8));
        offset.checked_add(in_file).filter(|end| *end <= len).ok_or_else(truncated)?;
        let (address, in_memory) = (field(&header, 24, 8), field(&header, 40, 8));
        let segment_end = address.checked_add(in_memory.max(in_file)).ok_or_else(truncated)?;
        end = segment_end.max(end);
    }
    Ok(end)
}

/// The setup header (Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header").
fn check_bzimage(kernel: &File, len: u64) -> Result<u64, Error> {
    const SECTOR_LEN: u64 = 512;
    let mut header = [0u8; 0x268];
    kernel.read_exact_at(&mut header, 0).map_err(|_| truncated())?;
    if &header[0x202..0x206] != b"HdrS" {
        return Err(Error::Image("neither an ELF kernel nor a bzImage".to_owned()));
    }
    // 0 means 4, for the sake of very old kernels.
    let sectors = match field(&header, 0x1f1, 1) {
        0 => 4,
        sectors => sectors,
    };
    let whole = (sectors + 1) * SECTOR_LEN + field(&header, 0x1f4, 4) * 16;
    if len < whole {
        return Err(truncated());
    }
    let (address, room) = (field(&header, 0x258, 8), field(&header, 0x260, 4));
    address.checked_add(room).ok_or_else(truncated)
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
    let start = place_initramfs(len, kernel_end, low_end)?;
    copy_file(memory, file, start, len)?;
    Ok(Initramfs { start, len })
}

/// Where an initramfs of `len` bytes goes.
///
/// # Errors
/// [`Error::Image`] when it does not fit between the kernel and the top of low RAM.
pub fn place_initramfs(len: u64, kernel_end: u64, low_end: u64) -> Result<u64, Error> {
    let start = low_end.checked_sub(len).map(|start| start & !(PAGE - 1));
    start.filter(|start| kernel_end < *start).ok_or_else(|| {
        let room = low_end.saturating_sub(kernel_end);
        let text = format!("the initramfs of {len} bytes does not fit into {room} bytes of memory");
        Error::Image(text)
    })
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
