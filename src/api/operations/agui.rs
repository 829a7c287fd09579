//! The AG-UI agents, as routes.

use axum::http::Method;

use crate::api::agui::RunInput;
use crate::api::operations::{Access, Answer, Body, Hints, Operation, Skin, of};
use crate::model::Scope;

const SKIN: Skin = Skin::Absent("it is itself a skin over the operations");

/// See the folder's head.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        id: "runAgent",
        title: "AG-UI: the fleet",
        description: "Runs one operation as an AG-UI 1.0 agent and streams its events. What it \
                      does needs the scope of that operation.",
        method: Method::POST,
        path: "/api/v1/agui",
        aliases: &[],
        access: Access::Scope(Scope::Read),
        hints: Hints::RUNS,
        query: None,
        body: Some(Body::Json(of::<RunInput>)),
        answer: Answer::Events,
        tool: SKIN,
        verb: SKIN,
    },
    Operation {
        id: "runVMAgent",
        title: "AG-UI: one VM",
        description: "The same for one VM: only it can be seen and worked on.",
        method: Method::POST,
        path: "/api/v1/vms/{name}/agui",
        aliases: &[],
        access: Access::Scope(Scope::Read),
        hints: Hints::RUNS,
        query: None,
        body: Some(Body::Json(of::<RunInput>)),
        answer: Answer::Events,
        tool: SKIN,
        verb: SKIN,
    },
    Operation {
        id: "getAgentCapabilities",
        title: "AG-UI: capabilities",
        description: "What the agents can do: AG-UI's AgentCapabilities.",
        method: Method::GET,
        path: "/api/v1/agui/capabilities",
        aliases: &[],
        access: Access::Scope(Scope::Read),
        hints: Hints::READS,
        query: None,
        body: None,
        answer: Answer::Json(200, of::<serde_json::Value>),
        tool: SKIN,
        verb: SKIN,
    },
    Operation {
        id: "replayRun",
        title: "AG-UI: come back to a run",
        description: "A run's events from the beginning, or after Last-Event-ID, and what comes.",
        method: Method::GET,
        path: "/api/v1/agui/runs/{run}/events",
        aliases: &[],
        access: Access::Scope(Scope::Read),
        hints: Hints::READS,
        query: None,
        body: None,
        answer: Answer::Events,
        tool: SKIN,
        verb: SKIN,
    },
    Operation {
        id: "cancelRun",
        title: "AG-UI: cancel a run",
        description: "Asks a run to end; its last event says that it has.",
        method: Method::POST,
        path: "/api/v1/agui/runs/{run}/cancel",
        aliases: &[],
        access: Access::Scope(Scope::Read),
        hints: Hints::DESTROYS,
        query: None,
        body: None,
        answer: Answer::Empty(202),
        tool: SKIN,
        verb: SKIN,
    },
];
