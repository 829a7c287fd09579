//! `/v1/processes`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use volant_protocol::{EXEC_UPGRADE, ProcessRequest, SignalRequest, TerminalSize};

use super::{Agent, Answer, Refusal, body, json, switching, unknown, wants, whole, wrong_method};
use crate::process::{NotNow, Options, Process, StartError, attend, report};

/// Longest wait of one request; who wants more asks again.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// Answers whatever begins with `/v1/processes`.
pub(super) async fn answer(request: Request<Incoming>, agent: &Agent) -> Result<Answer, Refusal> {
    let path = request.uri().path().to_owned();
    let segments: Vec<&str> = path.split('/').skip(3).collect();
    let method = request.method().clone();
    match (&segments[..], method) {
        ([], Method::GET) => Ok(json(StatusCode::OK, &agent.processes.list())),
        ([], Method::POST) => start(request, agent).await,
        ([id], Method::GET) => Ok(json(StatusCode::OK, &find(agent, id)?.info())),
        ([id], Method::DELETE) => {
            let removed = id.parse().ok().and_then(|id| agent.processes.remove(id));
            let removed = removed.ok_or_else(|| no_such(id))?;
            Ok(json(StatusCode::OK, &removed.info()))
        }
        ([id, "attach"], Method::GET) => attach(request, find(agent, id)?),
        ([id, "stdin"], Method::POST) => write(request, find(agent, id)?).await,
        ([id, "signal"], Method::POST) => {
            let process = find(agent, id)?;
            let SignalRequest { signal } = body(request).await?;
            done(process.signal(signal))
        }
        ([id, "resize"], Method::POST) => {
            let process = find(agent, id)?;
            let size: TerminalSize = body(request).await?;
            done(process.resize(size))
        }
        ([id, "keep"], Method::POST) => {
            let process = find(agent, id)?;
            process.keep();
            Ok(json(StatusCode::OK, &process.info()))
        }
        ([id, "wait"], Method::GET) => wait(&request, find(agent, id)?).await,
        ([] | [_] | [_, "attach" | "stdin" | "signal" | "resize" | "keep" | "wait"], _) => {
            Err(wrong_method(&request))
        }
        _ => Err(unknown(&request)),
    }
}

fn no_such(id: &str) -> Refusal {
    Refusal(StatusCode::NOT_FOUND, "process_not_found", format!("there is no process {id}"))
}

fn find(agent: &Agent, id: &str) -> Result<Arc<Process>, Refusal> {
    id.parse().ok().and_then(|id| agent.processes.find(id)).ok_or_else(|| no_such(id))
}

fn done(outcome: Result<(), NotNow>) -> Result<Answer, Refusal> {
    outcome
        .map_err(|NotNow(text)| Refusal(StatusCode::CONFLICT, "process_state", text.to_owned()))?;
    let mut answer = Answer::new(whole(Bytes::new()));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    Ok(answer)
}

/// Value of a query's key; none of ours needs percent-encoding.
fn query<'a>(request: &'a Request<Incoming>, key: &str) -> Option<&'a str> {
    let pairs = request.uri().query().unwrap_or_default().split('&');
    pairs.filter_map(|pair| pair.split_once('=')).find(|(k, _)| *k == key).map(|(_, value)| value)
}

async fn start(mut request: Request<Incoming>, agent: &Agent) -> Result<Answer, Refusal> {
    let attached = wants(&request, EXEC_UPGRADE).is_ok();
    let upgrade = attached.then(|| hyper::upgrade::on(&mut request));
    let mut wanted: ProcessRequest = body(request).await?;
    wanted.keep |= !attached;
    let started = match agent.processes.start(&wanted, &agent.env()) {
        Ok(process) => Ok(process),
        Err(StartError::Invalid(text)) => {
            return Err(Refusal(StatusCode::BAD_REQUEST, "invalid_exec", text));
        }
        Err(StartError::Full) => {
            let text = "too many processes run".to_owned();
            return Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, "processes_exhausted", text));
        }
        Err(StartError::NotRun(status)) => Err(status),
    };
    let Some(upgrade) = upgrade else {
        let process = started.map_err(|status| {
            let text = status.error.unwrap_or_default();
            Refusal(StatusCode::UNPROCESSABLE_ENTITY, "process_not_started", text)
        })?;
        return Ok(json(StatusCode::CREATED, &process.info()));
    };
    tokio::spawn(async move {
        match (upgrade.await, started) {
            (Ok(stream), Ok(process)) => {
                let options = Options { from: 0, hold: true, owner: true };
                attend(TokioIo::new(stream), process, options).await;
            }
            (Ok(stream), Err(status)) => report(TokioIo::new(stream), &status).await,
            (Err(_), Ok(process)) if !process.is_kept() => process.kill(),
            (Err(_), _) => {}
        }
    });
    Ok(switching(EXEC_UPGRADE))
}

fn attach(mut request: Request<Incoming>, process: Arc<Process>) -> Result<Answer, Refusal> {
    wants(&request, EXEC_UPGRADE)?;
    let from = query(&request, "from").map_or(Some(0), |from| from.parse().ok());
    let Some(from) = from else {
        let text = "from is an offset in bytes".to_owned();
        return Err(Refusal(StatusCode::BAD_REQUEST, "invalid_query", text));
    };
    let hold = query(&request, "hold") != Some("false");
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(stream) = upgrade.await {
            let options = Options { from, hold, owner: false };
            attend(TokioIo::new(stream), process, options).await;
        }
    });
    Ok(switching(EXEC_UPGRADE))
}

/// The body is stdin, taken as fast as the process reads it.
async fn write(request: Request<Incoming>, process: Arc<Process>) -> Result<Answer, Refusal> {
    let end = query(&request, "end") == Some("true");
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| Refusal(StatusCode::BAD_REQUEST, "invalid_body", error.to_string()))?;
        if let Ok(bytes) = frame.into_data() {
            process.write(&bytes).await;
        }
    }
    if end {
        process.end_input().await;
    }
    done(Ok(()))
}

/// Answers when the process has ended, or the time is over and it has not.
async fn wait(request: &Request<Incoming>, process: Arc<Process>) -> Result<Answer, Refusal> {
    let limit = query(request, "timeout_ms").and_then(|limit| limit.parse().ok());
    let limit = limit.map_or(WAIT_MAX, Duration::from_millis).min(WAIT_MAX);
    // The answer says by its status which of the two it was.
    let _ = tokio::time::timeout(limit, process.ended()).await;
    Ok(json(StatusCode::OK, &process.info()))
}
