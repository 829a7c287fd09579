//! `/api/v1/vms`.

use std::time::{Duration, Instant};

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::access::{Principal, limits};
use crate::api::error::Refusal;
use crate::api::list::{ListQuery, NoPage};
use crate::api::view;
use crate::model::{Vm, VmName, VmState};
use crate::orchestrator::{Orchestrator, Wait};
use crate::wire::{CreateVm, SetTtl, VmView};

/// How long `wait=true` waits unless told otherwise, and at the most.
const WAIT_MS_DEFAULT: u64 = 120_000;
const WAIT_MS_MAX: u64 = 3_600_000;

/// Query of the calls that change a VM.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Waiting {
    /// Answer when it is done rather than when it is stored.
    wait: Option<bool>,
    /// How long to wait, in milliseconds, at most an hour; the change goes on afterwards.
    timeout_ms: Option<u64>,
    /// What to wait for where a VM comes up: its agent, or its workload too.
    until: Option<Until>,
}

/// What `wait` waits for where a VM comes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// The agent has answered.
    Running,
    /// The workload is ready, or is not going to be.
    Ready,
}

/// How a call waits, as its query has it.
struct Patience {
    wait: Wait,
    until: Until,
    began: Instant,
}

impl Patience {
    /// Waits on, where that is asked for, until the VM's workload has settled too.
    async fn settle(&self, orchestrator: &Orchestrator, vm: Vm) -> Result<Vm, Refusal> {
        match (self.wait, self.until) {
            (Wait::Done(limit), Until::Ready) => {
                let rest = limit.saturating_sub(self.began.elapsed());
                Ok(orchestrator.settled(&vm.name, rest).await?)
            }
            _ => Ok(vm),
        }
    }
}

type WaitQuery = Result<Query<Waiting>, QueryRejection>;
type Answer = Result<Json<VmView>, Refusal>;

fn wait(query: WaitQuery, default: bool) -> Result<Patience, Refusal> {
    let Query(Waiting { wait, timeout_ms, until }) = query?;
    let limit = Duration::from_millis(timeout_ms.unwrap_or(WAIT_MS_DEFAULT).min(WAIT_MS_MAX));
    let wait = if wait.unwrap_or(default) { Wait::Done(limit) } else { Wait::Accepted };
    Ok(Patience { wait, until: until.unwrap_or(Until::Running), began: Instant::now() })
}

/// `GET /api/v1/vms`: an array, with the number of all in `X-Total-Count` and the next page, if there
/// is one, in `Link`.
///
/// # Errors
/// A problem.
pub async fn list(
    State(orchestrator): State<Orchestrator>,
    Extension(principal): Extension<Principal>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(query) = query?;
    let mut vms = orchestrator.list();
    vms.retain(|vm| limits::has(&vm.labels, &principal.labels));
    let page = query.choose(vms).map_err(|error| {
        let (status, code) = match error {
            NoPage::TooLong => (StatusCode::BAD_REQUEST, "invalid_query"),
            NoPage::Unknown => (StatusCode::NOT_FOUND, "page_not_found"),
        };
        Refusal::new(status, code, error.to_string())
    })?;
    let views: Vec<_> = page.vms.iter().map(view::vm).collect();
    let mut response = Json(views).into_response();
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static("x-total-count"), HeaderValue::from(page.total));
    let next =
        page.next.map(|next| format!("<{}>; rel=\"next\"", query.path_of("/api/v1/vms", &next)));
    let next = next.and_then(|next| HeaderValue::from_str(&next).ok());
    headers.extend(next.map(|next| (header::LINK, next)));
    Ok(response)
}

/// `POST /api/v1/vms`.
///
/// # Errors
/// A problem.
pub async fn create(
    State(orchestrator): State<Orchestrator>,
    Extension(principal): Extension<Principal>,
    query: WaitQuery,
    body: Result<Json<CreateVm>, JsonRejection>,
) -> Result<impl IntoResponse, Refusal> {
    let patience = wait(query, false)?;
    let Json(mut body) = body?;
    limits::create(&principal, &mut body)?;
    let start = body.start;
    let (plugin, version) = (body.plugin.clone(), body.plugin_version.clone());
    let plugin = plugin.as_deref().map(|name| (name, version.as_deref()));
    let expiry = view::expiry(&orchestrator, body.ttl_ms, body.on_expiry)?;
    let mut new = orchestrator.plan(plugin, view::request(body)?)?;
    new.expiry = expiry;
    let mut vm = orchestrator.create(new, start, patience.wait).await?;
    if start {
        vm = patience.settle(&orchestrator, vm).await?;
    }
    Ok((StatusCode::CREATED, Json(view::vm(&vm))))
}

