//! Shapes of what has happened.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Data of a lifecycle event.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct EventView {
    /// Grows by one.
    pub id: i64,
    /// `VM_CREATED`, `VM_RUNNING`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// The VM.
    pub name: String,
    /// Its state after the event.
    pub status: String,
    /// Its address.
    pub ip_address: String,
    /// Its network card.
    pub mac_address: String,
    /// RFC 3339, UTC.
    pub timestamp: String,
    /// One sentence.
    pub message: String,
}

/// `GET /api/v1/events/history`: a page of what has happened.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct EventsView {
    /// Oldest first.
    pub items: Vec<EventView>,
    /// Id of the last event seen; pass it as the next `since`.
    pub last_id: i64,
    /// Events after `since` have been dropped: what is known from earlier pages is out of date.
    pub reset: bool,
}
