//! Who may call. Two gates: `authenticate`, before everything that comes from outside, says who it
//! is; `authorize`, before every route, says whether they may, and writes changes into the audit
//! log. Calls of other skins pass the second gate as REST does.
//!
//! ```text
//!  client ─▶ authenticate: id, Host, Origin, network, token, rate ─▶ /mcp, agui ─┐
//!                                             │                                  ▼ call
//!                                             └──────────────▶ authorize: scope, audit ─▶ handler
//! ```

mod authorize;
mod cors;
mod idempotency;
mod lease;
pub mod limits;
mod network;
mod rate;
mod revision;
mod socket;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use crate::api::e2b;
use crate::api::error::Refusal;
use crate::api::operations::{self, Access};
use crate::model::{Scope, VmName};
use crate::orchestrator::Orchestrator;

pub use authorize::authorize;
pub use lease::{Lease, Leased};
use network::client_address;
pub use network::{InvalidNetwork, NetworkList};
use rate::RateLimit;

/// Name of the header with a request's id, in both directions.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The operation that requests to guests' ports are.
const TO_PORT: &str = "proxyToPort";
/// Bytes of a client's own request id.
const REQUEST_ID_LEN_MAX: usize = 64;

/// The other end of a connection; put into every request by the server.
#[derive(Clone, Copy, Debug)]
pub enum Peer {
    /// Over the Unix socket, whose file mode is its access list; the user id that the kernel tells.
    Unix(Option<u32>),
    /// Over TCP.
    Tcp(SocketAddr),
}

/// Who calls, once known.
#[derive(Clone, Debug)]
pub struct Principal {
    /// For logs: `root token`, `uid 0`, `token ci`.
    pub name: Arc<str>,
    /// What they may do.
    pub scope: Scope,
    /// Labels of the VMs that they are limited to; none means no limit.
    pub labels: BTreeMap<String, String>,
    /// Whence, as far as proxies that are trusted tell it; none is the Unix socket.
    pub address: Option<IpAddr>,
}

impl Principal {
    /// Someone whom no labels limit.
    pub fn unlimited(name: Arc<str>, scope: Scope, address: Option<IpAddr>) -> Principal {
        Principal { name, scope, labels: BTreeMap::new(), address }
    }
}

/// A request's id: the client's, or a new one.
#[derive(Clone, Debug)]
pub struct RequestId(pub Arc<str>);

/// From where TCP clients may come, and how much they may ask.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Networks that may connect; none named means all.
    pub allow: NetworkList,
    /// Networks of proxies whose X-Forwarded-For is believed.
    pub trusted_proxies: NetworkList,
    /// Names of this host beside localhost and addresses.
    pub hosts: Vec<String>,
    /// Origins of other sites whose pages may call.
    pub origins: Vec<String>,
    /// Requests each token has per second, 0 for no limit.
    pub requests_per_second: u32,
}

/// What TCP clients must show.
#[derive(Clone, Debug)]
pub struct Auth {
    root_token: Arc<str>,
    root_name: Arc<str>,
    /// What the way to a guest's port needs.
    to_port: Option<Scope>,
    rules: Arc<Rules>,
    rate: Arc<RateLimit>,
    orchestrator: Orchestrator,
}

impl Auth {
    /// The token of the daemon's token file opens everything.
    pub fn new(orchestrator: Orchestrator, root_token: &str, rules: Rules) -> Auth {
        let to_port = operations::named(TO_PORT).and_then(|operation| match operation.access {
            Access::Scope(needed) => Some(needed),
            Access::Open => None,
        });
        Auth {
            to_port,
            root_token: root_token.into(),
            root_name: "root token".into(),
            rate: Arc::new(RateLimit::new(rules.requests_per_second)),
            rules: Arc::new(rules),
            orchestrator,
        }
    }

    /// Lets a request to a guest's port pass both gates, if there is no doubt: of somebody whom no labels limit, and
    /// not of a page of another site. Gives the header with its id. What is not let pass here is
    /// decided about on the routes.
    pub fn open_port(&self, request: &mut Request) -> Option<(HeaderName, HeaderValue)> {
        let id = HeaderValue::from_str(&request_id(request).0).ok()?;
        let principal = admit(self, request).ok()??;
        let is_allowed = self.to_port.is_some_and(|needed| needed <= principal.scope);
        (principal.labels.is_empty() && is_allowed).then_some((REQUEST_ID, id))
    }

