//! The serial console: WebSocket both ways, and its ring as text.

use std::sync::Arc;
use std::task::Poll;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::error::Refusal;
use crate::model::VmName;
use crate::orchestrator::{Console, Orchestrator, TerminalSize, Viewer};
use crate::wire::TerminalView;

/// Bytes sent at once.
const CHUNK_LEN: usize = 16 * 1024;
/// Bytes of one message of a client.
const MESSAGE_LEN_MAX: usize = 64 * 1024;

/// What the console's WebSocket speaks, for clients that have to name it (docs/api/rest.md).
const PROTOCOL: &str = "console.volantd";

/// Tells a client that what it types does not count.
const NOT_YOURS: &str = r#"{"code":"console_taken","detail":"somebody else types"}"#;

/// Output from `offset` on, as soon as there is some; `None` after the machine's end.
async fn output(console: &Arc<dyn Console>, offset: u64) -> Option<(u64, Vec<u8>)> {
    std::future::poll_fn(|cx| {
        // Closed is read before the ring: what came before the end is still delivered.
        let closed = console.is_closed();
        let (from, bytes) = console.read_from(offset, CHUNK_LEN);
        match (bytes.is_empty(), closed) {
            (false, _) => Poll::Ready(Some((from, bytes))),
            (true, true) => Poll::Ready(None),
            (true, false) => {
                console.wake_on_output(offset, cx.waker());
                Poll::Pending
            }
        }
    })
    .await
}

/// Query of console.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// Who types when several look on: whoever types first, unless this says otherwise.
    #[serde(default)]
    input: Input,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Input {
    /// What is typed counts while nobody else types.
    #[default]
    Share,
    /// From the start, in place of whoever types now.
    Take,
    /// Never.
    None,
}

/// `GET .../console` with a WebSocket upgrade: the ring's replay, then live output in binary
/// messages; what the client sends is typed. A text message tells a client that its input does not
/// count.
///
/// # Errors
/// A problem, before the upgrade.
pub async fn console(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
    query: Result<Query<Watch>, QueryRejection>,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Refusal> {
    let Query(Watch { input }) = query?;
    let (console, viewer) = orchestrator.watch_console(&VmName::try_from(name.as_str())?)?;
    if input == Input::Take {
        viewer.take();
    }
    let attended = move |socket| attend(socket, console, viewer, input);
    let upgrade = upgrade.protocols([PROTOCOL]).max_message_size(MESSAGE_LEN_MAX);
    Ok(upgrade.on_upgrade(attended))
}

/// `POST .../console/resize`: the size of the terminal on the serial line.
///
/// # Errors
/// A problem.
pub async fn resize(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
    body: Result<Json<TerminalView>, JsonRejection>,
) -> Result<StatusCode, Refusal> {
    let name = VmName::try_from(name.as_str())?;
    let Json(TerminalView { cols, rows }) = body?;
    orchestrator.resize_console(&name, TerminalSize { cols, rows }).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn attend(mut socket: WebSocket, console: Arc<dyn Console>, viewer: Viewer, input: Input) {
    let mut offset = 0;
    // Told once each time that it becomes so.
    let mut was_told = false;
    loop {
        tokio::select! {
            chunk = output(&console, offset) => match chunk {
                Some((from, bytes)) => {
                    offset = from + bytes.len() as u64;
                    if socket.send(Message::Binary(bytes.into())).await.is_err() {
                        return;
                    }
                }
                None => {
                    let reason = "the machine has ended".into();
                    let frame = CloseFrame { code: close_code::NORMAL, reason };
                    // The client may have gone first.
                    let _ = socket.send(Message::Close(Some(frame))).await;
                    return;
                }
            },
            message = socket.recv() => match message {
                Some(Ok(message @ (Message::Binary(_) | Message::Text(_)))) => {
                    let counts = input != Input::None && viewer.sits();
                    if counts {
                        // Input beyond the guest's queue is dropped, as on a real line.
                        _ = console.write(&message.into_data());
                    } else if !was_told && socket.send(Message::text(NOT_YOURS)).await.is_err() {
                        return;
                    }
                    was_told = !counts;
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
            },
        }
    }
}

/// The ring as text, its last lines only if `tail`; with `follow` what comes after it too.
pub fn text(console: Arc<dyn Console>, tail: Option<usize>, follow: bool) -> Response {
    let (from, bytes) = console.read_from(0, usize::MAX);
    let offset = from + bytes.len() as u64;
    let shown = Bytes::copy_from_slice(last_lines(&bytes, tail));
    let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    if !follow {
        return (kind, shown).into_response();
    }
    let first = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(shown)]);
    let rest = futures_util::stream::unfold((console, offset), |(console, offset)| async move {
        let (from, bytes) = output(&console, offset).await?;
        let next = from + bytes.len() as u64;
        Some((Ok(Bytes::from(bytes)), (console, next)))
    });
    (kind, Body::from_stream(futures_util::StreamExt::chain(first, rest))).into_response()
}

fn last_lines(bytes: &[u8], count: Option<usize>) -> &[u8] {
    let Some(count) = count else { return bytes };
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let breaks = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    match (count, breaks.map(|(at, _)| at).nth(count.saturating_sub(1))) {
        (0, _) => &[],
        (_, Some(at)) => &bytes[at + 1..],
        (_, None) => bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_counts_lines() {
        let text = b"a\nb\nc\n";
        assert_eq!(last_lines(text, Some(2)), b"b\nc\n");
        assert_eq!(last_lines(text, Some(9)), text);
        assert_eq!(last_lines(text, Some(0)), b"");
        assert_eq!(last_lines(text, None), text);
        assert_eq!(last_lines(b"a\nb", Some(1)), b"b");
    }
}
