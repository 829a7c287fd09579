//! The workload: the one process that a guest is there for, how it is kept alive, and how its health
//! is told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the agent starts once the guest is configured. The host checks it before it is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Program and arguments; the program is looked up in `PATH` unless it contains `/`.
    pub argv: Vec<String>,
    /// Added to the guest's environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Working directory; `/` if absent.
    #[serde(default)]
    pub cwd: Option<String>,
    /// `name`, `uid`, `uid:gid`; root if absent.
    #[serde(default)]
    pub user: Option<String>,
    /// Number of the signal that asks it to end; SIGTERM if absent.
    #[serde(default)]
    pub stop_signal: Option<u8>,
    /// What follows its end.
    #[serde(default)]
    pub restart: Restart,
    /// How its health is told; without one it is ready as soon as it runs.
    #[serde(default)]
    pub health: Option<HealthCheck>,
}

/// When a workload that has ended is started again. The pause before it doubles with each try, from
/// `backoff_min_ms` up to `backoff_max_ms`; pause and tries begin anew once a process has lived for
/// [`Restart::RESET_AFTER_MS`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// After which ends.
    pub policy: RestartPolicy,
    /// The first pause, in milliseconds.
    pub backoff_min_ms: u64,
    /// The longest pause, in milliseconds.
    pub backoff_max_ms: u64,
    /// Tries in a row until the workload is given up as failed; without a limit if absent.
    pub retries_max: Option<u32>,
}

impl Restart {
    /// A process that has lived as long as this came up: what ends it is no failed try to start.
    pub const RESET_AFTER_MS: u64 = 10_000;
}

impl Default for Restart {
    fn default() -> Restart {
        Restart {
            policy: RestartPolicy::OnFailure,
            backoff_min_ms: 200,
            backoff_max_ms: 10_000,
            retries_max: None,
        }
    }
}

/// After which ends a workload is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// None.
    Never,
    /// Any but exit code 0.
    OnFailure,
    /// All.
    Always,
}

/// How and how often the workload's health is looked at. Failures within `start_period_ms` do not
/// count, a success ends that period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// Milliseconds between one answer and the next look.
    pub interval_ms: u64,
    /// Milliseconds that an answer may take.
    pub timeout_ms: u64,
    /// Failures in a row that make it unhealthy.
    pub retries: u32,
    /// Milliseconds after the process's start.
    pub start_period_ms: u64,
}

/// One look at the workload's health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// `GET` on the guest's loopback; healthy with a status from 200 to 399.
    Http {
        /// TCP port.
        port: u16,
        /// Path and query, beginning with `/`.
        path: String,
    },
    /// A connection on the guest's loopback.
    Tcp {
        /// TCP port.
        port: u16,
    },
    /// A command as the workload's user; healthy with exit code 0.
    Exec {
        /// Program and arguments.
        argv: Vec<String>,
    },
}

/// How a workload is, as a level: a report says all that is true now, so that one which was missed
/// is made good by the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadReport {
    /// Where it is in its life.
    pub condition: WorkloadCondition,
    /// Why, in one sentence; empty where there is nothing to explain.
    pub reason: String,
    /// Processes that have ended, or could not be started, since the guest was configured.
    pub exits: u32,
    /// How the latest of them ended.
    pub last_exit: Option<WorkloadExit>,
    /// Bytes of output that nobody took in time and that were dropped.
    pub dropped_bytes: u64,
}

/// Where a workload is in its life.
///
/// ```text
///   Starting ──▶ Ready ◀──▶ Unhealthy
///      ▲ └─────────┴────────────┤ the process ends
///      └─── Restarting ◀────────┤
///                               ├──▶ Finished   code 0, and not to be restarted
///                               └──▶ Failed     not to be restarted any more
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkloadCondition {
    /// A process runs, and its health is not known yet.
    Starting,
    /// The process is healthy, or runs and has no health check.
    Ready,
    /// The health check has failed as often as it may.
    Unhealthy,
    /// No process: the pause before the next try.
    Restarting,
    /// No process, and none to come: it is done.
    Finished,
    /// No process, and none to come: it is given up.
    Failed,
}

/// How a process of the workload ended. Exactly one of `code` and `signal` is set unless it could
/// not be started, when `error` is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadExit {
    /// Exit code.
    pub code: Option<i32>,
    /// Number of the signal that ended it.
    pub signal: Option<i32>,
    /// The kernel killed a process of it for want of memory.
    pub oom: bool,
    /// Why it never ran.
    pub error: Option<String>,
}