    /// Whose token it is. The connection of `request` ends with it, unless it is the root token.
    fn principal(&self, token: &str, request: &Request, address: IpAddr) -> Option<Principal> {
        if token.as_bytes().ct_eq(self.root_token.as_bytes()).into() {
            let name = Arc::clone(&self.root_name);
            return Some(Principal::unlimited(name, Scope::Admin, Some(address)));
        }
        let (token, over) = self.orchestrator.authenticate(token)?;
        if let Some(lease) = request.extensions().get::<Lease>() {
            lease.until(token.id, over);
        }
        let name = format!("token {}", token.name).into();
        Some(Principal { name, scope: token.scope, labels: token.labels, address: Some(address) })
    }

    /// A VM's own token is somebody on the way to that VM's ports, and nobody elsewhere.
    fn guest_principal(
        &self,
        token: &str,
        request: &Request,
        address: IpAddr,
    ) -> Option<Principal> {
        let route = request.extensions().get::<MatchedPath>()?.as_str();
        let vm = proxied(route, request.uri().path())?;
        let name = format!("access token of VM {vm}").into();
        let opens = self.orchestrator.token_opens(&vm, token);
        opens.then(|| Principal::unlimited(name, Scope::Operate, Some(address)))
    }
}

/// Puts the first gate before every route of `router`. Browsers ask without a token whether a page of
/// another site may call, so that is answered before it.
pub fn protect(router: Router, auth: Auth) -> Router {
    let origins = auth.rules.origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    let origins: Arc<[HeaderValue]> = origins.collect();
    let router = router.layer(from_fn_with_state(auth, authenticate));
    if origins.is_empty() {
        router
    } else {
        router.layer(from_fn_with_state(origins, cors::answer))
    }
}

async fn authenticate(State(auth): State<Auth>, mut request: Request, next: Next) -> Response {
    let request_id = request_id(&request);
    request.extensions_mut().insert(request_id.clone());
    let path = request.uri().path().to_owned();
    let response = match admit(&auth, &mut request) {
        Ok(principal) => {
            principal.map(|principal| request.extensions_mut().insert(principal));
            next.run(request).await
        }
        Err(refusal) => refusal,
    };
    let mut response = e2b::reshape(&path, response).await;
    if let Ok(value) = HeaderValue::from_str(&request_id.0) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// Lets the request pass, as its principal's if it has one, or says why not.
#[expect(clippy::result_large_err, reason = "the answer to the client, made once a request")]
fn admit(auth: &Auth, request: &mut Request) -> Result<Option<Principal>, Response> {
    // Whoever asks, and by whichever way: it goes no further.
    let in_protocols = socket::take_token(request.headers_mut());
    let address = match request.extensions().get::<Peer>() {
        Some(Peer::Unix(uid)) => {
            let name = uid.map_or_else(|| "uid unknown".to_owned(), |uid| format!("uid {uid}"));
            return Ok(Some(Principal::unlimited(name.into(), Scope::Admin, None)));
        }
        Some(Peer::Tcp(address)) => *address,
        None => {
            let text = "the connection's other end is not known";
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            return Err(Refusal::new(status, "internal", text).into_response());
        }
    };
    let rules = &auth.rules;
    if let Some(refusal) = foreign(request, rules) {
        return Err(refusal.into_response());
    }
    let client = client_address(address.ip(), &rules.trusted_proxies, request.headers());
    if !rules.allow.is_empty() && !rules.allow.contains(client) {
        let text = "this address is in none of the allowed networks";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "foreign_network", text).into_response());
    }
    let shown = request.headers().get(header::AUTHORIZATION);
    let bearer = shown.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let token = bearer.or(in_protocols.as_deref()).or_else(|| e2b::api_key(request));
    let principal = token.and_then(|token| {
        let principal = auth.principal(token, request, client);
        principal.or_else(|| auth.guest_principal(token, request, client))
    });
    let principal = principal.or_else(|| e2b::principal(&auth.orchestrator, request, client));
    let Some(principal) = principal else {
        if let Some(gone) = e2b::refused(&auth.orchestrator, request) {
            return Err(gone);
        }
        return if token.is_none() && is_open(request) {
            Ok(None)
        } else {
            Err(unauthorized(token.is_some()))
        };
    };
    if let Err(after_seconds) = auth.rate.admit(&principal.name) {
        let text = "this token has asked too often";
        let status = StatusCode::TOO_MANY_REQUESTS;
        let mut response = Refusal::new(status, "rate_limited", text).into_response();
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after_seconds));
        return Err(response);
    }
    Ok(Some(principal))
}

fn unauthorized(was_shown: bool) -> Response {
    let text = if was_shown { "the token is not known" } else { "a bearer token is needed" };
    let mut response = Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", text).into_response();
    let scheme = HeaderValue::from_static("Bearer");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    response
}

/// The VM whose ports a route leads to. A name that is written in another way is not known here.
fn proxied(route: &str, path: &str) -> Option<VmName> {
    route.strip_prefix("/api/v1/vms/{name}/proxy/{port}")?;
    let name = path.strip_prefix("/api/v1/vms/")?.split('/').next()?;
    VmName::try_from(name).ok()
}

