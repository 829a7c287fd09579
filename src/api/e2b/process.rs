//! `process.Process`: the guest's processes, by the guest kernel's numbers.
//!
//! A process outlives the stream that has started it; the time that its client gives it (Connect's
//! timeout) is the process's own, as in E2B.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use crate::api::e2b::{E2b, Guest, connect, place};
use crate::api::error::Refusal;
use crate::model::VmName;
use crate::orchestrator::{
    AttachOptions, Attachment, Orchestrator, Payload, ProcessInfo, ProcessOutput, ProcessRequest,
    ProcessStatus, TerminalSize,
};
use crate::wire::envd::{
    Input, ListedProcess, Output, ProcessConfig, ProcessEnd, ProcessEvent, ProcessList,
    ProcessMessage, ProcessRef, ProcessSelector, Pty, SendInput, SendSignal, StartRequest,
    StreamInput, UpdateProcess,
};

/// The shell that the SDKs ask for, and the one that serves where a guest does not have it.
const BASH: &str = "/bin/bash";
const SHELL: &str = "/bin/sh";
/// How long input may wait for the process to read, where the client does not say.
const INPUT_TIMEOUT: Duration = Duration::from_secs(60);

type Answer = Result<Json<Value>, Refusal>;

fn not_found(selector: &ProcessSelector) -> Refusal {
    let text = match selector {
        ProcessSelector::Pid(pid) => format!("process with pid {pid} not found"),
        ProcessSelector::Tag(tag) => format!("process with tag {tag:?} not found"),
    };
    Refusal::new(StatusCode::NOT_FOUND, "process_not_found", text)
}

fn invalid(text: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "invalid_body", text)
}

/// The process that a client means: one that runs, or the last that had ended.
async fn find(
    orchestrator: &Orchestrator,
    vm: &VmName,
    selector: &ProcessSelector,
) -> Result<ProcessInfo, Refusal> {
    let is_meant = |info: &ProcessInfo| match selector {
        ProcessSelector::Pid(pid) => info.pid == *pid,
        ProcessSelector::Tag(tag) => info.tag.as_ref() == Some(tag),
    };
    let mut meant: Vec<_> =
        orchestrator.process_list(vm).await?.into_iter().filter(is_meant).collect();
    // The oldest come first; the kernel may give a number again.
    let running = meant.iter().rposition(|info| info.status.is_none());
    let index = running.or(meant.len().checked_sub(1)).ok_or_else(|| not_found(selector))?;
    Ok(meant.swap_remove(index))
}

/// The same, if it runs.
async fn find_running(
    orchestrator: &Orchestrator,
    vm: &VmName,
    selector: &ProcessSelector,
) -> Result<u32, Refusal> {
    let info = find(orchestrator, vm, selector).await?;
    if info.status.is_none() { Ok(info.id) } else { Err(not_found(selector)) }
}

/// `GET /health`.
pub async fn health(_: Guest) -> StatusCode {
    StatusCode::NO_CONTENT
}

/// `List`.
///
/// # Errors
/// A problem.
pub async fn list(State(e2b): State<E2b>, guest: Guest) -> Result<Json<ProcessList>, Refusal> {
    let all = e2b.orchestrator.process_list(&guest.name).await?;
    let listed = |info: ProcessInfo| {
        let mut argv = info.argv.into_iter();
        let (cmd, args) = (argv.next().unwrap_or_default(), argv.collect());
        let cwd = Some(info.cwd);
        // What an environment holds is not told again.
        let config = ProcessConfig { cmd, args, envs: Default::default(), cwd };
        ListedProcess { config, pid: info.pid, tag: info.tag }
    };
    let running = all.into_iter().filter(|info| info.status.is_none());
    Ok(Json(ProcessList { processes: running.map(listed).collect() }))
}

fn size(pty: Option<Pty>) -> Option<TerminalSize> {
    let size = pty?.size;
    let given = |value: u16, default| if value == 0 { default } else { value };
    Some(TerminalSize {
        cols: given(size.map_or(0, |size| size.cols), 80),
        rows: given(size.map_or(0, |size| size.rows), 24),
    })
}

