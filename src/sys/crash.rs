//! Named instants at which the end-to-end suite kills the daemon (docs/testing.md).
//!
//! Without the feature `crash-points` a point is an empty function.

/// Ends the process as `kill -9` would, if `VOLANT_CRASH_AT` names this point.
#[cfg(feature = "crash-points")]
pub fn point(name: &str) {
    if std::env::var("VOLANT_CRASH_AT").is_ok_and(|wanted| wanted == name) {
        // Cannot fail for a process's own pid; the end comes before the call returns.
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Nothing: see the module.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub fn point(_: &str) {}
