//! `/api/v1/plugins`: the registry.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::error::Refusal;
use crate::api::view;
use crate::orchestrator::{Error, Language, Orchestrator, Plugin, PluginError, manifest_schema};
use crate::wire::{PluginList, PluginView, Rollback, SetEnabled};

type Answer = Result<Json<PluginView>, Refusal>;

fn shown(orchestrator: &Orchestrator, plugin: &Plugin) -> PluginView {
    let of_it = |vm: &crate::model::Vm| {
        vm.plugin.as_ref().is_some_and(|made_of| made_of.name == plugin.name)
    };
    view::plugin(plugin, orchestrator.list().iter().filter(|vm| of_it(vm)).count())
}

/// `GET /api/v1/plugins`.
pub async fn list(State(orchestrator): State<Orchestrator>) -> Json<PluginList> {
    let plugins = orchestrator.list_plugins();
    let items: Vec<_> = plugins.iter().map(|plugin| shown(&orchestrator, plugin)).collect();
    Json(PluginList { plugins: items.iter().map(|item| item.name.clone()).collect(), items })
}

/// Query of an installation.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Install {
    #[schemars(regex(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))]
    name: Option<String>,
}

/// `POST /api/v1/plugins` with a manifest in JSON, YAML or TOML.
///
/// # Errors
/// A problem; `errors` names each field that was refused.
pub async fn install(
    State(orchestrator): State<Orchestrator>,
    query: Result<Query<Install>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let Query(Install { name }) = query?;
    let kind = headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or_default());
    let language = match kind {
        None => Language::Json,
        Some(kind) => Language::of_media_type(kind).ok_or_else(|| {
            let text = "a manifest is application/json, application/yaml or application/toml";
            Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", text)
        })?,
    };
    let body = body.map_err(|rejection| {
        Refusal::new(rejection.status(), "body_too_large", rejection.body_text())
    })?;
    let plugin = orchestrator.install_plugin(&body, language, name.as_deref()).await?;
    Ok((StatusCode::CREATED, Json(shown(&orchestrator, &plugin))).into_response())
}

/// Query of a manifest.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Which {
    version: Option<String>,
}

/// `GET /api/v1/plugins/{plugin}`: the manifest, of `?version=` or the current one.
///
/// # Errors
/// A problem.
pub async fn show(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
    query: Result<Query<Which>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(Which { version }) = query?;
    let manifest = orchestrator.manifest(&name, version.as_deref())?;
    Ok(Json(&*manifest).into_response())
}

/// `GET /api/v1/plugins/{plugin}/manifest`: the same, refused for a disabled plugin.
///
/// # Errors
/// A problem.
pub async fn manifest(
    state: State<Orchestrator>,
    Path(name): Path<String>,
    query: Result<Query<Which>, QueryRejection>,
) -> Result<Response, Refusal> {
    if !state.plugin(&name)?.enabled {
        return Err(Error::from(PluginError::Disabled(name)).into());
    }
    show(state, Path(name), query).await
}

/// `GET /api/v1/plugins/{plugin}/versions`: what is known of the plugin, with its versions.
///
/// # Errors
/// A problem.
pub async fn versions(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
) -> Answer {
    Ok(Json(shown(&orchestrator, &*orchestrator.plugin(&name)?)))
}

/// `POST /api/v1/plugins/{plugin}/enabled`.
///
/// # Errors
/// A problem.
pub async fn set_enabled(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
    body: Result<Json<SetEnabled>, JsonRejection>,
) -> Answer {
    let Json(SetEnabled { enabled }) = body?;
    let plugin = orchestrator.set_plugin_enabled(&name, enabled).await?;
    Ok(Json(shown(&orchestrator, &plugin)))
}

/// `POST /api/v1/plugins/{plugin}/rollback`.
///
/// # Errors
/// A problem.
pub async fn roll_back(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
    body: Result<Json<Rollback>, JsonRejection>,
) -> Answer {
    let Json(Rollback { version }) = body?;
    let plugin = orchestrator.roll_back_plugin(&name, version.as_deref()).await?;
    Ok(Json(shown(&orchestrator, &plugin)))
}

/// `DELETE /api/v1/plugins/{plugin}`.
///
/// # Errors
/// A problem.
pub async fn remove(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
) -> Result<StatusCode, Refusal> {
    orchestrator.remove_plugin(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /api/v1/schemas/plugin-manifest`.
pub async fn schema() -> Json<serde_json::Value> {
    Json(manifest_schema())
}
