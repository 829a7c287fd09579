//! The system calls that a vCPU thread may make.
//!
//! Defence in depth, not a boundary: the threads of one process share its memory (docs/security.md).
//! A call that is not listed fails with EPERM; it does not kill the process, which holds every VM.

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// What KVM_RUN, eventfds, locks, wake-ups, allocation and the thread's end need.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_ioctl,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_futex,
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_sched_yield,
    libc::SYS_clock_gettime,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_getrandom,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_eventfd2,
    libc::SYS_close,
    libc::SYS_epoll_ctl,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_prctl,
    libc::SYS_exit,
];

/// Filters the calling thread only.
///
/// # Errors
/// The host's kernel has no seccomp filters, or the filter cannot be compiled.
pub fn confine_this_thread() -> Result<(), seccompiler::Error> {
    let rules = ALLOWED.iter().map(|number| (*number, Vec::new())).collect();
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, TargetArch::x86_64)?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program)
}
