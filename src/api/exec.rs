//! `/api/v1/vms/{name}/exec`: buffered JSON, server-sent events as they come, or a WebSocket.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tokio_util::task::AbortOnDropHandle;

use crate::api::channel::{self, Channels};
use crate::api::error::Refusal;
use crate::api::processes::argv;
use crate::model::VmName;
use crate::orchestrator::{
    Attachment, Deadline, InputSender, Orchestrator, ProcessInput, ProcessOutput, ProcessRequest,
    ProcessStatus, TerminalSize,
};
use crate::wire::{ChunkView, ExecBody, ExecView, ExitView, GapView};

/// Bytes of output that a buffered answer holds, both streams together.
const OUTPUT_LEN_MAX: usize = 64 * 1024 * 1024;

const PROCESS_ID: HeaderName = HeaderName::from_static("volant-process-id");

/// `POST /api/v1/vms/{name}/exec`.
///
/// # Errors
/// A problem; a process that fails is none.
pub async fn exec(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Result<Json<ExecBody>, JsonRejection>,
) -> Result<Response, Refusal> {
    let name = VmName::try_from(name.as_str())?;
    let Json(body) = body?;
    let (request, stdin) = request(body)?;
    let process = orchestrator.exec(&name, &request).await?;
    let feeder =
        stdin.map(|bytes| AbortOnDropHandle::new(tokio::spawn(feed(process.input(), bytes))));
    if wants_events(&headers) {
        return Ok(streamed(process, feeder).into_response());
    }
    let answer = buffered(process).await;
    drop(feeder);
    answer.map(|view| Json(view).into_response())
}

/// Whether the client asks for server-sent events.
pub fn wants_events(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/event-stream"))
}

/// Query of the WebSocket: `command` for each argument, `env` (`KEY=VALUE`) for each variable.
#[derive(Debug)]
struct Remote {
    request: ProcessRequest,
    channels: Channels,
}

/// `GET /api/v1/vms/{name}/exec` with a WebSocket upgrade. The answer's `volant-process-id` names
/// the process, for `.../processes/{id}/keep`.
///
/// # Errors
/// A problem, before the upgrade.
pub async fn remote(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let name = VmName::try_from(name.as_str())?;
    let upgrade = upgrade.map_err(|_| {
        let text = "GET needs a WebSocket; POST runs a command and answers with its output";
        Refusal::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", text)
    })?;
    let Remote { request, channels } = remote_request(&query.unwrap_or_default())?;
    let attachment = orchestrator.exec(&name, &request).await?;
    let id = attachment.info().map(|info| info.id);
    let mut answer = channel::upgrade(upgrade, attachment, channels);
    if let Some(id) = id {
        answer.headers_mut().insert(PROCESS_ID, id.into());
    }
    Ok(answer)
}

fn remote_request(query: &str) -> Result<Remote, Refusal> {
    let bad = |text: String| Refusal::new(StatusCode::BAD_REQUEST, "invalid_query", text);
    let mut request = ProcessRequest::default();
    let mut channels = Channels { stdin: false, stdout: true, stderr: true };
    let (mut tty, mut size) = (false, TerminalSize { cols: 80, rows: 24 });
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        let value = value.into_owned();
        let flag = || match value.as_str() {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(bad(format!("{key} is true or false"))),
        };
        let number = || value.parse::<u64>().map_err(|_| bad(format!("{key} is a number")));
        let short = || value.parse::<u16>().map_err(|_| bad(format!("{key} is a number")));
        match key.as_ref() {
            "command" => request.argv.push(value),
            "env" => {
                let pair = value.split_once('=').ok_or_else(|| bad("env is KEY=VALUE".to_owned()));
                let (key, value) = pair?;
                request.env.insert(key.to_owned(), value.to_owned());
            }
            "stdin" => channels.stdin = flag()?,
            "stdout" => channels.stdout = flag()?,
            "stderr" => channels.stderr = flag()?,
            "tty" => tty = flag()?,
            "cols" => size.cols = short()?,
            "rows" => size.rows = short()?,
            "cwd" => request.cwd = Some(value),
            "user" => request.user = Some(value),
            "tag" => request.tag = Some(value),
            "keep" => request.keep = flag()?,
            "timeout_ms" => request.timeout_ms = Some(number()?),
            "idle_timeout_ms" => request.idle_timeout_ms = Some(number()?),
            // Of Kubernetes: which of a pod's containers. A VM is one.
            "container" => {}
            _ => return Err(bad(format!("there is no {key}"))),
        }
    }
    request.stdin = channels.stdin;
    request.terminal = tty.then_some(size);
    Ok(Remote { request, channels })
}

