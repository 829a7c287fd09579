//! Who may call: whoever reaches the Unix socket, and whoever has the token on TCP.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use crate::api::error::Refusal;

/// Marks a request that came over the Unix socket, whose file mode is its access list.
#[derive(Clone, Copy, Debug)]
pub struct Trusted;

/// What TCP clients must show.
#[derive(Clone, Debug)]
pub struct Auth {
    token: Arc<str>,
}

impl Auth {
    /// The bearer token.
    pub fn new(token: &str) -> Auth {
        Auth { token: token.into() }
    }
}

/// Puts the check before every route of `router`.
pub fn protect(router: Router, auth: Auth) -> Router {
    router.layer(from_fn_with_state(auth, check))
}

async fn check(State(auth): State<Auth>, request: Request, next: Next) -> Response {
    if request.extensions().get::<Trusted>().is_some() {
        return next.run(request).await;
    }
    if let Some(refusal) = foreign(&request) {
        return refusal.into_response();
    }
    let open = matches!(request.uri().path(), "/healthz" | "/readyz");
    let shown = request.headers().get(header::AUTHORIZATION);
    let token = shown.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let known = token.is_some_and(|token| token.as_bytes().ct_eq(auth.token.as_bytes()).into());
    if open || known {
        return next.run(request).await;
    }
    let text = if token.is_some() { "the token is not known" } else { "a bearer token is needed" };
    let mut response = Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", text).into_response();
    let scheme = header::HeaderValue::from_static("Bearer");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    response
}

/// A page of another site must not reach the API through the user's browser: it sends its Origin,
/// or, after DNS rebinding, its own name as Host.
fn foreign(request: &Request) -> Option<Refusal> {
    let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let refuse = |code, text| Some(Refusal::new(StatusCode::FORBIDDEN, code, text));
    let Some(host) = text(header::HOST).or(request.uri().host()) else {
        // RFC 9112, 3.2.
        let text = "a request names its host";
        return Some(Refusal::new(StatusCode::BAD_REQUEST, "missing_host", text));
    };
    let name = host
        .strip_suffix(|c: char| c.is_ascii_digit())
        .map_or(host, |_| host.rsplit_once(':').map_or(host, |(name, _)| name));
    let name = name.trim_start_matches('[').trim_end_matches(']');
    if name != "localhost" && name.parse::<std::net::IpAddr>().is_err() {
        return refuse("foreign_host", "the Host header names neither localhost nor an address");
    }
    match text(header::ORIGIN).and_then(|origin| origin.split_once("://")) {
        Some((_, origin)) if origin != host => refuse("foreign_origin", "a page of another site"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;

    use super::*;

    async fn status(host: &str, token: Option<&str>, origin: Option<&str>, path: &str) -> u16 {
        let routes =
            Router::new().route("/x", get(|| async {})).route("/healthz", get(|| async {}));
        let service = TowerToHyperService::new(protect(routes, Auth::new("secret")));
        let mut request = Request::builder().uri(path).header("host", host);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        service.call(request.body(Body::empty()).unwrap()).await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn only_the_token_opens_tcp() {
        let host = "127.0.0.1:7777";
        assert_eq!(status(host, Some("secret"), None, "/x").await, 200);
        assert_eq!(status(host, Some("wrong"), None, "/x").await, 401);
        assert_eq!(status(host, None, None, "/x").await, 401);
        assert_eq!(status(host, None, None, "/healthz").await, 200);
        assert_eq!(status("", Some("secret"), None, "/x").await, 403);
        assert_eq!(status("[::1]:7777", Some("secret"), None, "/x").await, 200);
        assert_eq!(status("localhost:7777", Some("secret"), None, "/x").await, 200);
        assert_eq!(status("evil.example:7777", Some("secret"), None, "/x").await, 403);
        assert_eq!(status(host, Some("secret"), Some("http://evil.example"), "/x").await, 403);
        assert_eq!(status(host, Some("secret"), Some("http://127.0.0.1:7777"), "/x").await, 200);
    }
}
