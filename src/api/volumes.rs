//! `/api/v1/volumes`.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::api::body::unless_still;
use crate::api::error::Refusal;
use crate::api::view::rfc3339;
use crate::model::{InvalidSpec, VolumeName, VolumeUser};
use crate::orchestrator::{Error, Orchestrator, VolumeInfo};
use crate::wire::{CreateVolume, GrowVolume, VolumeUserView, VolumeView};

/// RFC 8878.
const ZSTD: &str = "application/zstd";

fn view(info: VolumeInfo) -> VolumeView {
    let VolumeInfo { volume, used_bytes } = info;
    let user = |user: VolumeUser| VolumeUserView {
        vm: user.vm.to_string(),
        path: user.path,
        readonly: user.readonly,
    };
    VolumeView {
        name: volume.name.to_string(),
        size_mb: volume.mib,
        used_bytes,
        attached: volume.users.into_iter().map(user).collect(),
        created_at: rfc3339(volume.created_at_ms),
    }
}

fn named(text: &str) -> Result<VolumeName, Refusal> {
    Ok(VolumeName::try_from(text).map_err(|error: InvalidSpec| Error::from(error))?)
}

/// `GET /api/v1/volumes`.
///
/// # Errors
/// A problem.
pub async fn list(State(orchestrator): State<Orchestrator>) -> Result<impl IntoResponse, Refusal> {
    let volumes = orchestrator.list_volumes().await?;
    Ok(Json(volumes.into_iter().map(view).collect::<Vec<_>>()))
}

/// `POST /api/v1/volumes`.
///
/// # Errors
/// A problem.
pub async fn create(
    State(orchestrator): State<Orchestrator>,
    body: Result<Json<CreateVolume>, JsonRejection>,
) -> Result<impl IntoResponse, Refusal> {
    let Json(CreateVolume { name, size_mb }) = body?;
    let made = orchestrator.create_volume(named(&name)?, size_mb).await?;
    Ok((StatusCode::CREATED, Json(view(made))))
}

/// `GET /api/v1/volumes/{volume}`.
///
/// # Errors
/// A problem.
pub async fn get(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
) -> Result<Json<VolumeView>, Refusal> {
    Ok(Json(view(orchestrator.volume(&named(&name)?).await?)))
}

/// `DELETE /api/v1/volumes/{volume}`.
///
/// # Errors
/// A problem.
pub async fn delete(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
) -> Result<StatusCode, Refusal> {
    orchestrator.delete_volume(named(&name)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/v1/volumes/{volume}/grow`.
///
/// # Errors
/// A problem.
pub async fn grow(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
    body: Result<Json<GrowVolume>, JsonRejection>,
) -> Result<Json<VolumeView>, Refusal> {
    let Json(GrowVolume { size_mb }) = body?;
    Ok(Json(view(orchestrator.grow_volume(&named(&name)?, size_mb).await?)))
}

/// `GET /api/v1/volumes/{volume}/backup`: the disk as one zstd frame with a checksum. An answer that
/// is cut short is none.
///
/// # Errors
/// A problem.
pub async fn backup(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    let stream = orchestrator.backup_volume(&named(&name)?).await?;
    let mut answer = Body::from_stream(stream).into_response();
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(ZSTD));
    Ok(answer)
}

/// `PUT /api/v1/volumes/{volume}/backup`: the body is a backup, and becomes a new volume.
///
/// # Errors
/// A problem.
pub async fn restore(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
    body: Body,
) -> Result<impl IntoResponse, Refusal> {
    let backup = unless_still(body).into_data_stream();
    let made = orchestrator.restore_volume(named(&name)?, backup).await?;
    Ok((StatusCode::CREATED, Json(view(made))))
}
