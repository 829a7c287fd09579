//! `/api/v1/vms/{name}/guest`: what a guest tells of itself.

use axum::Json;
use axum::extract::{Path, State};

use crate::api::error::Refusal;
use crate::api::view::rfc3339;
use crate::model::VmName;
use crate::orchestrator::Orchestrator;
use crate::wire::{GuestMetricsView, GuestView, PortView, TimeSyncView};

/// `GET .../guest`.
///
/// # Errors
/// A problem.
pub async fn info(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
) -> Result<Json<GuestView>, Refusal> {
    let info = orchestrator.agent_info(&VmName::try_from(name.as_str())?)?;
    Ok(Json(GuestView {
        protocol_version: info.protocol_version,
        agent_version: info.agent_version,
        capabilities: info.capabilities,
        kernel: info.kernel,
    }))
}

/// `GET .../guest/metrics`.
///
/// # Errors
/// A problem.
pub async fn metrics(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
) -> Result<Json<GuestMetricsView>, Refusal> {
    let metrics = orchestrator.guest_metrics(&VmName::try_from(name.as_str())?).await?;
    Ok(Json(GuestMetricsView {
        cpus: metrics.cpus,
        cpu_busy_us: metrics.cpu_busy_us,
        cpu_idle_us: metrics.cpu_idle_us,
        load_1m: metrics.load_1m,
        memory_total: metrics.memory_total,
        memory_available: metrics.memory_available,
        memory_cached: metrics.memory_cached,
        disk_total: metrics.disk_total,
        disk_used: metrics.disk_used,
        processes: metrics.processes,
        net_received: metrics.net_received,
        net_sent: metrics.net_sent,
        time: rfc3339(i64::try_from(metrics.unix_ms).unwrap_or(i64::MAX)),
    }))
}

/// `GET .../guest/ports`.
///
/// # Errors
/// A problem.
pub async fn ports(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
) -> Result<Json<Vec<PortView>>, Refusal> {
    let ports = orchestrator.guest_ports(&VmName::try_from(name.as_str())?).await?;
    let view = |port: crate::orchestrator::ListeningPort| PortView {
        port: port.port,
        protocol: port.protocol,
        address: port.address,
        pid: port.pid,
        program: port.program,
    };
    Ok(Json(ports.into_iter().map(view).collect()))
}

/// `POST .../guest/time`: sets the guest's clock to the host's.
///
/// # Errors
/// A problem.
pub async fn sync_time(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
) -> Result<Json<TimeSyncView>, Refusal> {
    let ahead_ns = orchestrator.sync_time(&VmName::try_from(name.as_str())?).await?;
    let was_ahead_ms = i64::try_from(ahead_ns / 1_000_000).unwrap_or(i64::MAX);
    Ok(Json(TimeSyncView { was_ahead_ms }))
}
