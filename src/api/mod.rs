//! REST, server-sent events, WebSocket and MCP over the orchestrator: convert and forward.

mod access;
mod agui;
mod artifacts;
mod audit;
mod body;
mod builds;
mod channel;
mod console;
mod e2b;
mod error;
mod events;
mod exec;
mod exposures;
mod files;
mod guest;
mod images;
mod jobs;
mod list;
mod logs;
mod mcp;
mod openapi;
pub mod operations;
mod plugin_artifacts;
mod plugins;
mod processes;
mod rewind;
mod server;
mod tls;
mod tokens;
mod tunnel;
mod ui;
mod view;
mod vm_access;
mod vms;
mod volumes;

use axum::extract::{DefaultBodyLimit, State};
use axum::middleware::from_fn;
use axum::response::IntoResponse;
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use std::collections::BTreeMap;

use crate::orchestrator::Orchestrator;
use crate::wire::{Health, SystemInfo};

pub use access::{Auth, InvalidNetwork, NetworkList, Rules, authorize, protect};
pub use agui::mount as mount_agui;
pub use e2b::{E2bSettings, by_host as e2b_by_host, mount as mount_e2b};
pub use mcp::mount as mount_mcp;
pub use server::{Listener, Service, Shortcut, serve};
pub use tls::{Tls, TlsError};

/// Bytes of a request's body, but for what is streamed through the proxy.
const BODY_LEN_MAX: usize = 32 * 1024 * 1024;

/// The routes. A new endpoint is its own function and one line, here or below.
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
        .route("/api/v1/vms/{name}/ttl", put(vms::set_ttl))
        .route("/api/v1/vms/{name}/wait", get(vms::wait_for))
        .route("/api/v1/vms/{name}/console", get(console::console))
        .route("/ws/v1/vms/{name}/console", get(console::console))
        .route("/api/v1/vms/{name}/tunnel/{port}", get(tunnel::tunnel))
        .route("/ws/v1/vms/{name}/logs", get(logs::stream))
        .route("/api/v1/vms/{name}/logs", get(logs::logs))
        .route("/api/v1/plugins", get(plugins::list).post(plugins::install))
        .route("/api/v1/plugins/{plugin}", get(plugins::show).delete(plugins::remove))
        .route("/api/v1/plugins/{plugin}/manifest", get(plugins::manifest))
        .route("/api/v1/plugins/{plugin}/versions", get(plugins::versions))
        .route("/api/v1/plugins/{plugin}/enabled", post(plugins::set_enabled))
        .route("/api/v1/plugins/{plugin}/rollback", post(plugins::roll_back))
        .route(
            "/api/v1/plugins/{plugin}/artifacts",
            get(plugin_artifacts::list)
                .post(plugin_artifacts::put)
                .delete(plugin_artifacts::delete),
        )
        .route("/api/v1/plugins/{plugin}/artifacts/{artifact}", get(plugin_artifacts::get))
        .route("/api/v1/schemas/plugin-manifest", get(plugins::schema))
        .route("/api/v1/plugins/{plugin}/fetch", post(artifacts::fetch))
        .route("/api/v1/artifacts", get(artifacts::list))
        .route("/api/v1/images", get(images::list))
        .route("/api/v1/images/pull", post(images::pull))
        .route("/api/v1/images/prune", post(images::prune))
        .route("/api/v1/images/{*name}", get(images::inspect).delete(images::remove))
        .route("/api/v1/operations", get(jobs::list))
        .route("/api/v1/operations/{id}", get(jobs::get))
        .route("/api/v1/operations/{id}/cancel", post(jobs::cancel))
        .route("/api/v1/volumes", get(volumes::list).post(volumes::create))
        .route("/api/v1/volumes/{volume}", get(volumes::get).delete(volumes::delete))
        .route("/api/v1/volumes/{volume}/grow", post(volumes::grow))
        .route("/api/v1/events/history", get(events::history))
        .route("/api/v1/events", get(events::events))
        .route("/api/v1/events/vms", get(events::events))
        .route("/api/v1/tokens", get(tokens::list).post(tokens::create))
        .route("/api/v1/tokens/{name}", delete(tokens::revoke))
        .route("/api/v1/audit", get(audit::list))
        .route("/openapi.json", get(openapi::document))
        .route("/openapi", get(openapi::document))
        .route("/docs", get(openapi::page))
        .merge(in_guests())
        .merge(ui::router())
        .layer(DefaultBodyLimit::max(BODY_LEN_MAX))
        .layer(from_fn(body::bounded))
        .merge(streams())
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .with_state(orchestrator)
}

