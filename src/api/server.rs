//! Connections: bounded in number, in the time their head may take, and drained at the end.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::uri::Scheme;
use axum::http::{Extensions, HeaderName, StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;

use crate::api::access::{Lease, Leased, Peer};
use crate::api::rewind::Rewind;
use crate::api::tls::Tls;
use crate::orchestrator::StreamObject;

/// Connections at once, per listener; a further one waits in the backlog.
const CONNECTIONS_MAX: usize = 4096;
/// How long a request's head may take: a slow loris is cut off.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of a request's head, and the answer to a longer one.
const HEAD_LEN_MAX: usize = 64 * 1024;
const TOO_LARGE: (StatusCode, [(HeaderName, &str); 1]) =
    (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, [(header::CONNECTION, "close")]);
/// The same in HTTP/2.
const HEADER_LIST_MAX: u32 = 64 * 1024;
/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;
/// An HTTP/2 connection without a request is closed after this long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// A ping this often, and as long to answer it, finds an HTTP/2 client that is gone.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Pause after a failed accept (out of descriptors).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How long connections may take to finish once the daemon ends.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Where clients come from.
#[derive(Debug)]
pub enum Listener {
    /// Its file mode is its access list.
    Unix(UnixListener),
    /// Clients must show a token; with TLS they must speak it.
    Tcp(TcpListener, Option<Tls>),
}

/// A way past the routes, for requests that need none: has a connection, with a request that carries its
/// extensions, before the routes do. What it does not serve comes back, with the bytes that it has read.
#[derive(Clone)]
pub struct Shortcut(pub Arc<ServeConnection>);

type ServeConnection = dyn Fn(Box<dyn StreamObject>, Request<Body>, CancellationToken) -> BoxFuture<'static, Left>
    + Send
    + Sync;
type Left = Option<(Box<dyn StreamObject>, Bytes)>;

impl fmt::Debug for Shortcut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shortcut").finish_non_exhaustive()
    }
}

/// What a listener serves.
#[derive(Clone, Debug)]
pub struct Service {
    /// All of it.
    pub router: Router,
    /// Some of it, sooner; HTTP/1.1 only.
    pub shortcut: Option<Shortcut>,
}

/// Serves `service` until `shutdown` is cancelled, then lets connections finish for a while.
pub async fn serve(listener: Listener, service: Service, shutdown: CancellationToken) {
    let connections = TaskTracker::new();
    let permits = std::sync::Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = std::sync::Arc::clone(&permits).acquire_owned().await else { return };
        let ended = shutdown.clone();
        let accepted = tokio::select! {
            accepted = accept(&listener, &service, ended, &connections, permit) => accepted,
            () = shutdown.cancelled() => break,
        };
        if accepted.is_err() {
            tokio::time::sleep(ACCEPT_RETRY).await;
        }
    }
    connections.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, connections.wait()).await.is_err() {
        tracing::warn!(left = connections.len(), "connections were cut off");
    }
}

async fn accept(
    listener: &Listener,
    service: &Service,
    ended: CancellationToken,
    connections: &TaskTracker,
    permit: tokio::sync::OwnedSemaphorePermit,
) -> std::io::Result<()> {
    match listener {
        Listener::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            let peer = Peer::Unix(stream.peer_cred().ok().map(|credentials| credentials.uid()));
            let scheme = Scheme::HTTP;
            let service = service.clone();
            connections.spawn(connection(stream, peer, scheme, service, ended, permit));
        }
        Listener::Tcp(listener, tls) => {
            let (stream, address) = listener.accept().await?;
            let peer = Peer::Tcp(address);
            // Small answers should not wait for more.
            let _ = stream.set_nodelay(true);
            let service = service.clone();
            match tls.clone() {
                Some(tls) => connections.spawn(secured(stream, tls, peer, service, ended, permit)),
                None => {
                    let scheme = Scheme::HTTP;
                    connections.spawn(connection(stream, peer, scheme, service, ended, permit))
                }
            };
        }
    }
    Ok(())
}

