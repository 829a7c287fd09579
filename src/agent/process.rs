//! Processes in the guest. An attachment is frames over an upgraded connection; everything else is
//! one request each.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use hyper::Method;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::Mutex;
use volant_protocol::{
    EXEC_UPGRADE, FRAME_LEN_MAX, Frame, FrameKind, ProcessInfo, ProcessRequest, ProcessStatus,
    SignalRequest, TerminalSize,
};

use crate::agent::frames::FrameReader;
use crate::agent::{
    AgentError, Connection, Payload, Stream, Upgraded, json, parse, request, upgrade,
};

/// A connection to a process in the guest. Dropping it, and every [`InputSender`], ends it; a
/// process that was started with it and is not kept is killed then.
#[derive(Debug)]
pub struct Attachment {
    info: Option<ProcessInfo>,
    frames: FrameReader<ReadHalf<Upgraded>>,
    writer: Arc<Mutex<WriteHalf<Upgraded>>>,
    /// Read already: the status of a process that never ran.
    waiting: Option<Frame>,
    done: bool,
    _connection: Connection,
}

/// What comes from the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessOutput {
    /// Bytes of stdout or of the terminal, never empty.
    Stdout(Bytes),
    /// Bytes of stderr, never empty.
    Stderr(Bytes),
    /// So many bytes were dropped before this attachment came to them.
    Gap(u64),
    /// The end; nothing follows.
    Exit(ProcessStatus),
}

/// What goes to the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessInput {
    /// Bytes of stdin.
    Stdin(Bytes),
    /// No more stdin.
    StdinEof,
    /// A signal to its process group. Waits behind stdin: [`signal`] does not.
    Signal(u8),
    /// A new size of its terminal.
    Resize(TerminalSize),
}

/// Where an attachment begins, and whether the process waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachOptions {
    /// Offset of the first byte of output; what is no longer kept is told as a gap. `u64::MAX`
    /// means from now on.
    pub from: u64,
    /// Whether the process waits when this reader is a whole buffer behind.
    pub hold: bool,
}

/// Starts a process and attaches to it.
///
/// # Errors
/// [`AgentError::Refused`] for a request the agent cannot make sense of. A program that cannot be
/// started is no error here: its [`ProcessStatus`] says so.
pub async fn exec(stream: impl Stream, request: &ProcessRequest) -> Result<Attachment, AgentError> {
    let upgraded = upgrade(stream, Method::POST, "/v1/processes", json(request)?, EXEC_UPGRADE);
    let (stream, connection) = upgraded.await?;
    Attachment::begin(stream, connection).await
}

/// Starts a process that outlives this connection.
///
/// # Errors
/// [`AgentError::Refused`] if it cannot be started.
pub async fn start(stream: impl Stream, body: &ProcessRequest) -> Result<ProcessInfo, AgentError> {
    parse(request(stream, Method::POST, "/v1/processes", json(body)?).await?).await
}

/// All processes that the agent remembers, oldest first.
///
/// # Errors
/// [`AgentError`].
pub async fn list(stream: impl Stream) -> Result<Vec<ProcessInfo>, AgentError> {
    parse(request(stream, Method::GET, "/v1/processes", Payload::default()).await?).await
}

/// One process.
///
/// # Errors
/// [`AgentError::Refused`] if there is none of that id.
pub async fn get(stream: impl Stream, id: u32) -> Result<ProcessInfo, AgentError> {
    let path = format!("/v1/processes/{id}");
    parse(request(stream, Method::GET, &path, Payload::default()).await?).await
}

/// Kills a process if it runs, and forgets it.
///
/// # Errors
/// [`AgentError::Refused`] if there is none of that id.
pub async fn remove(stream: impl Stream, id: u32) -> Result<ProcessInfo, AgentError> {
    let path = format!("/v1/processes/{id}");
    parse(request(stream, Method::DELETE, &path, Payload::default()).await?).await
}

/// Attaches to a process that runs, or has ended and is remembered.
///
/// # Errors
/// [`AgentError::Refused`] if there is none of that id.
pub async fn attach(
    stream: impl Stream,
    id: u32,
    options: AttachOptions,
) -> Result<Attachment, AgentError> {
    let AttachOptions { from, hold } = options;
    let path = format!("/v1/processes/{id}/attach?from={from}&hold={hold}");
    let (stream, connection) =
        upgrade(stream, Method::GET, &path, Payload::default(), EXEC_UPGRADE).await?;
    Attachment::begin(stream, connection).await
}

/// Writes the body to stdin, as fast as the process reads it, and closes it if `end`.
///
/// # Errors
/// [`AgentError`].
pub async fn write(
    stream: impl Stream,
    id: u32,
    body: Payload,
    end: bool,
) -> Result<(), AgentError> {
    let path = format!("/v1/processes/{id}/stdin?end={end}");
    request(stream, Method::POST, &path, body).await.map(drop)
}

/// Sends a signal to the process group; SIGKILL to all that the process has started.
///
/// # Errors
/// [`AgentError::Refused`] if it has ended.
pub async fn signal(stream: impl Stream, id: u32, signal: u8) -> Result<(), AgentError> {
    let path = format!("/v1/processes/{id}/signal");
    let body = json(&SignalRequest { signal })?;
    request(stream, Method::POST, &path, body).await.map(drop)
}

