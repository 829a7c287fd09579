//! One process for one connection: frames in, frames out, a deadline.
#![expect(unsafe_code, reason = "session, group and cgroup are set between fork and exec")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::process::{Pid, Signal, WaitStatus, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use volant_protocol::{Decoder, ExecRequest, ExecStatus, Frame, FrameKind};

use crate::reap::{Reaper, Started};
use crate::tree::Tree;
use crate::user::{User, find};

/// Arguments and variables of one request.
const ARGV_MAX: usize = 4096;
/// Bytes read from a pipe at once: one frame.
const CHUNK_LEN: usize = 32 * 1024;
/// Frames between the pumps and the connection.
const QUEUE_LEN: usize = 4;
/// After the process has ended: how long its pipes may stay silent before they are given up, since
/// a child that lives on may hold them open for ever.
const DRAIN_IDLE: Duration = Duration::from_millis(500);
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Checks what can be known before a process exists.
///
/// # Errors
/// One sentence for the caller.
pub fn check(request: &ExecRequest) -> Result<(), String> {
    if request.argv.first().is_none_or(String::is_empty) {
        return Err("argv must name a program".to_owned());
    }
    if ARGV_MAX < request.argv.len() + request.env.len() {
        return Err(format!("at most {ARGV_MAX} arguments and variables"));
    }
    let texts = request.argv.iter().chain(request.env.keys()).chain(request.env.values());
    if texts.chain(&request.cwd).any(|text| text.contains('\0')) {
        return Err("a zero byte in an argument, a variable or the folder".to_owned());
    }
    if request.env.keys().any(|name| name.is_empty() || name.contains('=')) {
        return Err("a variable's name is empty or contains '='".to_owned());
    }
    Ok(())
}

/// Environment of every process: the guest's own, then `added`.
pub fn environment(base: &BTreeMap<String, String>, home: &str) -> BTreeMap<String, String> {
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), PATH_DEFAULT.to_owned()),
        ("HOME".to_owned(), home.to_owned()),
    ]);
    env.extend(base.clone());
    env
}

/// Runs a checked request over an upgraded connection until both are done.
pub async fn run<S>(
    stream: S,
    request: ExecRequest,
    base_env: BTreeMap<String, String>,
    reaper: Reaper,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut tree = Tree::create();
    let status = match start(&request, &base_env, &reaper, &tree) {
        Ok(started) => supervise(&mut reader, &mut writer, started, &request, &tree).await,
        Err(status) => Some(status),
    };
    if let Some(status) = status {
        // What the process has put into the background lives on, as after a shell's own end.
        tree.release();
        let payload = serde_json::to_vec(&status).unwrap_or_default();
        let frame = Frame { kind: FrameKind::Exit, payload: payload.into() };
        let _ = send(&mut writer, &frame).await;
    }
    let _ = writer.shutdown().await;
}

