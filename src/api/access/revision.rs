//! `ETag`, `If-None-Match` and `If-Match` (RFC 9110, 8.8.3 and 13.1): a resource's revision is a hash
//! of what is shown of it.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use crate::api::error::Refusal;
use crate::api::view;
use crate::model::VmName;
use crate::orchestrator::Orchestrator;

/// Bytes of a resource that has a revision.
const LEN_MAX: usize = 1024 * 1024;

fn etag(body: &[u8]) -> String {
    let digest = Sha256::digest(body);
    let digits: String = digest[..12].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\"{digits}\"")
}

/// Whether a header names the revision, or any (`*`). Weak tags are as good as others to a reader, and
/// never the same to a change (RFC 9110, 13.1.1 and 13.1.2).
fn names(request: &Request, header: &HeaderName, etag: &str) -> Option<bool> {
    let mut values = request.headers().get_all(header).iter().peekable();
    values.peek()?;
    let texts = values.filter_map(|value| value.to_str().ok());
    let mut tags = texts.flat_map(|text| text.split(',')).map(str::trim);
    let plain =
        |tag| if header == header::IF_MATCH { tag } else { str::trim_start_matches(tag, "W/") };
    Some(tags.any(|tag| tag == "*" || plain(tag) == etag))
}

/// Whether a change may go on: its `If-Match`, if it has one, names the VM that it is about as it is
/// now. A change that comes between this look and the change itself is not noticed, as it would not
/// be if it came a moment later.
///
/// # Errors
/// 412.
pub fn matches(request: &Request, orchestrator: &Orchestrator) -> Result<(), Refusal> {
    if !request.headers().contains_key(header::IF_MATCH) {
        return Ok(());
    }
    let rest = request.uri().path().strip_prefix("/api/v1/vms/");
    let name = rest.and_then(|rest| rest.split('/').next());
    let vm = name.and_then(|name| orchestrator.get(&VmName::try_from(name).ok()?).ok());
    let shown = vm.and_then(|vm| serde_json::to_vec(&view::vm(&vm)).ok());
    let is_same = shown.and_then(|shown| names(request, &header::IF_MATCH, &etag(&shown)));
    if is_same == Some(true) {
        return Ok(());
    }
    let text = "the VM is not the one that If-Match names, or has none";
    Err(Refusal::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", text))
}

/// What a reader has said that it knows.
#[derive(Debug)]
pub struct Known(Option<Request>);

impl Known {
    /// Of a request, which is still to be run.
    pub fn of(request: &Request) -> Known {
        let mut copy = Request::new(Body::empty());
        *copy.headers_mut() = request.headers().clone();
        Known(request.headers().contains_key(header::IF_NONE_MATCH).then_some(copy))
    }

    /// The answer with its revision, or 304 if that is known.
    pub async fn mark(self, answer: Response) -> Response {
        if answer.status() != StatusCode::OK {
            return answer;
        }
        let (mut parts, body) = answer.into_parts();
        let Ok(body) = to_bytes(body, LEN_MAX).await else {
            let text = "the answer is larger than it may be";
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            return Refusal::new(status, "internal", text).into_response();
        };
        let etag = etag(&body);
        let is_known = self.0.and_then(|request| names(&request, &header::IF_NONE_MATCH, &etag));
        let value = HeaderValue::from_str(&etag).ok();
        if is_known == Some(true) {
            let mut response = StatusCode::NOT_MODIFIED.into_response();
            response.headers_mut().extend(value.map(|value| (header::ETAG, value)));
            return response;
        }
        parts.headers.extend(value.map(|value| (header::ETAG, value)));
        Response::from_parts(parts, Body::from(body))
    }
}
