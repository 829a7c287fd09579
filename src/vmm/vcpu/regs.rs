//! Registers of a vCPU that begins.

use kvm_bindings::{Msrs, kvm_dtable, kvm_fpu, kvm_msr_entry, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::vmm::boot::Entry;
use crate::vmm::layout::{
    BOOT_STACK, GDT, IDT, PAGE_DIRECTORY, PDPT, PML4, PVH_START_INFO, ZERO_PAGE,
};
use crate::vmm::{Error, host};

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// RFLAGS with nothing but its reserved bit.
const RFLAGS: u64 = 2;
/// Page-table entry: present, writable.
const PTE: u64 = 3;
/// Page-directory entry: present, writable, 2 MiB.
const PDE_2M: u64 = 0x83;
const TWO_MIB: u64 = 2 << 20;

/// GDT: null, code, data, TSS. Flags are those of the descriptor's middle bits.
fn gdt(entry: Entry) -> [u64; 4] {
    match entry {
        Entry::Pvh(_) => [
            0,
            descriptor(0xc09b, 0xf_ffff),
            descriptor(0xc093, 0xf_ffff),
            descriptor(0x008b, 0x67),
        ],
        Entry::Linux64(_) => [
            0,
            descriptor(0xa09b, 0xf_ffff),
            descriptor(0xc093, 0xf_ffff),
            descriptor(0x808b, 0xf_ffff),
        ],
    }
}

/// A segment descriptor with base 0 (SDM vol. 3, 3.4.5).
fn descriptor(flags: u64, limit: u64) -> u64 {
    (flags & 0xf0ff) << 40 | (limit & 0xf_0000) << 32 | limit & 0xffff
}

fn segment(table: &[u64; 4], index: u8) -> kvm_segment {
    let entry = table[usize::from(index)];
    let bits = |at: u32, mask: u64| u8::try_from(entry >> at & mask).unwrap_or(0);
    let limit = u32::try_from(entry >> 32 & 0xf_0000 | entry & 0xffff).unwrap_or(0);
    let granular = bits(55, 1) == 1;
    kvm_segment {
        base: 0,
        limit: if granular { limit << 12 | 0xfff } else { limit },
        selector: u16::from(index) * 8,
        type_: bits(40, 0xf),
        present: bits(47, 1),
        dpl: bits(45, 3),
        db: bits(54, 1),
        s: bits(44, 1),
        l: bits(53, 1),
        g: bits(55, 1),
        avl: bits(52, 1),
        padding: 0,
        unusable: 0,
    }
}

/// Sets the boot vCPU's registers for `entry` and writes the tables they point at.
///
/// # Errors
/// KVM refuses a register set.
pub fn set_boot(vcpu: &VcpuFd, memory: &GuestMemoryMmap, entry: Entry) -> Result<(), Error> {
    let table = gdt(entry);
    write_u64s(memory, GDT, &table)?;
    write_u64s(memory, IDT, &[0])?;
    let mut sregs = vcpu.get_sregs().map_err(|errno| host("get segment registers", errno))?;
    sregs.gdt = kvm_dtable { base: GDT, limit: 31, ..Default::default() };
    sregs.idt = kvm_dtable { base: IDT, limit: 7, ..Default::default() };
    let data = segment(&table, 2);
    sregs.cs = segment(&table, 1);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = segment(&table, 3);
    let mut regs = kvm_regs { rflags: RFLAGS, ..Default::default() };
    match entry {
        Entry::Pvh(address) => {
            (sregs.cr0, sregs.cr4) = (CR0_PE | CR0_ET, 0);
            (regs.rip, regs.rbx) = (address, PVH_START_INFO);
        }
        Entry::Linux64(address) => {
            write_page_tables(memory)?;
            sregs.cr3 = PML4;
            sregs.cr4 |= CR4_PAE;
            sregs.cr0 |= CR0_PE | CR0_PG;
            sregs.efer |= EFER_LME | EFER_LMA;
            (regs.rip, regs.rsi) = (address, ZERO_PAGE);
            (regs.rsp, regs.rbp) = (BOOT_STACK, BOOT_STACK);
        }
    }
    vcpu.set_sregs(&sregs).map_err(|errno| host("set segment registers", errno))?;
    vcpu.set_regs(&regs).map_err(|errno| host("set registers", errno))
}

fn write_page_tables(memory: &GuestMemoryMmap) -> Result<(), Error> {
    write_u64s(memory, PML4, &[PDPT | PTE])?;
    write_u64s(memory, PDPT, &[PAGE_DIRECTORY | PTE])?;
    let directory: Vec<u64> = (0..512).map(|index| (index * TWO_MIB) | PDE_2M).collect();
    write_u64s(memory, PAGE_DIRECTORY, &directory)
}

fn write_u64s(memory: &GuestMemoryMmap, at: u64, values: &[u64]) -> Result<(), Error> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    memory
        .write_slice(&bytes, GuestAddress(at))
        .map_err(|error| Error::Image(format!("boot tables do not fit at {at:#x}: {error}")))
}

