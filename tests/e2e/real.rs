//! Real servers in a guest, real clients outside, the proxy between them: nginx, gRPC, WebSocket,
//! server-sent events, large bodies. VOLANT_TEST_PROXY_MIB and VOLANT_TEST_EVENTS_S say how much.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use crate::daemon::{Daemon, PROXY, named};
use crate::servers::{ok, serve};

const API: &str = "127.0.0.1:17777";
const CLIENTS: &str = include_str!("../clients/proxy.py");
/// What the daemon may grow by, whatever passes through it.
const GROWTH_KIB_MAX: u64 = 16 << 10;

fn setting(variable: &str, default: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| default.to_owned())
}

/// Runs a client to its end; what it has measured.
fn client(arguments: &[&str]) -> String {
    let out =
        Command::new(named("VOLANT_TEST_PYTHON")).args(["-c", CLIENTS]).args(arguments).output();
    let out = out.unwrap();
    assert!(
        out.status.success(),
        "{arguments:?}: {}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

fn nginx(token: &str) {
    let url = format!("http://{API}/api/v1/vms/real/proxy/80/");
    let curl = |arguments: &[&str]| {
        let bearer = format!("Authorization: Bearer {token}");
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "300", "-H", &bearer]).args(arguments).arg(&url);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let page = curl(&["-i"]);
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("Welcome to nginx"), "{page}");
    let tag = page.lines().find(|line| line.to_ascii_lowercase().starts_with("etag:")).unwrap();
    let tag = tag.split_once(' ').unwrap().1.trim();
    let status = ["-o", "/dev/null", "-w", "%{http_code} %{size_download}"];
    let head = curl(&[&["-I"], &status[..]].concat());
    assert_eq!(head, "200 0", "HEAD");
    let part = curl(&["-r", "0-14"]);
    assert_eq!(part, "<!DOCTYPE html>");
    let fresh = curl(&[&["-H", &format!("If-None-Match: {tag}")], &status[..]].concat());
    assert_eq!(fresh, "304 0");
    let http2 = curl(&[&["--http2-prior-knowledge"], &status[..]].concat());
    assert!(http2.starts_with("200 6"), "{http2}");
}

/// Datagrams find their way to a server in the guest, and its answers back.
fn datagrams(daemon: &Daemon) {
    ok(daemon, &["vms", "expose", "real", "15353:5353/udp"]);
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    for host in ["127.0.0.1", "192.168.127.1"] {
        let mut buffer = [0; 64];
        // One may be lost: nobody sends it again.
        daemon.wait("an answer to a datagram", || {
            socket.send_to(b"hello", (host, 15353)).unwrap();
            socket.recv_from(&mut buffer).is_ok_and(|(count, from)| {
                let whence = format!("{host}:15353").parse().unwrap();
                &buffer[..count] == b"got hello" && from == whence
            })
        });
    }
    ok(daemon, &["vms", "unexpose", "real", "15353/udp"]);
}

#[test]
fn real_servers_answer_real_clients_through_the_proxy() {
    let daemon = Daemon::start();
    serve(&daemon, "320");
    let token = daemon.token();
    nginx(&token);
    datagrams(&daemon);

    let vms_token = ok(&daemon, &["vms", "access", "real"]);
    let (_, port) = PROXY.rsplit_once(':').unwrap();
    let authority = format!("50051-real.volant.localhost:{port}");
    client(&["grpc", PROXY, &authority, &vms_token]);
    client(&["websocket", &format!("ws://{API}/api/v1/vms/real/proxy/8765/"), &token]);
    client(&["devtools", &format!("ws://{API}/ws/v1/vms/real/devtools?port=8765"), &token]);
    let url = format!("http://{API}/api/v1/vms/real/proxy/8000");
    let seconds = setting("VOLANT_TEST_EVENTS_S", "5");
    println!("{}", client(&["events", &url, &token, &seconds]));

    client(&["transfer", &url, &token, "1"]);
    let before = daemon.private_kib();
    let mib = setting("VOLANT_TEST_PROXY_MIB", "64");
    println!("{}", client(&["transfer", &url, &token, &mib]));
    let after = daemon.private_kib();
    println!("{before} KiB of the daemon became {after} KiB");
    assert!(after < before + GROWTH_KIB_MAX, "{before} KiB became {after} KiB");
}
