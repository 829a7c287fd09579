//! Operations on the daemon as a whole.

use axum::http::Method;

use crate::api::events::Since;
use crate::api::operations::{Access, Answer, Body, Hints, Operation, Skin, of};
use crate::model::Scope;
use crate::wire::{EventsView, Health, SystemInfo};

const DOCUMENT: Skin = Skin::Absent("a document about the API, not a deed");
const PROBE: Skin = Skin::Absent("for load balancers and supervisors");
const SKIN: Skin = Skin::Absent("it is itself a skin over the operations");

/// See the folder's head.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        id: "getHealth",
        title: "Health",
        description: "Whether the process answers.",
        method: Method::GET,
        path: "/healthz",
        aliases: &["/readyz"],
        access: Access::Open,
        hints: Hints::READS,
        query: None,
        body: None,
        answer: Answer::Json(200, of::<Health>),
        tool: PROBE,
        verb: PROBE,
    },
    Operation {
        id: "getOpenAPI",
        title: "OpenAPI document",
        description: "This API as OpenAPI 3.1.",
        method: Method::GET,
        path: "/openapi.json",
        aliases: &["/openapi"],
        access: Access::Open,
        hints: Hints::READS,
        query: None,
        body: None,
        answer: Answer::Json(200, of::<serde_json::Value>),
        tool: DOCUMENT,
        verb: DOCUMENT,
    },
    Operation {
        id: "getDocs",
        title: "This API, to read",
        description: "All operations as a page.",
        method: Method::GET,
        path: "/docs",
        aliases: &[],
        access: Access::Open,
        hints: Hints::READS,
        query: None,
        body: None,
        answer: Answer::Text("text/html; charset=utf-8"),
        tool: DOCUMENT,
        verb: DOCUMENT,
    },
    Operation {
        id: "getSystemInfo",
        title: "About the daemon",
        description: "Version of the daemon and how many VMs there are in each status.",
        method: Method::GET,
        path: "/api/v1/system/info",
        aliases: &[],
        access: Access::Scope(Scope::Read),
        hints: Hints::READS,
        query: None,
        body: None,
        answer: Answer::Json(200, of::<SystemInfo>),
        tool: Skin::As("system_info"),
        verb: Skin::As("info"),
    },
    Operation {
        id: "listEvents",
        title: "What has happened",
        description: "Lifecycle events after the event `since`, oldest first, as one page. Begin \
                      with since=0; pass the answer's last_id as the next since. reset=true says \
                      that events after `since` have been dropped.",
        method: Method::GET,
        path: "/api/v1/events/history",
        aliases: &[],
        access: Access::Scope(Scope::Read),
        hints: Hints::READS,
        query: Some(of::<crate::api::events::Page>),
        body: None,
        answer: Answer::Json(200, of::<EventsView>),
        tool: Skin::As("events_list"),
        verb: Skin::As("events"),
    },
    Operation {
        id: "streamVMEvents",
        title: "Follow what happens",
        description: "Lifecycle events as server-sent events with durable ids: from Last-Event-ID \
                      or `since` on, else from now on. An event `reset` says that older ones have \
                      been dropped: list again.",
        method: Method::GET,
        path: "/api/v1/events",
        aliases: &["/api/v1/events/vms"],
        access: Access::Scope(Scope::Read),
        hints: Hints::READS,
        query: Some(of::<Since>),
        body: None,
        answer: Answer::Events,
        tool: Skin::Absent("a stream without end; events_list pages through the same events"),
        verb: Skin::As("events"),
    },
    Operation {
        id: "mcp",
        title: "MCP",
        description: "Model Context Protocol over Streamable HTTP: 2026-07-28, and 2025-11-25 and \
                      older by initialize.",
        method: Method::POST,
        path: "/mcp",
        aliases: &[],
        access: Access::Scope(Scope::Read),
        hints: Hints::READS,
        query: None,
        body: Some(Body::Json(of::<serde_json::Value>)),
        answer: Answer::Guest,
        tool: SKIN,
        verb: SKIN,
    },
];
