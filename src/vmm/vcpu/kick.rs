//! Makes a thread return from KVM_RUN.
#![expect(unsafe_code, reason = "another thread writes one byte of the mapped kvm_run")]

use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::{AtomicU8, Ordering, fence};

use kvm_ioctls::VcpuFd;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use crate::vmm::{Error, host};

/// Points at `kvm_run.immediate_exit` of one vCPU.
#[derive(Debug)]
pub struct Kicker {
    immediate_exit: *const AtomicU8,
}

// SAFETY: the pointee is only ever accessed as an atomic from threads other than the vCPU's own,
// and by KVM, which reads it once at the entry of KVM_RUN.
unsafe impl Send for Kicker {}
// SAFETY: as above.
unsafe impl Sync for Kicker {}

extern "C" fn ignore(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// Installs the empty handler whose only effect is EINTR. Once per process.
///
/// # Errors
/// The host refuses.
pub fn install_signal_handler() -> Result<(), Error> {
    register_signal_handler(SIGRTMIN(), ignore).map_err(|errno| host("set a signal handler", errno))
}

impl Kicker {
    /// Takes the flag's address before the vCPU moves to its thread. The mapping stays where it is
    /// until the vCPU is dropped: the thread returns it, so not before the thread is joined.
    pub fn new(vcpu: &mut VcpuFd) -> Kicker {
        let flag = std::ptr::from_mut(&mut vcpu.get_kvm_run().immediate_exit);
        Kicker { immediate_exit: flag.cast::<AtomicU8>().cast_const() }
    }

    /// Kicks the vCPU of `thread`, which must not have been joined. Harmless if it has ended.
    pub fn kick(&self, thread: &std::thread::JoinHandle<VcpuFd>) {
        // SAFETY: the unjoined thread holds the vCPU, and with it the mapping, even when finished.
        unsafe { &*self.immediate_exit }.store(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        // SAFETY: the handle has not been joined, so the thread id is valid; the handler is empty.
        unsafe { libc::pthread_kill(thread.as_pthread_t(), SIGRTMIN()) };
    }
}
