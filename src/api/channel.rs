//! A process over a WebSocket, in the way of Kubernetes' remote commands: the first byte of each
//! message names its channel. `v5.channel.k8s.io` can close stdin, `v4.channel.k8s.io` cannot.
//!
//! Text messages are taken like binary ones: some clients send stdin so.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;

use crate::orchestrator::{
    Attachment, InputSender, ProcessInput, ProcessOutput, ProcessStatus, TerminalSize,
};

const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;
/// Bytes of one message of a client.
const MESSAGE_LEN_MAX: usize = 1024 * 1024;
/// A ping this often finds a client that has gone without a word.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long a client may take to answer the close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Which channels a client wants.
#[derive(Clone, Copy, Debug)]
pub struct Channels {
    /// Whether its channel 0 is stdin.
    pub stdin: bool,
    /// Whether it gets channel 1.
    pub stdout: bool,
    /// Whether it gets channel 2.
    pub stderr: bool,
}

/// Answers the upgrade and attends to `attachment` until the process has ended or the client has
/// gone.
pub fn upgrade(upgrade: WebSocketUpgrade, attachment: Attachment, channels: Channels) -> Response {
    let upgrade = upgrade.protocols([V5, V4]).max_message_size(MESSAGE_LEN_MAX);
    upgrade.on_upgrade(move |socket| attend(socket, attachment, channels))
}

async fn attend(socket: WebSocket, attachment: Attachment, channels: Channels) {
    let can_close = socket.protocol().is_some_and(|protocol| protocol.as_bytes() == V5.as_bytes());
    let input = attachment.input();
    let (mut sink, mut stream) = socket.split();
    let finished = tokio::select! {
        finished = show(&mut sink, attachment, channels) => finished,
        () = feed(&mut stream, &input, channels.stdin, can_close) => false,
    };
    if finished {
        // What the client has sent meanwhile is read, so that its end of the connection is not
        // reset before it has read ours.
        let drained = async { while let Some(Ok(_)) = stream.next().await {} };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, drained).await;
    }
}

type Sink = SplitSink<WebSocket, Message>;

fn message(channel: u8, bytes: &[u8]) -> Message {
    let mut message = BytesMut::with_capacity(bytes.len() + 1);
    message.put_u8(channel);
    message.put_slice(bytes);
    Message::Binary(message.freeze())
}

/// Whether the end was told.
async fn show(sink: &mut Sink, mut attachment: Attachment, channels: Channels) -> bool {
    // An empty message tells clients that the process is there.
    let mut next = Some(message(STDOUT, &[]));
    loop {
        if let Some(message) = next.take()
            && sink.send(message).await.is_err()
        {
            return false;
        }
        next = tokio::select! {
            output = attachment.next() => match output {
                Ok(Some(ProcessOutput::Stdout(bytes))) => {
                    channels.stdout.then(|| message(STDOUT, &bytes))
                }
                Ok(Some(ProcessOutput::Stderr(bytes))) => {
                    channels.stderr.then(|| message(STDERR, &bytes))
                }
                Ok(Some(ProcessOutput::Gap(count))) => {
                    let text = format!("[volantd: {count} bytes of output are no longer kept]\r\n");
                    Some(message(if channels.stderr { STDERR } else { STDOUT }, text.as_bytes()))
                }
                Ok(Some(ProcessOutput::Exit(status))) => return end(sink, &of_status(&status)).await,
                Ok(None) => return end(sink, &lost("no exit status")).await,
                Err(error) => return end(sink, &lost(&error.to_string())).await,
            },
            () = tokio::time::sleep(PING_INTERVAL) => Some(Message::Ping(Bytes::new())),
        };
    }
}

async fn end(sink: &mut Sink, status: &serde_json::Value) -> bool {
    let told = sink.send(message(STATUS, status.to_string().as_bytes())).await;
    let frame = CloseFrame { code: close_code::NORMAL, reason: "".into() };
    told.is_ok() && sink.send(Message::Close(Some(frame))).await.is_ok()
}

