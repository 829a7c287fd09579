//! Heads as the other side should see them. Pure.

use std::collections::HashSet;
use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use axum::http::Uri;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Headers that end at each hop (RFC 9110, 7.6.1). `TE` and `Upgrade` are made anew where they are
/// meant; `Trailer` goes on, since the trailers do.
static HOP_BY_HOP: [HeaderName; 9] = [
    HTTP2_SETTINGS,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
/// What of a client's request the guest gets in another form, or not: `Expect` is answered here, as soon as the guest
/// is connected to, and `Authorization` is ours, since it has opened this proxy.
static MADE_ANEW: [HeaderName; 9] = [
    FORWARDED_FOR,
    FORWARDED_HOST,
    FORWARDED_PREFIX,
    FORWARDED_PROTO,
    TRACEPARENT,
    TRACESTATE,
    header::AUTHORIZATION,
    header::EXPECT,
    header::HOST,
];
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// What is known of a request beside its head.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The client's address; none on a Unix socket.
    pub client: Option<HeaderValue>,
    /// Whether the client came by TLS.
    pub tls: bool,
    /// Part of the path that the guest does not see.
    pub prefix: String,
    /// Host header for the guest.
    pub host: String,
}

/// What is told of a client at `address`.
pub fn client(address: Option<&ConnectInfo<SocketAddr>>) -> Option<HeaderValue> {
    let ConnectInfo(address) = address?;
    HeaderValue::from_str(&address.ip().to_string()).ok()
}

/// Whether the guest is spoken to in HTTP/2: gRPC needs it, everything else gets HTTP/1.1.
pub fn wants_http2(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| {
        kind == "application/grpc"
            || kind.starts_with("application/grpc+")
            || kind.starts_with("application/grpc;")
    })
}

/// Whether a field ends at this hop.
pub fn ends_here(name: &str) -> bool {
    HOP_BY_HOP.iter().any(|hop| hop.as_str().eq_ignore_ascii_case(name))
}

/// The fields that `Connection` names: they end at this hop, too. There may be as many as a head has room for.
fn named(headers: &HeaderMap) -> HashSet<HeaderName> {
    let values = headers.get_all(header::CONNECTION).iter();
    let words = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    words.filter_map(|name| name.trim().parse().ok()).collect()
}

/// Removes what ends at this hop, and what `Connection` names.
pub fn strip(headers: &mut HeaderMap) {
    let mut ending = named(headers);
    // To look at the few that there are costs less than to look for each.
    ending.extend(headers.keys().filter(|name| HOP_BY_HOP.contains(name)).cloned());
    for name in &ending {
        headers.remove(name);
    }
}

/// The protocol that an HTTP/1.1 request asks to change to. HTTP/2 by upgrade is not passed on: it
/// has no use behind a proxy.
pub fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let wanted = headers.get(header::UPGRADE)?;
    let mut connection = headers.get_all(header::CONNECTION).iter();
    let asked = connection.any(|value| {
        let words = value.to_str().unwrap_or_default().split(',');
        words.map(str::trim).any(|word| word.eq_ignore_ascii_case("upgrade"))
    });
    let word = wanted.to_str().ok()?;
    (asked && !word.to_ascii_lowercase().contains("h2c")).then(|| wanted.clone())
}

/// Puts the fields that the guest gets of a request with these `headers`, one after the other. `trace` makes a new trace
/// context's random part.
pub fn for_guest(
    headers: &HeaderMap,
    origin: &Origin,
    http2: bool,
    trace: impl FnOnce() -> [u64; 3],
    mut put: impl FnMut(&HeaderName, &[u8]),
) {
    if !http2 {
        put(&header::HOST, origin.host.as_bytes());
    }
    let named = named(headers);
    for (name, value) in headers {
        if !HOP_BY_HOP.contains(name) && !MADE_ANEW.contains(name) && !named.contains(name) {
            put(name, value.as_bytes());
        }
    }
    let upgrade = upgrade(headers).filter(|_| !http2);
    let has_trailers = takes_trailers(headers);
    if has_trailers {
        put(&header::TE, b"trailers");
    }
    if let Some(upgrade) = &upgrade {
        put(&header::UPGRADE, upgrade.as_bytes());
    }
    match (has_trailers && !http2, upgrade) {
        (true, None) => put(&header::CONNECTION, b"te"),
        (false, Some(_)) => put(&header::CONNECTION, b"upgrade"),
        (true, Some(_)) => put(&header::CONNECTION, b"te, upgrade"),
        (false, None) => {}
    }
    put_forwarded(headers, origin, &mut put);
    put_trace_context(headers, trace, &mut put);
}

/// Whether the client wants to see trailers.
fn takes_trailers(headers: &HeaderMap) -> bool {
    headers.get_all(header::TE).iter().any(|value| {
        let mut words = value.to_str().unwrap_or_default().split(',');
        words.any(|word| word.trim().eq_ignore_ascii_case("trailers"))
    })
}

