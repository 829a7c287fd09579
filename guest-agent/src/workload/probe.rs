//! One look at the workload's health. Its deadline is the caller's: a look that is dropped leaves
//! nothing running.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::unix::pipe;
use volant_protocol::{Probe, ProcessRequest, Workload};

use crate::process::{self, Tree};
use crate::reap::Reaper;

/// Bytes of a failed command's output that are quoted.
const QUOTE_LEN_MAX: usize = 200;

/// Looks once.
///
/// # Errors
/// Why it is not healthy, in a few words.
pub async fn look(
    probe: &Probe,
    workload: &Workload,
    base_env: &BTreeMap<String, String>,
    reaper: &Reaper,
) -> Result<(), String> {
    match probe {
        Probe::Tcp { port } => connect(*port).await.map(drop),
        Probe::Http { port, path } => get(*port, path).await,
        Probe::Exec { argv } => {
            let request = ProcessRequest {
                argv: argv.clone(),
                env: workload.env.clone(),
                cwd: workload.cwd.clone(),
                user: workload.user.clone(),
                ..ProcessRequest::default()
            };
            run(&request, base_env, reaper).await
        }
    }
}

async fn connect(port: u16) -> Result<TcpStream, String> {
    let connected = TcpStream::connect(("127.0.0.1", port)).await;
    connected.map_err(|error| format!("port {port}: {error}"))
}

async fn get(port: u16, path: &str) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("GET :{port}{path}: {error}");
    let stream = TokioIo::new(connect(port).await?);
    let (mut sender, connection) = http1::handshake(stream).await.map_err(|e| failed(&e))?;
    let request = Request::get(path)
        .header("host", "localhost")
        .header("user-agent", "volary")
        .header("connection", "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(&error))?;
    let answer = sender.send_request(request);
    tokio::pin!(connection, answer);
    let mut ended = false;
    let answer = loop {
        tokio::select! {
            answer = &mut answer => break answer.map_err(|error| failed(&error))?,
            // The answer may have come with the connection's end.
            _ = &mut connection, if !ended => ended = true,
        }
    };
    let status = answer.status();
    if status.is_success() || status.is_redirection() { Ok(()) } else { Err(failed(&status)) }
}

async fn run(
    request: &ProcessRequest,
    base_env: &BTreeMap<String, String>,
    reaper: &Reaper,
) -> Result<(), String> {
    // Killed when this look is dropped.
    let mut tree = Tree::create();
    let (started, _) = process::begin(request, base_env, reaper, &tree)
        .map_err(|status| status.error.unwrap_or_default())?;
    tree.adopt(started.pid);
    let stdout = started.stdout.map(OwnedFd::from);
    let stderr = started.stderr.map(OwnedFd::from);
    let (status, said, complained) = tokio::join!(
        async {
            let status = started.exit.await;
            // What it has left in the background would hold the pipes open.
            tree.kill();
            status
        },
        drain(stdout),
        drain(stderr)
    );
    tree.release();
    let status = status.map_err(|_| "the command was lost".to_owned())?;
    if status.exit_status() == Some(0) {
        return Ok(());
    }
    let end = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, signal) => format!("signal {}", signal.unwrap_or(0)),
    };
    let quote = if complained.is_empty() { said } else { complained };
    let quote = String::from_utf8_lossy(&quote);
    let quote = quote.trim();
    let argv = &request.argv[0];
    Err(if quote.is_empty() { format!("{argv}: {end}") } else { format!("{argv}: {end}: {quote}") })
}

/// Reads a pipe to its end and keeps its beginning.
async fn drain(pipe: Option<OwnedFd>) -> Vec<u8> {
    let Some(mut pipe) = pipe.and_then(|pipe| pipe::Receiver::from_owned_fd(pipe).ok()) else {
        return Vec::new();
    };
    let (mut kept, mut buffer) = (Vec::new(), [0; 1024]);
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        let room = QUOTE_LEN_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
    kept
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn status_of(answer: &'static str) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1024];
            let count = stream.read(&mut request).await.unwrap();
            assert!(request[..count].starts_with(b"GET /health?x=1 HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        tokio::join!(get(port, "/health?x=1"), server).0
    }

    #[tokio::test]
    async fn the_status_of_an_answer_counts() {
        assert_eq!(status_of("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await, Ok(()));
        assert_eq!(status_of("HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n").await, Ok(()));
        let text = status_of("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await.unwrap_err();
        assert!(text.contains("503"), "{text}");
        assert!(status_of("what?\r\n\r\n").await.is_err());
        assert!(status_of("").await.is_err());
    }

    #[tokio::test]
    async fn a_commands_exit_code_counts_and_its_words_are_quoted() {
        let reaper = Reaper::start().unwrap();
        let look = async |line: &str| {
            let argv = ["/bin/sh", "-c", line].map(str::to_owned).to_vec();
            let probe = Probe::Exec { argv };
            look(&probe, &Workload::default(), &BTreeMap::new(), &reaper).await
        };
        assert_eq!(look("exit 0").await, Ok(()));
        assert_eq!(look("echo no >&2; exit 3").await, Err("/bin/sh: exit code 3: no".to_owned()));
        assert_eq!(look("kill -9 $$").await, Err("/bin/sh: signal 9".to_owned()));
    }

    #[tokio::test]
    async fn a_closed_port_is_told() {
        let text = connect(1).await.unwrap_err();
        assert!(text.starts_with("port 1: "), "{text}");
    }
}
