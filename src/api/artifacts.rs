//! `/api/v1/artifacts`, and what plugins' VMs are made of.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};

use crate::api::error::Refusal;
use crate::api::images::answer;
use crate::orchestrator::{Brought, Orchestrator};
use crate::wire::{BroughtView, FetchPlugin, StoredView};

/// `GET /api/v1/artifacts`.
///
/// # Errors
/// A problem.
pub async fn list(State(orchestrator): State<Orchestrator>) -> Result<impl IntoResponse, Refusal> {
    let all = orchestrator.list_media().await?.into_iter().map(|one| StoredView {
        kind: one.kind.as_str().to_owned(),
        digest: one.digest.to_string(),
        bytes: one.bytes,
    });
    Ok(Json(all.collect::<Vec<_>>()))
}

/// `POST /api/v1/plugins/{plugin}/fetch`: answered as a pull is.
///
/// # Errors
/// A problem.
pub async fn fetch(
    State(orchestrator): State<Orchestrator>,
    Path(plugin): Path<String>,
    headers: HeaderMap,
    body: Result<Json<FetchPlugin>, JsonRejection>,
) -> Result<Response, Refusal> {
    let Json(FetchPlugin { version, insecure }) = body?;
    let job = orchestrator.begin_job("plugin.fetch", &plugin)?;
    answer(&headers, job, async move |told| {
        let version = version.as_deref();
        let brought = orchestrator.fetch_plugin(&plugin, version, insecure, told).await?;
        let view = |Brought { source, digest, bytes }| BroughtView {
            source,
            digest: digest.to_string(),
            bytes,
        };
        Ok(brought.into_iter().map(view).collect::<Vec<_>>())
    })
    .await
}
