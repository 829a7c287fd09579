//! A guest with real servers: nginx, and those of tests/clients/guest_servers.py.

use std::io::Write;
use std::process::Stdio;

use crate::daemon::{Daemon, named};

const SERVERS: &str = include_str!("../clients/guest_servers.py");

/// What `ctl` prints.
pub(crate) fn ok(daemon: &Daemon, args: &[&str]) -> String {
    let out = daemon.ctl(args);
    assert!(out.status.success(), "{args:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// A VM called `real` with nginx on port 80 and the servers of `guest_servers.py`.
pub(crate) fn serve(daemon: &Daemon, memory_mib: &str) {
    let archive = named("VOLANT_TEST_IMAGES").join("servers.tar").display().to_string();
    ok(daemon, &["images", "import", &archive]);
    let image = ["--image", "debian/servers:saved", "--memory", memory_mib];
    ok(daemon, &[&["vms", "create", "real"], &image[..]].concat());
    let mut put = daemon.command(&["vms", "exec", "-i", "real", "--", "sh", "-c"]);
    let mut put = put.arg("cat > /srv/servers.py").stdin(Stdio::piped()).spawn().unwrap();
    put.stdin.take().unwrap().write_all(SERVERS.as_bytes()).unwrap();
    assert!(put.wait().unwrap().success());
    let line = "nginx && { python3 /srv/servers.py >/tmp/log 2>&1 & }";
    ok(daemon, &["vms", "exec", "real", "--", "sh", "-c", line]);
    // Whoever asks again and again takes the guest's time from them.
    let wait = "timeout 120 sh -c 'until [ -e /run/serving ]; do sleep 0.5; done'";
    ok(daemon, &["vms", "exec", "real", "--", "sh", "-c", wait]);
}
