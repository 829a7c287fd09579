//! Volumes: disks that outlive their VMs, of one writer or many readers.

use std::process::Output;

use serde_json::{Value, json};

use crate::daemon::Daemon;

fn ok(daemon: &Daemon, args: &[&str]) -> String {
    let out = daemon.ctl(args);
    assert!(out.status.success(), "{args:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

fn refused(out: &Output, code: i32, words: &str) {
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(code) && text.contains(words), "{words}: {out:?}");
}

fn volume(daemon: &Daemon, name: &str) -> Value {
    let text = ok(daemon, &["volumes", "inspect", name, "-o", "json"]);
    serde_json::from_str(&text).unwrap()
}

fn guest(daemon: &Daemon, vm: &str, line: &str) -> String {
    ok(daemon, &["vms", "exec", vm, "--", "sh", "-c", line])
}

fn create(daemon: &Daemon, vm: &str, volumes: &[&str]) -> Output {
    let mut args = vec!["vms", "create", vm, "--memory", "96"];
    for volume in volumes {
        args.extend(["--volume", volume]);
    }
    daemon.ctl(&args)
}

#[test]
fn a_volume_outlives_its_vm_grows_and_comes_back_from_a_backup() {
    let daemon = Daemon::start();
    ok(&daemon, &["volumes", "create", "data", "--size", "64"]);
    refused(&daemon.ctl(&["volumes", "create", "data", "--size", "64"]), 4, "exists");
    refused(&daemon.ctl(&["volumes", "create", "small", "--size", "1"]), 2, "64 to");
    refused(&daemon.ctl(&["volumes", "create", "../x", "--size", "64"]), 2, "letters");
    assert!(create(&daemon, "one", &["data:/srv/data"]).status.success());
    let line = "stat -f -c %T /srv/data; echo mine > /srv/data/file; ln /srv/data/file /srv/data/two; \
                df -m /srv/data | tail -n 1 | awk '{ print ($2 < 64) }'";
    assert_eq!(guest(&daemon, "one", line), "ext2/ext3\n1\n");
    let user = json!([{ "vm": "one", "path": "/srv/data", "readonly": false }]);
    assert_eq!(volume(&daemon, "data")["attached"], user);

    // One writer: nobody else may have it, and it stays.
    refused(&create(&daemon, "two", &["data:/d:ro"]), 4, "attached to VM \"one\"");
    refused(&create(&daemon, "two", &["none:/d"]), 3, "no volume");
    refused(&create(&daemon, "two", &["data:/proc"]), 2, "the system's");
    assert_eq!(daemon.client().get("/api/v1/vms/two").status.as_u16(), 404);
    refused(&daemon.ctl(&["volumes", "rm", "data"]), 4, "attached");
    refused(&daemon.ctl(&["volumes", "grow", "data", "--size", "1024"]), 4, "held");
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("data.zst").display().to_string();
    refused(&daemon.ctl(&["volumes", "backup", "data", &backup]), 4, "held");

    // Down: it grows, past its first group of blocks and past the first block of descriptors.
    ok(&daemon, &["vms", "stop", "one"]);
    refused(&daemon.ctl(&["volumes", "grow", "data", "--size", "63"]), 2, "64");
    ok(&daemon, &["volumes", "backup", "data", &backup]);
    ok(&daemon, &["volumes", "grow", "data", "--size", "20000"]);
    refused(&daemon.ctl(&["volumes", "backup", "data", &backup]), 1, "exists");
    ok(&daemon, &["vms", "start", "one"]);
    let line = "cat /srv/data/file; df -m /srv/data | tail -n 1 | awk '{ print ($2 > 19000) }'; \
                dd if=/dev/zero of=/srv/data/large bs=1M count=40 2>/dev/null; \
                rm /srv/data/large; dmesg | grep -ci 'ext4.*error'";
    let out = daemon.ctl(&["vms", "exec", "one", "--", "sh", "-c", line]);
    assert_eq!(String::from_utf8_lossy(&out.stdout), "mine\n1\n0\n", "{out:?}");
    ok(&daemon, &["vms", "delete", "one"]);
    assert_eq!(volume(&daemon, "data")["attached"], json!([]));
    let path = daemon.state_dir().join("volumes/data.ext4");
    let checked = std::process::Command::new("e2fsck").arg("-fn").arg(&path).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");

    // Many readers, of which none writes.
    for vm in ["two", "three"] {
        assert!(create(&daemon, vm, &["data:/d:ro"]).status.success());
        assert_eq!(
            guest(&daemon, vm, "cat /d/file; touch /d/x 2>/dev/null || echo no"),
            "mine\nno\n"
        );
    }
    refused(&create(&daemon, "four", &["data:/d"]), 4, "attached");
    for vm in ["two", "three"] {
        ok(&daemon, &["vms", "delete", vm]);
    }

    // From the backup, as it was then.
    refused(&daemon.ctl(&["volumes", "restore", "data", &backup]), 4, "exists");
    ok(&daemon, &["volumes", "restore", "copy", &backup]);
    assert_eq!(volume(&daemon, "copy")["size_mb"], 64);
    let cut = folder.path().join("cut.zst");
    let bytes = std::fs::read(&backup).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    refused(
        &daemon.ctl(&["volumes", "restore", "bad", &cut.display().to_string()]),
        2,
        "no backup",
    );
    assert!(create(&daemon, "five", &["copy:/d", "data:/other"]).status.success());
    assert_eq!(guest(&daemon, "five", "cat /d/two /other/two"), "mine\nmine\n");
    ok(&daemon, &["vms", "delete", "five"]);
    ok(&daemon, &["volumes", "rm", "copy"]);
    ok(&daemon, &["volumes", "rm", "data"]);
    let left = std::fs::read_dir(daemon.state_dir().join("volumes")).unwrap().count();
    assert_eq!(left, 0, "a file outlives its volume");
}

#[test]
fn a_plugins_volumes_are_made_with_its_vm_and_survive_crashes() {
    let mut daemon = Daemon::start();
    let manifest = json!({
        "name": "keeper", "version": "1", "initramfs": { "url": "builtin:default" },
        "resources": { "cpu_cores": 1, "memory_mb": 96 },
        "workload": { "entrypoint": ["sh", "-c", "echo up >> /keep/log; sleep 100000"] },
        "volumes": [{ "name": "keep", "path": "/keep", "size_mb": 64 }]
    });
    let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
    std::fs::write(file.path(), manifest.to_string()).unwrap();
    ok(&daemon, &["plugins", "install", "--manifest", file.path().to_str().unwrap()]);
    let create = ["vms", "create", "one", "--plugin", "keeper"];

    // Killed between the file and its row's change: made again, nobody has used it.
    daemon.restart_to_crash_at("volume.made");
    assert!(!daemon.ctl(&create).status.success());
    daemon.restart_after_crash();
    ok(&daemon, &["vms", "start", "one"]);
    assert_eq!(guest(&daemon, "one", "cat /keep/log"), "up\n");
    // The VM goes, its data stays, and a VM of that name finds it again.
    ok(&daemon, &["vms", "delete", "one"]);
    ok(&daemon, &create);
    assert_eq!(guest(&daemon, "one", "cat /keep/log"), "up\nup\n");

    daemon.restart_to_crash_at("volume.grown");
    assert!(!daemon.ctl(&["volumes", "grow", "one-keep", "--size", "128"]).status.success());
    daemon.restart_after_crash();
    ok(&daemon, &["vms", "start", "one"]);
    let line = "df -m /keep | tail -n 1 | awk '{ print ($2 > 64) }'";
    assert_eq!(guest(&daemon, "one", line), "1\n");
    ok(&daemon, &["vms", "delete", "one"]);

    daemon.restart_to_crash_at("volume.deleting");
    assert!(!daemon.ctl(&["volumes", "rm", "one-keep"]).status.success());
    daemon.restart_after_crash();
    assert_eq!(ok(&daemon, &["volumes", "ls", "-o", "json"]), "[]\n");
    let left = std::fs::read_dir(daemon.state_dir().join("volumes")).unwrap().count();
    assert_eq!(left, 0, "a file outlives its volume");
}
