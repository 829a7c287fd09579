//! REST, server-sent events and WebSocket over the orchestrator: convert and forward.

mod auth;
mod body;
mod channel;
mod console;
mod error;
mod events;
mod exec;
mod logs;
mod processes;
mod server;
mod view;
mod vms;

use axum::extract::{DefaultBodyLimit, State};
use axum::middleware::from_fn;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use std::collections::BTreeMap;

use crate::orchestrator::Orchestrator;
use crate::wire::SystemInfo;

pub use auth::{Auth, Trusted, protect};
pub use server::{Listener, serve};

/// Bytes of a request's body, but for what is streamed through the proxy.
const BODY_LEN_MAX: usize = 32 * 1024 * 1024;

/// The routes. A new endpoint is its own function and one line here.
pub fn router(orchestrator: Orchestrator) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(healthz))
        .route("/api/v1/system/info", get(info))
        .route("/api/v1/vms", get(vms::list).post(vms::create))
        .route("/api/v1/vms/{name}", get(vms::get).delete(vms::delete))
        .route("/api/v1/vms/{name}/start", post(vms::start))
        .route("/api/v1/vms/{name}/stop", post(vms::stop))
        .route("/api/v1/vms/{name}/restart", post(vms::restart))
        .route("/api/v1/vms/{name}/exec", post(exec::exec).get(exec::remote))
        .route("/api/v1/vms/{name}/processes", get(processes::list).post(processes::start))
        .route("/api/v1/vms/{name}/processes/{id}", get(processes::get).delete(processes::remove))
        .route("/api/v1/vms/{name}/processes/{id}/attach", get(processes::attach))
        .route("/api/v1/vms/{name}/processes/{id}/stdin", post(processes::write))
        .route("/api/v1/vms/{name}/processes/{id}/signal", post(processes::signal))
        .route("/api/v1/vms/{name}/processes/{id}/resize", post(processes::resize))
        .route("/api/v1/vms/{name}/processes/{id}/keep", post(processes::keep))
        .route("/api/v1/vms/{name}/processes/{id}/wait", get(processes::wait))
        .route("/api/v1/vms/{name}/console", get(console::console))
        .route("/ws/v1/vms/{name}/console", get(console::console))
        .route("/api/v1/vms/{name}/logs", get(logs::logs))
        .route("/api/v1/events", get(events::events))
        .route("/api/v1/events/vms", get(events::events))
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_LEN_MAX))
        .layer(from_fn(body::bounded))
        .with_state(orchestrator)
}

async fn healthz() -> impl IntoResponse {
    Json(serde_json::json!({ "status": "ok" }))
}

async fn info(State(orchestrator): State<Orchestrator>) -> impl IntoResponse {
    let mut vms = BTreeMap::new();
    for vm in orchestrator.list() {
        *vms.entry(vm.state.as_str().to_owned()).or_insert(0) += 1;
    }
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Json(SystemInfo { status: "ok".to_owned(), version, vms })
}
