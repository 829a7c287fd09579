//! The host's handles: connect, listen, streams. Any task or thread may hold them.

use std::io;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use crate::vmm::lock;
use crate::vmm::virtio::vsock::connection::Phase;
use crate::vmm::virtio::vsock::device::{Inner, Key};
use crate::vmm::virtio::vsock::packet::{
    OP_CREDIT_UPDATE, OP_RST, OP_SHUTDOWN, SHUTDOWN_RECEIVE, SHUTDOWN_SEND,
};

/// Runs `work` under the device's mutex and wakes whom it named after releasing it.
pub(super) fn with<R>(inner: &Mutex<Inner>, work: impl FnOnce(&mut Inner) -> R) -> R {
    let (result, wakers) = {
        let mut inner = lock(inner);
        let result = work(&mut inner);
        (result, std::mem::take(&mut inner.wakers))
    };
    wakers.into_iter().for_each(Waker::wake);
    result
}

fn reset<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
}

/// The host's handle on a guest's vsock device. Usable from any task or thread.
#[derive(Clone, Debug)]
pub struct Vsock {
    pub(super) inner: Arc<Mutex<Inner>>,
}

impl Vsock {
    /// Begins a connection to a guest port. Never blocks; await it with [`VsockConnect::poll`].
    pub fn connect(&self, port: u32) -> VsockConnect {
        let key = with(&self.inner, |inner| inner.connect(port));
        VsockConnect { end: key.map(|key| End { inner: Arc::clone(&self.inner), key }) }
    }

    /// Accepts what the guest connects to host port `port`.
    ///
    /// # Errors
    /// `AddrInUse` when the port has a listener already.
    pub fn listen(&self, port: u32) -> io::Result<VsockListener> {
        with(&self.inner, |inner| {
            if inner.listeners.contains_key(&port) {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            inner.listeners.insert(port, super::device::Listening::default());
            Ok(VsockListener { inner: Arc::clone(&self.inner), port })
        })
    }

    /// Ends all connections with `ConnectionReset`, wakes every waiter, refuses new ones. Called
    /// when the machine ends.
    pub fn close(&self) {
        with(&self.inner, |inner| {
            inner.closed = true;
            inner.reset_all();
        });
    }
}

/// Owns one entry of the connection table.
#[derive(Debug)]
struct End {
    inner: Arc<Mutex<Inner>>,
    key: Key,
}

impl Drop for End {
    fn drop(&mut self) {
        with(&self.inner, |inner| {
            let Some(connection) = inner.connections.get(&self.key) else { return };
            match connection.phase {
                // Its answer, an RST, finds no connection and is ignored.
                Phase::Open if connection.is_drained() => {
                    inner.send_control(self.key, OP_SHUTDOWN, SHUTDOWN_RECEIVE | SHUTDOWN_SEND);
                }
                Phase::Open | Phase::Connecting => inner.send_control(self.key, OP_RST, 0),
                Phase::Reset | Phase::Refused => {}
            }
            inner.connections.remove(&self.key);
        });
    }
}

/// A connection on its way. Dropping it gives up.
#[derive(Debug)]
pub struct VsockConnect {
    end: Option<End>,
}

impl VsockConnect {
    /// Ready with the stream, or `ConnectionRefused` when the guest has no listener (at once, when
    /// its RST arrives) or the table is full, `ConnectionReset` when the machine ends.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<VsockStream>> {
        let Some(end) = &self.end else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()));
        };
        let phase = with(&end.inner, |inner| {
            let connection = inner.connections.get_mut(&end.key)?;
            if connection.phase == Phase::Connecting {
                connection.reader = Some(cx.waker().clone());
            }
            Some(connection.phase)
        });
        match phase {
            Some(Phase::Connecting) => Poll::Pending,
            Some(Phase::Open) => match self.end.take() {
                Some(end) => Poll::Ready(Ok(VsockStream { end })),
                None => reset(),
            },
            Some(Phase::Refused) => Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into())),
            Some(Phase::Reset) | None => reset(),
        }
    }
}

/// Accepts connections from the guest. Dropping it closes the port.
#[derive(Debug)]
pub struct VsockListener {
    inner: Arc<Mutex<Inner>>,
    port: u32,
}

impl VsockListener {
    /// The next connection; `ConnectionReset` when the machine ends.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<VsockStream>> {
        with(&self.inner, |inner| {
            if inner.closed {
                return reset();
            }
            let Some(listening) = inner.listeners.get_mut(&self.port) else { return reset() };
            match listening.backlog.pop_front() {
                Some(key) => {
                    let end = End { inner: Arc::clone(&self.inner), key };
                    Poll::Ready(Ok(VsockStream { end }))
                }
                None => {
                    listening.acceptor = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
    }
}

impl Drop for VsockListener {
    fn drop(&mut self) {
        with(&self.inner, |inner| {
            let Some(listening) = inner.listeners.remove(&self.port) else { return };
            for key in listening.backlog {
                inner.send_control(key, OP_RST, 0);
                inner.connections.remove(&key);
            }
        });
    }
}

/// A connected stream. Dropping it ends the connection.
#[derive(Debug)]
pub struct VsockStream {
    end: End,
}

impl VsockStream {
    /// Reads what the guest has sent; `Ok(0)` after the guest has shut down its sending side.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let key = self.end.key;
        with(&self.end.inner, |inner| {
            let Some(connection) = inner.connections.get_mut(&key) else { return reset() };
            let count = connection.take(buf);
            if 0 < count || buf.is_empty() {
                if connection.credit_update_due {
                    inner.send_control(key, OP_CREDIT_UPDATE, 0);
                }
                return Poll::Ready(Ok(count));
            }
            if connection.peer_done_sending {
                return Poll::Ready(Ok(0));
            }
            if connection.phase != Phase::Open {
                return reset();
            }
            connection.reader = Some(cx.waker().clone());
            Poll::Pending
        })
    }

    /// Writes into the guest's receive ring in the caller's task; pending while the guest has no
    /// credit or no buffers.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let key = self.end.key;
        with(&self.end.inner, |inner| {
            let Some(connection) = inner.connections.get_mut(&key) else { return reset() };
            if connection.phase != Phase::Open {
                return reset();
            }
            if connection.done_sending || connection.peer_done_receiving {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            if buf.is_empty() {
                return Poll::Ready(Ok(0));
            }
            let sent = inner.send_data(key, buf);
            if 0 < sent {
                return Poll::Ready(Ok(sent));
            }
            match inner.connections.get_mut(&key) {
                Some(connection) if connection.phase == Phase::Open => {
                    connection.writer = Some(cx.waker().clone());
                    Poll::Pending
                }
                _ => reset(),
            }
        })
    }

    /// Tells the guest that no more bytes will come; reading goes on.
    pub fn poll_shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let key = self.end.key;
        with(&self.end.inner, |inner| {
            if let Some(connection) = inner.connections.get_mut(&key)
                && connection.phase == Phase::Open
                && !connection.done_sending
            {
                connection.done_sending = true;
                inner.send_control(key, OP_SHUTDOWN, SHUTDOWN_SEND);
            }
            Poll::Ready(Ok(()))
        })
    }
}