async fn secured(
    stream: TcpStream,
    tls: Tls,
    peer: Peer,
    service: Service,
    ended: CancellationToken,
    permit: tokio::sync::OwnedSemaphorePermit,
) {
    let accepted = tokio::select! {
        accepted = tokio::time::timeout(HEAD_TIMEOUT, tls.accept(stream)) => accepted,
        () = ended.cancelled() => return,
    };
    // A client that does not speak TLS, or goes away, ends its own connection only.
    let Ok(Ok(stream)) = accepted else { return };
    connection(stream, peer, Scheme::HTTPS, service, ended, permit).await;
}

async fn connection<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    peer: Peer,
    scheme: Scheme,
    service: Service,
    ended: CancellationToken,
    permit: tokio::sync::OwnedSemaphorePermit,
) {
    let looked = tokio::select! {
        looked = tokio::time::timeout(HEAD_TIMEOUT, Rewind::look(stream)) => looked,
        () = ended.cancelled() => return,
    };
    // A client that sends nothing, or goes away, ends its own connection only.
    let Ok(Ok((stream, is_http2))) = looked else { return };
    let lease = Lease::default();
    let stream = Leased::new(stream, lease.clone());
    let mark = move |extensions: &mut Extensions| {
        extensions.insert(peer);
        extensions.insert(scheme.clone());
        if let Peer::Tcp(address) = peer {
            extensions.insert(ConnectInfo(address));
            extensions.insert(lease.clone());
        }
    };
    let router = service.router;
    if is_http2 {
        http2(stream, router, mark, ended).await;
    } else if let Some(Shortcut(shortcut)) = service.shortcut {
        let mut template = Request::new(Body::empty());
        mark(template.extensions_mut());
        // What is left of a connection is what the routes serve.
        if let Some((stream, first)) = shortcut(Box::new(stream), template, ended.clone()).await {
            http1(Rewind::to(first, stream), router, mark, ended).await;
        }
    } else {
        http1(stream, router, mark, ended).await;
    }
    drop(permit);
}

/// A request that has not been answered yet.
struct UnderWay(watch::Sender<usize>);

impl UnderWay {
    fn new(requests: &watch::Sender<usize>) -> UnderWay {
        requests.send_modify(|count| *count += 1);
        UnderWay(requests.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

async fn http1<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    router: Router,
    mark: impl Fn(&mut Extensions) + Send,
    ended: CancellationToken,
) {
    let service = service_fn(|mut request: Request<Incoming>| {
        mark(request.extensions_mut());
        let answer = (head_len(&request) <= HEAD_LEN_MAX).then(|| router.clone().call(request));
        async move {
            match answer {
                Some(answer) => answer.await,
                None => Ok(TOO_LARGE.into_response()),
            }
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_LEN_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    tokio::select! {
        // A client that breaks HTTP or goes away ends its own connection only.
        _ = &mut connection => {}
        () = ended.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// Bytes of a request's head, about. The server looks at its limit between two reads only, the last of which may
/// bring as much again.
fn head_len(request: &Request<Incoming>) -> usize {
    let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len());
    path + fields.sum::<usize>()
}

/// HTTP/2 without TLS, by prior knowledge.
async fn http2<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    router: Router,
    mark: impl Fn(&mut Extensions) + Send,
    ended: CancellationToken,
) {
    // HTTP/1.1 has a timeout of its own for a connection without a request.
    let requests = watch::Sender::new(0);
    let service = service_fn(|mut request: Request<Incoming>| {
        mark(request.extensions_mut());
        let answer = router.clone().call(request);
        let under_way = UnderWay::new(&requests);
        async move {
            let answer = answer.await;
            drop(under_way);
            answer
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_LIST_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let leave = async {
        tokio::select! {
            () = idle(requests.subscribe()) => {}
            () = ended.cancelled() => {}
        }
    };
    tokio::select! {
        _ = &mut connection => {}
        () = leave => {
            // Streams that are open are finished.
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// Returns when no request has been under way for a while: HTTP/1.1 has that in its head's timeout.
async fn idle(mut requests: watch::Receiver<usize>) {
    loop {
        let quiet = requests.wait_for(|count| *count == 0).await.is_ok();
        let busy = requests.wait_for(|count| *count != 0);
        if !quiet || tokio::time::timeout(IDLE_TIMEOUT, busy).await.is_err() {
            return;
        }
    }
}
