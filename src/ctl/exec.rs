//! `vms exec`: the command's bytes as they come and go, and its exit code as ours. The wire is a
//! WebSocket with Kubernetes' remote command channels.

use std::io::IsTerminal;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hyper::Method;
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio_tungstenite::tungstenite::Message;

use crate::cli::ExecArgs;
use crate::ctl::client::{Client, Failure};
use crate::ctl::output::Printer;
use crate::ctl::socket::{self, Socket, channel};
use crate::ctl::terminal::{DetachKeys, Keyboard, Raw, size};
use crate::ctl::vms::path;
use crate::wire::{ExitView, ProcessView, StartProcess};

/// Exit code when the daemon or the guest failed, not the command.
const ENGINE_FAILED: u8 = 125;
/// Exit code when a deadline killed the command, as timeout(1) has it.
const TIMED_OUT: u8 = 124;
const PROTOCOL: &str = "v5.channel.k8s.io";
/// Channels of the protocol.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;
/// Bytes of stdin in one message.
const CHUNK_LEN: usize = 32 * 1024;
/// Bytes of command and environment: they travel in the head of a request.
const QUERY_LEN_MAX: usize = 48 * 1024;

/// Runs it.
///
/// # Errors
/// [`Failure`]; the command's own failure is its exit code.
pub async fn run(client: &Client, args: ExecArgs, out: &Printer) -> Result<u8, Failure> {
    let engine = |failure: Failure| Failure {
        exit_code: if failure.exit_code == 1 { ENGINE_FAILED } else { failure.exit_code },
        ..failure
    };
    if args.detach {
        return start(client, args, out).await.map_err(engine);
    }
    let keys = DetachKeys::parse(&args.detach_keys).ok_or_else(|| no_keys(&args.detach_keys))?;
    let target = path(&args.name, &format!("/exec?{}", query(&args)?));
    let session = Session { stdin: args.interactive, terminal: args.tty, keys };
    attend(client, &args.name, &target, session, out).await.map_err(engine)
}

/// A sequence of keys that cannot be typed.
pub fn no_keys(text: &str) -> Failure {
    let text = format!("--detach-keys: {text:?} is not like ctrl-p,ctrl-q");
    Failure { exit_code: 2, ..Failure::local(text) }
}

async fn start(client: &Client, args: ExecArgs, out: &Printer) -> Result<u8, Failure> {
    let ms = |seconds: u64| seconds.saturating_mul(1000);
    let body = StartProcess {
        argv: args.argv,
        env: args.env.into_iter().collect(),
        cwd: args.cwd,
        user: args.user,
        timeout_ms: args.timeout.map(ms),
        idle_timeout_ms: args.idle_timeout.map(ms),
        stdin: args.interactive,
        tag: args.tag,
        ..StartProcess::default()
    };
    let path = path(&args.name, "/processes");
    let process: ProcessView = client.json(Method::POST, &path, Some(&body)).await?;
    out.line(&process.id.to_string())?;
    Ok(0)
}

fn query(args: &ExecArgs) -> Result<String, Failure> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(args.argv.iter().map(|argument| ("command", argument)));
    query.extend_pairs(args.env.iter().map(|(key, value)| ("env", format!("{key}={value}"))));
    query.extend_pairs(args.cwd.iter().map(|cwd| ("cwd", cwd)));
    query.extend_pairs(args.user.iter().map(|user| ("user", user)));
    query.extend_pairs(args.tag.iter().map(|tag| ("tag", tag)));
    let ms = |seconds: u64| seconds.saturating_mul(1000).to_string();
    query.extend_pairs(args.timeout.iter().map(|limit| ("timeout_ms", ms(*limit))));
    query.extend_pairs(args.idle_timeout.iter().map(|limit| ("idle_timeout_ms", ms(*limit))));
    query.append_pair("stdin", if args.interactive { "true" } else { "false" });
    if args.tty {
        query.append_pair("tty", "true");
        if let Some((cols, rows)) = size() {
            query.append_pair("cols", &cols.to_string()).append_pair("rows", &rows.to_string());
        }
    }
    let query = query.finish();
    if QUERY_LEN_MAX < query.len() {
        let text = "command and environment are too long; write them to a file in the VM instead";
        return Err(Failure { exit_code: 2, ..Failure::local(text) });
    }
    Ok(query)
}

/// How to attend to a process.
#[derive(Debug)]
pub struct Session {
    /// Whether our stdin is sent.
    pub stdin: bool,
    /// Whether it has a terminal, which ours then becomes.
    pub terminal: bool,
    /// Keys that detach from a terminal.
    pub keys: DetachKeys,
}

/// Connects stdin, stdout and stderr to the process behind `target` until it ends, or until the
/// detach keys are typed. The exit code is the process's, or 0 after a detach.
///
/// # Errors
/// [`Failure`].
pub async fn attend(
    client: &Client,
    name: &str,
    target: &str,
    session: Session,
    out: &Printer,
) -> Result<u8, Failure> {
    let (socket, response) = socket::connect(client, target, Some(PROTOCOL)).await?;
    let id = response.headers().get("volant-process-id");
    let id: Option<u32> = id.and_then(|value| value.to_str().ok()?.parse().ok());
    let (mut sink, mut output) = socket.split();
    let raw = session.terminal.then(Raw::enter);
    tokio::select! {
        code = show(&mut output, out) => return code,
        detached = feed(&mut sink, session) => detached?,
    }
    // While the connection stands: its end is the end of a process that is not kept.
    if let Some(id) = id {
        let keep = path(name, &format!("/processes/{id}/keep"));
        client.send(Method::POST, &keep, None, "*/*").await?;
    }
    drop(raw);
    let text = "shows the process, `vms attach` comes back to it";
    out.talk(format!("\ndetached; `vms ps {name}` {text}\n").as_bytes());
    Ok(0)
}

