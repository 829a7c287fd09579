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

    /// One for this daemon.
    fn of(daemon: &Daemon) -> Doctor {
        let mut doctor = Doctor::new();
        for (flag, value) in [("--state-dir", daemon.state_dir()), ("--socket", daemon.socket())] {
            let at = doctor.flags.iter().position(|other| other == flag).unwrap();
            doctor.flags[at + 1] = value.display().to_string();
        }
        doctor
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
    doctor.mends("tun", || shell("rm /dev/net/tun"));
    doctor.mends("vhost-net", || shell("modprobe -r vhost_net && test ! -e /dev/vhost-net"));
    doctor.mends("overcommit", || set("/proc/sys/vm/overcommit_memory", "2"));
    set("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "advise");
    doctor.mends("huge-pages", || {
        set("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "never");
    });
    doctor.mends("clock", || shell("date -s 2001-01-01"));
    doctor.mends("cgroup", || shell("umount -l /sys/fs/cgroup"));
}

/// A module that calls itself kvm_pvm: the kernel's smallest under another name, and beside it the real
/// KVM, as the only modules that `modprobe` knows.
#[test]
fn another_kvm_is_replaced() {
    const NAME_LEN: usize = 56;
    let folder = tempfile::tempdir().unwrap();
    let uname = rustix::system::uname();
    let modules = format!("/lib/modules/{}", uname.release().to_str().unwrap());
    let own = format!("{}{modules}", folder.path().display());
    std::fs::create_dir_all(&own).unwrap();
    let mut bytes = std::fs::read(format!("{modules}/kernel/lib/crc7.ko")).unwrap();
    let name = |name: &str| [name.as_bytes(), &[0; NAME_LEN][name.len()..]].concat();
    let at = bytes.windows(NAME_LEN).position(|window| window == name("crc7")).unwrap();
    bytes[at..at + NAME_LEN].copy_from_slice(&name("kvm_pvm"));
    // A signature that is wrong is refused, none is noted.
    let magic = b"~Module signature appended~\n";
    if let Some(rest) = bytes.strip_suffix(magic) {
        let (rest, len) = rest.split_last_chunk::<4>().unwrap();
        let len = usize::try_from(u32::from_be_bytes(*len)).unwrap();
        bytes.truncate(rest.len() - 8 - len);
    }
    std::fs::write(format!("{own}/kvm_pvm.ko"), bytes).unwrap();
    shell(&format!(
        "set -e; for file in $(modprobe --show-depends kvm_amd | sed -n 's/^insmod //p'); do cp $file {own}; done; \
         depmod -b {}; mount --bind {own} {modules}",
        folder.path().display()
    ));
    Doctor::new().mends("pvm", || shell("modprobe -r kvm_amd && modprobe kvm_pvm"));
    Doctor::new().is_ok("kvm");
    shell(&format!("umount {modules}"));
}

/// Where only another machine helps, there is no command, and the sentence says what is so.
#[test]
fn what_no_command_mends_is_told() {
    let doctor = Doctor::new();
    let told = |check: &str, file: &str, text: &str| {
        let other = doctor.at("other");
        std::fs::write(&other, text).unwrap();
        shell(&format!("mount --bind {} {file}", other.display()));
        let told = doctor.look(check);
        shell(&format!("umount {file}"));
        assert_eq!(told.2, "", "{told:?}");
        told
    };
    for (kib, status, words) in
        [(100_000, "fail", "too little for a guest"), (300_000, "warn", "one small guest")]
    {
        let memory = format!("MemAvailable:  {kib} kB\n");
        let (found, why, _) = told("memory", "/proc/meminfo", &memory);
        assert!(found == status && why.contains(words), "{found}: {why}");
    }
    doctor.is_ok("memory");
    let (status, why, _) = told("virtualization", "/proc/cpuinfo", "flags : fpu sse\n");
    assert!(status == "warn" && why.contains("neither svm nor vmx"), "{status}: {why}");
    doctor.is_ok("virtualization");
    let (status, why, _) = told("nested", "/proc/cpuinfo", "flags : svm hypervisor\n");
    assert!(status == "warn" && why.contains("virtual machine itself"), "{status}: {why}");
    let (status, why, _) = told("nested", "/proc/cpuinfo", "flags : svm\n");
    assert_eq!(status, "ok", "{why}");
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
    let doctor = Doctor::of(&daemon);
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
    a_full_disk_is_pruned(&mut daemon);
}

/// A state folder with so little room that the layer of an image whose root is made is too much.
#[track_caller]
fn a_full_disk_is_pruned(daemon: &mut Daemon) {
    const WARN_MIB: u64 = 2048;
    const BLOCK: u64 = 4096;
    let state = daemon.state_dir();
    daemon.kill();
    shell(&format!("mount -t tmpfs -o size=2100m tmpfs {}", state.display()));
    daemon.restart();
    let doctor = Doctor::of(daemon);
    // As docker save writes it.
    shell(&format!(
        r#"set -e; cd {}; head -c 8M /dev/urandom >big; tar -cf layer.tar big; sum=$(sha256sum layer.tar)
        echo '{{"architecture":"amd64","os":"linux","config":{{"Cmd":["/big"]}},
            "rootfs":{{"type":"layers","diff_ids":["sha256:'${{sum%% *}}'"]}}}}' >config.json
        echo '[{{"Config":"config.json","RepoTags":["big:1"],"Layers":["layer.tar"]}}]' >manifest.json
        tar -cf big.tar manifest.json config.json layer.tar"#,
        doctor.folder.path().display()
    ));
    let archive = doctor.at("big.tar").display().to_string();
    let out = daemon.ctl(&["images", "import", &archive]);
    assert!(out.status.success(), "{out:?}");
    let space = rustix::fs::statvfs(&state).unwrap();
    let free = space.f_bavail * space.f_frsize;
    let filler = std::fs::File::create(state.join("filler")).unwrap();
    let len = free.saturating_sub((WARN_MIB << 20) - BLOCK);
    rustix::fs::fallocate(&filler, rustix::fs::FallocateFlags::empty(), 0, len).unwrap();
    drop(filler);
    let (status, why, mend) = doctor.look("disk");
    assert_eq!((status.as_str(), mend.as_str()), ("warn", "volantd ctl images prune"), "{why}");
    shell(&format!("VOLANT_HOST={} {mend}", daemon.host()));
    doctor.is_ok("disk");
    daemon.kill();
    shell(&format!("umount {}", state.display()));
    daemon.restart();
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
