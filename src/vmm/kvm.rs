//! The host's KVM: opened by the caller, checked here once.
#![expect(unsafe_code, reason = "kvm-ioctls takes a raw descriptor")]

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Cap, Kvm, VmFd};

use crate::vmm::layout::{IDENTITY_MAP, TSS};
use crate::vmm::{Error, host};

/// The only version there has ever been since 2007 (KVM api.rst, KVM_GET_API_VERSION).
const API_VERSION: i32 = 12;
/// Tries of KVM_CREATE_VM, which a signal may interrupt.
const CREATE_TRIES_MAX: u32 = 16;

/// What must be there, with the name to tell the user.
const NEEDED: &[(Cap, &str)] = &[
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
];

/// `/dev/kvm` and what it supports, asked once.
#[derive(Debug)]
pub struct HostKvm {
    kvm: Kvm,
    /// CPUID leaves that KVM can show a guest.
    pub supported_cpuid: CpuId,
}

impl HostKvm {
    /// Checks version and capabilities.
    ///
    /// # Errors
    /// The text names what is missing.
    pub fn new(fd: OwnedFd) -> Result<HostKvm, Error> {
        // SAFETY: the descriptor is owned and handed over; that it is /dev/kvm is checked next.
        let kvm = unsafe { Kvm::from_raw_fd(fd.into_raw_fd()) };
        if kvm.get_api_version() != API_VERSION {
            let text = std::io::Error::other("the descriptor is not /dev/kvm of API version 12");
            return Err(host("check KVM", text));
        }
        if let Some((_, name)) = NEEDED.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
            return Err(host("check KVM", std::io::Error::other(format!("no {name}"))));
        }
        let supported_cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(|errno| host("ask KVM for its CPUID", errno))?;
        Ok(HostKvm { kvm, supported_cpuid })
    }

    /// Makes a VM with its Intel-only pages set.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn create_vm(&self) -> Result<VmFd, Error> {
        let mut tries = 0;
        let vm = loop {
            match self.kvm.create_vm() {
                Ok(vm) => break vm,
                Err(errno) if errno.errno() == libc::EINTR && tries < CREATE_TRIES_MAX => {
                    tries += 1
                }
                Err(errno) => return Err(host("create a VM", errno)),
            }
        };
        vm.set_tss_address(TSS).map_err(|errno| host("set the TSS address", errno))?;
        vm.set_identity_map_address(IDENTITY_MAP)
            .map_err(|errno| host("set the identity map address", errno))?;
        Ok(vm)
    }
}
