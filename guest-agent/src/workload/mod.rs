//! The workload's supervisor: one task that starts it, takes its output, looks at its health and
//! starts it again as its policy says, until it is done, given up or told to stop.

mod output;
mod probe;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rustix::process::{Pid, Signal, WaitStatus, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use volant_protocol::{
    Frame, FrameKind, HealthCheck, ProcessRequest, ProcessStatus, Restart, RestartPolicy, Workload,
    WorkloadCondition, WorkloadExit, WorkloadReport,
};

use crate::process::{self, Tree};
use crate::reap::{Reaper, Started};
use output::Output;

/// Bytes read from a pipe at once: one frame.
const CHUNK_LEN: usize = 32 * 1024;
/// How long the pipes of an ended process may stay open, since a child that has left its tree may
/// hold them for ever.
const DRAIN_MAX: Duration = Duration::from_millis(500);
/// The pause between looks at a process that has not come up yet; doubles up to the interval.
const FIRST_INTERVAL: Duration = Duration::from_millis(50);

/// Handle on the supervisor. It lives as long as the agent.
#[derive(Debug)]
pub struct Supervisor {
    shared: Arc<Shared>,
    stopping: watch::Sender<bool>,
}

#[derive(Debug)]
struct Shared {
    workload: Workload,
    base_env: BTreeMap<String, String>,
    reaper: Reaper,
    output: Output,
    report: watch::Sender<WorkloadReport>,
}

impl Supervisor {
    /// Starts the workload.
    pub fn start(
        workload: Workload,
        base_env: BTreeMap<String, String>,
        reaper: Reaper,
    ) -> Supervisor {
        let (report, _) = watch::channel(WorkloadReport {
            condition: WorkloadCondition::Starting,
            reason: String::new(),
            exits: 0,
            last_exit: None,
            dropped_bytes: 0,
        });
        let output = Output::default();
        let shared = Arc::new(Shared { workload, base_env, reaper, output, report });
        let (stopping, stop) = watch::channel(false);
        tokio::spawn(supervise(Arc::clone(&shared), stop));
        Supervisor { shared, stopping }
    }

    /// Sends the stop signal and returns when the process is gone. It is not started again.
    pub async fn stop(&self) {
        self.stopping.send_replace(true);
        // Closed once the task, which holds the receiver, is over.
        self.stopping.closed().await;
    }

    /// Sends reports and output to one follower until it goes away or another one comes.
    pub async fn attend<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut follower = self.shared.output.follow();
        let mut reports = self.shared.report.subscribe();
        reports.mark_changed();
        let mut byte = [0];
        loop {
            let frame = tokio::select! {
                biased;
                // Nothing is due from a follower but its end.
                _ = reader.read(&mut byte) => return,
                // Output first: what a process wrote comes before its exit.
                frame = follower.next() => match frame {
                    Some(frame) => frame,
                    None => return,
                },
                _ = reports.changed() => {
                    let mut report = reports.borrow_and_update().clone();
                    report.dropped_bytes = self.shared.output.dropped_bytes();
                    let payload = serde_json::to_vec(&report).unwrap_or_default().into();
                    Frame { kind: FrameKind::Report, payload }
                }
            };
            let mut bytes = BytesMut::new();
            frame.encode(&mut bytes);
            if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
    }
}

/// What follows an end.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Finished,
    Failed,
    After(Duration),
}

/// The pauses and tries of one row of failures.
#[derive(Debug)]
struct Backoff<'a> {
    restart: &'a Restart,
    pause_ms: u64,
    tries: u32,
}

