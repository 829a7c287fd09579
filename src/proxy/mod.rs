//! HTTP from outside to a guest: to its agent, or to a port on its loopback. Bytes go straight from
//! the client's connection into the guest's ring; nothing is buffered whole.

mod actions;

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use crate::agent::StreamObject;
use crate::model::{Kind, VmName};
use crate::orchestrator::{Error, Orchestrator};
use crate::wire::Problem;

/// How long the guest may take to begin its answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of the head of a guest's answer.
const HEAD_LEN_MAX: usize = 64 * 1024;
/// Headers that end at each hop (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The proxy's routes.
pub fn router(orchestrator: Orchestrator) -> Router {
    Router::new()
        .route("/api/v1/vms/{name}/agent/{*path}", any(to_agent))
        .route("/api/v1/vms/{name}/proxy/{port}/", any(to_port))
        .route("/api/v1/vms/{name}/proxy/{port}/{*path}", any(to_port))
        .route("/api/v1/vms/{name}/actions/{plugin}/{action}", any(actions::of_vm))
        .route("/api/v1/plugins/{plugin}/actions/{action}", any(actions::of_any))
        .with_state(orchestrator)
}

fn problem(status: StatusCode, code: &str, detail: String, hint: Option<&str>) -> Response {
    let title = status.canonical_reason().unwrap_or("Error");
    let body = Problem::new(status.as_u16(), title, code, detail, hint);
    let mut response = (status, axum::Json(body)).into_response();
    let kind = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn refused(error: &Error) -> Response {
    let status = match error.kind() {
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::Unavailable if error.code() == "no_ready_vm" => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Unavailable => StatusCode::BAD_GATEWAY,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    problem(status, error.code(), error.to_string(), error.hint())
}

async fn to_agent(
    State(orchestrator): State<Orchestrator>,
    Path((name, _)): Path<(String, String)>,
    request: Request,
) -> Response {
    let Ok(name) = VmName::try_from(name.as_str()) else { return no_name(&name) };
    match orchestrator.agent_stream(&name).await {
        Ok(stream) => {
            let path = tail(&request, 5);
            let target = Target { path, head_timeout: HEAD_TIMEOUT };
            forward(request, stream, &target).await.unwrap_or_else(|problem| problem)
        }
        Err(error) => refused(&error),
    }
}

async fn to_port(
    State(orchestrator): State<Orchestrator>,
    Path(path): Path<Vec<(String, String)>>,
    request: Request,
) -> Response {
    let part = |wanted: &str| path.iter().find(|(key, _)| key == wanted).map(|(_, value)| value);
    let (name, port) = (part("name").cloned().unwrap_or_default(), part("port"));
    let Ok(name) = VmName::try_from(name.as_str()) else { return no_name(&name) };
    let Some(port @ 1..) = port.and_then(|port| port.parse::<u16>().ok()) else {
        let text = "a port is a number from 1 to 65535".to_owned();
        return problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid_port", text, None);
    };
    match orchestrator.tcp_stream(&name, port).await {
        Ok(stream) => {
            let path = tail(&request, 6);
            let target = Target { path, head_timeout: HEAD_TIMEOUT };
            forward(request, stream, &target).await.unwrap_or_else(|problem| problem)
        }
        Err(error) => refused(&error),
    }
}

fn no_name(name: &str) -> Response {
    let text = format!("{name:?} is no VM name");
    problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid_name", text, None)
}

/// Where in the guest a request goes.
struct Target {
    /// Path and query.
    path: String,
    /// How long the answer may take to begin.
    head_timeout: Duration,
}

/// Path and query of `request` without the first `skip` segments.
fn tail(request: &Request, skip: usize) -> String {
    let whole = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let cut = whole.match_indices('/').nth(skip).map_or(whole.len(), |(at, _)| at);
    if whole[cut..].starts_with('/') { whole[cut..].to_owned() } else { "/".to_owned() }
}

/// Sends `request` over `stream` and streams both bodies.
///
/// # Errors
/// A problem of this proxy's own, where the guest has given no answer.
async fn forward(
    mut request: Request,
    stream: Box<dyn StreamObject>,
    target: &Target,
) -> Result<Response, Response> {
    let bad = |error: &dyn std::fmt::Display| {
        problem(StatusCode::BAD_GATEWAY, "bad_guest_answer", format!("the guest: {error}"), None)
    };
    let handshake =
        http1::Builder::new().max_buf_size(HEAD_LEN_MAX).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = match handshake {
        Ok(parts) => parts,
        Err(error) => return Err(bad(&error)),
    };
    // Ends with the exchange: when the answer is read, dropped, or the guest is gone.
    tokio::spawn(async move {
        let _ = connection.with_upgrades().await;
    });
    let client_upgrade = request.headers().contains_key(header::UPGRADE);
    let upgrade = client_upgrade.then(|| hyper::upgrade::on(&mut request));
    if let Err(error) = rewrite(&mut request, &target.path) {
        return Err(bad(&error));
    }
    let answer = tokio::time::timeout(target.head_timeout, sender.send_request(request)).await;
    let mut answer = match answer {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(bad(&error)),
        Err(_) => {
            let text = "the guest did not answer in time".to_owned();
            return Err(problem(StatusCode::GATEWAY_TIMEOUT, "guest_timeout", text, None));
        }
    };
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let guest_upgrade = hyper::upgrade::on(&mut answer);
        let Some(client_upgrade) = upgrade else {
            return Err(bad(&"101 to a request without Upgrade"));
        };
        tokio::spawn(async move {
            if let (Ok(client), Ok(guest)) = tokio::join!(client_upgrade, guest_upgrade) {
                let (mut client, mut guest) = (TokioIo::new(client), TokioIo::new(guest));
                // Either side may end it.
                let _ = copy_bidirectional(&mut client, &mut guest).await;
            }
        });
    } else {
        strip(answer.headers_mut());
    }
    Ok(answer.map(Body::new).into_response())
}

/// Path, host and headers as the guest should see them.
fn rewrite(request: &mut Request, path: &str) -> Result<(), axum::http::Error> {
    let uri = axum::http::Uri::builder().path_and_query(path).build()?;
    let upgrade = request.headers().get(header::UPGRADE).cloned();
    let host = request.headers().get(header::HOST).cloned();
    let headers = request.headers_mut();
    strip(headers);
    // Ours, not the guest's: it opened this API.
    headers.remove(header::AUTHORIZATION);
    headers.insert(header::HOST, HeaderValue::from_static("localhost"));
    if let Some(host) = host {
        headers.insert(HeaderName::from_static("x-forwarded-host"), host);
    }
    if let Some(upgrade) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, upgrade);
    }
    *request.uri_mut() = uri;
    Ok(())
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    named.iter().chain(&HOP_BY_HOP).for_each(|name| {
        headers.remove(name);
    });
}
