//! What is followed for as long as the interface is there. A stream that breaks is taken up again.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, Response};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::ctl::client::{Client, Failure};
use crate::ctl::sse::SseParser;
use crate::ctl::tui::update::Event;
use crate::ctl::vms::path;
use crate::wire::{EventView, ImageView, PluginList, PluginView, SystemInfo, VmView, VolumeView};

/// Until a lost daemon is asked again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Without a sign of life for so long, a daemon is lost. It gives one every 15 seconds.
const SILENCE_MAX: Duration = Duration::from_secs(40);
/// What an event changes is read once for all events of this time.
const GATHER: Duration = Duration::from_millis(100);
/// All is read again so often, for what no event tells.
const REFRESH_EVERY: Duration = Duration::from_secs(10);
/// The same for a token that may not see events.
const POLL_EVERY: Duration = Duration::from_secs(2);
/// Seconds that one AG-UI run watches.
const WATCH_SECONDS: u64 = 24 * 3600;
/// Lines of a log that are shown at first.
const TAIL_LINES: usize = 200;
/// Characters of an AG-UI event that are shown.
const AGUI_LEN_MAX: usize = 400;

const NO_BODY: Option<&()> = None;

/// The interface is gone.
struct Gone;

async fn send(events: &mpsc::Sender<Event>, event: Event) -> Result<(), Gone> {
    events.send(event).await.map_err(|_| Gone)
}

/// Follows the fleet.
pub async fn fleet(
    client: Arc<Client>,
    events: mpsc::Sender<Event>,
    mut refresh: watch::Receiver<()>,
) {
    let mut since = None;
    loop {
        let outcome = fleet_once(&client, &events, &mut refresh, &mut since).await;
        let why = match outcome {
            Ok(Gone) => return,
            Err(failure) => failure.message,
        };
        if send(&events, Event::Lost(why)).await.is_err() {
            return;
        }
        sleep(RETRY_AFTER).await;
    }
}

/// Until the connection breaks, or the interface is gone.
async fn fleet_once(
    client: &Client,
    events: &mpsc::Sender<Event>,
    refresh: &mut watch::Receiver<()>,
    since: &mut Option<i64>,
) -> Result<Gone, Failure> {
    let info: SystemInfo = client.json(Method::GET, "/api/v1/system/info", NO_BODY).await?;
    let query = since.map_or_else(String::new, |since| format!("?since={since}"));
    let target = format!("/api/v1/events{query}");
    let mut stream = match client.send(Method::GET, &target, None, "text/event-stream").await {
        Ok(answer) => Some((answer.into_body(), SseParser::default())),
        // A token for some VMs only sees no events.
        Err(failure) if failure.exit_code == 5 => None,
        Err(failure) => return Err(failure),
    };
    if send(events, Event::Linked(info.version)).await.is_err() {
        return Ok(Gone);
    }
    let every = if stream.is_some() { REFRESH_EVERY } else { POLL_EVERY };
    let mut next = Instant::now();
    loop {
        tokio::select! {
            () = sleep_until(next) => {
                if list(client, events).await?.is_err() {
                    return Ok(Gone);
                }
                next = Instant::now() + every;
            }
            changed = refresh.changed() => match changed {
                Ok(()) => next = Instant::now(),
                Err(_) => return Ok(Gone),
            },
            happened = happened(&mut stream) => {
                let happened = happened?;
                if !happened.is_empty() {
                    next = next.min(Instant::now() + GATHER);
                }
                for event in happened {
                    *since = Some(event.id);
                    if send(events, Event::Happened(Box::new(event))).await.is_err() {
                        return Ok(Gone);
                    }
                }
            }
        }
    }
}

/// The next events; none is a sign of life.
async fn happened(stream: &mut Option<(Incoming, SseParser)>) -> Result<Vec<EventView>, Failure> {
    let Some((body, parser)) = stream else { return std::future::pending().await };
    let frame = timeout(SILENCE_MAX, body.frame()).await;
    let lost = || Failure::local("the daemon hung up");
    let frame = frame.map_err(|_| Failure::local("the daemon is silent"))?.ok_or_else(lost)?;
    let frame = frame.map_err(|_| lost())?;
    let found = parser.push(frame.data_ref().map_or(&[][..], |bytes| bytes));
    Ok(found.iter().filter_map(|(_, data)| serde_json::from_str(data).ok()).collect())
}

