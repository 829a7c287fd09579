//! The proxy's own listener: `{port}-{vm}.{domain}` is a port of a guest, for whoever shows the VM's
//! token or a signed address.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::response::Response;

use crate::model::VmName;
use crate::orchestrator::Orchestrator;
use crate::proxy::forward::{Proxy, Target, forward, problem, timeout};
use crate::proxy::guests::{Guests, Place};
use crate::proxy::headers::Origin;

/// Header with a VM's token; the guest does not see it.
const TOKEN: HeaderName = HeaderName::from_static("volant-token");
/// The same by E2B's name.
const TRAFFIC_TOKEN: HeaderName = HeaderName::from_static("e2b-traffic-access-token");
/// Cookie that a signed address leaves, so that what a page loads is opened too.
const COOKIE: &str = "volant-access";
/// Words of a signed address's query.
const EXPIRES: &str = "volant-expires";
const SIGNATURE: &str = "volant-signature";

#[derive(Clone, Debug)]
struct Hosts {
    proxy: Proxy,
    domain: String,
}

/// Routes everything by its host name below `domain`.
pub fn host_router(orchestrator: Orchestrator, domain: &str) -> Router {
    let guests = Guests::new(&orchestrator);
    let domain = domain.to_ascii_lowercase();
    let state = Hosts { proxy: Proxy { orchestrator, guests }, domain };
    Router::new().fallback(serve).with_state(state)
}

/// Port and VM of a host name below `domain`.
fn parse(host: &str, domain: &str) -> Option<(u16, VmName)> {
    let host = host.to_ascii_lowercase();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => &host,
    };
    let label = name.strip_suffix(domain)?.strip_suffix('.')?;
    let (port, vm) = label.split_once('-')?;
    let canonical = port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
    let port = port.parse().ok().filter(|_| canonical)?;
    Some((port, VmName::try_from(vm).ok()?))
}

/// A signed address's two words.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Signed {
    expires_unix_s: u64,
    signature: String,
}

/// Takes the words of a signed address out of a path and query.
fn take_signed(path_and_query: &str) -> (String, Option<Signed>) {
    let Some((path, query)) = path_and_query.split_once('?') else {
        return (path_and_query.to_owned(), None);
    };
    let (mut expires, mut signature, mut rest) = (None, None, Vec::new());
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some((EXPIRES, value)) => expires = value.parse().ok(),
            Some((SIGNATURE, value)) => signature = Some(value.to_owned()),
            _ => rest.push(pair),
        }
    }
    let rest = if rest.is_empty() { path.to_owned() } else { format!("{path}?{}", rest.join("&")) };
    let signed = expires.zip(signature);
    (rest, signed.map(|(expires_unix_s, signature)| Signed { expires_unix_s, signature }))
}

/// Takes our cookie out of a request's.
fn take_cookie(headers: &mut HeaderMap) -> Option<Signed> {
    let all: Vec<String> = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .map(|cookie| cookie.trim().to_owned())
        .collect();
    let ours = |cookie: &String| cookie.split_once('=').is_some_and(|(name, _)| name == COOKIE);
    let found = all.iter().find(|cookie| ours(cookie)).and_then(|cookie| {
        let (expires, signature) = cookie.split_once('=')?.1.split_once('.')?;
        Some(Signed { expires_unix_s: expires.parse().ok()?, signature: signature.to_owned() })
    });
    let others: Vec<String> = all.into_iter().filter(|cookie| !ours(cookie)).collect();
    headers.remove(header::COOKIE);
    if let Ok(value) = HeaderValue::from_str(&others.join("; "))
        && !others.is_empty()
    {
        headers.insert(header::COOKIE, value);
    }
    found
}

/// A guest's cookies are its own host name's: without this it could set those of its neighbours.
fn keep_cookies_apart(headers: &mut HeaderMap) {
    let apart = |value: &HeaderValue| {
        let parts = value.to_str().ok()?.split(';').filter(|part| {
            let name = part.split('=').next().unwrap_or_default().trim();
            !name.eq_ignore_ascii_case("domain")
        });
        HeaderValue::from_str(&parts.collect::<Vec<_>>().join(";")).ok()
    };
    let cookies: Vec<HeaderValue> =
        headers.get_all(header::SET_COOKIE).iter().filter_map(apart).collect();
    headers.remove(header::SET_COOKIE);
    for cookie in cookies {
        headers.append(header::SET_COOKIE, cookie);
    }
}

fn host_of(headers: &HeaderMap, uri: &Uri) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = uri.authority().map(|authority| authority.as_str());
    host.or(authority).unwrap_or_default().to_owned()
}

