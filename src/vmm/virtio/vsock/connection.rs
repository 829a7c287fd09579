//! One connection: credit, the receive buffer, who waits. Pure: no queue, no lock.

use std::collections::VecDeque;
use std::task::Waker;

use crate::vmm::virtio::vsock::packet::{Header, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};

/// What the host advertises and never exceeds, per connection. Linux caps its own credit at 256 KiB
/// too, so that more would not be used.
pub const BUF_ALLOC: u32 = 256 * 1024;
/// Consumed bytes after which the guest is told, so that it never runs dry.
const CREDIT_UPDATE_AT: u32 = BUF_ALLOC / 4;
/// The guest accounts about 768 bytes of overhead for each packet against its buffer, and resets
/// the connection when they exceed it (Linux 6.12.y): assume 1 KiB.
const PACKET_OVERHEAD: u32 = 1024;

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The host has asked; the guest has not answered.
    Connecting,
    /// Both sides know.
    Open,
    /// Reset by either side, or the machine has ended.
    Reset,
    /// The guest refused it.
    Refused,
}

/// The guest broke the credit rules: the connection must be reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreditBroken;

/// State of one connection, seen from the host.
#[derive(Debug)]
pub struct Connection {
    /// Where it is.
    pub phase: Phase,
    received: VecDeque<u8>,
    /// Bytes the reader has taken, modulo 2^32: our fwd_cnt.
    taken: u32,
    /// Our fwd_cnt as the guest last heard it.
    told: u32,
    /// Bytes sent, modulo 2^32.
    sent: u32,
    peer_buf_alloc: u32,
    peer_fwd_cnt: u32,
    /// `sent` after each packet that the guest has not consumed yet.
    in_flight: VecDeque<u32>,
    /// The guest will send no more.
    pub peer_done_sending: bool,
    /// The guest will read no more.
    pub peer_done_receiving: bool,
    /// The host will send no more.
    pub done_sending: bool,
    /// Woken when there is something to read or to learn.
    pub reader: Option<Waker>,
    /// Woken when there is room to write or something to learn.
    pub writer: Option<Waker>,
    /// A credit update is due at the next chance.
    pub credit_update_due: bool,
}

impl Connection {
    /// A connection in `phase`.
    pub fn new(phase: Phase) -> Connection {
        Connection {
            phase,
            received: VecDeque::new(),
            taken: 0,
            told: 0,
            sent: 0,
            peer_buf_alloc: 0,
            peer_fwd_cnt: 0,
            in_flight: VecDeque::new(),
            peer_done_sending: false,
            peer_done_receiving: false,
            done_sending: false,
            reader: None,
            writer: None,
            credit_update_due: false,
        }
    }

    /// Takes the peer's credit from any packet of this connection. A fwd_cnt that claims more than
    /// was sent is not believed.
    pub fn learn_credit(&mut self, header: &Header) {
        self.peer_buf_alloc = header.buf_alloc;
        let outstanding = self.sent.wrapping_sub(self.peer_fwd_cnt);
        let advance = header.fwd_cnt.wrapping_sub(self.peer_fwd_cnt);
        if advance <= outstanding {
            self.peer_fwd_cnt = header.fwd_cnt;
            let left = self.sent.wrapping_sub(self.peer_fwd_cnt);
            while let Some(tail) = self.in_flight.front() {
                if self.sent.wrapping_sub(*tail) < left {
                    break;
                }
                self.in_flight.pop_front();
            }
        }
    }

    /// How many bytes may be sent now.
    pub fn credit(&self) -> usize {
        let packets_max = (self.peer_buf_alloc / PACKET_OVERHEAD).max(1);
        if packets_max as usize <= self.in_flight.len() {
            return 0;
        }
        let outstanding = self.sent.wrapping_sub(self.peer_fwd_cnt);
        // The peer may shrink its buffer below what is outstanding.
        self.peer_buf_alloc.saturating_sub(outstanding) as usize
    }

    /// Accounts a sent packet of `len` bytes.
    pub fn note_sent(&mut self, len: u32) {
        self.sent = self.sent.wrapping_add(len);
        self.in_flight.push_back(self.sent);
    }

    /// Room in the receive buffer.
    pub fn room(&self) -> usize {
        (BUF_ALLOC as usize).saturating_sub(self.received.len())
    }