/// Routes that take what a request's body brings, whatever its length.
fn streams() -> Router<Orchestrator> {
    Router::new()
        .route("/api/v1/images/import", post(images::import))
        .route("/api/v1/builds", post(builds::build))
        .route("/api/v1/artifacts/{digest}", get(builds::artifact))
        .route("/api/v1/volumes/{volume}/backup", get(volumes::backup).put(volumes::restore))
        .route("/api/v1/vms/{name}/processes/{id}/stdin", post(processes::write))
        .route("/api/v1/vms/{name}/files/content", get(files::read).put(files::write))
        .route("/api/v1/vms/{name}/files/tar", get(files::pack).put(files::unpack))
}

/// Routes to what is in a running guest.
fn in_guests() -> Router<Orchestrator> {
    Router::new()
        .route("/api/v1/vms/{name}/console/resize", post(console::resize))
        .route("/api/v1/vms/{name}/exec", post(exec::exec).get(exec::remote))
        .route("/api/v1/vms/{name}/processes", get(processes::list).post(processes::start))
        .route("/api/v1/vms/{name}/processes/{id}", get(processes::get).delete(processes::remove))
        .route("/api/v1/vms/{name}/processes/{id}/attach", get(processes::attach))
        .route("/api/v1/vms/{name}/processes/{id}/signal", post(processes::signal))
        .route("/api/v1/vms/{name}/processes/{id}/resize", post(processes::resize))
        .route("/api/v1/vms/{name}/processes/{id}/keep", post(processes::keep))
        .route("/api/v1/vms/{name}/processes/{id}/wait", get(processes::wait))
        .route(
            "/api/v1/vms/{name}/access",
            get(vm_access::get).post(vm_access::renew).delete(vm_access::revoke),
        )
        .route("/api/v1/vms/{name}/exposures", get(exposures::list).post(exposures::add))
        .route("/api/v1/vms/{name}/exposures/{transport}/{host_port}", delete(exposures::remove))
        .route("/api/v1/vms/{name}/access/url", post(vm_access::sign))
        .route("/api/v1/vms/{name}/files", delete(files::remove))
        .route("/api/v1/vms/{name}/files/stat", get(files::stat))
        .route("/api/v1/vms/{name}/files/list", get(files::list))
        .route("/api/v1/vms/{name}/files/mkdir", post(files::make_folder))
        .route("/api/v1/vms/{name}/files/move", post(files::rename))
        .route("/api/v1/vms/{name}/files/watch", get(files::watch))
        .route("/api/v1/vms/{name}/guest", get(guest::info))
        .route("/api/v1/vms/{name}/guest/metrics", get(guest::metrics))
        .route("/api/v1/vms/{name}/guest/ports", get(guest::ports))
        .route("/api/v1/vms/{name}/guest/time", post(guest::sync_time))
}

async fn healthz() -> impl IntoResponse {
    Json(Health { status: "ok".to_owned() })
}

async fn info(State(orchestrator): State<Orchestrator>) -> impl IntoResponse {
    let mut vms = BTreeMap::new();
    for vm in orchestrator.list() {
        *vms.entry(vm.state.as_str().to_owned()).or_insert(0) += 1;
    }
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Json(SystemInfo { status: "ok".to_owned(), version, vms })
}
