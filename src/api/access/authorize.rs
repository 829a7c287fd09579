//! The second gate: the scope that the registry asks for, and the audit log.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};

use crate::api::access::{Principal, RequestId, idempotency, limits, revision};
use crate::api::error::Refusal;
use crate::api::operations::{self, Access, Answer, Body, Operation};
use crate::model::AuditEntry;
use crate::orchestrator::Orchestrator;

/// Bytes of a request's path that the audit log keeps.
const TARGET_LEN_MAX: usize = 256;

/// Puts the second gate before every route of `router`.
pub fn authorize(router: Router, orchestrator: Orchestrator) -> Router {
    router.layer(from_fn_with_state(orchestrator, check))
}

async fn check(State(orchestrator): State<Orchestrator>, request: Request, next: Next) -> Response {
    // No route at all: the fallback says so.
    let Some(path) = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str) else {
        return next.run(request).await;
    };
    let Some(operation) = operations::find(request.method(), path) else {
        let is_known = !operations::of_route(path).is_empty();
        // A known path with another method is answered by the router, with 405.
        return if is_known { next.run(request).await } else { undescribed(path) };
    };
    let principal = request.extensions().get::<Principal>().cloned();
    let needed = match operation.access {
        Access::Open => return next.run(request).await,
        Access::Scope(needed) => needed,
    };
    let Some(principal) = principal else {
        let text = "a bearer token is needed";
        return Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", text).into_response();
    };
    // What passes through to a guest changes the guest alone, and comes by the thousand.
    let is_recorded = !operation.hints.read_only && !matches!(operation.answer, Answer::Guest);
    let entry = is_recorded.then(|| entry(&request, operation, &principal));
    let response = if principal.scope < needed {
        let text = format!("this needs the scope {needed}; the token has {}", principal.scope);
        let mut response =
            Refusal::new(StatusCode::FORBIDDEN, "insufficient_scope", text).into_response();
        let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{needed}\"");
        if let Ok(challenge) = HeaderValue::from_str(&challenge) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    } else if let Err(refusal) =
        limits::check(&orchestrator, &principal, operation, request.uri().path())
    {
        refusal.into_response()
    } else {
        run(&orchestrator, operation, &principal, request, next).await
    };
    if let Some(entry) = entry {
        record(&orchestrator, entry, response.status()).await;
    }
    response
}

/// Runs a request that may be run: a change with a key once, and one resource with its revision.
async fn run(
    orchestrator: &Orchestrator,
    operation: &Operation,
    principal: &Principal,
    request: Request,
    next: Next,
) -> Response {
    // What is said to a guest's server is not said of the VM.
    let is_guests = matches!(operation.answer, Answer::Guest);
    if !operation.hints.read_only
        && !is_guests
        && let Err(refusal) = revision::matches(&request, orchestrator)
    {
        return refusal.into_response();
    }
    let is_whole =
        operation.answer.json().is_some() || matches!(operation.answer, Answer::Empty(_));
    let takes_whole = !matches!(operation.body, Some(Body::Bytes));
    if !operation.hints.read_only && is_whole && takes_whole {
        return match idempotency::key(&request) {
            Ok(None) => next.run(request).await,
            Ok(Some(key)) => {
                idempotency::once(orchestrator.clone(), principal, key, request, next).await
            }
            Err(refusal) => refusal.into_response(),
        };
    }
    let is_one = operation.path.contains('{') && operation.answer.json().is_some();
    if is_one && operation.method == Method::GET {
        let known = revision::Known::of(&request);
        return known.mark(next.run(request).await).await;
    }
    next.run(request).await
}

fn undescribed(path: &str) -> Response {
    tracing::error!(path, "a route has no operation and is refused");
    let text = "this route is not described, and is closed until it is";
    Refusal::new(StatusCode::FORBIDDEN, "operation_unknown", text).into_response()
}

fn entry(request: &Request, operation: &Operation, principal: &Principal) -> AuditEntry {
    let request_id = request.extensions().get::<RequestId>();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    AuditEntry {
        id: 0,
        at_ms: i64::try_from(now.as_millis()).unwrap_or(i64::MAX),
        principal: principal.name.to_string(),
        peer: principal.address.map_or_else(|| "unix".to_owned(), |address| address.to_string()),
        operation: operation.id.to_owned(),
        target: request.uri().path().chars().take(TARGET_LEN_MAX).collect(),
        status: 0,
        request_id: request_id.map_or_else(String::new, |id| id.0.to_string()),
    }
}

async fn record(orchestrator: &Orchestrator, mut entry: AuditEntry, status: StatusCode) {
    entry.status = status.as_u16();
    tracing::info!(
        principal = entry.principal,
        peer = entry.peer,
        operation = entry.operation,
        target = entry.target,
        status = entry.status,
        request_id = entry.request_id,
        "audit"
    );
    if let Err(error) = orchestrator.audit(entry).await {
        tracing::error!(%error, "a change is missing in the audit log");
    }
}
