//! Streams of chunks for code that blocks: a reader of what a client sends, a writer of what it gets.
//! Few chunks are under way; who is slow slows the other side.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

/// Chunks on the way.
const QUEUE_LEN: usize = 4;

/// What a client gets, or why it ends early.
pub type Chunk = io::Result<Bytes>;

/// A queue of chunks.
pub fn queue() -> (mpsc::Sender<Chunk>, mpsc::Receiver<Chunk>) {
    mpsc::channel(QUEUE_LEN)
}

/// Reads what comes through a queue.
#[derive(Debug)]
pub struct Source {
    queue: mpsc::Receiver<Chunk>,
    rest: Bytes,
}

impl Source {
    /// Of this queue.
    pub fn new(queue: mpsc::Receiver<Chunk>) -> Source {
        Source { queue, rest: Bytes::new() }
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.queue.blocking_recv() {
                Some(chunk) => self.rest = chunk?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.rest.len());
        self.rest.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// Writes into a queue.
#[derive(Debug)]
pub struct Sink(pub mpsc::Sender<Chunk>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
