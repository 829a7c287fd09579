//! Guest RAM: one sealed memfd, mapped once.
//!
//! The memfd is what later makes fork, snapshot and hand-over cheap (architecture, decision 4). The
//! seals forbid to shrink it, so that nobody who is handed the descriptor can turn an access by
//! this process into SIGBUS.
#![expect(unsafe_code, reason = "KVM is told addresses of mappings that this file owns")]

use std::fs::File;
use std::sync::Arc;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{Advice, madvise};
use vm_memory::{
    Address, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap,
};

use vm_memory::mmap::MmapRegionBuilder;

use crate::vmm::layout::{HIGH_RAM, LOW_RAM_END};
use crate::vmm::{Error, host};

/// Makes guest RAM of `memory_mib` MiB: up to 3 GiB from address 0, the rest from 4 GiB. With
/// `huge_pages` the host is asked to back it by pages of 2 MiB, which makes the first touch and the
/// guest's page walks cheaper (docs/boot.md).
///
/// # Errors
/// The host has no memory, descriptors or address space left.
pub fn allocate(
    label: &str,
    memory_mib: u64,
    huge_pages: bool,
) -> Result<Arc<GuestMemoryMmap>, Error> {
    let len = memory_mib
        .checked_mul(1 << 20)
        .ok_or_else(|| Error::Image(format!("{memory_mib} MiB of memory do not exist")))?;
    let name = format!("volant-{label}");
    let fd = memfd_create(name.as_str(), MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .map_err(|errno| host("create the memory file", errno))?;
    ftruncate(&fd, len).map_err(|errno| host("size the memory file", errno))?;
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
        .map_err(|errno| host("seal the memory file", errno))?;

    let file = Arc::new(File::from(fd));
    let low = len.min(LOW_RAM_END);
    let mut regions = vec![map(&file, 0, 0, low)?];
    if low < len {
        regions.push(map(&file, low, HIGH_RAM, len - low)?);
    }
    if huge_pages {
        regions.iter().for_each(advise_huge_pages);
    }
    GuestMemoryMmap::from_regions(regions)
        .map(Arc::new)
        .map_err(|error| Error::Image(format!("guest memory cannot be laid out: {error}")))
}

/// Maps `len` bytes of the file at `offset` to the guest-physical address `base`.
fn map(file: &Arc<File>, offset: u64, base: u64, len: u64) -> Result<GuestRegionMmap, Error> {
    let size = usize::try_from(len).map_err(|_| Error::Image("too much memory".to_owned()))?;
    let region = MmapRegionBuilder::new(size)
        .with_file_offset(FileOffset::from_arc(Arc::clone(file), offset))
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_SHARED | libc::MAP_NORESERVE)
        .build()
        .map_err(|error| host("map guest memory", std::io::Error::other(error)))?;
    GuestRegionMmap::new(region, GuestAddress(base))
        .ok_or_else(|| Error::Image("guest memory wraps around".to_owned()))
}

/// Only advice: a host that gives none (docs/boot.md) is slower, not wrong.
fn advise_huge_pages(region: &GuestRegionMmap) {
    let len = usize::try_from(region.len()).unwrap_or(0);
    // SAFETY: the range is the region's whole live mapping; the advice changes no contents.
    let _ = unsafe { madvise(region.as_ptr().cast(), len, Advice::LinuxHugepage) };
}

/// Tells KVM of the memory: one slot for each region. Before the in-kernel irqchip is made, which
/// is two orders of magnitude cheaper on Linux 6.18 than after (docs/boot.md).
///
/// # Errors
/// KVM refuses a slot.
pub fn register(vm: &VmFd, memory: &GuestMemoryMmap) -> Result<(), Error> {
    for (slot, region) in (0u32..).zip(memory.iter()) {
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the range is a live mapping of `memory`; the machine drops its VM before its
        // memory, so KVM never sees the range after it is unmapped.
        unsafe { vm.set_user_memory_region(region) }.map_err(|errno| host("set memory", errno))?;
    }
    Ok(())
}

/// The end of RAM below 4 GiB.
pub fn low_end(memory: &GuestMemoryMmap) -> u64 {
    memory.iter().next().map_or(0, GuestMemoryRegion::len)
}
