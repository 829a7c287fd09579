//! The control plane: sandboxes made, looked at, kept alive, paused and killed.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, body::Bytes};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::access::Principal;
use crate::api::e2b::template::{TIMEOUT_DEFAULT_S, no_template, unsupported};
use crate::api::e2b::{E2b, ENVD_VERSION, METADATA_PREFIX, TEMPLATE_LABEL, find};
use crate::api::error::Refusal;
use crate::api::view::rfc3339;
use crate::model::{Expiry, ImageRoot, OnExpiry, Overlay, Scope, Vm, VmState};
use crate::orchestrator::{GuestMetrics, LogStart, Wait};
use crate::wire::e2b::{
    ConnectSandbox, ListedSandbox, NewSandbox, Sandbox, SandboxDetail, SandboxLifecycle,
    SandboxLogEntry, SandboxLogs, SandboxMetric, SandboxPause, SandboxRefresh, SandboxTimeout,
    SandboxVolume,
};

/// How long a sandbox may take to come up: longer than the engine gives a guest.
const UP_TIMEOUT: Duration = Duration::from_secs(180);
/// How long one may take to stop.
const DOWN_TIMEOUT: Duration = Duration::from_secs(120);
/// Between the two looks at the guest's counters that make a percentage.
const METRICS_PAUSE: Duration = Duration::from_millis(200);
/// Sandboxes of a page, and lines of a log.
const LIMIT_MAX: usize = 100;
const LINES_MAX: usize = 1000;
/// What stands for E2B's node.
const CLIENT_ID: &str = "volant";
const NEXT_TOKEN: HeaderName = HeaderName::from_static("x-next-token");
/// The end that is told of a sandbox that has none: E2B's clients need one.
const FAR: i64 = 253_370_764_800_000;

type Wanted<T> = Result<Json<T>, JsonRejection>;

fn no_sandbox(id: &str) -> Refusal {
    let text = format!("Sandbox {id:?} not found");
    Refusal::new(StatusCode::NOT_FOUND, "sandbox_not_found", text)
}

/// A body that may be left out.
fn optional<T: DeserializeOwned + Default>(body: &Bytes) -> Result<T, Refusal> {
    if body.is_empty() {
        return Ok(T::default());
    }
    let invalid = |error: serde_json::Error| {
        Refusal::new(StatusCode::BAD_REQUEST, "invalid_body", error.to_string())
    };
    serde_json::from_slice(body).map_err(invalid)
}

impl E2b {
    fn sandbox(&self, id: &str) -> Result<Vm, Refusal> {
        find(&self.orchestrator, id).ok_or_else(|| no_sandbox(id))
    }

    /// The end of a time in seconds that begins now; one of none is over at once.
    pub(super) fn expiry(&self, seconds: u64, then: OnExpiry) -> Result<Expiry, Refusal> {
        let ttl_ms = i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX).max(1);
        Ok(self.orchestrator.expiry_in(ttl_ms, then)?)
    }

    /// Lets a sandbox live as long from now, and at least as long if `only_longer`.
    async fn give_time(&self, vm: &Vm, seconds: u64, only_longer: bool) -> Result<(), Refusal> {
        let then = vm.expiry.map_or(OnExpiry::Delete, |expiry| expiry.then);
        let expiry = self.expiry(seconds, then)?;
        let is_longer = vm.expiry.is_none_or(|old| old.at_ms < expiry.at_ms);
        if is_longer || !only_longer {
            self.orchestrator.set_expiry(&vm.name, Some(expiry)).await?;
        }
        Ok(())
    }

    /// A sandbox as its own client sees it.
    async fn view(&self, vm: &Vm) -> Result<Sandbox, Refusal> {
        Ok(Sandbox {
            template_id: template(vm),
            sandbox_id: vm.name.to_string(),
            client_id: CLIENT_ID.to_owned(),
            envd_version: ENVD_VERSION.to_owned(),
            envd_access_token: self.orchestrator.guest_token(&vm.name).await?,
            traffic_access_token: self.orchestrator.access_token(&vm.name)?,
            domain: self.settings.domain.clone(),
        })
    }
}

