//! The host's network: what the daemon needs of it, what is in the way, and what was left behind.

use std::fs;
use std::net::Ipv4Addr;

use crate::doctor::{Finding, Host, chain};
use crate::net::{self, NetError, OpenPort, Subnet, TAP_PREFIX};
use crate::store;

pub fn bridge(host: &Host) -> Finding {
    let name = &host.config.bridge;
    let link = host.at("/sys/class/net").join(name);
    if !link.exists() {
        return Finding::ok(format!("no interface is called {name} yet"));
    }
    if link.join("bridge").is_dir() {
        return Finding::ok(format!("{name} is a bridge"));
    }
    let taken = |name: &String| host.at("/sys/class/net").join(name).exists();
    let free = (0..).map(|number| format!("vbr{number}")).find(|name| !taken(name));
    let mend = format!("{} --bridge {}", host.setup, free.unwrap_or_default());
    Finding::fail(format!("the interface {name} exists and is no bridge")).mend(mend)
}

pub fn nftables(_: &Host) -> Finding {
    match net::probe() {
        Ok(()) => Finding::ok("the kernel takes the daemon's firewall rules"),
        Err(NetError::Host { source, .. })
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            Finding::warn("this user may not ask for the firewall: run doctor as root")
        }
        Err(error) => {
            Finding::fail(format!("the kernel takes no firewall rules: {}", chain(&error)))
                .mend("modprobe -a nf_tables nft_masq nft_ct nft_fib_inet nft_nat nft_reject_inet")
        }
    }
}

pub fn ip_forward(host: &Host) -> Finding {
    match host.read("/proc/sys/net/ipv4/ip_forward").as_deref() {
        Some("1") => Finding::ok("packets of guests are forwarded"),
        _ => Finding::warn(
            "net.ipv4.ip_forward is off: until the daemon starts and sets it, guests reach nobody",
        )
        .mend("sysctl -w net.ipv4.ip_forward=1"),
    }
}

pub fn subnet(host: &Host) -> Finding {
    let text = &host.config.subnet;
    let Ok(subnet) = text.parse::<Subnet>() else {
        return Finding::fail(format!("subnet: {text:?} is no subnet, as 192.168.127.0/24 is"))
            .mend(format!("{} --subnet 192.168.127.0/24", host.setup));
    };
    let routes = routes(&host.read("/proc/net/route").unwrap_or_default(), &host.config.bridge);
    let Some(route) = routes.iter().find(|route| route.meets(subnet)) else {
        return Finding::ok(format!("{subnet} is nobody else's"));
    };
    let why =
        format!("{subnet} overlaps {}, which the host routes to {}", route.subnet, route.device);
    let candidates = (0..=255)
        .rev()
        .map(|third| Subnet { network: Ipv4Addr::new(192, 168, third, 0), prefix_len: 24 });
    let free = candidates.into_iter().find(|free| !routes.iter().any(|route| route.meets(*free)));
    match free {
        Some(free) => Finding::fail(why).mend(format!("{} --subnet {free}", host.setup)),
        None => Finding::fail(why),
    }
}

/// A route of the host that is not the bridge's own.
#[derive(Debug, PartialEq, Eq)]
struct Route {
    subnet: Subnet,
    device: String,
}

impl Route {
    fn meets(&self, other: Subnet) -> bool {
        let bits = self.subnet.prefix_len.min(other.prefix_len);
        let first = |subnet: Subnet| u64::from(u32::from(subnet.network)) >> (32 - bits);
        first(self.subnet) == first(other)
    }
}

/// Reads `/proc/net/route`, where addresses are hexadecimal words of this machine's order. Default
/// routes, which everything else goes before, do not count.
fn routes(text: &str, bridge: &str) -> Vec<Route> {
    let word = |field: Option<&str>| u32::from_str_radix(field?, 16).ok().map(u32::from_be);
    let route = |line: &str| {
        let mut fields = line.split_whitespace();
        let device = fields.next()?.to_owned();
        let network = Ipv4Addr::from(word(fields.next())?);
        let prefix_len = u8::try_from(word(fields.nth(5))?.count_ones()).ok()?;
        Some(Route { subnet: Subnet { network, prefix_len }, device })
    };
    let others = |route: &Route| route.device != bridge && 0 < route.subnet.prefix_len;
    text.lines().skip(1).filter_map(route).filter(others).collect()
}

