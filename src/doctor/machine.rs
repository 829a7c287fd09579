//! What the machine and its kernel must give: KVM, devices, memory, the clock.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::doctor::{Finding, Host};
use crate::sys::accounts;

/// MiB below which not even a small guest has room, and below which a second one has none.
const MEMORY_FAIL_MIB: u64 = 128;
const MEMORY_WARN_MIB: u64 = 512;
/// 2026-01-01: this program is younger.
const CLOCK_MIN: Duration = Duration::from_secs(1_767_225_600);
/// A hardware clock may keep local time, which is never further away than this.
const CLOCK_DIFFERENCE_MAX_S: u64 = 26 * 3600;

/// Whether the processor can run guests by itself.
fn has_hardware(host: &Host) -> bool {
    cpu_flags(host, &["svm", "vmx"])
}

fn cpu_flags(host: &Host, wanted: &[&str]) -> bool {
    let text = host.read("/proc/cpuinfo").unwrap_or_default();
    text.split_whitespace().any(|word| wanted.contains(&word))
}

pub fn kvm(host: &Host) -> Finding {
    if host.at("/dev/kvm").exists() {
        return Finding::ok("/dev/kvm is there");
    }
    let module = if cpu_flags(host, &["vmx"]) { "kvm_intel" } else { "kvm_amd" };
    Finding::fail(
        "there is no /dev/kvm; if the module does not load, enable virtualization in the firmware",
    )
    .mend(format!("modprobe {module}"))
}

pub fn kvm_access(host: &Host) -> Finding {
    let opened = fs::OpenOptions::new().read(true).write(true).open(host.at("/dev/kvm"));
    let Err(error) = opened else { return Finding::ok("/dev/kvm may be opened") };
    let why = format!(
        "/dev/kvm may not be opened: run as root or as a member of the group kvm ({error})"
    );
    let uid = rustix::process::geteuid().as_raw();
    match accounts::users(&host.root).into_iter().find(|user| user.uid == uid) {
        Some(user) if uid != 0 => Finding::fail(why).mend(format!("usermod -aG kvm {}", user.name)),
        _ => Finding::fail(why),
    }
}

pub fn virtualization(host: &Host) -> Finding {
    if has_hardware(host) {
        return Finding::ok("the processor runs guests by itself");
    }
    if host.at("/sys/module/kvm_pvm").exists() {
        return Finding::fail(
            "the KVM of this host is PVM, which cannot run Linux guests: use a host with SVM or VMX, or the devvm",
        );
    }
    Finding::warn("the processor says neither svm nor vmx: guests may not run")
}

/// Beside hardware it may be loaded and in use, and then it is the one behind `/dev/kvm`.
pub fn pvm(host: &Host) -> Finding {
    if !host.at("/sys/module/kvm_pvm").exists() {
        return Finding::ok("the module kvm_pvm is not loaded");
    }
    let module = if cpu_flags(host, &["vmx"]) { "kvm_intel" } else { "kvm_amd" };
    let why = "the module kvm_pvm is loaded: its KVM runs guests only that are made for it";
    match has_hardware(host) {
        true => Finding::fail(why).mend(format!("modprobe -r kvm_pvm && modprobe {module}")),
        false => Finding::fail(why),
    }
}

pub fn nested(host: &Host) -> Finding {
    if cpu_flags(host, &["hypervisor"]) {
        return Finding::warn("this host is a virtual machine itself: guests run, and much slower");
    }
    Finding::ok("this host is no virtual machine")
}

pub fn tun(host: &Host) -> Finding {
    if host.at("/dev/net/tun").exists() {
        return Finding::ok("/dev/net/tun is there");
    }
    // A node that was removed does not come back with a module that is loaded.
    let mend = "modprobe tun && { test -e /dev/net/tun || { mkdir -p /dev/net && mknod -m 666 /dev/net/tun c 10 200; }; }";
    Finding::fail("there is no /dev/net/tun").mend(mend)
}

pub fn vhost_net(host: &Host) -> Finding {
    if host.at("/dev/vhost-net").exists() {
        return Finding::ok("/dev/vhost-net is there");
    }
    Finding::warn("there is no /dev/vhost-net: guests' packets cannot be handed to the kernel, the daemon carries them")
        .mend("modprobe vhost_net")
}

pub fn cgroup(host: &Host) -> Finding {
    if host.at("/sys/fs/cgroup/cgroup.controllers").exists() {
        return Finding::ok("/sys/fs/cgroup is cgroup v2");
    }
    Finding::warn("/sys/fs/cgroup is not cgroup v2: what the daemon uses cannot be limited")
        .mend("mount -t cgroup2 cgroup2 /sys/fs/cgroup")
}

pub fn memory(host: &Host) -> Finding {
    let text = host.read("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    let Some(mib) = kib.map(|kib| kib / 1024) else {
        return Finding::warn("/proc/meminfo does not say how much memory there is");
    };
    let why = format!("{mib} MiB of memory are available");
    match mib {
        ..MEMORY_FAIL_MIB => Finding::fail(why + ", too little for a guest"),
        MEMORY_FAIL_MIB..MEMORY_WARN_MIB => Finding::warn(why + ", enough for one small guest"),
        MEMORY_WARN_MIB.. => Finding::ok(why),
    }
}

pub fn overcommit(host: &Host) -> Finding {
    match host.read("/proc/sys/vm/overcommit_memory").as_deref() {
        Some("2") => Finding::warn(
            "the kernel gives no more memory than it has (vm.overcommit_memory is 2): guests that have not touched theirs yet count in full",
        )
        .mend("sysctl -w vm.overcommit_memory=0"),
        _ => Finding::ok("guests take the memory that they touch"),
    }
}

pub fn huge_pages(host: &Host) -> Finding {
    const POLICY: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    let policy = host.read(POLICY);
    match (host.config.huge_pages, policy) {
        (false, _) => Finding::ok("huge pages are not wanted (huge_pages)"),
        (true, None) => {
            Finding::warn("this kernel has no huge pages for shared memory: guests start slower")
        }
        (true, Some(policy)) if policy.contains("[never]") || policy.contains("[deny]") => {
            Finding::warn("guests get no huge pages and start slower: shmem_enabled forbids them")
                .mend(format!("echo advise >{POLICY}"))
        }
        (true, Some(_)) => Finding::ok("guests may have huge pages"),
    }
}

pub fn clock(host: &Host) -> Finding {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    clock_at(host, now)
}

/// Certificates of registries are refused, and tokens end, by a clock that is wrong.
pub fn clock_at(host: &Host, now: Duration) -> Finding {
    let hardware = host.read("/sys/class/rtc/rtc0/since_epoch").and_then(|text| text.parse().ok());
    let hardware = hardware.filter(|seconds: &u64| CLOCK_MIN.as_secs() < *seconds);
    let set = match hardware {
        Some(_) => "hwclock --hctosys",
        None => "timedatectl set-ntp true",
    };
    if now < CLOCK_MIN {
        return Finding::fail("the clock is years behind").mend(set);
    }
    match hardware {
        Some(seconds) if CLOCK_DIFFERENCE_MAX_S < seconds.abs_diff(now.as_secs()) => {
            Finding::warn("the clock and the hardware's clock are more than a day apart").mend(set)
        }
        _ => Finding::ok("the clock is plausible"),
    }
}
