//! Contents of files: appended block by block while they come, never held.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};

use crate::artifact::erofs::BLOCK_LEN;
use crate::artifact::tree::Extent;

/// Bytes collected before they are written.
const BUFFER_LEN: usize = 1 << 20;
/// A longer run of zeros inside a file is not even looked at.
const SKIP_MIN: u64 = 1 << 16;

/// The part of an image that holds the contents of files.
#[derive(Debug)]
pub struct DataArea {
    file: File,
    /// What is to be written at `at`: the first `used` bytes.
    buffer: Box<[u8]>,
    used: usize,
    at: u64,
}

impl DataArea {
    /// Begins an image in an empty file. The first block is the superblock's.
    pub fn new(file: File) -> DataArea {
        let buffer = vec![0; BUFFER_LEN].into_boxed_slice();
        DataArea { file, buffer, used: 0, at: BLOCK_LEN }
    }

    /// Block of the file that begins now.
    ///
    /// # Errors
    /// EROFS cannot count that far.
    pub fn begin(&self) -> io::Result<u32> {
        let block = self.position() / BLOCK_LEN;
        u32::try_from(block).map_err(|_| io::Error::other("the image has too many blocks"))
    }

    fn position(&self) -> u64 {
        self.at + self.used as u64
    }

    /// Appends `len` bytes of `source`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the source ends before; those of source and file.
    pub fn copy(&mut self, source: &mut impl Read, len: u64) -> io::Result<()> {
        let mut left = len;
        while 0 < left {
            if self.used == BUFFER_LEN {
                self.flush()?;
            }
            let room = BUFFER_LEN - self.used;
            let part = usize::try_from(left).unwrap_or(room).min(room);
            source.read_exact(&mut self.buffer[self.used..self.used + part])?;
            self.used += part;
            left -= part as u64;
        }
        Ok(())
    }

    /// Appends `len` zeros.
    ///
    /// # Errors
    /// The file's.
    pub fn skip(&mut self, len: u64) -> io::Result<()> {
        if len < SKIP_MIN {
            return self.copy(&mut io::repeat(0), len);
        }
        self.flush()?;
        self.at += len;
        Ok(())
    }

    /// Ends a file: the next one begins on a block.
    ///
    /// # Errors
    /// The file's.
    pub fn end(&mut self) -> io::Result<()> {
        let over = self.position() % BLOCK_LEN;
        if 0 < over { self.copy(&mut io::repeat(0), BLOCK_LEN - over) } else { Ok(()) }
    }

    /// Gives the space of contents that nobody needs back to the host.
    ///
    /// # Errors
    /// The file's.
    pub fn discard(&mut self, extents: &[Extent]) -> io::Result<()> {
        self.flush()?;
        for extent in extents {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let len = extent.len.div_ceil(BLOCK_LEN) * BLOCK_LEN;
            match fallocate(&self.file, flags, u64::from(extent.block) * BLOCK_LEN, len) {
                // A file system without holes keeps the bytes; nothing refers to them.
                Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Writes what is left. The file, and the block after the contents.
    ///
    /// # Errors
    /// The file's.
    pub fn finish(mut self) -> io::Result<(File, u32)> {
        self.end()?;
        self.flush()?;
        let block = self.begin()?;
        Ok((self.file, block))
    }

    /// Blocks of zeros stay holes.
    fn flush(&mut self) -> io::Result<()> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let block_len = ZEROS.len();
        let mut begin = 0;
        while begin < self.used {
            let rest = &self.buffer[begin..self.used];
            let is_zero = |block: &&[u8]| **block == ZEROS[..block.len()];
            let zeros: usize = rest.chunks(block_len).take_while(is_zero).map(<[u8]>::len).sum();
            let rest = &rest[zeros..];
            let data = rest.chunks(block_len).take_while(|block| !is_zero(block));
            let data: usize = data.map(<[u8]>::len).sum();
            self.file.write_all_at(&rest[..data], self.at + (begin + zeros) as u64)?;
            begin += zeros + data;
        }
        self.at += self.used as u64;
        self.used = 0;
        Ok(())
    }
}
