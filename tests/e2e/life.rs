//! How long a VM lives, over a restart of the daemon too; and E2B's names for a sandbox's parts.

use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::daemon::{Daemon, PROXY};

fn vm(daemon: &Daemon, name: &str) -> Option<Value> {
    let answer = daemon.client().get(&format!("/api/v1/vms/{name}"));
    answer.status.is_success().then(|| answer.json())
}

fn asked(daemon: &Daemon, name: &str, ttl_ms: u64, on_expiry: &str, start: bool) {
    let body = json!({
        "name": name, "memory_mb": 96, "start": start, "ttl_ms": ttl_ms, "on_expiry": on_expiry,
        "labels": { "e2b/template": "none" },
    });
    let answer = daemon.client().post("/api/v1/vms?wait=true&timeout_ms=300000", &body);
    assert_eq!(answer.status.as_u16(), 201, "{answer:?}");
}

/// Asks the proxy's listener by a host name; status and body.
fn by_host(host: &str, path: &str, header: &str) -> (String, String) {
    let (_, port) = PROXY.rsplit_once(':').unwrap();
    let url = format!("http://{PROXY}{path}");
    let host = format!("host: {host}.volant.localhost:{port}");
    let arguments = ["-s", "-w", "\n%{http_code}", "-H", &host, "-H", header, &url];
    let out = Command::new("curl").args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.to_owned(), body.to_owned())
}

#[test]
fn a_vm_has_its_time_and_a_restart_does_not_lengthen_it() {
    let mut daemon = Daemon::start();
    asked(&daemon, "stays", 300_000, "stop", true);
    asked(&daemon, "goes", 3_600_000, "delete", false);
    let refused = daemon.ctl(&["vms", "create", "x", "--ttl", "0s"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let out = daemon.ctl(&["vms", "ttl", "goes", "-o", "json"]);
    assert!(out.status.success(), "{out:?}");
    assert_eq!(vm(&daemon, "goes").unwrap().get("expires_at"), None);

    sandbox_has_names(&daemon);

    // Stopped in time, and kept.
    let out = daemon.ctl(&["vms", "ttl", "stays", "500ms", "--on-expiry", "stop"]);
    assert!(out.status.success(), "{out:?}");
    let out = daemon.ctl(&["vms", "await", "stays", "--for", "stopped"]);
    assert!(out.status.success(), "{out:?}");
    let stays = vm(&daemon, "stays").unwrap();
    assert_eq!((&stays["status"], stays.get("expires_at")), (&json!("stopped"), None));
    let events = daemon.client().get("/api/v1/events/history?limit=200").json();
    let kinds: Vec<_> = events["items"].as_array().unwrap().iter().collect();
    assert!(kinds.iter().any(|event| event["type"] == "VM_EXPIRED"), "{events}");

    // A time that ends while no daemon runs ends at the next one's start; another goes on.
    let out = daemon.ctl(&["vms", "ttl", "goes", "1s"]);
    assert!(out.status.success(), "{out:?}");
    let out = daemon.ctl(&["vms", "ttl", "stays", "1h"]);
    assert!(out.status.success(), "{out:?}");
    daemon.kill_and_restart();
    daemon.wait("a VM outlives its time", || vm(&daemon, "goes").is_none());
    let stays = vm(&daemon, "stays").unwrap();
    assert_eq!((&stays["status"], &stays["on_expiry"]), (&json!("stopped"), &json!("delete")));
    assert!(stays["expires_at"].is_string(), "{stays}");
}

/// E2B's control plane, services and files by their host names, as behind a front with TLS.
fn sandbox_has_names(daemon: &Daemon) {
    let key = std::fs::read_to_string(daemon.state_dir().join("token")).unwrap();
    let key = format!("x-api-key: {}", key.trim());
    let (status, body) = by_host("api", "/sandboxes/stays", &key);
    assert_eq!(status, "200", "{body}");
    // Connecting gives it a token.
    let connected = daemon.client().post("/e2b/sandboxes/stays/connect", &json!({ "timeout": 1 }));
    assert_eq!(connected.status.as_u16(), 200, "{connected:?}");
    let token = connected.json()["envdAccessToken"].as_str().unwrap().to_owned();
    assert_eq!(connected.json()["domain"], "volant.localhost:17780");
    assert_eq!(by_host("api", "/sandboxes/stays", "x-api-key: wrong").0, "401");
    assert_eq!(by_host("49983-stays", "/health", &format!("x-access-token: {token}")).0, "204");
    assert_eq!(by_host("49983-stays", "/health", "x-access-token: wrong").0, "401");
    assert_eq!(by_host("49983-nobody", "/health", "x-access-token: wrong").0, "502");
    // Other ports are the proxy's, which has a token of its own.
    assert_eq!(by_host("8000-stays", "/", &format!("x-access-token: {token}")).0, "401");

    let signed = |path: &str, end: &str| {
        let digest = Sha256::digest(format!("{path}:read::{token}{end}"));
        let signature = format!("v1_{}", STANDARD_NO_PAD.encode(digest)).replace('+', "%2B");
        format!("/files?path={path}&signature={signature}")
    };
    let (status, body) = by_host("49983-stays", &signed("/etc/passwd", ""), "a: b");
    assert_eq!((status.as_str(), body.contains("root:")), ("200", true), "{body}");
    let over = format!("{}&signature_expiration=1000000000", signed("/etc/passwd", ":1000000000"));
    assert_eq!(by_host("49983-stays", &over, "a: b").0, "401");
    let other = signed("/etc/passwd", "").replacen("/etc/passwd", "/etc/group", 1);
    assert_eq!(by_host("49983-stays", &other, "a: b").0, "401");
}