fn request(body: ExecBody) -> Result<(ProcessRequest, Option<Bytes>), Refusal> {
    let refuse = |text: &str| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_exec", text);
    let argv = argv(body.argv, body.command)?;
    let stdin = match (body.stdin, body.stdin_base64) {
        (None, None) => None,
        (Some(text), None) => Some(Bytes::from(text)),
        (None, Some(encoded)) => {
            let decoded = STANDARD.decode(encoded);
            Some(Bytes::from(decoded.map_err(|_| refuse("stdin_base64 is not base64"))?))
        }
        _ => return Err(refuse("give either stdin or stdin_base64")),
    };
    let request = ProcessRequest {
        argv,
        env: body.env,
        cwd: body.cwd,
        user: body.user,
        timeout_ms: body.timeout_ms,
        idle_timeout_ms: body.idle_timeout_ms,
        stdin: stdin.is_some(),
        ..ProcessRequest::default()
    };
    Ok((request, stdin))
}

async fn feed(sender: InputSender, bytes: Bytes) {
    // A process that does not want its stdin is no failure of the call.
    if sender.send(ProcessInput::Stdin(bytes)).await.is_ok() {
        let _ = sender.send(ProcessInput::StdinEof).await;
    }
}

/// How a process ended, for clients.
pub fn exit_view(status: ProcessStatus) -> ExitView {
    let word = |deadline| match deadline {
        Deadline::Total => "total".to_owned(),
        Deadline::Idle => "idle".to_owned(),
    };
    ExitView {
        exit_code: status.code,
        signal: status.signal,
        timed_out: status.deadline.is_some(),
        deadline: status.deadline.map(word),
        error: status.error,
    }
}

fn lost(error: &dyn std::error::Error) -> Refusal {
    Refusal::new(StatusCode::BAD_GATEWAY, "exec_lost", format!("the process was lost: {error}"))
}

async fn buffered(mut process: Attachment) -> Result<ExecView, Refusal> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        match process.next().await.map_err(|error| lost(&error))? {
            Some(ProcessOutput::Stdout(bytes)) => stdout.extend_from_slice(&bytes),
            Some(ProcessOutput::Stderr(bytes)) => stderr.extend_from_slice(&bytes),
            // The process waits for this reader.
            Some(ProcessOutput::Gap(_)) => {}
            Some(ProcessOutput::Exit(status)) => {
                let (stdout, stdout_encoding) = text(stdout);
                let (stderr, stderr_encoding) = text(stderr);
                let exit = exit_view(status);
                return Ok(ExecView { exit, stdout, stdout_encoding, stderr, stderr_encoding });
            }
            None => {
                return Err(Refusal::new(StatusCode::BAD_GATEWAY, "exec_lost", "no exit status"));
            }
        }
        if OUTPUT_LEN_MAX < stdout.len() + stderr.len() {
            let text = "the output is larger than a buffered answer may be; stream it with \
                        `Accept: text/event-stream`";
            return Err(Refusal::new(StatusCode::BAD_GATEWAY, "output_too_large", text));
        }
    }
}

fn text(bytes: Vec<u8>) -> (String, String) {
    match String::from_utf8(bytes) {
        Ok(text) => (text, "utf-8".to_owned()),
        Err(error) => (STANDARD.encode(error.as_bytes()), "base64".to_owned()),
    }
}

/// Each chunk is pulled from the guest when the client has taken the last: back-pressure.
pub fn streamed(process: Attachment, feeder: Option<AbortOnDropHandle<()>>) -> impl IntoResponse {
    let next = |state: Option<(Attachment, Option<AbortOnDropHandle<()>>)>| async move {
        let (mut process, feeder) = state?;
        let (event, more) = match process.next().await {
            Ok(Some(ProcessOutput::Stdout(bytes))) => (chunk("stdout", &bytes), true),
            Ok(Some(ProcessOutput::Stderr(bytes))) => (chunk("stderr", &bytes), true),
            Ok(Some(ProcessOutput::Gap(lost))) => {
                (Event::default().event("gap").json_data(GapView { lost }), true)
            }
            Ok(Some(ProcessOutput::Exit(status))) => {
                (Event::default().event("exit").json_data(exit_view(status)), false)
            }
            Ok(None) => return None,
            Err(error) => {
                let exit = ExitView { error: Some(error.to_string()), ..ExitView::default() };
                (Event::default().event("exit").json_data(exit), false)
            }
        };
        Some((event, more.then_some((process, feeder))))
    };
    let stream = futures_util::stream::unfold(Some((process, feeder)), next);
    Sse::new(stream).keep_alive(KeepAlive::default())
}

fn chunk(kind: &str, bytes: &Bytes) -> Result<Event, axum::Error> {
    Event::default().event(kind).json_data(ChunkView { data: STANDARD.encode(bytes) })
}
