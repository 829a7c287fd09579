//! Pages of other sites that the configuration names may call (the fetch standard, 3.3: CORS). Whatever
//! comes from elsewhere goes on as it is: guests have OPTIONS and origins of their own.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// What a page may ask with.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
/// Headers of answers that a page may see, beside those that it always may.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "etag, link, location, retry-after, www-authenticate, x-request-id, x-total-count, mcp-session-id",
);
/// Seconds that a browser may keep the answer to its question.
const MAX_AGE_S: HeaderValue = HeaderValue::from_static("3600");

/// Answers a browser's question, and marks answers for those origins. Cookies are not let through: a
/// page shows a token, or nothing.
pub async fn answer(
    State(origins): State<Arc<[HeaderValue]>>,
    request: Request,
    next: Next,
) -> Response {
    let origin = request.headers().get(header::ORIGIN);
    let Some(origin) = origin.filter(|origin| origins.contains(origin)).cloned() else {
        return next.run(request).await;
    };
    let headers = request.headers();
    let is_question = *request.method() == Method::OPTIONS
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if is_question { allowed(headers) } else { next.run(request).await };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    response
}

fn allowed(question: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE_S);
    if let Some(names) = question.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn_with_state;
    use tower::ServiceExt;

    use super::*;

    async fn ask(method: Method, origin: Option<&str>, is_question: bool) -> Response {
        let origins: Arc<[HeaderValue]> = [HeaderValue::from_static("https://ours.example")].into();
        let inner = Router::new().fallback(async || StatusCode::IM_A_TEAPOT);
        let router = inner.layer(from_fn_with_state(origins, answer));
        let mut request = Request::builder().method(method).uri("/x");
        if let Some(origin) = origin {
            request = request.header(header::ORIGIN, origin);
        }
        if is_question {
            request = request.header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST");
        }
        router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn only_questions_of_known_origins_are_answered_here() {
        let ours = Some("https://ours.example");
        let table = [
            (Method::OPTIONS, ours, true, 204, true),
            (Method::OPTIONS, ours, false, 418, true),
            (Method::GET, ours, false, 418, true),
            (Method::OPTIONS, Some("https://evil.example"), true, 418, false),
            (Method::OPTIONS, None, true, 418, false),
            (Method::GET, Some("https://ours.example.evil"), false, 418, false),
        ];
        for (method, origin, is_question, status, is_marked) in table {
            let answer = ask(method.clone(), origin, is_question).await;
            let marked = answer.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN);
            assert_eq!(
                (answer.status().as_u16(), marked),
                (status, is_marked),
                "{method} {origin:?}"
            );
        }
    }
}
