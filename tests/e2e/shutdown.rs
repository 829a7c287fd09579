//! The daemon's own end: guests are asked, waited for, and ended when their time is over.

use std::io::Read;
use std::time::{Duration, Instant};

use crate::daemon::Daemon;

/// Less than a guest gets for its processes to end, before they are killed.
const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn a_daemon_that_is_told_to_end_lets_its_guests_finish() {
    let mut daemon = Daemon::start();
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::File::create(&disk).unwrap().set_len(1 << 20).unwrap();
    daemon.create("polite", &["--disk", disk.to_str().unwrap()]);
    daemon.create("deaf", &[]);
    let shell = |daemon: &Daemon, vm: &str, line: &str| {
        let out = daemon.ctl(&["vms", "exec", vm, "--", "sh", "-c", line]);
        assert!(out.status.success(), "{out:?}");
    };
    let last_words =
        "trap 'printf goodbye > /dev/vda; exit' TERM; touch /tmp/ready; while :; do sleep 1; done";
    let deaf = "trap '' TERM; touch /tmp/ready; while :; do sleep 1; done";
    let until = "until [ -e /tmp/ready ]; do sleep 0.1; done";
    for (vm, script) in [("polite", last_words), ("deaf", deaf)] {
        shell(&daemon, vm, &format!("sh -c \"{script}\" >/dev/null 2>&1 & {until}"));
    }

    daemon.terminate_and_restart();
    let mut said = [0; 7];
    std::fs::File::open(&disk).unwrap().read_exact(&mut said).unwrap();
    assert_eq!(&said, b"goodbye", "the guest's process was not asked, or its write not flushed");
    for vm in ["polite", "deaf"] {
        daemon.wait_for_status(vm, "stopped");
        assert!(daemon.ctl(&["vms", "start", vm]).status.success());
    }

    // A shell on a terminal ignores SIGTERM, as the one on the console does.
    let shell = serde_json::json!({ "argv": ["sh", "-i"], "terminal": { "cols": 80, "rows": 25 } });
    let started = daemon.client().post("/api/v1/vms/polite/processes", &shell);
    assert_eq!(started.status, 201, "{started:?}");
    let began = Instant::now();
    assert!(daemon.ctl(&["vms", "stop", "polite"]).status.success());
    let took = began.elapsed();
    assert!(took < PATIENCE, "a guest in which nobody is busy ended after {took:?}");
}
