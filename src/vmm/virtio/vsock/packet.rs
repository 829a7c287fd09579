//! The 44-byte header of a vsock packet (virtio 1.3, 5.10.6). Parsed from a copy, never in place.

/// Bytes of a header.
pub const HEADER_LEN: usize = 44;
/// The largest payload, as Linux has it (VIRTIO_VSOCK_MAX_PKT_BUF_SIZE).
pub const PAYLOAD_LEN_MAX: usize = 64 * 1024;
/// CID of the host.
pub const HOST_CID: u64 = 2;
/// The only socket type there is here.
pub const TYPE_STREAM: u16 = 1;

/// Operations.
pub const OP_REQUEST: u16 = 1;
/// Accepts a request.
pub const OP_RESPONSE: u16 = 2;
/// Ends a connection at once, or refuses one.
pub const OP_RST: u16 = 3;
/// No more bytes one way or both.
pub const OP_SHUTDOWN: u16 = 4;
/// Carries payload.
pub const OP_RW: u16 = 5;
/// Tells the sender's receive credit.
pub const OP_CREDIT_UPDATE: u16 = 6;
/// Asks for [`OP_CREDIT_UPDATE`].
pub const OP_CREDIT_REQUEST: u16 = 7;

/// Flag of [`OP_SHUTDOWN`]: the sender will receive no more.
pub const SHUTDOWN_RECEIVE: u32 = 1;
/// Flag of [`OP_SHUTDOWN`]: the sender will send no more.
pub const SHUTDOWN_SEND: u32 = 2;

/// A header in host order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Sender's context id.
    pub src_cid: u64,
    /// Receiver's context id.
    pub dst_cid: u64,
    /// Sender's port.
    pub src_port: u32,
    /// Receiver's port.
    pub dst_port: u32,
    /// Bytes of payload.
    pub len: u32,
    /// Socket type.
    pub kind: u16,
    /// Operation.
    pub op: u16,
    /// Of [`OP_SHUTDOWN`].
    pub flags: u32,
    /// Sender's whole receive buffer, in bytes.
    pub buf_alloc: u32,
    /// Bytes that the sender has taken out of its receive buffer, modulo 2^32.
    pub fwd_cnt: u32,
}

impl Header {
    /// Reads the wire form.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Header {
        let field = |at: usize, len: usize| {
            bytes[at..at + len].iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte))
        };
        let word = |at| u32::try_from(field(at, 4)).unwrap_or(0);
        let half = |at| u16::try_from(field(at, 2)).unwrap_or(0);
        Header {
            src_cid: field(0, 8),
            dst_cid: field(8, 8),
            src_port: word(16),
            dst_port: word(20),
            len: word(24),
            kind: half(28),
            op: half(30),
            flags: word(32),
            buf_alloc: word(36),
            fwd_cnt: word(40),
        }
    }

    /// Writes the wire form.
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0u8; HEADER_LEN];
        bytes[0..8].copy_from_slice(&self.src_cid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.dst_cid.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.src_port.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.dst_port.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.len.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.kind.to_le_bytes());
        bytes[30..32].copy_from_slice(&self.op.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.flags.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.buf_alloc.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.fwd_cnt.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_header_survives_the_wire(raw in proptest::collection::vec(any::<u8>(), HEADER_LEN)) {
            let bytes: [u8; HEADER_LEN] = raw.try_into().unwrap();
            prop_assert_eq!(Header::parse(&bytes).to_bytes(), bytes);
        }
    }
}
