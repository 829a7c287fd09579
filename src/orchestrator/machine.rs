//! Where tokio and the VMM meet: the only file that names both.
//!
//! Building, stopping and dropping a machine block for milliseconds and run on the blocking pool;
//! streams are polled in the caller's task.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use crate::vmm::{Exit, Hypervisor, Machine, Spec, Vsock, VsockListener, VsockStream};

/// How long the guest's kernel has to answer a connection request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a machine's threads have to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A machine whose blocking calls are kept off the runtime.
#[derive(Debug)]
pub struct Live {
    machine: Option<Machine>,
}

impl Live {
    /// Builds a machine. The receiver tells how it ended.
    ///
    /// # Errors
    /// The VMM's, or a panic in it.
    pub async fn build(
        hypervisor: Hypervisor,
        spec: Spec,
    ) -> Result<(Live, oneshot::Receiver<Exit>), String> {
        let (ended, exit) = oneshot::channel();
        let build = move || {
            hypervisor.build(
                spec,
                Box::new(move |exit| {
                    // The driver is gone only when the daemon is.
                    let _ = ended.send(exit);
                }),
            )
        };
        match tokio::task::spawn_blocking(build).await {
            Ok(Ok(machine)) => Ok((Live { machine: Some(machine) }, exit)),
            Ok(Err(error)) => Err(crate::orchestrator::chain(&error)),
            Err(_) => Err("building the machine panicked".to_owned()),
        }
    }

    /// The machine, until [`Live::stop`].
    pub fn machine(&self) -> Option<&Machine> {
        self.machine.as_ref()
    }

    /// Ends the machine and waits for its threads.
    pub async fn stop(mut self) {
        let Some(machine) = self.machine.take() else { return };
        let stopped = tokio::task::spawn_blocking(move || machine.stop(STOP_TIMEOUT)).await;
        if !matches!(stopped, Ok(Ok(()))) {
            tracing::error!("a machine did not stop in time");
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(machine) = self.machine.take() {
            tokio::task::spawn_blocking(move || drop(machine));
        }
    }
}

/// A stream to a guest port, for tokio.
#[derive(Debug)]
pub struct GuestStream(VsockStream);

/// Connects to a guest port.
///
/// # Errors
/// `ConnectionRefused` at once when nothing listens, `TimedOut` when the guest does not answer.
pub async fn connect(vsock: &Vsock, port: u32) -> io::Result<GuestStream> {
    let mut connecting = vsock.connect(port);
    let connected = std::future::poll_fn(|cx| connecting.poll(cx));
    match tokio::time::timeout(CONNECT_TIMEOUT, connected).await {
        Ok(stream) => stream.map(GuestStream),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Accepts the next connection of the guest.
///
/// # Errors
/// `ConnectionReset` when the machine ends.
pub async fn accept(listener: &mut VsockListener) -> io::Result<GuestStream> {
    std::future::poll_fn(|cx| listener.poll_accept(cx)).await.map(GuestStream)
}

impl AsyncRead for GuestStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = ready!(self.0.poll_read(cx, buf.initialize_unfilled()))?;
        buf.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for GuestStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_shutdown(cx)
    }
}
