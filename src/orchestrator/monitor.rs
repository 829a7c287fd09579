//! Follows the workload of one running VM: its output goes into the VM's log, its reports to the
//! driver.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use volant_protocol::{AGENT_PORT, WorkloadCondition, WorkloadExit, WorkloadReport};

use crate::agent::{self, AgentError, WorkloadOutput, WorkloadStream};
use crate::logs;
use crate::model::EventKind;
use crate::orchestrator::machine::connect;
use crate::orchestrator::{Handle, chain};
use crate::vmm::Vsock;

/// Pause before the agent is asked again after the stream has broken; doubles up to the maximum.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// How long the rest of an ended machine's output may take to be written.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);
/// Reports that a guest may make at once, and how long each of them then takes to be made good: what
/// a guest can trigger is bounded. Reports are levels, so that none that matters is lost.
const REPORT_BURST: u32 = 20;
const REPORT_REFILL: Duration = Duration::from_secs(1);

/// A running follower; it ends when it is dropped.
#[derive(Debug)]
pub struct Monitor {
    reports: watch::Receiver<Option<WorkloadReport>>,
    rate: Rate,
    ending: CancellationToken,
    task: AbortOnDropHandle<()>,
}

/// Where the output goes.
#[derive(Clone, Debug)]
pub struct LogPlace {
    /// The VM's own folder.
    pub folder: PathBuf,
    /// Bytes that it may take.
    pub len_max: u64,
}

impl Monitor {
    /// Follows the workload behind `vsock`. `handle` is told where its log can be followed.
    pub async fn start(vsock: Vsock, place: LogPlace, handle: &Handle) -> Monitor {
        let opened =
            tokio::task::spawn_blocking(move || logs::Writer::open(place.folder, place.len_max));
        let writer = match opened.await {
            Ok(Ok(writer)) => Some(writer),
            Ok(Err(error)) => {
                tracing::warn!(%error, "a workload's log cannot be written");
                None
            }
            Err(_) => None,
        };
        handle.publish_log(writer.as_ref().map(logs::Writer::grown));
        let (sender, reports) = watch::channel(None);
        let ending = CancellationToken::new();
        let task = tokio::spawn(follow(vsock, writer, sender, ending.clone()));
        let task = AbortOnDropHandle::new(task);
        Monitor { reports, rate: Rate::default(), ending, task }
    }

    /// Takes what the machine, which has ended, has left: the workload's last words.
    pub async fn finish(self) {
        self.ending.cancel();
        if tokio::time::timeout(FINISH_TIMEOUT, self.task).await.is_err() {
            tracing::warn!("a workload's last output was given up");
        }
    }

    /// The latest report, when there is a new one. Cancel-safe.
    pub async fn next(&mut self) -> WorkloadReport {
        loop {
            tokio::time::sleep_until(self.rate.next_at()).await;
            if self.reports.changed().await.is_err() {
                // The task has ended, which happens when it panics only.
                std::future::pending::<()>().await;
            }
            if let Some(report) = self.reports.borrow_and_update().clone() {
                self.rate.take(Instant::now());
                return report;
            }
        }
    }
}

/// A bucket of [`REPORT_BURST`] that gains one each [`REPORT_REFILL`] (the generic cell rate
/// algorithm, ITU-T I.371).
#[derive(Debug)]
struct Rate {
    full_at: Instant,
}

impl Default for Rate {
    fn default() -> Rate {
        Rate { full_at: Instant::now() }
    }
}

impl Rate {
    fn next_at(&self) -> Instant {
        self.full_at.checked_sub(REPORT_REFILL * (REPORT_BURST - 1)).unwrap_or(self.full_at)
    }

    fn take(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + REPORT_REFILL;
    }
}

