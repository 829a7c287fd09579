//! Queues to packets and back, and the connection table.
//!
//! [`Inner`] sits behind the one mutex of the device. The device loop calls it for what the guest
//! sends; tasks call it through [`crate::vmm::virtio::vsock::stream`] and fill the guest's receive
//! ring themselves. Wakers are collected under the mutex and woken after it is released.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;

use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use std::io::{Read, Write};

use crate::vmm::virtio::vsock::connection::{Connection, Phase};
use crate::vmm::virtio::vsock::packet::{
    HEADER_LEN, HOST_CID, Header, OP_CREDIT_REQUEST, OP_CREDIT_UPDATE, OP_REQUEST, OP_RESPONSE,
    OP_RST, OP_RW, OP_SHUTDOWN, PAYLOAD_LEN_MAX, TYPE_STREAM,
};
use crate::vmm::virtio::{Activation, DeviceError, Interrupt};

/// Connections of one guest at once.
pub const CONNECTIONS_MAX: usize = 1023;
/// Connections that wait to be accepted on one host port.
const BACKLOG_MAX: usize = 128;
/// Control packets that wait for receive buffers. When so many wait, the guest's packets wait too.
const CONTROL_MAX: usize = 2048;
/// Packets of the guest handled before other devices get their turn.
const BATCH_MAX: usize = 512;
/// First ephemeral host port: above what guests are told to dial.
const PORT_FIRST: u32 = 1 << 30;

/// Names a connection: host port, guest port.
pub type Key = (u32, u32);

const RX: usize = 0;
const TX: usize = 1;

/// What the driver has given.
#[derive(Debug)]
struct Active {
    memory: Arc<GuestMemoryMmap>,
    rx: Queue,
    tx: Queue,
    interrupt: Interrupt,
}

/// A host port that accepts.
#[derive(Debug, Default)]
pub struct Listening {
    /// Established, not yet accepted.
    pub backlog: VecDeque<Key>,
    /// Who waits in accept.
    pub acceptor: Option<Waker>,
}

/// Everything of one device.
#[derive(Debug)]
pub struct Inner {
    cid: u64,
    active: Option<Active>,
    /// The connection table.
    pub connections: HashMap<Key, Connection>,
    /// Host ports that accept.
    pub listeners: HashMap<u32, Listening>,
    control: VecDeque<Header>,
    /// Writers that found no receive buffer, in order.
    starved: VecDeque<Key>,
    next_port: u32,
    /// The machine has ended.
    pub closed: bool,
    /// Readable when a batch ended early.
    pub again: EventFd,
    /// Woken when the mutex is released.
    pub wakers: Vec<Waker>,
}

impl Inner {
    /// A device without a driver.
    pub fn new(cid: u32, again: EventFd) -> Inner {
        Inner {
            cid: u64::from(cid),
            active: None,
            connections: HashMap::new(),
            listeners: HashMap::new(),
            control: VecDeque::new(),
            starved: VecDeque::new(),
            next_port: PORT_FIRST,
            closed: false,
            again,
            wakers: Vec::new(),
        }
    }

    /// The driver is there: what waits for it is sent.
    pub fn activate(&mut self, mut activation: Activation) -> Result<(), DeviceError> {
        let broken = DeviceError::Queue { queue: RX, what: "fewer than three queues" };
        if activation.queues.len() < 3 {
            return Err(broken);
        }
        let tx = activation.queues.remove(TX);
        let rx = activation.queues.remove(RX);
        let Activation { memory, interrupt, .. } = activation;
        self.active = Some(Active { memory, rx, tx, interrupt });
        Ok(())
    }

    /// Ends every connection; listeners stay unless the machine has ended.
    pub fn reset_all(&mut self) {
        for connection in self.connections.values_mut() {
            connection.phase = Phase::Reset;
            self.wakers.extend(connection.take_wakers());
        }
        for listening in self.listeners.values_mut() {
            listening.backlog.clear();
            self.wakers.extend(listening.acceptor.take());
        }
        self.control.clear();
        self.starved.clear();
        self.active = None;
    }

    /// Reserves a host port for a connection to `port`, and asks the guest.
    pub fn connect(&mut self, port: u32) -> Option<Key> {
        if self.closed || CONNECTIONS_MAX <= self.connections.len() {
            return None;
        }
        while self.connections.contains_key(&(self.next_port, port)) {
            self.next_port = self.next_port.checked_add(1).unwrap_or(PORT_FIRST);
        }
        let key = (self.next_port, port);
        self.next_port = self.next_port.checked_add(1).unwrap_or(PORT_FIRST);
        self.connections.insert(key, Connection::new(Phase::Connecting));
        self.send_control(key, OP_REQUEST, 0);
        Some(key)
    }

