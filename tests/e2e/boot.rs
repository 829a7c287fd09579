//! Ways to boot: kernels, protocols, numbers of vCPUs.

use http_body_util::{BodyExt, Full};
use hyper::Request;

use crate::daemon::{Daemon, named};

fn shell(daemon: &Daemon, vm: &str, line: &str) -> String {
    let out = daemon.ctl(&["vms", "exec", vm, "--", "sh", "-c", line]);
    assert!(out.status.success(), "{line}: {out:?}");
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

#[test]
fn elf_by_both_protocols_and_bzimage_boot() {
    let daemon = Daemon::start();
    let bzimage = named("VOLANT_BZIMAGE").display().to_string();
    let ways: [(&str, &[&str]); 3] = [
        ("pvh", &["--boot-protocol", "pvh"]),
        ("linux64", &["--boot-protocol", "linux64"]),
        ("bzimage", &["--kernel", &bzimage]),
    ];
    for (name, flags) in ways {
        daemon.create(name, flags);
        let kib: u64 =
            shell(&daemon, name, "awk '/MemTotal/ { print $2 }' /proc/meminfo").parse().unwrap();
        assert!((60 << 10..96 << 10).contains(&kib), "{name} sees {kib} KiB");
        assert_eq!(shell(&daemon, name, "hostname"), name);
    }
}

#[test]
fn a_guest_has_as_many_vcpus_and_as_much_memory_as_it_was_given() {
    let daemon = Daemon::start();
    daemon.create("four", &["--cpu", "4", "--memory", "4096"]);
    assert_eq!(shell(&daemon, "four", "nproc"), "4");
    let kib: u64 =
        shell(&daemon, "four", "awk '/MemTotal/ { print $2 }' /proc/meminfo").parse().unwrap();
    // Beyond the hole below 4 GiB as well.
    assert!((3900 << 10..4096 << 10).contains(&kib), "{kib} KiB");
    assert!(daemon.ctl(&["vms", "delete", "four"]).status.success());
    daemon.create("most", &["--cpu", "32", "--memory", "256"]);
    assert_eq!(shell(&daemon, "most", "nproc"), "32");
    assert!(daemon.ctl(&["vms", "stop", "most"]).status.success());
}

#[test]
fn a_reset_ends_the_machine_with_that_reason() {
    let daemon = Daemon::start();
    // By way of the keyboard controller, as a PC does it.
    daemon.create("one", &["--kernel-cmdline", "reboot=k"]);
    daemon.ctl(&["vms", "exec", "one", "--", "sh", "-c", "echo b > /proc/sysrq-trigger"]);
    daemon.wait_for_status("one", "stopped");
    let client = daemon.client();
    let request = Request::get("/api/v1/events?since=0").header("host", "localhost");
    let told = client.runtime.block_on(async {
        let mut events = client.open(request.body(Full::default()).unwrap()).await.into_body();
        let mut text = String::new();
        while !text.contains("VM_STOPPED") {
            let frame = events.frame().await.unwrap().unwrap();
            text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        }
        text
    });
    assert!(told.contains("the guest asked for a reset"), "{told}");
    assert!(daemon.ctl(&["vms", "start", "one"]).status.success());
}
