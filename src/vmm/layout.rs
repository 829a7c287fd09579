//! The guest-physical address map. Constants only; the asserts at the end hold them together.
//!
//! ```text
//! 0x0000_0500 GDT          0x0000_6000 PVH start info    0x0000_7000 zero page / PVH memory map
//! 0x0000_8ff0 boot stack   0x0000_9000 page tables (3)   0x0002_0000 command line
//! 0x0009_fc00 EBDA: MP table, reserved up to 1 MiB       0x0010_0000 kernel
//! 0xc000_0000 end of low RAM   0xd000_0000 virtio-mmio   0xfec0_0000 IOAPIC  0xfee0_0000 LAPIC
//! 0x1_0000_0000 high RAM
//! ```

/// Global descriptor table of the boot vCPU.
pub const GDT: u64 = 0x500;
/// Interrupt descriptor table of the boot vCPU: empty.
pub const IDT: u64 = 0x520;
/// PVH `hvm_start_info`.
pub const PVH_START_INFO: u64 = 0x6000;
/// PVH module list (the initramfs).
pub const PVH_MODLIST: u64 = 0x6040;
/// PVH memory map.
pub const PVH_MEMMAP: u64 = 0x7000;
/// `boot_params` of the 64-bit protocol.
pub const ZERO_PAGE: u64 = 0x7000;
/// Stack of the boot vCPU.
pub const BOOT_STACK: u64 = 0x8ff0;
/// Page-map level 4; the page-directory pointer table and directory follow.
pub const PML4: u64 = 0x9000;
/// Page-directory pointer table.
pub const PDPT: u64 = 0xa000;
/// Page directory: 512 entries of 2 MiB map the first GiB to itself.
pub const PAGE_DIRECTORY: u64 = 0xb000;
/// Kernel command line.
pub const CMDLINE: u64 = 0x2_0000;
/// Longest command line with its terminator; Linux's own COMMAND_LINE_SIZE on x86.
pub const CMDLINE_LEN_MAX: usize = 2048;
/// Extended BIOS data area: end of conventional memory, start of the MP table, which Linux looks
/// for in the last KiB of the 640 KiB.
pub const EBDA: u64 = 0x9_fc00;
/// End of the reserved BIOS area; the kernel begins here.
pub const HIGH_MEMORY: u64 = 0x10_0000;
/// End of RAM below the hole for devices.
pub const LOW_RAM_END: u64 = 0xc000_0000;
/// First RAM above the hole.
pub const HIGH_RAM: u64 = 0x1_0000_0000;
/// First virtio-mmio device.
pub const MMIO: u64 = 0xd000_0000;
/// Bytes of each virtio-mmio device.
pub const MMIO_SLOT_LEN: u64 = 0x1000;
/// I/O APIC, at KVM's fixed address.
pub const IOAPIC: u32 = 0xfec0_0000;
/// Local APIC, at KVM's fixed address.
pub const LAPIC: u32 = 0xfee0_0000;
/// EPT identity-map page (Intel).
pub const IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages for the task-state segment (Intel).
pub const TSS: usize = 0xfffb_d000;

/// I/O APIC pins.
pub const GSI_COUNT: u32 = 24;
/// First pin for virtio devices: those below belong to ISA devices.
pub const GSI_FIRST: u32 = 5;
/// virtio devices that fit between [`GSI_FIRST`] and the last pin.
pub const SLOTS_MAX: usize = (GSI_COUNT - GSI_FIRST) as usize;
/// Pin of the serial port.
pub const GSI_SERIAL: u32 = 4;

/// First port of the 16550 (COM1).
pub const PORT_SERIAL: u16 = 0x3f8;
/// The guest writes how it ends here: 1 power off, 2 reset. Known to volary.
pub const PORT_EXIT: u16 = 0x5f0;

const _: () = assert!(PVH_MODLIST < PVH_MEMMAP && PVH_MEMMAP < BOOT_STACK);
const _: () = assert!(PAGE_DIRECTORY + 0x1000 <= CMDLINE);
const _: () = assert!(CMDLINE + CMDLINE_LEN_MAX as u64 <= EBDA);
const _: () = assert!(MMIO + SLOTS_MAX as u64 * MMIO_SLOT_LEN < IOAPIC as u64);