/// `Start`: the process's events, as a stream.
///
/// # Errors
/// A problem.
pub async fn start(
    State(e2b): State<E2b>,
    guest: Guest,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let StartRequest { process, pty, tag, stdin } = connect::message(&headers, &body)?;
    let (vm, user) = (&guest.name, guest.user.as_deref());
    let cwd = process.cwd.as_deref().unwrap_or_default();
    let cwd = place::absolute(&e2b.orchestrator, vm, user, cwd).await;
    let terminal = size(pty);
    let timeout = connect::timeout(&headers);
    let mut argv = vec![process.cmd];
    argv.extend(process.args);
    let mut request = ProcessRequest {
        argv,
        env: process.envs,
        cwd: Some(cwd),
        user: guest.user.clone(),
        timeout_ms: timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
        stdin: stdin.unwrap_or(true),
        terminal,
        tag,
        keep: true,
        ..ProcessRequest::default()
    };
    let mut attachment = e2b.orchestrator.exec(vm, &request).await?;
    if attachment.info().is_none() && request.argv.first().is_some_and(|cmd| cmd == BASH) {
        request.argv[0] = SHELL.to_owned();
        attachment = e2b.orchestrator.exec(vm, &request).await?;
    }
    let Some(pid) = attachment.info().map(|info| info.pid) else {
        let reason = match attachment.next().await {
            Ok(Some(ProcessOutput::Exit(ProcessStatus { error: Some(error), .. }))) => error,
            _ => "the guest does not say why".to_owned(),
        };
        let text = format!("the process could not be started: {reason}");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "process_not_started", text));
    };
    Ok(events(attachment, pid, terminal.is_some(), connect::keepalive(&headers)))
}

/// `Connect`: a process's events from now on, as a stream.
///
/// # Errors
/// A problem.
pub async fn connect(
    State(e2b): State<E2b>,
    guest: Guest,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let ProcessRef { process } = connect::message(&headers, &body)?;
    let info = find(&e2b.orchestrator, &guest.name, &process).await?;
    let options = AttachOptions { from: u64::MAX, hold: true };
    let attachment = e2b.orchestrator.process_attach(&guest.name, info.id, options).await?;
    Ok(events(attachment, info.pid, info.terminal, connect::keepalive(&headers)))
}

/// Where a stream of events is.
enum Stage {
    Begin,
    Middle,
    Done,
}

struct Events {
    attachment: Attachment,
    stage: Stage,
    pid: i32,
    is_terminal: bool,
    alive: Interval,
}

fn message(event: ProcessEvent) -> Bytes {
    connect::frame(&ProcessMessage { event })
}

/// Each event is pulled from the guest when the client has taken the last: back-pressure.
fn events(attachment: Attachment, pid: i32, is_terminal: bool, alive: Duration) -> Response {
    let mut alive = interval_at(tokio::time::Instant::now() + alive, alive);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let state = Events { attachment, stage: Stage::Begin, pid, is_terminal, alive };
    connect::stream(futures_util::stream::unfold(state, |mut state| async move {
        let bytes = state.next().await?;
        Some((bytes, state))
    }))
}

impl Events {
    async fn next(&mut self) -> Option<Bytes> {
        match self.stage {
            Stage::Begin => {
                self.stage = Stage::Middle;
                Some(message(ProcessEvent::Start { pid: self.pid }))
            }
            Stage::Middle => Some(self.middle().await),
            Stage::Done => None,
        }
    }

