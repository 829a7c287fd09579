//! What a process has written: the last bytes of both streams in the order they came, for any
//! number of readers.
//!
//! A reader that holds makes the process wait once it is a whole buffer behind, so that it loses
//! nothing. Without such a reader the oldest bytes make room and the process never waits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Bytes kept for each process.
pub const OUTPUT_LEN_MAX: usize = 256 * 1024;
/// Bytes handed to a reader at once: one frame.
const CHUNK_LEN: usize = 32 * 1024;

/// Which of a process's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// File descriptor 1, and a terminal.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

/// What a reader gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Bytes of one stream, never empty.
    Bytes(Stream, Bytes),
    /// So many bytes were dropped before this reader came to them.
    Gap(u64),
}

#[derive(Debug)]
struct Log {
    bytes: VecDeque<u8>,
    /// Stretches of one stream: the offset where each ends.
    runs: VecDeque<(Stream, u64)>,
    /// Offset of the first byte kept.
    start: u64,
    closed: bool,
    /// Offsets of the readers that hold.
    holds: BTreeMap<u64, u64>,
    readers: u64,
    active_at: Instant,
}

impl Log {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Takes as much of `data` as the readers that hold allow.
    fn append(&mut self, stream: Stream, data: &[u8], len_max: usize) -> usize {
        let held = self.holds.values().min();
        let room = held.map_or(data.len(), |held| {
            let behind = usize::try_from(self.end() - held).unwrap_or(usize::MAX);
            len_max.saturating_sub(behind)
        });
        let taken = &data[..room.min(data.len())];
        if taken.is_empty() {
            return 0;
        }
        self.active_at = Instant::now();
        self.bytes.extend(taken);
        let end = self.end();
        match self.runs.back_mut() {
            Some((last, run_end)) if *last == stream => *run_end = end,
            _ => self.runs.push_back((stream, end)),
        }
        let excess = self.bytes.len().saturating_sub(len_max);
        self.bytes.drain(..excess);
        self.start += excess as u64;
        while self.runs.front().is_some_and(|(_, end)| *end <= self.start) {
            self.runs.pop_front();
        }
        taken.len()
    }

    /// What follows `offset`, and the offset after it.
    fn read(&self, offset: u64) -> Option<(Chunk, u64)> {
        if offset < self.start {
            return Some((Chunk::Gap(self.start - offset), self.start));
        }
        let run = self.runs.partition_point(|(_, end)| *end <= offset);
        let (stream, run_end) = *self.runs.get(run)?;
        let from = usize::try_from(offset - self.start).ok()?;
        let len = usize::try_from(run_end - offset).unwrap_or(usize::MAX).min(CHUNK_LEN);
        let bytes: Bytes = self.bytes.range(from..from + len).copied().collect();
        Some((Chunk::Bytes(stream, bytes), offset + len as u64))
    }
}

/// The output of one process.
#[derive(Debug)]
pub struct Output {
    log: Mutex<Log>,
    changed: Notify,
    len_max: usize,
}