/// Routes that need no token. OAuth clients look for an authorization server below `/.well-known`:
/// they shall find that there is none.
fn is_open(request: &Request) -> bool {
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let operation = path.and_then(|path| operations::find(request.method(), path));
    operation.is_some_and(|operation| operation.access == Access::Open)
        || path.is_none() && request.uri().path().starts_with("/.well-known/")
}

fn request_id(request: &Request) -> RequestId {
    let own = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let own = own.filter(|id| (1..=REQUEST_ID_LEN_MAX).contains(&id.len()));
    if let Some(own) = own.filter(|id| id.bytes().all(plain)) {
        return RequestId(own.into());
    }
    // Random enough for a name, and without a system call for each request.
    RequestId(format!("{:016x}", RandomState::new().hash_one(())).into())
}

/// A page of another site must not reach the API through the user's browser: it sends its Origin,
/// or, after DNS rebinding, its own name as Host.
fn foreign(request: &Request, rules: &Rules) -> Option<Refusal> {
    let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let refuse = |code, text| Some(Refusal::new(StatusCode::FORBIDDEN, code, text));
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let Some(host) = text(header::HOST).or(authority) else {
        // RFC 9112, 3.2.
        let text = "a request names its host";
        return Some(Refusal::new(StatusCode::BAD_REQUEST, "missing_host", text));
    };
    let name = host
        .strip_suffix(|c: char| c.is_ascii_digit())
        .map_or(host, |_| host.rsplit_once(':').map_or(host, |(name, _)| name));
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let is_ours = |own: &String| own.eq_ignore_ascii_case(name);
    let is_address = name.parse::<std::net::IpAddr>().is_ok();
    if name != "localhost" && !is_address && !rules.hosts.iter().any(is_ours) {
        let text = "the Host header names neither localhost, nor an address, nor one of http.hosts";
        return refuse("foreign_host", text);
    }
    // An Origin that cannot be read, or `null`, is foreign as well.
    let origin = request.headers().get(header::ORIGIN)?.to_str().ok();
    if origin.is_some_and(|origin| rules.origins.iter().any(|known| known == origin)) {
        return None;
    }
    match origin.and_then(|origin| origin.split_once("://")) {
        Some((_, origin)) if origin == host => None,
        _ => refuse("foreign_origin", "a page of another site"),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn tokens_of_vms_lead_to_their_ports() {
        let port = "/api/v1/vms/{name}/proxy/{port}/{*path}";
        let name = |route: &str, path: &str| Some(proxied(route, path)?.to_string());
        assert_eq!(name(port, "/api/v1/vms/one/proxy/80/x"), Some("one".to_owned()));
        assert_eq!(name(port, "/api/v1/vms/on%65/proxy/80/x"), None);
        assert_eq!(name("/api/v1/vms/{name}/exec", "/api/v1/vms/one/exec"), None);
        assert_eq!(name("/api/v1/vms/{name}/agent/{*path}", "/api/v1/vms/one/agent/x"), None);
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let rules = Rules {
            hosts: vec!["box.example".to_owned()],
            origins: vec!["https://console.example".to_owned()],
            ..Rules::default()
        };
        let table = [
            (Some("Box.example:7777"), None, 200),
            (Some("box.example"), Some("http://box.example"), 200),
            (Some("box.example"), Some("https://console.example"), 200),
            (Some("box.example"), Some("http://console.example"), 403),
            (Some("box.example"), Some("https://console.example.evil"), 403),
            (Some("console.example"), Some("https://console.example"), 403),
            (Some("127.0.0.1:7777"), None, 200),
            (Some("[::1]:7777"), None, 200),
            (Some("localhost:7777"), None, 200),
            (Some("127.0.0.1:7777"), Some("http://127.0.0.1:7777"), 200),
            (Some("127.0.0.1:7777"), Some("http://127.0.0.1:7778"), 403),
            (Some("127.0.0.1:7777"), Some("http://evil.example"), 403),
            (Some("127.0.0.1:7777"), Some("null"), 403),
            (Some("evil.example:7777"), None, 403),
            (Some(""), None, 403),
            (None, None, 400),
        ];
        for (host, origin, status) in table {
            let mut request = Request::builder().uri("/x");
            for (name, value) in [(header::HOST, host), (header::ORIGIN, origin)] {
                if let Some(value) = value {
                    request = request.header(name, value);
                }
            }
            let refusal = foreign(&request.body(Body::empty()).unwrap(), &rules);
            let seen = refusal.map_or(200, |refusal| refusal.into_response().status().as_u16());
            assert_eq!(seen, status, "{host:?} {origin:?}");
        }
    }
}