async fn show(output: &mut SplitStream<Socket>, out: &Printer) -> Result<u8, Failure> {
    let local = |error: &dyn std::fmt::Display| Failure::local(error.to_string());
    while let Some(message) = output.next().await {
        let bytes = match message.map_err(|error| local(&error))? {
            Message::Binary(bytes) => bytes,
            Message::Close(_) => break,
            _ => continue,
        };
        match bytes.split_first() {
            Some((&STDOUT, rest)) => out.write(rest)?,
            Some((&STDERR, rest)) => out.talk(rest),
            Some((&STATUS, rest)) => return ended(rest, out),
            _ => {}
        }
    }
    Err(Failure::local("the daemon hung up before the command had ended"))
}

/// `metav1.Status`, as far as it is used.
#[derive(Deserialize)]
struct Status {
    status: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    details: Details,
}

#[derive(Default, Deserialize)]
struct Details {
    #[serde(default)]
    causes: Vec<Cause>,
}

#[derive(Deserialize)]
struct Cause {
    reason: String,
    message: String,
}

fn ended(status: &[u8], out: &Printer) -> Result<u8, Failure> {
    let status: Status = serde_json::from_slice(status)
        .map_err(|error| Failure::local(format!("the status is odd: {error}")))?;
    if status.status == "Success" {
        return Ok(0);
    }
    if status.reason == "Timeout" {
        return Ok(TIMED_OUT);
    }
    if status.reason != "NonZeroExitCode" {
        out.talk(format!("error: {}\n", status.message).as_bytes());
    }
    let cause = status.details.causes.iter().find(|cause| cause.reason == "ExitCode");
    let code = cause.and_then(|cause| cause.message.parse::<i32>().ok());
    Ok(code.map_or(ENGINE_FAILED, low_byte))
}

fn low_byte(code: i32) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(ENGINE_FAILED)
}

/// What a shell would show for it.
pub fn exit_code(exit: &ExitView) -> u8 {
    match (exit.timed_out, exit.exit_code, exit.signal) {
        (true, ..) => TIMED_OUT,
        (_, Some(code), _) => low_byte(code),
        (_, None, Some(signal)) => low_byte(128 + signal),
        _ => ENGINE_FAILED,
    }
}

/// Sends stdin and sizes. Returns only when the detach keys were typed.
async fn feed(sink: &mut SplitSink<Socket, Message>, session: Session) -> Result<(), Failure> {
    let local = |error: &dyn std::fmt::Display| Failure::local(error.to_string());
    let Session { stdin: mut open, terminal, mut keys } = session;
    let detachable = terminal && std::io::stdin().is_terminal();
    let mut resized = signal(SignalKind::window_change()).map_err(|error| local(&error))?;
    let mut stdin = Keyboard::open().map_err(|error| local(&error))?;
    let mut buffer = vec![0u8; CHUNK_LEN];
    if terminal && let Some(message) = resize() {
        sink.send(message).await.map_err(|error| local(&error))?;
    }
    loop {
        let message = tokio::select! {
            read = stdin.read(&mut buffer), if open => {
                let count = read.map_err(|error| local(&error))?;
                open = count != 0;
                let mut detached = false;
                let mut typed = buffer[..count].to_vec();
                if detachable {
                    (typed, detached) = keys.push(&typed);
                }
                if detached {
                    return Ok(());
                }
                match (open, typed.is_empty()) {
                    (false, _) => Some(channel(CLOSE, &[STDIN])),
                    (true, false) => Some(channel(STDIN, &typed)),
                    (true, true) => None,
                }
            }
            Some(()) = resized.recv(), if terminal => resize(),
            // The other half learns of the end.
            else => std::future::pending().await,
        };
        if let Some(message) = message
            && sink.send(message).await.is_err()
        {
            // The other half learns why.
            std::future::pending::<()>().await;
        }
    }
}

fn resize() -> Option<Message> {
    let (cols, rows) = size()?;
    let size = serde_json::json!({"Width": cols, "Height": rows});
    Some(channel(RESIZE, size.to_string().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_guests() {
        let exit = |exit_code, signal, timed_out| ExitView {
            exit_code,
            signal,
            timed_out,
            ..ExitView::default()
        };
        assert_eq!(exit_code(&exit(Some(3), None, false)), 3);
        assert_eq!(exit_code(&exit(None, Some(9), false)), 137);
        assert_eq!(exit_code(&exit(None, Some(9), true)), 124);
        assert_eq!(exit_code(&exit(None, None, false)), 125);
    }

    #[test]
    fn a_status_becomes_an_exit_code() {
        let out = Printer::to_stdout();
        let failed = |reason: &str, code: &str| {
            let cause = serde_json::json!({"reason": "ExitCode", "message": code});
            let status = serde_json::json!({
                "status": "Failure", "reason": reason, "details": {"causes": [cause]}
            });
            ended(status.to_string().as_bytes(), &out).unwrap()
        };
        assert_eq!(ended(br#"{"metadata":{},"status":"Success"}"#, &out).unwrap(), 0);
        assert_eq!(failed("NonZeroExitCode", "3"), 3);
        assert_eq!(failed("Timeout", "137"), 124);
        assert_eq!(failed("InternalError", "127"), 127);
        assert!(ended(b"{", &out).is_err());
    }
}