async fn follow(
    vsock: Vsock,
    mut writer: Option<logs::Writer>,
    reports: watch::Sender<Option<WorkloadReport>>,
    ending: CancellationToken,
) {
    let mut pause = RETRY_MIN;
    while !ending.is_cancelled() {
        let connected = async {
            let stream = connect(&vsock, AGENT_PORT).await.map_err(AgentError::Io)?;
            agent::workload(stream).await
        };
        let error = match connected.await {
            Ok(mut stream) => {
                pause = RETRY_MIN;
                take(&mut stream, &mut writer, &reports).await
            }
            Err(error) => error,
        };
        tracing::debug!(error = chain(&error), "a workload's stream has broken");
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = ending.cancelled() => {}
        }
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// Takes what comes until the stream breaks.
async fn take(
    stream: &mut WorkloadStream,
    writer: &mut Option<logs::Writer>,
    reports: &watch::Sender<Option<WorkloadReport>>,
) -> AgentError {
    loop {
        let (kind, bytes) = match stream.next().await {
            Ok(WorkloadOutput::Stdout(bytes)) => (logs::Stream::Stdout, bytes),
            Ok(WorkloadOutput::Stderr(bytes)) => (logs::Stream::Stderr, bytes),
            Ok(WorkloadOutput::Report(report)) => {
                reports.send_replace(Some(report));
                continue;
            }
            Err(error) => return error,
        };
        let Some(mut open) = writer.take() else { continue };
        let now = Timestamp::now();
        let written = tokio::task::spawn_blocking(move || {
            let outcome = open.append(now, kind, &bytes);
            (open, outcome)
        });
        if let Ok((open, outcome)) = written.await {
            if let Err(error) = outcome {
                tracing::warn!(%error, "output of a workload is lost");
            }
            *writer = Some(open);
        }
    }
}

/// What a report says that the one before did not, as events of the VM.
pub fn changes(before: Option<&WorkloadReport>, now: &WorkloadReport) -> Vec<(EventKind, String)> {
    let mut events = Vec::new();
    let ended = now.exits.saturating_sub(before.map_or(0, |report| report.exits));
    if 0 < ended {
        let text = now.last_exit.as_ref().map_or_else(String::new, describe);
        let times = if 1 < ended { format!(" ({ended} times)") } else { String::new() };
        events.push((EventKind::WorkloadExited, format!("workload {text}{times}")));
    }
    // A new process that is in the same condition as the old one has come to it as well.
    if 0 < ended || before.map(|report| report.condition) != Some(now.condition) {
        let reason = &now.reason;
        events.extend(match now.condition {
            WorkloadCondition::Ready => Some((EventKind::Ready, "workload ready".to_owned())),
            WorkloadCondition::Unhealthy => {
                Some((EventKind::Unhealthy, format!("workload unhealthy: {reason}")))
            }
            WorkloadCondition::Finished => {
                Some((EventKind::WorkloadFinished, format!("workload finished: {reason}")))
            }
            WorkloadCondition::Failed => {
                Some((EventKind::WorkloadFailed, format!("workload failed: {reason}")))
            }
            WorkloadCondition::Starting | WorkloadCondition::Restarting => None,
        });
    }
    events
}

fn describe(exit: &WorkloadExit) -> String {
    let memory = if exit.oom { ", out of memory" } else { "" };
    match (&exit.error, exit.code, exit.signal) {
        (Some(error), ..) => format!("could not be started: {error}"),
        (None, Some(code), _) => format!("ended with exit code {code}{memory}"),
        (None, None, signal) => format!("was ended by signal {}{memory}", signal.unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(condition: WorkloadCondition, exits: u32) -> WorkloadReport {
        let exit = WorkloadExit { signal: Some(9), oom: true, ..WorkloadExit::default() };
        WorkloadReport {
            condition,
            reason: "why".to_owned(),
            exits,
            last_exit: (0 < exits).then_some(exit),
            dropped_bytes: 0,
        }
    }

    #[test]
    fn each_change_is_told_once() {
        use WorkloadCondition::{Failed, Finished, Ready, Restarting, Starting, Unhealthy};
        type Seen = (WorkloadCondition, u32);
        let table: [(Option<Seen>, Seen, &[&str]); 10] = [
            (None, (Starting, 0), &[]),
            (None, (Ready, 0), &["VM_READY"]),
            (Some((Starting, 0)), (Ready, 0), &["VM_READY"]),
            (Some((Ready, 0)), (Ready, 0), &[]),
            (Some((Ready, 0)), (Unhealthy, 0), &["VM_UNHEALTHY"]),
            (Some((Unhealthy, 0)), (Ready, 0), &["VM_READY"]),
            (Some((Ready, 0)), (Restarting, 1), &["VM_WORKLOAD_EXITED"]),
            (Some((Ready, 1)), (Ready, 3), &["VM_WORKLOAD_EXITED", "VM_READY"]),
            (Some((Ready, 0)), (Finished, 1), &["VM_WORKLOAD_EXITED", "VM_WORKLOAD_FINISHED"]),
            (Some((Restarting, 1)), (Failed, 2), &["VM_WORKLOAD_EXITED", "VM_WORKLOAD_FAILED"]),
        ];
        for (before, now, expected) in table {
            let before = before.map(|(condition, exits)| report(condition, exits));
            let told = changes(before.as_ref(), &report(now.0, now.1));
            let words: Vec<_> = told.iter().map(|(kind, _)| kind.as_str()).collect();
            assert_eq!(words, expected, "{before:?} -> {now:?}");
        }
        let told = changes(None, &report(Failed, 2));
        let texts: Vec<_> = told.iter().map(|(_, text)| text.as_str()).collect();
        let ended = "workload was ended by signal 9, out of memory (2 times)";
        assert_eq!(texts, [ended, "workload failed: why"]);
    }

    #[test]
    fn a_guest_that_reports_without_end_is_slowed_down() {
        let mut rate = Rate::default();
        let began = rate.full_at;
        let mut now = began;
        for _ in 0..REPORT_BURST + 10 {
            now = now.max(rate.next_at());
            rate.take(now);
        }
        assert_eq!((now - began).as_secs(), 10, "a burst at once, then one a second");
    }
}