impl Backoff<'_> {
    fn new(restart: &Restart) -> Backoff<'_> {
        Backoff { restart, pause_ms: restart.backoff_min_ms, tries: 0 }
    }

    fn next(&mut self, success: bool, lived: Duration) -> Next {
        if Duration::from_millis(Restart::RESET_AFTER_MS) <= lived {
            *self = Backoff::new(self.restart);
        }
        let again = match self.restart.policy {
            RestartPolicy::Never => false,
            RestartPolicy::OnFailure => !success,
            RestartPolicy::Always => true,
        };
        if !again {
            return if success { Next::Finished } else { Next::Failed };
        }
        if self.restart.retries_max.is_some_and(|max| max <= self.tries) {
            return Next::Failed;
        }
        let pause = Duration::from_millis(self.pause_ms);
        self.tries += 1;
        self.pause_ms = self.pause_ms.saturating_mul(2).min(self.restart.backoff_max_ms);
        Next::After(pause)
    }
}

async fn supervise(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut backoff = Backoff::new(&shared.workload.restart);
    loop {
        let began = Instant::now();
        let exit = shared.run(&mut stop).await;
        let text = describe(&exit);
        let next = backoff.next(exit.code == Some(0), began.elapsed());
        let (condition, reason) = match &next {
            _ if *stop.borrow() => (WorkloadCondition::Finished, "it was stopped".to_owned()),
            Next::Finished => (WorkloadCondition::Finished, text),
            Next::Failed if backoff.tries == 0 => (WorkloadCondition::Failed, text),
            Next::Failed => {
                (WorkloadCondition::Failed, format!("{text}, after {} restarts", backoff.tries))
            }
            Next::After(pause) => {
                let reason = format!("{text}; the next try is in {} ms", pause.as_millis());
                (WorkloadCondition::Restarting, reason)
            }
        };
        shared.report.send_modify(|report| {
            (report.condition, report.reason) = (condition, reason);
            report.exits = report.exits.saturating_add(1);
            report.last_exit = Some(exit);
        });
        let Next::After(pause) = next else { return };
        if *stop.borrow() {
            return;
        }
        tokio::select! {
            () = sleep(pause) => {}
            _ = stop.changed() => return,
        }
        shared.tell(WorkloadCondition::Starting, String::new());
    }
}

/// One sentence for the end of a process.
fn describe(exit: &WorkloadExit) -> String {
    let memory = if exit.oom { ", out of memory" } else { "" };
    match (&exit.error, exit.code, exit.signal) {
        (Some(error), ..) => format!("it could not be started: {error}"),
        (None, Some(code), _) => format!("it ended with exit code {code}{memory}"),
        (None, None, Some(signal)) => format!("it was ended by signal {signal}{memory}"),
        (None, None, None) => "its end was lost".to_owned(),
    }
}

impl Shared {
    /// Tells a change of condition; one that is none is not told.
    fn tell(&self, condition: WorkloadCondition, reason: String) {
        self.report.send_if_modified(|report| {
            let changed = report.condition != condition;
            if changed {
                (report.condition, report.reason) = (condition, reason);
            }
            changed
        });
    }

    /// From the start of one process to its end.
    async fn run(&self, stop: &mut watch::Receiver<bool>) -> WorkloadExit {
        let workload = &self.workload;
        let request = ProcessRequest {
            argv: workload.argv.clone(),
            env: workload.env.clone(),
            cwd: workload.cwd.clone(),
            user: workload.user.clone(),
            ..ProcessRequest::default()
        };
        let mut tree = Tree::create();
        let started = match process::begin(&request, &self.base_env, &self.reaper, &tree) {
            Ok((started, _)) => started,
            Err(ProcessStatus { error, .. }) => {
                return WorkloadExit { error, ..WorkloadExit::default() };
            }
        };
        tree.adopt(started.pid);
        let Started { pid, stdout, stderr, mut exit, .. } = started;
        let pumps = async {
            tokio::join!(
                self.pump(stdout.map(OwnedFd::from), FrameKind::Stdout),
                self.pump(stderr.map(OwnedFd::from), FrameKind::Stderr)
            )
        };
        tokio::pin!(pumps);
        let health = self.watch_health();
        tokio::pin!(health);
        let (mut pumped, mut asked) = (false, false);
        let status = loop {
            tokio::select! {
                status = &mut exit => break status.ok(),
                _ = &mut pumps, if !pumped => pumped = true,
                () = &mut health => {}
                _ = stop.changed(), if !asked => {
                    asked = true;
                    self.ask_to_end(pid);
                }
            }
        };
        let oom = 0 < tree.oom_kills();
        // Its children must neither hold the pipes nor meet the next process.
        tree.kill();
        if !pumped {
            let _ = timeout(DRAIN_MAX, pumps).await;
        }
        tree.release();
        exit_of(status, oom)
    }

