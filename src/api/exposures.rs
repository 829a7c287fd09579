//! `/api/v1/vms/{name}/exposures`: ports of the host that lead to a VM.

use std::net::Ipv4Addr;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::error::Refusal;
use crate::model::{Exposure, Transport, VmName};
use crate::orchestrator::Orchestrator;
use crate::wire::ExposureView;

fn view(exposure: &Exposure) -> ExposureView {
    ExposureView {
        guest_port: exposure.guest_port,
        host_port: exposure.host_port,
        host_ip: exposure.host_ip.to_string(),
        transport: exposure.transport.as_str().to_owned(),
    }
}

/// What a client asks for.
///
/// # Errors
/// A value is none.
pub fn exposure(body: &ExposureView) -> Result<Exposure, Refusal> {
    let refuse = |text| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_exposure", text);
    let transport = Transport::from_word(&body.transport);
    if body.guest_port == 0 {
        return Err(refuse("guest_port is 1 to 65535"));
    }
    Ok(Exposure {
        transport: transport.ok_or_else(|| refuse("transport is tcp or udp"))?,
        host_ip: body.host_ip.parse().map_err(|_| refuse("host_ip is an IPv4 address"))?,
        host_port: body.host_port,
        guest_port: body.guest_port,
    })
}

/// `GET .../exposures`.
///
/// # Errors
/// A problem.
pub async fn list(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
) -> Result<Json<Vec<ExposureView>>, Refusal> {
    let exposures = orchestrator.exposures(&VmName::try_from(name.as_str())?)?;
    Ok(Json(exposures.iter().map(view).collect()))
}

/// `POST .../exposures`.
///
/// # Errors
/// A problem, also when the host's port is taken.
pub async fn add(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
    body: Result<Json<ExposureView>, JsonRejection>,
) -> Result<impl IntoResponse, Refusal> {
    let name = VmName::try_from(name.as_str())?;
    let Json(body) = body?;
    let exposed = orchestrator.expose(&name, exposure(&body)?).await?;
    Ok((StatusCode::CREATED, Json(view(&exposed))))
}

/// Query of the call that ends an exposure.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfAddress {
    /// The host's address, where the port leads to the VM by several.
    host_ip: Option<Ipv4Addr>,
}

/// `DELETE .../exposures/{transport}/{host_port}?host_ip=`.
///
/// # Errors
/// A problem; also where the port leads to the VM by several addresses, and none is named.
pub async fn remove(
    State(orchestrator): State<Orchestrator>,
    Path((name, transport, host_port)): Path<(String, String, String)>,
    query: Result<Query<OfAddress>, QueryRejection>,
) -> Result<StatusCode, Refusal> {
    let name = VmName::try_from(name.as_str())?;
    let Query(OfAddress { host_ip }) = query?;
    let all = orchestrator.exposures(&name)?.into_iter();
    let mut found = all.filter(|exposure| {
        exposure.transport.as_str() == transport
            && exposure.host_port.to_string() == host_port
            && host_ip.is_none_or(|host_ip| exposure.host_ip == host_ip)
    });
    let refuse = |status, code, text: &str| {
        let text = format!("{transport} port {host_port} {text}");
        Err(Refusal::new(status, code, text))
    };
    let Some(exposure) = found.next() else {
        let text = "does not lead to this VM";
        return refuse(StatusCode::NOT_FOUND, "exposure_not_found", text);
    };
    if found.next().is_some() {
        let text = "leads to this VM by several addresses: name one, as host_ip";
        return refuse(StatusCode::CONFLICT, "exposure_ambiguous", text);
    }
    orchestrator.unexpose(&name, exposure).await?;
    Ok(StatusCode::NO_CONTENT)
}
