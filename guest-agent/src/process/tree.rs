//! What one process has started: a cgroup where there is one, the process group in any case.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process_group};

const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// Cgroups whose first process has ended. One that still has members cannot be removed; it is tried
/// again when the next process starts.
static RELEASED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A process and what it has started. Dropped before [`Tree::release`], it is killed.
#[derive(Debug)]
pub struct Tree {
    cgroup: Option<PathBuf>,
    group: Mutex<Option<Pid>>,
}

impl Tree {
    /// An empty tree.
    pub fn create() -> Tree {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        remove_empty();
        // ORDER: only the number's uniqueness counts.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("{CGROUP_ROOT}/process-{}-{number}", std::process::id()));
        let made = std::process::id() == 1 && fs::create_dir(&path).is_ok();
        Tree { cgroup: made.then_some(path), group: Mutex::new(None) }
    }

    /// Where a process writes itself to become a member.
    pub fn procs(&self) -> Option<File> {
        let path = self.cgroup.as_ref()?.join("cgroup.procs");
        fs::OpenOptions::new().write(true).open(path).ok()
    }

    /// The first process, which leads its group.
    pub fn adopt(&self, pid: Pid) {
        *self.group.lock().unwrap_or_else(PoisonError::into_inner) = Some(pid);
    }

    /// How many of its processes the kernel has killed for want of memory (cgroup-v2.rst,
    /// memory.events); 0 where it is not counted.
    pub fn oom_kills(&self) -> u64 {
        let Some(path) = &self.cgroup else { return 0 };
        let events = fs::read_to_string(path.join("memory.events")).unwrap_or_default();
        let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }

    /// Kills whatever is left. The cgroup reaches what has left the process group.
    pub fn kill(&self) {
        if let Some(path) = &self.cgroup {
            let _ = fs::write(path.join("cgroup.kill"), "1");
        }
        if let Some(pid) = *self.group.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }

    /// The first process has ended by itself: the others may live on.
    pub fn release(&mut self) {
        *self.group.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(path) = self.cgroup.take() {
            RELEASED.lock().unwrap_or_else(PoisonError::into_inner).push(path);
        }
        remove_empty();
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.kill();
        // The killed are reaped in a moment; the cgroup goes after that.
        self.release();
    }
}

fn remove_empty() {
    let mut released = RELEASED.lock().unwrap_or_else(PoisonError::into_inner);
    released.retain(|path| fs::remove_dir(path).is_err());
}
