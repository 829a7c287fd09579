//! A stream whose first bytes have been looked at.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What an HTTP/2 client sends first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Gives the bytes that were read already, then the rest.
#[derive(Debug)]
pub struct Rewind<S> {
    first: Bytes,
    stream: S,
}

impl<S> Rewind<S> {
    /// Puts `first`, which has been read of `stream`, before the rest.
    pub fn to(first: Bytes, stream: S) -> Rewind<S> {
        Rewind { first, stream }
    }
}

impl<S: AsyncRead + Unpin> Rewind<S> {
    /// Reads until it is clear whether the client speaks HTTP/2.
    ///
    /// # Errors
    /// As the stream's.
    pub async fn look(mut stream: S) -> io::Result<(Rewind<S>, bool)> {
        let mut seen = BytesMut::with_capacity(PREFACE.len());
        while PREFACE.starts_with(&seen) && seen.len() < PREFACE.len() {
            let left = PREFACE.len() - seen.len();
            if (&mut stream).take(left as u64).read_buf(&mut seen).await? == 0 {
                break;
            }
        }
        let http2 = seen == PREFACE;
        Ok((Rewind { first: seen.freeze(), stream }, http2))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewind<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let count = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first[..count]);
        self.first.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewind<S> {
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
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn check(sent: &[u8], http2: bool) {
        let (mut client, server) = tokio::io::duplex(1024);
        client.write_all(sent).await.unwrap();
        drop(client);
        let (mut stream, found) = Rewind::look(server).await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        assert_eq!((found, &all[..]), (http2, sent));
    }

    #[tokio::test]
    async fn the_preface_is_found_and_nothing_is_lost() {
        check(b"GET / HTTP/1.1\r\n\r\n", false).await;
        check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore", true).await;
        check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", false).await;
        check(b"PUT / HTTP/1.1\r\n\r\nbody", false).await;
        check(b"", false).await;
    }
}
