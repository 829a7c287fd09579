//! The short way for plain requests to guests' ports: one task reads a request, passes it on, and passes the
//! answer back, as the bytes lie in its buffers. The first request that is more than plain, or that
//! is not clearly allowed, gives the connection to the HTTP server and its routes, which decide about it.

mod body;
mod connection;
mod head;
mod pool;
mod timer;

use std::pin::pin;
use std::time::Duration;

use axum::extract::Request;
use axum::http::HeaderName;
use bytes::{Buf, Bytes};
use tokio_util::sync::CancellationToken;

use crate::orchestrator::Orchestrator;
use crate::proxy::forward::HEAD_TIMEOUT;
use connection::{Connection, Failure, Guest, Id, Next, Stream};
use head::{Answer, Target};
use pool::Pool;
use timer::Timer;

/// How long a request may take to come whole, and a connection may wait for its next one.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Serves plain requests. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Relay {
    orchestrator: Orchestrator,
    pool: Pool,
}

impl Relay {
    /// To the guests of `orchestrator`.
    pub fn new(orchestrator: Orchestrator) -> Relay {
        Relay { orchestrator, pool: Pool::default() }
    }

    /// Serves `client` until it leaves or all has `ended`, or until a request comes that is not plain, that `gate`
    /// does not let pass or whose guest is not reached at once: then the connection comes back, with what has been
    /// read and not been answered. `template` is a request with the connection's extensions; the gate may
    /// add to them.
    pub async fn serve(
        &self,
        client: Stream,
        template: Request,
        gate: impl Fn(&mut Request) -> Option<Id> + Send,
        ended: CancellationToken,
    ) -> Option<(Stream, Bytes)> {
        let mut connection = Connection::new(client, template);
        let (mut ending, mut timer) = (pin!(ended.cancelled()), Timer::new());
        let is_over = loop {
            timer.set(REQUEST_TIMEOUT);
            let next = tokio::select! {
                biased;
                next = connection.next() => next,
                () = timer.passed() => Next::End,
                () = &mut ending => Next::End,
            };
            let target = match next {
                Next::Plain(target) => target,
                Next::Other => break false,
                Next::End => break true,
            };
            let is_running = self.orchestrator.is_running(&target.name);
            let id = if is_running { gate(&mut connection.request) } else { None };
            let Some(id) = id else { break false };
            if !self.reach(&mut connection, &target).await {
                break false;
            }
            connection.received.advance(target.head_len);
            let is_last = target.is_last || ended.is_cancelled();
            timer.set(HEAD_TIMEOUT);
            let asked = tokio::select! {
                biased;
                asked = self.ask(&mut connection, &target, &id.0) => asked,
                () = timer.passed() => Err(Failure::Late),
            };
            if let Err(failure) = connection.answer(asked, id, is_last).await {
                tracing::debug!(vm = %target.name, port = target.port, ?failure, "an answer was cut off");
                return None;
            }
            if is_last {
                break true;
            }
        };
        if let Some(guest) = connection.guest.take() {
            self.pool.keep(guest);
        }
        if !is_over {
            return Some(connection.into_parts());
        }
        connection.close().await;
        None
    }

    /// Sees to it that the connection has one to its guest.
    async fn reach(&self, connection: &mut Connection, target: &Target) -> bool {
        if let Some(mut guest) = connection.guest.take() {
            let is_at = guest.is_at(target);
            if is_at && guest.is_quiet().await {
                connection.guest = Some(guest);
                return true;
            }
            if !is_at {
                self.pool.keep(guest);
            }
        }
        connection.guest = self.pool.take(target).await;
        connection.guest.is_some() || self.connect(connection, target).await
    }

    async fn connect(&self, connection: &mut Connection, target: &Target) -> bool {
        let stream = self.orchestrator.tcp_stream(&target.name, target.port).await;
        connection.guest = stream.ok().map(|stream| Guest::new(stream, target));
        connection.guest.is_some()
    }

    /// Passes on the request that has been read; the head of its answer.
    async fn ask(
        &self,
        connection: &mut Connection,
        target: &Target,
        own: &HeaderName,
    ) -> Result<Answer, Failure> {
        connection.prepare(target);
        match connection.ask(own).await {
            // A guest may end what nobody has used for a while, and GET may be asked twice (RFC 9110, 9.2.2).
            Err(Failure::Silent)
                if connection.is_reused() && self.connect(connection, target).await =>
            {
                connection.ask(own).await
            }
            asked => asked,
        }
    }
}
