//! Each check of `volantd doctor` is made to fail on this host, the command that it prints is run, and it
//! passes afterwards.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::daemon::{Daemon, named};

/// A doctor for a daemon of this folder, whether or not there is one.
struct Doctor {
    folder: tempfile::TempDir,
    flags: Vec<String>,
}

impl Doctor {
    fn new() -> Doctor {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("volantd.toml"), "").unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let flags = [
            ("--config", at("volantd.toml")),
            ("--state-dir", at("state")),
            ("--socket", at("socket")),
            ("--kernel", named("VOLANT_KERNEL").display().to_string()),
            ("--agent", named("VOLARY").display().to_string()),
            ("--busybox", "/bin/busybox".to_owned()),
        ];
        let flags = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
        Doctor { folder, flags }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, check: &str) -> Command {
        let mut command = Command::new(named("VOLANTD"));
        command.args(["doctor", "--json", "--only", check]).args(&self.flags);
        command
    }

    fn look(&self, check: &str) -> (String, String, String) {
        parse(self.command(check))
    }

    #[track_caller]
    fn is_ok(&self, check: &str) {
        let (status, why, _) = self.look(check);
        assert_eq!(status, "ok", "{check}: {why}");
    }

    /// Breaks something, sees the check tell it, runs what it prints, and sees the check pass.
    #[track_caller]
    fn mends(&self, check: &str, break_it: impl FnOnce()) {
        self.is_ok(check);
        break_it();
        self.mends_what_is_broken(check);
    }

    #[track_caller]
    fn mends_what_is_broken(&self, check: &str) {
        let (status, why, mend) = self.look(check);
        assert_ne!(status, "ok", "{check}: {why}");
        assert_ne!(mend, "", "{check}: {why}");
        shell(&mend);
        self.is_ok(check);
    }
}

/// Status, sentence and command of the one check that was asked for.
fn parse(mut command: Command) -> (String, String, String) {
    let out = command.output().unwrap();
    let document: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{out:?}"));
    let check = &document["checks"][0];
    let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
    let fails = text("status") == "fail";
    assert_eq!(out.status.code(), Some(i32::from(fails)), "{out:?}");
    (text("status"), text("why"), text("mend"))
}

/// Runs a line as an operator would, with `volantd` being this one.
#[track_caller]
fn shell(line: &str) {
    let program = named("VOLANTD");
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}:/usr/sbin:/sbin", program.parent().unwrap().display());
    let out = Command::new("sh").args(["-c", line]).env("PATH", path).output().unwrap();
    assert!(out.status.success(), "{line}: {out:?}");
}

