//! `make stress`: what takes too long for every change. VOLANT_TEST_ROUNDS says how long.
#![expect(clippy::unwrap_used, reason = "a step that fails is the test's failure")]

mod browser;
#[path = "../e2e/client.rs"]
mod client;
mod cloud_init;
#[path = "../e2e/daemon.rs"]
#[expect(dead_code, reason = "the end-to-end suite uses the rest")]
mod daemon;
#[path = "../e2e/examples.rs"]
mod examples;
mod files;
#[path = "../e2e/outside.rs"]
#[expect(dead_code, reason = "the end-to-end suite uses the rest")]
mod outside;
mod plugins;
#[path = "../e2e/real.rs"]
mod real;
#[path = "../e2e/registry.rs"]
mod registry;
#[path = "../e2e/servers.rs"]
mod servers;
#[path = "../e2e/vsock.rs"]
mod vsock;

use std::path::Path;

use futures_util::future::join_all;
use hyper::Method;
use serde_json::json;

use daemon::Daemon;

/// VMs that come and go at once.
const VMS: usize = 4;
const ROUNDS_DEFAULT: usize = 25;
/// What the daemon may keep of all that came and went: the allocator's fragments.
const GROWTH_KIB_MAX: u64 = 8 << 10;

fn rounds() -> usize {
    std::env::var("VOLANT_TEST_ROUNDS").ok().map_or(ROUNDS_DEFAULT, |text| text.parse().unwrap())
}

fn count(folder: impl AsRef<Path>) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// Create, work, and each way of ending, over and over: nothing of the daemon or the host grows.
#[test]
fn guests_that_come_and_go_leave_nothing() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let process = format!("/proc/{}", daemon.pid());
    let life = async |number: usize, round: usize| {
        let name = format!("vm-{number}");
        let body =
            json!({ "name": name, "memory_mb": 64, "cpu_cores": 1 + number % 2 }).to_string();
        let vm = client.send(Method::POST, "/api/v1/vms?wait=true", body).await.json();
        assert_eq!(vm["status"], "running", "round {round}: {vm}");
        let sum = client.shell(&name, "seq 1 100000 | awk '{ s += $1 } END { print s }'").await;
        assert_eq!(sum, "5000050000\n", "round {round}");
        let path = format!("/api/v1/vms/{name}");
        match (number + round) % 4 {
            0 => {
                let stop = format!("{path}/stop");
                assert_eq!(client.send(Method::POST, &stop, "").await.status, 200);
            }
            1 => {
                let body = json!({ "command": "echo c > /proc/sysrq-trigger" }).to_string();
                client.send(Method::POST, &format!("{path}/exec"), body).await;
            }
            2 => {
                let restart = format!("{path}/restart?wait=true");
                assert_eq!(client.send(Method::POST, &restart, "").await.status, 200);
            }
            _ => {}
        }
        assert_eq!(client.send(Method::DELETE, &path, "").await.status, 204, "round {round}");
    };
    let all = |round| client.runtime.block_on(join_all((0..VMS).map(|number| life(number, round))));
    // Caches and pools fill in the first rounds.
    (0..2).for_each(|round| drop(all(round)));
    let state = || {
        let fds = count(format!("{process}/fd"));
        (fds, count("/sys/class/net"), daemon.state_files())
    };
    let (before, kib_before) = (state(), daemon.private_kib());
    for round in 2..rounds() + 2 {
        all(round);
        daemon.wait("descriptors and devices to be as before", || state() == before);
    }
    let kib = daemon.private_kib();
    println!("{} lives: {kib_before} KiB of the daemon became {kib} KiB", rounds() * VMS);
    assert!(kib < kib_before + GROWTH_KIB_MAX, "{kib_before} KiB became {kib} KiB");
}
