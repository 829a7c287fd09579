//! Refusals in E2B's form: problems of the gates and handlers become `{code, message}` with E2B's
//! statuses, and Connect's errors where the request was one of its calls.

use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::json;

use crate::api::e2b::connect;
use crate::wire::Problem;
use crate::wire::e2b::E2bError;

/// Bytes of a problem.
const PROBLEM_LEN_MAX: usize = 64 * 1024;
/// Calls that are answered by a stream, whose errors are its last message.
const STREAMS: [&str; 4] = [
    "/e2b/process.Process/Start",
    "/e2b/process.Process/Connect",
    "/e2b/process.Process/StreamInput",
    "/e2b/filesystem.Filesystem/WatchDir",
];
const CALLS: [&str; 2] = ["/e2b/process.Process/", "/e2b/filesystem.Filesystem/"];

/// The answer to a request for `path`, its problem, if it is one, in the form that its client knows.
pub async fn reshape(path: &str, answer: Response) -> Response {
    let kind = answer.headers().get(header::CONTENT_TYPE);
    let is_problem = kind.is_some_and(|kind| kind == "application/problem+json");
    if !path.starts_with("/e2b/") || !is_problem {
        return answer;
    }
    let (mut parts, body) = answer.into_parts();
    let body = to_bytes(body, PROBLEM_LEN_MAX).await.unwrap_or_default();
    let Ok(problem) = serde_json::from_slice::<Problem>(&body) else {
        return Response::from_parts(parts, Body::from(body));
    };
    let message = match &problem.hint {
        Some(hint) => format!("{}; {hint}", problem.detail),
        None => problem.detail.clone(),
    };
    let is_call = CALLS.iter().any(|calls| path.starts_with(calls));
    // The gates' own words are for HTTP: a client that may not call gets no stream.
    let is_gate = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::TOO_MANY_REQUESTS]
        .contains(&parts.status);
    let (kind, body) = if is_call && STREAMS.contains(&path) && !is_gate {
        parts.status = StatusCode::OK;
        let word = connect::word(problem.status, &problem.code);
        (connect::STREAM_TYPE, connect::end(Some((word, &message))))
    } else if is_call {
        let word = connect::word(problem.status, &problem.code);
        parts.status = connect::status(word);
        let error = json!({ "code": word, "message": message, "error_code": problem.code });
        ("application/json", error.to_string().into())
    } else {
        if parts.status == StatusCode::UNPROCESSABLE_ENTITY {
            parts.status = StatusCode::BAD_REQUEST;
        }
        let error =
            E2bError { code: parts.status.as_u16(), message, error_code: problem.code.clone() };
        ("application/json", serde_json::to_vec(&error).unwrap_or_default().into())
    };
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(body))
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;
    use crate::api::error::Refusal;

    async fn shaped(path: &str, status: StatusCode, code: &str) -> (u16, Vec<u8>) {
        let answer = reshape(path, Refusal::new(status, code, "why").into_response()).await;
        let status = answer.status().as_u16();
        (status, to_bytes(answer.into_body(), 1000).await.unwrap().to_vec())
    }

    #[tokio::test]
    async fn a_refusal_has_the_form_of_what_was_asked() {
        let (status, body) = shaped("/e2b/sandboxes/x", StatusCode::NOT_FOUND, "a_b").await;
        assert_eq!(status, 404);
        assert_eq!(body, br#"{"code":404,"message":"why","error_code":"a_b"}"#);
        let invalid = StatusCode::UNPROCESSABLE_ENTITY;
        assert_eq!(shaped("/e2b/files", invalid, "invalid_path").await.0, 400);
        let stat = "/e2b/filesystem.Filesystem/Stat";
        let (status, body) = shaped(stat, StatusCode::NOT_FOUND, "file_not_found").await;
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((status, &body["code"]), (404, &json!("not_found")));
        let start = "/e2b/process.Process/Start";
        let (status, body) = shaped(start, StatusCode::BAD_GATEWAY, "sandbox_not_found").await;
        assert_eq!((status, body[0]), (200, 2));
        let error: serde_json::Value = serde_json::from_slice(&body[5..]).unwrap();
        assert_eq!(error["error"]["code"], "unavailable");
        assert_eq!(shaped(start, StatusCode::UNAUTHORIZED, "unauthorized").await.0, 401);
        let (_, body) = shaped("/api/v1/vms/x", StatusCode::NOT_FOUND, "a_b").await;
        assert!(String::from_utf8(body).unwrap().contains("urn:volant"));
    }
}
