//! `make bench`: what a start takes and what an idle VM costs, in one run on one machine.
//!
//! Absolute times mean nothing in emulation; ratios of one run do. With FIRECRACKER naming a
//! binary, it boots the same kernel and initramfs with the same vCPU, memory and command line,
//! turn and turn about with volantd. Without it, that line of the table is missing and says so.
//!
//! What was started stays until the end. The emulator keeps translated code by physical page, so a
//! guest that gets the memory of an earlier one boots half as fast (docs/devvm.md): all guests, ours
//! and the rival's, are measured on memory that has run none before.
#![expect(clippy::unwrap_used, reason = "a step that fails is the benchmark's failure")]
#![expect(clippy::print_stdout, reason = "the table is the result")]

#[path = "../e2e/client.rs"]
#[expect(dead_code, reason = "the end-to-end suite uses the rest")]
mod client;
#[path = "../e2e/daemon.rs"]
#[expect(dead_code, reason = "the end-to-end suite uses the rest")]
mod daemon;
mod images;
mod overhead;
mod rival;
#[path = "../e2e/servers.rs"]
mod servers;
mod table;
mod tricks;

use std::time::Instant;

use serde_json::Value;

use daemon::Daemon;
use rival::Firecracker;
use table::{Row, Series, Unit};

/// Rounds of a cold start; the median of these counts.
const ROUNDS: usize = 10;
/// VMs over which the cost of one more is spread.
const IDLE_VMS: usize = 10;
const MEMORY_MIB: u64 = 128;
/// What one more idle VM may cost the daemon, its RAM aside.
const IDLE_KIB_MAX: f64 = 1536.0;

#[test]
fn cold_start_and_idle_memory() {
    let daemon = Daemon::start();
    let rival = Firecracker::from_environment(&daemon, MEMORY_MIB);
    // Everything is read once before it is measured.
    cold_start(&daemon, "warm-up");
    let mut others = Vec::new();
    if let Some(rival) = &rival {
        others.push(rival.cold_start().1);
    }

    let mut rows = Starts::default();
    for round in 0..ROUNDS {
        rows.take(&daemon, &format!("round-{round}"));
        if let Some(rival) = &rival {
            let (took_ms, process) = rival.cold_start();
            rows.rival.push(took_ms);
            others.push(process);
        }
    }
    let mut rows = rows.into_rows();
    rows.push(idle_memory(&daemon));
    drop(others);
    table::publish("bench", &rows);
    let missed: Vec<_> = rows.iter().filter(|row| row.is_missed()).map(|row| &row.name).collect();
    assert!(missed.is_empty(), "short of the target: {missed:?}");
}

/// One start: the client's time from POST to the answer that says running, and the VM as told.
fn cold_start(daemon: &Daemon, name: &str) -> (f64, Value) {
    let body = serde_json::json!({ "name": name, "memory_mb": MEMORY_MIB });
    let client = daemon.client();
    let began = Instant::now();
    let vm = client.post("/api/v1/vms?wait=true", &body).json();
    let took_ms = began.elapsed().as_secs_f64() * 1e3;
    assert_eq!(vm["status"], "running", "{vm}");
    (took_ms, vm)
}

#[derive(Default)]
struct Starts {
    post_to_ready: Series,
    create_to_first_instruction: Series,
    rival: Series,
    exits: Series,
    steps: Vec<(String, Series)>,
}

impl Starts {
    fn take(&mut self, daemon: &Daemon, name: &str) {
        let (took_ms, vm) = cold_start(daemon, name);
        self.post_to_ready.push(took_ms);
        self.exits.push(vm["boot"]["exits"].as_f64().unwrap());
        let mut last_us = 0.0;
        let mut built_us = 0.0;
        for step in vm["boot"]["steps"].as_array().unwrap() {
            let (word, at_us) = (step["step"].as_str().unwrap(), step["at_us"].as_f64().unwrap());
            if word == "first_instruction" {
                self.create_to_first_instruction.push((at_us - built_us) / 1e3);
            }
            if word == "tap_ready" {
                built_us = at_us;
            }
            let known = self.steps.iter_mut().find(|(known, _)| known == word);
            let took_ms = (at_us - last_us) / 1e3;
            match known {
                Some((_, series)) => series.push(took_ms),
                None => self.steps.push((word.to_owned(), Series::of(took_ms))),
            }
            last_us = at_us;
        }
    }

    fn into_rows(self) -> Vec<Row> {
        let mut rows = Vec::new();
        let (ours, theirs) = (self.post_to_ready.median(), self.rival.median());
        rows.push(Row::new("volantd: POST to agent-ready", Unit::Ms, self.post_to_ready));
        rows.push(Row::new(
            "volantd: KVM create to first instruction",
            Unit::Ms,
            self.create_to_first_instruction,
        ));
        rows.push(Row::new("volantd: KVM_RUN returns to agent-ready", Unit::Count, self.exits));
        for (word, series) in self.steps {
            rows.push(Row::step(&word, series));
        }
        if let (Some(ours), Some(theirs)) = (ours, theirs) {
            rows.push(Row::new(
                "Firecracker: spawn to first user-space output",
                Unit::Ms,
                self.rival,
            ));
            let ratio = Series::of(ours / theirs);
            rows.push(Row::new("ratio of the medians", Unit::Ratio, ratio).at_most(1.0));
        } else {
            println!("FIRECRACKER is not set: no comparison in this run");
        }
        rows
    }
}

/// Private memory of the daemon for each further idle VM, guest RAM aside.
fn idle_memory(daemon: &Daemon) -> Row {
    daemon.create("idle-first", &[]);
    let with_one = daemon.private_kib();
    let mut series = Series::default();
    let mut last = with_one;
    for number in 0..IDLE_VMS {
        daemon.create(&format!("idle-{number}"), &[]);
        let now = daemon.private_kib();
        series.push(now as f64 - last as f64);
        last = now;
    }
    let mean = Series::of((last - with_one) as f64 / IDLE_VMS as f64);
    println!("private memory, VM by VM: {series}");
    Row::new("volantd: private memory for one more idle VM", Unit::Kib, mean).at_most(IDLE_KIB_MAX)
}
