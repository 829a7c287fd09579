//! Reads entries from a place on. Many readers, each with its own place; they never disturb the
//! writer, and one that is overtaken by it goes on with the oldest segment there is.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::PathBuf;

use jiff::Timestamp;

use crate::logs::{Stream, segment, segments};

/// Bytes of entries returned at once, about.
const BATCH_LEN: usize = 64 * 1024;
/// Bytes of one line of a segment: an entry and its head. The writer's are shorter; what is longer
/// was not written here.
const LINE_LEN_MAX: u64 = 256 * 1024;
/// Lines that `tail` can count back.
pub const TAIL_MAX: usize = 100_000;

/// From where to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// Only the last lines, at most [`TAIL_MAX`].
    pub tail: Option<usize>,
    /// Only what came at this time or later.
    pub since: Option<Timestamp>,
}

/// One piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it came to the host.
    pub at: Timestamp,
    /// Where it came from.
    pub stream: Stream,
    /// Whether a line ends with it.
    pub ends_line: bool,
    /// The bytes, without the line's end.
    pub bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    segment: u64,
    offset: u64,
}

enum Step {
    Entry(Place, Entry),
    /// A line that the writer did not finish.
    Skipped,
    /// No more for now.
    End,
}

/// A place in a log.
#[derive(Debug)]
pub struct Reader {
    folder: PathBuf,
    place: Place,
    file: Option<BufReader<File>>,
}

impl Reader {
    /// Finds the place where `start` begins; a log that does not exist yet is empty.
    ///
    /// # Errors
    /// The host's.
    pub fn open(folder: PathBuf, start: Start) -> io::Result<Reader> {
        let first = segments(&folder)?.first().copied().unwrap_or(1);
        let mut reader = Reader { folder, place: Place { segment: first, offset: 0 }, file: None };
        if start == Start::default() {
            return Ok(reader);
        }
        let tail = start.tail.unwrap_or(TAIL_MAX).min(TAIL_MAX);
        let mut starts = VecDeque::new();
        let mut at_line_start = true;
        loop {
            let (place, entry) = match reader.step()? {
                Step::Entry(place, entry) => (place, entry),
                Step::Skipped => continue,
                Step::End => break,
            };
            if at_line_start && start.since.is_none_or(|since| since <= entry.at) {
                starts.push_back(place);
                if start.tail.is_some() && tail < starts.len() {
                    starts.pop_front();
                }
                if start.tail.is_none() {
                    break;
                }
            }
            at_line_start = entry.ends_line;
        }
        if let Some(place) = starts.front() {
            (reader.place, reader.file) = (*place, None);
        }
        Ok(reader)
    }

    /// The next entries; none when there are no more for now.
    ///
    /// # Errors
    /// The host's.
    pub fn read(&mut self) -> io::Result<Vec<Entry>> {
        let (mut entries, mut len) = (Vec::new(), 0);
        while len < BATCH_LEN {
            match self.step()? {
                Step::Entry(_, entry) => {
                    len += entry.bytes.len() + 64;
                    entries.push(entry);
                }
                Step::Skipped => {}
                Step::End => break,
            }
        }
        Ok(entries)
    }
    fn step(&mut self) -> io::Result<Step> {
        loop {
            if let Some((place, line)) = self.line()? {
                return Ok(parse(&line).map_or(Step::Skipped, |entry| Step::Entry(place, entry)));
            }
            // Listed before the second look: once there is a newer segment, this one is complete.
            let newer = segments(&self.folder)?;
            let newer = newer.into_iter().find(|number| self.place.segment < *number);
            if let Some((place, line)) = self.line()? {
                return Ok(parse(&line).map_or(Step::Skipped, |entry| Step::Entry(place, entry)));
            }
            let Some(segment) = newer else { return Ok(Step::End) };
            (self.place, self.file) = (Place { segment, offset: 0 }, None);
        }
    }

    /// The next whole line and its place.
    fn line(&mut self) -> io::Result<Option<(Place, Vec<u8>)>> {
        if self.file.is_none() {
            let mut file = match File::open(segment(&self.folder, self.place.segment)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                file => file?,
            };
            file.seek(SeekFrom::Start(self.place.offset))?;
            self.file = Some(BufReader::new(file));
        }
        let Some(file) = &mut self.file else { return Ok(None) };
        let mut line = Vec::new();
        let count = file.take(LINE_LEN_MAX).read_until(b'\n', &mut line)? as u64;
        if !line.ends_with(b"\n") && count < LINE_LEN_MAX {
            // It is being written: looked at again from the same place.
            self.file = None;
            return Ok(None);
        }
        let place = self.place;
        self.place.offset += count;
        Ok(Some((place, line)))
    }
}

fn parse(line: &[u8]) -> Option<Entry> {
    let mut parts = line.strip_suffix(b"\n")?.splitn(4, |byte| *byte == b' ');
    let mut part = || parts.next();
    let at = std::str::from_utf8(part()?).ok()?.parse().ok()?;
    let stream = part()?;
    let stream = [Stream::Stdout, Stream::Stderr]
        .into_iter()
        .find(|known| known.as_str().as_bytes() == stream)?;
    let ends_line = match part()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    Some(Entry { at, stream, ends_line, bytes: part()?.to_vec() })
}
