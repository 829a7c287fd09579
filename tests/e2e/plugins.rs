//! Plugins: from a manifest to a workload that is ready, kept alive, told about and read.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::access::certify;
use crate::daemon::Daemon;

/// A web server in the default initramfs. Its page and its health are files that a test can change.
const SERVER: &str = "mkdir -p /www/cgi-bin && echo \"hello from $GREETING\" >/www/index.html && \
    echo up >/www/health && echo serving && echo complaining >&2 && exec httpd -f -p 8080 -h /www";

fn manifest(name: &str, line: &str) -> Value {
    json!({
        "schema_version": "1",
        "name": name,
        "version": "1.0.0",
        "initramfs": { "url": "builtin:default" },
        "resources": { "cpu_cores": 1, "memory_mb": 96 },
        "env": { "GREETING": "the manifest" },
        "workload": {
            "type": "http",
            "base_url": "http://127.0.0.1:8080",
            "entrypoint": ["/bin/sh", "-c", line],
            "restart": { "policy": "always", "backoff_min_ms": 100, "backoff_max_ms": 1000 }
        },
        "health": {
            "http": { "path": "/health" },
            "interval_ms": 300, "timeout_ms": 2000, "retries": 2, "start_period_ms": 60000
        },
        "labels": { "tier": "front" }
    })
}

fn install(daemon: &Daemon, manifest: &Value) -> Output {
    let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
    std::fs::write(file.path(), manifest.to_string()).unwrap();
    daemon.ctl(&["plugins", "install", "--manifest", file.path().to_str().unwrap()])
}

/// Documents as the original Volant and its image builder write them.
const ORIGINALS: [&str; 2] = [
    include_str!("../golden/original-echo.json"),
    include_str!("../golden/original-appliance.json"),
];

fn ok(out: &Output) -> String {
    assert!(out.status.success(), "{out:?}");
    String::from_utf8(out.stdout.clone()).unwrap()
}

fn refused(out: &Output, code: i32, words: &str) {
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(code) && text.contains(words), "{words}: {out:?}");
}

fn get(daemon: &Daemon, vm: &str) -> Value {
    serde_json::from_slice(&daemon.ctl(&["vms", "get", vm, "-o", "json"]).stdout).unwrap()
}

fn wait_for_condition(daemon: &Daemon, vm: &str, condition: &str) -> Value {
    daemon.wait(&format!("the workload of {vm} to be {condition}"), || {
        get(daemon, vm)["workload"]["condition"] == condition
    });
    get(daemon, vm)
}

fn guest(daemon: &Daemon, vm: &str, line: &str) -> String {
    ok(&daemon.ctl(&["vms", "exec", vm, "--", "sh", "-c", line]))
}

