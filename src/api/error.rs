//! Errors to problem+json (RFC 9457). The only place that knows HTTP statuses of kinds.

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use crate::model::{InvalidName, Kind};
use crate::orchestrator::{Error, PluginError, Refused};
use crate::wire::{Problem, ProblemField};

/// An answer that is a problem.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    problem: Box<Problem>,
}

impl Refusal {
    /// A problem with this status, stable code and sentence.
    pub fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Refusal {
        Refusal::with_hint(status, code, detail.into(), None)
    }

    /// The problem, for an answer that has begun already.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    fn with_hint(status: StatusCode, code: &str, detail: String, hint: Option<&str>) -> Refusal {
        let title = status.canonical_reason().unwrap_or("Error");
        let problem = Problem::new(status.as_u16(), title, code, detail, hint);
        Refusal { status, problem: Box::new(problem) }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.problem)).into_response();
        let kind = header::HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            let second = header::HeaderValue::from_static("1");
            response.headers_mut().insert(header::RETRY_AFTER, second);
        }
        response
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        let status = match error.kind() {
            Kind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Conflict => StatusCode::CONFLICT,
            Kind::Exhausted => StatusCode::INSUFFICIENT_STORAGE,
            Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Kind::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if error.kind() == Kind::Internal {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(%error, source, "a request failed");
        }
        let mut refusal = Refusal::with_hint(status, error.code(), error.to_string(), error.hint());
        if let Error::Plugin(PluginError::Manifest(invalid)) = error {
            let fields = invalid.refused.into_iter();
            let field = |refused: Refused| ProblemField {
                pointer: refused.pointer,
                detail: refused.reason,
            };
            refusal.problem.errors = fields.map(field).collect();
        }
        refusal
    }
}

impl From<InvalidName> for Refusal {
    fn from(error: InvalidName) -> Refusal {
        Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_name", error.to_string())
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Refusal {
        let code = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => "body_too_large",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported_media_type",
            _ => "invalid_body",
        };
        Refusal::new(rejection.status(), code, rejection.body_text())
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, "invalid_query", rejection.body_text())
    }
}

/// Unknown routes.
pub async fn not_found(uri: Uri) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "route_not_found", format!("there is no {}", uri.path()))
}

/// Known routes, wrong methods; axum adds `Allow`.
pub async fn method_not_allowed(method: Method, uri: Uri) -> Refusal {
    let text = format!("{method} is not for {}", uri.path());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", text)
}
