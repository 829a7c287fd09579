//! The reference plugins of docs/examples, as they stand but for the name of the registry.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::daemon::Daemon;
use crate::images::{self, REGISTRY, Registry};

fn ok(daemon: &Daemon, args: &[&str]) -> String {
    let out = daemon.ctl(args);
    assert!(out.status.success(), "{args:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

/// A copy of an example that names the test's registry.
fn example(name: &str, folder: &Path) -> PathBuf {
    let copy = folder.join(name);
    std::fs::create_dir(&copy).unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples").join(name);
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let text = std::fs::read_to_string(entry.path()).unwrap();
        let text = text.replace("registry.example", REGISTRY);
        std::fs::write(copy.join(entry.file_name()), text).unwrap();
    }
    copy
}

fn address(daemon: &Daemon, vm: &str) -> String {
    let text = ok(daemon, &["vms", "get", vm, "-o", "json"]);
    let vm: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(vm["ready"], true, "created means ready: {vm}");
    vm["ip_address"].as_str().unwrap().to_owned()
}

#[test]
fn the_reference_plugins_do_what_they_say() {
    let _registry = Registry::start();
    let daemon = images::daemon();
    let folder = tempfile::tempdir().unwrap();
    for name in ["http-appliance", "worker", "nginx", "postgresql"] {
        let manifest = example(name, folder.path()).join("manifest.yaml").display().to_string();
        ok(&daemon, &["plugins", "install", name, "--manifest", &manifest]);
    }

    // In nothing but the default initramfs.
    let greeting = ["--env", "GREETING=hi"];
    ok(
        &daemon,
        &[&["vms", "create", "page", "--plugin", "http-appliance"], &greeting[..]].concat(),
    );
    ok(&daemon, &["vms", "create", "w0", "--plugin", "worker", "--env", "STEPS=2"]);
    assert_eq!(ok(&daemon, &["vms", "action", "page", "http-appliance", "page"]), "hi\n");
    let payload = ["--payload", "\"1234\""];
    let out = ok(&daemon, &[&["vms", "action", "w0", "worker", "count"], &payload[..]].concat());
    assert_eq!(out, "{\"vm\": \"w0\", \"bytes\": 6}\n");
    let event = |step| format!("event: progress\ndata: {{\"step\": {step}, \"of\": 2}}\n\n");
    let both = event(1) + &event(2);
    assert_eq!(ok(&daemon, &["plugins", "action", "worker", "progress"]), both);
    assert_eq!(ok(&daemon, &["vms", "logs", "w0"]), "worker ready, 2 steps\n");
    for vm in ["page", "w0"] {
        ok(&daemon, &["vms", "delete", vm]);
    }

    // Of an image from the registry, and of one with a program built over it.
    ok(&daemon, &["vms", "create", "web", "--plugin", "nginx"]);
    let page = ok(&daemon, &["plugins", "action", "nginx", "page"]);
    assert!(page.contains("Welcome to nginx"), "{page}");
    assert_eq!(page, images::page(&format!("http://{}/", address(&daemon, "web"))));
    ok(&daemon, &["vms", "delete", "web"]);
    let source = example("python-worker", folder.path()).display().to_string();
    let out = folder.path().join("out").display().to_string();
    ok(&daemon, &["build", &source, "-d", &out, "--install"]);
    ok(&daemon, &["vms", "create", "w1", "--plugin", "python-worker", "--env", "STEPS=2"]);
    let count = ["vms", "action", "w1", "python-worker", "count", "--payload"];
    let counted = ok(&daemon, &[&count[..], &["{\"text\": \"how long is this\"}"]].concat());
    assert_eq!(counted, "{\"vm\": \"w1\", \"words\": 4, \"letters\": 16}\n");
    let wrong = daemon.ctl(&[&count[..], &["{\"txt\": 1}"]].concat());
    assert!(!wrong.status.success() && wrong.stdout.starts_with(b"{\"error\""), "{wrong:?}");
    assert_eq!(ok(&daemon, &["plugins", "action", "python-worker", "progress"]), both);
    let log = ok(&daemon, &["vms", "logs", "w1"]);
    assert!(log.starts_with("worker ready on port 8080\nPOST /count 200\n"), "{log}");
    ok(&daemon, &["vms", "delete", "w1"]);

    // With a volume: what is written outlives the VM.
    let create = ["vms", "create", "db", "--plugin", "postgresql", "--env", "POSTGRES_PASSWORD=x"];
    let query = |text: &str| {
        let psql = "/usr/lib/postgresql/15/bin/psql";
        let flags = ["-h", "/tmp", "-U", "postgres", "-Atc", text];
        ok(&daemon, &[&["vms", "exec", "db", "--", psql], &flags[..]].concat())
    };
    ok(&daemon, &create);
    query("create table kept (text text); insert into kept values ('here')");
    // It listens to the network: asked for TLS it answers with a letter (its protocol, 55.2.10).
    let mut stream = TcpStream::connect((address(&daemon, "db").as_str(), 5432)).unwrap();
    stream.write_all(&[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f]).unwrap();
    let mut letter = [0];
    stream.read_exact(&mut letter).unwrap();
    assert!(b"SN".contains(&letter[0]), "{letter:?}");
    ok(&daemon, &["vms", "delete", "db"]);
    ok(&daemon, &create);
    assert_eq!(query("select text from kept"), "here\n");
}
