//! The reference plugins of docs/examples that need an image: nginx, a worker in Python, PostgreSQL.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use serde_json::Value;

use crate::daemon::Daemon;
use crate::examples::{example, install, ok, two_steps};
use crate::registry::{self, Registry};

fn address(daemon: &Daemon, vm: &str) -> String {
    let text = ok(daemon, &["vms", "get", vm, "-o", "json"]);
    let vm: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(vm["ready"], true, "created means ready: {vm}");
    vm["ip_address"].as_str().unwrap().to_owned()
}

/// What curl gets there.
fn page(url: &str) -> String {
    let out = Command::new("curl").args(["-sS", "--max-time", "20", url]).output().unwrap();
    assert!(out.status.success(), "{url}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn reference_plugins_of_images_do_what_they_say() {
    let _registry = Registry::start();
    let daemon = registry::daemon();
    let folder = tempfile::tempdir().unwrap();
    for name in ["nginx", "postgresql"] {
        install(&daemon, name, folder.path());
    }

    // Of an image from the registry, and of one with a program built over it.
    ok(&daemon, &["vms", "create", "web", "--plugin", "nginx"]);
    let got = ok(&daemon, &["plugins", "action", "nginx", "page"]);
    assert!(got.contains("Welcome to nginx"), "{got}");
    assert_eq!(got, page(&format!("http://{}/", address(&daemon, "web"))));
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
    assert_eq!(ok(&daemon, &["plugins", "action", "python-worker", "progress"]), two_steps());
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