pub fn forward_policy(host: &Host) -> Finding {
    let bridge = &host.config.bridge;
    match net::dropping_chain(bridge) {
        Ok(None) => Finding::ok("nobody's firewall drops what guests send"),
        Ok(Some(chain)) => {
            let rule = |word| format!("nft insert rule {chain} {word} {bridge} accept");
            Finding::fail(format!(
                "the chain {chain} drops what is forwarded, as Docker and ufw want it: guests reach nobody"
            ))
            .mend(format!("{} && {}", rule("iifname"), rule("oifname")))
        }
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Finding::warn("this user may not look at the firewall: run doctor as root")
        }
        Err(error) => Finding::warn(format!("the firewall cannot be looked at: {error}")),
    }
}

/// A TAP device lives as long as a process holds it, unless somebody has made it outlive that.
pub fn taps(host: &Host) -> Finding {
    let links = fs::read_dir(host.at("/sys/class/net")).into_iter().flatten().flatten();
    let mut taps: Vec<String> = links
        .filter(|link| link.path().join("tun_flags").exists())
        .filter_map(|link| link.file_name().into_string().ok())
        .filter(|name| name.starts_with(TAP_PREFIX))
        .collect();
    taps.sort();
    let rows = store::inspect::vm_ids(&host.config.state_dir.join("state.db"));
    let owned = |name: &String| {
        let id = name[TAP_PREFIX.len()..].parse().map(crate::model::VmId);
        let carrier = host.read(&format!("/sys/class/net/{name}/carrier"));
        let held = carrier.as_deref() == Some("1");
        held && id.is_ok_and(|id| rows.as_ref().map_or(true, |rows| rows.contains(&id)))
    };
    match taps.iter().find(|name| !owned(name)) {
        None => Finding::ok(format!("{} TAP devices, each of a VM", taps.len())),
        Some(name) => Finding::warn(format!("the TAP device {name} is no VM's"))
            .mend(format!("ip link delete {name}")),
    }
}

pub fn firewall_entries(host: &Host) -> Finding {
    let bridge = &host.config.bridge;
    let ports = match net::open_ports(bridge) {
        Ok(ports) => ports,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Finding::warn("this user may not look at the firewall: run doctor as root");
        }
        Err(error) => {
            return Finding::warn(format!("the firewall's entries cannot be looked at: {error}"));
        }
    };
    let orphan = |port: &&OpenPort| !host.at("/sys/class/net").join(&port.tap).exists();
    match ports.iter().find(orphan) {
        None => Finding::ok(format!("{} firewall entries, each of a VM", ports.len())),
        Some(OpenPort { tap, mac, ip }) => Finding::warn(format!(
            "the firewall lets {tap} send as {ip}, and there is no {tap}"
        ))
        .mend(format!(
            "nft 'delete element bridge volant_{bridge} ports {{ \"{tap}\" . {mac} . {ip} }}'"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
        eth0 00000000 0202000A 0003 0 0 0 00000000 0 0 0\n\
        eth0 0002000A 00000000 0001 0 0 0 00FFFFFF 0 0 0\n\
        vbr0 007FA8C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n\
        tun0 0000A8C0 00000000 0001 0 0 0 0000FFFF 0 0 0\n";

    #[test]
    fn routes_meet_what_they_contain_and_what_contains_them() {
        let routes = routes(TABLE, "vbr0");
        let devices: Vec<&str> = routes.iter().map(|route| route.device.as_str()).collect();
        assert_eq!(devices, ["eth0", "tun0"], "neither the default nor the bridge's own");
        assert_eq!(routes[0].subnet.to_string(), "10.0.2.0/24");
        let meets = |text: &str| routes.iter().any(|route| route.meets(text.parse().unwrap()));
        assert!(meets("192.168.127.0/24") && meets("10.0.0.0/8") && meets("10.0.2.128/25"));
        assert!(!meets("10.0.3.0/24") && !meets("172.16.0.0/12"));
    }
}
