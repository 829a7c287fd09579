//! Connect, as far as the SDKs use it: calls with one message are JSON there and back; streams are
//! messages behind a byte of flags and four of length, and end with a message of their own.
//! (connectrpc.com/docs/protocol, "Unary-Request" and "Streaming-Request")

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::api::BODY_LEN_MAX;
use crate::api::error::Refusal;

/// Media type of streams.
pub const STREAM_TYPE: &str = "application/connect+json";
/// Bytes before a message of a stream.
const HEAD_LEN: usize = 5;
/// Flag of a message that is compressed.
const COMPRESSED: u8 = 1;
/// Flag of the last message.
const END: u8 = 2;
/// How long a client waits, in milliseconds.
const TIMEOUT: HeaderName = HeaderName::from_static("connect-timeout-ms");
/// How often a client wants a sign of life, in seconds.
const KEEPALIVE: HeaderName = HeaderName::from_static("keepalive-ping-interval");
/// The same where it does not say, and the least and the most of it.
const KEEPALIVE_DEFAULT_S: u64 = 90;
const KEEPALIVE_MIN_S: u64 = 5;
const KEEPALIVE_MAX_S: u64 = 3600;
/// The longest that a call may take.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

fn invalid(text: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "invalid_body", text)
}

/// The message of a call, or the first of a request's stream.
///
/// # Errors
/// It is not JSON, or not of this kind.
pub fn message<T: DeserializeOwned>(headers: &HeaderMap, body: &Bytes) -> Result<T, Refusal> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    match kind {
        "application/json" => parse(body),
        STREAM_TYPE => {
            let mut bytes = BytesMut::from(&body[..]);
            parse(&next(&mut bytes)?.ok_or_else(|| invalid("the message is cut off"))?)
        }
        _ => {
            let text = format!("the JSON forms of Connect are spoken here, not {kind:?}");
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            Err(Refusal::new(status, "unsupported_media_type", text))
        }
    }
}

/// A message as its type.
///
/// # Errors
/// It is not of this kind.
pub fn parse<T: DeserializeOwned>(message: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(message).map_err(|error| invalid(error.to_string()))
}

/// Takes the next message of a stream from what has come; none while it is cut off, and an empty one
/// is the stream's end.
///
/// # Errors
/// It is compressed, or longer than a body may be.
pub fn next(bytes: &mut BytesMut) -> Result<Option<Bytes>, Refusal> {
    if bytes.len() < HEAD_LEN {
        return Ok(None);
    }
    let flags = bytes[0];
    let len = usize::try_from((&bytes[1..HEAD_LEN]).get_u32()).unwrap_or(usize::MAX);
    if flags & COMPRESSED != 0 {
        return Err(invalid("compressed messages are not taken"));
    }
    if BODY_LEN_MAX < len {
        let text = format!("a message has at most {BODY_LEN_MAX} bytes");
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", text));
    }
    if bytes.len() < HEAD_LEN + len {
        return Ok(None);
    }
    bytes.advance(HEAD_LEN);
    let message = bytes.split_to(len).freeze();
    Ok(Some(if flags & END == 0 { message } else { Bytes::new() }))
}

fn framed(flags: u8, message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEAD_LEN + message.len());
    bytes.put_u8(flags);
    bytes.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    bytes.put_slice(message);
    bytes.freeze()
}

/// A message of an answer's stream.
pub fn frame(message: &impl Serialize) -> Bytes {
    framed(0, &serde_json::to_vec(message).unwrap_or_default())
}

/// The end of an answer's stream: well, or with an error's word and sentence.
pub fn end(error: Option<(&str, &str)>) -> Bytes {
    let message = match error {
        None => json!({}),
        Some((code, message)) => json!({ "error": { "code": code, "message": message } }),
    };
    framed(END, message.to_string().as_bytes())
}

/// An answer's stream.
pub fn stream(frames: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    use futures_util::StreamExt;
    let body = Body::from_stream(frames.map(Ok::<_, std::convert::Infallible>));
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static(STREAM_TYPE));
    let unbuffered = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    ([kind, unbuffered], body).into_response()
}

/// How long the client waits for the end of its call, if it says so.
pub fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let ms = headers.get(TIMEOUT)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_millis(ms).min(TIMEOUT_MAX))
}

