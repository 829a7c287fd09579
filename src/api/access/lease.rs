//! A connection ends with the tokens that were shown on it: what was begun with one (a stream of
//! events, a console, a way to a guest's port) does not outlive it.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a connection was opened with; the same for all of its requests.
#[derive(Clone, Default)]
pub struct Lease(Arc<Mutex<Terms>>);

#[derive(Default)]
struct Terms {
    is_over: bool,
    /// Ids of tokens, and what returns when one is over.
    ends: Vec<(i64, BoxFuture<'static, ()>)>,
}

impl Lease {
    /// The connection ends once `end` returns. A token, by its id, counts once.
    pub fn until(&self, id: i64, end: impl Future<Output = ()> + Send + 'static) {
        let mut terms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if terms.ends.iter().all(|(known, _)| *known != id) {
            terms.ends.push((id, Box::pin(end)));
        }
    }

    /// Whether it is over; if not, the task of `cx` is woken when it is.
    fn poll_over(&self, cx: &mut Context<'_>) -> bool {
        let mut terms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over =
            terms.is_over || terms.ends.iter_mut().any(|(_, end)| end.as_mut().poll(cx).is_ready());
        terms.is_over = is_over;
        is_over
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").finish_non_exhaustive()
    }
}

/// A stream that can be read until its lease is over. Reading is enough: whoever serves a connection
/// waits for the client's next word, or for its going, all the time.
#[derive(Debug)]
pub struct Leased<S> {
    stream: S,
    lease: Lease,
}

impl<S> Leased<S> {
    /// Binds `stream` to `lease`.
    pub fn new(stream: S, lease: Lease) -> Leased<S> {
        Leased { stream, lease }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Leased<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.lease.poll_over(cx) {
            let text = "the token of this connection is revoked or over";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, text)));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Leased<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[tokio::test]
    async fn a_reader_that_waits_is_told_of_the_end() {
        let (_client, server) = tokio::io::duplex(64);
        let (lease, end) = (Lease::default(), CancellationToken::new());
        let mut stream = Leased::new(server, lease.clone());
        for id in [1, 2, 2] {
            let never = CancellationToken::new().cancelled_owned();
            lease.until(id, never);
        }
        assert_eq!(lease.0.lock().unwrap().ends.len(), 2);
        lease.until(3, end.clone().cancelled_owned());
        let reader = tokio::spawn(async move {
            let mut byte = [0];
            let first = stream.read(&mut byte).await;
            (first, stream.read(&mut byte).await)
        });
        tokio::task::yield_now().await;
        assert!(!reader.is_finished());
        end.cancel();
        let (first, second) = reader.await.unwrap();
        for outcome in [first, second] {
            assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        }
    }
}
