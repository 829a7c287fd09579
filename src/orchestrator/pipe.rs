//! Streams of chunks for code that blocks: a reader of what a client sends, a writer of what it gets.
//! Few chunks are under way; who is slow slows the other side.

use std::io::{self, Read, Write};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendTimeoutError;

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

/// Writes into a queue, as long as somebody takes something out of it now and then.
#[derive(Debug)]
pub struct Sink {
    queue: mpsc::Sender<Chunk>,
    patience: Duration,
    runtime: tokio::runtime::Handle,
}

impl Sink {
    /// Into this queue; one that stays full for `patience` has lost its reader. Inside the runtime.
    pub fn new(queue: mpsc::Sender<Chunk>, patience: Duration) -> Sink {
        Sink { queue, patience, runtime: tokio::runtime::Handle::current() }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.queue.send_timeout(Ok(Bytes::copy_from_slice(bytes)), self.patience);
        match self.runtime.block_on(sent) {
            Ok(()) => Ok(bytes.len()),
            Err(SendTimeoutError::Timeout(_)) => Err(io::ErrorKind::TimedOut.into()),
            Err(SendTimeoutError::Closed(_)) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_that_stands_still_or_goes_away_is_given_up() {
        let (sender, mut queue) = queue();
        let mut sink = Sink::new(sender, Duration::from_millis(20));
        let written = tokio::task::spawn_blocking(move || {
            let kept = (0..QUEUE_LEN).map(|_| sink.write(b"abc")).collect::<io::Result<Vec<_>>>();
            assert_eq!(kept.unwrap(), [3; QUEUE_LEN]);
            (sink.write(b"more").unwrap_err().kind(), sink)
        });
        let (kind, mut sink) = written.await.unwrap();
        assert_eq!(kind, io::ErrorKind::TimedOut);
        assert_eq!(queue.recv().await.unwrap().unwrap(), "abc");
        drop(queue);
        let gone = tokio::task::spawn_blocking(move || sink.write(b"more").unwrap_err().kind());
        assert_eq!(gone.await.unwrap(), io::ErrorKind::BrokenPipe);
    }
}
