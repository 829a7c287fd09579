//! Frames of an attachment to a process or workload: one byte of kind, four of length (big endian),
//! the payload.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::FRAME_LEN_MAX;

/// What a frame carries, and which way it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// To the process. An empty payload closes stdin.
    Stdin = 1,
    /// From the process. An empty payload means nothing.
    Stdout = 2,
    /// From the process. An empty payload means nothing.
    Stderr = 3,
    /// Last frame from the agent: JSON [`crate::ProcessStatus`].
    Exit = 4,
    /// To the process group: one byte, the signal's number.
    Signal = 5,
    /// To the terminal: columns and rows, two bytes each, big endian.
    Resize = 6,
    /// First frame from the agent, unless nothing could be started: JSON [`crate::ProcessInfo`].
    Started = 7,
    /// From the agent: so many bytes of output (eight bytes, big endian) were dropped here before
    /// this attachment had read them.
    Gap = 8,
    /// From the agent, on a workload connection: JSON [`crate::WorkloadReport`].
    Report = 16,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it carries.
    pub kind: FrameKind,
    /// At most [`FRAME_LEN_MAX`] bytes.
    pub payload: Bytes,
}

/// The peer broke the framing; the connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not a [`FrameKind`].
    #[error("unknown frame kind {0}")]
    Kind(u8),
    /// Longer than [`FRAME_LEN_MAX`].
    #[error("frame of {0} bytes, at most {FRAME_LEN_MAX}")]
    Length(u32),
}

impl Frame {
    /// Bytes before the payload.
    pub const HEADER_LEN: usize = 5;

    /// Appends the frame to `out`. The payload must not exceed [`FRAME_LEN_MAX`].
    pub fn encode(&self, out: &mut BytesMut) {
        debug_assert!(self.payload.len() <= FRAME_LEN_MAX);
        out.reserve(Frame::HEADER_LEN + self.payload.len());
        out.put_u8(self.kind as u8);
        out.put_u32(u32::try_from(self.payload.len()).unwrap_or(u32::MAX));
        out.put_slice(&self.payload);
    }
}

/// Cuts a byte stream into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Adds received bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes the next whole frame, if there is one.
    ///
    /// # Errors
    /// [`FrameError`] as soon as the header is wrong; the stream cannot be resynchronized.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.buffer.len() < Frame::HEADER_LEN {
            return Ok(None);
        }
        let kind = match self.buffer[0] {
            1 => FrameKind::Stdin,
            2 => FrameKind::Stdout,
            3 => FrameKind::Stderr,
            4 => FrameKind::Exit,
            5 => FrameKind::Signal,
            6 => FrameKind::Resize,
            7 => FrameKind::Started,
            8 => FrameKind::Gap,
            16 => FrameKind::Report,
            other => return Err(FrameError::Kind(other)),
        };
        let length = (&self.buffer[1..Frame::HEADER_LEN]).get_u32();
        let payload_len = usize::try_from(length).unwrap_or(usize::MAX);
        if FRAME_LEN_MAX < payload_len {
            return Err(FrameError::Length(length));
        }
        if self.buffer.len() < Frame::HEADER_LEN + payload_len {
            return Ok(None);
        }
        self.buffer.advance(Frame::HEADER_LEN);
        Ok(Some(Frame { kind, payload: self.buffer.split_to(payload_len).freeze() }))
    }
}