/// `metav1.Status`: success, or the exit code as the cause of a failure.
fn of_status(status: &ProcessStatus) -> serde_json::Value {
    let code = match (status.code, status.signal) {
        (Some(code), _) => code,
        // As a shell has it.
        (None, Some(signal)) => 128 + signal,
        (None, None) => 125,
    };
    let text = match (&status.error, status.deadline) {
        (Some(error), _) => error.clone(),
        (None, Some(_)) => "the command was killed: its deadline has passed".to_owned(),
        (None, None) if code == 0 => {
            return serde_json::json!({"metadata": {}, "status": "Success"});
        }
        (None, None) => format!("command terminated with non-zero exit code: {code}"),
    };
    let reason = match (&status.error, status.deadline) {
        (Some(_), _) => "InternalError",
        (None, Some(_)) => "Timeout",
        (None, None) => "NonZeroExitCode",
    };
    failure(reason, &text, code)
}

fn lost(text: &str) -> serde_json::Value {
    failure("InternalError", &format!("the process was lost: {text}"), 125)
}

fn failure(reason: &str, text: &str, code: i32) -> serde_json::Value {
    let cause = serde_json::json!({"reason": "ExitCode", "message": code.to_string()});
    serde_json::json!({
        "metadata": {},
        "status": "Failure",
        "reason": reason,
        "message": text,
        "details": {"causes": [cause]},
    })
}

#[derive(Deserialize)]
struct Size {
    #[serde(rename = "Width")]
    cols: u16,
    #[serde(rename = "Height")]
    rows: u16,
}

/// What a client has sent; none for what is passed over.
fn parse(bytes: &Bytes, stdin: bool, can_close: bool) -> Option<ProcessInput> {
    match (*bytes.first()?, &bytes[1..]) {
        (STDIN, rest) if stdin && !rest.is_empty() => Some(ProcessInput::Stdin(bytes.slice(1..))),
        (RESIZE, rest) => {
            let Size { cols, rows } = serde_json::from_slice(rest).ok()?;
            Some(ProcessInput::Resize(TerminalSize { cols, rows }))
        }
        (CLOSE, [STDIN]) if can_close && stdin => Some(ProcessInput::StdinEof),
        _ => None,
    }
}

/// Returns when the client or the process is gone.
async fn feed(
    stream: &mut SplitStream<WebSocket>,
    input: &InputSender,
    stdin: bool,
    can_close: bool,
) {
    while let Some(Ok(message)) = stream.next().await {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) => continue,
        };
        if let Some(parsed) = parse(&bytes, stdin, can_close)
            && input.send(parsed).await.is_err()
        {
            // The other half learns why from the same connection, and tells it.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_told_apart() {
        let check = |bytes: &'static [u8], stdin, can_close| {
            parse(&Bytes::from_static(bytes), stdin, can_close)
        };
        let stdin = ProcessInput::Stdin(Bytes::from_static(b"hi"));
        assert_eq!(check(b"\0hi", true, true), Some(stdin));
        assert_eq!(check(b"\0hi", false, true), None, "no stdin was asked for");
        assert_eq!(check(b"\0", true, true), None);
        assert_eq!(check(b"\xff\0", true, true), Some(ProcessInput::StdinEof));
        assert_eq!(check(b"\xff\0", true, false), None, "v4 cannot close");
        let size = ProcessInput::Resize(TerminalSize { cols: 80, rows: 24 });
        assert_eq!(check(br#".{"Width":80,"Height":24}"#, true, true), None);
        assert_eq!(check(b"\x04{\"Width\":80,\"Height\":24}", true, true), Some(size));
        assert_eq!(check(b"\x04{\"Width\":-1,\"Height\":24}", true, true), None);
        assert_eq!(check(b"", true, true), None);
    }

    #[test]
    fn a_status_carries_the_exit_code() {
        let code = |status: ProcessStatus| {
            let status = of_status(&status);
            let cause = status["details"]["causes"][0]["message"].as_str().map(str::to_owned);
            (status["status"].as_str().map(str::to_owned), cause)
        };
        let some = |text: &str| Some(text.to_owned());
        let exited = |number| ProcessStatus { code: Some(number), ..ProcessStatus::default() };
        assert_eq!(code(exited(0)), (some("Success"), None));
        assert_eq!(code(exited(3)), (some("Failure"), some("3")));
        let killed = ProcessStatus { signal: Some(9), ..ProcessStatus::default() };
        assert_eq!(code(killed), (some("Failure"), some("137")));
    }
}
