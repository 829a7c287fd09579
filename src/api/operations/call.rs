//! Runs an operation for a skin that is not REST: one object of arguments in, one object out.
//!
//! The call goes through the routes themselves, in this process: checks of scope, audit and the
//! handler are the same whichever way a client came. Dropping the future is the client's hang-up.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Method, Request, StatusCode, Uri, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use hyper::upgrade::OnUpgrade;
use serde_json::{Map, Value, json};
use tower::ServiceExt;

use crate::api::access::{Peer, Principal, RequestId};
use crate::api::operations::schema::{path_parameters, query_properties};
use crate::api::operations::{Answer, Body as Input, Operation};
use crate::wire::Problem;

/// Tells which VM has answered (`proxy/actions.rs`).
const VM_HEADER: &str = "x-volant-vm";
/// Bytes of an answer that are read at all.
const ANSWER_LEN_MAX: usize = 96 * 1024 * 1024;
/// Bytes of text that are returned: the end of a longer one.
const TEXT_LEN_MAX: usize = 256 * 1024;
/// Bytes of one string in a JSON answer: of a longer one, its beginning and end.
const STRING_LEN_MAX: usize = 128 * 1024;
/// Bytes of a whole JSON answer. Clients of MCP give up on messages above 1 MiB.
const DOCUMENT_LEN_MAX: usize = 448 * 1024;

/// On whose behalf.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who.
    pub principal: Principal,
    /// Of the request that the call is a part of.
    pub request_id: RequestId,
}

/// What to run.
#[derive(Debug)]
pub struct Call<'a> {
    /// All routes, with the check of scopes before them.
    pub routes: Router,
    /// Which of them.
    pub operation: &'a Operation,
    /// Its path, query and body parameters in one.
    pub arguments: Map<String, Value>,
    /// On whose behalf.
    pub caller: Caller,
}

fn problem(status: StatusCode, code: &str, detail: String) -> Box<Problem> {
    let title = status.canonical_reason().unwrap_or("Error");
    Box::new(Problem::new(status.as_u16(), title, code, detail, None))
}

/// Runs it.
///
/// # Errors
/// The operation's problem, or one about the arguments.
pub async fn call(call: Call<'_>) -> Result<Map<String, Value>, Box<Problem>> {
    let operation = call.operation;
    let answer = send(call, "application/json").await?;
    match operation.answer {
        Answer::Json(..) | Answer::Long(_) => document(answer).await,
        Answer::Text(_) => text(answer).await,
        Answer::Bytes(_) => bytes(answer).await,
        Answer::Empty(_) | Answer::Events | Answer::Socket | Answer::Guest => {
            Ok(Map::from_iter([("done".to_owned(), json!(true))]))
        }
    }
}

/// Runs it and leaves its answer as server-sent events to the caller.
///
/// # Errors
/// The operation's problem, or one about the arguments.
pub async fn open(call: Call<'_>) -> Result<Response, Box<Problem>> {
    send(call, "text/event-stream").await
}

/// Posts `payload` to a route that leads to a guest; what the guest answers, whatever its status.
///
/// # Errors
/// The daemon's own problem.
pub async fn reach(
    routes: Router,
    path: String,
    payload: Option<&Value>,
    caller: Caller,
) -> Result<Map<String, Value>, Box<Problem>> {
    let body = payload.map_or_else(Body::empty, |payload| Body::from(payload.to_string()));
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        .extension(caller.principal)
        .extension(caller.request_id)
        .body(body)
        .map_err(|error| {
            problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid_arguments", error.to_string())
        })?;
    let answer = match routes.oneshot(request).await {
        Ok(answer) => answer,
        Err(never) => match never {},
    };
    let vm = answer.headers().get(VM_HEADER).and_then(|vm| vm.to_str().ok()).map(str::to_owned);
    let Some(vm) = vm else { return Err(refusal(answer).await) };
    let status = answer.status().as_u16();
    let mut seen = bytes(answer).await?;
    seen.insert("vm".to_owned(), json!(vm));
    seen.insert("status".to_owned(), json!(status));
    Ok(seen)
}

