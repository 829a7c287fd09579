//! Against the real agent, over a pipe in memory instead of vsock.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
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

/// An agent that says this whatever it is asked, or nothing at all, and hangs up.
async fn told(answer: &'static str) -> AgentError {
    let (ours, mut theirs) = tokio::io::duplex(PIPE_LEN);
    let speaker = tokio::spawn(async move {
        let _ = theirs.read(&mut [0; 4096]).await;
        let _ = theirs.write_all(answer.as_bytes()).await;
        // An endless head: until nobody listens.
        while answer.ends_with("X: ") && theirs.write_all(&[b'y'; 1024]).await.is_ok() {}
    });
    let error = list(ours).await.expect_err("nonsense was taken for an answer");
    speaker.await.unwrap();
    error
}

#[tokio::test]
async fn an_agent_that_answers_nonsense_is_named() {
    for garbage in ["\u{7f}ELF\r\n\r\n", "HTTP/1.1 200 OK\r\nX: ", "HTTP/9.9 200\r\n\r\n"] {
        assert!(matches!(told(garbage).await, AgentError::Protocol(_)), "{garbage:?}");
    }
    for broken in ["", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[]"] {
        assert!(matches!(told(broken).await, AgentError::Io(_)), "{broken:?}");
    }
    for other in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull",
    ] {
        assert!(matches!(told(other).await, AgentError::Protocol(_)), "{other:?}");
    }
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

fn whole(bytes: impl Into<Bytes>) -> Payload {
    http_body_util::Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

async fn contents(mut download: Download) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(chunk) = download.next().await.unwrap() {
        bytes.extend_from_slice(&chunk);
    }
    bytes
}

fn refused(error: AgentError) -> String {
    let AgentError::Refused { code, .. } = error else { panic!("{error:?}") };
    code
}

#[tokio::test]
async fn files_are_written_read_and_looked_at() {
    let guest = Guest::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/deep/ä file").display().to_string();
    let options = WriteOptions {
        mode: Some(0o750),
        parents: true,
        modified_unix_ms: Some(1_500),
        ..WriteOptions::default()
    };
    let info = files::write(guest.dial(), &path, &options, whole("0123456789")).await.unwrap();
    assert_eq!((info.size, info.mode, info.modified_unix_ms), (10, 0o750, 1_500));
    assert_eq!(files::stat(guest.dial(), &path).await.unwrap(), info);
    let append = WriteOptions { append: true, ..WriteOptions::default() };
    files::write(guest.dial(), &path, &append, whole("ab")).await.unwrap();

    let all = files::read(guest.dial(), &path, None).await.unwrap();
    assert_eq!((all.content_length(), all.range()), (Some(12), None));
    assert_eq!(contents(all).await, b"0123456789ab");
    for (range, told, expected) in [
        ("bytes=2-4", "bytes 2-4/12", &b"234"[..]),
        ("bytes=10-", "bytes 10-11/12", b"ab"),
        ("bytes=-3", "bytes 9-11/12", b"9ab"),
        ("bytes=8-100", "bytes 8-11/12", b"89ab"),
    ] {
        let part = files::read(guest.dial(), &path, Some(range)).await.unwrap();
        assert_eq!(part.range(), Some(told), "{range}");
        assert_eq!(contents(part).await, expected, "{range}");
    }
    for range in ["bytes=12-", "bytes=-0"] {
        let error = files::read(guest.dial(), &path, Some(range)).await.unwrap_err();
        assert_eq!(refused(error), "invalid_range", "{range}");
    }
    let plain = WriteOptions::default();
    let shorter = files::write(guest.dial(), &path, &plain, whole("x")).await.unwrap();
    assert_eq!(shorter.size, 1, "an old end is cut off");
    let proc = files::read(guest.dial(), "/proc/self/status", None).await.unwrap();
    assert!(contents(proc).await.starts_with(b"Name:"), "a file without a length");
    let fifo = folder.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    for (path, code) in [
        (folder.path().join("none").display().to_string(), "file_not_found"),
        (folder.path().display().to_string(), "is_a_directory"),
        (fifo.display().to_string(), "not_a_file"),
        ("/dev/zero".to_owned(), "not_a_file"),
        ("relative".to_owned(), "invalid_path"),
        ("/tmp/../etc/passwd".to_owned(), "invalid_path"),
        (format!("/{}", "x".repeat(5000)), "invalid_path"),
        ("/etc/pass\0wd".to_owned(), "invalid_path"),
    ] {
        let error = files::read(guest.dial(), &path, None).await.unwrap_err();
        assert_eq!(refused(error), code, "{path:?}");
    }
}

