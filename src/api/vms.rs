//! `/api/v1/vms`.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, StatusCode};
use axum::response::IntoResponse;
use serde::Deserialize;

use crate::api::error::Refusal;
use crate::api::view;
use crate::model::VmName;
use crate::orchestrator::{Orchestrator, Wait};
use crate::wire::{CreateVm, VmView};

/// How long `wait=true` waits unless told otherwise, and at the most.
const WAIT_MS_DEFAULT: u64 = 120_000;
const WAIT_MS_MAX: u64 = 3_600_000;

/// Query of the calls that change a VM.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waiting {
    wait: Option<bool>,
    timeout_ms: Option<u64>,
}

type WaitQuery = Result<Query<Waiting>, QueryRejection>;
type Answer = Result<Json<VmView>, Refusal>;

fn wait(query: WaitQuery, default: bool) -> Result<Wait, Refusal> {
    let Query(Waiting { wait, timeout_ms }) = query?;
    let limit = Duration::from_millis(timeout_ms.unwrap_or(WAIT_MS_DEFAULT).min(WAIT_MS_MAX));
    Ok(if wait.unwrap_or(default) { Wait::Done(limit) } else { Wait::Accepted })
}

/// `GET /api/v1/vms`.
pub async fn list(State(orchestrator): State<Orchestrator>) -> impl IntoResponse {
    let mut vms = orchestrator.list();
    vms.sort_by_key(|vm| vm.id);
    let views: Vec<_> = vms.iter().map(view::vm).collect();
    ([(HeaderName::from_static("x-total-count"), views.len().to_string())], Json(views))
}

/// `POST /api/v1/vms`.
///
/// # Errors
/// A problem.
pub async fn create(
    State(orchestrator): State<Orchestrator>,
    query: WaitQuery,
    body: Result<Json<CreateVm>, JsonRejection>,
) -> Result<impl IntoResponse, Refusal> {
    let wait = wait(query, false)?;
    let Json(body) = body?;
    let start = body.start;
    let vm = orchestrator.create(view::new_vm(body)?, start, wait).await?;
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
    let wait = wait(query, false)?;
    Ok(Json(view::vm(&orchestrator.start(&VmName::try_from(name.as_str())?, wait).await?)))
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
    let wait = wait(query, true)?;
    Ok(Json(view::vm(&orchestrator.stop(&VmName::try_from(name.as_str())?, wait).await?)))
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
    let wait = wait(query, false)?;
    Ok(Json(view::vm(&orchestrator.restart(&VmName::try_from(name.as_str())?, wait).await?)))
}
