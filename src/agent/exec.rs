//! A process in the guest: frames over an upgraded connection.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hyper::Method;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::Mutex;
use volant_protocol::{EXEC_UPGRADE, ExecRequest, ExecStatus, FRAME_LEN_MAX, Frame, FrameKind};

use crate::agent::frames::FrameReader;
use crate::agent::{AgentError, Stream, Upgraded, encode, upgrade};

/// A process in the guest. Dropping it, and every [`ExecSender`], kills the process tree.
#[derive(Debug)]
pub struct Exec {
    frames: FrameReader<ReadHalf<Upgraded>>,
    writer: Arc<Mutex<WriteHalf<Upgraded>>>,
    done: bool,
}

/// What comes from the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecOutput {
    /// Bytes of stdout, never empty.
    Stdout(Bytes),
    /// Bytes of stderr, never empty.
    Stderr(Bytes),
    /// The end; nothing follows.
    Exit(ExecStatus),
}

/// What goes to the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecInput {
    /// Bytes of stdin.
    Stdin(Bytes),
    /// No more stdin.
    StdinEof,
    /// A signal to its process group.
    Signal(u8),
}

/// `POST /v1/exec`: starts a process.
///
/// # Errors
/// [`AgentError::Refused`] for a request the agent cannot make sense of. A program that cannot be
/// started is no error here: its [`ExecStatus`] says so.
pub async fn exec(stream: impl Stream, request: &ExecRequest) -> Result<Exec, AgentError> {
    let body = encode(request)?;
    let (stream, _) = upgrade(stream, Method::POST, "/v1/exec", body, EXEC_UPGRADE).await?;
    let (reader, writer) = tokio::io::split(stream);
    Ok(Exec { frames: FrameReader::new(reader), writer: Arc::new(Mutex::new(writer)), done: false })
}

impl Exec {
    /// The next output; `None` after [`ExecOutput::Exit`]. Cancel-safe.
    ///
    /// # Errors
    /// [`AgentError`] when the guest goes away before the exit, or breaks the framing.
    pub async fn next(&mut self) -> Result<Option<ExecOutput>, AgentError> {
        while !self.done {
            match self.frames.next().await? {
                Frame { payload, .. } if payload.is_empty() => {}
                Frame { kind: FrameKind::Stdout, payload } => {
                    return Ok(Some(ExecOutput::Stdout(payload)));
                }
                Frame { kind: FrameKind::Stderr, payload } => {
                    return Ok(Some(ExecOutput::Stderr(payload)));
                }
                Frame { kind: FrameKind::Exit, payload } => {
                    self.done = true;
                    let status = serde_json::from_slice(&payload).map_err(|error| {
                        AgentError::Protocol(format!("no exit status: {error}"))
                    })?;
                    return Ok(Some(ExecOutput::Exit(status)));
                }
                Frame {
                    kind: FrameKind::Stdin | FrameKind::Signal | FrameKind::Report, ..
                } => {
                    return Err(AgentError::Protocol("a frame of another stream".to_owned()));
                }
            }
        }
        Ok(None)
    }

    /// A clonable sender for input.
    pub fn input(&self) -> ExecSender {
        ExecSender { writer: Arc::clone(&self.writer) }
    }
}

/// Sends input with back-pressure.
#[derive(Clone, Debug)]
pub struct ExecSender {
    writer: Arc<Mutex<WriteHalf<Upgraded>>>,
}

impl ExecSender {
    /// Waits until the guest has room.
    ///
    /// # Errors
    /// The process or the guest is gone.
    pub async fn send(&self, input: ExecInput) -> Result<(), AgentError> {
        let (kind, payload) = match input {
            ExecInput::Stdin(bytes) if bytes.is_empty() => return Ok(()),
            ExecInput::Stdin(bytes) => (FrameKind::Stdin, bytes),
            ExecInput::StdinEof => (FrameKind::Stdin, Bytes::new()),
            ExecInput::Signal(number) => (FrameKind::Signal, Bytes::copy_from_slice(&[number])),
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
