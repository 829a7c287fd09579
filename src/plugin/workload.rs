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
    let named = plain(manifest).filter(|plain| !plain.argv.is_empty());
    named.map(|plain| checked(plain, manifest)).transpose()
}

/// What a manifest says of its workload, checked.
///
/// # Errors
/// The field that breaks a limit.
pub fn checked(plain: volant_protocol::Workload, manifest: &Manifest) -> Result<Workload, Refused> {
    Workload::try_from(plain).map_err(|error| {
        Refused::new(pointer_to(error.field, manifest.health.is_some()), error.reason)
    })
}

/// What a manifest says of its workload, unchecked; without a program where that is the image's to
/// say.
pub fn plain(manifest: &Manifest) -> Option<volant_protocol::Workload> {
    let health = health(manifest);
    let Some(section) = &manifest.workload else {
        return health.map(|health| volant_protocol::Workload {
            health: Some(health),
            ..volant_protocol::Workload::default()
        });
    };
    let WorkloadSection { entrypoint, args, env, workdir, user, stop_signal, restart, .. } =
        section;
    let program = entrypoint.as_slice();
    let argv = if program.is_empty() { Vec::new() } else { [program, args].concat() };
    Some(volant_protocol::Workload {
        argv,
        env: env.clone(),
        cwd: workdir.clone(),
        user: user.clone(),
        stop_signal: stop_signal.as_deref().and_then(signal_number),
        restart: restart.as_ref().map_or_else(Restart::default, restart_of),
        health,
    })
}

/// Where in the manifest a field of the workload is.
fn pointer_to(field: &str, has_health: bool) -> &'static str {
    match field {
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
        "workload.health.port" if !has_health => "/health_check",
        "workload.health.port" => "/health",
        "workload.health.path" if !has_health => "/health_check/endpoint",
        "workload.health.path" => "/health/http/path",
        _ => "/workload",
    }
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

/// Leaves out the variables that a VM has of its own, which win over the manifest's.
pub fn drop_env(plain: &mut volant_protocol::Workload, own: &BTreeMap<String, String>) {
    plain.env.retain(|name, _| !own.contains_key(name));
}
