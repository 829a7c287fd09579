//! Collects the exit of every child: of those started here, and, as PID 1, of every orphan.
//!
//! The runtime has one thread and `spawn` does not await, so that a child is registered before the
//! reaper can see it end.

use std::collections::HashMap;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, WaitOptions, WaitStatus, wait, waitpid};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Starts children and hands out their exits. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reaper {
    waiting: Arc<Mutex<HashMap<i32, oneshot::Sender<WaitStatus>>>>,
    closed: Arc<AtomicBool>,
}

/// A started process.
#[derive(Debug)]
pub struct Started {
    /// Its id; also of its session and process group.
    pub pid: Pid,
    /// Its stdin, if it was asked for.
    pub stdin: Option<ChildStdin>,
    /// Its stdout, if it was asked for.
    pub stdout: Option<ChildStdout>,
    /// Its stderr, if it was asked for.
    pub stderr: Option<ChildStderr>,
    /// Its end.
    pub exit: oneshot::Receiver<WaitStatus>,
}

impl Reaper {
    /// Watches SIGCHLD from now on. Needs a current-thread runtime.
    ///
    /// # Errors
    /// The handler cannot be installed.
    pub fn start() -> std::io::Result<Reaper> {
        let reaper = Reaper { waiting: Arc::default(), closed: Arc::default() };
        let mut children = signal(SignalKind::child())?;
        let own = reaper.clone();
        tokio::spawn(async move {
            while children.recv().await.is_some() {
                own.collect();
            }
        });
        Ok(reaper)
    }

    /// Starts a process. Std's `Child` is used for its pipes only and never waited for.
    ///
    /// # Errors
    /// It cannot be started, or the guest is ending.
    pub fn spawn(&self, command: &mut Command) -> std::io::Result<Started> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(std::io::Error::other("the guest is shutting down"));
        }
        let mut child = command.spawn()?;
        let raw = i32::try_from(child.id()).map_err(std::io::Error::other)?;
        let pid = Pid::from_raw(raw).ok_or_else(|| std::io::Error::other("pid 0"))?;
        let (sender, exit) = oneshot::channel();
        self.waiting().insert(raw, sender);
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        Ok(Started { pid, stdin, stdout, stderr, exit })
    }

    /// Starts nothing any more: the guest ends, and what is started anew would hold that up.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<i32, oneshot::Sender<WaitStatus>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn collect(&self) {
        let mut waiting = self.waiting();
        let known: Vec<i32> = waiting.keys().copied().collect();
        for raw in known {
            if let Ok(Some((_, status))) = waitpid(Pid::from_raw(raw), WaitOptions::NOHANG)
                && let Some(sender) = waiting.remove(&raw)
            {
                // Its supervisor is gone only when the agent is.
                let _ = sender.send(status);
            }
        }
        if std::process::id() == 1 {
            while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                if let Some(sender) = waiting.remove(&pid.as_raw_nonzero().get()) {
                    let _ = sender.send(status);
                }
            }
        }
    }
}
