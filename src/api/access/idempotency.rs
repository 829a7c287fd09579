//! `Idempotency-Key`: a change that is sent again with the same key is done once, and answered as it
//! was the first time. Keys belong to whoever sent them, and are kept for a day, over restarts of
//! the daemon too.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use crate::api::BODY_LEN_MAX;
use crate::api::access::Principal;
use crate::api::error::Refusal;
use crate::model::Repeat;
use crate::orchestrator::Orchestrator;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Marks an answer that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Bytes of a key.
const KEY_LEN_MAX: usize = 255;
/// Bytes of an answer that is kept; of a longer one only that it was given.
const ANSWER_LEN_MAX: usize = 1024 * 1024;

/// The request's key: bare, or a quoted string as the draft has it.
///
/// # Errors
/// It is no key.
pub fn key(request: &Request) -> Result<Option<String>, Refusal> {
    let Some(value) = request.headers().get(KEY) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
    if (1..=KEY_LEN_MAX).contains(&text.len()) && is_plain {
        return Ok(Some(text.to_owned()));
    }
    let text = format!("Idempotency-Key: 1 to {KEY_LEN_MAX} visible characters");
    Err(Refusal::new(StatusCode::BAD_REQUEST, "invalid_idempotency_key", text))
}

/// Runs the request unless it was run before.
pub async fn once(
    orchestrator: Orchestrator,
    principal: &Principal,
    key: String,
    request: Request,
    next: Next,
) -> Response {
    let owner = principal.name.to_string();
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_LEN_MAX).await else {
        let text = format!("at most {BODY_LEN_MAX} bytes, sent to the end");
        return Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", text).into_response();
    };
    let mut hash = Sha256::new();
    hash.update(parts.method.as_str());
    hash.update(parts.uri.path_and_query().map_or("", |path| path.as_str()));
    hash.update(&body);
    let fingerprint = hash.finalize().into();
    let refuse = |status, code, text: &str| Refusal::new(status, code, text).into_response();
    match orchestrator.begin_once(&owner, &key, fingerprint).await {
        Ok(Repeat::First) => {}
        Ok(Repeat::Running) => {
            let text = "the request with this key is still under way";
            return refuse(StatusCode::CONFLICT, "idempotency_running", text);
        }
        Ok(Repeat::Different) => {
            let text = "this key was sent with another request";
            return refuse(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_mismatch", text);
        }
        Ok(Repeat::Done { status, kind, body }) => return again(status, &kind, body),
        Err(error) => return Refusal::from(error).into_response(),
    }
    let request = Request::from_parts(parts, Body::from(body));
    // A task of its own: the answer is kept even when the client has gone.
    let done = tokio::spawn(async move {
        let answer = next.run(request).await;
        keep(&orchestrator, &owner, &key, answer).await
    });
    done.await.unwrap_or_else(|_| {
        refuse(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the request's task panicked")
    })
}

fn again(status: u16, kind: &str, body: Vec<u8>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Body::from(body)).into_response();
    if let Some(kind) = (!kind.is_empty()).then(|| HeaderValue::from_str(kind).ok()).flatten() {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

/// Keeps an answer; one that says `try again` is forgotten, so that trying again has a sense.
async fn keep(orchestrator: &Orchestrator, owner: &str, key: &str, answer: Response) -> Response {
    let status = answer.status();
    let (parts, body) = answer.into_parts();
    let Ok(body) = to_bytes(body, usize::MAX).await else {
        orchestrator.forget_once(owner, key).await;
        let text = "the answer broke off";
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        return Refusal::new(status, "internal", text).into_response();
    };
    let is_final = !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS;
    if is_final && body.len() <= ANSWER_LEN_MAX {
        let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or_default();
        orchestrator.finish_once(owner, key, status.as_u16(), kind, body.to_vec()).await;
    } else {
        orchestrator.forget_once(owner, key).await;
    }
    Response::from_parts(parts, Body::from(body))
}