async fn send(writer: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> std::io::Result<()> {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    writer.write_all(&bytes).await?;
    writer.flush().await
}

fn failed(code: i32, error: String) -> ExecStatus {
    ExecStatus { code: Some(code), error: Some(error), ..ExecStatus::default() }
}

/// Starts the process of a request as a member of `tree`.
///
/// # Errors
/// How it would have ended: 127 not found, 126 not executable or no such user.
pub fn start(
    request: &ExecRequest,
    base_env: &BTreeMap<String, String>,
    reaper: &Reaper,
    tree: &Tree,
) -> Result<Started, ExecStatus> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let user = match &request.user {
        Some(name) => Some(
            find(name, &read("/etc/passwd"), &read("/etc/group"))
                .ok_or_else(|| failed(126, format!("no user {name:?} in the guest")))?,
        ),
        None => None,
    };
    let home = user.as_ref().map_or("/root", |user| user.home.as_str());
    let mut env = environment(base_env, home);
    env.extend(request.env.clone());
    let mut command = Command::new(&request.argv[0]);
    command.args(&request.argv[1..]).env_clear().envs(&env);
    command.current_dir(request.cwd.as_deref().unwrap_or("/"));
    command.stdin(if request.stdin { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    prepare(&mut command, user, tree.procs());
    reaper.spawn(&mut command).map_err(|error| {
        let code = if error.kind() == ErrorKind::NotFound { 127 } else { 126 };
        failed(code, format!("{}: {error}", request.argv[0]))
    })
}

/// Own session, own cgroup, then the user.
fn prepare(command: &mut Command, user: Option<User>, procs: Option<File>) {
    // SAFETY: the closure makes system calls only; its data were made before the fork.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            if let Some(mut procs) = procs.as_ref() {
                procs.write_all(b"0")?;
            }
            let Some(user) = &user else { return Ok(()) };
            let set = libc::setgroups(user.groups.len(), user.groups.as_ptr()) == 0
                && libc::setgid(user.gid) == 0
                && libc::setuid(user.uid) == 0;
            if set { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
}

/// Pumps until the process has ended (its status) or the client has gone (none).
async fn supervise(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    started: Started,
    request: &ExecRequest,
    tree: &Tree,
) -> Option<ExecStatus> {
    let Started { pid, stdin, stdout, stderr, exit } = started;
    let moved = Arc::new(AtomicU64::new(0));
    tree.adopt(pid);
    let (sender, mut frames) = mpsc::channel::<Frame>(QUEUE_LEN);
    let mut pumps = JoinSet::new();
    if let Some(stdout) = stdout {
        let moved = Arc::clone(&moved);
        pumps.spawn(pump(stdout.into(), FrameKind::Stdout, sender.clone(), moved));
    }
    if let Some(stderr) = stderr {
        let moved = Arc::clone(&moved);
        pumps.spawn(pump(stderr.into(), FrameKind::Stderr, sender.clone(), moved));
    }
    drop(sender);
    let stdin = stdin.and_then(|pipe| pipe::Sender::from_owned_fd(pipe.into()).ok());
    let timeout = request.timeout_ms.map(Duration::from_millis);
    let output = async {
        while let Some(frame) = frames.recv().await {
            if send(writer, &frame).await.is_err() {
                return false;
            }
        }
        true
    };
    tokio::pin!(output);
    let input = feed(reader, stdin, pid);
    tokio::pin!(input);
    let ended = wait(exit, timeout, tree);
    tokio::pin!(ended);
    let mut output_done = false;
    let status = loop {
        tokio::select! {
            status = &mut ended => break status,
            () = &mut input => return None,
            alive = &mut output, if !output_done => {
                if !alive {
                    return None;
                }
                output_done = true;
            }
        }
    };
    // What the process wrote before it ended is in the pipes; it is sent as long as it keeps coming.
    if !output_done {
        tokio::select! {
            _ = &mut output => {}
            () = &mut input => return None,
            () = idle(&pumps, &moved) => {}
        }
    }
    pumps.abort_all();
    Some(status)
}

/// Ends when the pumps have not moved a byte for [`DRAIN_IDLE`].
async fn idle(pumps: &JoinSet<()>, moved: &AtomicU64) {
    // ORDER: a sign of life; nothing else depends on it.
    let mut last = moved.load(Ordering::Relaxed);
    loop {
        tokio::time::sleep(DRAIN_IDLE).await;
        let now = moved.load(Ordering::Relaxed);
        if now == last || pumps.is_empty() {
            return;
        }
        last = now;
    }
}

/// From a pipe to the connection. `moved` counts the frames.
async fn pump(pipe: OwnedFd, kind: FrameKind, frames: mpsc::Sender<Frame>, moved: Arc<AtomicU64>) {
    let Ok(mut pipe) = pipe::Receiver::from_owned_fd(pipe) else { return };
    loop {
        let mut buffer = BytesMut::with_capacity(CHUNK_LEN);
        let payload: Bytes = match pipe.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => buffer.freeze(),
        };
        if frames.send(Frame { kind, payload }).await.is_err() {
            return;
        }
        moved.fetch_add(1, Ordering::Relaxed);
    }
}

/// Takes frames of the client. Returns when the client is gone or breaks the protocol.
async fn feed(reader: &mut (impl AsyncRead + Unpin), mut stdin: Option<pipe::Sender>, pid: Pid) {
    let mut decoder = Decoder::default();
    let mut buffer = vec![0u8; CHUNK_LEN];
    loop {
        match decoder.next_frame() {
            Ok(Some(Frame { kind: FrameKind::Stdin, payload })) if payload.is_empty() => {
                stdin = None
            }
            Ok(Some(Frame { kind: FrameKind::Stdin, payload })) => {
                if let Some(pipe) = &mut stdin
                    && pipe.write_all(&payload).await.is_err()
                {
                    // The process has closed its stdin; the rest is nobody's.
                    stdin = None;
                }
            }
            Ok(Some(Frame { kind: FrameKind::Signal, payload })) => {
                let number = payload.first().map_or(0, |number| i32::from(*number));
                if let Some(signal) = Signal::from_named_raw(number) {
                    let _ = kill_process_group(pid, signal);
                }
            }
            Ok(Some(_)) | Err(_) => return,
            Ok(None) => match reader.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(count) => decoder.extend(&buffer[..count]),
            },
        }
    }
}

async fn wait(
    mut exit: oneshot::Receiver<WaitStatus>,
    timeout: Option<Duration>,
    tree: &Tree,
) -> ExecStatus {
    let mut timed_out = false;
    let status = match timeout {
        Some(timeout) => match tokio::time::timeout(timeout, &mut exit).await {
            Ok(status) => status,
            Err(_) => {
                timed_out = true;
                tree.kill();
                exit.await
            }
        },
        None => exit.await,
    };
    let Ok(status) = status else { return failed(125, "the process was lost".to_owned()) };
    ExecStatus {
        code: status.exit_status(),
        signal: status.terminating_signal(),
        timed_out,
        error: None,
    }
}
