//! Heads of HTTP/1.1 messages (RFC 9112), read and written as they lie in a buffer. Pure.

use std::mem::MaybeUninit;

use axum::extract::Request;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::uri::PathAndQuery;
use axum::http::{Method, StatusCode, Uri};
use bytes::{Buf, BufMut, BytesMut};

use crate::model::VmName;
use crate::proxy::guests::HEAD_LEN_MAX;
use crate::proxy::headers;
use crate::proxy::relay::body::{Body, announced};

/// Header fields of a request that goes this way, and of a guest's answer.
const REQUEST_FIELDS_MAX: usize = 64;
const ANSWER_FIELDS_MAX: usize = 128;
/// What every path that leads here begins with.
const PREFIX: &[u8] = b"/api/v1/vms/";
/// Fields that ask for more than this way has: a body, another protocol, an answer of more parts, a deadline,
/// or leave for another site.
const MORE: [&str; 11] = [
    "content-length",
    "content-type",
    "expect",
    "http2-settings",
    "origin",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "volant-timeout-ms",
    "proxy-connection",
];

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub name: VmName,
    pub port: u16,
    /// Bytes of the request's path that the guest does not see.
    pub prefix_len: usize,
    /// Bytes of the request's head.
    pub head_len: usize,
    /// Whether it is the client's last request on this connection.
    pub is_last: bool,
}

/// What lies at the beginning of a client's bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// A plain request.
    Plain(Target),
    /// The beginning of what may become one.
    Part,
    /// Something else.
    Other,
}

/// Reads a request for a port of a guest into `request`, whose extensions stay, if there is nothing more to it
/// than a method without a body, a path and fields that change nothing.
pub fn read_request(received: &[u8], request: &mut Request) -> Found {
    if !may_begin(received) {
        return Found::Other;
    }
    let mut fields = [const { MaybeUninit::uninit() }; REQUEST_FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let len = match parsed.parse_with_uninit_headers(received, &mut fields) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Found::Part,
        Err(_) => return Found::Other,
    };
    let headers = request.headers_mut();
    headers.clear();
    let Some(is_last) = plain_fields(parsed.headers, headers) else { return Found::Other };
    let Some(target) = target(&parsed, len, is_last) else { return Found::Other };
    let (Some(method), Some(path)) = (parsed.method, parsed.path) else { return Found::Other };
    *request.method_mut() = if method == "HEAD" { Method::HEAD } else { Method::GET };
    match PathAndQuery::try_from(path) {
        Ok(whole) if whole.as_str() == path => *request.uri_mut() = Uri::from(whole),
        // None at all, or one with a fragment.
        _ => return Found::Other,
    }
    Found::Plain(target)
}

/// Whether a plain request can begin with these bytes: what cannot does not have to be waited for.
fn may_begin(received: &[u8]) -> bool {
    [&b"GET "[..], b"HEAD "].iter().any(|method| {
        let (beginning, path) = received.split_at(method.len().min(received.len()));
        method.starts_with(beginning) && PREFIX.starts_with(&path[..path.len().min(PREFIX.len())])
    })
}

fn target(parsed: &httparse::Request<'_, '_>, head_len: usize, is_last: bool) -> Option<Target> {
    let path = parsed.path?;
    let whole = path.split('?').next()?;
    let (name, rest) = whole.strip_prefix("/api/v1/vms/")?.split_once('/')?;
    let (port, _) = rest.strip_prefix("proxy/")?.split_once('/')?;
    let prefix_len = "/api/v1/vms//proxy/".len() + name.len() + port.len();
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|port| is_number && *port != 0)?;
    let is_plain = parsed.version == Some(1) && matches!(parsed.method, Some("GET" | "HEAD"));
    let name = VmName::try_from(name).ok().filter(|_| is_plain)?;
    Some(Target { name, port, prefix_len, head_len, is_last })
}