async fn serve(State(hosts): State<Hosts>, mut request: Request) -> Response {
    let host = host_of(request.headers(), request.uri());
    let Some((port, name)) = parse(&host, &hosts.domain) else {
        let text = format!("{host:?} is not {{port}}-{{vm}}.{}", hosts.domain);
        return problem(StatusCode::NOT_FOUND, "unknown_host", text, None);
    };
    let wanted = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let (rest, in_query) = take_signed(wanted);
    let headers = request.headers_mut();
    let (token, other) = (headers.remove(TOKEN), headers.remove(TRAFFIC_TOKEN));
    let token = token.or(other);
    let in_cookie = take_cookie(headers);
    let engine = &hosts.proxy.orchestrator;
    let opens = |signed: &Signed| {
        engine.signature_opens(&name, port, signed.expires_unix_s, &signed.signature)
    };
    let signed = in_query.filter(opens);
    let token = token.as_ref().and_then(|token| token.to_str().ok());
    let open = token.is_some_and(|token| engine.token_opens(&name, token))
        || signed.is_some()
        || in_cookie.as_ref().is_some_and(opens);
    if !open {
        // Whether there is such a VM is not told to whoever has no right to it.
        let text = "the VM's token or a signed address is needed".to_owned();
        let hint = Some("`volantd ctl vms access` and `volantd ctl vms url` make them");
        return problem(StatusCode::UNAUTHORIZED, "unauthorized", text, hint);
    }
    let origin = Origin { host, ..Origin::default() };
    let head_timeout = timeout(request.headers_mut());
    let target = Target { place: Place::Port(name, port), path: rest, origin, head_timeout };
    let answer = forward(&hosts.proxy, target, request).await;
    let mut answer = answer.unwrap_or_else(|problem| problem);
    keep_cookies_apart(answer.headers_mut());
    if let Some(Signed { expires_unix_s, signature }) = signed {
        let cookie =
            format!("{COOKIE}={expires_unix_s}.{signature}; Path=/; HttpOnly; SameSite=Lax");
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            answer.headers_mut().append(header::SET_COOKIE, cookie);
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_a_port_and_a_vm() {
        let check = |host: &str| {
            let (port, name) = parse(host, "volant.localhost")?;
            Some((port, name.to_string()))
        };
        assert_eq!(check("8080-one.volant.localhost"), Some((8080, "one".to_owned())));
        assert_eq!(check("80-a-b.Volant.localhost:7780"), Some((80, "a-b".to_owned())));
        for bad in [
            "one.volant.localhost",
            "8080-one.evil.example",
            "8080-onevolant.localhost",
            "08-one.volant.localhost",
            "+8-one.volant.localhost",
            "0-one.volant.localhost",
            "65536-one.volant.localhost",
            "8080-a.b.volant.localhost",
            "8080-.volant.localhost",
            "volant.localhost",
            "",
        ] {
            assert_eq!(check(bad), None, "{bad}");
        }
    }

    #[test]
    fn signed_words_are_taken_out() {
        let signed = Some(Signed { expires_unix_s: 5, signature: "ab".to_owned() });
        let take = |text: &str| take_signed(text);
        let words = "volant-expires=5&volant-signature=ab";
        assert_eq!(take(&format!("/x?{words}")), ("/x".to_owned(), signed.clone()));
        assert_eq!(take(&format!("/x?a=1&{words}&b")), ("/x?a=1&b".to_owned(), signed));
        assert_eq!(take("/x?a=1"), ("/x?a=1".to_owned(), None));
        assert_eq!(take("/x?volant-expires=5").1, None);
        assert_eq!(take("/x"), ("/x".to_owned(), None));
    }

    #[test]
    fn cookies_are_taken_out_and_kept_apart() {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, "a=1; volant-access=5.ab; b=2".parse().unwrap());
        let signed = Signed { expires_unix_s: 5, signature: "ab".to_owned() };
        assert_eq!(take_cookie(&mut headers), Some(signed));
        assert_eq!(headers[header::COOKIE], "a=1; b=2");
        let mut headers = HeaderMap::new();
        headers
            .append(header::SET_COOKIE, "a=1; Domain=.volant.localhost; Path=/".parse().unwrap());
        headers.append(header::SET_COOKIE, "b=2; Secure".parse().unwrap());
        keep_cookies_apart(&mut headers);
        let all: Vec<_> = headers.get_all(header::SET_COOKIE).iter().collect();
        assert_eq!(all, ["a=1; Path=/", "b=2; Secure"]);
    }
}