    /// Takes payload from the guest.
    ///
    /// # Errors
    /// More than was advertised.
    pub fn receive(&mut self, payload: &[u8]) -> Result<(), CreditBroken> {
        if self.room() < payload.len() {
            return Err(CreditBroken);
        }
        self.received.extend(payload);
        Ok(())
    }

    /// Hands received bytes to the reader; 0 if there are none.
    pub fn take(&mut self, buf: &mut [u8]) -> usize {
        let count = buf.len().min(self.received.len());
        for (slot, byte) in buf.iter_mut().zip(self.received.drain(..count)) {
            *slot = byte;
        }
        self.taken = self.taken.wrapping_add(u32::try_from(count).unwrap_or(0));
        if CREDIT_UPDATE_AT <= self.taken.wrapping_sub(self.told) {
            self.credit_update_due = true;
        }
        if self.received.is_empty() && self.received.capacity() > 4096 {
            // An idle connection holds no buffer.
            self.received.shrink_to(0);
        }
        count
    }

    /// Whether the reader has everything it will ever get.
    pub fn is_drained(&self) -> bool {
        self.received.is_empty()
    }

    /// Puts our credit into a header that is about to be sent.
    pub fn tell_credit(&mut self, header: &mut Header) {
        (header.buf_alloc, header.fwd_cnt) = (BUF_ALLOC, self.taken);
        self.told = self.taken;
        self.credit_update_due = false;
    }

    /// Takes the guest's SHUTDOWN. Returns whether both sides are done.
    pub fn peer_shutdown(&mut self, flags: u32) -> bool {
        self.peer_done_receiving |= flags & SHUTDOWN_RECEIVE != 0;
        self.peer_done_sending |= flags & SHUTDOWN_SEND != 0;
        self.peer_done_sending && (self.peer_done_receiving || self.done_sending)
    }

    /// Everyone who waits for this connection.
    pub fn take_wakers(&mut self) -> impl Iterator<Item = Waker> {
        self.reader.take().into_iter().chain(self.writer.take())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn credit_never_underflows_when_the_peer_lies() {
        let mut connection = Connection::new(Phase::Open);
        connection.learn_credit(&Header { buf_alloc: 1000, ..Header::default() });
        connection.note_sent(900);
        connection.learn_credit(&Header { buf_alloc: 10, ..Header::default() });
        assert_eq!(connection.credit(), 0);
        connection.learn_credit(&Header { buf_alloc: 10_000, fwd_cnt: 5000, ..Header::default() });
        assert_eq!(connection.credit(), 9100, "a fwd_cnt beyond what was sent is not believed");
    }

    #[test]
    fn packets_in_flight_are_bounded() {
        let mut connection = Connection::new(Phase::Open);
        connection.learn_credit(&Header { buf_alloc: 8 * PACKET_OVERHEAD, ..Header::default() });
        for _ in 0..8 {
            assert_ne!(connection.credit(), 0);
            connection.note_sent(1);
        }
        assert_eq!(connection.credit(), 0);
        let consumed = Header { buf_alloc: 8 * PACKET_OVERHEAD, fwd_cnt: 3, ..Header::default() };
        connection.learn_credit(&consumed);
        assert_ne!(connection.credit(), 0);
    }

    fn low(number: usize) -> u8 {
        number.to_le_bytes()[0]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn bytes_come_out_in_order_and_within_the_bound(
            steps in proptest::collection::vec((any::<bool>(), 0usize..20_000), 1..40)
        ) {
            let mut connection = Connection::new(Phase::Open);
            let (mut sent, mut taken) = (Vec::new(), Vec::new());
            for (send, len) in steps {
                if send {
                    let payload: Vec<u8> = (sent.len()..sent.len() + len).map(low).collect();
                    let fits = len <= connection.room();
                    prop_assert_eq!(connection.receive(&payload).is_ok(), fits);
                    if fits {
                        sent.extend(payload);
                    }
                } else {
                    let mut buf = vec![0; len];
                    let count = connection.take(&mut buf);
                    taken.extend_from_slice(&buf[..count]);
                }
                prop_assert!(connection.received.len() <= BUF_ALLOC as usize);
            }
            prop_assert!(sent.starts_with(&taken));
        }
    }
}