impl Output {
    /// Nothing yet; at most `len_max` bytes are kept.
    pub fn new(len_max: usize) -> Output {
        let log = Log {
            bytes: VecDeque::new(),
            runs: VecDeque::new(),
            start: 0,
            closed: false,
            holds: BTreeMap::new(),
            readers: 0,
            active_at: Instant::now(),
        };
        Output { log: Mutex::new(log), changed: Notify::new(), len_max }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds `data`; waits for the readers that hold.
    pub async fn append(&self, stream: Stream, mut data: &[u8]) {
        loop {
            let changed = self.changed.notified();
            let taken = self.log().append(stream, data, self.len_max);
            data = &data[taken..];
            if taken != 0 {
                self.changed.notify_waiters();
            }
            if data.is_empty() {
                return;
            }
            changed.await;
        }
    }

    /// Nothing more will come.
    pub fn close(&self) {
        let mut log = self.log();
        log.closed = true;
        log.bytes.shrink_to_fit();
        drop(log);
        self.changed.notify_waiters();
    }

    /// Offsets of the oldest byte kept and of the next to come.
    pub fn range(&self) -> (u64, u64) {
        let log = self.log();
        (log.start, log.end())
    }

    /// When something last moved; input counts by [`Output::touch`].
    pub fn active_at(&self) -> Instant {
        self.log().active_at
    }

    /// Something moved.
    pub fn touch(&self) {
        self.log().active_at = Instant::now();
    }

    /// A reader from `offset` on (an offset still to come means from now on). If `hold`, the
    /// process waits for it.
    pub fn reader(self: &Arc<Output>, offset: u64, hold: bool) -> Reader {
        let mut log = self.log();
        let offset = offset.min(log.end());
        let number = log.readers;
        log.readers += 1;
        if hold {
            let from = offset.max(log.start);
            log.holds.insert(number, from);
        }
        Reader { output: Arc::clone(self), number, offset }
    }
}

/// One reader's place.
#[derive(Debug)]
pub struct Reader {
    output: Arc<Output>,
    number: u64,
    offset: u64,
}

impl Reader {
    /// The next bytes, as soon as there are some; `None` after the last. Cancel-safe.
    pub async fn next(&mut self) -> Option<Chunk> {
        loop {
            let changed = self.output.changed.notified();
            {
                let mut log = self.output.log();
                if let Some((chunk, offset)) = log.read(self.offset) {
                    self.offset = offset;
                    if let Some(held) = log.holds.get_mut(&self.number) {
                        *held = offset;
                        self.output.changed.notify_waiters();
                    }
                    return Some(chunk);
                }
                if log.closed {
                    return None;
                }
            }
            changed.await;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.output.log().holds.remove(&self.number).is_some() {
            self.output.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(reader: &mut Reader) -> (Vec<u8>, u64) {
        let (mut bytes, mut lost) = (Vec::new(), 0);
        while let Some(chunk) = reader.next().await {
            match chunk {
                Chunk::Bytes(_, chunk) => bytes.extend_from_slice(&chunk),
                Chunk::Gap(count) => lost += count,
            }
        }
        (bytes, lost)
    }

    #[tokio::test]
    async fn without_readers_the_oldest_bytes_make_room() {
        let output = Arc::new(Output::new(8));
        output.append(Stream::Stdout, b"0123456").await;
        output.append(Stream::Stderr, b"789").await;
        output.close();
        let mut reader = output.reader(0, true);
        assert_eq!(reader.next().await, Some(Chunk::Gap(2)));
        let stdout = Bytes::from_static(b"23456");
        assert_eq!(reader.next().await, Some(Chunk::Bytes(Stream::Stdout, stdout)));
        let stderr = Bytes::from_static(b"789");
        assert_eq!(reader.next().await, Some(Chunk::Bytes(Stream::Stderr, stderr)));
        assert_eq!(reader.next().await, None);
        assert_eq!(all(&mut output.reader(5, false)).await, (b"56789".to_vec(), 0));
        assert_eq!(output.range(), (2, 10));
    }

    #[tokio::test]
    async fn a_reader_that_holds_loses_nothing() {
        let output = Arc::new(Output::new(8));
        let mut reader = output.reader(0, true);
        let writer = Arc::clone(&output);
        let sent: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        let data = sent.clone();
        let task = tokio::spawn(async move {
            for (index, part) in data.chunks(7).enumerate() {
                let stream = if index % 3 == 0 { Stream::Stderr } else { Stream::Stdout };
                writer.append(stream, part).await;
            }
            writer.close();
        });
        assert_eq!(all(&mut reader).await, (sent, 0));
        task.await.unwrap();
    }

    #[tokio::test]
    async fn the_process_goes_on_when_its_last_reader_goes() {
        let output = Arc::new(Output::new(4));
        let reader = output.reader(0, true);
        let writer = Arc::clone(&output);
        let task = tokio::spawn(async move { writer.append(Stream::Stdout, b"0123456789").await });
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        drop(reader);
        task.await.unwrap();
        assert_eq!(output.range(), (6, 10));
    }
}
