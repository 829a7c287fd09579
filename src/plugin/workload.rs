//! The manifest's sections about the workload as one workload, as the agent takes it.

use std::collections::BTreeMap;

use http::Uri;
use volant_protocol::{HealthCheck, Probe, Restart, signal_number};

use crate::model::Workload;
use crate::plugin::manifest::{Manifest, RestartPolicy, RestartSection, WorkloadSection};
use crate::plugin::parse::Refused;
use crate::plugin::rules::base_url;

/// What the original gives a workload to come up.
const ENDPOINT_START_PERIOD_MS_MIN: u64 = 120_000;
const ENDPOINT_TIMEOUT_MS: u64 = 5_000;
const ENDPOINT_INTERVAL_MS: u64 = 10_000;
const ENDPOINT_RETRIES: u32 = 3;
fn url(manifest: &Manifest) -> Option<Uri> {
    manifest.workload.as_ref()?.base_url.as_deref().and_then(|url| base_url(url).ok())
}

/// The port of actions and health that name none.
pub fn default_port(manifest: &Manifest) -> Option<u16> {
    let of_url = url(manifest).map(|url| url.port_u16().unwrap_or(80));
    of_url.or_else(|| manifest.ports.first().map(|port| port.port))
}

/// A path below that of the base URL.
pub fn full_path(manifest: &Manifest, path: &str) -> String {
    let base = url(manifest).map(|url| url.path().trim_end_matches('/').to_owned());
    let slash = if path.starts_with('/') { "" } else { "/" };
    format!("{}{slash}{path}", base.unwrap_or_default())
}

/// The workload of a manifest that names a program; `None` for one that does not.
///
/// # Errors
/// The field that breaks a limit.
pub fn of(manifest: &Manifest) -> Result<Option<Workload>, Refused> {
    let Some(section) = &manifest.workload else { return Ok(None) };
    let WorkloadSection { entrypoint, args, env, workdir, user, stop_signal, restart, .. } =
        section;
    let argv: Vec<String> = entrypoint.as_slice().iter().chain(args).cloned().collect();
    if entrypoint.as_slice().is_empty() {
        return Ok(None);
    }
    let plain = volant_protocol::Workload {
        argv,
        env: env.clone(),
        cwd: workdir.clone(),
        user: user.clone(),
        stop_signal: stop_signal.as_deref().and_then(signal_number),
        restart: restart.as_ref().map_or_else(Restart::default, restart_of),
        health: health(manifest),
    };
    Workload::try_from(plain).map(Some).map_err(|error| {
        let pointer = match error.field {
            "workload.argv" => "/workload/entrypoint",
            "workload.env" => "/workload/env",
            "workload.cwd" => "/workload/workdir",
            "workload.user" => "/workload/user",
            "workload.restart" => "/workload/restart",
            "workload.health.interval_ms" => "/health/interval_ms",
            "workload.health.timeout_ms" => "/health/timeout_ms",
            "workload.health.retries" => "/health/retries",
            "workload.health.start_period_ms" => "/health/start_period_ms",
            "workload.health.argv" => "/health/exec/command",
            "workload.health.port" if manifest.health.is_none() => "/health_check",
            "workload.health.port" => "/health",
            "workload.health.path" if manifest.health.is_none() => "/health_check/endpoint",
            "workload.health.path" => "/health/http/path",
            _ => "/workload",
        };
        Refused::new(pointer, error.reason)
    })
}

fn restart_of(section: &RestartSection) -> Restart {
    Restart {
        policy: match section.policy {
            RestartPolicy::Never => volant_protocol::RestartPolicy::Never,
            RestartPolicy::OnFailure => volant_protocol::RestartPolicy::OnFailure,
            RestartPolicy::Always => volant_protocol::RestartPolicy::Always,
        },
        backoff_min_ms: section.backoff_min_ms,
        backoff_max_ms: section.backoff_max_ms,
        retries_max: section.retries_max,
    }
}

/// The health check of either form.
pub fn health(manifest: &Manifest) -> Option<HealthCheck> {
    let port = |port: Option<u16>| port.or_else(|| default_port(manifest)).unwrap_or(0);
    if let Some(health) = &manifest.health {
        let probe = if let Some(http) = &health.http {
            Probe::Http { port: port(http.port), path: full_path(manifest, &http.path) }
        } else if let Some(exec) = &health.exec {
            Probe::Exec { argv: exec.command.as_slice().to_vec() }
        } else {
            Probe::Tcp { port: port(health.tcp.as_ref()?.port) }
        };
        return Some(HealthCheck {
            probe,
            interval_ms: health.interval_ms,
            timeout_ms: health.timeout_ms,
            retries: health.retries,
            start_period_ms: health.start_period_ms,
        });
    }
    let check = manifest.health_check.as_ref()?;
    Some(HealthCheck {
        probe: Probe::Http { port: port(None), path: full_path(manifest, check.endpoint.trim()) },
        interval_ms: ENDPOINT_INTERVAL_MS,
        timeout_ms: ENDPOINT_TIMEOUT_MS,
        retries: ENDPOINT_RETRIES,
        start_period_ms: check.timeout_ms.max(ENDPOINT_START_PERIOD_MS_MIN),
    })
}

/// The workload with a VM's own variables, which win over the manifest's.
pub fn with_env(workload: &Workload, env: &BTreeMap<String, String>) -> Workload {
    let mut plain = workload.plain().clone();
    plain.env.retain(|name, _| !env.contains_key(name));
    // Fewer variables than in a checked workload break no limit.
    Workload::try_from(plain).unwrap_or_else(|_| workload.clone())
}
