//! Who may call by TCP: TLS, pages of other sites, proxies in between; and what is told of it.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::daemon::{Daemon, PROXY, named};

const API: &str = "https://localhost:17777";
const NAMES: &str = "subjectAltName=DNS:localhost,DNS:*.volant.test";
const RESOLVER: &str = "127.0.0.7";
const E2B_CLIENT: &str = include_str!("../clients/e2b_domain.py");

/// A certificate for localhost that signs itself, in the files `cert` and `key`.
pub fn certify(folder: &Path, subject: &str) {
    let path = |name: &str| folder.join(name).display().to_string();
    let out = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ])
        .args(["-days", "1", "-subj", subject, "-addext", NAMES])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", &path("key"), "-out", &path("cert")])
        .output()
        .unwrap();
    assert!(out.status.success(), "{out:?}");
}

/// Status, version of HTTP and what was answered, with headers.
fn curl(folder: &Path, arguments: &[&str]) -> (String, String, String) {
    let out = Command::new("curl")
        .args(["-sSi", "--max-time", "300", "-w", "\n%{http_code} %{http_version}", "--cacert"])
        .arg(folder.join("cert"))
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let (answer, last) = text.rsplit_once('\n').unwrap_or(("", "000 0"));
    let (status, version) = last.split_once(' ').unwrap();
    (status.to_owned(), version.to_owned(), answer.to_ascii_lowercase())
}

fn start(folder: &Path) -> Daemon {
    certify(folder, "/CN=first");
    Daemon::start_with(&format!(
        "allow = [\"192.0.2.0/24\"]\n[http]\nhosts = [\"box.example\"]\n\
         cors_origins = [\"https://console.example\"]\ntrusted_proxies = [\"127.0.0.1\"]\n\
         tls_certificate = \"{0}/cert\"\ntls_key = \"{0}/key\"\n",
        folder.display()
    ))
}

#[test]
fn tcp_is_tls_for_those_who_may_call() {
    let files = tempfile::tempdir().unwrap();
    let folder = files.path();
    let daemon = start(folder);
    let url = format!("{API}/api/v1/vms");
    let bearer = format!("authorization: Bearer {}", daemon.token());
    let from = |address: &str| format!("x-forwarded-for: {address}");
    let ask = |more: &[&str]| {
        let shared = ["-H", &bearer, "-H", &from("192.0.2.9"), &url];
        curl(folder, &[&shared, more].concat())
    };
    let (status, version, _) = ask(&[]);
    assert_eq!((&*status, &*version), ("200", "2"));
    assert_eq!(ask(&["--http1.1"]).1, "1.1");
    assert_eq!(curl(folder, &["http://localhost:17777/healthz"]).0, "000", "without TLS");

    // The proxy's word counts, up to the address that it has added itself.
    let by = |address: &str| curl(folder, &["-H", &bearer, "-H", &from(address), &url]).0;
    assert_eq!(by("203.0.113.9"), "403");
    assert_eq!(by("192.0.2.9, 203.0.113.9"), "403");
    assert_eq!(curl(folder, &["-H", &bearer, &url]).0, "403", "the proxy itself is not allowed");

    assert_eq!(ask(&["-H", "host: box.example"]).0, "200");
    assert_eq!(ask(&["-H", "host: evil.example"]).0, "403");
    let page = "origin: https://console.example";
    let (status, _, seen) = ask(&["-H", page]);
    assert!(status == "200" && seen.contains("allow-origin: https://console.example"), "{seen}");
    assert!(seen.contains("access-control-expose-headers:"), "{seen}");
    assert_eq!(ask(&["-H", "origin: https://evil.example"]).0, "403");
    let question = |origin: &str| {
        let wish = "access-control-request-method: POST";
        let names = "access-control-request-headers: authorization,idempotency-key";
        let origin = format!("origin: {origin}");
        curl(folder, &["-X", "OPTIONS", "-H", &origin, "-H", wish, "-H", names, &url]).2
    };
    let seen = question("https://console.example");
    assert!(seen.contains("allow-origin: https://console.example"), "{seen}");
    assert!(seen.contains("allow-headers: authorization,idempotency-key"), "{seen}");
    assert!(!question("https://evil.example").contains("allow-origin"));

    new_certificate(&daemon, folder);
    let made = ask(&["-X", "POST", "-d", "{}"]);
    assert_eq!(made.0, "415", "a change, of the wrong type: {made:?}");
    told_of(&daemon);
}

