//! Bad input: each kind has its own error and leaves nothing behind.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;

use hyper::Method;
use serde_json::{Value, json};

use crate::crash::{firewall_ports, taps};
use crate::daemon::{Daemon, named};

/// Sent as it is; the answer up to the connection's end.
fn raw(mut stream: impl Read + Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    /// Kernels that are none, and an initramfs that is too large.
    fn new() -> Files {
        let folder = tempfile::tempdir().unwrap();
        let kernel = std::fs::read(named("VOLANT_KERNEL")).unwrap();
        std::fs::write(folder.path().join("truncated"), &kernel[..kernel.len() / 2]).unwrap();
        std::fs::write(folder.path().join("header-only"), &kernel[..64]).unwrap();
        let bz = std::fs::read(named("VOLANT_BZIMAGE")).unwrap();
        std::fs::write(folder.path().join("bz-truncated"), &bz[..bz.len() / 2]).unwrap();
        let random: Vec<u8> =
            (0..1_000_000u32).flat_map(|n| (n.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
        std::fs::write(folder.path().join("random"), random).unwrap();
        std::fs::write(folder.path().join("empty"), b"").unwrap();
        let large = std::fs::File::create(folder.path().join("large")).unwrap();
        large.set_len(1 << 30).unwrap();
        Files { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

/// What is sent, the status, the stable code, and words of the sentence.
fn table(files: &Files) -> Vec<(Value, u16, &'static str, &'static str)> {
    let with = |key: &str, value: Value| json!({ "name": "bad", key: value });
    vec![
        (json!({ "name": "a/b" }), 422, "invalid_name", "'/' is not allowed"),
        (json!({ "name": "a".repeat(300) }), 422, "invalid_name", "this one has 300"),
        (json!({ "name": "dеmo" }), 422, "invalid_name", "'е' is not allowed"),
        (json!({ "name": "" }), 422, "invalid_name", "this one has 0"),
        (json!({ "name": "taken" }), 409, "vm_exists", "\"taken\" exists"),
        (with("cpu_cores", json!(0)), 422, "invalid_spec", "1 to 32 vCPUs, not 0"),
        (with("cpu_cores", json!(10_000)), 422, "invalid_spec", "not 10000"),
        (with("cpu_cores", json!(-1)), 422, "invalid_body", "cpu_cores"),
        (with("memory_mb", json!(1)), 422, "invalid_spec", "MiB, not 1"),
        (with("memory_mb", json!(1_000_000)), 507, "host_memory_exhausted", "would exceed"),
        (with("kernel", json!("/no/such")), 422, "invalid_artifact", "does not exist"),
        (with("kernel", json!("/tmp")), 422, "invalid_artifact", "is a directory"),
        (with("kernel", json!(files.path("truncated"))), 422, "invalid_artifact", "truncated"),
        (with("kernel", json!(files.path("header-only"))), 422, "invalid_artifact", "truncated"),
        (with("kernel", json!(files.path("bz-truncated"))), 422, "invalid_artifact", "truncated"),
        (with("kernel", json!(files.path("empty"))), 422, "invalid_artifact", "empty"),
        (
            with("kernel", json!(files.path("random"))),
            422,
            "invalid_artifact",
            "neither an ELF kernel nor a bzImage",
        ),
        (with("initramfs", json!("/no/such")), 422, "invalid_artifact", "does not exist"),
        (with("initramfs", json!(files.path("large"))), 422, "invalid_artifact", "does not fit"),
        (with("boot_protocol", json!("bios")), 422, "invalid_spec", "auto, pvh or linux64"),
        (with("kernel_cmdline", json!("a\nb")), 422, "invalid_spec", "printable"),
        (with("unknown", json!(1)), 422, "invalid_body", "unknown field `unknown`"),
        (json!([]), 422, "invalid_body", ""),
    ]
}

#[test]
fn every_bad_vm_has_its_own_error_and_leaves_nothing() {
    let daemon = Daemon::start();
    let files = Files::new();
    let client = daemon.client();
    let taken = json!({ "name": "taken", "start": false });
    assert_eq!(client.post("/api/v1/vms", &taken).status, 201);
    let before = daemon.state_files();
    for (body, status, code, words) in table(&files) {
        let answer = client.post("/api/v1/vms?wait=true", &body);
        let problem = answer.json();
        assert_eq!(
            (answer.status.as_u16(), &problem["code"]),
            (status, &json!(code)),
            "{body}: {problem}"
        );
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(words), "{body}: {detail}");
        assert_eq!(problem["error"], problem["detail"], "old clients read `error`");
        assert_eq!(problem["status"], status);
    }
    let left = client.get("/api/v1/vms").json();
    assert_eq!(left.as_array().unwrap().len(), 1, "{left}");
    assert_eq!((taps(), firewall_ports()), (0, 0));
    assert_eq!(daemon.state_files(), before);
    // Nor is an address lost.
    let vm = client.post("/api/v1/vms", &json!({ "name": "good", "start": false })).json();
    assert_eq!(vm["ip_address"], "192.168.127.3", "{vm}");
}

#[test]
fn what_is_no_request_is_refused_by_name() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let send = |method: Method, path: &str, body: &str| {
        client.runtime.block_on(client.send(method, path, body.to_owned()))
    };
    let vms = "/api/v1/vms";
    let table = [
        (Method::POST, vms, "{", 400, "invalid_body"),
        (Method::POST, vms, "\u{1}", 400, "invalid_body"),
        (Method::PUT, vms, "", 405, "method_not_allowed"),
        (Method::POST, "/api/v1/vms/x/start", "", 404, "vm_not_found"),
        (Method::GET, "/api/v1/vms/x", "", 404, "vm_not_found"),
        (Method::GET, "/api/v1/vms/%2e%2e%2fx", "", 422, "invalid_name"),
        (Method::GET, "/api/v2/vms", "", 404, "route_not_found"),
        (Method::POST, "/api/v1/vms?wait=perhaps", "{}", 400, "invalid_query"),
        (Method::POST, "/api/v1/vms?unknown=1", "{}", 400, "invalid_query"),
        (Method::GET, "/api/v1/events?since=x", "", 400, "invalid_query"),
    ];
    for (method, path, body, status, code) in table {
        let answer = send(method.clone(), path, body);
        let problem = answer.json();
        let got = (answer.status.as_u16(), problem["code"].as_str().unwrap());
        assert_eq!(got, (status, code), "{method} {path}: {problem}");
    }
    let plain =
        "POST /api/v1/vms HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
    let answer = raw(UnixStream::connect(daemon.socket()).unwrap(), plain);
    assert!(
        answer.starts_with("HTTP/1.1 415 ") && answer.contains("unsupported_media_type"),
        "{answer}"
    );
}

#[test]
fn a_body_of_100_mib_is_not_read() {
    let daemon = Daemon::start();
    let before = daemon.private_kib();
    let head = format!(
        "POST /api/v1/vms HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        100 << 20
    );
    let answer = refused_body(&daemon.socket(), &head, |_| ());
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("body_too_large"), "{answer}");
    // The length told by nobody: cut off where the limit is.
    let head = "POST /api/v1/vms HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    let answer = refused_body(&daemon.socket(), head, |stream| {
        let chunk = [b"100000\r\n".as_slice(), &vec![b' '; 1 << 20], b"\r\n"].concat();
        // Refused in the middle: the write fails, and the answer is there.
        for _ in 0..100 {
            if stream.write_all(&chunk).is_err() {
                break;
            }
        }
    });
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("body_too_large"), "{answer}");
    let after = daemon.private_kib();
    assert!(after < before + (64 << 10), "{before} KiB became {after} KiB");
    assert_eq!(daemon.ctl(&["vms", "list", "-o", "json"]).stdout, b"[]\n");
}