    async fn middle(&mut self) -> Bytes {
        loop {
            let output = tokio::select! {
                biased;
                output = self.attachment.next() => output,
                _ = self.alive.tick() => return message(ProcessEvent::Keepalive {}),
            };
            let (wrap, bytes): (fn(String) -> Output, Bytes) = match output {
                Ok(Some(ProcessOutput::Stdout(bytes))) if self.is_terminal => (Output::Pty, bytes),
                Ok(Some(ProcessOutput::Stdout(bytes))) => (Output::Stdout, bytes),
                Ok(Some(ProcessOutput::Stderr(bytes))) => (Output::Stderr, bytes),
                // What came before this client did is not for it.
                Ok(Some(ProcessOutput::Gap(_))) => continue,
                Ok(Some(ProcessOutput::Exit(status))) => return self.end(&status),
                Ok(None) | Err(_) => {
                    self.stage = Stage::Done;
                    let text = "the connection to the sandbox ended before the process did";
                    return connect::end(Some(("unavailable", text)));
                }
            };
            return message(ProcessEvent::Data(wrap(STANDARD.encode(bytes))));
        }
    }

    fn end(&mut self, status: &ProcessStatus) -> Bytes {
        self.stage = Stage::Done;
        if status.deadline.is_some() {
            let text = "the process was killed at the end of the time it was given";
            return connect::end(Some(("deadline_exceeded", text)));
        }
        let end = message(ProcessEvent::End(process_end(status)));
        [end, connect::end(None)].concat().into()
    }
}

fn process_end(status: &ProcessStatus) -> ProcessEnd {
    let (exit_code, exited, text) = match (status.code, status.signal) {
        (Some(code), _) => (code, true, format!("exit status {code}")),
        (None, Some(signal)) => (-1, false, format!("signal: {}", signal_word(signal))),
        (None, None) => (-1, false, "lost".to_owned()),
    };
    let failed = exit_code != 0;
    ProcessEnd { exit_code, exited, error: failed.then(|| text.clone()), status: text }
}

/// A signal in the words that E2B's own service has for the common ones.
fn signal_word(signal: i32) -> String {
    match signal {
        1 => "hangup".to_owned(),
        2 => "interrupt".to_owned(),
        6 => "aborted".to_owned(),
        9 => "killed".to_owned(),
        11 => "segmentation fault".to_owned(),
        15 => "terminated".to_owned(),
        other => format!("signal {other}"),
    }
}

fn decoded(input: Input) -> Result<Bytes, Refusal> {
    let (Input::Stdin(text) | Input::Pty(text)) = input;
    let bytes = STANDARD.decode(text).map_err(|_| invalid("input is base64"))?;
    Ok(bytes.into())
}

async fn write(e2b: &E2b, vm: &VmName, id: u32, bytes: Bytes, end: bool) -> Result<(), Refusal> {
    let body: Payload = Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
    Ok(e2b.orchestrator.process_write(vm, id, body, end).await?)
}

async fn in_time<T>(
    headers: &HeaderMap,
    work: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    let limit = connect::timeout(headers).unwrap_or(INPUT_TIMEOUT);
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        let text = "the process did not read its input in time";
        Err(Refusal::new(StatusCode::GATEWAY_TIMEOUT, "wait_timeout", text))
    })
}

/// `SendInput`.
///
/// # Errors
/// A problem.
pub async fn send_input(
    State(e2b): State<E2b>,
    guest: Guest,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let SendInput { process, input } = connect::message(&headers, &body)?;
    let bytes = decoded(input)?;
    let id = find_running(&e2b.orchestrator, &guest.name, &process).await?;
    in_time(&headers, write(&e2b, &guest.name, id, bytes, false)).await?;
    Ok(Json(json!({})))
}

/// `CloseStdin`.
///
/// # Errors
/// A problem.
pub async fn close_stdin(
    State(e2b): State<E2b>,
    guest: Guest,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let ProcessRef { process } = connect::message(&headers, &body)?;
    let id = find_running(&e2b.orchestrator, &guest.name, &process).await?;
    in_time(&headers, write(&e2b, &guest.name, id, Bytes::new(), true)).await?;
    Ok(Json(json!({})))
}

/// `StreamInput`: input as it comes, to one process.
///
/// # Errors
/// A problem.
pub async fn stream_input(
    State(e2b): State<E2b>,
    guest: Guest,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    in_time(&headers, pass_on(&e2b, &guest.name, body)).await?;
    let frames = [connect::frame(&json!({})), connect::end(None)];
    Ok(connect::stream(futures_util::stream::iter(frames)))
}