/// Puts a request's fields into `headers`, unless one of them means more; whether the connection ends after it.
fn plain_fields(fields: &[httparse::Header<'_>], headers: &mut HeaderMap) -> Option<bool> {
    let mut is_last = false;
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        let value = HeaderValue::from_bytes(field.value).ok()?;
        let is_second = name == header::HOST && headers.contains_key(header::HOST);
        if is_second || MORE.contains(&name.as_str()) {
            return None;
        }
        if name == header::CONNECTION {
            let is_close = value.as_bytes().eq_ignore_ascii_case(b"close");
            if !is_close && !value.as_bytes().eq_ignore_ascii_case(b"keep-alive") {
                return None;
            }
            is_last = is_last || is_close;
        }
        headers.append(name, value);
    }
    Some(is_last)
}

/// The head of a guest's answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Body,
    pub has_date: bool,
    /// Whether the connection can have another request after the body.
    pub stays: bool,
}

/// Takes the head of an answer to a request of `method`, and makes `out` what of it goes on, without the end and the
/// field `own`, which is not the guest's to set. None: it is not there whole.
///
/// # Errors
/// It is no HTTP, or means more than one thing.
pub fn take_answer(
    received: &mut BytesMut,
    method: &Method,
    own: &HeaderName,
    out: &mut BytesMut,
) -> Result<Option<Answer>, &'static str> {
    if received.is_empty() {
        return Ok(None);
    }
    let mut fields = [const { MaybeUninit::uninit() }; ANSWER_FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let len = match config.parse_response_with_uninit_headers(&mut parsed, received, &mut fields) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err("it has too many header fields"),
        Err(_) => return Err("its answer is no HTTP"),
    };
    // What comes at once may be more than what is waited for.
    if HEAD_LEN_MAX < len {
        return Err("its answer's head is too long");
    }
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or("its answer has no status")?;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err("101 to a request without Upgrade");
    }
    let body = Body::of(method, status, parsed.headers)?;
    let words = values(parsed.headers, &header::CONNECTION);
    let words: Vec<&[u8]> = words.flat_map(|value| value.split(|byte| *byte == b',')).collect();
    let says = |wanted: &str| {
        let is_it = |word: &&[u8]| word.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes());
        words.iter().any(is_it)
    };
    let is_current = parsed.version == Some(1);
    let answer = Answer {
        status,
        body,
        has_date: values(parsed.headers, &header::DATE).next().is_some(),
        stays: is_current && !matches!(body, Body::UntilEnd) && !says("close"),
    };
    if !status.is_informational() {
        out.clear();
        put_status(out, status, parsed.reason.unwrap_or_default());
        for field in parsed.headers.iter() {
            let is_length = field.name.eq_ignore_ascii_case("content-length");
            let is_ours = field.name.eq_ignore_ascii_case(own.as_str());
            let ends = is_ours || headers::ends_here(field.name) || says(field.name);
            if !ends && !is_length {
                put_field(out, field.name, field.value);
            }
        }
        if !matches!(body, Body::Length(_)) {
            put_field(out, header::TRANSFER_ENCODING.as_str(), b"chunked");
        } else if announced(status, parsed.headers)?.is_some()
            && let Some(length) = values(parsed.headers, &header::CONTENT_LENGTH).next()
        {
            put_field(out, header::CONTENT_LENGTH.as_str(), length);
        }
    }
    received.advance(len);
    Ok(Some(answer))
}

/// The values of all fields of a name.
pub fn values<'a>(
    fields: &'a [httparse::Header<'a>],
    name: &'a HeaderName,
) -> impl Iterator<Item = &'a [u8]> {
    let named = fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name.as_str()));
    named.map(|field| field.value)
}

/// Writes the first line of a request.
pub fn put_request(out: &mut BytesMut, method: &Method, path: &str) {
    for part in [method.as_str(), " ", path, " HTTP/1.1\r\n"] {
        out.put_slice(part.as_bytes());
    }
}

/// Writes a status line.
pub fn put_status(out: &mut BytesMut, status: StatusCode, reason: &str) {
    for part in ["HTTP/1.1 ", status.as_str(), " ", reason, "\r\n"] {
        out.put_slice(part.as_bytes());
    }
}

/// Writes header fields, without the empty line after them.
pub fn put_fields(out: &mut BytesMut, headers: &HeaderMap) {
    for (name, value) in headers {
        put_field(out, name.as_str(), value.as_bytes());
    }
}