/// Reads all lists.
async fn list(client: &Client, events: &mpsc::Sender<Event>) -> Result<Result<(), Gone>, Failure> {
    let vms: Vec<VmView> = client.json(Method::GET, "/api/v1/vms", NO_BODY).await?;
    if send(events, Event::Vms(vms)).await.is_err() {
        return Ok(Err(Gone));
    }
    // A token may be for VMs only.
    let plugins: Result<PluginList, Failure> =
        client.json(Method::GET, "/api/v1/plugins", NO_BODY).await;
    let images: Result<Vec<ImageView>, Failure> =
        client.json(Method::GET, "/api/v1/images", NO_BODY).await;
    let volumes: Result<Vec<VolumeView>, Failure> =
        client.json(Method::GET, "/api/v1/volumes", NO_BODY).await;
    let plugins: Result<Vec<PluginView>, Failure> = plugins.map(|list| list.items);
    let found =
        [plugins.map(Event::Plugins), images.map(Event::Images), volumes.map(Event::Volumes)];
    for event in found.into_iter().flatten() {
        if send(events, event).await.is_err() {
            return Ok(Err(Gone));
        }
    }
    Ok(Ok(()))
}

/// Follows what a VM's workload, or its console, writes.
pub async fn log(client: Arc<Client>, events: mpsc::Sender<Event>, name: String) {
    let mut tail = TAIL_LINES;
    loop {
        let target = path(&name, &format!("/logs?follow=true&tail={tail}"));
        let answer = client.send(Method::GET, &target, None, "text/plain").await;
        let read = match answer {
            Ok(answer) => {
                // What was shown is not shown again.
                tail = 0;
                lines(answer, &events, &name).await
            }
            // A VM that does not run has no log that goes on.
            Err(_) => Ok(()),
        };
        if read.is_err() {
            return;
        }
        sleep(RETRY_AFTER).await;
    }
}

async fn lines(
    answer: Response<Incoming>,
    events: &mpsc::Sender<Event>,
    name: &str,
) -> Result<(), Gone> {
    let mut body = answer.into_body();
    let mut rest = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        rest.extend_from_slice(frame.data_ref().map_or(&[][..], |bytes| bytes));
        let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else { continue };
        let whole: Vec<u8> = rest.drain(..=end).collect();
        let text = String::from_utf8_lossy(&whole);
        let found = text.lines().map(str::to_owned).collect();
        send(events, Event::Log(name.to_owned(), found)).await?;
    }
    Ok(())
}

/// Follows the AG-UI events of the fleet.
pub async fn agui(client: Arc<Client>, events: mpsc::Sender<Event>) {
    loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let run = json!({
            "threadId": "terminal", "runId": format!("terminal-{}-{now}", std::process::id()),
            "messages": [],
            "forwardedProps": { "volant": {
                "op": "watch", "args": { "maxSeconds": WATCH_SECONDS }
            } },
        });
        let body = Some(run.to_string().into_bytes());
        let answer = client.send(Method::POST, "/api/v1/agui", body, "text/event-stream").await;
        let followed = match answer {
            Ok(answer) => agui_events(answer, &events).await,
            Err(failure) => send(&events, Event::Agui(failure.message)).await,
        };
        if followed.is_err() {
            return;
        }
        sleep(RETRY_AFTER).await;
    }
}

async fn agui_events(answer: Response<Incoming>, events: &mpsc::Sender<Event>) -> Result<(), Gone> {
    let (mut body, mut parser) = (answer.into_body(), SseParser::default());
    while let Some(Ok(frame)) = body.frame().await {
        for (_, data) in parser.push(frame.data_ref().map_or(&[][..], |bytes| bytes)) {
            send(events, Event::Agui(agui_line(&data))).await?;
        }
    }
    Ok(())
}

/// An AG-UI event in a line: its type, and what else it says.
fn agui_line(data: &str) -> String {
    let Ok(Value::Object(mut event)) = serde_json::from_str(data) else { return data.to_owned() };
    let kind = event.remove("type").and_then(|kind| kind.as_str().map(str::to_owned));
    for known in ["timestamp", "threadId", "runId", "protocolVersion"] {
        event.remove(known);
    }
    let line = format!("{:<18} {}", kind.unwrap_or_default(), Value::Object(event));
    line.chars().take(AGUI_LEN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agui_events_are_lines() {
        let line = agui_line(r#"{"type":"CUSTOM","timestamp":1,"name":"volant.vm.lifecycle"}"#);
        assert_eq!(line, r#"CUSTOM             {"name":"volant.vm.lifecycle"}"#);
        assert_eq!(agui_line("odd"), "odd");
    }
}
