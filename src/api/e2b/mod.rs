//! The API that E2B's SDKs speak, below `/e2b`: a control plane for sandboxes, and the services that
//! they expect in each (`process.Process` and `filesystem.Filesystem` by Connect, `/files`), which the
//! daemon serves itself by way of the guest's agent.
//!
//! A sandbox is a VM with the label [`TEMPLATE_LABEL`]; other VMs do not exist here. A request to a
//! sandbox names it in a header, and the port too: that of the services is [`ENVD_PORT`], any other is
//! passed on to the guest.
//!
//! ```text
//!   client ─▶ authenticate ─▶ another port? ─▶ /api/v1/vms/{name}/proxy/{port}/… ─▶ guest
//!                    (gate)        │ no
//!                                  └─▶ authorize: scope, audit ─▶ handler ─▶ orchestrator
//!          ◀─ shape: refusals in E2B's form ◀────────────────────────┘
//! ```

mod connect;
mod files;
mod filesystem;
mod gate;
mod hosts;
mod place;
mod process;
mod sandbox;
mod shape;
mod template;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderName, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, get, post, put};

use crate::api::access::authorize;
use crate::api::error::Refusal;
use crate::api::operations::pass;
use crate::api::{BODY_LEN_MAX, body};
use crate::model::{Vm, VmName, VmState};
use crate::orchestrator::Orchestrator;
use watch::Watchers;

pub use files::FileQuery;
pub use gate::{api_key, principal, refused};
pub use hosts::by_host;
pub use shape::reshape;

/// What the SDKs may expect of the services; later versions have what these do not: metadata of
/// files (0.6.2), entries in file events (0.6.3), watches of network mounts (0.6.4).
const ENVD_VERSION: &str = "0.6.1";
/// The port that stands for the services.
const ENVD_PORT: u16 = 49983;
/// Label of VMs that are sandboxes; its value is the template.
const TEMPLATE_LABEL: &str = "e2b/template";
/// Begins the labels that hold a client's metadata.
const METADATA_PREFIX: &str = "e2b/metadata/";
/// Names the sandbox that a request is for.
const SANDBOX_ID: HeaderName = HeaderName::from_static("e2b-sandbox-id");
/// Names the port in it.
const SANDBOX_PORT: HeaderName = HeaderName::from_static("e2b-sandbox-port");
/// Shows a sandbox's own token.
const ACCESS_TOKEN: HeaderName = HeaderName::from_static("x-access-token");
/// Shows a token of the daemon's.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Segments of a path before the sandbox's own: `/e2b`.
const PREFIX: &str = "/e2b";

/// What sandboxes are made of.
#[derive(Clone, Debug)]
pub struct E2bSettings {
    /// Images by the names of templates.
    pub templates: BTreeMap<String, String>,
    /// Virtual CPUs, unless a plugin says otherwise.
    pub cpus: u32,
    /// RAM in MiB, unless a plugin says otherwise.
    pub memory_mib: u64,
    /// Domain, with its port, below which sandboxes' ports have names.
    pub domain: Option<String>,
}

/// What the handlers share.
#[derive(Clone, Debug)]
struct E2b {
    routes: Router,
    orchestrator: Orchestrator,
    settings: Arc<E2bSettings>,
    watchers: Arc<Watchers>,
}

/// The routes, which pass on other ports by way of `routes`.
pub fn mount(routes: Router, orchestrator: Orchestrator, settings: E2bSettings) -> Router {
    let state = E2b {
        routes,
        orchestrator: orchestrator.clone(),
        settings: Arc::new(settings),
        watchers: Arc::default(),
    };
    let own = Router::new()
        .merge(control())
        .merge(services())
        .layer(DefaultBodyLimit::max(BODY_LEN_MAX))
        .layer(from_fn(body::bounded))
        .merge(streams())
        .with_state(state.clone());
    authorize(own, orchestrator).layer(from_fn_with_state(state, to_port))
}

fn control() -> Router<E2b> {
    Router::new()
        .route("/e2b/v2/sandboxes", get(sandbox::list).post(sandbox::create))
        .route("/e2b/sandboxes", get(sandbox::list).post(sandbox::create))
        .route("/e2b/sandboxes/{sandbox}", get(sandbox::get).delete(sandbox::kill))
        .route("/e2b/v2/sandboxes/{sandbox}/connect", post(sandbox::connect))
        .route("/e2b/sandboxes/{sandbox}/connect", post(sandbox::connect))
        .route("/e2b/sandboxes/{sandbox}/resume", post(sandbox::connect))
        .route("/e2b/sandboxes/{sandbox}/timeout", post(sandbox::set_timeout))
        .route("/e2b/sandboxes/{sandbox}/refreshes", post(sandbox::refresh))
        .route("/e2b/sandboxes/{sandbox}/pause", post(sandbox::pause))
        .route("/e2b/sandboxes/{sandbox}/metrics", get(sandbox::metrics))
        .route("/e2b/v2/sandboxes/{sandbox}/logs", get(sandbox::logs))
        .route("/e2b/sandboxes/{sandbox}/logs", get(sandbox::logs))
        .route("/e2b/sandboxes/{sandbox}/snapshots", post(sandbox::snapshot))
        .route("/e2b/sandboxes/{sandbox}/fork", post(sandbox::fork))
        .route("/e2b/sandboxes/{sandbox}/network", put(sandbox::set_network))
        .route("/e2b/snapshots", get(sandbox::list_snapshots))
        .route("/e2b/templates/{template}", delete(sandbox::remove_template))
}

