//! `/api/v1/vms/{name}/processes`: start, list, attach, write, signal, wait.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::channel::{self, Channels};
use crate::api::error::Refusal;
use crate::api::exec::{exit_view, streamed, wants_events};
use crate::api::view::rfc3339;
use crate::model::VmName;
use crate::orchestrator::{AttachOptions, Orchestrator, ProcessInfo, ProcessRequest, TerminalSize};
use crate::wire::{ProcessView, SignalBody, StartProcess, TerminalView};

/// Longest wait of one request.
const WAIT_MAX_MS: u64 = 3_600_000;
const WAIT_DEFAULT_MS: u64 = 60_000;

type Answer = Result<Json<ProcessView>, Refusal>;

fn view(info: ProcessInfo) -> ProcessView {
    ProcessView {
        id: info.id,
        pid: info.pid,
        argv: info.argv,
        cwd: info.cwd,
        user: info.user,
        tag: info.tag,
        terminal: info.terminal,
        started_at: rfc3339(i64::try_from(info.started_unix_ms).unwrap_or(i64::MAX)),
        status: if info.status.is_some() { "exited" } else { "running" }.to_owned(),
        output_start: info.output_start,
        output_end: info.output_end,
        exit: info.status.map(exit_view),
    }
}

fn invalid(code: &str, text: &str) -> Refusal {
    Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, code, text)
}

/// Program and arguments from the two ways to say them.
///
/// # Errors
/// None or both are given.
pub fn argv(argv: Vec<String>, command: Option<String>) -> Result<Vec<String>, Refusal> {
    match (argv.is_empty(), command) {
        (false, None) => Ok(argv),
        (true, Some(line)) => Ok(vec!["/bin/sh".to_owned(), "-c".to_owned(), line]),
        _ => Err(invalid("invalid_exec", "give either argv or command")),
    }
}

/// A process of a VM, as the path names it.
#[derive(Debug, Deserialize)]
pub struct Target {
    name: String,
    id: String,
}

impl Target {
    fn parse(&self) -> Result<(VmName, u32), Refusal> {
        let id = self.id.parse();
        let no_such = |_| {
            let text = format!("there is no process {}", self.id);
            Refusal::new(StatusCode::NOT_FOUND, "process_not_found", text)
        };
        Ok((VmName::try_from(self.name.as_str())?, id.map_err(no_such)?))
    }
}

/// `GET .../processes`.
///
/// # Errors
/// A problem.
pub async fn list(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
) -> Result<Json<Vec<ProcessView>>, Refusal> {
    let processes = orchestrator.process_list(&VmName::try_from(name.as_str())?).await?;
    Ok(Json(processes.into_iter().map(view).collect()))
}

/// `POST .../processes`.
///
/// # Errors
/// A problem, also when it cannot be started.
pub async fn start(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
    body: Result<Json<StartProcess>, JsonRejection>,
) -> Result<impl IntoResponse, Refusal> {
    let name = VmName::try_from(name.as_str())?;
    let Json(body) = body?;
    let size = |TerminalView { cols, rows }| TerminalSize { cols, rows };
    let request = ProcessRequest {
        argv: argv(body.argv, body.command)?,
        env: body.env,
        cwd: body.cwd,
        user: body.user,
        timeout_ms: body.timeout_ms,
        idle_timeout_ms: body.idle_timeout_ms,
        stdin: body.stdin,
        terminal: body.terminal.map(size),
        tag: body.tag,
        keep: true,
    };
    let info = orchestrator.process_start(&name, &request).await?;
    Ok((StatusCode::CREATED, Json(view(info))))
}

/// `GET .../processes/{id}`.
///
/// # Errors
/// A problem.
pub async fn get(State(orchestrator): State<Orchestrator>, Path(target): Path<Target>) -> Answer {
    let (name, id) = target.parse()?;
    Ok(Json(view(orchestrator.process_get(&name, id).await?)))
}

/// `DELETE .../processes/{id}`: kills it if it runs, and forgets it.
///
/// # Errors
/// A problem.
pub async fn remove(
    State(orchestrator): State<Orchestrator>,
    Path(target): Path<Target>,
) -> Answer {
    let (name, id) = target.parse()?;
    Ok(Json(view(orchestrator.process_remove(&name, id).await?)))
}

