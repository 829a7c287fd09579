//! `/api/v1/audit`: who has changed what.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::error::Refusal;
use crate::api::view;
use crate::orchestrator::Orchestrator;
use crate::wire::AuditView;

/// Entries at once.
const PAGE_LEN_MAX: u32 = 1000;
/// Entries at once unless told otherwise.
const PAGE_LEN: u32 = 100;

/// Query of the audit log.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Before {
    /// Only entries older than this one.
    before: Option<i64>,
    /// Entries at once, 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
}

/// `GET /api/v1/audit`, newest first.
///
/// # Errors
/// A problem.
pub async fn list(
    State(orchestrator): State<Orchestrator>,
    query: Result<Query<Before>, QueryRejection>,
) -> Result<Json<Vec<AuditView>>, Refusal> {
    let Query(Before { before, limit }) = query?;
    let limit = limit.unwrap_or(PAGE_LEN);
    if !(1..=PAGE_LEN_MAX).contains(&limit) {
        let text = format!("limit: 1 to {PAGE_LEN_MAX}");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "invalid_query", text));
    }
    let entries = orchestrator.audit_before(before.unwrap_or(i64::MAX), limit).await?;
    Ok(Json(entries.iter().map(view::audit).collect()))
}