fn template(vm: &Vm) -> String {
    vm.labels.get(TEMPLATE_LABEL).cloned().unwrap_or_default()
}

fn metadata(vm: &Vm) -> BTreeMap<String, String> {
    let labels = vm.labels.iter();
    let own = labels.filter_map(|(name, value)| Some((name.strip_prefix(METADATA_PREFIX)?, value)));
    own.map(|(name, value)| (name.to_owned(), value.clone())).collect()
}

/// E2B has two states; a VM that does not run, for whatever reason, can be started again.
fn state(vm: &Vm) -> &'static str {
    match vm.state {
        VmState::Starting | VmState::Running => "running",
        VmState::Stopping | VmState::Stopped | VmState::Failed { .. } | VmState::Deleting => {
            "paused"
        }
    }
}

fn listed(vm: &Vm) -> ListedSandbox {
    let disk_size_mb = match vm.spec.image {
        Some(ImageRoot { overlay: Overlay::Persistent { mib }, .. }) => mib,
        _ => 0,
    };
    let volume = |mount: &crate::model::VolumeMount| SandboxVolume {
        name: mount.volume.to_string(),
        path: mount.path.clone(),
    };
    ListedSandbox {
        template_id: template(vm),
        sandbox_id: vm.name.to_string(),
        client_id: CLIENT_ID.to_owned(),
        started_at: rfc3339(vm.created_at_ms),
        end_at: rfc3339(vm.expiry.map_or(FAR, |expiry| expiry.at_ms)),
        cpu_count: vm.spec.vcpus,
        memory_mb: vm.spec.memory_mib,
        disk_size_mb,
        state: state(vm).to_owned(),
        envd_version: ENVD_VERSION.to_owned(),
        metadata: metadata(vm),
        volume_mounts: vm.spec.volumes.iter().map(volume).collect(),
        detail: None,
    }
}

/// `POST /v2/sandboxes`: answers when the guest runs, and a plugin's workload is ready.
///
/// # Errors
/// A problem; a sandbox that does not come up is removed.
pub async fn create(
    State(e2b): State<E2b>,
    body: Wanted<NewSandbox>,
) -> Result<(StatusCode, Json<Sandbox>), Refusal> {
    let Json(new) = body?;
    let template = new.template_id.clone();
    let seconds = new.timeout.unwrap_or(TIMEOUT_DEFAULT_S);
    let planned = e2b.plan(new)?;
    let name = planned.name.clone();
    let orchestrator = &e2b.orchestrator;
    let made = orchestrator.create(planned, true, Wait::Done(UP_TIMEOUT)).await;
    let settled = match made {
        Ok(vm) if vm.plugin.is_some() => orchestrator.settled(&name, UP_TIMEOUT).await,
        other => other,
    };
    let vm = match settled {
        Ok(vm) => vm,
        Err(error) => {
            // What did not come up is nobody's; it may not have been made at all.
            let _ = orchestrator.delete(&name).await;
            return Err(no_template(error, &template));
        }
    };
    // Its time is its client's: coming up is not a part of it.
    e2b.give_time(&vm, seconds, false).await?;
    Ok((StatusCode::CREATED, Json(e2b.view(&vm).await?)))
}

/// `GET /sandboxes/{id}`.
///
/// # Errors
/// A problem.
pub async fn get(
    State(e2b): State<E2b>,
    Path(id): Path<String>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<ListedSandbox>, Refusal> {
    let vm = e2b.sandbox(&id)?;
    let on_timeout = match vm.expiry.map(|expiry| expiry.then) {
        Some(OnExpiry::Stop) => "pause",
        Some(OnExpiry::Delete) | None => "kill",
    };
    // The token opens more than a reader may.
    let may_use = Scope::Operate <= principal.scope;
    let token = e2b.orchestrator.known_guest_token(&vm.name).filter(|_| may_use);
    let detail = SandboxDetail {
        envd_access_token: token,
        domain: e2b.settings.domain.clone(),
        lifecycle: SandboxLifecycle { on_timeout: on_timeout.to_owned(), auto_resume: false },
    };
    Ok(Json(ListedSandbox { detail: Some(detail), ..listed(&vm) }))
}

/// What a list is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Filter {
    metadata: Vec<(String, String)>,
    states: Vec<String>,
    started_after_ms: Option<i64>,
    template: Option<String>,
    ascending: bool,
    limit: Option<usize>,
    /// Number of the last VM of the page before.
    after: Option<i64>,
}

