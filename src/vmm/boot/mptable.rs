//! The MP table: tells a kernel without ACPI of its CPUs, the I/O APIC and the interrupt pins
//! (Intel MultiProcessor Specification 1.4, chapter 4).

use vm_memory::GuestMemoryMmap;

use crate::vmm::Error;
use crate::vmm::boot::put;
use crate::vmm::layout::{EBDA, GSI_COUNT, HIGH_MEMORY, IOAPIC, LAPIC};

/// APIC version that KVM's local and I/O APICs report.
const APIC_VERSION: u8 = 0x14;
/// Processor entry flags: enabled, and bootstrap processor.
const CPU_ENABLED: u8 = 1;
const CPU_BOOTSTRAP: u8 = 2;
/// Interrupt types of the I/O and local interrupt entries.
const INTERRUPT: u8 = 0;
const NMI: u8 = 1;
const EXTINT: u8 = 3;
/// The only bus.
const BUS_ISA: u8 = 0;
/// "All local APICs" as a destination.
const APIC_ALL: u8 = 0xff;

/// Writes the floating pointer structure and the configuration table at the start of the EBDA.
///
/// # Errors
/// The table does not fit (it does for every vCPU count that a machine may have).
pub fn write(memory: &GuestMemoryMmap, vcpus: u8) -> Result<(), Error> {
    let table_at = EBDA + 16;
    let table = table(vcpus);
    if HIGH_MEMORY < table_at + table.len() as u64 {
        return Err(Error::Image("the MP table does not fit".to_owned()));
    }
    let mut pointer = [0u8; 16];
    pointer[..4].copy_from_slice(b"_MP_");
    pointer[4..8].copy_from_slice(&u32::try_from(table_at).unwrap_or(0).to_le_bytes());
    pointer[8] = 1; // length in 16 bytes
    pointer[9] = 4; // specification 1.4
    pointer[10] = checksum(&pointer);
    put(memory, EBDA, &pointer)?;
    put(memory, table_at, &table)
}

fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

fn table(vcpus: u8) -> Vec<u8> {
    let ioapic_id = vcpus;
    let mut entries = Vec::new();
    let mut count = 0u16;
    let mut add = |bytes: &[u8]| {
        entries.extend_from_slice(bytes);
        count += 1;
    };
    for id in 0..vcpus {
        let flags = if id == 0 { CPU_ENABLED | CPU_BOOTSTRAP } else { CPU_ENABLED };
        let mut cpu = [0u8; 20];
        cpu[1] = id;
        cpu[2] = APIC_VERSION;
        cpu[3] = flags;
        cpu[4..8].copy_from_slice(&0x600u32.to_le_bytes()); // signature: family 6
        cpu[8..12].copy_from_slice(&0x201u32.to_le_bytes()); // features: FPU and on-chip APIC
        add(&cpu);
    }
    add(&[1, BUS_ISA, b'I', b'S', b'A', b' ', b' ', b' ']);
    let mut ioapic = [2, ioapic_id, APIC_VERSION, 1, 0, 0, 0, 0];
    ioapic[4..8].copy_from_slice(&IOAPIC.to_le_bytes());
    add(&ioapic);
    for pin in 0..u8::try_from(GSI_COUNT).unwrap_or(24) {
        add(&[3, INTERRUPT, 0, 0, BUS_ISA, pin, ioapic_id, pin]);
    }
    add(&[4, EXTINT, 0, 0, BUS_ISA, 0, APIC_ALL, 0]);
    add(&[4, NMI, 0, 0, BUS_ISA, 0, APIC_ALL, 1]);

    let mut header = vec![0u8; 44];
    header[..4].copy_from_slice(b"PCMP");
    let len = u16::try_from(header.len() + entries.len()).unwrap_or(u16::MAX);
    header[4..6].copy_from_slice(&len.to_le_bytes());
    header[6] = 4;
    header[8..16].copy_from_slice(b"VOLANT  ");
    header[16..28].copy_from_slice(b"MICROVM     ");
    header[34..36].copy_from_slice(&count.to_le_bytes());
    header[36..40].copy_from_slice(&LAPIC.to_le_bytes());
    header.extend_from_slice(&entries);
    header[7] = checksum(&header);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_sums_to_zero_and_counts_its_entries() {
        for vcpus in [1, 2, 32] {
            let table = table(vcpus);
            assert_eq!(table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
            let count = u16::from_le_bytes([table[34], table[35]]);
            assert_eq!(count, u16::from(vcpus) + 1 + 1 + 24 + 2);
            assert_eq!(usize::from(u16::from_le_bytes([table[4], table[5]])), table.len());
        }
    }
}
