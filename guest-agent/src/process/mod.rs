//! Processes: started by request, known by id, independent of the connections that look at them.
//!
//! Each has a supervisor task: it pumps the outputs into a bounded buffer, keeps the deadlines, and
//! tells the end. Attachments (`attach.rs`) only read the buffer and write the input.

mod attach;
mod output;
mod spawn;
mod stdio;
mod tree;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, WaitStatus, kill_process_group};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use volant_protocol::{Deadline, ProcessInfo, ProcessRequest, ProcessStatus, TerminalSize};

use crate::reap::Reaper;
use output::{OUTPUT_LEN_MAX, Output, Stream};
use stdio::{Sink, Source, Terminal};

pub use attach::{Options, attend, report};
pub use spawn::{begin, environment};
pub use tree::Tree;

/// Processes that run at once.
const RUNNING_MAX: usize = 512;
/// Processes that have ended and are remembered, newest first.
const ENDED_MAX: usize = 32;
/// Bytes read from a pipe at once.
const CHUNK_LEN: usize = 32 * 1024;
/// After a process has ended: how long its pipes may stay silent before they are given up, since a
/// child that lives on may hold them open for ever.
const DRAIN_IDLE: Duration = Duration::from_millis(500);

/// Why there is no new process.
#[derive(Debug)]
pub enum StartError {
    /// The request makes no sense; one sentence.
    Invalid(String),
    /// Too many run.
    Full,
    /// It never ran.
    NotRun(ProcessStatus),
}

/// The processes of this guest. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Processes {
    reaper: Reaper,
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    last_id: u32,
    entries: BTreeMap<u32, Arc<Process>>,
}