fn set(path: &str, value: &str) {
    std::fs::write(path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn devices_and_settings_of_the_kernel_are_mended() {
    let doctor = Doctor::new();
    doctor.mends("kvm", || shell("modprobe -r kvm_amd && test ! -e /dev/kvm"));
    doctor.is_ok("virtualization");
    doctor.is_ok("pvm");
    doctor.mends("tun", || shell("rm /dev/net/tun"));
    doctor.mends("vhost-net", || shell("modprobe -r vhost_net && test ! -e /dev/vhost-net"));
    doctor.mends("overcommit", || set("/proc/sys/vm/overcommit_memory", "2"));
    set("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "advise");
    doctor.mends("huge-pages", || {
        set("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "never");
    });
    doctor.mends("clock", || shell("date -s 2001-01-01"));
    doctor.mends("cgroup", || shell("umount -l /sys/fs/cgroup"));
    doctor.is_ok("memory");
    let (status, why, _) = doctor.look("nested");
    assert_eq!(status, "warn", "the devvm is a virtual machine: {why}");
}

/// As somebody else, who cannot open the device until he is in its group.
#[test]
fn a_user_is_let_at_kvm() {
    let doctor = Doctor::new();
    shell("groupadd --system kvm 2>/dev/null || true");
    shell("chgrp kvm /dev/kvm && chmod 660 /dev/kvm");
    shell("id somebody >/dev/null 2>&1 || useradd --system --no-create-home somebody");
    for path in [doctor.folder.path(), &doctor.at("volantd.toml")] {
        mode(path, 0o755);
    }
    let look = || {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "somebody", "--regid", "somebody", "--init-groups"]);
        let inner = doctor.command("kvm-access");
        command.arg(inner.get_program()).args(inner.get_args());
        parse(command)
    };
    let (status, why, mend) = look();
    assert_eq!((status.as_str(), mend.as_str()), ("fail", "usermod -aG kvm somebody"), "{why}");
    shell(&mend);
    assert_eq!(look().0, "ok");
    shell("userdel somebody");
}

#[test]
fn the_hosts_network_is_mended() {
    let doctor = Doctor::new();
    set("/proc/sys/net/ipv4/ip_forward", "1");
    doctor.mends("ip-forward", || set("/proc/sys/net/ipv4/ip_forward", "0"));
    doctor.mends("forward-policy", || {
        shell("nft 'add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'");
    });
    shell("nft delete table ip filter");
    doctor.mends("taps", || shell("ip tuntap add vt999 mode tap"));
    drop(Daemon::start());
    doctor.mends("firewall-entries", || {
        shell("nft 'add element bridge volant_vbr0 ports { \"vt998\" . 02:76:c0:a8:7f:63 . 192.168.127.99 }'");
    });
}

/// What a module that is missing does to the firewall: the kernel is kept from loading it by itself.
#[test]
fn the_firewalls_modules_are_loaded() {
    let doctor = Doctor::new();
    let asks = std::fs::read_to_string("/proc/sys/kernel/modprobe").unwrap();
    doctor.mends("nftables", || {
        shell("nft flush ruleset && modprobe -r nft_fib_inet && ! grep -q ^nft_fib_inet /proc/modules");
        set("/proc/sys/kernel/modprobe", "/bin/false");
    });
    set("/proc/sys/kernel/modprobe", asks.trim());
}

#[test]
fn files_of_the_daemon_are_mended() {
    let mut doctor = Doctor::new();
    shell(&format!(
        "install -D -t /usr/lib/volant {} {}",
        named("VOLANT_KERNEL").display(),
        named("VOLARY").display()
    ));
    let (kernel, agent) = (doctor.at("vmlinux"), doctor.at("volary"));
    for flag in ["--kernel", "--agent"] {
        let at = doctor.flags.iter().position(|other| other == flag).unwrap();
        let path = if flag == "--kernel" { &kernel } else { &agent };
        doctor.flags[at + 1] = path.display().to_string();
    }
    doctor.mends_what_is_broken("kernel");
    doctor.mends("kernel", || {
        std::fs::write(&kernel, "no kernel, and longer than its head").unwrap()
    });
    doctor.mends_what_is_broken("agent");
    doctor.mends("agent-version", || std::fs::write(&agent, "volary version 0.0.1\n").unwrap());
    std::fs::remove_dir_all("/usr/lib/volant").unwrap();
    doctor.is_ok("busybox");

    let state = doctor.at("state");
    std::fs::create_dir(&state).unwrap();
    doctor.mends("state-dir", || mode(&state, 0o777));
    let token = state.join("token");
    std::fs::write(&token, "0".repeat(64)).unwrap();
    mode(&token, 0o600);
    doctor.mends("token", || mode(&token, 0o644));
    doctor.mends("token", || std::fs::write(&token, "").unwrap());
    shell("groupdel volant 2>/dev/null || true");
    doctor.mends_what_is_broken("group");
    shell("groupdel volant");
    doctor.is_ok("unit");
    let (status, why, _) = doctor.look("descriptors");
    assert_eq!(status, "ok", "{why}");
    let limited = format!(
        "ulimit -n 1024; {0} doctor --only descriptors >{1}; mend=$(sed -n 's/ *mend: //p' {1}); \
         sh -c \"$mend\"; {0} doctor --only descriptors >{1}.after; grep -q ^warn {1}; grep -q ^ok {1}.after",
        named("VOLANTD").display(),
        doctor.at("told").display()
    );
    shell(&format!("set -e; {limited}"));
}

#[test]
fn a_full_disk_and_a_damaged_store_are_mended() {
    let mut daemon = Daemon::start();
    let state = daemon.state_dir();
    let mut doctor = Doctor::new();
    for (flag, value) in [("--state-dir", &state), ("--socket", &daemon.socket())] {
        let at = doctor.flags.iter().position(|other| other == flag).unwrap();
        doctor.flags[at + 1] = value.display().to_string();
    }
    for check in ["daemon", "daemon-version", "socket", "port", "store", "taps"] {
        doctor.is_ok(check);
    }
    doctor.mends("socket", || mode(&daemon.socket(), 0o666));
    daemon.kill();
    let (status, ..) = doctor.look("daemon");
    assert_eq!(status, "warn");
    let broken = || {
        let database = std::fs::OpenOptions::new().write(true).open(state.join("state.db"));
        std::os::unix::fs::FileExt::write_all_at(&database.unwrap(), &[0xa5; 4096], 0).unwrap();
        let _ = std::fs::remove_file(state.join("state.db-wal"));
    };
    doctor.mends("store", broken);
    daemon.restart();
    doctor.is_ok("daemon");
    shell(&format!(
        "mkdir {0}/small && mount -t tmpfs -o size=32m tmpfs {0}/small",
        state.display()
    ));
    let at = doctor.flags.iter().position(|other| other == "--state-dir").unwrap();
    doctor.flags[at + 1] = state.join("small").display().to_string();
    let (status, why, mend) = doctor.look("disk");
    assert_eq!((status.as_str(), mend.as_str()), ("fail", "volantd ctl images prune"), "{why}");
    shell(&format!("umount {}/small", state.display()));
}

/// What others have is left to them: setup writes another bridge, subnet or port.
#[test]
fn what_is_in_others_way_is_set_up_elsewhere() {
    let doctor = Doctor::new();
    let config = doctor.at("volantd.toml");
    shell("ip link delete vbr0 2>/dev/null || true");
    doctor.mends("bridge", || shell("ip link add vbr0 type dummy"));
    shell("ip link delete vbr0");
    doctor.mends("subnet", || {
        shell("ip link add vbr0 type dummy && ip address add 192.168.127.9/24 dev vbr0");
        shell("ip link set vbr0 up");
    });
    shell("ip link delete vbr0");
    let mut holder = None;
    doctor.mends("port", || {
        holder = Some(std::net::TcpListener::bind("127.0.0.1:7777").unwrap());
    });
    let text = std::fs::read_to_string(&config).unwrap();
    let values =
        ["bridge = \"vbr1\"", "subnet = \"192.168.255.0/24\"", "listen = \"127.0.0.1:7778\""];
    assert!(values.iter().all(|value| text.contains(value)), "{text}");
    std::fs::write(&config, "bridge = 7\n").unwrap();
    let (_, why, mend) = doctor.look("kvm");
    assert!(why.contains("is no configuration"), "{why}");
    shell(&mend);
    doctor.is_ok("kvm");
    shell(&format!("volantd setup --config {} --uninstall --yes", config.display()));
    assert!(!config.exists() && !Path::new("/var/lib/volant").exists());
}

#[test]
fn names_and_forms_of_findings() {
    let doctor = Doctor::new();
    let out = doctor.command("no-such-check").output().unwrap();
    assert_eq!(out.status.code(), Some(2), "{out:?}");
    assert!(String::from_utf8_lossy(&out.stderr).contains("the checks are kvm, "), "{out:?}");
    let out = Command::new(named("VOLANTD")).arg("doctor").args(&doctor.flags).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{text}");
    assert!(text.lines().count() > 30 && text.starts_with("ok    kvm "), "{text}");
    std::fs::write(doctor.at("volantd.toml"), "bridge = 7\n").unwrap();
    let (status, why, mend) = doctor.look("kvm");
    assert_eq!(status, "fail", "{why}");
    assert!(mend.starts_with("mv "), "{mend}");
    let mut nobody = doctor.command("nftables");
    mode(doctor.folder.path(), 0o755);
    std::fs::write(doctor.at("volantd.toml"), "").unwrap();
    let (status, why, _) = parse({
        nobody.uid(65534).gid(65534);
        nobody
    });
    assert_eq!((status.as_str(), why.contains("as root")), ("warn", true), "{why}");
}