/// Asks a router for another path, with the request as it is. Where it was routed to before is forgotten.
pub async fn pass(routes: Router, request: Request<Body>, uri: Uri) -> Response {
    let (mut parts, body) = request.into_parts();
    let mut known = std::mem::take(&mut parts.extensions);
    parts.uri = uri;
    let mut request = Request::from_parts(parts, body);
    let extensions = request.extensions_mut();
    known.remove::<Peer>().map(|peer| extensions.insert(peer));
    known.remove::<Principal>().map(|principal| extensions.insert(principal));
    known.remove::<RequestId>().map(|id| extensions.insert(id));
    known.remove::<ConnectInfo<SocketAddr>>().map(|address| extensions.insert(address));
    known.remove::<OnUpgrade>().map(|upgrade| extensions.insert(upgrade));
    match routes.oneshot(request).await {
        Ok(answer) => answer,
        Err(never) => match never {},
    }
}

async fn send(call: Call<'_>, accept: &str) -> Result<Response, Box<Problem>> {
    let request = request(&call, accept)?;
    let answer = match call.routes.oneshot(request).await {
        Ok(answer) => answer,
        Err(never) => match never {},
    };
    if answer.status().is_success() { Ok(answer) } else { Err(refusal(answer).await) }
}

fn request(call: &Call<'_>, accept: &str) -> Result<Request<Body>, Box<Problem>> {
    let invalid = |detail| problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid_arguments", detail);
    let mut arguments = call.arguments.clone();
    let mut path = call.operation.path.to_owned();
    for name in path_parameters(call.operation.path) {
        let Some(Value::String(value)) = arguments.remove(name) else {
            return Err(invalid(format!("{name}: a string is needed")));
        };
        if value.is_empty() {
            return Err(invalid(format!("{name}: must not be empty")));
        }
        let value = encoded(&value);
        path = path.replace(&format!("{{{name}}}"), &value);
        path = path.replace(&format!("{{*{name}}}"), &value);
    }
    let mut separator = '?';
    for name in query_properties(call.operation).0.keys() {
        let text = match arguments.remove(name) {
            None | Some(Value::Null) => continue,
            Some(Value::String(text)) => text,
            Some(value @ (Value::Bool(_) | Value::Number(_))) => value.to_string(),
            Some(_) => return Err(invalid(format!("{name}: a single value is needed"))),
        };
        path.push_str(&format!("{separator}{name}={}", encoded(&text)));
        separator = '&';
    }
    let mut request = Request::builder().method(call.operation.method.clone()).uri(path);
    let body = if matches!(call.operation.body, Some(Input::Json(_))) {
        request = request.header(header::CONTENT_TYPE, "application/json");
        Body::from(Value::Object(arguments).to_string())
    } else if matches!(call.operation.body, Some(Input::Bytes)) {
        request = request.header(header::CONTENT_TYPE, "application/octet-stream");
        content(arguments).map(Body::from).map_err(invalid)?
    } else if let Some(name) = arguments.keys().next() {
        return Err(invalid(format!("{name}: there is no such argument")));
    } else {
        Body::empty()
    };
    request
        .header(header::ACCEPT, accept)
        .extension(call.caller.principal.clone())
        .extension(call.caller.request_id.clone())
        .body(body)
        .map_err(|error| invalid(error.to_string()))
}

/// The bytes for a body that is no JSON.
fn content(arguments: Map<String, Value>) -> Result<Vec<u8>, String> {
    let mut bytes = None;
    for (name, value) in arguments {
        let text = value.as_str().ok_or_else(|| format!("{name}: a string is needed"))?;
        let given = match name.as_str() {
            "content" => text.as_bytes().to_vec(),
            "content_base64" => STANDARD.decode(text).map_err(|_| format!("{name}: no base64"))?,
            _ => return Err(format!("{name}: there is no such argument")),
        };
        if bytes.replace(given).is_some() {
            return Err("give either content or content_base64".to_owned());
        }
    }
    Ok(bytes.unwrap_or_default())
}

/// A text as a segment of a path or a value of a query.
pub fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let one = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