/// Writes one header field.
pub fn put_field(out: &mut BytesMut, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.put_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body as NoBody;

    use super::*;
    use crate::proxy::relay::body::Chunk;

    const GOOD: &str =
        "GET /api/v1/vms/one/proxy/80/a%20b?x=/1 HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nX-A: 2\r\n\r\n";

    const OWN: HeaderName = HeaderName::from_static("x-request-id");

    fn read(text: &str) -> (Found, Request) {
        let mut request = Request::new(NoBody::empty());
        let found = read_request(text.as_bytes(), &mut request);
        (found, request)
    }

    #[test]
    fn a_plain_request_is_read_once_it_is_whole() {
        for len in 0..GOOD.len() {
            assert_eq!(read(&GOOD[..len]).0, Found::Part, "{len}");
        }
        let (found, request) = read(&format!("{GOOD}GET /next"));
        let Found::Plain(target) = found else { panic!("{found:?}") };
        assert_eq!((target.name.as_str(), target.port), ("one", 80));
        assert_eq!((target.head_len, target.prefix_len), (GOOD.len(), 24));
        assert_eq!(request.uri(), "/api/v1/vms/one/proxy/80/a%20b?x=/1");
        let values: Vec<_> = request.headers().get_all("x-a").iter().collect();
        assert_eq!(values, ["1", "2"]);
    }

    #[test]
    fn what_means_more_goes_the_other_way() {
        let with = |line: &str| format!("{}{line}\r\n\r\n", &GOOD[..GOOD.len() - 2]);
        for field in MORE {
            assert_eq!(read(&with(&format!("{field}: 0"))).0, Found::Other, "{field}");
        }
        for line in [
            "Connection: keep-alive, X-A",
            "Connection: Upgrade",
            "Host: other",
            "Transfer-Encoding : chunked",
            "Content-Length: 1\r\nContent-Length: 2",
            " folded",
            "no field",
            "X-Null: a\0b",
        ] {
            assert_eq!(read(&with(line)).0, Found::Other, "{line}");
        }
        for (line, wanted) in [("Connection: Keep-Alive", false), ("Connection: Close", true)] {
            let found = read(&with(line)).0;
            assert!(matches!(found, Found::Plain(Target { is_last, .. }) if is_last == wanted));
        }
        for (from, to) in [
            ("GET ", "POST "),
            ("GET ", "get "),
            ("GET ", "\r\nGET "),
            ("HTTP/1.1", "HTTP/1.0"),
            ("/80/", "/0/"),
            ("/80/", "/+80/"),
            ("/80/", "/65536/"),
            ("/80/", "/%380/"),
            ("/80/a%20b", "/80"),
            ("/80/a%20b", "/80"),
            ("/one/", "/On/"),
            ("/one/", "/on%65/"),
            ("/proxy/", "/agent/"),
            ("/api/", "http://h/api/"),
            ("/a%20b", "/a#b"),
            ("/a%20b", "/a\u{7f}b"),
        ] {
            assert_eq!(read(&GOOD.replacen(from, to, 1)).0, Found::Other, "{from} {to}");
        }
        let many = "X-Many: 1\r\n".repeat(REQUEST_FIELDS_MAX);
        assert_eq!(read(&with(many.trim_end())).0, Found::Other, "many fields");
    }

    fn answer(method: &Method, text: &str) -> Result<(String, Answer), &'static str> {
        for len in 0..text.len() {
            let mut part = BytesMut::from(&text[..len]);
            let taken = take_answer(&mut part, method, &OWN, &mut BytesMut::new());
            assert!(!matches!(taken, Ok(Some(_))), "{len} bytes of {text:?}");
        }
        let (mut all, mut out) = (BytesMut::from(text), BytesMut::new());
        all.put_slice(b"rest");
        let taken = take_answer(&mut all, method, &OWN, &mut out)?.expect("a whole head");
        assert_eq!(all, "rest");
        Ok((String::from_utf8(out.to_vec()).unwrap(), taken))
    }

    fn body(method: &Method, status_and_fields: &str) -> Result<(Body, bool), &'static str> {
        let text = format!("HTTP/1.1 {status_and_fields}\r\n\r\n");
        answer(method, &text).map(|(_, answer)| (answer.body, answer.stays))
    }

    #[test]
    fn an_answers_body_is_told_in_one_way() {
        let get = |text| body(&Method::GET, text);
        let chunked = Body::Chunked(Chunk::Length);
        assert_eq!(get("200 OK\r\nContent-Length: 5"), Ok((Body::Length(5), true)));
        assert_eq!(
            get("200 OK\r\nContent-Length: 5\r\nContent-Length: 5").unwrap().0,
            Body::Length(5)
        );
        assert_eq!(get("200 OK\r\nTransfer-Encoding: Chunked"), Ok((chunked, true)));
        assert_eq!(
            get("200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5").unwrap().0,
            chunked
        );
        assert_eq!(get("200 OK"), Ok((Body::UntilEnd, false)));
        let closes = "200 OK\r\nConnection: x, Close\r\nContent-Length: 5";
        assert_eq!(get(closes), Ok((Body::Length(5), false)));
        for empty in ["204 No Content", "304 Not Modified\r\nContent-Length: 5", "100 Continue"] {
            assert_eq!(get(empty), Ok((Body::Length(0), true)), "{empty}");
        }
        let head = body(&Method::HEAD, "200 OK\r\nContent-Length: 5");
        assert_eq!(head, Ok((Body::Length(0), true)));
        for bad in [
            "101 Switching Protocols",
            "200 OK\r\nContent-Length: 5\r\nContent-Length: 6",
            "200 OK\r\nContent-Length: +5",
            "200 OK\r\nContent-Length: 5, 5",
            "200 OK\r\nContent-Length: 99999999999999999999",
            "200 OK\r\nTransfer-Encoding: gzip, chunked",
            "200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "99 Low",
            "2000 High",
            "200 OK\r\nno field",
            "200 OK\r\n folded: 1",
        ] {
            assert!(get(bad).is_err(), "{bad}");
        }
        let many = format!("200 OK{}", "\r\nX-Many: 1".repeat(ANSWER_FIELDS_MAX + 1));
        assert!(get(&many).is_err());
    }

    #[test]
    fn what_ends_here_is_not_passed_back() {
        let sent = "HTTP/1.0 200 Fine\r\nB: 1\r\nConnection: x-hop, Keep-Alive\r\nkeep-alive: 5\r\nX-Hop: 1\r\n\
                    X-REQUEST-ID: theirs\r\nDate: now\r\nContent-Length: 2\r\na:2\r\n\r\n";
        let (head, seen) = answer(&Method::GET, sent).unwrap();
        let wanted = "HTTP/1.1 200 Fine\r\nB: 1\r\nDate: now\r\na: 2\r\ncontent-length: 2\r\n";
        assert_eq!((head.as_str(), seen.has_date, seen.stays), (wanted, true, false));
        let both = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (head, seen) = answer(&Method::GET, both).unwrap();
        assert_eq!(head, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n");
        assert!(!seen.has_date && seen.stays);
        let (head, _) = answer(&Method::HEAD, both).unwrap();
        assert_eq!(head, "HTTP/1.1 200 OK\r\n");
        let twice = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n";
        for method in [Method::GET, Method::HEAD] {
            let (head, _) = answer(&method, twice).unwrap();
            assert_eq!(head, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n");
        }
        let none = "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n";
        assert_eq!(answer(&Method::GET, none).unwrap().0, "HTTP/1.1 204 No Content\r\n");
        let apart = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n";
        assert!(answer(&Method::HEAD, apart).is_err());
    }

    #[test]
    fn a_long_head_that_comes_at_once_is_refused() {
        let field = format!("X: {}\r\n\r\n", "x".repeat(HEAD_LEN_MAX));
        let mut all = BytesMut::from(format!("HTTP/1.1 200 OK\r\n{field}").as_str());
        let taken = take_answer(&mut all, &Method::GET, &OWN, &mut BytesMut::new());
        assert_eq!(taken, Err("its answer's head is too long"));
    }

    #[test]
    fn requests_are_written_as_they_are() {
        let mut headers = HeaderMap::new();
        headers.append("b", HeaderValue::from_static("1"));
        headers.append("b", HeaderValue::from_static("2"));
        let mut out = BytesMut::new();
        put_request(&mut out, &Method::GET, "/x");
        put_fields(&mut out, &headers);
        assert_eq!(out, "GET /x HTTP/1.1\r\nb: 1\r\nb: 2\r\n");
    }
}