/// E2B's SDK, which knows a key and a domain and nothing else.
#[test]
fn e2bs_sdk_comes_by_a_domain() {
    let files = tempfile::tempdir().unwrap();
    let folder = files.path();
    certify(folder, "/CN=names");
    let daemon = Daemon::start_with(&format!(
        "proxy_domain = \"volant.test\"\n[http]\n\
         tls_certificate = \"{0}/cert\"\ntls_key = \"{0}/key\"\n",
        folder.display()
    ));
    let small = json!({
        "schema_version": "1", "name": "small", "version": "1.0.0",
        "initramfs": { "url": "builtin:default" },
        "resources": { "cpu_cores": 1, "memory_mb": 96 },
        "workload": { "entrypoint": ["sleep", "100000"] },
    });
    assert_eq!(daemon.client().post("/api/v1/plugins", &small).status.as_u16(), 201);
    let (_, port) = PROXY.rsplit_once(':').unwrap();
    // Names are asked for elsewhere, and nowhere but in the client's own view of the files.
    let resolv = folder.join("resolv.conf");
    std::fs::write(&resolv, format!("nameserver {RESOLVER}\n")).unwrap();
    let view = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
    let out = Command::new("unshare")
        .args(["--mount", "sh", "-c", view])
        .args([resolv.as_path(), &named("VOLANT_TEST_PYTHON")])
        .args(["-c", E2B_CLIENT])
        .arg(folder.join("cert"))
        .args([&format!("volant.test:{port}"), &daemon.token(), RESOLVER])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(String::from_utf8_lossy(&out.stdout), "content\n");
}

/// A certificate that is replaced is used at the next connection, by `ctl` too.
fn new_certificate(daemon: &Daemon, folder: &Path) {
    let list = |ca: &Path| {
        let mut ctl = daemon.command(&["vms", "list", "--host", API]);
        ctl.env("VOLANT_TLS_CA", ca).output().unwrap()
    };
    let old = folder.join("old");
    std::fs::copy(folder.join("cert"), &old).unwrap();
    // It comes to the door: what it may do behind it is another question.
    assert_eq!(list(&old).status.code(), Some(5), "{:?}", list(&old));
    certify(folder, "/CN=second");
    assert_eq!(list(&old).status.code(), Some(5), "files are read when it is told to");
    daemon.signal(rustix::process::Signal::HUP);
    daemon.wait("the new certificate", || list(&folder.join("cert")).status.code() == Some(5));
    assert_eq!(list(&old).status.code(), Some(6), "the old certificate is still shown");
}

/// The audit log names the client, and no log has a secret.
fn told_of(daemon: &Daemon) {
    let out = daemon.ctl(&["tokens", "create", "secretive", "--scope", "read"]);
    let secret = String::from_utf8(out.stdout).unwrap().trim().to_owned();
    assert!(secret.starts_with("vlt_"), "{secret}");
    let audit = daemon.client().get("/api/v1/audit").json();
    let peers: Vec<_> = audit.as_array().unwrap().iter().map(|entry| &entry["peer"]).collect();
    assert!(peers.iter().any(|peer| *peer == "192.0.2.9"), "{audit}");
    let log = daemon.log();
    assert!(log.contains("192.0.2.9") && log.contains("createToken"), "{log}");
    for secret in [secret, daemon.token()] {
        assert!(!log.contains(&secret) && !audit.to_string().contains(&secret), "{secret} is told");
    }
}

/// Ids of the events after `since`, until one of this VM is there.
fn events(daemon: &Daemon, since: u64, until: &str) -> Vec<u64> {
    let client = daemon.client();
    let mut seen = String::new();
    client.runtime.block_on(async {
        let request = hyper::Request::builder().uri("/api/v1/events").header("host", "localhost");
        let request = request.header("last-event-id", since.to_string());
        let answer = client.open(request.body(Default::default()).unwrap()).await;
        let mut body = answer.into_body();
        while !seen.contains(until) {
            let frame = http_body_util::BodyExt::frame(&mut body).await.unwrap().unwrap();
            seen += &String::from_utf8_lossy(frame.data_ref().unwrap());
        }
    });
    let ids = seen.lines().filter_map(|line| line.strip_prefix("id:"));
    ids.map(|id| id.trim().parse().unwrap()).collect()
}

#[test]
fn events_go_on_after_a_restart() {
    let mut daemon = Daemon::start();
    let create = |daemon: &Daemon, name: &str| {
        let body = serde_json::json!({ "name": name, "memory_mb": 96, "start": false });
        let made = daemon.client().post("/api/v1/vms", &body);
        assert_eq!(made.status, 201, "{made:?}");
    };
    for name in ["one", "two"] {
        create(&daemon, name);
    }
    let before = events(&daemon, 0, "\"two\"");
    create(&daemon, "three");
    daemon.terminate_and_restart();
    create(&daemon, "four");
    let after = events(&daemon, *before.last().unwrap(), "\"four\"");
    let all: Vec<u64> = before.into_iter().chain(after).collect();
    let none_missing: Vec<u64> = (all[0]..).take(all.len()).collect();
    assert!(4 <= all.len() && all == none_missing, "{all:?}");
}