/// `GET /api/v1/vms/{name}`.
///
/// # Errors
/// A problem.
pub async fn get(State(orchestrator): State<Orchestrator>, Path(name): Path<String>) -> Answer {
    Ok(Json(view::vm(&orchestrator.get(&VmName::try_from(name.as_str())?)?)))
}

/// `DELETE /api/v1/vms/{name}`.
///
/// # Errors
/// A problem.
pub async fn delete(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
) -> Result<StatusCode, Refusal> {
    orchestrator.delete(&VmName::try_from(name.as_str())?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/v1/vms/{name}/start`.
///
/// # Errors
/// A problem.
pub async fn start(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
    query: WaitQuery,
) -> Answer {
    let patience = wait(query, false)?;
    let vm = orchestrator.start(&VmName::try_from(name.as_str())?, patience.wait).await?;
    Ok(Json(view::vm(&patience.settle(&orchestrator, vm).await?)))
}

/// `POST /api/v1/vms/{name}/stop`.
///
/// # Errors
/// A problem.
pub async fn stop(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
    query: WaitQuery,
) -> Answer {
    let patience = wait(query, true)?;
    let vm = orchestrator.stop(&VmName::try_from(name.as_str())?, patience.wait).await?;
    Ok(Json(view::vm(&vm)))
}

/// `POST /api/v1/vms/{name}/restart`.
///
/// # Errors
/// A problem.
pub async fn restart(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
    query: WaitQuery,
) -> Answer {
    let patience = wait(query, false)?;
    let vm = orchestrator.restart(&VmName::try_from(name.as_str())?, patience.wait).await?;
    Ok(Json(view::vm(&patience.settle(&orchestrator, vm).await?)))
}

/// `PUT /api/v1/vms/{name}/ttl`.
///
/// # Errors
/// A problem.
pub async fn set_ttl(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
    body: Result<Json<SetTtl>, JsonRejection>,
) -> Answer {
    let name = VmName::try_from(name.as_str())?;
    let Json(SetTtl { ttl_ms, on_expiry }) = body?;
    let expiry = view::expiry(&orchestrator, ttl_ms, on_expiry)?;
    Ok(Json(view::vm(&orchestrator.set_expiry(&name, expiry).await?)))
}

/// Query of wait.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WaitFor {
    /// What to wait for.
    phase: Option<Phase>,
    /// How long, in milliseconds, at most an hour.
    timeout_ms: Option<u64>,
}

/// What can be waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The agent has answered.
    #[default]
    Running,
    /// It runs, and its workload, if it has one, is ready.
    Ready,
    /// No machine.
    Stopped,
    /// No machine, and not by anyone's wish.
    Failed,
    /// The record is gone.
    Deleted,
}

impl Phase {
    fn holds(self, vm: &Vm) -> bool {
        match self {
            Phase::Running => vm.state == VmState::Running,
            Phase::Ready => vm.is_ready(),
            Phase::Stopped => vm.state == VmState::Stopped,
            Phase::Failed => matches!(vm.state, VmState::Failed { .. }),
            Phase::Deleted => false,
        }
    }
}

/// `GET /api/v1/vms/{name}/wait`.
///
/// # Errors
/// A problem; 404 also when the VM is deleted while something else was waited for.
pub async fn wait_for(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
    query: Result<Query<WaitFor>, QueryRejection>,
) -> Answer {
    let Query(WaitFor { phase, timeout_ms }) = query?;
    let phase = phase.unwrap_or_default();
    let limit = Duration::from_millis(timeout_ms.unwrap_or(WAIT_MS_DEFAULT).min(WAIT_MS_MAX));
    let name = VmName::try_from(name.as_str())?;
    let until = move |vm: &Vm| phase.holds(vm);
    let vm = match phase {
        Phase::Deleted => orchestrator.wait_until_gone(&name, limit).await?,
        _ => orchestrator.wait_until(&name, until, limit).await?,
    };
    Ok(Json(view::vm(&vm)))
}
