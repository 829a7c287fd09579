//! `ctl top`: what guests use.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use hyper::Method;
use indicatif::HumanBytes;
use serde::Serialize;
use tokio::time::sleep;

use crate::cli::TopArgs;
use crate::ctl::client::{Client, Failure};
use crate::ctl::output::{Listed, Printer};
use crate::ctl::vms::path;
use crate::wire::{GuestMetricsView, VmView};

/// Guests measured at once.
const AT_ONCE: usize = 8;
/// Between the first two measurements, of which the first line is made.
const FIRST: Duration = Duration::from_secs(1);

const NO_BODY: Option<&()> = None;

/// What a guest uses.
#[derive(Debug, Serialize)]
struct Usage {
    name: String,
    /// Of all its processors together.
    cpu_percent: Option<u64>,
    memory_used: u64,
    memory_total: u64,
    disk_used: u64,
    disk_total: u64,
    processes: u32,
    net_received: u64,
    net_sent: u64,
}

impl Listed for Usage {
    const HEADER: &'static [&'static str] =
        &["NAME", "CPU", "MEM", "OF", "DISK", "OF", "PROCESSES", "NET IN", "NET OUT"];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn cells(&self) -> Vec<String> {
        let bytes = |bytes: u64| HumanBytes(bytes).to_string();
        vec![
            self.name.clone(),
            self.cpu_percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent}%")),
            bytes(self.memory_used),
            bytes(self.memory_total),
            bytes(self.disk_used),
            bytes(self.disk_total),
            self.processes.to_string(),
            bytes(self.net_received),
            bytes(self.net_sent),
        ]
    }
}

/// How busy a guest's processors were between two measurements, in percent; nothing if it has been
/// started anew.
pub fn busy_percent(before: &GuestMetricsView, now: &GuestMetricsView) -> Option<u64> {
    let busy = now.cpu_busy_us.checked_sub(before.cpu_busy_us)?;
    let idle = now.cpu_idle_us.checked_sub(before.cpu_idle_us)?;
    (busy * 100).checked_div(busy + idle)
}

/// Prints what is used, once or again and again.
///
/// # Errors
/// [`Failure`].
pub async fn run(client: &Client, args: TopArgs, out: &Printer) -> Result<u8, Failure> {
    let repeats = args.watch || (!args.once && out.can_redraw());
    let mut before = measure(client, &args.name).await?;
    let mut pause = FIRST;
    loop {
        sleep(pause).await;
        pause = Duration::from_secs(args.every);
        let now = measure(client, &args.name).await?;
        let used: Vec<Usage> =
            now.iter().map(|(name, view)| usage(name, before.get(name), view)).collect();
        if repeats {
            out.redraw()?;
        }
        out.list(&used)?;
        if !repeats {
            return Ok(0);
        }
        before = now;
    }
}

fn usage(name: &str, before: Option<&GuestMetricsView>, now: &GuestMetricsView) -> Usage {
    Usage {
        name: name.to_owned(),
        cpu_percent: before.and_then(|before| busy_percent(before, now)),
        memory_used: now.memory_total.saturating_sub(now.memory_available),
        memory_total: now.memory_total,
        disk_used: now.disk_used,
        disk_total: now.disk_total,
        processes: now.processes,
        net_received: now.net_received,
        net_sent: now.net_sent,
    }
}

async fn measure(
    client: &Client,
    names: &[String],
) -> Result<BTreeMap<String, GuestMetricsView>, Failure> {
    let is_named = !names.is_empty();
    let names = match is_named {
        true => names.to_vec(),
        false => {
            let all: Vec<VmView> =
                client.json(Method::GET, "/api/v1/vms?status=running", NO_BODY).await?;
            all.into_iter().map(|vm| vm.name).collect()
        }
    };
    let measure = names.into_iter().map(|name| async move {
        let target = path(&name, "/guest/metrics");
        let view = client.json::<GuestMetricsView>(Method::GET, &target, NO_BODY).await;
        view.map(|view| (name, view))
    });
    let measured: Vec<_> = stream::iter(measure).buffer_unordered(AT_ONCE).collect().await;
    // Of all that run, one may have no agent, or stop meanwhile; one that is named has to tell.
    measured.into_iter().filter(|one| is_named || one.is_ok()).collect()
}
