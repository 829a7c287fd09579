//! `/api/v1/plugins/{plugin}/artifacts`: what versions of a plugin are made of.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;

use crate::api::error::Refusal;
use crate::api::view;
use crate::model::ArtifactEntry;
use crate::orchestrator::Orchestrator;
use crate::wire::{ArtifactView, PutArtifact};

/// Query of artifacts.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Which {
    version: Option<String>,
}

/// Query of one artifact.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfVersion {
    #[schemars(required)]
    version: Option<String>,
}

type WhichQuery = Result<Query<Which>, QueryRejection>;

/// `GET /api/v1/plugins/{plugin}/artifacts`.
///
/// # Errors
/// A problem.
pub async fn list(
    State(orchestrator): State<Orchestrator>,
    Path(plugin): Path<String>,
    query: WhichQuery,
) -> Result<Json<Vec<ArtifactView>>, Refusal> {
    let Query(Which { version }) = query?;
    let artifacts = orchestrator.plugin_artifacts(&plugin, version.as_deref()).await?;
    Ok(Json(artifacts.iter().map(view::artifact).collect()))
}

/// `GET /api/v1/plugins/{plugin}/artifacts/{artifact}?version=`.
///
/// # Errors
/// A problem; without a version, 400.
pub async fn get(
    State(orchestrator): State<Orchestrator>,
    Path((plugin, artifact)): Path<(String, String)>,
    query: Result<Query<OfVersion>, QueryRejection>,
) -> Result<Json<ArtifactView>, Refusal> {
    let Query(OfVersion { version }) = query?;
    let version = version.ok_or_else(|| {
        Refusal::new(StatusCode::BAD_REQUEST, "invalid_query", "version query required")
    })?;
    let found = orchestrator.plugin_artifact(&plugin, &version, &artifact).await?;
    Ok(Json(view::artifact(&found)))
}

/// `POST /api/v1/plugins/{plugin}/artifacts`: 201 without a body, as the original answers.
///
/// # Errors
/// A problem.
pub async fn put(
    State(orchestrator): State<Orchestrator>,
    Path(plugin): Path<String>,
    body: Result<Json<PutArtifact>, JsonRejection>,
) -> Result<StatusCode, Refusal> {
    let Json(body) = body?;
    let entry = ArtifactEntry {
        name: body.artifact_name,
        kind: body.kind,
        source_url: body.source_url,
        checksum: body.checksum,
        format: body.format,
        local_path: body.local_path,
        size_bytes: body.size_bytes,
    };
    orchestrator.put_plugin_artifact(&plugin, &body.version, entry).await?;
    Ok(StatusCode::CREATED)
}

/// `DELETE /api/v1/plugins/{plugin}/artifacts`.
///
/// # Errors
/// A problem.
pub async fn delete(
    State(orchestrator): State<Orchestrator>,
    Path(plugin): Path<String>,
    query: WhichQuery,
) -> Result<StatusCode, Refusal> {
    let Query(Which { version }) = query?;
    orchestrator.delete_plugin_artifacts(&plugin, version.as_deref()).await?;
    Ok(StatusCode::NO_CONTENT)
}
