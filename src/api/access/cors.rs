//! Pages of other sites that the configuration names may call (the fetch standard, 3.3: CORS).

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::api::access::REQUEST_ID;

/// How long a browser may keep the answer to its question.
const MAX_AGE: Duration = Duration::from_secs(3600);
/// Headers of answers that a page may see, beside those that it always may.
const EXPOSED: [HeaderName; 8] = [
    header::ETAG,
    header::LINK,
    header::LOCATION,
    header::RETRY_AFTER,
    header::WWW_AUTHENTICATE,
    REQUEST_ID,
    HeaderName::from_static("x-total-count"),
    HeaderName::from_static("mcp-session-id"),
];

/// Answers the browser's question, and marks answers for those origins. Cookies are not let through:
/// a page shows a token, or nothing.
pub fn layer(origins: &[String]) -> CorsLayer {
    let origins = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    let methods =
        [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods(methods)
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(EXPOSED)
        .max_age(MAX_AGE)
}
