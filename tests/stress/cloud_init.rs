//! Debian with its own init and its own cloud-init: minutes of Python in emulation.

use serde_json::json;

use crate::daemon::{Daemon, named};

fn ok(daemon: &Daemon, args: &[&str]) -> String {
    let out = daemon.ctl(args);
    assert!(out.status.success(), "{args:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

fn guest(daemon: &Daemon, vm: &str, line: &str) -> String {
    ok(daemon, &["vms", "exec", vm, "--", "sh", "-c", line])
}

/// The agent alone is killed: another one takes its place.
fn killed(daemon: &Daemon) {
    let pid = "systemctl show -P MainPID volary";
    let before = guest(daemon, "one", pid);
    guest(daemon, "one", "systemd-run -q --on-active=1 systemctl kill -s KILL volary");
    let try_pid = || daemon.ctl(&["vms", "exec", "one", "--", "sh", "-c", pid]);
    daemon.wait("another agent", || {
        let out = try_pid();
        out.status.success() && out.stdout != before.as_bytes()
    });
}

/// The agent is killed for good: that is told by name, and the VM can be ended all the same.
fn gone(daemon: &Daemon) {
    guest(daemon, "one", "systemd-run -q --on-active=1 systemctl mask --runtime --now volary");
    daemon.wait("the agent to be gone", || {
        !daemon.ctl(&["vms", "exec", "one", "--", "true"]).status.success()
    });
    let body = json!({ "command": "true" });
    let told = daemon.client().post("/api/v1/vms/one/exec", &body);
    assert_eq!(told.json()["code"], "agent_unreachable", "{told:?}");
    assert_eq!(daemon.client().get("/api/v1/vms/one").json()["status"], "running");
    ok(daemon, &["vms", "stop", "one", "--timeout", "300"]);
}

#[test]
fn debians_cloud_init_takes_its_seed() {
    // All of systemd ends at a stop, and in emulation that takes its time.
    let daemon = Daemon::start_with("stop_timeout_ms = 300000\n");
    // What tests/devvm/disks.sh has made.
    let disk = named("VOLANT_TEST_DISKS").join("cloud.raw");
    let manifest = json!({
        "name": "cloud", "version": "1",
        "rootfs": { "url": disk.display().to_string() },
        "resources": { "cpu_cores": 1, "memory_mb": 512 },
        "workload": { "entrypoint": ["/bin/sh", "-c", "echo as a workload; exec sleep 100000"] },
        "cloud_init": { "user_data": { "content": "#cloud-config\nbootcmd: [ 'false' ]\n" } }
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("manifest.json");
    std::fs::write(&path, manifest.to_string()).unwrap();
    ok(&daemon, &["plugins", "install", "--manifest", path.to_str().unwrap()]);
    let user_data = folder.path().join("user-data");
    let text = "#cloud-config\nusers:\n- name: tester\n  shell: /bin/sh\nwrite_files:\n\
        - path: /etc/from-seed\n  content: a file\n  permissions: '0640'\n\
        runcmd:\n- [ sh, -c, 'id -un tester > /var/command' ]\n";
    std::fs::write(&user_data, text).unwrap();
    let user_data = user_data.to_str().unwrap();
    let flags = ["--plugin", "cloud", "--user-data", user_data, "--timeout", "900"];
    let out = daemon.ctl(&[&["vms", "create", "one"], &flags[..]].concat());
    let log = || ok(&daemon, &["vms", "logs", "one", "--source", "console"]);
    assert!(out.status.success(), "{out:?}; its console:\n{}", log());
    // The agent is a service of systemd's, and has answered.
    assert_eq!(guest(&daemon, "one", "cat /proc/1/comm; hostname"), "systemd\none\n");
    daemon.wait("cloud-init to be done", || {
        daemon.ctl(&["vms", "exec", "one", "--", "test", "-e", "/var/command"]).status.success()
    });
    let line = "cat /var/command; cat /etc/from-seed; stat -c %a /etc/from-seed; \
        cat /var/lib/cloud/data/instance-id; getent passwd tester | cut -d: -f7";
    let expected = "tester\na file640\nvolant-1\n/bin/sh\n";
    assert_eq!(guest(&daemon, "one", line), expected);
    assert_eq!(ok(&daemon, &["vms", "logs", "one"]), "as a workload\n");
    killed(&daemon);
    // Asked to end, it does; what it was made to stays, and is not done again.
    let text = ok(&daemon, &["vms", "stop", "one", "--timeout", "300", "-o", "json"]);
    assert!(text.contains("\"stopped\""), "{text}");
    let history = daemon.client().get("/api/v1/events/history?limit=100").json();
    assert!(history.to_string().contains("\"vm stopped\""), "{history}");
    ok(&daemon, &["vms", "start", "one", "--timeout", "300"]);
    gone(&daemon);
}
