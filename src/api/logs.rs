//! What the workload has written, or the serial console's ring, as text; the former as messages of
//! a WebSocket too.

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::console;
use crate::api::error::Refusal;
use crate::model::{InvalidSpec, VmName};
use crate::orchestrator::{Error, LogEntry, LogStart, Orchestrator, WorkloadLog};
use crate::wire::LogLine;

/// What the log's WebSocket speaks, for clients that have to name it (docs/api/rest.md).
const PROTOCOL: &str = "logs.volantd";

/// Query of logs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Logs {
    /// Absent: the workload's if the VM has one, else the console's.
    source: Option<Source>,
    /// Only the last lines.
    tail: Option<usize>,
    /// Go on as more comes.
    #[serde(default)]
    follow: bool,
    /// RFC 3339, or how long ago, e.g. `10m`. Of the workload's only.
    #[schemars(regex(pattern = "^[1-9][0-9]{0,5}[smh]$|^2[0-9]{3}-[01][0-9]-[0-3][0-9]T"))]
    since: Option<String>,
    /// Time and stream before each line. Of the workload's only.
    #[serde(default)]
    timestamps: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Source {
    Console,
    Workload,
}

/// `GET /api/v1/vms/{name}/logs`.
///
/// # Errors
/// A problem.
pub async fn logs(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
    query: Result<Query<Logs>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(query) = query?;
    let name = VmName::try_from(name.as_str())?;
    let has_workload = orchestrator.get(&name)?.spec.workload.is_some();
    let usual = if has_workload { Source::Workload } else { Source::Console };
    if query.source.unwrap_or(usual) == Source::Console {
        if query.since.is_some() || query.timestamps {
            let text = "the console's output has no times";
            return Err(Refusal::new(StatusCode::CONFLICT, "no_timestamps", text));
        }
        let console = orchestrator.console(&name)?;
        return Ok(console::text(console, query.tail, query.follow));
    }
    let since = query.since.as_deref().map(|text| moment(text, Timestamp::now())).transpose()?;
    let start = LogStart { tail: query.tail, since };
    let log = orchestrator.workload_log(&name, start, query.follow).await?;
    let timestamps = query.timestamps;
    let lines = Lines { log, timestamps, at_line_start: true };
    let body = futures_util::stream::unfold(lines, |mut lines| async move {
        lines.next().await.map(|text| (text, lines))
    });
    let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((kind, Body::from_stream(body)).into_response())
}

fn invalid(reason: &str) -> Refusal {
    Error::from(InvalidSpec { field: "since", reason: reason.to_owned() }).into()
}

/// A moment as given, or that long before `now`.
fn moment(text: &str, now: Timestamp) -> Result<Timestamp, Refusal> {
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(moment);
    }
    let ago: Option<SignedDuration> = text.parse().ok();
    ago.and_then(|ago| now.checked_sub(ago.abs()).ok())
        .ok_or_else(|| invalid("a time as in RFC 3339, or how long ago, as in 90s, 10m or 2h"))
}

/// Query of the log as a WebSocket.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Follow {
    /// Only the last lines of what is there.
    tail: Option<usize>,
    /// RFC 3339, or how long ago, e.g. `10m`.
    since: Option<String>,
}

/// `GET /ws/v1/vms/{name}/logs`: the workload's lines as JSON messages, for as long as its machine
/// lives.
///
/// # Errors
/// A problem, before the upgrade.
pub async fn stream(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
    query: Result<Query<Follow>, QueryRejection>,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Refusal> {
    let Query(Follow { tail, since }) = query?;
    let name = VmName::try_from(name.as_str())?;
    let since = since.as_deref().map(|text| moment(text, Timestamp::now())).transpose()?;
    let log = orchestrator.workload_log(&name, LogStart { tail, since }, true).await?;
    Ok(upgrade.protocols([PROTOCOL]).on_upgrade(|socket| tell(socket, log, name)))
}

async fn tell(mut socket: WebSocket, mut log: WorkloadLog, name: VmName) {
    loop {
        let next = log.next();
        tokio::pin!(next);
        let entries = loop {
            tokio::select! {
                entries = &mut next => break entries,
                message = socket.recv() => match message {
                    // A client has nothing to say here but that it goes.
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => {}
                },
            }
        };
        let (code, reason) = match entries {
            Ok(Some(entries)) => {
                for entry in &entries {
                    if socket.send(message(&name, entry)).await.is_err() {
                        return;
                    }
                }
                continue;
            }
            Ok(None) => (close_code::NORMAL, "the machine has ended"),
            Err(_) => (close_code::ERROR, "the log cannot be read"),
        };
        let frame = CloseFrame { code, reason: reason.into() };
        // The client may have gone first.
        let _ = socket.send(Message::Close(Some(frame))).await;
        return;
    }
}

fn message(name: &VmName, entry: &LogEntry) -> Message {
    let line = LogLine {
        name: name.to_string(),
        stream: entry.stream.as_str().to_owned(),
        line: String::from_utf8_lossy(&entry.bytes).into_owned(),
        timestamp: format!("{:.3}", entry.at),
        partial: !entry.ends_line,
    };
    Message::text(serde_json::to_string(&line).unwrap_or_default())
}

struct Lines {
    log: WorkloadLog,
    timestamps: bool,
    at_line_start: bool,
}

impl Lines {
    async fn next(&mut self) -> Option<std::io::Result<Bytes>> {
        match self.log.next().await {
            Ok(entries) => Some(Ok(self.text(&entries?))),
            Err(error) => Some(Err(error)),
        }
    }

    fn text(&mut self, entries: &[LogEntry]) -> Bytes {
        let mut text = Vec::new();
        for entry in entries {
            if self.timestamps && self.at_line_start {
                let head = format!("{:.3} {} ", entry.at, entry.stream.as_str());
                text.extend_from_slice(head.as_bytes());
            }
            text.extend_from_slice(&entry.bytes);
            if entry.ends_line {
                text.push(b'\n');
            }
            self.at_line_start = entry.ends_line;
        }
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_how_long_ago() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let table = [
            ("2026-01-01T12:00:00Z", "2026-01-01T12:00:00Z"),
            ("90s", "2026-01-01T23:58:30Z"),
            ("10m", "2026-01-01T23:50:00Z"),
            ("1h 30m", "2026-01-01T22:30:00Z"),
        ];
        for (text, expected) in table {
            assert_eq!(moment(text, now).unwrap(), expected.parse().unwrap(), "{text}");
        }
        for text in ["", "yesterday", "10", "99999999999h"] {
            assert!(moment(text, now).is_err(), "{text:?} was taken");
        }
    }
}