fn put_forwarded(headers: &HeaderMap, origin: &Origin, put: &mut impl FnMut(&HeaderName, &[u8])) {
    if let Some(host) = headers.get(header::HOST) {
        put(&FORWARDED_HOST, host.as_bytes());
    }
    let scheme: &[u8] = if origin.tls { b"https" } else { b"http" };
    put(&FORWARDED_PROTO, scheme);
    if !origin.prefix.is_empty() {
        put(&FORWARDED_PREFIX, origin.prefix.as_bytes());
    }
    // The last address is the one that is known; those before it are what the client claims.
    let known = origin.client.iter();
    let all = headers.get_all(FORWARDED_FOR).iter().chain(known).map(HeaderValue::as_bytes);
    let all: Vec<&[u8]> = all.collect();
    match all[..] {
        [] => {}
        [one] => put(&FORWARDED_FOR, one),
        _ => put(&FORWARDED_FOR, &all.join(&b", "[..])),
    }
}

/// A trace goes on, or begins here (W3C Trace Context, level 1).
fn put_trace_context(
    headers: &HeaderMap,
    trace: impl FnOnce() -> [u64; 3],
    put: &mut impl FnMut(&HeaderName, &[u8]),
) {
    let mut values = headers.get_all(TRACEPARENT).iter();
    if let (Some(value), None) = (values.next(), values.next())
        && value.to_str().is_ok_and(is_traceparent)
    {
        put(&TRACEPARENT, value.as_bytes());
        for state in headers.get_all(TRACESTATE) {
            put(&TRACESTATE, state.as_bytes());
        }
        return;
    }
    let mut value = *b"00-00000000000000000000000000000000-0000000000000000-00";
    for (number, at) in trace().into_iter().zip([3, 19, 36]) {
        put_hex(&mut value[at..at + 16], number);
    }
    put(&TRACEPARENT, &value);
}

/// What `{:016x}` writes, for a part of its cost: it is done for every request.
fn put_hex(out: &mut [u8], number: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in out.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, parent, flags, ..] = parts[..] else { return false };
    let hex = |part: &str, len: usize| {
        part.len() == len && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let some = |part: &str| part.bytes().any(|byte| byte != b'0');
    hex(version, 2)
        && version != "ff"
        && (version != "00" || parts.len() == 4)
        && hex(trace, 32)
        && some(trace)
        && hex(parent, 16)
        && some(parent)
        && hex(flags, 2)
}

/// The URI that the client towards a guest takes: whom it asks, and the path that the guest sees.
///
/// # Errors
/// The path is none.
pub fn target(authority: &str, path_and_query: &str) -> Result<Uri, axum::http::Error> {
    Uri::builder().scheme("http").authority(authority).path_and_query(path_and_query).build()
}

