//! Frames from an upgraded connection.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};
use volant_protocol::{Decoder, FRAME_LEN_MAX, Frame};

use crate::agent::AgentError;

/// Cuts what comes into frames.
#[derive(Debug)]
pub struct FrameReader<R> {
    reader: R,
    decoder: Decoder,
    buffer: Box<[u8]>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from `reader`.
    pub fn new(reader: R) -> FrameReader<R> {
        let buffer = vec![0; FRAME_LEN_MAX].into_boxed_slice();
        FrameReader { reader, decoder: Decoder::default(), buffer }
    }

    /// The next frame. Cancel-safe.
    ///
    /// # Errors
    /// [`AgentError`] when the guest goes away or breaks the framing.
    pub async fn next(&mut self) -> Result<Frame, AgentError> {
        loop {
            let frame = self.decoder.next_frame();
            if let Some(frame) = frame.map_err(|error| AgentError::Protocol(error.to_string()))? {
                return Ok(frame);
            }
            match self.reader.read(&mut self.buffer).await.map_err(AgentError::Io)? {
                0 => return Err(AgentError::Io(io::ErrorKind::UnexpectedEof.into())),
                count => self.decoder.extend(&self.buffer[..count]),
            }
        }
    }
}