async fn pass_on(e2b: &E2b, vm: &VmName, body: Body) -> Result<(), Refusal> {
    let mut chunks = body.into_data_stream();
    let (mut bytes, mut target) = (BytesMut::new(), None);
    while let Some(chunk) = chunks.next().await {
        bytes.extend_from_slice(&chunk.map_err(|_| invalid("the stream broke off"))?);
        while let Some(message) = connect::next(&mut bytes)? {
            if message.is_empty() {
                return Ok(());
            }
            match (connect::parse(&message)?, target) {
                (StreamInput::Keepalive(_), _) => {}
                (StreamInput::Start(ProcessRef { process }), None) => {
                    target = Some(find_running(&e2b.orchestrator, vm, &process).await?);
                }
                (StreamInput::Data(data), Some(id)) => {
                    write(e2b, vm, id, decoded(data.input)?, false).await?;
                }
                _ => return Err(invalid("a stream of input begins with its process")),
            }
        }
    }
    Ok(())
}

/// `SendSignal`.
///
/// # Errors
/// A problem.
pub async fn send_signal(
    State(e2b): State<E2b>,
    guest: Guest,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let SendSignal { process, signal } = connect::message(&headers, &body)?;
    let number = match (signal.as_str(), signal.as_u64()) {
        (Some("SIGNAL_SIGTERM"), _) | (_, Some(15)) => 15,
        (Some("SIGNAL_SIGKILL"), _) | (_, Some(9)) => 9,
        _ => return Err(invalid("signal is SIGNAL_SIGTERM or SIGNAL_SIGKILL")),
    };
    let id = find_running(&e2b.orchestrator, &guest.name, &process).await?;
    match e2b.orchestrator.process_signal(&guest.name, id, number).await {
        // It has ended in between, and one that has ended is not known here.
        Err(error) if error.code() == "process_state" => Err(not_found(&process)),
        outcome => Ok(outcome.map(|()| Json(json!({})))?),
    }
}

/// `Update`: the size of its terminal.
///
/// # Errors
/// A problem.
pub async fn update(
    State(e2b): State<E2b>,
    guest: Guest,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let UpdateProcess { process, pty } = connect::message(&headers, &body)?;
    let id = find_running(&e2b.orchestrator, &guest.name, &process).await?;
    if let Some(size) = size(pty) {
        e2b.orchestrator.process_resize(&guest.name, id, size).await?;
    }
    Ok(Json(json!({})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_as_e2b_tells_them() {
        let end = |code, signal| {
            let status = ProcessStatus { code, signal, ..ProcessStatus::default() };
            serde_json::to_value(process_end(&status)).unwrap()
        };
        assert_eq!(
            end(Some(0), None),
            json!({ "exitCode": 0, "exited": true, "status": "exit status 0" })
        );
        assert_eq!(end(Some(3), None)["error"], "exit status 3");
        assert_eq!(
            end(None, Some(9)),
            json!({
                "exitCode": -1, "exited": false, "status": "signal: killed",
                "error": "signal: killed",
            })
        );
    }

    #[test]
    fn messages_are_as_the_sdks_read_and_write_them() {
        let text =
            r#"{"process":{"cmd":"/bin/bash","args":["-l","-c","x"],"envs":{}},"stdin":false}"#;
        let StartRequest { process, pty, stdin, .. } = connect::parse(text.as_bytes()).unwrap();
        assert_eq!((process.args.len(), pty.is_none(), stdin), (3, true, Some(false)));
        let text = r#"{"data":{"input":{"stdin":"YQ=="}}}"#;
        let StreamInput::Data(data) = connect::parse(text.as_bytes()).unwrap() else { panic!() };
        assert_eq!(decoded(data.input).unwrap(), "a");
        let started = message(ProcessEvent::Start { pid: 7 });
        assert_eq!(&started[5..], br#"{"event":{"start":{"pid":7}}}"#);
        let data = message(ProcessEvent::Data(Output::Pty("YQ==".to_owned())));
        assert_eq!(&data[5..], br#"{"event":{"data":{"pty":"YQ=="}}}"#);
    }
}