    fn ask_to_end(&self, pid: Pid) {
        let number = self.workload.stop_signal.map(i32::from);
        let signal = number.and_then(Signal::from_named_raw).unwrap_or(Signal::TERM);
        // It may have ended just now.
        let _ = kill_process_group(pid, signal);
    }

    /// From a pipe to the queue, until the pipe's end.
    async fn pump(&self, pipe: Option<OwnedFd>, kind: FrameKind) {
        let Some(mut pipe) = pipe.and_then(|pipe| pipe::Receiver::from_owned_fd(pipe).ok()) else {
            return;
        };
        loop {
            let mut buffer = BytesMut::with_capacity(CHUNK_LEN);
            match pipe.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => self.output.push(Frame { kind, payload: buffer.freeze() }).await,
            }
        }
    }

    /// Looks at the health for as long as it is polled; never ends.
    async fn watch_health(&self) {
        let Some(check) = &self.workload.health else {
            self.tell(WorkloadCondition::Ready, String::new());
            return std::future::pending().await;
        };
        let mut judge = Judge::new(check);
        loop {
            let look = probe::look(&check.probe, &self.workload, &self.base_env, &self.reaper);
            let looked = timeout(Duration::from_millis(check.timeout_ms), look).await;
            let outcome = looked.unwrap_or_else(|_| Err("no answer in time".to_owned()));
            if let Some((condition, reason)) = judge.judge(outcome) {
                self.tell(condition, reason);
            }
            sleep(judge.pause()).await;
        }
    }
}

fn exit_of(status: Option<WaitStatus>, oom: bool) -> WorkloadExit {
    let Some(status) = status else { return WorkloadExit { oom, ..WorkloadExit::default() } };
    let (code, signal) = (status.exit_status(), status.terminating_signal());
    WorkloadExit { code, signal, oom, error: None }
}

/// Counts looks at the health of one process.
#[derive(Debug)]
struct Judge<'a> {
    check: &'a HealthCheck,
    began: Instant,
    came_up: bool,
    failures: u32,
    first_pause: Duration,
}

impl Judge<'_> {
    fn new(check: &HealthCheck) -> Judge<'_> {
        let began = Instant::now();
        Judge { check, began, came_up: false, failures: 0, first_pause: FIRST_INTERVAL }
    }

    fn is_starting(&self) -> bool {
        let period = Duration::from_millis(self.check.start_period_ms);
        !self.came_up && self.began.elapsed() < period
    }

    fn judge(&mut self, outcome: Result<(), String>) -> Option<(WorkloadCondition, String)> {
        match outcome {
            Ok(()) => {
                (self.came_up, self.failures) = (true, 0);
                Some((WorkloadCondition::Ready, String::new()))
            }
            Err(_) if self.is_starting() => None,
            Err(reason) => {
                self.failures = self.failures.saturating_add(1);
                let given_up = self.check.retries <= self.failures;
                given_up.then_some((WorkloadCondition::Unhealthy, reason))
            }
        }
    }

    /// A process that is coming up is looked at more often: nobody waits for an interval's end.
    fn pause(&mut self) -> Duration {
        let interval = Duration::from_millis(self.check.interval_ms);
        if !self.is_starting() {
            return interval;
        }
        let pause = self.first_pause.min(interval);
        // No further: a process may be coming up for as long as it likes.
        self.first_pause = pause.saturating_mul(2);
        pause
    }
}

#[cfg(test)]
mod tests;
