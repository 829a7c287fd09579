//! The kernel command line that every guest gets.

use std::net::Ipv4Addr;

use crate::model::{BootFrom, Vm};
use crate::net::NetConfig;

/// Whatever the console: no chatter (a byte on the serial port is two exits), a panic ends the
/// machine at once by a triple fault, and no probing of what is not there (docs/boot.md).
const COMMON: &str = "quiet loglevel=1 panic=-1 nomodule \
    random.trust_cpu=on tsc=reliable no_timer_check rcupdate.rcu_expedited=1";
const WITH_CONSOLE: &str = "console=ttyS0 8250.nr_uarts=1";
const WITHOUT_CONSOLE: &str = "8250.nr_uarts=0";
/// The agent ends the machine by itself; what is left is a triple fault.
const INITRAMFS: &str = "reboot=t rdinit=/init";
/// A disk's own init reboots by the keyboard controller, which the machine takes for what it is.
const DISK: &str = "reboot=k rw";

/// The words for `vm`, its own last so that they win; `root` is the device of its root if that is on a
/// disk.
pub fn for_vm(vm: &Vm, network: &NetConfig, root: Option<&str>) -> String {
    let spec = &vm.spec;
    let console = if spec.console { WITH_CONSOLE } else { WITHOUT_CONSOLE };
    let boot = match (spec.boot_from, root) {
        (BootFrom::Initramfs, _) | (_, None) => INITRAMFS.to_owned(),
        (BootFrom::Disk | BootFrom::DiskWithoutAgent, Some(root)) => {
            let address = vm.address().map_or(String::new(), |ip| self::ip(vm, ip, network));
            format!("{DISK} root={root} {address}")
        }
    };
    format!("{console} {COMMON} {boot} {}", spec.kernel_cmdline).trim_end().to_owned()
}

/// The guest's address, which nobody else would tell a guest without an agent
/// (Documentation/admin-guide/nfs/nfsroot.rst).
fn ip(vm: &Vm, ip: Ipv4Addr, network: &NetConfig) -> String {
    let bits = u32::MAX.checked_shl(32 - u32::from(network.subnet.prefix_len)).unwrap_or(0);
    let (mask, host, name) = (Ipv4Addr::from(bits), network.host_ip, &vm.name);
    format!("ip={ip}::{host}:{mask}:{name}:eth0:off")
}
