//! Connections: bounded in number, in the time their head may take, and drained at the end.

use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::auth::Trusted;

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
    /// Trusted by its file mode.
    Unix(UnixListener),
    /// Must show the token.
    Tcp(TcpListener),
}

/// Serves `router` until `shutdown` is cancelled, then lets connections finish for a while.
pub async fn serve(listener: Listener, router: Router, shutdown: CancellationToken) {
    let connections = TaskTracker::new();
    let permits = std::sync::Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let trusted = router.clone().layer(axum::Extension(Trusted));
    loop {
        let Ok(permit) = std::sync::Arc::clone(&permits).acquire_owned().await else { return };
        let ended = shutdown.clone();
        let accepted = tokio::select! {
            accepted = accept(&listener, &router, &trusted, ended, &connections, permit) => accepted,
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
    trusted: &Router,
    ended: CancellationToken,
    connections: &TaskTracker,
    permit: tokio::sync::OwnedSemaphorePermit,
) -> std::io::Result<()> {
    match listener {
        Listener::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            let served = connection(stream, trusted.clone(), ended, permit);
            connections.spawn(served);
        }
        Listener::Tcp(listener) => {
            let (stream, _) = listener.accept().await?;
            // Small answers should not wait for more.
            let _ = stream.set_nodelay(true);
            connections.spawn(connection(stream, router.clone(), ended, permit));
        }
    }
    Ok(())
}

async fn connection<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    router: Router,
    ended: CancellationToken,
    permit: tokio::sync::OwnedSemaphorePermit,
) {
    let service = TowerToHyperService::new(router.into_service::<Incoming>());
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
