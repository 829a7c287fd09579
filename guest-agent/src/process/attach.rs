//! One connection's look at a process: frames both ways.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use volant_protocol::{Decoder, Frame, FrameKind, ProcessStatus, TerminalSize};

use crate::process::Process;
use crate::process::output::{Chunk, Stream};

/// Bytes read from the connection at once.
const CHUNK_LEN: usize = 32 * 1024;
/// While stdin is stuck nothing is read from the connection; an empty frame this often finds out
/// whether the peer is still there.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// What an attachment is like.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Output from this offset on; beyond the end means from now on.
    pub from: u64,
    /// Whether the process waits for this reader.
    pub hold: bool,
    /// Whether the process is killed when the connection ends, unless it is kept.
    pub owner: bool,
}

/// Attends until the process has ended or the connection is gone.
pub async fn attend<S>(stream: S, process: Arc<Process>, options: Options)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let stuck = AtomicBool::new(false);
    let alive = tokio::select! {
        alive = show(&mut writer, &process, options, &stuck) => alive,
        () = feed(&mut reader, &process, &stuck) => false,
    };
    if !alive && options.owner && !process.is_kept() {
        process.kill();
    }
    let _ = writer.shutdown().await;
}

/// The answer to a start that failed.
pub async fn report<S>(mut stream: S, status: &ProcessStatus)
where
    S: AsyncWrite + Unpin,
{
    let _ = send(&mut stream, FrameKind::Exit, json(status)).await;
    let _ = stream.shutdown().await;
}

fn json(value: &impl serde::Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

async fn send(
    writer: &mut (impl AsyncWrite + Unpin),
    kind: FrameKind,
    payload: Bytes,
) -> std::io::Result<()> {
    let mut bytes = BytesMut::new();
    Frame { kind, payload }.encode(&mut bytes);
    writer.write_all(&bytes).await?;
    writer.flush().await
}

/// Whether the connection stood until the process's end was told.
async fn show(
    writer: &mut (impl AsyncWrite + Unpin),
    process: &Arc<Process>,
    options: Options,
    stuck: &AtomicBool,
) -> bool {
    let mut output = process.output().reader(options.from, options.hold);
    if send(writer, FrameKind::Started, json(&process.info())).await.is_err() {
        return false;
    }
    loop {
        let (kind, payload) = tokio::select! {
            chunk = output.next() => match chunk {
                Some(Chunk::Bytes(Stream::Stdout, bytes)) => (FrameKind::Stdout, bytes),
                Some(Chunk::Bytes(Stream::Stderr, bytes)) => (FrameKind::Stderr, bytes),
                Some(Chunk::Gap(count)) => {
                    let mut payload = BytesMut::new();
                    payload.put_u64(count);
                    (FrameKind::Gap, payload.freeze())
                }
                None => break,
            },
            () = tokio::time::sleep(HEARTBEAT) => {
                // ORDER: one thread.
                if !stuck.load(Ordering::Relaxed) {
                    continue;
                }
                (FrameKind::Stdout, Bytes::new())
            }
        };
        if send(writer, kind, payload).await.is_err() {
            return false;
        }
    }
    let status = process.ended().await;
    send(writer, FrameKind::Exit, json(&status)).await.is_ok()
}

/// Takes the peer's frames. Returns when it is gone or breaks the protocol.
async fn feed(reader: &mut (impl AsyncRead + Unpin), process: &Process, stuck: &AtomicBool) {
    let mut decoder = Decoder::default();
    let mut buffer = vec![0u8; CHUNK_LEN];
    loop {
        match decoder.next_frame() {
            Ok(Some(frame)) => {
                stuck.store(true, Ordering::Relaxed);
                let understood = take(frame, process).await;
                stuck.store(false, Ordering::Relaxed);
                if !understood {
                    return;
                }
            }
            Ok(None) => match reader.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(count) => decoder.extend(&buffer[..count]),
            },
            Err(_) => return,
        }
    }
}

async fn take(Frame { kind, payload }: Frame, process: &Process) -> bool {
    match (kind, &payload[..]) {
        (FrameKind::Stdin, []) => process.end_input().await,
        (FrameKind::Stdin, bytes) => process.write(bytes).await,
        // A process that has ended needs neither.
        (FrameKind::Signal, [number]) => _ = process.signal(*number),
        (FrameKind::Resize, [c0, c1, r0, r1]) => {
            let (cols, rows) = (u16::from_be_bytes([*c0, *c1]), u16::from_be_bytes([*r0, *r1]));
            let _ = process.resize(TerminalSize { cols, rows });
        }
        _ => return false,
    }
    true
}
