//! `volantd mcp`: MCP on stdin and stdout for agents on this machine, one message a line. Each is
//! sent to the daemon's `/mcp` and what comes back is printed; nothing is understood here but what
//! the HTTP transport wants in its headers, and which request a cancellation ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::{AbortHandle, JoinSet};

use crate::cli::McpArgs;
use crate::ctl::client::{Body, Client, Failure};
use crate::ctl::sse::SseParser;

/// Bytes of one message from the agent, as the daemon takes them.
const MESSAGE_LEN_MAX: u64 = 4 * 1024 * 1024;
/// Bytes of one answer that is not a stream.
const ANSWER_LEN_MAX: usize = 16 * 1024 * 1024;
/// Requests under way at once; a further one waits on stdin.
const REQUESTS_MAX: usize = 64;

const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";

/// What `initialize` has agreed on, for agents of the older protocol.
#[derive(Clone, Debug, Default)]
struct Session {
    id: Option<String>,
    version: Option<String>,
}

struct Bridge {
    client: Client,
    session: Mutex<Session>,
    stdout: AsyncMutex<tokio::io::Stdout>,
    /// Requests under way by their JSON-RPC id.
    running: Mutex<HashMap<String, AbortHandle>>,
}

/// Runs until stdin ends and everything that was asked has been answered.
///
/// # Errors
/// [`Failure`].
pub async fn run(args: &McpArgs) -> Result<u8, Failure> {
    let bridge = Arc::new(Bridge {
        client: Client::new(args.host.as_deref(), args.token_file.as_deref())?,
        session: Mutex::default(),
        stdout: AsyncMutex::new(tokio::io::stdout()),
        running: Mutex::default(),
    });
    let mut stdin = BufReader::new(tokio::io::stdin());
    let mut requests = JoinSet::new();
    loop {
        let mut line = Vec::new();
        let read = (&mut stdin).take(MESSAGE_LEN_MAX).read_until(b'\n', &mut line).await;
        match read.map_err(|error| Failure::local(error.to_string()))? {
            0 => break,
            _ if !line.ends_with(b"\n") && MESSAGE_LEN_MAX <= line.len() as u64 => {
                return Err(Failure::local("a message on stdin is longer than 4 MiB"));
            }
            _ => {}
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let Ok(message) = serde_json::from_slice::<Value>(&line) else {
            bridge.print(&error(&Value::Null, -32700, "this line is no JSON")).await?;
            continue;
        };
        while REQUESTS_MAX <= requests.len() {
            requests.join_next().await;
        }
        while requests.try_join_next().is_some() {}
        bridge.take(message, &mut requests).await?;
    }
    requests.join_all().await;
    bridge.end_session().await;
    Ok(0)
}

fn error(id: &Value, code: i32, text: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": text } })
}

impl Bridge {
    async fn take(
        self: &Arc<Bridge>,
        message: Value,
        requests: &mut JoinSet<()>,
    ) -> Result<(), Failure> {
        let method = message.get("method").and_then(Value::as_str).unwrap_or_default().to_owned();
        if method == "notifications/cancelled" {
            self.cancel(&message["params"]["requestId"]);
            // Without a session the hang-up is the cancellation.
            if self.session().id.is_none() {
                return Ok(());
            }
        }
        // What follows needs what these agree on.
        if method == "initialize" || message.get("id").is_none() {
            return self.relay(&message, &method).await;
        }
        let id = message["id"].to_string();
        let this = Arc::clone(self);
        let own_id = id.clone();
        let request = requests.spawn(async move {
            if let Err(failure) = this.relay(&message, &method).await {
                let text = failure.message;
                // Without stdout there is nobody left to tell.
                let _ = this.print(&error(&message["id"], -32603, &text)).await;
            }
            this.running().remove(&own_id);
        });
        if !request.is_finished() {
            self.running().insert(id, request);
        }
        Ok(())
    }

    fn cancel(&self, id: &Value) {
        if let Some(request) = self.running().remove(&id.to_string()) {
            request.abort();
        }
    }

    fn session(&self) -> Session {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<String, AbortHandle>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn print(&self, message: &Value) -> Result<(), Failure> {
        let mut line = message.to_string();
        line.push('\n');
        let mut stdout = self.stdout.lock().await;
        let written = async {
            stdout.write_all(line.as_bytes()).await?;
            stdout.flush().await
        };
        written.await.map_err(|error| Failure::local(error.to_string()))
    }

    /// Sends a message and prints everything that is answered.
    async fn relay(&self, message: &Value, method: &str) -> Result<(), Failure> {
        let request = self.request(message, method);
        let answer = self.client.send_request(request, body(message.to_string())).await?;
        let kind = answer.headers().get("content-type").and_then(|kind| kind.to_str().ok());
        if method == "initialize" {
            let id = answer.headers().get("mcp-session-id").and_then(|id| id.to_str().ok());
            self.session.lock().unwrap_or_else(PoisonError::into_inner).id = id.map(str::to_owned);
        }
        if kind.is_some_and(|kind| kind.starts_with("text/event-stream")) {
            return self.stream(answer, method).await;
        }
        let status = answer.status();
        let body = http_body_util::Limited::new(answer.into_body(), ANSWER_LEN_MAX).collect().await;
        let body = body.map_err(|error| Failure::local(error.to_string()))?.to_bytes();
        match serde_json::from_slice::<Value>(&body) {
            Ok(answer) if answer.get("jsonrpc").is_some() => self.answered(&answer, method).await,
            _ if status.is_success() => Ok(()),
            Ok(problem) => {
                let detail = problem["detail"].as_str().unwrap_or("the daemon refuses");
                Err(Failure::local(format!("{status}: {detail}")))
            }
            Err(_) => Err(Failure::local(format!("the daemon answered {status}"))),
        }
    }

    async fn stream(&self, answer: Response<Incoming>, method: &str) -> Result<(), Failure> {
        let mut parser = SseParser::default();
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Failure::local(error.to_string()))?;
            for (_, data) in parser.push(frame.data_ref().map_or(&[][..], |bytes| bytes)) {
                if let Ok(message) = serde_json::from_str::<Value>(&data) {
                    self.answered(&message, method).await?;
                }
            }
        }
        Ok(())
    }

    async fn answered(&self, message: &Value, method: &str) -> Result<(), Failure> {
        let version = message["result"]["protocolVersion"].as_str();
        if let (true, Some(version)) = (method == "initialize", version) {
            let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
            session.version = Some(version.to_owned());
        }
        self.print(message).await
    }

    fn request(&self, message: &Value, method: &str) -> hyper::http::request::Builder {
        let mut request = Request::post("/mcp")
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        let own_version = message["params"]["_meta"][VERSION_KEY].as_str();
        if let Some(version) = own_version {
            request = request.header("mcp-protocol-version", version).header("mcp-method", method);
            let name = match method {
                "tools/call" | "prompts/get" => message["params"]["name"].as_str(),
                "resources/read" => message["params"]["uri"].as_str(),
                _ => None,
            };
            if let Some(name) = name {
                request = request.header("mcp-name", header_text(name));
            }
            return request;
        }
        let session = self.session();
        if let Some(version) = session.version {
            request = request.header("mcp-protocol-version", version);
        }
        if let Some(id) = session.id {
            request = request.header("mcp-session-id", id);
        }
        request
    }

    async fn end_session(&self) {
        if let Session { id: Some(id), .. } = self.session() {
            // The daemon ends it by itself after a while.
            let request = Request::delete("/mcp").header("mcp-session-id", id);
            let _ = self.client.send_request(request, body(String::new())).await;
        }
    }
}

fn body(text: String) -> Body {
    Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync()
}

/// A value as a header holds it: other than visible ASCII goes as base64 (MCP 2026-07-28).
fn header_text(text: &str) -> String {
    let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && text.trim() == text;
    if is_plain && !text.starts_with("=?base64?") {
        text.to_owned()
    } else {
        format!("=?base64?{}?=", STANDARD.encode(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values_are_visible_ascii() {
        let table = [
            ("vm_list", "vm_list"),
            ("volant://vms/a", "volant://vms/a"),
            ("Zürich", "=?base64?WsO8cmljaA==?="),
            (" a", "=?base64?IGE=?="),
        ];
        for (text, expected) in table {
            assert_eq!(header_text(text), expected);
        }
    }
}