    /// Queues a packet without payload and sends what can be sent.
    pub fn send_control(&mut self, key: Key, op: u16, flags: u32) {
        let mut header = self.header(key, op);
        header.flags = flags;
        if CONTROL_MAX <= self.control.len() {
            // Only host-side calls can get here: the guest's packets are not read at this point.
            return;
        }
        self.control.push_back(header);
        self.flush();
    }

    fn header(&mut self, key: Key, op: u16) -> Header {
        let mut header = Header {
            src_cid: HOST_CID,
            dst_cid: self.cid,
            src_port: key.0,
            dst_port: key.1,
            kind: TYPE_STREAM,
            op,
            ..Header::default()
        };
        if let Some(connection) = self.connections.get_mut(&key) {
            connection.tell_credit(&mut header);
        }
        header
    }

    /// Sends waiting control packets as far as there are receive buffers. Returns whether none is
    /// left waiting.
    fn flush(&mut self) -> bool {
        let Some(active) = &mut self.active else { return false };
        let mut used = false;
        while let Some(header) = self.control.front() {
            match active.send(*header, &[]) {
                Ok(Some(_)) => {
                    used = true;
                    self.control.pop_front();
                }
                Ok(None) => break,
                Err(()) => return self.break_ring(),
            }
        }
        if used {
            active.signal_rx();
        }
        self.control.is_empty()
    }

    /// Puts bytes into the guest's receive ring. Returns how many; 0 means wait (the writer's waker
    /// is kept by the caller and woken when it may go on).
    pub fn send_data(&mut self, key: Key, bytes: &[u8]) -> usize {
        let mut done = 0;
        let may_send = self.flush();
        while may_send && done < bytes.len() {
            let Some(credit) = self.connections.get(&key).map(Connection::credit) else { break };
            let len = credit.min(bytes.len() - done).min(PAYLOAD_LEN_MAX);
            if len == 0 {
                if done == 0 {
                    self.send_control(key, OP_CREDIT_REQUEST, 0);
                }
                break;
            }
            let header = self.header(key, OP_RW);
            let Some(active) = &mut self.active else { break };
            match active.send(header, &bytes[done..done + len]) {
                Ok(Some(sent)) => {
                    done += sent;
                    if let Some(connection) = self.connections.get_mut(&key) {
                        connection.note_sent(u32::try_from(sent).unwrap_or(0));
                    }
                }
                Ok(None) => break,
                Err(()) => {
                    self.break_ring();
                    return 0;
                }
            }
        }
        if 0 < done {
            if let Some(active) = &mut self.active {
                active.signal_rx();
            }
        } else if !self.starved.contains(&key) {
            self.starved.push_back(key);
        }
        done
    }

    fn break_ring(&mut self) -> bool {
        self.reset_all();
        false
    }

    /// The guest has posted receive buffers.
    pub fn rx_ready(&mut self) {
        if self.flush() {
            for key in std::mem::take(&mut self.starved) {
                if let Some(connection) = self.connections.get_mut(&key) {
                    self.wakers.extend(connection.writer.take());
                }
            }
        }
    }

    /// The guest has sent packets.
    pub fn tx_ready(&mut self) -> Result<(), DeviceError> {
        let broken = |what| DeviceError::Queue { queue: TX, what };
        let mut payload = Vec::new();
        for _ in 0..BATCH_MAX {
            if CONTROL_MAX / 2 <= self.control.len() && !self.flush() && self.active.is_some() {
                // Resumed by rx_ready's caller, which tries this queue again.
                return Ok(());
            }
            let Some(active) = &mut self.active else { return Ok(()) };
            match active.receive(&mut payload).map_err(broken)? {
                Some(header) => self.handle(&header, &payload),
                None => {
                    active.signal_tx();
                    return Ok(());
                }
            }
        }
        if let Some(active) = &mut self.active {
            active.signal_tx();
        }
        let _ = self.again.write(1);
        Ok(())
    }

    fn handle(&mut self, header: &Header, payload: &[u8]) {
        let key = (header.dst_port, header.src_port);
        if header.src_cid != self.cid || header.dst_cid != HOST_CID || header.kind != TYPE_STREAM {
            return self.refuse(key, header.op);
        }
        if header.op == OP_REQUEST {
            return self.accept(key, header);
        }
        let Some(connection) = self.connections.get_mut(&key) else {
            return self.refuse(key, header.op);
        };
        connection.learn_credit(header);
        let mut answer = None;
        match (header.op, connection.phase) {
            (OP_RESPONSE, Phase::Connecting) => connection.phase = Phase::Open,
            (OP_RST, Phase::Connecting) => connection.phase = Phase::Refused,
            (OP_RST, _) => connection.phase = Phase::Reset,
            (OP_RW, Phase::Open) if !connection.peer_done_sending => {
                if connection.receive(payload).is_err() {
                    connection.phase = Phase::Reset;
                    answer = Some(OP_RST);
                }
            }
            (OP_SHUTDOWN, Phase::Open) => {
                if connection.peer_shutdown(header.flags) {
                    // Both sides are done: the guest waits for this to forget the socket.
                    answer = Some(OP_RST);
                }
            }
            (OP_CREDIT_UPDATE, _) => {}
            (OP_CREDIT_REQUEST, _) => answer = Some(OP_CREDIT_UPDATE),
            _ => {
                connection.phase = Phase::Reset;
                answer = Some(OP_RST);
            }
        }
        self.wakers.extend(connection.take_wakers());
        if let Some(op) = answer {
            self.send_control(key, op, 0);
        }
    }