/// Text that was percent-encoded once more than the query's own encoding.
fn again(text: &str) -> String {
    form_urlencoded::parse(text.replace('+', "%2B").as_bytes())
        .next()
        .map_or_else(String::new, |(key, _)| key.into_owned())
}

fn filter(query: &str) -> Result<Filter, Refusal> {
    let bad = |text: &str| Refusal::new(StatusCode::BAD_REQUEST, "invalid_query", text);
    let mut filter = Filter::default();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match key.as_ref() {
            "metadata" => {
                let pairs = form_urlencoded::parse(value.as_bytes());
                filter.metadata.extend(pairs.map(|(key, value)| (again(&key), again(&value))));
            }
            "state" => filter.states.extend(value.split(',').map(str::to_owned)),
            "startedAfter" => {
                let at = value.parse::<Timestamp>().map_err(|_| bad("startedAfter is a time"))?;
                filter.started_after_ms = Some(at.as_millisecond());
            }
            "template" => filter.template = Some(value.into_owned()),
            "order" => filter.ascending = value == "asc",
            "limit" => {
                let limit: usize = value.parse().map_err(|_| bad("limit is a number"))?;
                filter.limit = Some(limit.clamp(1, LIMIT_MAX));
            }
            "nextToken" if !value.is_empty() => {
                filter.after = Some(value.parse().map_err(|_| bad("nextToken is not ours"))?);
            }
            _ => {}
        }
    }
    Ok(filter)
}

impl Filter {
    fn takes(&self, vm: &Vm) -> bool {
        let theirs = metadata(vm);
        vm.labels.contains_key(TEMPLATE_LABEL)
            && vm.state != VmState::Deleting
            && (self.states.is_empty() || self.states.iter().any(|word| word == state(vm)))
            && self.metadata.iter().all(|(name, value)| theirs.get(name) == Some(value))
            && self.started_after_ms.is_none_or(|after| after <= vm.created_at_ms)
            && self.template.as_ref().is_none_or(|wanted| *wanted == template(vm))
            && self.after.is_none_or(
                |last| {
                    if self.ascending { last < vm.id.0 } else { vm.id.0 < last }
                },
            )
    }
}

/// `GET /v2/sandboxes`: a page of them, the latest first, and where the next begins in
/// `X-Next-Token`.
///
/// # Errors
/// A problem.
pub async fn list(State(e2b): State<E2b>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let filter = filter(&query.unwrap_or_default())?;
    let mut vms = e2b.orchestrator.list();
    vms.retain(|vm| filter.takes(vm));
    // Numbers grow with time.
    vms.sort_by_key(|vm| if filter.ascending { vm.id.0 } else { -vm.id.0 });
    let limit = filter.limit.unwrap_or(LIMIT_MAX);
    let next = (limit < vms.len()).then(|| vms[limit - 1].id.0);
    let page: Vec<_> = vms.iter().take(limit).map(listed).collect();
    let mut response = Json(page).into_response();
    let headers = response.headers_mut();
    headers.extend(next.map(|next| (NEXT_TOKEN, HeaderValue::from(next))));
    Ok(response)
}

