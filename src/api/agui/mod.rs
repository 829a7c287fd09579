//! The operations as an AG-UI 1.0 agent: `POST /api/v1/agui` for the fleet and
//! `POST /api/v1/vms/{name}/agui` for one VM. A run is one operation: the fleet's state, what is
//! done as a tool call with its steps, and the state again as it changes. No language model is
//! needed; a client's last message is a command (`command`).
//!
//! A run is a task of its own that writes events into its record (`record`); an answer reads them
//! from there, so that a client may come back. A client that hangs up cancels its run, unless it has
//! asked for `detach`.

mod command;
mod event;
mod interrupt;
mod record;
mod run;
mod state;

use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, FromRequest, Path, Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, header};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::api::access::{Principal, RequestId, authorize};
use crate::api::error::Refusal;
use crate::api::operations::{self, Caller};
use crate::model::{Scope, VmName};
use crate::orchestrator::{Error, Orchestrator};
pub use event::RunInput;
use interrupt::Interrupts;
use record::{Record, Records};
use run::Run;

/// What all runs share.
#[derive(Clone, Debug)]
struct Agents {
    routes: Router,
    orchestrator: Orchestrator,
    records: Arc<Records>,
    interrupts: Arc<Interrupts>,
}

/// The routes of the agents, which run the operations behind `routes`.
pub fn mount(routes: Router, orchestrator: Orchestrator) -> Router {
    let agents = Agents {
        routes,
        orchestrator: orchestrator.clone(),
        records: Arc::default(),
        interrupts: Arc::default(),
    };
    let own = Router::new()
        .route("/api/v1/agui", post(fleet))
        .route("/api/v1/agui/capabilities", get(capabilities))
        .route("/api/v1/agui/runs/{run}/events", get(replay))
        .route("/api/v1/agui/runs/{run}/cancel", post(cancel))
        .route("/api/v1/vms/{name}/agui", post(one_vm))
        .with_state(agents);
    authorize(own, orchestrator)
}

type Body = Result<Json<RunInput>, JsonRejection>;

async fn fleet(
    State(agents): State<Agents>,
    Extension(principal): Extension<Principal>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    begin(&agents, Caller { principal, request_id }, &headers, body, None)
}

/// An agent in the guest, if the VM's plugin has one, runs in place of ours: what it says passes through.
async fn one_vm(
    State(agents): State<Agents>,
    Path(name): Path<String>,
    Extension(principal): Extension<Principal>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Result<Response, Refusal> {
    let name = VmName::try_from(name.as_str())?;
    if let Some((plugin, action)) = agents.orchestrator.agui_action(&name)? {
        let uri = format!("/api/v1/vms/{name}/actions/{plugin}/{action}").parse::<Uri>();
        let uri = uri.map_err(|_| Error::Internal("an action has no path"))?;
        return Ok(operations::pass(agents.routes, request, uri).await);
    }
    let headers = request.headers().clone();
    let body = Json::from_request(request, &()).await;
    let headers = &headers;
    begin(&agents, Caller { principal, request_id }, headers, body, Some(name))
}

fn begin(
    agents: &Agents,
    caller: Caller,
    headers: &HeaderMap,
    body: Body,
    vm: Option<VmName>,
) -> Result<Response, Refusal> {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    if !["text/event-stream", "text/*", "*/*"].iter().any(|kind| accept.contains(kind)) {
        let text = "a run is answered as text/event-stream";
        return Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", text));
    }
    let Json(input) = body?;
    input
        .validate()
        .map_err(|text| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_run", text))?;
    let detach = input.forwarded().detach;
    let record = agents
        .records
        .begin(&input.run_id, &caller.principal)
        .map_err(|text| Refusal::new(StatusCode::CONFLICT, "run_exists", text))?;
    let run = Run::new(agents.clone(), caller, input, vm, Arc::clone(&record));
    tokio::spawn(run.perform());
    Ok(stream(record, 0, !detach))
}

fn stream(record: Arc<Record>, from: usize, cancels: bool) -> Response {
    let unbuffered =
        [(HeaderName::from_static("x-accel-buffering"), "no"), (header::CACHE_CONTROL, "no-store")];
    let events = record::read(record, from, cancels);
    (unbuffered, Sse::new(events).keep_alive(KeepAlive::default())).into_response()
}

/// A run of the caller's own; an admin's are all.
fn find(agents: &Agents, run: &str, principal: &Principal) -> Result<Arc<Record>, Refusal> {
    let found = agents.records.find(run);
    let found = found
        .filter(|record| record.owner() == &*principal.name || principal.scope == Scope::Admin);
    found.ok_or_else(|| {
        Refusal::new(StatusCode::NOT_FOUND, "run_not_found", format!("there is no run {run:?}"))
    })
}

async fn replay(
    State(agents): State<Agents>,
    Path(run): Path<String>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let record = find(&agents, &run, &principal)?;
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
    Ok(stream(record, last.unwrap_or(0), false))
}

async fn cancel(
    State(agents): State<Agents>,
    Path(run): Path<String>,
    Extension(principal): Extension<Principal>,
) -> Result<StatusCode, Refusal> {
    find(&agents, &run, &principal)?.cancel();
    Ok(StatusCode::ACCEPTED)
}

async fn capabilities() -> Json<Value> {
    let items = operations::all().filter_map(|operation| {
        Some(json!({
            "name": operation.tool.name()?,
            "description": operation.description,
            "parameters": operations::argument_schema(operation),
        }))
    });
    let items: Vec<Value> = items.collect();
    Json(json!({
        "identity": {
            "name": "volantd",
            "type": "volantd",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Runs microVMs by command, without a language model.",
        },
        "transport": { "streaming": true, "resumable": true },
        "tools": { "supported": true, "items": items, "clientProvided": false },
        "state": { "snapshots": true, "deltas": true, "persistentState": true },
        "execution": { "codeExecution": true, "sandboxed": true },
        "humanInTheLoop": {
            "supported": true, "approvals": true, "interrupts": true, "approveWithEdits": true,
        },
    }))
}