/// How often a stream shows that it lives.
pub fn keepalive(headers: &HeaderMap) -> Duration {
    let asked = headers.get(KEEPALIVE).and_then(|value| value.to_str().ok()?.parse().ok());
    let seconds: u64 = asked.unwrap_or(KEEPALIVE_DEFAULT_S);
    Duration::from_secs(seconds.clamp(KEEPALIVE_MIN_S, KEEPALIVE_MAX_S))
}

/// Connect's word for a problem.
pub fn word(status: u16, code: &str) -> &'static str {
    match status {
        400 | 415 | 422 => "invalid_argument",
        401 => "unauthenticated",
        403 => "permission_denied",
        404 => "not_found",
        409 if code == "file_exists" => "already_exists",
        409 | 412 => "failed_precondition",
        413 | 429 | 507 => "resource_exhausted",
        501 => "unimplemented",
        502 | 503 => "unavailable",
        504 => "deadline_exceeded",
        _ => "internal",
    }
}

/// The HTTP statuses of words ("Error Codes"); of others it is 500.
const STATUSES: [(&str, StatusCode); 10] = [
    ("invalid_argument", StatusCode::BAD_REQUEST),
    ("failed_precondition", StatusCode::BAD_REQUEST),
    ("unauthenticated", StatusCode::UNAUTHORIZED),
    ("permission_denied", StatusCode::FORBIDDEN),
    ("not_found", StatusCode::NOT_FOUND),
    ("already_exists", StatusCode::CONFLICT),
    ("resource_exhausted", StatusCode::TOO_MANY_REQUESTS),
    ("unimplemented", StatusCode::NOT_IMPLEMENTED),
    ("unavailable", StatusCode::SERVICE_UNAVAILABLE),
    ("deadline_exceeded", StatusCode::GATEWAY_TIMEOUT),
];

/// The HTTP status of a word.
pub fn status(word: &str) -> StatusCode {
    let found = STATUSES.iter().find(|(known, _)| *known == word);
    found.map_or(StatusCode::INTERNAL_SERVER_ERROR, |(_, status)| *status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_where_they_end() {
        let mut bytes = BytesMut::from(&[frame(&json!({ "a": 1 })), end(None)].concat()[..]);
        let mut whole = bytes.clone();
        let mut cut = bytes.split_to(6);
        assert!(matches!(next(&mut cut), Ok(None)));
        assert_eq!(next(&mut whole).unwrap().unwrap(), r#"{"a":1}"#);
        assert!(next(&mut whole).unwrap().unwrap().is_empty());
        assert!(whole.is_empty());
        assert!(next(&mut BytesMut::from(&[1, 0, 0, 0, 0][..])).is_err());
        assert!(next(&mut BytesMut::from(&[0, 255, 255, 255, 255][..])).is_err());
    }

    #[test]
    fn a_message_is_taken_in_both_forms() {
        let mut headers = HeaderMap::new();
        let kind = |text| HeaderValue::from_static(text);
        let plain = Bytes::from_static(b"{\"a\":1}");
        headers.insert(header::CONTENT_TYPE, kind("application/json; charset=utf-8"));
        assert_eq!(message::<serde_json::Value>(&headers, &plain).unwrap(), json!({ "a": 1 }));
        headers.insert(header::CONTENT_TYPE, kind(STREAM_TYPE));
        assert!(message::<serde_json::Value>(&headers, &plain).is_err());
        let framed = frame(&json!({ "a": 1 }));
        assert_eq!(message::<serde_json::Value>(&headers, &framed).unwrap(), json!({ "a": 1 }));
        headers.insert(header::CONTENT_TYPE, kind("application/proto"));
        assert!(message::<serde_json::Value>(&headers, &plain).is_err());
    }

    #[test]
    fn what_a_client_waits_for_is_bounded() {
        let mut headers = HeaderMap::new();
        assert_eq!((timeout(&headers), keepalive(&headers).as_secs()), (None, 90));
        headers.insert(TIMEOUT, HeaderValue::from_static("1500"));
        headers.insert(KEEPALIVE, HeaderValue::from_static("0"));
        assert_eq!(timeout(&headers), Some(Duration::from_millis(1500)));
        assert_eq!(keepalive(&headers).as_secs(), KEEPALIVE_MIN_S);
    }
}