#[tokio::test]
async fn folders_are_made_listed_moved_and_removed() {
    let guest = Guest::new();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    files::make_folder(guest.dial(), &path("a/b/c"), true, Some(0o700), None).await.unwrap();
    files::make_folder(guest.dial(), &path("a/b/c"), true, None, None).await.unwrap();
    let error = files::make_folder(guest.dial(), &path("a"), false, None, None).await.unwrap_err();
    assert_eq!(refused(error), "file_exists");
    std::fs::write(path("a/one"), "1").unwrap();
    std::os::unix::fs::symlink("one", path("a/two")).unwrap();
    let names = |list: &volant_protocol::FileList| {
        list.entries.iter().map(|entry| entry.name.clone()).collect::<Vec<_>>()
    };
    let list = files::list(guest.dial(), &path("a"), 1, 100).await.unwrap();
    assert_eq!(
        (names(&list), list.truncated),
        (vec!["b".into(), "one".into(), "two".into()], false)
    );
    assert_eq!(list.entries[2].link_target.as_deref(), Some("one"));
    let list = files::list(guest.dial(), &path("a"), 2, 100).await.unwrap();
    assert_eq!(names(&list), ["b", "one", "two", "c"]);
    let list = files::list(guest.dial(), &path("a"), 2, 2).await.unwrap();
    assert_eq!((list.entries.len(), list.truncated), (2, true));
    let wanted = |from: &str, to: &str, replace| volant_protocol::MoveRequest {
        from: path(from),
        to: path(to),
        replace,
    };
    std::fs::write(path("a/three"), "3").unwrap();
    let error = files::rename(guest.dial(), &wanted("a/one", "a/three", false)).await.unwrap_err();
    assert_eq!(refused(error), "file_exists");
    files::rename(guest.dial(), &wanted("a/one", "a/three", true)).await.unwrap();
    assert_eq!(std::fs::read(path("a/three")).unwrap(), b"1");
    let error = files::remove(guest.dial(), &path("a"), false).await.unwrap_err();
    assert_eq!(refused(error), "directory_not_empty");
    files::remove(guest.dial(), &path("a"), true).await.unwrap();
    let error = files::remove(guest.dial(), &path("a"), true).await.unwrap_err();
    assert_eq!(refused(error), "file_not_found");
    assert_eq!(refused(files::remove(guest.dial(), "/", true).await.unwrap_err()), "invalid_path");
}

#[tokio::test]
async fn trees_travel_as_tar_streams() {
    let guest = Guest::new();
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    std::fs::create_dir_all(from.join("sub")).unwrap();
    std::fs::write(from.join("sub/large"), vec![5; 3_000_000]).unwrap();
    std::os::unix::fs::symlink("sub/large", from.join("link")).unwrap();
    let packed = files::pack(guest.dial(), from.to_str().unwrap()).await.unwrap();
    let packed = contents(packed).await;
    let info = files::unpack(guest.dial(), to.to_str().unwrap(), whole(packed.clone())).await;
    assert_eq!(info.unwrap().kind, volant_protocol::FileKind::Directory);
    assert_eq!(std::fs::read(to.join("sub/large")).unwrap(), vec![5; 3_000_000]);
    assert_eq!(std::fs::read_link(to.join("link")).unwrap().to_str(), Some("sub/large"));
    let error = files::unpack(guest.dial(), to.to_str().unwrap(), whole("no archive")).await;
    assert!(error.is_err());
    let cut = whole(packed[..1_000_000].to_vec());
    assert!(files::unpack(guest.dial(), to.to_str().unwrap(), cut).await.is_err());
    let error = files::pack(guest.dial(), "/no/such").await.unwrap_err();
    assert_eq!(refused(error), "file_not_found");
}

#[tokio::test]
async fn every_change_is_told() {
    use volant_protocol::FileEventKind::{Chmod, Create, Remove, Rename, Started, Write};
    let guest = Guest::new();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::create_dir(path("old")).unwrap();
    let mut watch =
        files::watch(guest.dial(), folder.path().to_str().unwrap(), true).await.unwrap();
    let mut seen = Vec::new();
    let mut expect = async |kind, name: &str| {
        let path = path(name).trim_end_matches('/').to_owned();
        let wanted = volant_protocol::FileEvent { kind, path };
        let found = async {
            while !seen.contains(&wanted) {
                seen.push(watch.next().await.unwrap().unwrap());
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), found).await;
        assert!(waited.is_ok(), "{wanted:?} is not in {seen:?}");
    };
    expect(Started, "").await;
    std::fs::write(path("file"), "1").unwrap();
    expect(Create, "file").await;
    expect(Write, "file").await;
    std::fs::set_permissions(path("file"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    expect(Chmod, "file").await;
    std::fs::write(path("old/below"), "1").unwrap();
    expect(Create, "old/below").await;
    std::fs::create_dir_all(path("new/deep")).unwrap();
    std::fs::write(path("new/deep/file"), "1").unwrap();
    expect(Create, "new/deep/file").await;
    std::fs::rename(path("new"), path("moved")).unwrap();
    expect(Rename, "new").await;
    expect(Create, "moved").await;
    std::fs::write(path("moved/deep/file"), "2").unwrap();
    expect(Write, "moved/deep/file").await;
    std::fs::remove_file(path("file")).unwrap();
    expect(Remove, "file").await;
}

#[tokio::test]
async fn the_guest_tells_what_it_sees() {
    let guest = Guest::new();
    let metrics = observe::metrics(guest.dial()).await.unwrap();
    assert!(0 < metrics.cpus && 0 < metrics.memory_total && 0 < metrics.processes, "{metrics:?}");
    assert!(metrics.memory_available <= metrics.memory_total && 0 < metrics.disk_total);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let ports = observe::ports(guest.dial()).await.unwrap();
    assert!(ports.iter().any(|shown| shown.port == port && shown.protocol == "tcp"), "{ports:?}");
}