fn refused_body(socket: &Path, head: &str, send: impl FnOnce(&mut UnixStream)) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    send(&mut stream);
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    // The connection may end with a reset, since we were not listened to.
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        answer.extend_from_slice(&buffer[..count]);
        if String::from_utf8_lossy(&answer).ends_with('}') {
            break;
        }
    }
    String::from_utf8(answer).unwrap()
}

#[test]
fn tcp_wants_the_token_and_no_strangers() {
    let daemon = Daemon::start();
    let token = std::fs::read_to_string(daemon.state_dir().join("token")).unwrap();
    let ask = |head: &str| {
        let stream = TcpStream::connect("127.0.0.1:17777").unwrap();
        let request = format!("GET /api/v1/vms HTTP/1.1\r\n{head}Connection: close\r\n\r\n");
        let answer = raw(stream, &request);
        answer.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    let host = "Host: 127.0.0.1:17777\r\n";
    assert_eq!(ask(&format!("{host}Authorization: Bearer {token}\r\n")), 200);
    assert_eq!(ask(host), 401);
    assert_eq!(ask(&format!("{host}Authorization: Bearer {token}x\r\n")), 401);
    assert_eq!(ask(&format!("{host}Authorization: Basic {token}\r\n")), 401);
    let right = format!("Authorization: Bearer {token}\r\n");
    assert_eq!(ask(&format!("Host: evil.example\r\n{right}")), 403);
    assert_eq!(ask(&format!("{host}{right}Origin: http://evil.example\r\n")), 403);
    assert_eq!(ask(&right), 400, "HTTP/1.1 without a Host");
}
