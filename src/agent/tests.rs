//! Against the real agent, over a pipe in memory instead of vsock.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::io::DuplexStream;
use volant_protocol::{Deadline, ProcessRequest, ProcessStatus, TerminalSize};
use volary::http::{Agent, serve};
use volary::reap::Reaper;

use super::process::*;
use super::*;

const PIPE_LEN: usize = 64 * 1024;

struct Guest(Arc<Agent>);

impl Guest {
    fn new() -> Guest {
        Guest(Arc::new(Agent::new(Reaper::start().unwrap())))
    }

    fn dial(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(PIPE_LEN);
        tokio::spawn(serve(theirs, Arc::clone(&self.0)));
        ours
    }
}

fn shell(line: &str) -> ProcessRequest {
    let argv = ["/bin/sh", "-c", line].map(str::to_owned).to_vec();
    ProcessRequest { argv, ..ProcessRequest::default() }
}

fn exited(code: i32) -> ProcessStatus {
    ProcessStatus { code: Some(code), ..ProcessStatus::default() }
}

/// Everything until the end.
async fn all(attachment: &mut Attachment) -> (Vec<u8>, Vec<u8>, u64, ProcessStatus) {
    let (mut stdout, mut stderr, mut lost) = (Vec::new(), Vec::new(), 0);
    loop {
        match attachment.next().await.unwrap().unwrap() {
            ProcessOutput::Stdout(bytes) => stdout.extend_from_slice(&bytes),
            ProcessOutput::Stderr(bytes) => stderr.extend_from_slice(&bytes),
            ProcessOutput::Gap(count) => lost += count,
            ProcessOutput::Exit(status) => return (stdout, stderr, lost, status),
        }
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waited).await.expect(what);
}

#[tokio::test]
async fn a_process_runs_and_tells_its_end() {
    let guest = Guest::new();
    let mut process = exec(guest.dial(), &shell("echo out; echo err >&2; exit 3")).await.unwrap();
    assert_eq!(process.info().unwrap().argv[2], "echo out; echo err >&2; exit 3");
    let (stdout, stderr, lost, status) = all(&mut process).await;
    assert_eq!((&stdout[..], &stderr[..], lost), (&b"out\n"[..], &b"err\n"[..], 0));
    assert_eq!(status, exited(3));
    assert_eq!(process.next().await.unwrap(), None);
    let missing = ProcessRequest { argv: vec!["/no/such".to_owned()], ..Default::default() };
    let mut process = exec(guest.dial(), &missing).await.unwrap();
    assert!(process.info().is_none());
    assert_eq!(all(&mut process).await.3.code, Some(127));
    let refused = start(guest.dial(), &missing).await.unwrap_err();
    let AgentError::Refused { code, .. } = refused else { panic!("{refused:?}") };
    assert_eq!(code, "process_not_started");
    assert_eq!(list(guest.dial()).await.unwrap(), [], "its client has heard all of it");
}

#[tokio::test]
async fn a_process_outlives_its_connections_and_replays_its_output() {
    let guest = Guest::new();
    let request = ProcessRequest {
        stdin: true,
        tag: Some("mine".to_owned()),
        ..shell("echo one; read x; echo $x; read y; echo $y; exit 7")
    };
    let id = start(guest.dial(), &request).await.unwrap().id;
    assert_eq!(list(guest.dial()).await.unwrap()[0].tag.as_deref(), Some("mine"));
    let options = AttachOptions { from: 0, hold: true };
    let mut first = attach(guest.dial(), id, options).await.unwrap();
    assert_eq!(first.next().await.unwrap(), Some(ProcessOutput::Stdout("one\n".into())));
    first.input().send(ProcessInput::Stdin("two\n".into())).await.unwrap();
    assert_eq!(first.next().await.unwrap(), Some(ProcessOutput::Stdout("two\n".into())));
    drop(first);

    let body = http_body_util::Full::new(Bytes::from("three\n"));
    let body = body.map_err(|never| match never {}).boxed_unsync();
    write(guest.dial(), id, body, true).await.unwrap();
    let info = wait(guest.dial(), id, 20_000).await.unwrap();
    assert_eq!(info.status, Some(exited(7)));
    let mut second = attach(guest.dial(), id, AttachOptions { from: 4, hold: true }).await.unwrap();
    assert_eq!(all(&mut second).await, (b"two\nthree\n".to_vec(), vec![], 0, exited(7)));
    assert_eq!(remove(guest.dial(), id).await.unwrap().id, id);
    let gone = get(guest.dial(), id).await.unwrap_err();
    assert!(matches!(gone, AgentError::Refused { status: 404, .. }), "{gone:?}");
}

#[tokio::test]
async fn the_last_bytes_are_kept_for_who_comes_late() {
    let guest = Guest::new();
    let line = "i=0; while [ $i -lt 40000 ]; do echo 0123456789abcde; i=$((i+1)); done";
    let id = start(guest.dial(), &shell(line)).await.unwrap().id;
    let info = wait(guest.dial(), id, 20_000).await.unwrap();
    assert_eq!(info.output_end, 640_000, "a process without a reader does not wait");
    let mut late = attach(guest.dial(), id, AttachOptions { from: 0, hold: true }).await.unwrap();
    let (stdout, _, lost, status) = all(&mut late).await;
    assert_eq!((stdout.len() as u64 + lost, status), (640_000, exited(0)));
    assert_eq!(stdout.len(), 256 * 1024);
    let mut live =
        attach(guest.dial(), id, AttachOptions { from: u64::MAX, hold: false }).await.unwrap();
    assert_eq!(all(&mut live).await.0, b"");
}

