//! `kill -9` of the daemon at every step of every change, then a new start: nothing is left behind,
//! states are true, and what was created starts again.

use std::collections::BTreeSet;
use std::process::Command;

use crate::daemon::Daemon;

/// TAP devices of guests.
pub(crate) fn taps() -> usize {
    let links = std::fs::read_dir("/sys/class/net").unwrap().flatten();
    links.filter(|entry| entry.file_name().to_string_lossy().starts_with("vt")).count()
}

/// Guests' ports in the firewall.
pub(crate) fn firewall_ports() -> usize {
    let list = ["list", "set", "bridge", "volant_vbr0", "ports"];
    let out = Command::new("nft").args(list).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    String::from_utf8(out.stdout).unwrap().matches("\"vt").count()
}

/// Name and state of every VM.
fn vms(daemon: &Daemon) -> Vec<(String, String)> {
    let out = daemon.ctl(&["vms", "list", "-o", "json"]);
    let vms: Vec<serde_json::Value> = serde_json::from_slice(&out.stdout).unwrap();
    let text = |vm: &serde_json::Value, key: &str| vm[key].as_str().unwrap().to_owned();
    vms.iter().map(|vm| (text(vm, "name"), text(vm, "status"))).collect()
}

fn named(states: &[(&str, &str)]) -> Vec<(String, String)> {
    states.iter().map(|(name, state)| ((*name).to_owned(), (*state).to_owned())).collect()
}

fn assert_clean(daemon: &Daemon, files: &BTreeSet<String>, after: &str) {
    assert_eq!(taps(), 0, "a TAP device was left by {after}");
    assert_eq!(firewall_ports(), 0, "a firewall rule was left by {after}");
    assert_eq!(&daemon.state_files(), files, "a file was left by {after}");
}

#[test]
fn a_daemon_killed_at_any_step_leaves_nothing_behind() {
    let mut daemon = Daemon::start();
    let files = daemon.state_files();

    // What was created is there and stopped; its row says so.
    let steps = [
        "create.stored",
        "start.stored",
        "start.tap",
        "start.permit",
        "start.built",
        "start.resumed",
        "start.answered",
    ];
    for point in steps {
        daemon.restart_to_crash_at(point);
        daemon.ctl(&["vms", "create", "one", "--memory", "64"]);
        daemon.restart_after_crash();
        assert_clean(&daemon, &files, point);
        assert_eq!(vms(&daemon), named(&[("one", "stopped")]), "after {point}");
        // The lease goes with the row: the next VM gets the same address.
        assert!(daemon.ctl(&["vms", "delete", "one"]).status.success());
    }

    assert!(daemon.ctl(&["vms", "create", "one", "--memory", "64", "--no-start"]).status.success());
    for point in ["stop.stored", "stop.asked", "stop.ended"] {
        daemon.restart_to_crash_at(point);
        let out = daemon.ctl(&["vms", "start", "one"]);
        assert!(out.status.success(), "a VM does not start after a crash: {out:?}");
        daemon.ctl(&["vms", "stop", "one"]);
        daemon.restart_after_crash();
        assert_clean(&daemon, &files, point);
        assert_eq!(vms(&daemon), named(&[("one", "stopped")]), "after {point}");
    }

    for point in ["delete.stored", "delete.ended", "delete.done"] {
        daemon.restart_to_crash_at(point);
        if vms(&daemon).is_empty() {
            assert!(daemon.ctl(&["vms", "create", "one", "--memory", "64"]).status.success());
        } else {
            assert!(daemon.ctl(&["vms", "start", "one"]).status.success());
        }
        let ip = daemon.ctl(&["vms", "get", "one"]);
        assert!(String::from_utf8_lossy(&ip.stdout).contains("192.168.127.2"), "a leaked lease");
        daemon.ctl(&["vms", "delete", "one"]);
        daemon.restart_after_crash();
        assert_clean(&daemon, &files, point);
        assert_eq!(vms(&daemon), named(&[]), "after {point}");
    }
}
