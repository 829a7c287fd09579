//! `/api/v1/vms/{name}/access`: a VM's token and signed addresses.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;

use crate::api::error::Refusal;
use crate::api::view::rfc3339;
use crate::model::VmName;
use crate::orchestrator::Orchestrator;
use crate::wire::{AccessView, SignBody, SignedView};

/// `GET .../access`.
///
/// # Errors
/// A problem.
pub async fn get(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
) -> Result<Json<AccessView>, Refusal> {
    let token = orchestrator.access_token(&VmName::try_from(name.as_str())?)?;
    Ok(Json(AccessView { token }))
}

/// `POST .../access`: a new token; earlier ones and signed addresses end.
///
/// # Errors
/// A problem.
pub async fn renew(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
) -> Result<Json<AccessView>, Refusal> {
    let token = orchestrator.access_renew(&VmName::try_from(name.as_str())?).await?;
    Ok(Json(AccessView { token: Some(token) }))
}

/// `DELETE .../access`.
///
/// # Errors
/// A problem.
pub async fn revoke(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
) -> Result<StatusCode, Refusal> {
    orchestrator.access_revoke(&VmName::try_from(name.as_str())?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST .../access/url`.
///
/// # Errors
/// A problem.
pub async fn sign(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
    body: Result<Json<SignBody>, JsonRejection>,
) -> Result<Json<SignedView>, Refusal> {
    let name = VmName::try_from(name.as_str())?;
    let Json(SignBody { port, path, expires_in_s }) = body?;
    let plain = path.bytes().all(|byte| byte.is_ascii_graphic()) && !path.contains('#');
    if port == 0 || !plain {
        let (code, text) = ("invalid_port", "a port from 1 to 65535 and a path without spaces");
        return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, code, text));
    }
    let life = Duration::from_secs(expires_in_s);
    let signed = orchestrator.access_address(&name, port, &path, life).await?;
    let expires_ms = i64::try_from(signed.expires_unix_s.saturating_mul(1000)).unwrap_or(i64::MAX);
    Ok(Json(SignedView { url: signed.url, expires_at: rfc3339(expires_ms) }))
}
