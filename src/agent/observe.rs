//! What the guest looks like from inside: counters, listening ports, its clock.

use hyper::Method;
use volant_protocol::{ClockTime, GuestMetrics, ListeningPort};

use crate::agent::{AgentError, Payload, Stream, json, parse, request};

/// The guest's own counters.
///
/// # Errors
/// [`AgentError`].
pub async fn metrics(stream: impl Stream) -> Result<GuestMetrics, AgentError> {
    parse(request(stream, Method::GET, "/v1/metrics", Payload::default()).await?).await
}

/// What listens in the guest, by port.
///
/// # Errors
/// [`AgentError`].
pub async fn ports(stream: impl Stream) -> Result<Vec<ListeningPort>, AgentError> {
    parse(request(stream, Method::GET, "/v1/ports", Payload::default()).await?).await
}

/// Sets the guest's clock; what it was before.
///
/// # Errors
/// [`AgentError`].
pub async fn set_clock(stream: impl Stream, time: ClockTime) -> Result<ClockTime, AgentError> {
    parse(request(stream, Method::PUT, "/v1/time", json(&time)?).await?).await
}
