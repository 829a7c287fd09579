//! HTTP from outside to a guest: to its agent, or to a port on its loopback. Bytes go straight from
//! the client's connection into the guest's ring; nothing is buffered whole.

mod actions;
mod deadline;
mod devtools;
mod forward;
mod guests;
mod headers;
mod host;
mod openapi;
mod relay;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{any, get};

use crate::orchestrator::Orchestrator;
use forward::{Proxy, Target, forward, problem, timeout, vm_name};
use guests::{Guests, Place};
use headers::{Origin, path_after};

pub use host::host_router;
pub use relay::Relay;

/// What guests see as their own name.
const HOST: &str = "localhost";
/// Segments of a path before the guest's own.
const AGENT_SEGMENTS: usize = 5;
const PORT_SEGMENTS: usize = 6;

/// The proxy's routes in the API.
pub fn router(orchestrator: Orchestrator) -> Router {
    let guests = Guests::new(&orchestrator);
    Router::new()
        .route("/api/v1/vms/{name}/agent/{*path}", any(to_agent))
        .route("/api/v1/vms/{name}/proxy/{port}", any(to_port))
        .route("/api/v1/vms/{name}/proxy/{port}/", any(to_port))
        .route("/api/v1/vms/{name}/proxy/{port}/{*path}", any(to_port))
        .route("/api/v1/vms/{name}/actions/{plugin}/{action}", any(actions::of_vm))
        .route("/api/v1/plugins/{plugin}/actions/{action}", any(actions::of_any))
        .route("/api/v1/vms/{name}/openapi", get(openapi::of_vm))
        .route("/api/v1/vms/{name}/devtools", any(devtools::to_browser))
        .route("/api/v1/vms/{name}/devtools/{*path}", any(devtools::to_browser))
        .route("/ws/v1/vms/{name}/devtools", any(devtools::to_browser))
        .route("/ws/v1/vms/{name}/devtools/{*path}", any(devtools::to_browser))
        .with_state(Proxy { orchestrator, guests })
}

async fn to_agent(
    State(proxy): State<Proxy>,
    Path((name, _)): Path<(String, String)>,
    request: Request,
) -> Response {
    match vm_name(&name) {
        Ok(name) => through(&proxy, Place::Agent(name), AGENT_SEGMENTS, request).await,
        Err(refusal) => *refusal,
    }
}

async fn to_port(
    State(proxy): State<Proxy>,
    Path(path): Path<Vec<(String, String)>>,
    request: Request,
) -> Response {
    let part = |wanted: &str| path.iter().find(|(key, _)| key == wanted).map(|(_, value)| value);
    let name = match vm_name(part("name").map_or("", String::as_str)) {
        Ok(name) => name,
        Err(refusal) => return *refusal,
    };
    let Some(port @ 1..) = part("port").and_then(|port| port.parse::<u16>().ok()) else {
        let text = "a port is a number from 1 to 65535".to_owned();
        return problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid_port", text, None);
    };
    through(&proxy, Place::Port(name, port), PORT_SEGMENTS, request).await
}

async fn through(proxy: &Proxy, place: Place, segments: usize, mut request: Request) -> Response {
    let (prefix, rest) = path_after(request.uri(), segments);
    let (prefix, path) = (prefix.to_owned(), rest.to_owned());
    let origin = Origin { prefix, host: HOST.to_owned(), ..Origin::default() };
    let head_timeout = timeout(request.headers_mut());
    let target = Target { place, path, origin, head_timeout };
    forward(proxy, target, request).await.unwrap_or_else(|problem| problem)
}
