//! What a vCPU says of itself.

use kvm_bindings::CpuId;

const LEAF_FEATURES: u32 = 1;
const LEAF_CACHE: u32 = 4;
const LEAF_PMU: u32 = 0xa;
const LEAF_TOPOLOGY: u32 = 0xb;
const LEAF_TOPOLOGY_V2: u32 = 0x1f;

const ECX_PDCM: u32 = 1 << 15;
const ECX_TSC_DEADLINE: u32 = 1 << 24;
const ECX_HYPERVISOR: u32 = 1 << 31;
const ECX_VMX: u32 = 1 << 5;
const EDX_HTT: u32 = 1 << 28;
/// SVM in 0x8000_0001 ECX.
const EXT_ECX_SVM: u32 = 1 << 2;

/// Adapts what KVM supports to vCPU `id` of `vcpus`: APIC ids, a flat topology of one core per
/// vCPU, no PMU, no nested virtualization. TSC-deadline stays on: without it the guest calibrates
/// its APIC timer for 100 ms.
pub fn for_vcpu(supported: &CpuId, id: u8, vcpus: u8) -> CpuId {
    let mut cpuid = supported.clone();
    let (id, vcpus) = (u32::from(id), u32::from(vcpus));
    let bits = u32::from(vcpus > 1) * (32 - (vcpus.max(2) - 1).leading_zeros());
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            LEAF_FEATURES => {
                entry.ebx = entry.ebx & 0xff00 | id << 24 | vcpus.next_power_of_two() << 16;
                entry.ecx = (entry.ecx | ECX_HYPERVISOR | ECX_TSC_DEADLINE) & !(ECX_PDCM | ECX_VMX);
                entry.edx = if vcpus > 1 { entry.edx | EDX_HTT } else { entry.edx & !EDX_HTT };
            }
            LEAF_CACHE => {
                // One thread shares each cache level but the last; cores in the package.
                entry.eax = entry.eax & 0x3fff | (vcpus - 1).min(63) << 26;
            }
            LEAF_PMU => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
            LEAF_TOPOLOGY | LEAF_TOPOLOGY_V2 => {
                let (shift, count, kind) = match entry.index {
                    0 => (0, 1, 1),
                    1 => (bits, vcpus, 2),
                    _ => (0, 0, 0),
                };
                (entry.eax, entry.ebx) = (shift, count);
                (entry.ecx, entry.edx) = (kind << 8 | entry.index, id);
            }
            0x8000_0001 => entry.ecx &= !EXT_ECX_SVM,
            0x8000_0008 => entry.ecx = (vcpus - 1) | bits << 12,
            0x8000_001e => (entry.eax, entry.ebx, entry.ecx) = (id, id, 0),
            _ => {}
        }
    }
    cpuid
}
