//! `/api/v1/tokens`.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;

use crate::api::error::Refusal;
use crate::api::view;
use crate::model::{InvalidSpec, Scope};
use crate::orchestrator::{Error, Orchestrator};
use crate::wire::{CreateToken, CreatedToken, TokenView};

/// `GET /api/v1/tokens`.
pub async fn list(State(orchestrator): State<Orchestrator>) -> Json<Vec<TokenView>> {
    Json(orchestrator.tokens().iter().map(view::token).collect())
}

/// `POST /api/v1/tokens`.
///
/// # Errors
/// A problem.
pub async fn create(
    State(orchestrator): State<Orchestrator>,
    body: Result<Json<CreateToken>, JsonRejection>,
) -> Result<impl IntoResponse, Refusal> {
    let Json(body) = body?;
    let scope = Scope::from_word(&body.scope).ok_or_else(|| {
        Error::from(InvalidSpec { field: "scope", reason: "read, operate or admin".to_owned() })
    })?;
    let life_ms = body.expires_in_seconds.map(|seconds| i64::from(seconds) * 1000);
    let (token, secret) =
        orchestrator.create_token(&body.name, scope, body.labels, life_ms).await?;
    let created = CreatedToken { token: view::token(&token), secret };
    Ok((StatusCode::CREATED, Json(created)))
}

/// `DELETE /api/v1/tokens/{name}`.
///
/// # Errors
/// A problem.
pub async fn revoke(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
) -> Result<StatusCode, Refusal> {
    orchestrator.revoke_token(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}