    /// Answers a packet of no connection. An RST is never answered.
    fn refuse(&mut self, key: Key, op: u16) {
        if op != OP_RST {
            self.send_control(key, OP_RST, 0);
        }
    }

    fn accept(&mut self, key: Key, header: &Header) {
        let full = CONNECTIONS_MAX <= self.connections.len() || self.connections.contains_key(&key);
        let Some(listening) = self.listeners.get_mut(&key.0) else {
            return self.refuse(key, OP_REQUEST);
        };
        if full || BACKLOG_MAX <= listening.backlog.len() {
            return self.refuse(key, OP_REQUEST);
        }
        let mut connection = Connection::new(Phase::Open);
        connection.learn_credit(header);
        self.connections.insert(key, connection);
        listening.backlog.push_back(key);
        self.wakers.extend(listening.acceptor.take());
        self.send_control(key, OP_RESPONSE, 0);
    }
}

impl Active {
    /// Writes one packet into the next receive buffer. `None`: no buffer. Otherwise the bytes of
    /// payload that fitted.
    fn send(&mut self, mut header: Header, payload: &[u8]) -> Result<Option<usize>, ()> {
        let memory = &*self.memory;
        let chain = match self.rx.pop_descriptor_chain(memory) {
            Some(chain) => chain,
            // Asks to be told of the next buffer, and looks once more.
            None if self.rx.enable_notification(memory).map_err(|_| ())? => {
                let Some(chain) = self.rx.pop_descriptor_chain(memory) else { return Ok(None) };
                chain
            }
            None => return Ok(None),
        };
        let head = chain.head_index();
        let mut writer = chain.writer(memory).map_err(|_| ())?;
        let room = writer.available_bytes().checked_sub(HEADER_LEN).ok_or(())?;
        let len = payload.len().min(room);
        if len == 0 && !payload.is_empty() {
            return Err(());
        }
        header.len = u32::try_from(len).map_err(|_| ())?;
        writer.write_all(&header.to_bytes()).map_err(|_| ())?;
        writer.write_all(&payload[..len]).map_err(|_| ())?;
        let used = u32::try_from(HEADER_LEN + len).map_err(|_| ())?;
        self.rx.add_used(memory, head, used).map_err(|_| ())?;
        Ok(Some(len))
    }

    /// Takes one packet of the guest; the payload, gathered from any number of descriptors, goes
    /// to `payload`.
    fn receive(&mut self, payload: &mut Vec<u8>) -> Result<Option<Header>, &'static str> {
        let memory = &*self.memory;
        let chain = match self.tx.pop_descriptor_chain(memory) {
            Some(chain) => chain,
            None if self.tx.enable_notification(memory).map_err(|_| "ring out of memory")? => {
                let Some(chain) = self.tx.pop_descriptor_chain(memory) else { return Ok(None) };
                chain
            }
            None => return Ok(None),
        };
        let head = chain.head_index();
        let mut reader = chain.reader(memory).map_err(|_| "descriptor out of memory")?;
        let mut bytes = [0u8; HEADER_LEN];
        reader.read_exact(&mut bytes).map_err(|_| "packet shorter than its header")?;
        let header = Header::parse(&bytes);
        let len = header.len as usize;
        if PAYLOAD_LEN_MAX < len || reader.available_bytes() < len {
            return Err("packet longer than its descriptors");
        }
        payload.resize(len, 0);
        reader.read_exact(payload).map_err(|_| "payload cannot be read")?;
        self.tx.add_used(memory, head, 0).map_err(|_| "used ring out of memory")?;
        Ok(Some(header))
    }

    fn signal_rx(&mut self) {
        if self.rx.needs_notification(&*self.memory).unwrap_or(true) {
            self.interrupt.signal_used();
        }
    }

    fn signal_tx(&mut self) {
        if self.tx.needs_notification(&*self.memory).unwrap_or(true) {
            self.interrupt.signal_used();
        }
    }
}