fn services() -> Router<E2b> {
    Router::new()
        .route("/e2b/health", get(process::health))
        .route("/e2b/process.Process/List", post(process::list))
        .route("/e2b/process.Process/Start", post(process::start))
        .route("/e2b/process.Process/Connect", post(process::connect))
        .route("/e2b/process.Process/Update", post(process::update))
        .route("/e2b/process.Process/SendInput", post(process::send_input))
        .route("/e2b/process.Process/SendSignal", post(process::send_signal))
        .route("/e2b/process.Process/CloseStdin", post(process::close_stdin))
        .route("/e2b/filesystem.Filesystem/Stat", post(filesystem::stat))
        .route("/e2b/filesystem.Filesystem/ListDir", post(filesystem::list))
        .route("/e2b/filesystem.Filesystem/MakeDir", post(filesystem::make_folder))
        .route("/e2b/filesystem.Filesystem/Move", post(filesystem::rename))
        .route("/e2b/filesystem.Filesystem/Remove", post(filesystem::remove))
        .route("/e2b/filesystem.Filesystem/WatchDir", post(watch::watch))
        .route("/e2b/filesystem.Filesystem/CreateWatcher", post(watch::create))
        .route("/e2b/filesystem.Filesystem/GetWatcherEvents", post(watch::events))
        .route("/e2b/filesystem.Filesystem/RemoveWatcher", post(watch::remove))
}

/// Routes that take what a request's body brings, whatever its length; and the rest, so that other
/// ports of sandboxes have every path.
fn streams() -> Router<E2b> {
    Router::new()
        .route("/e2b/files", get(files::read).post(files::write))
        .route("/e2b/process.Process/StreamInput", post(process::stream_input))
        .route("/e2b", any(unknown))
        .route("/e2b/", any(unknown))
        .route("/e2b/{*path}", any(unknown))
}

async fn unknown(uri: Uri) -> Refusal {
    let text = format!("there is no {}", uri.path());
    Refusal::new(StatusCode::NOT_FOUND, "route_not_found", text)
}

/// The port of a sandbox that a request is for, if it is not the services'.
fn other_port(headers: &axum::http::HeaderMap) -> Option<u16> {
    headers.get(SANDBOX_ID)?;
    let port = headers.get(SANDBOX_PORT)?.to_str().ok()?.parse().ok()?;
    (port != ENVD_PORT).then_some(port)
}

/// Passes a request for another port on to the guest.
async fn to_port(State(e2b): State<E2b>, mut request: Request, next: Next) -> Response {
    let Some(port) = other_port(request.headers()) else { return next.run(request).await };
    let vm = match sandbox_of(&e2b.orchestrator, request.headers()) {
        Ok(vm) => vm,
        Err(refusal) => return refusal.into_response(),
    };
    let wanted = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let rest = wanted.strip_prefix(PREFIX).unwrap_or(wanted);
    let Ok(uri) = format!("/api/v1/vms/{}/proxy/{port}{rest}", vm.name).parse() else {
        let text = "the path is none";
        return Refusal::new(StatusCode::BAD_REQUEST, "invalid_path", text).into_response();
    };
    for secret in [SANDBOX_ID, SANDBOX_PORT, ACCESS_TOKEN, API_KEY, header::AUTHORIZATION] {
        request.headers_mut().remove(secret);
    }
    pass(e2b.routes, request, uri).await
}

/// The VM of a sandbox, in any state but that of being deleted.
fn find(orchestrator: &Orchestrator, id: &str) -> Option<Vm> {
    let vm = orchestrator.get(&VmName::try_from(id).ok()?).ok()?;
    (vm.labels.contains_key(TEMPLATE_LABEL) && vm.state != VmState::Deleting).then_some(vm)
}

/// The sandbox that a request's header names.
///
/// # Errors
/// There is none, or it does not run: the SDKs look for these words.
fn sandbox_of(orchestrator: &Orchestrator, headers: &axum::http::HeaderMap) -> Result<Vm, Refusal> {
    let id = headers.get(SANDBOX_ID).and_then(|id| id.to_str().ok());
    let vm = id.and_then(|id| find(orchestrator, id)).filter(|vm| vm.state == VmState::Running);
    vm.ok_or_else(|| {
        let text = "The sandbox was not found";
        Refusal::new(StatusCode::BAD_GATEWAY, "sandbox_not_found", text)
    })
}

/// The running sandbox that a request is for, and as whom.
#[derive(Debug)]
struct Guest {
    name: VmName,
    user: Option<String>,
}

impl FromRequestParts<E2b> for Guest {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, e2b: &E2b) -> Result<Guest, Refusal> {
        let vm = sandbox_of(&e2b.orchestrator, &parts.headers)?;
        Ok(Guest { name: vm.name, user: place::user(&parts.headers) })
    }
}
