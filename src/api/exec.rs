//! `/api/v1/vms/{name}/exec`: buffered JSON, or server-sent events as they come.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tokio_util::task::AbortOnDropHandle;

use crate::api::error::Refusal;
use crate::model::VmName;
use crate::orchestrator::{
    Exec, ExecInput, ExecOutput, ExecRequest, ExecSender, ExecStatus, Orchestrator,
};
use crate::wire::{ChunkView, ExecBody, ExecView, ExitView};

/// Bytes of output that a buffered answer holds, both streams together.
const OUTPUT_LEN_MAX: usize = 64 * 1024 * 1024;

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
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("text/event-stream")) {
        return Ok(streamed(process, feeder).into_response());
    }
    let answer = buffered(process).await;
    drop(feeder);
    answer.map(|view| Json(view).into_response())
}

fn request(body: ExecBody) -> Result<(ExecRequest, Option<Bytes>), Refusal> {
    let refuse = |text: &str| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_exec", text);
    let argv = match (body.argv.is_empty(), body.command) {
        (false, None) => body.argv,
        (true, Some(line)) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line],
        _ => return Err(refuse("give either argv or command")),
    };
    let stdin = match (body.stdin, body.stdin_base64) {
        (None, None) => None,
        (Some(text), None) => Some(Bytes::from(text)),
        (None, Some(encoded)) => {
            let decoded = STANDARD.decode(encoded);
            Some(Bytes::from(decoded.map_err(|_| refuse("stdin_base64 is not base64"))?))
        }
        _ => return Err(refuse("give either stdin or stdin_base64")),
    };
    let request = ExecRequest {
        argv,
        env: body.env,
        cwd: body.cwd,
        user: body.user,
        timeout_ms: body.timeout_ms,
        stdin: stdin.is_some(),
    };
    Ok((request, stdin))
}

async fn feed(sender: ExecSender, bytes: Bytes) {
    // A process that does not want its stdin is no failure of the call.
    if sender.send(ExecInput::Stdin(bytes)).await.is_ok() {
        let _ = sender.send(ExecInput::StdinEof).await;
    }
}

fn exit_view(status: ExecStatus) -> ExitView {
    ExitView {
        exit_code: status.code,
        signal: status.signal,
        timed_out: status.timed_out,
        error: status.error,
    }
}

fn lost(error: &dyn std::error::Error) -> Refusal {
    Refusal::new(StatusCode::BAD_GATEWAY, "exec_lost", format!("the process was lost: {error}"))
}

async fn buffered(mut process: Exec) -> Result<ExecView, Refusal> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        match process.next().await.map_err(|error| lost(&error))? {
            Some(ExecOutput::Stdout(bytes)) => stdout.extend_from_slice(&bytes),
            Some(ExecOutput::Stderr(bytes)) => stderr.extend_from_slice(&bytes),
            Some(ExecOutput::Exit(status)) => {
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
fn streamed(process: Exec, feeder: Option<AbortOnDropHandle<()>>) -> impl IntoResponse {
    let next = |state: Option<(Exec, Option<AbortOnDropHandle<()>>)>| async move {
        let (mut process, feeder) = state?;
        let (event, more) = match process.next().await {
            Ok(Some(ExecOutput::Stdout(bytes))) => (chunk("stdout", &bytes), true),
            Ok(Some(ExecOutput::Stderr(bytes))) => (chunk("stderr", &bytes), true),
            Ok(Some(ExecOutput::Exit(status))) => {
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
