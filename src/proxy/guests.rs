//! Connections to guests: made through the orchestrator, kept for a while for the next request.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use crate::agent::StreamObject;
use crate::model::VmName;
use crate::orchestrator::{Error, Orchestrator};

/// Bytes of the head of a guest's answer.
pub const HEAD_LEN_MAX: usize = 64 * 1024;
/// Header fields of a guest's answer.
const HEADERS_MAX: usize = 128;
/// The same in HTTP/2, where it is bytes.
const HEADER_LIST_MAX: u32 = 64 * 1024;
/// How long a connection may wait for its next request, and how many of one port.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
pub const IDLE_MAX: usize = 64;
/// Last part of the authority that means a guest's agent; VM names have no dot.
const AGENT_SUFFIX: &str = ".agent";

/// A place in a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A TCP port.
    Port(VmName, u16),
    /// Its agent's HTTP server.
    Agent(VmName),
}

impl Place {
    /// As the authority of a URI.
    pub fn authority(&self) -> String {
        match self {
            Place::Port(name, port) => format!("{name}:{port}"),
            Place::Agent(name) => format!("{name}{AGENT_SUFFIX}"),
        }
    }

    fn parse(uri: &Uri) -> Option<Place> {
        let host = uri.host()?;
        match host.strip_suffix(AGENT_SUFFIX) {
            Some(name) => Some(Place::Agent(VmName::try_from(name).ok()?)),
            None => Some(Place::Port(VmName::try_from(host).ok()?, uri.port_u16()?)),
        }
    }
}

/// HTTP clients of all guests. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Guests {
    /// HTTP/1.1.
    pub http1: Client<Connector, Body>,
    /// HTTP/2 without TLS, by prior knowledge.
    pub http2: Client<Connector, Body>,
}

impl Guests {
    /// Clients that connect through `orchestrator`.
    pub fn new(orchestrator: &Orchestrator) -> Guests {
        let connector = Connector { orchestrator: orchestrator.clone() };
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .set_host(false)
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_MAX)
            .http1_max_buf_size(HEAD_LEN_MAX)
            .http1_max_headers(HEADERS_MAX);
        let http1 = builder.build(connector.clone());
        builder.http2_only(true).http2_max_header_list_size(HEADER_LIST_MAX);
        Guests { http1, http2: builder.build(connector) }
    }
}

/// Opens streams to places in guests.
#[derive(Clone, Debug)]
pub struct Connector {
    orchestrator: Orchestrator,
}

impl tower_service::Service<Uri> for Connector {
    type Response = GuestIo;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let orchestrator = self.orchestrator.clone();
        Box::pin(async move {
            let stream = match Place::parse(&uri) {
                Some(Place::Port(name, port)) => orchestrator.tcp_stream(&name, port).await?,
                Some(Place::Agent(name)) => orchestrator.agent_stream(&name).await?,
                None => return Err(Error::Internal("a proxied request without a place")),
            };
            Ok(GuestIo(TokioIo::new(stream)))
        })
    }
}

/// A stream to a guest as the HTTP client wants it.
pub struct GuestIo(TokioIo<Box<dyn StreamObject>>);

impl std::fmt::Debug for GuestIo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestIo").finish_non_exhaustive()
    }
}

impl Connection for GuestIo {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for GuestIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for GuestIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_survive_the_uri() {
        let name = |text| VmName::try_from(text).unwrap();
        for place in [Place::Port(name("one"), 8080), Place::Agent(name("a-1"))] {
            let uri = crate::proxy::headers::target(&place.authority(), "/x").unwrap();
            assert_eq!(Place::parse(&uri), Some(place));
        }
    }
}
