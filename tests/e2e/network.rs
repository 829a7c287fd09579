//! What a guest reaches, what it does not, and whom it can pretend to be.

use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};

use crate::daemon::Daemon;

/// Bridge of the daemons of this suite, and its address.
const GATEWAY: &str = "192.168.127.1";
/// A server beyond the host, which knows no way back to the guests' subnet.
const SERVER: &str = "10.99.0.2";
/// Where clouds hand credentials to whoever asks.
const METADATA: &str = "169.254.169.254";

fn host(line: &str) -> Output {
    let mut words = line.split_whitespace();
    Command::new(words.next().unwrap()).args(words).output().unwrap()
}

fn host_ok(line: &str) -> String {
    let out = host(line);
    assert!(out.status.success(), "{line}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

/// A network namespace beyond a veth pair, with a web server in it; gone at the end.
pub(crate) struct Outside {
    server: Child,
    _pages: tempfile::TempDir,
}

impl Outside {
    pub(crate) fn new() -> Outside {
        let pages = tempfile::tempdir().unwrap();
        std::fs::write(pages.path().join("index.html"), "from outside\n").unwrap();
        host_ok("ip netns add volant-outside");
        host_ok("ip link add vout0 type veth peer name vout1 netns volant-outside");
        host_ok("ip address add 10.99.0.1/24 dev vout0");
        host_ok("ip link set vout0 up");
        host_ok("ip -n volant-outside address add 10.99.0.2/24 dev vout1");
        host_ok("ip -n volant-outside address add 169.254.169.254/32 dev vout1");
        host_ok("ip -n volant-outside link set vout1 up");
        host_ok("ip route add 169.254.169.254/32 dev vout0");
        let server = Command::new("ip")
            .args(["netns", "exec", "volant-outside", "/bin/busybox", "httpd", "-f", "-p", "8000"])
            .args(["-h".as_ref(), pages.path().as_os_str()])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Outside { server, _pages: pages }
    }
}

/// Runs a line beyond the host.
pub(crate) fn in_outside(line: &str) -> Output {
    host(&format!("ip netns exec volant-outside {line}"))
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        host("ip netns delete volant-outside");
        host("ip link delete vout0");
    }
}

/// Runs a shell line in a guest; whether it succeeded.
fn guest(daemon: &Daemon, vm: &str, line: &str) -> bool {
    daemon.ctl(&["vms", "exec", vm, "--", "sh", "-c", line]).status.success()
}

fn ip_of(daemon: &Daemon, vm: &str) -> String {
    let out = daemon.ctl(&["vms", "get", vm, "-o", "json"]);
    let vm: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    vm["ip_address"].as_str().unwrap().to_owned()
}

/// Frames that the identity rules have dropped so far.
fn frames_dropped() -> u64 {
    let table = host_ok("nft list table bridge volant_vbr0");
    let line = table.lines().find(|line| line.contains("counter")).unwrap();
    let mut words = line.split_whitespace().skip_while(|word| *word != "packets");
    words.nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_guest_reaches_the_outside_and_nobody_else() {
    let daemon = Daemon::start();
    let outside = Outside::new();
    for name in ["one", "two"] {
        assert!(daemon.ctl(&["vms", "create", name, "--memory", "64"]).status.success());
    }
    let (one, two) = (ip_of(&daemon, "one"), ip_of(&daemon, "two"));
    assert_eq!((one.as_str(), two.as_str()), ("192.168.127.2", "192.168.127.3"));
    let fetch = |from: &str| format!("wget -q -O - http://{from}/");

    let page = daemon.ctl(&["vms", "exec", "one", "--", "sh", "-c", &fetch("10.99.0.2:8000")]);
    assert_eq!(page.stdout, b"from outside\n", "no way out through NAT to {SERVER}: {page:?}");

    assert!(
        host(&format!("/bin/busybox ping -c 1 -W 5 {METADATA}")).status.success(),
        "the host reaches it"
    );
    assert!(!guest(&daemon, "one", &fetch(&format!("{METADATA}:8000"))), "metadata is reachable");

    let service = TcpListener::bind("0.0.0.0:18080").unwrap();
    service.set_nonblocking(true).unwrap();
    assert!(guest(&daemon, "one", &format!("ping -c 1 -W 5 {GATEWAY}")), "no ping of the bridge");
    assert!(!guest(&daemon, "one", &fetch(&format!("{GATEWAY}:18080"))));
    assert!(service.accept().is_err(), "a guest reached a service of the host");

    assert!(!guest(&daemon, "one", &format!("ping -c 1 -W 2 {two}")), "guests see each other");
    let around = format!("ip route add {two}/32 via {GATEWAY} && ping -c 1 -W 2 {two}");
    assert!(!guest(&daemon, "one", &around), "guests see each other by way of the host");
    assert!(
        host(&format!("/bin/busybox ping -c 1 -W 5 {two}")).status.success(),
        "the host sees its guests"
    );
    drop(outside);
}

#[test]
fn a_guest_cannot_pretend_to_be_another() {
    let daemon = Daemon::start();
    assert!(daemon.ctl(&["vms", "create", "one", "--memory", "64"]).status.success());
    let ping = format!("ping -c 1 -W 2 {GATEWAY}");
    assert!(guest(&daemon, "one", &ping));

    let before = frames_dropped();
    let stranger = "ip address add 192.168.127.77/32 dev eth0 && ping -c 1 -W 2 -I 192.168.127.77";
    assert!(!guest(&daemon, "one", &format!("{stranger} {GATEWAY}")), "a foreign IPv4 address");
    assert!(before < frames_dropped(), "nothing was counted");

    let mac = "02:76:c0:a8:7f:4d";
    let masked = format!(
        "ip link set eth0 down && ip link set eth0 address {mac} && ip link set eth0 up && {ping}"
    );
    // Stopped by the network card already, before the firewall.
    assert!(!guest(&daemon, "one", &masked), "a foreign Ethernet address");

    let own = "02:76:c0:a8:7f:02";
    let restored = format!(
        "ip link set eth0 down && ip link set eth0 address {own} && ip link set eth0 up && {ping}"
    );
    assert!(guest(&daemon, "one", &restored), "its own addresses do not work any more");
}
