//! Who calls, by E2B's ways to say so: `X-API-Key` is a token of the daemon's; `X-Access-Token` is a
//! sandbox's own, which opens its processes, files and ports and nothing else; a signature opens one
//! file of it.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::Request;
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::api::access::Principal;
use crate::api::e2b::{ACCESS_TOKEN, API_KEY, PREFIX, SANDBOX_ID, find, other_port, sandbox_of};
use crate::model::{Scope, VmName};
use crate::orchestrator::Orchestrator;

/// Paths of the services in a sandbox.
const SERVICES: [&str; 4] =
    ["/e2b/process.Process/", "/e2b/filesystem.Filesystem/", "/e2b/files", "/e2b/health"];

fn text<'a>(headers: &'a HeaderMap, name: &axum::http::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn is_ours(request: &Request) -> bool {
    request.uri().path().strip_prefix(PREFIX).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether a request is to a sandbox itself, rather than about one.
fn is_for_sandbox(request: &Request) -> bool {
    let path = request.uri().path();
    let is_service = SERVICES.iter().any(|service| match service.strip_suffix('/') {
        Some(_) => path.starts_with(service),
        None => path == *service,
    });
    is_ours(request)
        && request.headers().contains_key(SANDBOX_ID)
        && (is_service || other_port(request.headers()).is_some())
}

/// The token in `X-API-Key`.
pub fn api_key(request: &Request) -> Option<&str> {
    text(request.headers(), &API_KEY).filter(|_| is_ours(request))
}

/// Who a sandbox's own token or signature makes of the caller.
pub fn principal(
    orchestrator: &Orchestrator,
    request: &Request,
    address: IpAddr,
) -> Option<Principal> {
    if !is_for_sandbox(request) {
        return None;
    }
    let vm = find(orchestrator, text(request.headers(), &SANDBOX_ID)?)?;
    let token = text(request.headers(), &ACCESS_TOKEN);
    let opens = token.is_some_and(|token| orchestrator.guest_token_opens(&vm.name, token))
        || is_signed(orchestrator, request, &vm.name);
    let name = format!("access token of sandbox {}", vm.name).into();
    opens.then(|| Principal::unlimited(name, Scope::Operate, Some(address)))
}

/// The answer to who has shown nothing that is known, where it is about a sandbox that is not there:
/// a token of one that was killed is not wrong, its sandbox is gone.
pub fn refused(orchestrator: &Orchestrator, request: &Request) -> Option<Response> {
    let wanted = is_for_sandbox(request);
    let gone = wanted.then(|| sandbox_of(orchestrator, request.headers()).err()).flatten();
    gone.map(IntoResponse::into_response)
}

/// Whether a request for a file is signed with the sandbox's token.
fn is_signed(orchestrator: &Orchestrator, request: &Request, name: &VmName) -> bool {
    if request.uri().path() != "/e2b/files" || other_port(request.headers()).is_some() {
        return false;
    }
    let operation = match *request.method() {
        Method::GET | Method::HEAD => "read",
        Method::POST => "write",
        _ => return false,
    };
    let Some(token) = orchestrator.known_guest_token(name) else { return false };
    let query = request.uri().query().unwrap_or_default();
    let word = |wanted: &str| {
        let found = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == wanted);
        found.map(|(_, value)| value.into_owned())
    };
    let Some(shown) = word("signature") else { return false };
    let expires = word("signature_expiration");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if expires.as_ref().is_some_and(|at| at.parse::<u64>().unwrap_or(0) <= now) {
        return false;
    }
    let (path, user) = (word("path").unwrap_or_default(), word("username").unwrap_or_default());
    let expected = signature(&path, operation, &user, &token, expires.as_deref());
    expected.as_bytes().ct_eq(shown.as_bytes()).into()
}

fn signature(
    path: &str,
    operation: &str,
    user: &str,
    token: &str,
    expires: Option<&str>,
) -> String {
    let end = expires.map_or_else(String::new, |at| format!(":{at}"));
    let digest = Sha256::digest(format!("{path}:{operation}:{user}:{token}{end}"));
    format!("v1_{}", STANDARD_NO_PAD.encode(digest))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn a_signature_is_as_the_sdks_make_it() {
        // Of PyPI's e2b 2.63.0: get_signature("/a b", "read", None, "tok").
        let unlimited = signature("/a b", "read", "", "tok", None);
        assert_eq!(unlimited, "v1_dgCJhR1eFbOEacKLrakWIrQZDgxJ2zP38eGtFIbZ9+8");
        let limited = signature("/a", "write", "root", "tok", Some("1700000000"));
        assert_eq!(limited, "v1_CX886sxunh4rOSyiM5MrqXdyJYCO2bKW+wsvDAbsZoU");
    }

    #[test]
    fn a_sandbox_token_is_for_the_sandbox_alone() {
        let table = [
            ("/e2b/process.Process/Start", true, None, true),
            ("/e2b/process.Process/Start", false, None, false),
            ("/e2b/files", true, None, true),
            ("/e2b/filesx", true, None, false),
            ("/e2b/sandboxes/one", true, None, false),
            ("/e2b/sandboxes/one", true, Some("49983"), false),
            ("/e2b/sandboxes/one", true, Some("8000"), true),
            ("/api/v1/vms", true, Some("8000"), false),
            ("/e2bx/files", true, Some("8000"), false),
        ];
        for (path, names, port, expected) in table {
            let mut request = Request::builder().uri(path);
            if names {
                request = request.header(SANDBOX_ID, "one");
            }
            if let Some(port) = port {
                request = request.header("e2b-sandbox-port", port);
            }
            let request = request.body(Body::empty()).unwrap();
            assert_eq!(is_for_sandbox(&request), expected, "{path} {names} {port:?}");
        }
    }
}
