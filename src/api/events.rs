//! `/api/v1/events`: lifecycle events as SSE, with ids to come back to.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::IntoResponse;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::api::error::Refusal;
use crate::api::view;
use crate::model::Event;
use crate::orchestrator::Orchestrator;
use crate::wire::EventsView;

/// Stored events read at once.
const PAGE_LEN: usize = 256;

/// Query of events.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Since {
    /// Begin after this event.
    since: Option<i64>,
}

/// Query of a page of events.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// Begin after this event; 0 is the oldest there is.
    #[serde(default)]
    #[schemars(range(min = 0))]
    since: i64,
    /// Events at once, 1 to 256.
    #[schemars(range(min = 1, max = 256))]
    limit: Option<usize>,
}

/// `GET /api/v1/events/history`: a page of what has happened.
///
/// # Errors
/// A problem.
pub async fn history(
    State(orchestrator): State<Orchestrator>,
    query: Result<Query<Page>, QueryRejection>,
) -> Result<Json<EventsView>, Refusal> {
    let Query(Page { since, limit }) = query?;
    let limit = limit.unwrap_or(PAGE_LEN);
    if !(1..=PAGE_LEN).contains(&limit) || since < 0 {
        let text = format!("since: 0 or more; limit: 1 to {PAGE_LEN}");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "invalid_query", text));
    }
    let (events, reset) = orchestrator.events_since(since, limit).await?;
    let last_id = events.last().map_or(since, |event| event.id);
    Ok(Json(EventsView { items: events.iter().map(view::event).collect(), last_id, reset }))
}

struct Follow {
    orchestrator: Orchestrator,
    live: Receiver<Arc<Event>>,
    /// Id of the last event sent; everything up to it is never sent again.
    last: Option<i64>,
    ready: VecDeque<Result<SseEvent, axum::Error>>,
    catch_up: bool,
}

/// `GET /api/v1/events`: from `Last-Event-ID` or `?since=` on, else from now on.
///
/// # Errors
/// A problem.
pub async fn events(
    State(orchestrator): State<Orchestrator>,
    headers: HeaderMap,
    query: Result<Query<Since>, QueryRejection>,
) -> Result<impl IntoResponse, Refusal> {
    let header = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
    let last = header.or(query?.since);
    // Subscribed before the store is read: what comes between is deduplicated by its id.
    let live = orchestrator.subscribe();
    let catch_up = last.is_some();
    let follow = Follow { orchestrator, live, last, ready: VecDeque::new(), catch_up };
    let stream = futures_util::stream::unfold(follow, |mut follow| async move {
        follow.next().await.map(|event| (event, follow))
    });
    let unbuffered = [(HeaderName::from_static("x-accel-buffering"), "no")];
    Ok((unbuffered, Sse::new(stream).keep_alive(KeepAlive::default())))
}

impl Follow {
    async fn next(&mut self) -> Option<Result<SseEvent, axum::Error>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.catch_up {
                let since = self.last.unwrap_or(0);
                let (stored, gap) = self.orchestrator.events_since(since, PAGE_LEN).await.ok()?;
                if gap {
                    self.ready.push_back(Ok(SseEvent::default().event("reset").data("{}")));
                }
                self.catch_up = stored.len() == PAGE_LEN;
                stored.iter().for_each(|event| self.push(event));
                continue;
            }
            match self.live.recv().await {
                Ok(event) => self.push(&event),
                Err(RecvError::Lagged(_)) => self.catch_up = true,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    fn push(&mut self, event: &Event) {
        if self.last.is_some_and(|last| event.id <= last) {
            return;
        }
        self.last = Some(event.id);
        let frame = SseEvent::default().id(event.id.to_string()).event(event.kind.as_str());
        self.ready.push_back(frame.json_data(view::event(event)));
    }
}
