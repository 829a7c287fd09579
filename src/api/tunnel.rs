//! A TCP connection into a guest as a WebSocket: what `ctl port-forward` speaks, for ports whose
//! protocol is not HTTP.

use std::time::Duration;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::response::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::api::error::Refusal;
use crate::model::VmName;
use crate::orchestrator::{Orchestrator, StreamObject};

/// Bytes sent at once.
const CHUNK_LEN: usize = 16 * 1024;
/// Bytes of one message of a client.
const MESSAGE_LEN_MAX: usize = 1024 * 1024;
/// What a side that has been told of the end has left to say.
const LAST_WORDS: Duration = Duration::from_secs(60);

/// `GET .../tunnel/{port}` with a WebSocket upgrade: binary messages are the connection's bytes both
/// ways; an empty one says that no more follow in that direction.
///
/// # Errors
/// A problem, before the upgrade; also when nothing listens there.
pub async fn tunnel(
    State(orchestrator): State<Orchestrator>,
    Path((name, port)): Path<(String, u16)>,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Refusal> {
    let stream = orchestrator.tcp_stream(&VmName::try_from(name.as_str())?, port).await?;
    Ok(upgrade.max_message_size(MESSAGE_LEN_MAX).on_upgrade(move |socket| carry(socket, stream)))
}

/// Until both directions have ended, or one breaks.
async fn carry(mut socket: WebSocket, stream: Box<dyn StreamObject>) {
    let (mut from_guest, mut to_guest) = tokio::io::split(stream);
    let mut buffer = vec![0; CHUNK_LEN];
    let (mut guest_talks, mut client_talks) = (true, true);
    while guest_talks || client_talks {
        let last_words = tokio::time::sleep(LAST_WORDS);
        tokio::select! {
            read = from_guest.read(&mut buffer), if guest_talks => {
                let Ok(count) = read else { return };
                guest_talks = count != 0;
                let bytes = buffer[..count].to_vec();
                if socket.send(Message::Binary(bytes.into())).await.is_err() {
                    return;
                }
            }
            message = socket.recv() => match message {
                Some(Ok(Message::Binary(bytes))) if bytes.is_empty() => {
                    client_talks = false;
                    if to_guest.shutdown().await.is_err() {
                        return;
                    }
                }
                Some(Ok(Message::Binary(bytes))) => {
                    if to_guest.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                // Text is nothing that a connection has.
                Some(Ok(Message::Text(_) | Message::Close(_)) | Err(_)) | None => return,
            },
            () = last_words, if !(guest_talks && client_talks) => return,
        }
    }
    // The client may have gone first.
    let _ = socket.send(Message::Close(None)).await;
}
