//! Ports of the host that lead to guests: from the host's own loopback, from outside, and over
//! restarts.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::daemon::Daemon;
use crate::outside::{Outside, in_outside};

const WAIT: Duration = Duration::from_secs(20);

fn ok(daemon: &Daemon, args: &[&str]) -> String {
    let out = daemon.ctl(args);
    assert!(out.status.success(), "{args:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

fn serve(daemon: &Daemon) {
    let line = "mkdir -p /www; hostname > /www/index.html; httpd -p 80 -h /www; \
                nc -ll -p 81 -e hostname >/dev/null 2>&1 &";
    ok(daemon, &["vms", "exec", "one", "--", "sh", "-c", line]);
}

fn fetch(address: &str) -> Option<String> {
    let mut socket = TcpStream::connect_timeout(&address.parse().unwrap(), WAIT).ok()?;
    socket.set_read_timeout(Some(WAIT)).unwrap();
    socket.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    answer.rsplit_once("\r\n\r\n").map(|(_, body)| body.trim().to_owned())
}

#[test]
fn an_exposed_port_leads_to_the_guest_and_to_nobody_else() {
    let mut daemon = Daemon::start();
    let outside = Outside::serving("from outside\n");
    ok(&daemon, &["vms", "create", "one", "--memory", "96", "--expose", "18080:80"]);
    serve(&daemon);
    assert_eq!(fetch("127.0.0.1:18080").as_deref(), Some("one"), "from the host's loopback");
    assert_eq!(
        fetch("192.168.127.1:18080").as_deref(),
        Some("one"),
        "from another of its addresses"
    );
    let page = in_outside("/bin/busybox wget -q -O - http://10.99.0.1:18080/");
    assert_eq!(page.stdout, b"one\n", "from outside: {page:?}");
    let automatic = ok(&daemon, &["vms", "expose", "one", "80"]);
    assert_eq!(fetch(&format!("127.0.0.1:{automatic}")).as_deref(), Some("one"));
    ok(&daemon, &["vms", "expose", "one", "127.0.0.1:18081:80"]);
    assert_eq!(fetch("127.0.0.1:18081").as_deref(), Some("one"));
    assert_eq!(fetch("192.168.127.1:18081"), None, "an address that was not exposed");

    ok(&daemon, &["vms", "expose", "one", "192.168.127.1:18081:80"]);
    let which = daemon.ctl(&["vms", "unexpose", "one", "18081"]);
    assert_eq!(which.status.code(), Some(4), "one of two addresses: {which:?}");
    ok(&daemon, &["vms", "unexpose", "one", "192.168.127.1:18081"]);

    // Another guest does not get there by way of the host.
    ok(&daemon, &["vms", "create", "two", "--memory", "64"]);
    for host in ["192.168.127.1", "10.99.0.1", "127.0.0.1"] {
        let line = format!("wget -q -T 3 -O - http://{host}:18080/");
        let out = daemon.ctl(&["vms", "exec", "two", "--", "sh", "-c", &line]);
        assert!(!out.status.success(), "{host}: {out:?}");
    }

    let taken = daemon.ctl(&["vms", "expose", "two", "18080:80"]);
    assert_eq!(taken.status.code(), Some(4), "{taken:?}");
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let taken = daemon.ctl(&["vms", "expose", "two", &format!("{port}:80")]);
    assert_eq!(taken.status.code(), Some(4), "{taken:?}");
    let create = daemon.ctl(&["vms", "create", "three", "--memory", "64", "--expose", "18080:80"]);
    assert_eq!(create.status.code(), Some(4), "{create:?}");
    assert_eq!(daemon.ctl(&["vms", "get", "three"]).status.code(), Some(3), "half a VM was left");

    daemon.kill();
    let rules = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
    assert!(rules.status.success(), "{rules:?}");
    assert!(
        !String::from_utf8_lossy(&rules.stdout).contains("18080"),
        "a rule was left: {rules:?}"
    );
    // Another program may have a port that the daemon had; it keeps it.
    let other = TcpListener::bind("127.0.0.1:18081").unwrap();
    daemon.restart();
    assert_eq!(fetch("127.0.0.1:18080"), None, "the guest is down");
    let taken = daemon.ctl(&["vms", "expose", "two", "18080:80"]);
    assert_eq!(taken.status.code(), Some(4), "{taken:?}");
    ok(&daemon, &["vms", "start", "one"]);
    serve(&daemon);
    assert_eq!(fetch("127.0.0.1:18080").as_deref(), Some("one"), "after a restart");
    let client = TcpStream::connect("127.0.0.1:18081").unwrap();
    other.set_nonblocking(true).unwrap();
    let accepted = other.accept().expect("what another program listens on was led to a guest");
    // In this order the port is free at once.
    drop(client);
    drop(accepted);
    drop(other);
    ok(&daemon, &["vms", "unexpose", "one", "18080"]);
    assert_eq!(fetch("127.0.0.1:18080"), None);
    assert_eq!(fetch("127.0.0.1:18081").as_deref(), Some("one"));
    ok(&daemon, &["vms", "delete", "one"]);
    assert_eq!(fetch("127.0.0.1:18081"), None);
    drop(outside);
}