/// Kinds of the events so far.
fn events(daemon: &Daemon) -> Vec<String> {
    // The stream does not end by itself: it is cut once the last event that there is has come.
    let mut child = daemon
        .command(&["events", "--since", "0", "-o", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mark = ok(&daemon.ctl(&["vms", "create", "mark", "--no-start"]));
    assert!(mark.contains("mark"));
    let mut kinds = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if event["name"] == "mark" {
            break;
        }
        kinds.push(event["type"].as_str().unwrap().to_owned());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    ok(&daemon.ctl(&["vms", "delete", "mark"]));
    kinds
}

#[test]
fn a_plugin_makes_vms_whose_workload_is_kept_alive() {
    let mut daemon = Daemon::start();
    let mut web = manifest("web", SERVER);
    web["ports"] = json!([{ "port": 8080, "host_port": 18090 }]);
    ok(&install(&daemon, &web));
    let create = ["vms", "create", "one", "--plugin", "web", "--env", "GREETING=the request"];
    ok(&daemon.ctl(&[&create[..], &["--label", "a=b", "--memory", "64"]].concat()));
    // Created means ready.
    let vm = get(&daemon, "one");
    assert_eq!((&vm["ready"], &vm["status"]), (&json!(true), &json!("running")));
    assert_eq!((&vm["plugin"], &vm["plugin_version"]), (&json!("web"), &json!("1.0.0")));
    assert_eq!((&vm["cpu_cores"], &vm["memory_mb"]), (&json!(1), &json!(64)));
    let labels =
        json!({ "a": "b", "tier": "front", "volant.plugin": "web", "volant.runtime": "web" });
    assert_eq!(vm["labels"], labels);
    assert_eq!(guest(&daemon, "one", "wget -qO- localhost:8080"), "hello from the request\n");
    let outside = ["-sS", "--max-time", "20", "http://127.0.0.1:18090/"];
    let page = std::process::Command::new("curl").args(outside).output().unwrap();
    assert_eq!(ok(&page), "hello from the request\n", "by the host's port that the manifest names");
    let second = ["vms", "create", "other", "--plugin", "web"];
    refused(&daemon.ctl(&second), 4, "18090");

    // Killed: restarted, and ready again.
    guest(&daemon, "one", "kill -9 $(pidof httpd)");
    daemon.wait("the workload to be ready again", || {
        let vm = get(&daemon, "one");
        vm["ready"] == true && vm["workload"]["exits"] == 1
    });
    assert_eq!(get(&daemon, "one")["workload"]["last_exit"]["signal"], 9);

    // Unhealthy, though it runs; and healthy again.
    guest(&daemon, "one", "mv /www/health /www/ill");
    let vm = wait_for_condition(&daemon, "one", "unhealthy");
    assert_eq!((&vm["ready"], &vm["status"]), (&json!(false), &json!("running")));
    assert!(vm["workload"]["reason"].as_str().unwrap().contains("404"), "{vm}");
    guest(&daemon, "one", "mv /www/ill /www/health");
    wait_for_condition(&daemon, "one", "ready");
    let told: Vec<_> = events(&daemon)
        .into_iter()
        .filter(|kind| ["READY", "HEALTHY", "EXITED"].iter().any(|word| kind.ends_with(word)))
        .collect();
    let expected = ["VM_READY", "VM_WORKLOAD_EXITED", "VM_READY", "VM_UNHEALTHY", "VM_READY"];
    assert_eq!(told, expected);

    // A disabled plugin makes no VMs, and a used one stays.
    ok(&daemon.ctl(&["plugins", "disable", "web"]));
    refused(&daemon.ctl(&["vms", "create", "two", "--plugin", "web"]), 4, "disabled");
    refused(&daemon.ctl(&["plugins", "remove", "web"]), 4, "\"one\"");
    ok(&daemon.ctl(&["plugins", "enable", "web"]));

    // The registry, and what the VM runs, are there after a crash.
    daemon.kill_and_restart();
    assert!(ok(&daemon.ctl(&["plugins", "list"])).contains("web"));
    ok(&daemon.ctl(&["vms", "start", "one"]));
    assert_eq!(get(&daemon, "one")["ready"], true);
    ok(&daemon.ctl(&["vms", "delete", "one"]));
    ok(&daemon.ctl(&["plugins", "remove", "web"]));
    refused(&daemon.ctl(&["vms", "create", "two", "--plugin", "web"]), 3, "no plugin");
}

#[test]
fn a_workload_that_keeps_failing_is_given_up_with_its_reason() {
    let daemon = Daemon::start();
    let mut fails = manifest("fails", "echo try; exit 7");
    fails["workload"]["restart"] = json!({ "policy": "on-failure", "backoff_min_ms": 50, "backoff_max_ms": 50, "retries_max": 2 });
    ok(&install(&daemon, &fails));
    let mut hungry = manifest("hungry", "exec tail /dev/zero");
    hungry["workload"]["restart"] = json!({ "policy": "never" });
    ok(&install(&daemon, &hungry));
    // Who waits for it is told.
    let create = |name| daemon.ctl(&["vms", "create", name, "--plugin", name]);
    refused(&create("fails"), 1, "its workload is failed: it ended with exit code 7");
    refused(&create("hungry"), 1, "out of memory");
    let vm = wait_for_condition(&daemon, "fails", "failed");
    assert_eq!(vm["workload"]["reason"], "it ended with exit code 7, after 2 restarts");
    assert_eq!((&vm["ready"], &vm["status"]), (&json!(false), &json!("running")));
    assert_eq!(vm["workload"]["exits"], 3);
    daemon.wait("all that it has written", || {
        ok(&daemon.ctl(&["vms", "logs", "fails"])) == "try\ntry\ntry\n"
    });
    let vm = wait_for_condition(&daemon, "hungry", "failed");
    assert_eq!(vm["workload"]["out_of_memory"], true, "{vm}");
    assert!(vm["workload"]["reason"].as_str().unwrap().ends_with("out of memory"), "{vm}");
    // The guest itself is well.
    assert_eq!(guest(&daemon, "hungry", "echo here"), "here\n");
    let failed = events(&daemon).iter().filter(|kind| *kind == "VM_WORKLOAD_FAILED").count();
    assert_eq!(failed, 2);
}

#[test]
fn what_a_workload_writes_is_kept_within_its_size_and_read_from_any_place() {
    let daemon = Daemon::start();
    let line = "i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done; \
        trap 'echo asked to end; exit 0' INT; while :; do sleep 0.1; done";
    let mut talks = manifest("talks", line);
    talks["workload"]["stop_signal"] = json!("SIGINT");
    talks.as_object_mut().unwrap().remove("health");
    ok(&install(&daemon, &talks));
    ok(&daemon.ctl(&["vms", "create", "one", "--plugin", "talks"]));
    let logs = |args: &[&str]| ok(&daemon.ctl(&[&["vms", "logs", "one"], args].concat()));
    daemon.wait("the last line", || logs(&["--tail", "1"]) == "line 4999\n");
    let all = logs(&[]);
    assert!(all.lines().count() < 5000 && all.ends_with("line 4999\n"), "nothing was rotated away");
    let kept: u64 = daemon
        .state_files()
        .iter()
        .filter(|path| path.contains("/logs/"))
        .map(|path| std::fs::metadata(path).unwrap().len())
        .sum();
    assert!((16_384..=65_536).contains(&kept), "{kept} bytes kept");
    assert_eq!(logs(&["--since", "1h"]), all);
    assert_eq!(logs(&["--since", "2999-01-01T00:00:00Z"]), "");
    let stamped = logs(&["--tail", "1", "--timestamps"]);
    assert!(stamped.ends_with("Z stdout line 4999\n") && stamped.starts_with("20"), "{stamped}");
    refused(&daemon.ctl(&["vms", "logs", "one", "--since", "soon"]), 2, "RFC 3339");
    refused(
        &daemon.ctl(&["vms", "logs", "one", "--source", "console", "--since", "1h"]),
        4,
        "times",
    );

    // Followed across its end: the stop signal is the workload's own, and its last words are kept.
    let mut follower = daemon
        .command(&["vms", "logs", "one", "-f", "--tail", "1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "line 4999");
    ok(&daemon.ctl(&["vms", "stop", "one"]));
    assert_eq!(lines.next().unwrap().unwrap(), "asked to end");
    assert!(lines.next().is_none(), "the stream goes on after the machine's end");
    assert!(follower.wait().unwrap().success());
    assert_eq!(logs(&["--tail", "1"]), "asked to end\n");
    ok(&daemon.ctl(&["vms", "delete", "one"]));
    assert!(daemon.state_files().iter().all(|path| !path.contains("/logs/")), "a log was left");
}

#[test]
fn manifests_are_refused_by_field_and_versions_roll_back() {
    let daemon = Daemon::start();
    let mut wrong = manifest("web", SERVER);
    wrong["workload"]["entripoint"] = json!("x");
    refused(&install(&daemon, &wrong), 2, "/workload/entripoint: there is no such field");
    wrong = manifest("web", SERVER);
    wrong["resources"]["memory_mb"] = json!(1);
    refused(&install(&daemon, &wrong), 2, "/resources/memory_mb");
    assert_eq!(ok(&daemon.ctl(&["plugins", "list", "-o", "json"])), "[]\n");
    let client = daemon.client();
    wrong["naem"] = json!("x");
    let answer = client.post("/api/v1/plugins", &wrong);
    assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (422, &json!("invalid_manifest")));
    let refused_field = json!({ "pointer": "/naem", "detail": "there is no such field" });
    assert_eq!(answer.json()["errors"], json!([refused_field]));
    let schema = client.get("/api/v1/schemas/plugin-manifest").json();
    assert_eq!(schema["additionalProperties"], false);

    let first = manifest("web", SERVER);
    ok(&install(&daemon, &first));
    ok(&install(&daemon, &first));
    let mut changed = first.clone();
    changed["resources"]["memory_mb"] = json!(128);
    refused(&install(&daemon, &changed), 4, "another manifest");
    changed["version"] = json!("2.0.0");
    let yaml = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(yaml.path(), serde_json::to_string_pretty(&changed).unwrap()).unwrap();
    let path = yaml.path().to_str().unwrap();
    refused(&daemon.ctl(&["plugins", "install", "other", "-m", path]), 2, "/name");
    ok(&daemon.ctl(&["plugins", "install", "web", "-m", path]));
    let memory = || {
        let vm =
            ok(&daemon.ctl(&["vms", "create", "x", "--plugin", "web", "--no-start", "-o", "json"]));
        ok(&daemon.ctl(&["vms", "delete", "x"]));
        serde_json::from_str::<Value>(&vm).unwrap()["memory_mb"].as_u64().unwrap()
    };
    assert_eq!(memory(), 128);
    ok(&daemon.ctl(&["plugins", "rollback", "web"]));
    assert_eq!(memory(), 96);
    refused(&daemon.ctl(&["plugins", "rollback", "web"]), 4, "no version before");
    ok(&daemon.ctl(&["plugins", "rollback", "web", "--version", "2.0.0"]));
    assert_eq!(memory(), 128);
    refused(&daemon.ctl(&["plugins", "rollback", "web", "--version", "3"]), 3, "no version");
    let artifacts = "/api/v1/plugins/web/artifacts";
    let own = client.get(&format!("{artifacts}/initramfs?version=2.0.0")).json();
    assert_eq!((&own["Kind"], &own["SourceURL"]), (&json!("initramfs"), &json!("builtin:default")));
    let more = json!({ "version": "2.0.0", "artifact_name": "notes", "size_bytes": 7 });
    assert_eq!(client.post(artifacts, &more).status.as_u16(), 201);
    let all = client.get(&format!("{artifacts}?version=2.0.0")).json();
    assert_eq!((&all[1]["ArtifactName"], &all[1]["SizeBytes"]), (&json!("notes"), &json!(7)));
    assert_eq!(client.get(artifacts).json().as_array().unwrap().len(), 3);
    assert_eq!(client.get(&format!("{artifacts}/notes")).status.as_u16(), 400);
    assert_eq!(client.get(&format!("{artifacts}/none?version=2.0.0")).status.as_u16(), 404);
    let list = client.get("/api/v1/plugins").json();
    assert_eq!(
        (&list["plugins"], &list["items"][0]["version"]),
        (&json!(["web"]), &json!("2.0.0"))
    );
    assert_eq!(client.get("/api/v1/plugins/web").json()["version"], "2.0.0");
    let disabled = client.post("/api/v1/plugins/web/enabled", &json!({ "enabled": false }));
    assert_eq!((disabled.status.as_u16(), &disabled.json()["enabled"]), (200, &json!(false)));
    assert_eq!(client.get("/api/v1/plugins/web/manifest").status.as_u16(), 409);
    assert_eq!(client.get("/api/v1/plugins/web?version=1.0.0").status.as_u16(), 200);
    assert_eq!(client.get("/api/v1/plugins/none").status.as_u16(), 404);
    let shown = ok(&daemon.ctl(&["plugins", "show", "web", "--version", "1.0.0", "-o", "json"]));
    assert_eq!(serde_json::from_str::<Value>(&shown).unwrap()["resources"]["memory_mb"], 96);
}

/// A server whose actions are CGI scripts: one returns what it gets, one says who it is, one streams,
/// one thinks for long.
fn acting(name: &str) -> Value {
    let scripts = [
        ("echo", "printf 'Content-Type: application/octet-stream\\r\\n\\r\\n'; cat"),
        (
            "who",
            "printf 'Content-Type: application/json\\r\\n\\r\\n'; echo \"\\\"$(hostname) $QUERY_STRING\\\"\"",
        ),
        (
            "stream",
            "printf 'Content-Type: text/event-stream\\r\\n\\r\\n'; for i in 1 2 3; do printf \"data: $i\\n\\n\"; sleep 2; done",
        ),
        ("slow", "sleep 30"),
        ("fail", "printf 'Status: 418 Teapot\\r\\n\\r\\n'; echo short and stout"),
    ];
    let mut line = "mkdir -p /www/cgi-bin; cd /www/cgi-bin; echo up >/www/health\n".to_owned();
    for (script, text) in scripts {
        line.push_str(&format!(
            "cat >{script} <<'END'\n#!/bin/sh\n{text}\nEND\nchmod 755 {script}\n"
        ));
    }
    line.push_str("exec httpd -f -p 8080 -h /www\n");
    let mut manifest = manifest(name, &line);
    manifest["actions"] = json!({
        "echo": { "method": "POST", "path": "/cgi-bin/echo" },
        "who": { "method": "GET", "path": "/cgi-bin/who?a=1" },
        "stream": { "method": "GET", "path": "/cgi-bin/stream" },
        "slow": { "method": "POST", "path": "/cgi-bin/slow", "timeout_ms": 1500 },
        "fail": { "method": "POST", "path": "/cgi-bin/fail" },
        "closed": { "method": "POST", "path": "/", "port": 9 }
    });
    manifest
}

#[test]
fn actions_reach_the_vm_named_or_the_least_busy_one() {
    let daemon = Daemon::start();
    ok(&install(&daemon, &acting("acts")));
    refused(&daemon.ctl(&["plugins", "action", "acts", "who"]), 1, "no VM of plugin");
    let create = ["vms", "create", "one", "--plugin", "acts", "--memory", "64"];
    ok(&daemon.ctl(&[&create[..], &["--wait=false"]].concat()));

    // Called at once: a VM that is about to be ready is waited for.
    let out = daemon.ctl(&["vms", "action", "one", "acts", "echo", "--payload", "{\"a\": [1, 2]}"]);
    assert_eq!(ok(&out), "{\"a\": [1, 2]}");
    let binary: Vec<u8> = (0..200_000u32).flat_map(u32::to_be_bytes).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &binary).unwrap();
    let path = format!("@{}", file.path().display());
    let out = daemon.ctl(&["vms", "action", "one", "acts", "echo", "--payload", &path]);
    assert!(out.status.success() && out.stdout == binary, "{} bytes came back", out.stdout.len());
    let out = daemon.ctl(&["plugins", "action", "acts", "who"]);
    assert_eq!(ok(&out), "\"one a=1\"\n");

    // The workload's refusals, and the daemon's.
    let out = daemon.ctl(&["vms", "action", "one", "acts", "fail"]);
    assert_eq!(out.stdout, b"short and stout\n", "{out:?}");
    refused(&out, 1, "418");
    refused(&daemon.ctl(&["vms", "action", "one", "acts", "slow"]), 7, "answer in time");
    refused(&daemon.ctl(&["vms", "action", "one", "acts", "closed"]), 1, "port 9");
    refused(&daemon.ctl(&["vms", "action", "one", "acts", "none"]), 3, "no action");
    refused(&daemon.ctl(&["vms", "action", "one", "other", "who"]), 3, "no plugin");
    ok(&install(&daemon, &manifest("other", SERVER)));
    refused(&daemon.ctl(&["vms", "action", "one", "other", "who"]), 4, "not what plugin");

    // A stream arrives as it is written, and its VM is busy until it ends.
    ok(&daemon.ctl(&["vms", "create", "two", "--plugin", "acts", "--memory", "64"]));
    let mut child = daemon
        .command(&["vms", "action", "one", "acts", "stream"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "data: 1");
    for _ in 0..2 {
        let who = ok(&daemon.ctl(&["plugins", "action", "acts", "who"]));
        assert!(who.starts_with("\"two"), "a busy VM was chosen: {who}");
    }
    assert!(child.try_wait().unwrap().is_none(), "the stream came whole, not as it was written");
    let rest: Vec<_> = lines.map(Result::unwrap).filter(|line| !line.is_empty()).collect();
    assert_eq!(rest, ["data: 2", "data: 3"]);
    assert!(child.wait().unwrap().success());

    ok(&daemon.ctl(&["plugins", "disable", "acts"]));
    refused(&daemon.ctl(&["vms", "action", "one", "acts", "who"]), 4, "disabled");
    refused(&daemon.ctl(&["plugins", "action", "acts", "who"]), 4, "disabled");
    ok(&daemon.ctl(&["plugins", "enable", "acts"]));
    ok(&daemon.ctl(&["vms", "stop", "one"]));
    refused(&daemon.ctl(&["vms", "action", "one", "acts", "who"]), 4, "not ready");
}

#[test]
fn manifests_of_the_original_install_from_anywhere() {
    let daemon = Daemon::start();
    for text in ORIGINALS {
        let document: Value = serde_json::from_str(text).unwrap();
        let name = document["name"].as_str().unwrap().trim().to_owned();
        ok(&install(&daemon, &document));
        let shown: Value =
            serde_json::from_str(&ok(&daemon.ctl(&["plugins", "show", &name, "-o", "json"])))
                .unwrap();
        assert_eq!((&shown["name"], &shown["enabled"]), (&json!(name), &json!(true)));
    }
    // What the host has no means for is told by field when a VM is asked for, and nothing is made.
    refused(&daemon.ctl(&["vms", "create", "one", "--plugin", "echo"]), 2, "/network/subnet");

    // The same by an address, whose certificate must be trusted.
    let folder = tempfile::tempdir().unwrap();
    certify(folder.path(), "/CN=manifests");
    std::fs::write(folder.path().join("m.json"), manifest("far", SERVER).to_string()).unwrap();
    let mut server = Command::new("openssl")
        .args(["s_server", "-accept", "127.0.0.1:18443", "-cert", "cert", "-key", "key", "-WWW"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    daemon.wait("the server of manifests", || TcpStream::connect("127.0.0.1:18443").is_ok());
    let url = "https://localhost:18443/m.json";
    let get = |ca: &str| {
        let mut ctl = daemon.command(&["plugins", "install", "--manifest", url]);
        ctl.env("VOLANT_TLS_CA", folder.path().join(ca)).output().unwrap()
    };
    let known = get("cert");
    std::fs::create_dir(folder.path().join("other")).unwrap();
    certify(&folder.path().join("other"), "/CN=other");
    let unknown = get("other/cert");
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(ok(&known).contains("far"));
    refused(&unknown, 2, "certificate");
}

#[test]
fn a_guest_without_a_network_card_is_reached_all_the_same() {
    let daemon = Daemon::start();
    let mut document = manifest("apart", SERVER);
    document["network"] = json!({ "mode": "vsock" });
    ok(&install(&daemon, &document));
    ok(&daemon.ctl(&["vms", "create", "one", "--plugin", "apart"]));
    let vm = get(&daemon, "one");
    assert_eq!((&vm["network_mode"], &vm["ip_address"]), (&json!("vsock"), &json!("")));
    let card = "test -e /sys/class/net/eth0 && echo a card || echo no card";
    assert_eq!(guest(&daemon, "one", card), "no card\n");
    let taps = std::fs::read_dir("/sys/class/net").unwrap();
    let taps = taps
        .filter(|entry| entry.as_ref().unwrap().file_name().as_encoded_bytes().starts_with(b"vt"));
    assert_eq!(taps.count(), 0);
    let page = daemon.client().get("/api/v1/vms/one/proxy/8080/");
    assert_eq!(page.body, "hello from the manifest\n", "{page:?}");
    let exposed = daemon.ctl(&["vms", "expose", "one", "8080"]);
    refused(&exposed, 2, "network card");
    // The request wins.
    ok(&daemon.ctl(&["vms", "create", "two", "--plugin", "apart", "--network", "bridged"]));
    assert_eq!(guest(&daemon, "two", card), "a card\n");
    refused(&daemon.ctl(&["vms", "create", "no", "--network", "none"]), 2, "network_mode");
}
