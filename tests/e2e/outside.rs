//! A web server beyond the host, as guests reach servers of the world: by way of NAT.

use std::process::{Child, Command, Output, Stdio};

/// Its address; it knows no way back to the guests' subnet.
pub(crate) const SERVER: &str = "10.99.0.2";

pub(crate) fn host(line: &str) -> Output {
    let mut words = line.split_whitespace();
    Command::new(words.next().unwrap()).args(words).output().unwrap()
}

pub(crate) fn host_ok(line: &str) -> String {
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
    /// With this as its page, at `http://SERVER:8000/`.
    pub(crate) fn serving(page: &str) -> Outside {
        let pages = tempfile::tempdir().unwrap();
        std::fs::write(pages.path().join("index.html"), page).unwrap();
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
