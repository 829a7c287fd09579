//! One request to a guest and its answer back. Bodies stream both ways with back-pressure; whoever
//! goes away is missed by the other.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::uri::Scheme;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use hyper_util::client::legacy;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use crate::model::{Kind, VmName};
use crate::orchestrator::{Error, Orchestrator};
use crate::proxy::deadline::Movement;
use crate::proxy::guests::{Guests, Place};
use crate::proxy::headers::{self, Origin};
use crate::wire::Problem;

/// How long a VM that is starting is waited for.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the guest may take to begin its answer, from the last movement of the request's body on,
/// unless the request says otherwise.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
const HEAD_TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// A request's word on both, in milliseconds.
const TIMEOUT: HeaderName = HeaderName::from_static("volant-timeout-ms");

/// What the proxy's routes share.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// The engine.
    pub orchestrator: Orchestrator,
    /// Clients of the guests.
    pub guests: Guests,
}

/// A problem as an answer.
pub fn problem(status: StatusCode, code: &str, detail: String, hint: Option<&str>) -> Response {
    let title = status.canonical_reason().unwrap_or("Error");
    let body = Problem::new(status.as_u16(), title, code, detail, hint);
    let mut response = (status, axum::Json(body)).into_response();
    let kind = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// The engine's refusal as an answer. What the guest fails in is a bad gateway.
pub fn refused(error: &Error) -> Response {
    let status = match error.kind() {
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::Unavailable if error.code() == "no_ready_vm" => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Unavailable => StatusCode::BAD_GATEWAY,
        Kind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    problem(status, error.code(), error.to_string(), error.hint())
}

/// What a guest has answered instead of HTTP.
pub fn bad(error: &dyn std::fmt::Display) -> Response {
    problem(StatusCode::BAD_GATEWAY, "bad_guest_answer", format!("the guest: {error}"), None)
}

/// Where in a guest a request goes.
#[derive(Clone, Debug)]
pub struct Target {
    /// The place.
    pub place: Place,
    /// Path and query there.
    pub path: String,
    /// What is told of the client.
    pub origin: Origin,
    /// How long the answer may take to begin, from the last movement of the request's body on.
    pub head_timeout: Duration,
}

/// Deadline of the request's own choice.
pub fn timeout(headers: &mut HeaderMap) -> Duration {
    let asked = headers.remove(TIMEOUT);
    let asked = asked.and_then(|value| value.to_str().ok()?.parse().ok());
    asked.map_or(HEAD_TIMEOUT, |ms| Duration::from_millis(ms).min(HEAD_TIMEOUT_MAX))
}

/// Sends `request` to its target, and answers with what comes back.
///
/// # Errors
/// A problem of this proxy's own, where the guest has given no answer.
pub async fn forward(
    proxy: &Proxy,
    target: Target,
    mut request: Request,
) -> Result<Response, Response> {
    let Target { place, path, mut origin, head_timeout } = target;
    let (Place::Port(name, _) | Place::Agent(name)) = &place;
    let start_timeout = START_TIMEOUT.min(head_timeout);
    proxy.orchestrator.wait_running(name, start_timeout).await.map_err(|error| refused(&error))?;
    let rest = match path.as_str() {
        "" => "/".to_owned(),
        query if query.starts_with('?') => format!("/{query}"),
        path => path.to_owned(),
    };
    let Ok(uri) = headers::target(&place.authority(), &rest) else {
        let text = "the path is none".to_owned();
        return Err(problem(StatusCode::BAD_REQUEST, "invalid_path", text, None));
    };
    origin.client = headers::client(request.extensions().get());
    origin.tls = request.extensions().get::<Scheme>() == Some(&Scheme::HTTPS);
    let http2 = headers::wants_http2(request.headers());
    let upgrade = headers::upgrade(request.headers()).filter(|_| !http2);
    let upgrade = upgrade.map(|_| hyper::upgrade::on(&mut request));
    if let Some(authority) = request.uri().authority().map(ToString::to_string)
        && !request.headers().contains_key(header::HOST)
        && let Ok(host) = HeaderValue::from_str(&authority)
    {
        // HTTP/2 has it in the URI.
        request.headers_mut().insert(header::HOST, host);
    }
    let (mut parts, body) = request.into_parts();
    let mut fields = HeaderMap::with_capacity(2 * parts.headers.len());
    headers::for_guest(&parts.headers, &origin, http2, random, |name, value| {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            fields.append(name, value);
        }
    });
    (parts.uri, parts.headers, parts.extensions) = (uri, fields, axum::http::Extensions::new());
    parts.version = if http2 { Version::HTTP_2 } else { Version::HTTP_11 };
    let client = if http2 { &proxy.guests.http2 } else { &proxy.guests.http1 };
    let (movement, body) = Movement::of(body);
    let sent = client.request(Request::from_parts(parts, body));
    match movement.or_still(sent, head_timeout).await {
        Some(Ok(answer)) => back(answer, upgrade).map_err(|problem| *problem),
        Some(Err(error)) => Err(failed(&error)),
        None => Err(too_late()),
    }
}

/// A guest has not answered.
pub fn too_late() -> Response {
    let text = "the guest did not begin its answer in time".to_owned();
    problem(StatusCode::GATEWAY_TIMEOUT, "guest_timeout", text, None)
}

/// Random enough for a name, and without a system call for each request.
pub fn random() -> [u64; 3] {
    let random = RandomState::new();
    [0, 1, 2].map(|number| random.hash_one(number))
}

/// A connection that could not be made has the engine's reason; the rest is the guest's fault.
fn failed(error: &legacy::Error) -> Response {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        if let Some(refusal) = source.downcast_ref::<Error>() {
            return refused(refusal);
        }
        cause = source;
    }
    bad(&cause)
}

fn back(
    mut answer: axum::http::Response<hyper::body::Incoming>,
    upgrade: Option<hyper::upgrade::OnUpgrade>,
) -> Result<Response, Box<Response>> {
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        headers::strip(answer.headers_mut());
        *answer.version_mut() = Version::HTTP_11;
        return Ok(answer.map(Body::new).into_response());
    }
    let guest = hyper::upgrade::on(&mut answer);
    let Some(client) = upgrade else {
        return Err(Box::new(bad(&"101 to a request without Upgrade")));
    };
    tokio::spawn(async move {
        if let (Ok(client), Ok(guest)) = tokio::join!(client, guest) {
            let (mut client, mut guest) = (TokioIo::new(client), TokioIo::new(guest));
            // Either side may end it.
            let _ = copy_bidirectional(&mut client, &mut guest).await;
        }
    });
    Ok(answer.map(Body::new).into_response())
}

/// A name that is none.
fn no_name(name: &str) -> Response {
    let text = format!("{name:?} is no VM name");
    problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid_name", text, None)
}

/// A VM's name from a path or host.
pub fn vm_name(name: &str) -> Result<VmName, Box<Response>> {
    VmName::try_from(name).map_err(|_| Box::new(no_name(name)))
}
