//! Each check both ways, on a host that is a folder.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use super::*;

struct Made {
    host: Host,
    _folder: tempfile::TempDir,
}

/// A host without anything.
fn bare() -> Made {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| Some(folder.path().join(name));
    let flags = ServeFlags {
        state_dir: at("state"),
        socket: at("run/volant.sock"),
        kernel: at("vmlinux"),
        agent: at("volary"),
        busybox: at("busybox"),
        bridge: Some("vbr9".to_owned()),
        listen: Some(std::net::SocketAddr::from(([127, 0, 0, 1], 0))),
        config: at("volantd.toml"),
        ..ServeFlags::default()
    };
    fs::write(folder.path().join("volantd.toml"), "").unwrap();
    let config = config::resolve(&flags, Path::new("/x/volantd")).unwrap();
    let mut host = Host::real(config, &flags);
    host.root = folder.path().to_owned();
    Made { host, _folder: folder }
}

impl Made {
    fn write(&self, path: &str, contents: impl AsRef<[u8]>) {
        let path = self.host.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    fn find(&self, name: &str) -> Finding {
        let check = CHECKS.iter().find(|check| check.name == name).unwrap();
        (check.look)(&self.host)
    }

    #[track_caller]
    fn says(&self, name: &str, status: Status, words: &str, mend: &str) {
        let finding = self.find(name);
        assert_eq!(finding.status, status, "{name}: {finding:?}");
        assert!(finding.why.contains(words), "{name}: {finding:?}");
        let command = finding.mend.as_deref().unwrap_or_default();
        assert!(command.contains(mend) && mend.is_empty() == command.is_empty(), "{finding:?}");
    }

    #[track_caller]
    fn is_ok(&self, name: &str) {
        let finding = self.find(name);
        assert_eq!((finding.status, &finding.mend), (Status::Ok, &None), "{name}: {finding:?}");
    }
}

/// The head of an x86-64 program with one program header of this kind.
fn elf(kind: u32) -> Vec<u8> {
    let mut bytes = vec![0; 120];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[18] = 62;
    bytes[32] = 64;
    (bytes[54], bytes[56]) = (56, 1);
    bytes[64..68].copy_from_slice(&kind.to_le_bytes());
    bytes
}

#[test]
fn names_are_unlike_and_there_are_many() {
    let names: std::collections::BTreeSet<&str> = CHECKS.iter().map(|check| check.name).collect();
    assert_eq!(names.len(), CHECKS.len());
    assert!(30 < names.len(), "{names:?}");
}

#[test]
fn each_lack_that_keeps_the_daemon_from_starting_has_its_sentence() {
    let made = bare();
    let refusal = || start_refusal(&made.host).unwrap_or_default();
    assert!(refusal().contains("there is no /dev/kvm"), "{}", refusal());
    assert!(refusal().ends_with("modprobe kvm_amd"), "{}", refusal());
    made.write("/proc/cpuinfo", "flags : fpu vmx");
    assert!(refusal().ends_with("modprobe kvm_intel"), "{}", refusal());
    fs::create_dir_all(made.host.at("/dev/kvm")).unwrap();
    assert!(refusal().contains("may not be opened"), "a folder cannot be opened for writing");
    fs::remove_dir(made.host.at("/dev/kvm")).unwrap();
    made.write("/dev/kvm", "");
    made.write("/sys/module/kvm_pvm/x", "");
    made.write("/proc/cpuinfo", "flags : fpu vme");
    assert!(refusal().contains("PVM"), "{}", refusal());
    made.write("/proc/cpuinfo", "flags : fpu svm");
    assert!(refusal().contains("there is no /dev/net/tun"), "{}", refusal());
    made.write("/dev/net/tun", "");
    assert!(refusal().contains("no guest kernel"), "{}", refusal());
    made.write("/vmlinux", elf(1));
    assert!(refusal().contains("no guest agent"), "{}", refusal());
    made.write("/volary", elf(1));
    made.write("/sys/class/net/vbr9/address", "");
    assert!(refusal().contains("vbr9 exists and is no bridge"), "{}", refusal());
    made.write("/sys/class/net/vbr9/bridge/x", "");
    assert_eq!(start_refusal(&made.host), None);
}

#[test]
fn what_the_machine_gives_is_told() {
    let made = bare();
    made.says("virtualization", Status::Warn, "neither", "");
    made.is_ok("pvm");
    made.write("/sys/module/kvm_pvm/x", "");
    made.says("pvm", Status::Fail, "kvm_pvm is loaded", "");
    made.write("/proc/cpuinfo", "flags : vmx hypervisor");
    made.says("pvm", Status::Fail, "kvm_pvm is loaded", "modprobe -r kvm_pvm");
    made.is_ok("virtualization");
    made.says("nested", Status::Warn, "virtual machine itself", "");
    made.write("/proc/cpuinfo", "flags : vmx");
    made.is_ok("nested");
    made.says("vhost-net", Status::Warn, "no /dev/vhost-net", "modprobe vhost_net");
    made.write("/dev/vhost-net", "");
    made.is_ok("vhost-net");
    made.says("cgroup", Status::Warn, "not cgroup v2", "mount -t cgroup2");
    made.write("/sys/fs/cgroup/cgroup.controllers", "cpu memory");
    made.is_ok("cgroup");
    for (kib, status) in [(1 << 16, Status::Fail), (1 << 18, Status::Warn), (1 << 20, Status::Ok)] {
        made.write("/proc/meminfo", format!("MemTotal: 9 kB\nMemAvailable:  {kib} kB\n"));
        made.says("memory", status, "MiB of memory", "");
    }
    made.write("/proc/sys/vm/overcommit_memory", "2\n");
    made.says("overcommit", Status::Warn, "is 2", "sysctl -w vm.overcommit_memory=0");
    made.write("/proc/sys/vm/overcommit_memory", "0\n");
    made.is_ok("overcommit");
    let policy = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    made.says("huge-pages", Status::Warn, "no huge pages for shared", "");
    made.write(policy, "always within_size advise [never] deny force\n");
    made.says("huge-pages", Status::Warn, "forbids", "echo advise");
    made.write(policy, "always within_size [advise] never deny force\n");
    made.is_ok("huge-pages");
}

#[test]
fn a_clock_that_is_wrong_is_told() {
    let made = bare();
    let now = Duration::from_secs(1_800_000_000);
    let look = |now| machine::clock_at(&made.host, now);
    assert_eq!(look(now).status, Status::Ok, "a machine without a hardware clock");
    assert_eq!(look(Duration::from_secs(1000)).mend.unwrap(), "timedatectl set-ntp true");
    made.write("/sys/class/rtc/rtc0/since_epoch", "1800003600\n");
    assert_eq!(look(now).status, Status::Ok, "local time");
    assert_eq!(look(Duration::from_secs(1000)).mend.unwrap(), "hwclock --hctosys");
    assert_eq!(look(now + Duration::from_secs(200_000)).status, Status::Warn);
}

#[test]
fn what_is_in_the_networks_way_is_told() {
    let made = bare();
    made.says("ip-forward", Status::Warn, "is off", "sysctl -w net.ipv4.ip_forward=1");
    made.write("/proc/sys/net/ipv4/ip_forward", "1\n");
    made.is_ok("ip-forward");
    made.is_ok("subnet");
    let head = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n";
    made.write("/proc/net/route", format!("{head}vbr9 007FA8C0 0 1 0 0 0 00FFFFFF 0 0 0\n"));
    made.is_ok("subnet");
    made.write("/proc/net/route", format!("{head}eth1 0000A8C0 0 1 0 0 0 0080FFFF 0 0 0\n"));
    made.says("subnet", Status::Fail, "routes to eth1", "--subnet 192.168.255.0/24");
    made.write("/sys/class/net/vbr9/address", "");
    made.write("/sys/class/net/vbr0/address", "");
    made.says("bridge", Status::Fail, "is no bridge", "volantd.toml --bridge vbr1");
    made.write("/sys/class/net/vbr9/bridge/x", "");
    made.is_ok("bridge");
    made.is_ok("taps");
    made.write("/sys/class/net/vt7/tun_flags", "0x1002\n");
    made.says("taps", Status::Warn, "vt7", "ip link delete vt7");
    made.write("/sys/class/net/vt7/carrier", "1\n");
    made.is_ok("taps");
    made.write("/sys/class/net/vtx/tun_flags", "0x1002\n");
    made.write("/sys/class/net/vtx/carrier", "1\n");
    made.says("taps", Status::Warn, "vtx", "ip link delete vtx");
}

#[test]
fn files_that_are_not_what_they_must_be_are_told() {
    let made = bare();
    made.says("kernel", Status::Fail, "no guest kernel at", "");
    made.write("/usr/lib/volant/vmlinux", "");
    made.says("kernel", Status::Fail, "no guest kernel at", "install -D -m 644");
    made.write("/vmlinux", [0x5a; 4096]);
    made.says("kernel", Status::Fail, "neither an ELF kernel nor", "install");
    made.write("/vmlinux", elf(1));
    made.is_ok("kernel");
    made.write("/volary", "#!/bin/sh\n");
    made.says("agent", Status::Fail, "is no program", "");
    made.write("/volary", elf(3));
    made.says("agent", Status::Fail, "needs a C library", "");
    made.write("/volary", elf(1));
    made.is_ok("agent");
    made.says("agent-version", Status::Warn, "does not say", "");
    made.write("/usr/lib/volant/volary", "");
    made.write("/volary", [elf(1), b"volary version 0.0.1\n".to_vec()].concat());
    made.says("agent-version", Status::Warn, "version 0.0.1", "install -D -m 755");
    let own = format!("volary version {}\0", env!("CARGO_PKG_VERSION"));
    made.write("/volary", [elf(1), own.into_bytes()].concat());
    made.is_ok("agent-version");
    made.says("busybox", Status::Warn, "no busybox at", "");
    made.write("/etc/os-release", "PRETTY_NAME=x\nID_LIKE=debian\n");
    made.write("/busybox", elf(3));
    made.says(
        "busybox",
        Status::Warn,
        "is not static",
        "apt-get install -y --reinstall busybox-static",
    );
    made.write("/busybox", elf(1));
    made.is_ok("busybox");
}

#[test]
fn a_program_that_ends_too_soon_is_none() {
    let made = bare();
    for len in 0..120 {
        made.write("/busybox", &elf(3)[..len]);
        // No panic is what matters; a cut table has no loader in it.
        assert!(made.find("busybox").status <= Status::Warn);
    }
    let mut bytes = elf(3);
    bytes[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
    made.write("/busybox", bytes);
    assert_eq!(made.find("busybox").status, Status::Ok, "a table outside the file has no loader");
}

#[test]
fn what_the_daemon_keeps_is_looked_at() {
    let made = bare();
    for name in ["state-dir", "token", "store"] {
        made.is_ok(name);
    }
    made.write("/state/token", "short");
    let mode = |path: &str, mode| {
        fs::set_permissions(made.host.at(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("/state", 0o777);
    made.says("state-dir", Status::Fail, "may write into", "chmod go-w");
    mode("/state", 0o750);
    made.is_ok("state-dir");
    mode("/state/token", 0o644);
    made.says("token", Status::Fail, "read by others", "chmod 600");
    mode("/state/token", 0o600);
    made.says("token", Status::Fail, "holds no token", "rm ");
    made.write("/state/token", "0".repeat(64));
    made.is_ok("token");
    made.write("/state/state.db", "this is no database, and it is long enough to be looked at");
    made.says("store", Status::Fail, "is damaged", ".damaged");
    let here = made.find("disk");
    assert!(here.why.contains("MiB are free") || here.why.contains("more files"), "{here:?}");
}

#[test]
fn the_service_is_looked_at() {
    let made = bare();
    made.says("group", Status::Warn, "no group volant", "groupadd --system volant");
    made.write("/etc/group", "root:x:0:\nvolant:x:990:\n");
    made.is_ok("group");
    made.is_ok("unit");
    made.says("daemon", Status::Warn, "no daemon answers", "");
    fs::create_dir_all(made.host.at("/run/systemd/system")).unwrap();
    made.says("unit", Status::Warn, "does not know", "volantd setup --config");
    made.write("/usr/lib/systemd/system/volantd.service", "");
    made.is_ok("unit");
    made.says("daemon", Status::Warn, "no daemon answers", "systemctl start volantd");
    made.is_ok("daemon-version");
    made.is_ok("socket");
    made.write("/run/volant.sock", "");
    made.says("socket", Status::Fail, "is no socket", "mv ");
    fs::remove_file(made.host.at("/run/volant.sock")).unwrap();
    let _socket = UnixListener::bind(made.host.at("/run/volant.sock")).unwrap();
    let mode = fs::Permissions::from_mode(0o666);
    fs::set_permissions(made.host.at("/run/volant.sock"), mode).unwrap();
    made.says("socket", Status::Fail, "every user may connect", "chmod o=");
    assert_eq!(service::descriptors_of(None).status, Status::Ok);
    let few = service::descriptors_of(Some(1024));
    assert!(few.status == Status::Warn && few.mend.unwrap().starts_with("prlimit --pid "));
}

#[test]
fn a_port_in_use_and_another_version_are_told() {
    use std::io::{Read, Write};
    let mut made = bare();
    made.is_ok("port");
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    made.host.config.listen = holder.local_addr().unwrap();
    made.says("port", Status::Fail, "cannot be listened on", "--listen 127.0.0.1:");
    fs::create_dir_all(made.host.at("/run")).unwrap();
    let socket = UnixListener::bind(made.host.at("/run/volant.sock")).unwrap();
    let serve = std::thread::Builder::new().spawn(move || {
        for version in ["0.0.1", env!("CARGO_PKG_VERSION"), "0.0.1"] {
            let (mut stream, _) = socket.accept().unwrap();
            let mut request = [0; 1024];
            assert!(0 < stream.read(&mut request).unwrap());
            write!(stream, "HTTP/1.1 200 OK\r\n\r\n{{\"version\":\"{version}\"}}").unwrap();
        }
    });
    made.says("daemon-version", Status::Warn, "version 0.0.1", "systemctl restart volantd");
    made.is_ok("daemon-version");
    made.is_ok("port");
    serve.unwrap().join().unwrap();
}

#[test]
fn a_configuration_that_cannot_be_read_is_a_finding() {
    let made = bare();
    let flags = ServeFlags { config: Some(made.host.at("volantd.toml")), ..ServeFlags::default() };
    let error = || config::resolve(&flags, Path::new("/x")).unwrap_err();
    made.write("/volantd.toml", "bridge = 7\n");
    let finding = no_config(&error(), &flags);
    assert!(finding.mend.unwrap().contains(".bad"));
    made.write("/volantd.toml", "memory_percent_max = 101\n");
    let finding = no_config(&error(), &flags);
    assert!(finding.status == Status::Fail && finding.why.contains("memory_percent_max"));
}
