//! Real guests on real KVM. Run by `make test` where `/dev/kvm` is (docs/devvm.md); it fails, and
//! never skips, where it is not. VOLANTD, VOLARY and VOLANT_KERNEL name what is tested.
#![expect(clippy::unwrap_used, reason = "a step that fails is the test's failure")]

mod access;
mod boot;
mod build;
mod client;
mod console;
mod crash;
mod daemon;
mod disks;
mod docs;
mod doctor;
mod examples;
mod exec;
mod expose;
mod files;
mod host;
mod images;
mod input;
mod interface;
mod life;
mod many;
mod media;
mod network;
mod outside;
mod plugins;
mod processes;
mod proxy;
mod real;
mod registry;
mod servers;
mod setup;
mod shutdown;
mod volumes;
mod vsock;

use std::io::Write;
use std::process::Stdio;

use daemon::Daemon;

#[test]
fn a_guest_boots_and_runs_work() {
    let daemon = Daemon::start();
    let out = daemon.ctl(&["vms", "create", "one", "--memory", "128"]);
    assert!(out.status.success(), "{out:?}");
    let out =
        daemon.ctl(&["vms", "exec", "one", "--", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!(out.status.code(), Some(3), "{out:?}");
    assert_eq!((out.stdout.as_slice(), out.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    let out = daemon.ctl(&["vms", "exec", "one", "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(out.status.code(), Some(137), "{out:?}");
    let out = daemon.ctl(&["vms", "exec", "one", "--timeout", "1", "--", "sleep", "1000"]);
    assert_eq!(out.status.code(), Some(124), "{out:?}");
    let out = daemon.ctl(&["vms", "exec", "one", "--", "sh", "-c", "sleep 1234 >/dev/null 2>&1 &"]);
    assert!(out.status.success(), "{out:?}");
    let out = daemon.ctl(&["vms", "exec", "one", "--", "pidof", "sleep"]);
    assert!(out.status.success(), "what was put into the background is gone: {out:?}");
    let out = daemon.ctl(&["vms", "exec", "one", "--", "/no/such"]);
    assert_eq!(out.status.code(), Some(127), "{out:?}");
    let out = daemon.ctl(&["vms", "exec", "one", "--", "ping", "-c", "1", "192.168.127.1"]);
    assert!(out.status.success(), "the guest does not reach the bridge: {out:?}");
    let out = daemon.ctl(&["vms", "stop", "one"]);
    assert!(out.status.success(), "{out:?}");
    let out = daemon.ctl(&["vms", "start", "one"]);
    assert!(out.status.success(), "{out:?}");
    assert!(daemon.ctl(&["vms", "delete", "one"]).status.success());
    assert_eq!(daemon.ctl(&["vms", "get", "one"]).status.code(), Some(3));
}

#[test]
fn stdin_comes_back_whole() {
    let daemon = Daemon::start();
    assert!(daemon.ctl(&["vms", "create", "one", "--memory", "128"]).status.success());
    let input: Vec<u8> = (0..10u32 << 18).flat_map(u32::to_le_bytes).collect();
    let mut child = daemon
        .command(&["vms", "exec", "-i", "one", "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let sent = input.clone();
    let writer = std::thread::Builder::new().spawn(move || stdin.write_all(&sent)).unwrap();
    let out = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(out.status.success() && out.stdout == input, "{} bytes came back", out.stdout.len());
}

#[test]
fn booting_stays_within_the_exit_budget() {
    let daemon = Daemon::start();
    let created =
        daemon.ctl(&["vms", "create", "one", "--memory", "128", "--no-console", "-o", "json"]);
    assert!(created.status.success(), "{created:?}");
    let vm: serde_json::Value = serde_json::from_slice(&created.stdout).unwrap();
    let exits = vm["boot"]["exits"].as_u64().unwrap();
    assert!((1..=400).contains(&exits), "{exits} returns of KVM_RUN until the agent answered");
}

#[test]
fn a_guests_end_is_its_own() {
    let daemon = Daemon::start();
    for name in ["panics", "leaves", "stays"] {
        assert!(daemon.ctl(&["vms", "create", name, "--memory", "96"]).status.success());
    }
    daemon.ctl(&["vms", "exec", "panics", "--", "sh", "-c", "echo c > /proc/sysrq-trigger"]);
    daemon.ctl(&["vms", "exec", "leaves", "--", "kill", "-TERM", "1"]);
    daemon.wait_for_status("panics", "failed");
    daemon.wait_for_status("leaves", "stopped");
    let out = daemon.ctl(&["vms", "exec", "stays", "--", "echo", "here"]);
    assert_eq!(out.stdout, b"here\n", "{out:?}");
}

#[test]
fn a_killed_daemon_comes_back_with_the_truth() {
    let mut daemon = Daemon::start();
    assert!(daemon.ctl(&["vms", "create", "one", "--memory", "128"]).status.success());
    daemon.kill_and_restart();
    daemon.wait_for_status("one", "stopped");
    let taps = std::fs::read_dir("/sys/class/net").unwrap();
    let taps = taps.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("vt"));
    assert_eq!(taps.count(), 0, "a TAP device was left behind");
    assert!(daemon.ctl(&["vms", "start", "one"]).status.success());
}

#[test]
fn bad_input_is_refused_and_leaves_nothing() {
    let daemon = Daemon::start();
    let long = "a".repeat(300);
    let names = ["a/b", "Demo", "dеmo", "-x", long.as_str()];
    for name in names {
        let out = daemon.ctl(&["vms", "create", name]);
        assert_eq!(out.status.code(), Some(2), "{name}: {out:?}");
    }
    let bad: [&[&str]; 6] = [
        &["--cpu", "0"],
        &["--cpu", "10000"],
        &["--memory", "1"],
        &["--kernel", "/no/such"],
        &["--kernel", "/tmp"],
        &["--kernel", "/proc/self/status"],
    ];
    for flags in bad {
        let out = daemon.ctl(&[&["vms", "create", "bad"], flags].concat());
        assert_eq!(out.status.code(), Some(2), "{flags:?}: {out:?}");
    }
    let out = daemon.ctl(&["vms", "list", "-o", "json"]);
    assert_eq!(out.stdout, b"[]\n", "{out:?}");
}
