//! Bodies of requests: refused by the length they announce, and given up when they stand still.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower_http::timeout::TimeoutBody;

use crate::api::BODY_LEN_MAX;
use crate::api::error::Refusal;

/// How long a body may stand still before its request is given up: a client that announces bytes
/// and never sends them would hold a connection for ever.
const BODY_IDLE_MAX: Duration = Duration::from_secs(30);

/// Before every route that takes a whole body. One without a length is cut off by its extractor.
pub async fn bounded(request: Request, next: Next) -> Response {
    if BODY_LEN_MAX < usize::try_from(request.body().size_hint().lower()).unwrap_or(usize::MAX) {
        let text = format!("at most {BODY_LEN_MAX} bytes");
        return Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", text).into_response();
    }
    next.run(request.map(unless_still)).await
}

/// A body that ends with an error once it stands still for [`BODY_IDLE_MAX`].
pub fn unless_still(body: Body) -> Body {
    Body::new(TimeoutBody::new(BODY_IDLE_MAX, body))
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::middleware::from_fn;
    use axum::routing::post;
    use bytes::Bytes;
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_comes_is_given_up() {
        let routes =
            Router::new().route("/", post(async |body: Bytes| body)).layer(from_fn(bounded));
        let service = TowerToHyperService::new(routes);
        let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let answer = service.call(Request::post("/").body(Body::from_stream(never)).unwrap()).await;
        assert_eq!(answer.unwrap().status(), 400);
        let answer = service.call(Request::post("/").body(Body::from("whole")).unwrap()).await;
        assert_eq!(answer.unwrap().status(), 200);
    }
}
