//! What a guest reaches, what it does not, and whom it can pretend to be.

use std::net::TcpListener;

use crate::daemon::Daemon;
use crate::outside::{Outside, SERVER, host, host_ok};

/// Bridge of the daemons of this suite, and its address.
const GATEWAY: &str = "192.168.127.1";
/// Where clouds hand credentials to whoever asks.
const METADATA: &str = "169.254.169.254";

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
    let outside = Outside::serving("from outside\n");
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
    let ping = |timeout_s: u32| format!("ping -c 1 -W {timeout_s} {GATEWAY}");
    assert!(guest(&daemon, "one", &ping(10)), "no ping of the bridge");

    let before = frames_dropped();
    let stranger = "ip address add 192.168.127.77/32 dev eth0 && ping -c 1 -W 2 -I 192.168.127.77";
    assert!(!guest(&daemon, "one", &format!("{stranger} {GATEWAY}")), "a foreign IPv4 address");
    assert!(before < frames_dropped(), "nothing was counted");

    let with = |mac, ping| {
        format!(
            "ip link set eth0 down && ip link set eth0 address {mac} && ip link set eth0 up && {ping}"
        )
    };
    // Stopped by the network card already, before the firewall.
    let foreign = with("02:76:c0:a8:7f:4d", ping(2));
    assert!(!guest(&daemon, "one", &foreign), "a foreign Ethernet address");

    let own = with("02:76:c0:a8:7f:02", ping(10));
    assert!(guest(&daemon, "one", &own), "its own addresses do not work any more");
}