/// Query of attach.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachQuery {
    #[serde(default)]
    from: u64,
    #[serde(default = "yes")]
    hold: bool,
    #[serde(default = "yes")]
    stdin: bool,
}

fn yes() -> bool {
    true
}

/// `GET .../processes/{id}/attach`: a WebSocket, or server-sent events.
///
/// # Errors
/// A problem.
pub async fn attach(
    State(orchestrator): State<Orchestrator>,
    Path(target): Path<Target>,
    headers: HeaderMap,
    query: Result<Query<AttachQuery>, QueryRejection>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let (name, id) = target.parse()?;
    let Query(AttachQuery { from, hold, stdin }) = query?;
    let options = AttachOptions { from, hold };
    if wants_events(&headers) {
        let attachment = orchestrator.process_attach(&name, id, options).await?;
        return Ok(streamed(attachment, None).into_response());
    }
    let upgrade = upgrade.map_err(|_| {
        let text = "attach with a WebSocket, or with `Accept: text/event-stream`";
        Refusal::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", text)
    })?;
    let attachment = orchestrator.process_attach(&name, id, options).await?;
    let channels = Channels { stdin, stdout: true, stderr: true };
    Ok(channel::upgrade(upgrade, attachment, channels))
}

/// Query of stdin.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WriteQuery {
    #[serde(default)]
    end: bool,
}

/// `POST .../processes/{id}/stdin`: the body as it is, streamed.
///
/// # Errors
/// A problem.
pub async fn write(
    State(orchestrator): State<Orchestrator>,
    Path(target): Path<Target>,
    query: Result<Query<WriteQuery>, QueryRejection>,
    body: Body,
) -> Result<StatusCode, Refusal> {
    let (name, id) = target.parse()?;
    let Query(WriteQuery { end }) = query?;
    let body = body.map_err(std::io::Error::other).boxed_unsync();
    orchestrator.process_write(&name, id, body, end).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST .../processes/{id}/signal`.
///
/// # Errors
/// A problem.
pub async fn signal(
    State(orchestrator): State<Orchestrator>,
    Path(target): Path<Target>,
    body: Result<Json<SignalBody>, JsonRejection>,
) -> Result<StatusCode, Refusal> {
    let (name, id) = target.parse()?;
    let Json(SignalBody { signal }) = body?;
    let number = signal.number().filter(|number| (1..32).contains(number));
    let number = number.ok_or_else(|| invalid("invalid_signal", "there is no such signal"))?;
    orchestrator.process_signal(&name, id, number).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST .../processes/{id}/resize`.
///
/// # Errors
/// A problem.
pub async fn resize(
    State(orchestrator): State<Orchestrator>,
    Path(target): Path<Target>,
    body: Result<Json<TerminalView>, JsonRejection>,
) -> Result<StatusCode, Refusal> {
    let (name, id) = target.parse()?;
    let Json(TerminalView { cols, rows }) = body?;
    orchestrator.process_resize(&name, id, TerminalSize { cols, rows }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST .../processes/{id}/keep`: it outlives the connection that has started it.
///
/// # Errors
/// A problem.
pub async fn keep(State(orchestrator): State<Orchestrator>, Path(target): Path<Target>) -> Answer {
    let (name, id) = target.parse()?;
    Ok(Json(view(orchestrator.process_keep(&name, id).await?)))
}

/// Query of wait.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WaitQuery {
    timeout_ms: Option<u64>,
}

/// `GET .../processes/{id}/wait`: when it has ended, or `status` is still `running` after the time
/// given (default a minute, at most an hour).
///
/// # Errors
/// A problem.
pub async fn wait(
    State(orchestrator): State<Orchestrator>,
    Path(target): Path<Target>,
    query: Result<Query<WaitQuery>, QueryRejection>,
) -> Answer {
    let (name, id) = target.parse()?;
    let Query(WaitQuery { timeout_ms }) = query?;
    let limit = Duration::from_millis(timeout_ms.unwrap_or(WAIT_DEFAULT_MS).min(WAIT_MAX_MS));
    Ok(Json(view(orchestrator.process_wait(&name, id, limit).await?)))
}
