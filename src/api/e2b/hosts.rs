//! E2B's host names, on the proxy's listener: `api.DOMAIN` is the control plane, `49983-ID.DOMAIN` the
//! services of a sandbox, `sandbox.DOMAIN` those of whichever the headers name. All other names are
//! the proxy's.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use crate::api::e2b::{ENVD_PORT, PREFIX, SANDBOX_ID, SANDBOX_PORT};
use crate::api::error::Refusal;
use crate::api::operations::pass;

/// Host that requests have once they are for this daemon itself.
const OWN_HOST: HeaderValue = HeaderValue::from_static("localhost");

#[derive(Clone, Debug)]
struct Hosts {
    own: Router,
    others: Router,
    domain: String,
}

/// Serves E2B's names below `domain` by `own`, which has all gates before it, and the rest by `others`.
pub fn by_host(own: Router, others: Router, domain: &str) -> Router {
    let hosts = Hosts { own, others, domain: domain.to_ascii_lowercase() };
    Router::new().fallback(serve).with_state(hosts)
}

/// What a host name means.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    /// The control plane, or whichever sandbox the headers name.
    Own,
    /// The services of this sandbox.
    Sandbox(String),
    Other,
}

fn meaning(host: &str, domain: &str) -> Meaning {
    let host = host.to_ascii_lowercase();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => &host,
    };
    let label = name.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.'));
    match label.map(|label| (label, label.split_once('-'))) {
        Some(("api" | "sandbox", _)) => Meaning::Own,
        Some((_, Some((port, id)))) if port.parse() == Ok(ENVD_PORT) => {
            Meaning::Sandbox(id.to_owned())
        }
        _ => Meaning::Other,
    }
}

fn host_of(headers: &HeaderMap, uri: &Uri) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = uri.authority().map(|authority| authority.as_str());
    host.or(authority).unwrap_or_default().to_owned()
}

async fn serve(State(hosts): State<Hosts>, mut request: Request) -> Response {
    let meaning = meaning(&host_of(request.headers(), request.uri()), &hosts.domain);
    if meaning == Meaning::Other {
        let uri = request.uri().clone();
        return pass(hosts.others, request, uri).await;
    }
    let wanted = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let Ok(uri) = format!("{PREFIX}{wanted}").parse() else {
        let text = "the path is none";
        return Refusal::new(StatusCode::BAD_REQUEST, "invalid_path", text).into_response();
    };
    let headers = request.headers_mut();
    headers.insert(header::HOST, OWN_HOST);
    if let Meaning::Sandbox(id) = meaning
        && let Ok(id) = HeaderValue::from_str(&id)
    {
        headers.insert(SANDBOX_ID, id);
        headers.insert(SANDBOX_PORT, HeaderValue::from(ENVD_PORT));
    }
    pass(hosts.own, request, uri).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_below_the_domain_have_meanings() {
        let sandbox = |id: &str| Meaning::Sandbox(id.to_owned());
        let table = [
            ("api.volant.example", Meaning::Own),
            ("API.volant.example:7780", Meaning::Own),
            ("sandbox.volant.example", Meaning::Own),
            ("49983-sb1.volant.example:7780", sandbox("sb1")),
            ("8000-sb1.volant.example", Meaning::Other),
            ("49983-sb1.evil.example", Meaning::Other),
            ("api.volant.example.evil.example", Meaning::Other),
            ("apivolant.example", Meaning::Other),
            ("volant.example", Meaning::Other),
            ("", Meaning::Other),
        ];
        for (host, expected) in table {
            assert_eq!(meaning(host, "volant.example"), expected, "{host}");
        }
    }
}
