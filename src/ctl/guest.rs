//! `vms guest`, `metrics`, `ports` and `sync-time`: what a guest tells of itself.

use hyper::Method;

use crate::ctl::client::{Client, Failure};
use crate::ctl::output::Printer;
use crate::ctl::vms::path;
use crate::ctl::watch;
use crate::wire::{GuestMetricsView, GuestView, PortView, TimeSyncView};

const NO_BODY: Option<&()> = None;

/// Its kernel and agent.
///
/// # Errors
/// [`Failure`].
pub async fn info(client: &Client, name: &str, out: &Printer) -> Result<(), Failure> {
    out.value(&client.json::<GuestView>(Method::GET, &path(name, "/guest"), NO_BODY).await?)
}

/// Its counters.
///
/// # Errors
/// [`Failure`].
pub async fn metrics(client: &Client, name: &str, out: &Printer) -> Result<(), Failure> {
    let target = path(name, "/guest/metrics");
    out.value(&client.json::<GuestMetricsView>(Method::GET, &target, NO_BODY).await?)
}

/// What listens in it.
///
/// # Errors
/// [`Failure`].
pub async fn ports(
    client: &Client,
    name: &str,
    watched: bool,
    out: &Printer,
) -> Result<(), Failure> {
    let target = path(name, "/guest/ports");
    let read = async || client.json::<Vec<PortView>>(Method::GET, &target, NO_BODY).await;
    watch::list(watched, out, read).await
}

/// Sets its clock.
///
/// # Errors
/// [`Failure`].
pub async fn sync_time(client: &Client, name: &str, out: &Printer) -> Result<(), Failure> {
    let target = path(name, "/guest/time");
    let synced: TimeSyncView = client.json(Method::POST, &target, NO_BODY).await?;
    if out.is_table() { out.line(&synced.was_ahead_ms.to_string()) } else { out.value(&synced) }
}