impl Processes {
    /// None yet.
    pub fn new(reaper: Reaper) -> Processes {
        Processes { reaper, table: Arc::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a process.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(
        &self,
        request: &ProcessRequest,
        base_env: &BTreeMap<String, String>,
    ) -> Result<Arc<Process>, StartError> {
        spawn::check(request).map_err(StartError::Invalid)?;
        if RUNNING_MAX <= self.running() {
            return Err(StartError::Full);
        }
        let tree = Tree::create();
        let child = spawn::spawn(request, base_env, &self.reaper, &tree);
        let child = child.map_err(StartError::NotRun)?;
        let mut table = self.table();
        table.last_id += 1;
        let process = Arc::new(Process {
            id: table.last_id,
            pid: child.started.pid,
            request: request.clone(),
            started_at: SystemTime::now(),
            output: Arc::new(Output::new(OUTPUT_LEN_MAX)),
            input: tokio::sync::Mutex::new(child.input),
            terminal: child.terminal,
            tree: Mutex::new(Some(tree)),
            status: watch::Sender::new(None),
            kept: AtomicBool::new(request.keep),
        });
        table.entries.insert(process.id, Arc::clone(&process));
        let supervised = supervise(Arc::clone(&process), child.outputs, child.started.exit);
        let this = self.clone();
        tokio::spawn(async move {
            supervised.await;
            this.forget_oldest();
        });
        Ok(process)
    }

    fn running(&self) -> usize {
        self.table().entries.values().filter(|entry| entry.status().is_none()).count()
    }

    /// Ended ones beyond the bound, and those whose only reader was the one that started them.
    fn forget_oldest(&self) {
        let mut table = self.table();
        table.entries.retain(|_, entry| entry.status().is_none() || entry.is_kept());
        let ended = table.entries.iter().filter(|(_, entry)| entry.status().is_some());
        let ended: Vec<u32> = ended.map(|(id, _)| *id).collect();
        for id in &ended[..ended.len().saturating_sub(ENDED_MAX)] {
            table.entries.remove(id);
        }
    }

    /// All that are remembered, oldest first.
    pub fn list(&self) -> Vec<ProcessInfo> {
        self.table().entries.values().map(|process| process.info()).collect()
    }

    /// One of them.
    pub fn find(&self, id: u32) -> Option<Arc<Process>> {
        self.table().entries.get(&id).cloned()
    }

    /// Kills it if it runs, and forgets it.
    pub fn remove(&self, id: u32) -> Option<Arc<Process>> {
        let removed = self.table().entries.remove(&id)?;
        removed.kill();
        Some(removed)
    }
}

/// One process.
#[derive(Debug)]
pub struct Process {
    id: u32,
    pid: Pid,
    request: ProcessRequest,
    started_at: SystemTime,
    output: Arc<Output>,
    input: tokio::sync::Mutex<Option<Sink>>,
    terminal: Option<Terminal>,
    /// Taken when the process has ended.
    tree: Mutex<Option<Tree>>,
    status: watch::Sender<Option<ProcessStatus>>,
    kept: AtomicBool,
}

/// The process has ended, or has no terminal.
#[derive(Clone, Copy, Debug)]
pub struct NotNow(pub &'static str);

impl Process {
    /// What is known of it.
    pub fn info(&self) -> ProcessInfo {
        let since_epoch = self.started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (output_start, output_end) = self.output.range();
        ProcessInfo {
            id: self.id,
            pid: self.pid.as_raw_nonzero().get(),
            argv: self.request.argv.clone(),
            cwd: self.request.cwd.clone().unwrap_or_else(|| "/".to_owned()),
            user: self.request.user.clone().unwrap_or_else(|| "root".to_owned()),
            tag: self.request.tag.clone(),
            terminal: self.terminal.is_some(),
            started_unix_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
            output_start,
            output_end,
            status: self.status(),
        }
    }

    fn output(&self) -> &Arc<Output> {
        &self.output
    }

    fn status(&self) -> Option<ProcessStatus> {
        self.status.borrow().clone()
    }

    /// How it ended, once it has.
    pub async fn ended(&self) -> ProcessStatus {
        let mut status = self.status.subscribe();
        match status.wait_for(Option::is_some).await {
            Ok(status) => status.clone().unwrap_or_default(),
            // The sender is ours.
            Err(_) => spawn::failed(125, "the process was lost".to_owned()),
        }
    }

    /// Whether it outlives the connection that started it.
    pub fn is_kept(&self) -> bool {
        // ORDER: a flag of its own.
        self.kept.load(Ordering::Relaxed)
    }

    /// It outlives the connection that started it from now on.
    pub fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// Writes to its stdin. Returns when all is taken, or nobody will.
    pub async fn write(&self, bytes: &[u8]) {
        self.output.touch();
        let mut input = self.input.lock().await;
        let Some(sink) = input.as_mut() else { return };
        tokio::select! {
            written = sink.write_all(bytes) => {
                if written.is_err() {
                    // It has closed its stdin; the rest is nobody's.
                    *input = None;
                }
            }
            _ = self.ended() => *input = None,
        }
        self.output.touch();
    }

    /// No more stdin.
    pub async fn end_input(&self) {
        let sink = self.input.lock().await.take();
        if let Some(sink) = sink {
            tokio::select! {
                () = sink.end() => {}
                _ = self.ended() => {}
            }
        }
    }

    /// Sends a signal to its process group; SIGKILL to all that it has started.
    ///
    /// # Errors
    /// It has ended, or there is no such signal.
    pub fn signal(&self, number: u8) -> Result<(), NotNow> {
        if self.status().is_some() {
            return Err(NotNow("the process has ended"));
        }
        let signal = Signal::from_named_raw(i32::from(number)).ok_or(NotNow("no such signal"))?;
        if signal == Signal::KILL {
            self.kill();
            return Ok(());
        }
        kill_process_group(self.pid, signal).map_err(|_| NotNow("the process has ended"))
    }

    /// Changes the size of its terminal.
    ///
    /// # Errors
    /// It has none.
    pub fn resize(&self, size: TerminalSize) -> Result<(), NotNow> {
        let terminal = self.terminal.as_ref().ok_or(NotNow("the process has no terminal"))?;
        terminal.resize(size).map_err(|_| NotNow("the terminal is gone"))
    }

    /// Kills it and all that it has started. Nothing happens after its end.
    pub fn kill(&self) {
        if let Some(tree) = self.tree().as_ref() {
            tree.kill();
        }
    }

    fn tree(&self) -> MutexGuard<'_, Option<Tree>> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the first deadline that passes.
    async fn overdue(&self, began: Instant) -> Deadline {
        let total = self.request.timeout_ms.map(|ms| began + Duration::from_millis(ms));
        let idle = self.request.idle_timeout_ms.map(Duration::from_millis);
        loop {
            let idle_at = idle.map(|idle| self.output.active_at() + idle);
            let now = Instant::now();
            if total.is_some_and(|at| at <= now) {
                return Deadline::Total;
            }
            if idle_at.is_some_and(|at| at <= now) {
                return Deadline::Idle;
            }
            match total.into_iter().chain(idle_at).min() {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        }
    }
}

/// Pumps until the process has ended and its outputs have, then tells the end.
async fn supervise(
    process: Arc<Process>,
    outputs: Vec<(Stream, Source)>,
    mut exit: oneshot::Receiver<WaitStatus>,
) {
    let began = Instant::now();
    let (ended, is_ended) = watch::channel(false);
    let mut pumps = JoinSet::new();
    for (stream, source) in outputs {
        pumps.spawn(pump(source, stream, Arc::clone(&process.output), is_ended.clone()));
    }
    let mut deadline = None;
    let status = tokio::select! {
        status = &mut exit => status,
        passed = process.overdue(began) => {
            deadline = Some(passed);
            process.kill();
            exit.await
        }
    };
    ended.send_replace(true);
    // What it wrote before it ended is in the pipes; it is taken as long as it keeps coming.
    tokio::select! {
        () = async { while pumps.join_next().await.is_some() {} } => {}
        _ = process.overdue(began), if deadline.is_none() => process.kill(),
    }
    pumps.abort_all();
    process.output.close();
    if let Some(mut tree) = process.tree().take() {
        // What it has put into the background lives on, as after a shell's own end.
        tree.release();
    }
    process.status.send_replace(Some(match status {
        Ok(status) => ProcessStatus {
            code: status.exit_status(),
            signal: status.terminating_signal(),
            deadline,
            error: None,
        },
        Err(_) => spawn::failed(125, "the process was lost".to_owned()),
    }));
}

/// From a pipe or terminal to the buffer.
async fn pump(
    mut source: Source,
    stream: Stream,
    output: Arc<Output>,
    mut ended: watch::Receiver<bool>,
) {
    let mut buffer = vec![0u8; CHUNK_LEN];
    loop {
        let silent = async {
            // An error means that the supervisor is gone, which is an end too.
            let _ = ended.wait_for(|ended| *ended).await;
            tokio::time::sleep(DRAIN_IDLE).await;
        };
        let count = tokio::select! {
            biased;
            read = source.read(&mut buffer) => read.unwrap_or(0),
            () = silent => return,
        };
        if count == 0 {
            return;
        }
        output.append(stream, &buffer[..count]).await;
    }
}