async fn refusal(answer: Response) -> Box<Problem> {
    let status = answer.status();
    let bytes = axum::body::to_bytes(answer.into_body(), DOCUMENT_LEN_MAX).await;
    let parsed = bytes.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    parsed.unwrap_or_else(|| problem(status, "internal", "the answer is no problem".to_owned()))
}

async fn document(answer: Response) -> Result<Map<String, Value>, Box<Problem>> {
    let fault = |detail: String| problem(StatusCode::BAD_GATEWAY, "bad_answer", detail);
    let bytes = axum::body::to_bytes(answer.into_body(), ANSWER_LEN_MAX).await;
    let bytes = bytes.map_err(|error| fault(error.to_string()))?;
    let mut value = serde_json::from_slice(&bytes).map_err(|error| fault(error.to_string()))?;
    shorten(&mut value);
    if DOCUMENT_LEN_MAX < value.to_string().len() {
        let text = "the answer is too large; narrow it, for example with `limit`".to_owned();
        return Err(problem(StatusCode::BAD_GATEWAY, "answer_too_large", text));
    }
    Ok(match value {
        Value::Object(object) => object,
        other => Map::from_iter([("items".to_owned(), other)]),
    })
}

/// Cuts the middle out of strings that no model would read anyway, and says so in their place.
fn shorten(value: &mut Value) {
    match value {
        Value::String(text) if STRING_LEN_MAX < text.len() => {
            let is_boundary = |at: &usize| text.is_char_boundary(*at);
            let head = (0..=STRING_LEN_MAX / 2).rev().find(is_boundary).unwrap_or(0);
            let tail = text.len() - STRING_LEN_MAX / 2;
            let tail = (tail..=text.len()).find(is_boundary).unwrap_or(text.len());
            *text =
                format!("{}\n[{} bytes left out]\n{}", &text[..head], tail - head, &text[tail..]);
        }
        Value::Array(items) => items.iter_mut().for_each(shorten),
        Value::Object(object) => object.values_mut().for_each(shorten),
        _ => {}
    }
}

async fn text(answer: Response) -> Result<Map<String, Value>, Box<Problem>> {
    let mut stream = answer.into_body().into_data_stream();
    let (mut end, mut truncated) = (Vec::new(), false);
    while let Some(bytes) = stream.next().await {
        let bytes = bytes
            .map_err(|error| problem(StatusCode::BAD_GATEWAY, "bad_answer", error.to_string()))?;
        end.extend_from_slice(&bytes);
        if 2 * TEXT_LEN_MAX < end.len() {
            end.drain(..end.len() - TEXT_LEN_MAX);
            truncated = true;
        }
    }
    if TEXT_LEN_MAX < end.len() {
        end.drain(..end.len() - TEXT_LEN_MAX);
        truncated = true;
    }
    let text = String::from_utf8_lossy(&end).into_owned();
    Ok(Map::from_iter([
        ("text".to_owned(), json!(text)),
        ("truncated".to_owned(), json!(truncated)),
    ]))
}

/// The beginning of what comes, as text if it is text.
async fn bytes(answer: Response) -> Result<Map<String, Value>, Box<Problem>> {
    let mut stream = answer.into_body().into_data_stream();
    let (mut begin, mut truncated) = (Vec::new(), false);
    while let Some(bytes) = stream.next().await {
        let bytes = bytes
            .map_err(|error| problem(StatusCode::BAD_GATEWAY, "bad_answer", error.to_string()))?;
        let room = TEXT_LEN_MAX - begin.len();
        begin.extend_from_slice(&bytes[..room.min(bytes.len())]);
        if room < bytes.len() {
            truncated = true;
            break;
        }
    }
    // A character that was cut in two is left out with the rest.
    let cut = std::str::from_utf8(&begin).err().filter(|error| error.error_len().is_none());
    if let (true, Some(error)) = (truncated, cut) {
        begin.truncate(error.valid_up_to());
    }
    let (content, encoding) = match String::from_utf8(begin) {
        Ok(text) => (text, "utf-8"),
        Err(error) => (STANDARD.encode(error.as_bytes()), "base64"),
    };
    Ok(Map::from_iter([
        ("content".to_owned(), json!(content)),
        ("encoding".to_owned(), json!(encoding)),
        ("truncated".to_owned(), json!(truncated)),
    ]))
}
