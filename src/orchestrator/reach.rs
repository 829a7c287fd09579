//! Streams into running guests, for the proxy.
//!
//! A port is reached on the guest's own address over the bridge: the two kernels carry the bytes, and
//! nothing in the guest but the server touches them. Where nothing answers there, because the server
//! listens on the loopback only or the guest filters, the agent connects in the guest and passes on by
//! vsock. docs/proxy.md has what each costs.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::agent::{self, AgentError, StreamObject};
use crate::model::{VmName, VmState};
use crate::orchestrator::{Error, Orchestrator};

/// How long a guest may take to accept a connection before the agent is asked instead. It answers in
/// less than a millisecond, with a refusal too.
const BRIDGE_TIMEOUT: Duration = Duration::from_millis(500);

impl Orchestrator {
    /// Waits for a VM that is starting, at most `limit`.
    ///
    /// # Errors
    /// Conflict when it does not run and is not on its way; [`Error::WaitTimeout`].
    pub async fn wait_running(&self, name: &VmName, limit: Duration) -> Result<(), Error> {
        let mut vm = self.find(name)?.vm.clone();
        let settled = vm.wait_for(|vm| vm.state != VmState::Starting);
        let settled = tokio::time::timeout(limit, settled).await;
        let settled = settled.map_err(|_| Error::WaitTimeout)?;
        let state = settled.map_err(|_| Error::NotFound(name.to_string()))?.state.clone();
        match state {
            VmState::Running => Ok(()),
            state => Err(Error::State { state: state.as_str(), what: "it is not running" }),
        }
    }

    /// Whether there is such a VM, and it runs.
    pub fn is_running(&self, name: &VmName) -> bool {
        self.find(name).is_ok_and(|handle| handle.vm.borrow().state == VmState::Running)
    }

    /// A stream to the agent's HTTP server.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn agent_stream(&self, name: &VmName) -> Result<Box<dyn StreamObject>, Error> {
        Ok(Box::new(self.agent(name).await?))
    }

    /// A stream to a TCP port of the guest.
    ///
    /// # Errors
    /// [`Error::PortClosed`] when nothing listens there.
    pub async fn tcp_stream(
        &self,
        name: &VmName,
        port: u16,
    ) -> Result<Box<dyn StreamObject>, Error> {
        if let Some(stream) = self.bridged(name, port).await? {
            return Ok(Box::new(stream));
        }
        agent::tcp(self.agent(name).await?, port).await.map_err(|error| match error {
            AgentError::Refused { status: 502, .. } => Error::PortClosed(port),
            other => other.into(),
        })
    }

    /// A stream over the bridge, or none where that way does not lead to the port.
    async fn bridged(&self, name: &VmName, port: u16) -> Result<Option<Bridged>, Error> {
        let handle = self.find(name)?;
        // Taken before the address is used: after the end it may be another machine's.
        let ended = handle.parts().ended.clone();
        let address = {
            let vm = handle.vm.borrow();
            if vm.state != VmState::Running {
                return Ok(None);
            }
            let Some(ip) = vm.address() else { return Ok(None) };
            SocketAddr::from((ip, port))
        };
        let connecting = tokio::time::timeout(BRIDGE_TIMEOUT, TcpStream::connect(address));
        let Ok(Ok(stream)) = connecting.await else { return Ok(None) };
        // An answer of several parts must not wait for the guest's acknowledgement of the first.
        let _ = stream.set_nodelay(true);
        Ok(Some(Bridged::new(stream, ended)))
    }
}

/// A TCP connection over the bridge. TCP alone would wait for a guest that is gone.
struct Bridged {
    stream: TcpStream,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Bridged {
    fn new(stream: TcpStream, ended: CancellationToken) -> Bridged {
        Bridged { stream, ended: Box::pin(ended.cancelled_owned()) }
    }

    /// What has to wait, waits for the end of the machine as well.
    fn or_ended<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_pending() && self.ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        polled
    }
}

impl AsyncRead for Bridged {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.or_ended(cx, polled)
    }
}

impl AsyncWrite for Bridged {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.or_ended(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.or_ended(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn the_end_of_the_machine_cuts_its_connections() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(server.local_addr().unwrap()).await.unwrap();
        let (mut guest, _) = server.accept().await.unwrap();
        let ended = CancellationToken::new();
        let mut bridged = Bridged::new(client, ended.clone());
        guest.write_all(b"last").await.unwrap();
        let mut text = [0; 4];
        bridged.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"last");
        let reading = async { bridged.read(&mut text).await.map_err(|error| error.kind()) };
        let (read, ()) = tokio::join!(reading, async { ended.cancel() });
        assert_eq!(read, Err(io::ErrorKind::ConnectionReset));
    }
}
