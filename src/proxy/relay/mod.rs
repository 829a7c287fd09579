//! The short way for plain requests to guests' ports: one task reads a request, passes it on, and passes the
//! answer back, as the bytes lie in its buffers. The first request that is more than plain, or that
//! is not clearly allowed, gives the connection to the HTTP server and its routes, which decide about it.

mod body;
mod connection;
mod head;
mod timer;

use std::pin::pin;
use std::time::Duration;

use axum::extract::Request;
use bytes::{Buf, Bytes};
use tokio_util::sync::CancellationToken;

use crate::orchestrator::Orchestrator;
use crate::proxy::forward::HEAD_TIMEOUT;
use connection::{Connection, Failure, Guest, Id, Next, Stream};
use head::{Answer, Target};
use timer::Timer;

/// How long a request may take to come whole, and a connection may wait for its next one.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Serves plain requests. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Relay {
    orchestrator: Orchestrator,
}

impl Relay {
    /// To the guests of `orchestrator`.
    pub fn new(orchestrator: Orchestrator) -> Relay {
        Relay { orchestrator }
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
        loop {
            timer.set(REQUEST_TIMEOUT);
            let next = tokio::select! {
                biased;
                next = connection.next() => next,
                () = timer.passed() => Next::End,
                () = &mut ending => Next::End,
            };
            let target = match next {
                Next::Plain(target) => target,
                Next::Other => return Some(connection.into_parts()),
                Next::End => break,
            };
            let is_running = self.orchestrator.is_running(&target.name);
            let id = if is_running { gate(&mut connection.request) } else { None };
            let (Some(id), true) = (id, self.reach(&mut connection, &target).await) else {
                return Some(connection.into_parts());
            };
            connection.received.advance(target.head_len);
            let is_last = target.is_last || ended.is_cancelled();
            timer.set(HEAD_TIMEOUT);
            let asked = tokio::select! {
                biased;
                asked = self.ask(&mut connection, &target) => asked,
                () = timer.passed() => Err(Failure::Late),
            };
            connection.answer(asked, id, is_last).await.ok()?;
            if is_last {
                break;
            }
        }
        connection.close().await;
        None
    }

    /// Sees to it that the connection has one to its guest.
    async fn reach(&self, connection: &mut Connection, target: &Target) -> bool {
        if let Some(guest) = &mut connection.guest
            && guest.is_at(target)
            && guest.is_quiet().await
        {
            return true;
        }
        self.connect(connection, target).await
    }

    async fn connect(&self, connection: &mut Connection, target: &Target) -> bool {
        let stream = self.orchestrator.tcp_stream(&target.name, target.port).await;
        connection.guest = stream.ok().map(|stream| Guest::new(stream, target));
        connection.guest.is_some()
    }

    /// Passes on the request that has been read; the head of its answer.
    async fn ask(&self, connection: &mut Connection, target: &Target) -> Result<Answer, Failure> {
        connection.prepare(target);
        match connection.ask().await {
            // A guest may end what nobody has used for a while, and GET may be asked twice (RFC 9110, 9.2.2).
            Err(Failure::Silent)
                if connection.is_reused() && self.connect(connection, target).await =>
            {
                connection.ask().await
            }
            asked => asked,
        }
    }
}
