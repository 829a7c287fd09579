//! A TCP connection into a guest as a WebSocket: what `ctl port-forward` speaks, for ports whose
//! protocol is not HTTP.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::timeout;

use crate::api::error::Refusal;
use crate::model::VmName;
use crate::orchestrator::Orchestrator;

/// Bytes sent at once.
const CHUNK_LEN: usize = 16 * 1024;
/// Bytes of one message of a client.
const MESSAGE_LEN_MAX: usize = 1024 * 1024;
/// How long nothing may move once one direction has ended.
const LAST_WORDS: Duration = Duration::from_secs(60);

/// `GET .../tunnel/{port}` with a WebSocket upgrade: binary messages are the connection's bytes both
/// ways; an empty one says that no more follow in that direction.
///
/// # Errors
/// A problem, before the upgrade; also when nothing listens there.
pub async fn tunnel(
    State(orchestrator): State<Orchestrator>,
    Path((name, port)): Path<(String, String)>,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Refusal> {
    let name = VmName::try_from(name.as_str())?;
    let Some(port @ 1..) = port.parse::<u16>().ok() else {
        let text = "a port is a number from 1 to 65535";
        return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_port", text));
    };
    let stream = orchestrator.tcp_stream(&name, port).await?;
    let upgrade = upgrade.max_message_size(MESSAGE_LEN_MAX);
    Ok(upgrade.on_upgrade(async move |socket| {
        let (sink, source) = socket.split();
        carry(sink, source, stream).await;
    }))
}

/// Until both directions have ended, or one breaks. Each goes on while the other waits for its reader: a
/// guest may want to be read before it reads.
async fn carry<E>(
    mut sink: impl Sink<Message> + Unpin,
    source: impl Stream<Item = Result<Message, E>> + Unpin,
    stream: impl AsyncRead + AsyncWrite,
) {
    let (from_guest, to_guest) = tokio::io::split(stream);
    let moved = AtomicU64::new(0);
    let is_whole = {
        let mut down = pin!(down(from_guest, &mut sink, &moved));
        let mut up = pin!(up(source, to_guest, &moved));
        tokio::select! {
            ended = &mut down => ended && rest(up, &moved).await,
            ended = &mut up => ended && rest(down, &moved).await,
        }
    };
    if is_whole {
        // The client may have gone first.
        let _ = sink.send(Message::Close(None)).await;
    }
}

/// What the direction that is left comes to; it has broken when nothing moves in it for too long.
async fn rest(direction: Pin<&mut impl Future<Output = bool>>, moved: &AtomicU64) -> bool {
    let mut direction = direction;
    loop {
        // ORDER: a count to compare with, which nothing else depends on.
        let before = moved.load(Ordering::Relaxed);
        match timeout(LAST_WORDS, direction.as_mut()).await {
            Ok(ended) => return ended,
            Err(_) if moved.load(Ordering::Relaxed) == before => return false,
            Err(_) => {}
        }
    }
}

/// From the guest to the client; whether it has come to its end.
async fn down(
    mut from_guest: ReadHalf<impl AsyncRead>,
    sink: &mut (impl Sink<Message> + Unpin),
    moved: &AtomicU64,
) -> bool {
    let mut buffer = vec![0; CHUNK_LEN];
    loop {
        let Ok(count) = from_guest.read(&mut buffer).await else { return false };
        let bytes = buffer[..count].to_vec();
        if sink.send(Message::Binary(bytes.into())).await.is_err() {
            return false;
        }
        if count == 0 {
            return true;
        }
        // ORDER: as above.
        moved.fetch_add(1, Ordering::Relaxed);
    }
}

/// From the client to the guest; whether it has come to its end.
async fn up<E>(
    mut source: impl Stream<Item = Result<Message, E>> + Unpin,
    mut to_guest: WriteHalf<impl AsyncWrite>,
    moved: &AtomicU64,
) -> bool {
    loop {
        match source.next().await {
            Some(Ok(Message::Binary(bytes))) if bytes.is_empty() => {
                return to_guest.shutdown().await.is_ok();
            }
            Some(Ok(Message::Binary(bytes))) => {
                if to_guest.write_all(&bytes).await.is_err() {
                    return false;
                }
                // ORDER: as above.
                moved.fetch_add(1, Ordering::Relaxed);
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            // Text is nothing that a connection has.
            Some(Ok(Message::Text(_) | Message::Close(_)) | Err(_)) | None => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{SinkExt, stream};

    use super::*;

    /// A client that sends these and takes all that comes; what it gets.
    async fn client(sent: Vec<Message>, guest: impl AsyncRead + AsyncWrite) -> Vec<Message> {
        let mut got = Vec::new();
        let sink = futures_util::sink::unfold(&mut got, async |got: &mut Vec<_>, message| {
            got.push(message);
            Ok::<_, Infallible>(got)
        });
        let source = stream::iter(sent.into_iter().map(Ok::<_, Infallible>));
        let source = source.chain(stream::pending());
        carry(Box::pin(sink.sink_map_err(|never| never)), Box::pin(source), guest).await;
        got
    }

    /// A guest that answers what it hears, through buffers that hold next to nothing.
    fn echo() -> tokio::io::DuplexStream {
        let (near, far) = tokio::io::duplex(64);
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(far);
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            write.shutdown().await.unwrap();
        });
        near
    }

    #[tokio::test(start_paused = true)]
    async fn both_ways_go_on_while_each_waits_for_its_reader() {
        let chunk = vec![7; 10_000];
        let mut sent = vec![Message::Binary(chunk.into()); 100];
        sent.push(Message::Binary(Vec::new().into()));
        let got = client(sent, echo()).await;
        let len = |message: &Message| match message {
            Message::Binary(bytes) => bytes.len(),
            _ => 0,
        };
        assert_eq!(got.iter().map(len).sum::<usize>(), 1_000_000);
        let [.., end, close] = got.as_slice() else { panic!("{} messages", got.len()) };
        assert_eq!((end, close), (&Message::Binary(Vec::new().into()), &Message::Close(None)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_that_has_nothing_more_to_say_is_not_waited_for_without_end() {
        let (near, far) = tokio::io::duplex(64);
        let got = client(vec![Message::Binary(Vec::new().into())], near).await;
        assert!(got.is_empty(), "{got:?}");
        drop(far);
        let got = client(vec![Message::Text("what".into())], echo()).await;
        assert!(got.is_empty(), "{got:?}");
    }
}