/// `DELETE /sandboxes/{id}`.
///
/// # Errors
/// A problem.
pub async fn kill(State(e2b): State<E2b>, Path(id): Path<String>) -> Result<StatusCode, Refusal> {
    let vm = e2b.sandbox(&id)?;
    e2b.orchestrator.delete(&vm.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v2/sandboxes/{id}/connect`: a paused sandbox starts again, with its disk.
///
/// # Errors
/// A problem.
pub async fn connect(
    State(e2b): State<E2b>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<(StatusCode, Json<Sandbox>), Refusal> {
    let ConnectSandbox { timeout, .. } = optional(&body)?;
    let vm = e2b.sandbox(&id)?;
    let seconds = timeout.unwrap_or(TIMEOUT_DEFAULT_S);
    let orchestrator = &e2b.orchestrator;
    let status = match vm.state {
        VmState::Running => {
            e2b.give_time(&vm, seconds, true).await?;
            StatusCode::OK
        }
        VmState::Starting => {
            orchestrator.wait_running(&vm.name, UP_TIMEOUT).await?;
            e2b.give_time(&vm, seconds, true).await?;
            StatusCode::OK
        }
        _ => {
            let vm = orchestrator.start(&vm.name, Wait::Done(UP_TIMEOUT)).await?;
            e2b.give_time(&vm, seconds, false).await?;
            StatusCode::CREATED
        }
    };
    Ok((status, Json(e2b.view(&e2b.sandbox(&id)?).await?)))
}

/// `POST /sandboxes/{id}/timeout`.
///
/// # Errors
/// A problem.
pub async fn set_timeout(
    State(e2b): State<E2b>,
    Path(id): Path<String>,
    body: Wanted<SandboxTimeout>,
) -> Result<StatusCode, Refusal> {
    let Json(SandboxTimeout { timeout }) = body?;
    e2b.give_time(&e2b.sandbox(&id)?, timeout, false).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /sandboxes/{id}/refreshes`.
///
/// # Errors
/// A problem.
pub async fn refresh(
    State(e2b): State<E2b>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<StatusCode, Refusal> {
    let SandboxRefresh { duration } = optional(&body)?;
    let seconds = duration.unwrap_or(TIMEOUT_DEFAULT_S);
    e2b.give_time(&e2b.sandbox(&id)?, seconds, true).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /sandboxes/{id}/pause`: without its memory, its machine is stopped; its disk stays, and its
/// time has no end until it is connected to.
///
/// # Errors
/// A problem; 409 where it is paused already.
pub async fn pause(
    State(e2b): State<E2b>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<StatusCode, Refusal> {
    let SandboxPause { memory } = optional(&body)?;
    let vm = e2b.sandbox(&id)?;
    if state(&vm) == "paused" {
        let text = format!("Sandbox {id:?} is already paused");
        return Err(Refusal::new(StatusCode::CONFLICT, "vm_state", text));
    }
    if memory != Some(false) {
        let text = "not offered yet: pauses that keep a sandbox's memory (mode \"filesystem\" is)";
        return Err(unsupported(text));
    }
    e2b.orchestrator.set_expiry(&vm.name, None).await?;
    e2b.orchestrator.stop(&vm.name, Wait::Done(DOWN_TIMEOUT)).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn busy_percent(before: &GuestMetrics, after: &GuestMetrics) -> f64 {
    let busy = after.cpu_busy_us.saturating_sub(before.cpu_busy_us);
    let all = busy.saturating_add(after.cpu_idle_us.saturating_sub(before.cpu_idle_us));
    // Hundredths of a percent, so that no number is too large to be exact.
    let hundredths = busy.saturating_mul(10_000).checked_div(all).unwrap_or(0).min(10_000);
    f64::from(u32::try_from(hundredths).unwrap_or(10_000)) / 100.0
}

/// `GET /sandboxes/{id}/metrics`: what it uses now. No history is kept.
///
/// # Errors
/// A problem.
pub async fn metrics(
    State(e2b): State<E2b>,
    Path(id): Path<String>,
) -> Result<Json<Vec<SandboxMetric>>, Refusal> {
    let vm = e2b.sandbox(&id)?;
    if vm.state != VmState::Running {
        return Ok(Json(Vec::new()));
    }
    let before = e2b.orchestrator.guest_metrics(&vm.name).await?;
    tokio::time::sleep(METRICS_PAUSE).await;
    let now = e2b.orchestrator.guest_metrics(&vm.name).await?;
    let at = Timestamp::now();
    Ok(Json(vec![SandboxMetric {
        timestamp: format!("{at:.3}"),
        timestamp_unix: at.as_second(),
        cpu_count: vm.spec.vcpus,
        cpu_used_pct: busy_percent(&before, &now),
        mem_used: now.memory_total.saturating_sub(now.memory_available),
        mem_total: now.memory_total,
        mem_cache: now.memory_cached,
        disk_used: now.disk_used,
        disk_total: now.disk_total,
    }]))
}

/// `GET /v2/sandboxes/{id}/logs`: the last lines of its workload.
///
/// # Errors
/// A problem.
pub async fn logs(
    State(e2b): State<E2b>,
    Path(id): Path<String>,
) -> Result<Json<SandboxLogs>, Refusal> {
    let vm = e2b.sandbox(&id)?;
    let mut logs = Vec::new();
    if vm.spec.workload.is_none() {
        return Ok(Json(SandboxLogs { logs }));
    }
    let start = LogStart { tail: Some(LINES_MAX), since: None };
    let mut log = e2b.orchestrator.workload_log(&vm.name, start, false).await?;
    let broken = |_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "log_failed", "no log");
    while let Some(entries) = log.next().await.map_err(broken)? {
        logs.extend(entries.iter().map(|entry| {
            let stream = entry.stream.as_str().to_owned();
            SandboxLogEntry {
                timestamp: format!("{:.3}", entry.at),
                level: if stream == "stderr" { "error" } else { "info" }.to_owned(),
                message: String::from_utf8_lossy(&entry.bytes).into_owned(),
                fields: BTreeMap::from([("stream".to_owned(), stream)]),
            }
        }));
    }
    Ok(Json(SandboxLogs { logs }))
}

/// `POST /sandboxes/{id}/snapshots`.
///
/// # Errors
/// Always, for now.
pub async fn snapshot(State(e2b): State<E2b>, Path(id): Path<String>) -> Refusal {
    e2b.sandbox(&id).err().unwrap_or_else(|| unsupported("not offered yet: snapshots"))
}

/// `POST /sandboxes/{id}/fork`.
///
/// # Errors
/// Always, for now.
pub async fn fork(State(e2b): State<E2b>, Path(id): Path<String>) -> Refusal {
    e2b.sandbox(&id).err().unwrap_or_else(|| unsupported("not offered yet: forks"))
}

/// `PUT /sandboxes/{id}/network`.
///
/// # Errors
/// Always, for now.
pub async fn set_network(State(e2b): State<E2b>, Path(id): Path<String>) -> Refusal {
    let refusal = || unsupported("not offered yet: networks of sandboxes' own");
    e2b.sandbox(&id).err().unwrap_or_else(refusal)
}

/// `GET /snapshots`: there are none.
pub async fn list_snapshots() -> Json<Vec<Value>> {
    Json(Vec::new())
}

/// `DELETE /templates/{id}`: snapshots and built templates, of which there are none.
pub async fn remove_template(Path(template): Path<String>) -> Refusal {
    let text = format!("template {template:?} not found");
    Refusal::new(StatusCode::NOT_FOUND, "template_not_found", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_asked_for_as_the_sdks_ask() {
        // urlencode({quote("a b"): quote("c&d+e")}), in a query once more.
        let query = "metadata=a%252520b%3Dc%252526d%25252Be&state=running&state=paused&limit=2\
                     &order=asc&nextToken=7&startedAfter=2026-01-01T00%3A00%3A00%2B00%3A00";
        let expected = Filter {
            metadata: vec![("a b".to_owned(), "c&d+e".to_owned())],
            states: vec!["running".to_owned(), "paused".to_owned()],
            started_after_ms: Some(1_767_225_600_000),
            template: None,
            ascending: true,
            limit: Some(2),
            after: Some(7),
        };
        assert_eq!(filter(query).unwrap(), expected);
        assert_eq!(filter("state=running,paused").unwrap().states.len(), 2);
        assert_eq!(filter("limit=5000").unwrap().limit, Some(LIMIT_MAX));
        for bad in ["limit=x", "nextToken=x", "startedAfter=yesterday"] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_percentage_is_of_what_has_passed() {
        let at = |cpu_busy_us, cpu_idle_us| GuestMetrics {
            cpu_busy_us,
            cpu_idle_us,
            ..GuestMetrics::default()
        };
        assert!((busy_percent(&at(10, 10), &at(35, 85)) - 25.0).abs() < 0.001);
        assert!(busy_percent(&at(10, 10), &at(10, 10)).abs() < 0.001);
    }
}
