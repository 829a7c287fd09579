//! Connections: bounded in number, in the time their head may take, and drained at the end.

use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::access::Peer;

/// Connections at once, per listener; a further one waits in the backlog.
const CONNECTIONS_MAX: usize = 4096;
/// How long a request's head may take: a slow loris is cut off.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of a request's head.
const HEAD_LEN_MAX: usize = 64 * 1024;
/// Pause after a failed accept (out of descriptors).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How long connections may take to finish once the daemon ends.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Where clients come from.
#[derive(Debug)]
pub enum Listener {
    /// Its file mode is its access list.
    Unix(UnixListener),
    /// Clients must show a token.
    Tcp(TcpListener),
}

/// Serves `router` until `shutdown` is cancelled, then lets connections finish for a while.
pub async fn serve(listener: Listener, router: Router, shutdown: CancellationToken) {
    let connections = TaskTracker::new();
    let permits = std::sync::Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = std::sync::Arc::clone(&permits).acquire_owned().await else { return };
        let ended = shutdown.clone();
        let accepted = tokio::select! {
            accepted = accept(&listener, &router, ended, &connections, permit) => accepted,
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
    router: &Router,
    ended: CancellationToken,
    connections: &TaskTracker,
    permit: tokio::sync::OwnedSemaphorePermit,
) -> std::io::Result<()> {
    match listener {
        Listener::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            let peer = Peer::Unix(stream.peer_cred().ok().map(|credentials| credentials.uid()));
            connections.spawn(connection(stream, peer, router.clone(), ended, permit));
        }
        Listener::Tcp(listener) => {
            let (stream, address) = listener.accept().await?;
            let peer = Peer::Tcp(address);
            // Small answers should not wait for more.
            let _ = stream.set_nodelay(true);
            connections.spawn(connection(stream, peer, router.clone(), ended, permit));
        }
    }
    Ok(())
}

async fn connection<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    peer: Peer,
    router: Router,
    ended: CancellationToken,
    permit: tokio::sync::OwnedSemaphorePermit,
) {
    let routes = TowerToHyperService::new(router.into_service::<Incoming>());
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer);
        routes.call(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
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
    drop(permit);
}
