//! A request as the driver wrote it (virtio 1.3, 5.2.6): a header, data, and a byte for the status.
//!
//! The descriptors are read again when the request completes, and may have changed: lengths are
//! checked each time, and every access is a checked copy.

use std::io::{Read, Write};
use std::sync::Arc;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};
use virtio_queue::DescriptorChain;
use vm_memory::GuestMemoryMmap;

/// Bytes of a sector, whatever the disk's block size.
pub const SECTOR_LEN: u64 = 512;
/// Bytes of `struct virtio_blk_req` before the data.
const HEADER_LEN: usize = 16;
/// Bytes of one request's data.
pub const DATA_LEN_MAX: usize = 4 << 20;

/// Descriptors of one request; holds guest memory.
pub type Chain = DescriptorChain<Arc<GuestMemoryMmap>>;

/// What the driver wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// Read `len` bytes from byte `offset` of the disk.
    Read {
        /// In bytes.
        offset: u64,
        /// In bytes, a multiple of a sector.
        len: usize,
    },
    /// Write `data` there.
    Write {
        /// In bytes.
        offset: u64,
        /// Whole sectors.
        data: Vec<u8>,
    },
    /// Make completed writes durable.
    Flush,
    /// Tell the disk's serial.
    GetId,
}

/// How a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// VIRTIO_BLK_S_OK
    Ok,
    /// VIRTIO_BLK_S_IOERR
    IoError,
    /// VIRTIO_BLK_S_UNSUPP
    Unsupported,
}

/// The descriptors make no request, not even a failed one: there is no byte for the status, or they
/// lie outside of memory.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// What disk a request is checked against.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    /// Whole sectors of the file.
    pub sectors: u64,
    /// Writes are refused.
    pub readonly: bool,
}

impl Geometry {
    /// Byte range of a transfer, if the disk has it.
    fn range(&self, sector: u64, len: usize) -> Option<u64> {
        let len = u64::try_from(len).ok().filter(|len| len % SECTOR_LEN == 0 && *len != 0)?;
        let end = sector.checked_add(len / SECTOR_LEN)?;
        (end <= self.sectors).then_some(sector * SECTOR_LEN)
    }
}

/// Reads a request.
///
/// # Errors
/// The outer one: nothing can be answered. The inner one: the answer.
pub fn parse(
    chain: &Chain,
    memory: &GuestMemoryMmap,
    disk: Geometry,
) -> Result<Result<Request, Status>, Malformed> {
    let room = chain.clone().writer(memory).map_err(|_| Malformed)?.available_bytes();
    let room = room.checked_sub(1).ok_or(Malformed)?;
    let mut reader = chain.clone().reader(memory).map_err(|_| Malformed)?;
    let mut header = [0; HEADER_LEN];
    if reader.read_exact(&mut header).is_err() {
        return Ok(Err(Status::IoError));
    }
    let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
    let sector = u64::from_le_bytes(sector);
    Ok(match u32::from_le_bytes([t0, t1, t2, t3]) {
        VIRTIO_BLK_T_IN => match disk.range(sector, room) {
            Some(offset) if room <= DATA_LEN_MAX => Ok(Request::Read { offset, len: room }),
            _ => Err(Status::IoError),
        },
        VIRTIO_BLK_T_OUT => {
            let len = reader.available_bytes();
            match disk.range(sector, len) {
                Some(offset) if len <= DATA_LEN_MAX && !disk.readonly => {
                    let mut data = vec![0; len];
                    let read = reader.read_exact(&mut data).map_err(|_| Status::IoError);
                    read.map(|()| Request::Write { offset, data })
                }
                _ => Err(Status::IoError),
            }
        }
        VIRTIO_BLK_T_FLUSH => Ok(Request::Flush),
        VIRTIO_BLK_T_GET_ID => Ok(Request::GetId),
        _ => Err(Status::Unsupported),
    })
}

/// Writes `data` and the status, which is the last writable byte. Returns the bytes written as the
/// used ring wants them.
///
/// # Errors
/// The descriptors have changed since [`parse`] and have no room any more.
pub fn answer(
    chain: Chain,
    memory: &GuestMemoryMmap,
    data: &[u8],
    status: Status,
) -> Result<u32, Malformed> {
    let mut writer = chain.writer(memory).map_err(|_| Malformed)?;
    let room = writer.available_bytes().checked_sub(1).ok_or(Malformed)?;
    let mut last = writer.split_at(room).map_err(|_| Malformed)?;
    let data = &data[..data.len().min(room)];
    writer.write_all(data).map_err(|_| Malformed)?;
    let code = match status {
        Status::Ok => VIRTIO_BLK_S_OK,
        Status::IoError => VIRTIO_BLK_S_IOERR,
        Status::Unsupported => VIRTIO_BLK_S_UNSUPP,
    };
    let [code, ..] = code.to_le_bytes();
    last.write_all(&[code]).map_err(|_| Malformed)?;
    u32::try_from(data.len() + 1).map_err(|_| Malformed)
}
