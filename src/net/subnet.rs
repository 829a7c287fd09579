//! IPv4 subnets and the choice of an address. Pure.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// An IPv4 subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// Network address, host bits zero.
    pub network: Ipv4Addr,
    /// 8 to 30.
    pub prefix_len: u8,
}

/// Why a text is no subnet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSubnet {
    /// Not `a.b.c.d/n`.
    #[error("a subnet is written as 192.168.127.0/24")]
    Form,
    /// The prefix is out of range.
    #[error("a prefix has 8 to 30 bits")]
    Prefix,
    /// Bits beyond the prefix are set.
    #[error("the address has bits beyond the prefix: {0} is meant?")]
    HostBits(Ipv4Addr),
}

impl std::str::FromStr for Subnet {
    type Err = InvalidSubnet;

    fn from_str(text: &str) -> Result<Subnet, InvalidSubnet> {
        let (address, prefix) = text.split_once('/').ok_or(InvalidSubnet::Form)?;
        let network: Ipv4Addr = address.parse().map_err(|_| InvalidSubnet::Form)?;
        let prefix_len: u8 = prefix.parse().map_err(|_| InvalidSubnet::Form)?;
        if !(8..=30).contains(&prefix_len) {
            return Err(InvalidSubnet::Prefix);
        }
        let subnet = Subnet { network, prefix_len };
        let masked = Ipv4Addr::from(u32::from(network) & subnet.mask());
        if masked != network {
            return Err(InvalidSubnet::HostBits(masked));
        }
        Ok(subnet)
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_len)
    }
}

impl Subnet {
    fn mask(&self) -> u32 {
        u32::MAX << (32 - u32::from(self.prefix_len))
    }

    /// Whether `ip` is a host's address in this subnet: neither the network's nor the broadcast.
    pub fn contains(&self, ip: Ipv4Addr) -> bool {
        let (ip, network) = (u32::from(ip), u32::from(self.network));
        network < ip && ip < network | !self.mask()
    }

    /// The first host's address: the bridge's, unless configured otherwise.
    pub fn first_host(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) + 1)
    }

    /// The numerically first address that is neither network, broadcast, `host_ip` nor in `used`.
    pub fn first_free(&self, host_ip: Ipv4Addr, used: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
        let network = u32::from(self.network);
        let mut candidates = (network + 1..network | !self.mask()).map(Ipv4Addr::from);
        candidates.find(|ip| *ip != host_ip && !used.contains(ip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_are_parsed_strictly() {
        let subnet: Subnet = "192.168.127.0/24".parse().unwrap();
        assert_eq!(subnet.to_string(), "192.168.127.0/24");
        for bad in
            ["192.168.127.0", "192.168.127.1/24", "10.0.0.0/7", "10.0.0.0/31", "a/24", "::/8"]
        {
            assert!(bad.parse::<Subnet>().is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn addresses_are_given_in_numeric_order_until_none_is_left() {
        let subnet: Subnet = "10.0.0.0/29".parse().unwrap();
        let mut used = BTreeSet::new();
        let mut given = Vec::new();
        while let Some(ip) = subnet.first_free(subnet.first_host(), &used) {
            given.push(ip.octets()[3]);
            used.insert(ip);
        }
        assert_eq!(given, [2, 3, 4, 5, 6]);
        used.remove(&Ipv4Addr::new(10, 0, 0, 4));
        let next = subnet.first_free(subnet.first_host(), &used);
        assert_eq!(next, Some(Ipv4Addr::new(10, 0, 0, 4)));
    }
}
