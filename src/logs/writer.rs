//! Appends entries and keeps the log within its size. One writer for each VM: its monitor.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::logs::{LEN_MIN, SEGMENTS_MAX, Stream, segment, segments};

/// Writes one VM's log.
#[derive(Debug)]
pub struct Writer {
    folder: PathBuf,
    file: File,
    number: u64,
    len: u64,
    segment_len_max: u64,
    grown: watch::Sender<()>,
}

impl Writer {
    /// Opens the log for appending, or begins one. `len_max` bounds all of it, in bytes.
    ///
    /// # Errors
    /// The host's.
    pub fn open(folder: PathBuf, len_max: u64) -> io::Result<Writer> {
        fs::create_dir_all(&folder)?;
        let number = segments(&folder)?.last().copied().unwrap_or(1);
        let mut file = open_segment(&folder, number)?;
        let mut len = file.seek(SeekFrom::End(0))?;
        if 0 < len {
            file.seek(SeekFrom::Start(len - 1))?;
            let mut last = [0];
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                // A crash cut an entry: what is left of it stands alone, and is skipped by readers.
                file.write_all(b"\n")?;
                len += 1;
            }
        }
        let segment_len_max = len_max.max(LEN_MIN) / SEGMENTS_MAX;
        let (grown, _) = watch::channel(());
        Ok(Writer { folder, file, number, len, segment_len_max, grown })
    }

    /// Told after each append; closed when the writer is dropped.
    pub fn grown(&self) -> watch::Receiver<()> {
        self.grown.subscribe()
    }

    /// Appends what has come from a stream.
    ///
    /// # Errors
    /// The host's; what could not be written is lost.
    pub fn append(&mut self, at: Timestamp, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let mut text = Vec::with_capacity(bytes.len() + 64);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (line, kind) = match line.strip_suffix(b"\n") {
                Some(line) => (line, 'F'),
                None => (line, 'P'),
            };
            write!(text, "{at:.3} {} {kind} ", stream.as_str())?;
            text.extend_from_slice(line);
            text.push(b'\n');
            if self.segment_len_max <= self.len + text.len() as u64 {
                self.write(&text)?;
                text.clear();
                self.rotate()?;
            }
        }
        self.write(&text)?;
        // Nobody may follow.
        let _ = self.grown.send(());
        Ok(())
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        self.file.write_all(text)?;
        self.len += text.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = open_segment(&self.folder, self.number + 1)?;
        (self.number, self.len) = (self.number + 1, 0);
        for number in segments(&self.folder)? {
            if number + SEGMENTS_MAX <= self.number {
                fs::remove_file(segment(&self.folder, number))?;
            }
        }
        Ok(())
    }
}

fn open_segment(folder: &std::path::Path, number: u64) -> io::Result<File> {
    OpenOptions::new().create(true).read(true).append(true).open(segment(folder, number))
}
