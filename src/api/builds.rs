//! `/api/v1/builds`, and the bytes of artifacts.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio_util::io::ReaderStream;

use crate::api::body::unless_still;
use crate::api::error::Refusal;
use crate::api::images::done;
use crate::orchestrator::{Built, Orchestrator};
use crate::wire::BuiltView;

/// Bytes sent at once.
const CHUNK_LEN: usize = 256 * 1024;

/// `POST /api/v1/builds`: the body is a tar archive, a Volantfile first.
///
/// # Errors
/// A problem.
pub async fn build(
    State(orchestrator): State<Orchestrator>,
    body: Body,
) -> Result<impl IntoResponse, Refusal> {
    let archive = unless_still(body).into_data_stream();
    let job = orchestrator.begin_job("build", "Volantfile")?;
    let progress = job.progress();
    let work = async move { orchestrator.build(archive, progress).await };
    let Built { manifest, digest, bytes } = done(tokio::spawn(job.run(work)).await)?;
    Ok((StatusCode::CREATED, Json(BuiltView { manifest, digest: digest.to_string(), bytes })))
}

/// `GET /api/v1/artifacts/{digest}`.
///
/// # Errors
/// A problem.
pub async fn artifact(
    State(orchestrator): State<Orchestrator>,
    Path(digest): Path<String>,
) -> Result<Response, Refusal> {
    let file = tokio::fs::File::from_std(orchestrator.open_artifact(&digest)?);
    let len = file.metadata().await.ok().map(|meta| HeaderValue::from(meta.len()));
    let stream = ReaderStream::with_capacity(file, CHUNK_LEN);
    let mut answer = Body::from_stream(stream).into_response();
    let kind = HeaderValue::from_static("application/octet-stream");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer.headers_mut().extend(len.map(|len| (header::CONTENT_LENGTH, len)));
    Ok(answer)
}