#[tokio::test]
async fn a_slow_reader_loses_nothing() {
    let guest = Guest::new();
    let mut process = exec(guest.dial(), &shell("head -c 3000000 /dev/zero")).await.unwrap();
    // Longer than pipes are given to be silent after the end.
    tokio::time::sleep(Duration::from_millis(700)).await;
    let (stdout, _, lost, status) = all(&mut process).await;
    assert_eq!((stdout.len(), lost, status), (3_000_000, 0, exited(0)));
}

#[tokio::test]
async fn deadlines_kill() {
    let guest = Guest::new();
    let total = ProcessRequest { timeout_ms: Some(100), ..shell("while :; do echo x; done") };
    let status = all(&mut exec(guest.dial(), &total).await.unwrap()).await.3;
    assert_eq!((status.signal, status.deadline), (Some(9), Some(Deadline::Total)));
    let idle = ProcessRequest { idle_timeout_ms: Some(100), ..shell("echo a; sleep 1000") };
    let (stdout, _, _, status) = all(&mut exec(guest.dial(), &idle).await.unwrap()).await;
    assert_eq!((&stdout[..], status.deadline), (&b"a\n"[..], Some(Deadline::Idle)));
}

#[tokio::test]
async fn who_owns_a_process_takes_it_along_unless_it_is_kept() {
    let guest = Guest::new();
    let sleeper = shell("exec sleep 1000");
    let owned = exec(guest.dial(), &sleeper).await.unwrap();
    let id = owned.info().unwrap().id;
    drop(owned);
    until("the process is killed", async || get(guest.dial(), id).await.is_err()).await;

    let kept = exec(guest.dial(), &sleeper).await.unwrap();
    let id = kept.info().unwrap().id;
    keep(guest.dial(), id).await.unwrap();
    drop(kept);
    let info = wait(guest.dial(), id, 300).await.unwrap();
    assert_eq!(info.status, None, "a kept process lives on");
    signal(guest.dial(), id, 15).await.unwrap();
    let info = wait(guest.dial(), id, 20_000).await.unwrap();
    assert_eq!(info.status.unwrap().signal, Some(15));
    let late = signal(guest.dial(), id, 15).await.unwrap_err();
    assert!(matches!(late, AgentError::Refused { status: 409, .. }), "{late:?}");
}

#[tokio::test]
async fn stuck_stdin_blocks_neither_signals_nor_others() {
    let guest = Guest::new();
    let request = ProcessRequest { stdin: true, keep: true, ..shell("exec sleep 1000") };
    let stuck = exec(guest.dial(), &request).await.unwrap();
    let id = stuck.info().unwrap().id;
    let input = stuck.input();
    let writer = tokio::spawn(async move {
        let zeroes = Bytes::from(vec![0; PIPE_LEN]);
        while input.send(ProcessInput::Stdin(zeroes.clone())).await.is_ok() {}
    });
    let endless = StreamBody::new(futures_util::stream::repeat_with(|| {
        Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(&[0; 4096])))
    }));
    let second = tokio::spawn(write(guest.dial(), id, endless.boxed_unsync(), false));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!writer.is_finished() && !second.is_finished());
    let other = all(&mut exec(guest.dial(), &shell("echo here")).await.unwrap()).await;
    assert_eq!(other.0, b"here\n");
    signal(guest.dial(), id, 9).await.unwrap();
    let info = wait(guest.dial(), id, 20_000).await.unwrap();
    assert_eq!(info.status.unwrap().signal, Some(9));
    second.abort();
    drop(stuck);
    tokio::time::timeout(Duration::from_secs(20), writer).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_terminal_has_a_size_and_one_output() {
    let guest = Guest::new();
    let terminal = Some(TerminalSize { cols: 100, rows: 30 });
    let line = "stty size; trap 'stty size; exit 4' WINCH; tty >/dev/null && echo $TERM; \
                while :; do sleep 0.05; done";
    let request = ProcessRequest { terminal, ..shell(line) };
    let mut process = exec(guest.dial(), &request).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"xterm-256color\r\n") {
        match process.next().await.unwrap() {
            Some(ProcessOutput::Stdout(bytes)) => seen.extend_from_slice(&bytes),
            other => panic!("{other:?} after {}", String::from_utf8_lossy(&seen)),
        }
    }
    assert!(seen.starts_with(b"30 100\r\n"), "{}", String::from_utf8_lossy(&seen));
    let size = TerminalSize { cols: 120, rows: 40 };
    process.input().send(ProcessInput::Resize(size)).await.unwrap();
    let (stdout, stderr, _, status) = all(&mut process).await;
    assert_eq!((&stdout[..], &stderr[..]), (&b"40 120\r\n"[..], &b""[..]));
    assert_eq!(status, exited(4));
    let plain = exec(guest.dial(), &shell("sleep 1000")).await.unwrap();
    let id = plain.info().unwrap().id;
    let refused = resize(guest.dial(), id, size).await.unwrap_err();
    assert!(matches!(refused, AgentError::Refused { status: 409, .. }), "{refused:?}");
}
