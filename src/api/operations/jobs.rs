//! Operations on work that takes long.

use axum::http::Method;

use crate::api::jobs;
use crate::api::operations::{Access, Answer, Hints, Operation, Skin, of};
use crate::model::Scope;
use crate::wire::JobView;

/// See the folder's head.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        id: "listOperations",
        title: "List operations",
        description: "Work that takes long: pulls, imports, fetches and builds that run, and the \
                      last that have ended.",
        method: Method::GET,
        path: "/api/v1/operations",
        aliases: &[],
        access: Access::Scope(Scope::Read),
        hints: Hints::READS,
        query: None,
        body: None,
        answer: Answer::Json(200, of::<Vec<JobView>>),
        tool: Skin::As("operation_list"),
        verb: Skin::As("operations list"),
    },
    Operation {
        id: "getOperation",
        title: "Look at an operation",
        description: "How far it is, and how it has ended; wait_ms waits for the end.",
        method: Method::GET,
        path: "/api/v1/operations/{id}",
        aliases: &[],
        access: Access::Scope(Scope::Read),
        hints: Hints::READS,
        query: Some(of::<jobs::JobQuery>),
        body: None,
        answer: Answer::Json(200, of::<JobView>),
        tool: Skin::As("operation_get"),
        verb: Skin::As("operations get"),
    },
    Operation {
        id: "cancelOperation",
        title: "Cancel an operation",
        description: "Asks it to end. What it has downloaded is kept for the next try; one that \
                      has ended stays as it is.",
        method: Method::POST,
        path: "/api/v1/operations/{id}/cancel",
        aliases: &[],
        access: Access::Scope(Scope::Operate),
        hints: Hints { idempotent: true, ..Hints::DESTROYS },
        query: None,
        body: None,
        answer: Answer::Json(200, of::<JobView>),
        tool: Skin::As("operation_cancel"),
        verb: Skin::As("operations cancel"),
    },
];
