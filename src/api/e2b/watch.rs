//! Changes below folders of guests: as a stream (`WatchDir`), or kept until they are asked for
//! (`CreateWatcher`, `GetWatcherEvents`, `RemoveWatcher`).
//!
//! A watcher is a task that reads from the guest into a bounded queue. It ends when it is removed,
//! when its machine does, and when nobody has asked it for [`IDLE_MAX`].

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval_at};
use tokio_util::task::AbortOnDropHandle;

use crate::api::e2b::{E2b, Guest, connect};
use crate::api::error::Refusal;
use crate::model::VmName;
use crate::orchestrator::{FileEvent, FileEventKind, FileKind, FileWatch};
use crate::wire::envd::{FilesystemEvent, WatchMessage, WatchRequest, WatcherEvents, WatcherRef};

/// Watchers of all sandboxes.
const WATCHERS_MAX: usize = 256;
/// Changes that wait to be asked for.
const EVENTS_MAX: usize = 4096;
/// A watcher that nobody asks for so long is removed.
const IDLE_MAX: Duration = Duration::from_secs(30 * 60);
/// Bytes of randomness in a watcher's name.
const ID_LEN: usize = 12;

/// The watchers there are, by name.
#[derive(Debug, Default)]
pub struct Watchers(Mutex<HashMap<String, Watcher>>);

#[derive(Debug)]
struct Watcher {
    vm: VmName,
    asked_at: Instant,
    found: Arc<Mutex<Found>>,
    _reader: AbortOnDropHandle<()>,
}

#[derive(Debug, Default)]
struct Found {
    events: VecDeque<FilesystemEvent>,
    /// Why there will be no more.
    ended: Option<&'static str>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts a watch in place.
async fn begin(e2b: &E2b, guest: &Guest, request: WatchRequest) -> Result<Below, Refusal> {
    let root = e2b.path(guest, &request.path).await;
    let info = e2b.orchestrator.file_stat(&guest.name, &root).await?;
    if info.kind != FileKind::Directory && info.kind != FileKind::Symlink {
        let text = format!("{root} is not a directory");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "not_a_directory", text));
    }
    let mut watch = e2b.orchestrator.file_watch(&guest.name, &root, request.recursive).await?;
    // The first event says that it is in place.
    let first = watch.next().await.map_err(crate::orchestrator::Error::from)?;
    if first.is_none_or(|event| event.kind != FileEventKind::Started) {
        let text = "the guest did not begin to watch";
        return Err(Refusal::new(StatusCode::BAD_GATEWAY, "agent_unreachable", text));
    }
    Ok(Below { watch, root })
}

/// A watch, and the folder that its events are told from.
struct Below {
    watch: FileWatch,
    root: String,
}

impl Below {
    /// The next change, or why there will be none.
    async fn next(&mut self) -> Result<FilesystemEvent, &'static str> {
        loop {
            let event = match self.watch.next().await {
                Ok(Some(event)) => event,
                Ok(None) | Err(_) => return Err("the connection to the sandbox has ended"),
            };
            match kind(event.kind) {
                Some(kind) => return Ok(FilesystemEvent { name: name(&event, &self.root), kind }),
                None if event.kind == FileEventKind::Overflow => {
                    return Err("changes came faster than they were read, and some were lost");
                }
                None => {}
            }
        }
    }
}

fn kind(kind: FileEventKind) -> Option<&'static str> {
    match kind {
        FileEventKind::Create => Some("EVENT_TYPE_CREATE"),
        FileEventKind::Write => Some("EVENT_TYPE_WRITE"),
        FileEventKind::Remove => Some("EVENT_TYPE_REMOVE"),
        FileEventKind::Rename => Some("EVENT_TYPE_RENAME"),
        FileEventKind::Chmod => Some("EVENT_TYPE_CHMOD"),
        FileEventKind::Started | FileEventKind::Overflow => None,
    }
}

/// A changed path, from the watched folder on.
fn name(event: &FileEvent, root: &str) -> String {
    let rest = event.path.strip_prefix(root).unwrap_or(&event.path).trim_start_matches('/');
    let whole = || root.rsplit('/').next().unwrap_or_default().to_owned();
    if rest.is_empty() { whole() } else { rest.to_owned() }
}

