//! `/api/v1/operations`: work that takes long, how far it is, and its end.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::error::Refusal;
use crate::api::view;
use crate::orchestrator::{Error, Orchestrator};
use crate::wire::JobView;

/// The longest wait for an end.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// Query of one operation.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobQuery {
    /// Milliseconds to wait for its end; the answer comes then in any case.
    #[schemars(range(max = 600_000))]
    #[serde(default)]
    wait_ms: u64,
}

fn number(id: &str) -> Result<u64, Error> {
    id.parse().map_err(|_| Error::JobNotFound(id.chars().take(30).collect()))
}

/// `GET /api/v1/operations`.
pub async fn list(State(orchestrator): State<Orchestrator>) -> Json<Vec<JobView>> {
    Json(orchestrator.jobs().into_iter().map(view::job).collect())
}

/// `GET /api/v1/operations/{id}`.
///
/// # Errors
/// A problem.
pub async fn get(
    State(orchestrator): State<Orchestrator>,
    Path(id): Path<String>,
    query: Result<Query<JobQuery>, QueryRejection>,
) -> Result<Json<JobView>, Refusal> {
    let Query(JobQuery { wait_ms }) = query?;
    let limit = (0 < wait_ms).then(|| Duration::from_millis(wait_ms).min(WAIT_MAX));
    Ok(Json(view::job(orchestrator.job(number(&id)?, limit).await?)))
}

/// `POST /api/v1/operations/{id}/cancel`.
///
/// # Errors
/// A problem.
pub async fn cancel(
    State(orchestrator): State<Orchestrator>,
    Path(id): Path<String>,
) -> Result<Json<JobView>, Refusal> {
    Ok(Json(view::job(orchestrator.cancel_job(number(&id)?)?)))
}