/// MSRs of a vCPU at reset, as a kernel that was not started by firmware needs them.
const MSRS: &[(u32, u64)] = &[
    (0x174, 0),       // SYSENTER_CS
    (0x175, 0),       // SYSENTER_ESP
    (0x176, 0),       // SYSENTER_EIP
    (0xc000_0081, 0), // STAR
    (0xc000_0082, 0), // LSTAR
    (0xc000_0083, 0), // CSTAR
    (0xc000_0084, 0), // SYSCALL_MASK
    (0xc000_0102, 0), // KERNEL_GS_BASE
    (0x10, 0),        // TSC
    (0x1a0, 1),       // MISC_ENABLE: fast strings
    (0x2ff, 0x806),   // MTRRdefType: enabled, write-back; else RAM may be mapped uncached
];

/// Sets what every vCPU has in common: MSRs, FPU, local APIC pins. CPUID must be set already.
///
/// # Errors
/// KVM refuses one; the text names which.
pub fn set_common(vcpu: &VcpuFd) -> Result<(), Error> {
    let entries: Vec<kvm_msr_entry> = MSRS
        .iter()
        .map(|(index, data)| kvm_msr_entry { index: *index, data: *data, ..Default::default() })
        .collect();
    let msrs = Msrs::from_entries(&entries)
        .map_err(|error| host("list MSRs", std::io::Error::other(format!("{error:?}"))))?;
    let set = vcpu.set_msrs(&msrs).map_err(|errno| host("set MSRs", errno))?;
    if set != entries.len() {
        let text = format!("KVM refused MSR {:#x}", entries[set.min(entries.len() - 1)].index);
        return Err(host("set MSRs", std::io::Error::other(text)));
    }
    let fpu = kvm_fpu { fcw: 0x37f, mxcsr: 0x1f80, ..Default::default() };
    vcpu.set_fpu(&fpu).map_err(|errno| host("set FPU", errno))?;
    set_lapic_pins(vcpu)
}

/// LINT0 = ExtINT, LINT1 = NMI (SDM vol. 3, 11.5.1): what firmware would have set.
fn set_lapic_pins(vcpu: &VcpuFd) -> Result<(), Error> {
    let mut lapic = vcpu.get_lapic().map_err(|errno| host("get the local APIC", errno))?;
    for (offset, mode) in [(0x350usize, 7u8), (0x360, 4)] {
        // Delivery mode is bits 8 to 10: the low three bits of the second byte.
        let byte = &mut lapic.regs[offset + 1];
        *byte = i8::from_le_bytes([byte.to_le_bytes()[0] & !7 | mode]);
    }
    vcpu.set_lapic(&lapic).map_err(|errno| host("set the local APIC", errno))
}