/// Changes the size of the terminal.
///
/// # Errors
/// [`AgentError::Refused`] if it has none.
pub async fn resize(stream: impl Stream, id: u32, size: TerminalSize) -> Result<(), AgentError> {
    let path = format!("/v1/processes/{id}/resize");
    request(stream, Method::POST, &path, json(&size)?).await.map(drop)
}

/// Tells the serial line's size.
///
/// # Errors
/// [`AgentError::Refused`] if the guest has no serial line.
pub async fn resize_console(stream: impl Stream, size: TerminalSize) -> Result<(), AgentError> {
    request(stream, Method::POST, "/v1/console/resize", json(&size)?).await.map(drop)
}

/// Lets a process outlive the connection that has started it.
///
/// # Errors
/// [`AgentError`].
pub async fn keep(stream: impl Stream, id: u32) -> Result<ProcessInfo, AgentError> {
    let path = format!("/v1/processes/{id}/keep");
    parse(request(stream, Method::POST, &path, Payload::default()).await?).await
}

/// Waits for the end, at most `timeout_ms`; no status in the answer means that it still runs.
///
/// # Errors
/// [`AgentError`].
pub async fn wait(
    stream: impl Stream,
    id: u32,
    timeout_ms: u64,
) -> Result<ProcessInfo, AgentError> {
    let path = format!("/v1/processes/{id}/wait?timeout_ms={timeout_ms}");
    parse(request(stream, Method::GET, &path, Payload::default()).await?).await
}

impl Attachment {
    async fn begin(stream: Upgraded, connection: Connection) -> Result<Attachment, AgentError> {
        let (reader, writer) = tokio::io::split(stream);
        let mut this = Attachment {
            info: None,
            frames: FrameReader::new(reader),
            writer: Arc::new(Mutex::new(writer)),
            waiting: None,
            done: false,
            _connection: connection,
        };
        let first = this.frame().await?;
        match first.kind {
            FrameKind::Started => this.info = Some(decode(&first.payload)?),
            _ => this.waiting = Some(first),
        }
        Ok(this)
    }

    /// The process as it was when the attachment began; none if it never ran.
    pub fn info(&self) -> Option<&ProcessInfo> {
        self.info.as_ref()
    }

    async fn frame(&mut self) -> Result<Frame, AgentError> {
        match self.waiting.take() {
            Some(frame) => Ok(frame),
            None => self.frames.next().await,
        }
    }

    /// The next output; `None` after [`ProcessOutput::Exit`]. Cancel-safe.
    ///
    /// # Errors
    /// [`AgentError`] when the guest goes away before the exit, or breaks the framing.
    pub async fn next(&mut self) -> Result<Option<ProcessOutput>, AgentError> {
        while !self.done {
            let Frame { kind, mut payload } = self.frame().await?;
            return Ok(Some(match kind {
                FrameKind::Stdout | FrameKind::Stderr if payload.is_empty() => continue,
                FrameKind::Stdout => ProcessOutput::Stdout(payload),
                FrameKind::Stderr => ProcessOutput::Stderr(payload),
                FrameKind::Gap if payload.len() == 8 => ProcessOutput::Gap(payload.get_u64()),
                FrameKind::Exit => {
                    self.done = true;
                    ProcessOutput::Exit(decode(&payload)?)
                }
                _ => return Err(AgentError::Protocol("a frame of the wrong kind".to_owned())),
            }));
        }
        Ok(None)
    }

    /// A clonable sender for input.
    pub fn input(&self) -> InputSender {
        InputSender { writer: Arc::clone(&self.writer) }
    }
}

fn decode<T: serde::de::DeserializeOwned>(payload: &[u8]) -> Result<T, AgentError> {
    serde_json::from_slice(payload).map_err(|error| AgentError::Protocol(error.to_string()))
}

/// Sends input with back-pressure.
#[derive(Clone, Debug)]
pub struct InputSender {
    writer: Arc<Mutex<WriteHalf<Upgraded>>>,
}

impl InputSender {
    /// Waits until the guest has room.
    ///
    /// # Errors
    /// The process or the guest is gone.
    pub async fn send(&self, input: ProcessInput) -> Result<(), AgentError> {
        let (kind, payload) = match input {
            ProcessInput::Stdin(bytes) if bytes.is_empty() => return Ok(()),
            ProcessInput::Stdin(bytes) => (FrameKind::Stdin, bytes),
            ProcessInput::StdinEof => (FrameKind::Stdin, Bytes::new()),
            ProcessInput::Signal(number) => (FrameKind::Signal, Bytes::copy_from_slice(&[number])),
            ProcessInput::Resize(TerminalSize { cols, rows }) => {
                let size = [cols.to_be_bytes(), rows.to_be_bytes()].concat();
                (FrameKind::Resize, Bytes::from(size))
            }
        };
        let mut writer = self.writer.lock().await;
        let mut rest = payload;
        loop {
            let part = rest.split_to(rest.len().min(FRAME_LEN_MAX));
            let mut bytes = BytesMut::new();
            Frame { kind, payload: part }.encode(&mut bytes);
            writer.write_all(&bytes).await.map_err(AgentError::Io)?;
            if rest.is_empty() {
                return writer.flush().await.map_err(AgentError::Io);
            }
        }
    }
}