/// `WatchDir`.
///
/// # Errors
/// A problem.
pub async fn watch(
    State(e2b): State<E2b>,
    guest: Guest,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let below = begin(&e2b, &guest, connect::message(&headers, &body)?).await?;
    let every = connect::keepalive(&headers);
    let mut alive = interval_at(tokio::time::Instant::now() + every, every);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let first = futures_util::stream::iter([connect::frame(&WatchMessage::Start {})]);
    let rest = futures_util::stream::unfold(Some((below, alive)), |state| async move {
        let (mut below, mut alive) = state?;
        let change = tokio::select! {
            change = below.next() => change,
            _ = alive.tick() => {
                return Some((connect::frame(&WatchMessage::Keepalive {}), Some((below, alive))));
            }
        };
        match change {
            Ok(event) => {
                let frame = connect::frame(&WatchMessage::Filesystem(event));
                Some((frame, Some((below, alive))))
            }
            Err(why) => Some((connect::end(Some(("unavailable", why))), None)),
        }
    });
    Ok(connect::stream(futures_util::StreamExt::chain(first, rest)))
}

async fn read(mut below: Below, found: Arc<Mutex<Found>>) {
    loop {
        let change = below.next().await;
        let mut found = lock(&found);
        match change {
            Ok(event) if found.events.len() < EVENTS_MAX => found.events.push_back(event),
            Ok(_) => {
                found.ended = Some("changes came faster than they were asked for; some were lost");
            }
            Err(why) => found.ended = Some(why),
        }
        if found.ended.is_some() {
            return;
        }
    }
}

/// `CreateWatcher`.
///
/// # Errors
/// A problem.
pub async fn create(
    State(e2b): State<E2b>,
    guest: Guest,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<WatcherRef>, Refusal> {
    let request = connect::message(&headers, &body)?;
    lock(&e2b.watchers.0).retain(|_, watcher| watcher.asked_at.elapsed() < IDLE_MAX);
    let below = begin(&e2b, &guest, request).await?;
    let found = Arc::<Mutex<Found>>::default();
    let reader = AbortOnDropHandle::new(tokio::spawn(read(below, Arc::clone(&found))));
    let watcher = Watcher { vm: guest.name, asked_at: Instant::now(), found, _reader: reader };
    let watcher_id = super::template::random_name("w", ID_LEN)?;
    let mut watchers = lock(&e2b.watchers.0);
    if WATCHERS_MAX <= watchers.len() {
        let text = format!("there are {WATCHERS_MAX} watchers; remove some first");
        return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "watchers_exhausted", text));
    }
    watchers.insert(watcher_id.clone(), watcher);
    Ok(Json(WatcherRef { watcher_id }))
}

fn no_such(id: &str) -> Refusal {
    let text = format!("watcher with id {id:?} not found");
    Refusal::new(StatusCode::NOT_FOUND, "watcher_not_found", text)
}

/// `GetWatcherEvents`: what has changed since the last call.
///
/// # Errors
/// A problem, also once there will be no more.
pub async fn events(
    State(e2b): State<E2b>,
    guest: Guest,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<WatcherEvents>, Refusal> {
    let WatcherRef { watcher_id } = connect::message(&headers, &body)?;
    let mut watchers = lock(&e2b.watchers.0);
    let watcher = watchers.get_mut(&watcher_id).filter(|watcher| watcher.vm == guest.name);
    let watcher = watcher.ok_or_else(|| no_such(&watcher_id))?;
    watcher.asked_at = Instant::now();
    let mut found = lock(&watcher.found);
    let events: Vec<_> = found.events.drain(..).collect();
    match found.ended {
        Some(why) if events.is_empty() => {
            Err(Refusal::new(StatusCode::BAD_GATEWAY, "watch_ended", why))
        }
        _ => Ok(Json(WatcherEvents { events })),
    }
}

/// `RemoveWatcher`.
///
/// # Errors
/// A problem.
pub async fn remove(
    State(e2b): State<E2b>,
    guest: Guest,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    let WatcherRef { watcher_id } = connect::message(&headers, &body)?;
    let mut watchers = lock(&e2b.watchers.0);
    let is_own = watchers.get(&watcher_id).is_some_and(|watcher| watcher.vm == guest.name);
    if !is_own {
        return Err(no_such(&watcher_id));
    }
    watchers.remove(&watcher_id);
    Ok(Json(json!({})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_named_from_the_watched_folder_on() {
        let event = |path: &str| FileEvent { kind: FileEventKind::Create, path: path.to_owned() };
        assert_eq!(name(&event("/tmp/w/a/b"), "/tmp/w"), "a/b");
        assert_eq!(name(&event("/a"), "/"), "a");
        assert_eq!(name(&event("/tmp/w"), "/tmp/w"), "w");
    }
}