/// Path and query after the first `skip` segments.
pub fn path_after(uri: &Uri, skip: usize) -> (&str, &str) {
    let wanted = uri.path_and_query().map_or("/", |path| path.as_str());
    let end = wanted.find('?').unwrap_or(wanted.len());
    let cut = wanted[..end].match_indices('/').nth(skip).map_or(end, |(at, _)| at);
    (&wanted[..cut], &wanted[cut..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    fn guest_sees(pairs: &[(&str, &str)], http2: bool) -> HeaderMap {
        let origin = Origin {
            client: Some(HeaderValue::from_static("192.0.2.7")),
            tls: true,
            prefix: "/api/v1/vms/one/proxy/80".to_owned(),
            host: "localhost".to_owned(),
        };
        let mut seen = HeaderMap::new();
        for_guest(
            &map(pairs),
            &origin,
            http2,
            || [0x0123_4567_89ab_cdef; 3],
            |name, value| {
                seen.append(name, HeaderValue::from_bytes(value).unwrap());
            },
        );
        seen
    }

    fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
        headers.get(name).map(|value| value.to_str().unwrap())
    }

    #[test]
    fn what_ends_at_a_hop_ends() {
        let seen = guest_sees(
            &[
                ("host", "daemon:7777"),
                ("connection", "keep-alive, X-Private"),
                ("x-private", "1"),
                ("keep-alive", "timeout=5"),
                ("proxy-authorization", "Basic x"),
                ("proxy-connection", "keep-alive"),
                ("transfer-encoding", "chunked"),
                ("authorization", "Bearer secret"),
                ("expect", "100-continue"),
                ("trailer", "x-sum"),
                ("te", "gzip, trailers"),
                ("accept", "*/*"),
            ],
            false,
        );
        for gone in ["x-private", "keep-alive", "proxy-authorization", "proxy-connection"] {
            assert_eq!(text(&seen, gone), None, "{gone}");
        }
        for gone in ["transfer-encoding", "authorization", "expect"] {
            assert_eq!(text(&seen, gone), None, "{gone}");
        }
        assert_eq!(text(&seen, "host"), Some("localhost"));
        assert_eq!(text(&seen, "x-forwarded-host"), Some("daemon:7777"));
        assert_eq!(text(&seen, "te"), Some("trailers"));
        assert_eq!(text(&seen, "connection"), Some("te"));
        assert_eq!(text(&seen, "trailer"), Some("x-sum"));
        assert_eq!(text(&seen, "accept"), Some("*/*"));
    }

    #[test]
    fn clients_are_named_and_their_claims_come_first() {
        let seen =
            guest_sees(&[("x-forwarded-for", "10.0.0.1"), ("x-forwarded-proto", "https")], false);
        assert_eq!(text(&seen, "x-forwarded-for"), Some("10.0.0.1, 192.0.2.7"));
        assert_eq!(text(&seen, "x-forwarded-proto"), Some("https"));
        assert_eq!(text(&seen, "x-forwarded-prefix"), Some("/api/v1/vms/one/proxy/80"));
    }

    #[test]
    fn traces_go_on_or_begin() {
        let mine = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let seen = guest_sees(&[("traceparent", mine), ("tracestate", "a=1")], false);
        assert_eq!(
            (text(&seen, "traceparent"), text(&seen, "tracestate")),
            (Some(mine), Some("a=1"))
        );
        let new = format!("00-{}-{}-00", "0123456789abcdef".repeat(2), "0123456789abcdef");
        for bad in ["", "00-0-0-0", &mine[1..], &mine.to_uppercase(), &format!("{mine}-x")] {
            let seen = guest_sees(&[("traceparent", bad), ("tracestate", "a=1")], false);
            assert_eq!(text(&seen, "traceparent"), Some(new.as_str()), "{bad}");
            assert_eq!(text(&seen, "tracestate"), None, "{bad}");
        }
    }

    #[test]
    fn upgrades_are_passed_on_but_not_to_http2() {
        let websocket = [("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")];
        let seen = guest_sees(&websocket, false);
        assert_eq!(text(&seen, "connection"), Some("upgrade"));
        assert_eq!(text(&seen, "upgrade"), Some("websocket"));
        assert_eq!(text(&guest_sees(&websocket, true), "upgrade"), None);
        let h2c = [
            ("connection", "Upgrade, HTTP2-Settings"),
            ("upgrade", "h2c"),
            ("http2-settings", "AA"),
        ];
        let seen = guest_sees(&h2c, false);
        assert_eq!((text(&seen, "upgrade"), text(&seen, "http2-settings")), (None, None));
        assert_eq!(text(&guest_sees(&[("upgrade", "websocket")], false), "upgrade"), None);
    }

    #[test]
    fn what_is_told_here_cannot_be_unnamed() {
        let seen = guest_sees(
            &[
                ("host", "daemon:7777"),
                ("connection", "te, upgrade, host, x-forwarded-for, x-forwarded-host"),
                ("te", "trailers"),
                ("upgrade", "websocket"),
                ("x-forwarded-host", "claimed"),
            ],
            false,
        );
        assert_eq!(text(&seen, "connection"), Some("te, upgrade"));
        assert_eq!(text(&seen, "host"), Some("localhost"));
        assert_eq!(text(&seen, "x-forwarded-for"), Some("192.0.2.7"));
        assert_eq!(text(&seen, "x-forwarded-host"), Some("daemon:7777"));
        assert_eq!(seen.get_all("x-forwarded-host").iter().count(), 1);
        assert_eq!(
            text(&guest_sees(&[("x-forwarded-host", "a")], false), "x-forwarded-host"),
            None
        );
    }

    #[test]
    fn grpc_alone_is_http2() {
        let check = |kind: &str| wants_http2(&map(&[("content-type", kind)]));
        assert!(check("application/grpc") && check("application/grpc+proto"));
        assert!(!check("application/grpc-web") && !check("application/json"));
        assert!(!wants_http2(&HeaderMap::new()));
    }

    #[test]
    fn paths_are_cut() {
        let cut = |uri: &'static str, skip| {
            let uri = Uri::from_static(uri);
            let (prefix, rest) = path_after(&uri, skip);
            (prefix.to_owned(), rest.to_owned())
        };
        let pair = |prefix: &str, rest: &str| (prefix.to_owned(), rest.to_owned());
        assert_eq!(cut("/a/b/c/d?x=/1", 2), pair("/a/b", "/c/d?x=/1"));
        assert_eq!(cut("/a/b", 2), pair("/a/b", ""));
        assert_eq!(cut("/a/b?x=/y/z", 2), pair("/a/b", "?x=/y/z"));
        assert_eq!(cut("/a/b/?x", 2), pair("/a/b", "/?x"));
        assert_eq!(cut("/a/b//c", 2), pair("/a/b", "//c"));
    }
}
