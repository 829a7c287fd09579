//! Boot parameters: the zero page of the 64-bit protocol, and the start info of PVH.

use linux_loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use vm_memory::{ByteValued, GuestMemoryMmap};

use crate::vmm::Error;
use crate::vmm::boot::{Initramfs, Range, put};
use crate::vmm::layout::{
    CMDLINE, CMDLINE_LEN_MAX, PVH_MEMMAP, PVH_MODLIST, PVH_START_INFO, ZERO_PAGE,
};

/// "xEn3", the magic of `hvm_start_info` (Xen, docs/misc/pvh).
const START_INFO_MAGIC: u32 = 0x336e_c578;
/// "HdrS" (Documentation/arch/x86/boot.rst).
const HEADER_MAGIC: u32 = 0x5372_6448;
/// `boot_flag` of a valid boot sector.
const BOOT_FLAG: u16 = 0xaa55;
/// `type_of_loader`: none of the registered ones.
const LOADER_UNDEFINED: u8 = 0xff;
/// What an ELF kernel's absent header would say; the kernel asserts alignment only.
const KERNEL_ALIGNMENT: u32 = 0x100_0000;

/// Writes `boot_params`.
///
/// # Errors
/// [`Error::Image`] when the structures do not fit.
pub fn write_zero_page(
    memory: &GuestMemoryMmap,
    map: &[Range],
    initramfs: Option<Initramfs>,
    header: Option<setup_header>,
) -> Result<(), Error> {
    let mut params = boot_params {
        hdr: header.unwrap_or(setup_header {
            boot_flag: BOOT_FLAG,
            header: HEADER_MAGIC,
            kernel_alignment: KERNEL_ALIGNMENT,
            ..Default::default()
        }),
        ..Default::default()
    };
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.cmd_line_ptr = low_u32(CMDLINE)?;
    params.hdr.cmdline_size = low_u32(CMDLINE_LEN_MAX as u64)?;
    if let Some(initramfs) = initramfs {
        params.hdr.ramdisk_image = low_u32(initramfs.start)?;
        params.hdr.ramdisk_size = low_u32(initramfs.len)?;
    }
    for (slot, range) in params.e820_table.iter_mut().zip(map) {
        *slot = boot_e820_entry { addr: range.start, size: range.len, r#type: range.kind };
        params.e820_entries += 1;
    }
    put(memory, ZERO_PAGE, params.as_slice())
}

fn low_u32(value: u64) -> Result<u32, Error> {
    u32::try_from(value).map_err(|_| Error::Image(format!("{value:#x} is beyond 4 GiB")))
}

/// Writes `hvm_start_info`, its memory map and its module list.
///
/// # Errors
/// [`Error::Image`] when the structures do not fit.
pub fn write_pvh(
    memory: &GuestMemoryMmap,
    map: &[Range],
    initramfs: Option<Initramfs>,
) -> Result<(), Error> {
    let mut info = hvm_start_info {
        magic: START_INFO_MAGIC,
        version: 1,
        cmdline_paddr: CMDLINE,
        memmap_paddr: PVH_MEMMAP,
        ..Default::default()
    };
    if let Some(initramfs) = initramfs {
        let module =
            hvm_modlist_entry { paddr: initramfs.start, size: initramfs.len, ..Default::default() };
        put(memory, PVH_MODLIST, module.as_slice())?;
        info.modlist_paddr = PVH_MODLIST;
        info.nr_modules = 1;
    }
    for (at, range) in (PVH_MEMMAP..).step_by(size_of::<hvm_memmap_table_entry>()).zip(map) {
        let entry = hvm_memmap_table_entry {
            addr: range.start,
            size: range.len,
            type_: range.kind,
            ..Default::default()
        };
        put(memory, at, entry.as_slice())?;
        info.memmap_entries += 1;
    }
    put(memory, PVH_START_INFO, info.as_slice())
}
