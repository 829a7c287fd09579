//! Questions about the host's nftables, for `volantd doctor`, and the end of ours, for
//! `volantd setup --uninstall`. Each opens a socket of its own.

use std::ffi::{CStr, CString};
use std::io;
use std::net::Ipv4Addr;

use netlink_bindings::nftables::{self, Nfgenmsg};
use netlink_socket2::{NetlinkSocket, ReplyError};

use crate::model::Mac;
use crate::net::firewall::{
    BRIDGE, FORWARD, Firewall, INET, PORT_KEY_LEN, PORTS, SET_UP_STEP, family,
};
use crate::net::{NetConfig, NetError, Subnet};

/// `NFPROTO_IPV4` (linux/netfilter.h).
const IPV4: u8 = 2;
/// `NF_DROP` (linux/netfilter.h).
const DROP: u32 = 0;
/// Stands for a bridge in [`probe`]; no interface is called so.
const PROBE: &str = "volant-probe";

/// What a guest may send from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenPort {
    /// Name of its TAP device.
    pub tap: String,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its IPv4 address.
    pub ip: Ipv4Addr,
}

/// Asks the kernel to take all the daemon's rules and to give them up again, in one transaction: nothing
/// is ever in force.
///
/// # Errors
/// The kernel lacks something, or this user may not.
pub fn probe() -> Result<(), NetError> {
    let subnet = Subnet { network: Ipv4Addr::new(192, 0, 2, 0), prefix_len: 24 };
    let host_ip = subnet.first_host();
    let config = NetConfig { bridge: PROBE.to_owned(), subnet, host_ip };
    let firewall = Firewall::named(PROBE)?;
    let taken = firewall.transact(|batch, table| {
        firewall.lay_down(batch, &config);
        let ours = [(INET, table), (BRIDGE, table), (INET, &firewall.exposed)];
        for (nfgen_family, name) in ours {
            batch.request().op_deltable_do(&family(nfgen_family)).encode().push_name(name);
        }
    });
    taken.map_err(|source| NetError::Host { step: SET_UP_STEP.to_owned(), source })
}

/// A chain of somebody else that drops what is forwarded unless a rule says otherwise, and has no rule
/// that names the bridge: `FAMILY TABLE CHAIN`, as `nft` takes it. Docker and ufw make such chains.
///
/// # Errors
/// The kernel's answer.
pub fn dropping_chain(bridge: &str) -> io::Result<Option<String>> {
    let mut socket = NetlinkSocket::new();
    for (nfgen_family, word) in [(IPV4, "ip"), (INET, "inet")] {
        for (table, chain) in dropping_chains(&mut socket, nfgen_family)? {
            if !names(&mut socket, nfgen_family, &table, bridge)? {
                let name = |text: &CStr| text.to_string_lossy().into_owned();
                return Ok(Some(format!("{word} {} {}", name(&table), name(&chain))));
            }
        }
    }
    Ok(None)
}

fn dropping_chains(
    socket: &mut NetlinkSocket,
    nfgen_family: u8,
) -> io::Result<Vec<(CString, CString)>> {
    let request = nftables::Request::new().op_getchain_dump(&family(nfgen_family));
    let mut found = Vec::new();
    let mut answers = socket.request(&request)?;
    while let Some(answer) = answers.recv() {
        let (header, chain): (Nfgenmsg, _) = answer.map_err(told)?;
        let forwards =
            chain.get_hook().is_ok_and(|hook| hook.get_num().is_ok_and(|hook| hook == FORWARD));
        let drops = chain.get_policy().is_ok_and(|policy| policy == DROP);
        if let (true, true, Ok(table), Ok(name)) = (
            forwards && header.nfgen_family == nfgen_family,
            drops,
            chain.get_table(),
            chain.get_name(),
        ) {
            found.push((table.to_owned(), name.to_owned()));
        }
    }
    Ok(found)
}

/// Whether a rule of the table has the bridge's name in it: Docker wants such rules in a chain of its
/// own, to which the dropping one jumps.
fn names(
    socket: &mut NetlinkSocket,
    nfgen_family: u8,
    table: &CStr,
    bridge: &str,
) -> io::Result<bool> {
    let mut request = nftables::Request::new().op_getrule_dump(&family(nfgen_family));
    request.encode().push_table(table);
    let mut name = bridge.as_bytes().to_vec();
    name.push(0);
    let mut found = false;
    let mut answers = socket.request(&request)?;
    while let Some(answer) = answers.recv() {
        let (_, rule) = answer.map_err(told)?;
        let expressions = rule.get_expressions().map(|all| all.get_buf()).unwrap_or_default();
        found |= expressions.windows(name.len()).any(|bytes| bytes == name);
    }
    Ok(found)
}

/// What guests of this bridge may send from; none where the daemon has not been.
///
/// # Errors
/// The kernel's answer.
pub fn open_ports(bridge: &str) -> io::Result<Vec<OpenPort>> {
    let table = CString::new(format!("volant_{bridge}"))?;
    let mut request = nftables::Request::new().op_getsetelem_dump(&family(BRIDGE));
    request.encode().push_table(&table).push_set(PORTS);
    let mut found = Vec::new();
    let mut socket = NetlinkSocket::new();
    let mut answers = socket.request(&request)?;
    while let Some(answer) = answers.recv() {
        let (_, list) = match answer.map_err(told) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            answer => answer?,
        };
        let Ok(elements) = list.get_elements() else { continue };
        for element in elements {
            let Ok(nftables::SetelemListElemAttrs::Elem(element)) = element else { continue };
            let key = element.get_key().and_then(|key| key.get_value());
            found.extend(key.ok().and_then(read_key));
        }
    }
    Ok(found)
}

/// The other direction of `port_key`.
fn read_key(key: &[u8]) -> Option<OpenPort> {
    let key: &[u8; PORT_KEY_LEN] = key.try_into().ok()?;
    let (name, rest) = key.split_at(16);
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    let mac = Mac(rest[..6].try_into().ok()?);
    let ip: [u8; 4] = rest[8..].try_into().ok()?;
    Some(OpenPort { tap: String::from_utf8_lossy(name).into_owned(), mac, ip: ip.into() })
}

/// Removes the tables of this bridge.
///
/// # Errors
/// The kernel's answer.
pub fn remove(bridge: &str) -> Result<(), NetError> {
    let firewall = Firewall::named(bridge)?;
    let removed = firewall.transact(|batch, table| {
        for nfgen_family in [INET, BRIDGE] {
            // One that is not there cannot be removed: it is made first.
            let header = family(nfgen_family);
            batch.request().set_create().op_newtable_do(&header).encode().push_name(table);
            batch.request().op_deltable_do(&header).encode().push_name(table);
        }
    });
    removed.map_err(|source| NetError::Host { step: "remove the nftables".to_owned(), source })
}

fn told(error: ReplyError) -> io::Error {
    io::Error::new(error.as_io_error().kind(), error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::firewall::port_key;

    #[test]
    fn a_key_is_read_as_it_was_written() {
        let (mac, ip) = (Mac([2, 0x76, 10, 0, 0, 9]), Ipv4Addr::new(10, 0, 0, 9));
        let port = read_key(&port_key("vt12", mac, ip)).unwrap();
        assert_eq!(port, OpenPort { tap: "vt12".to_owned(), mac, ip });
        assert_eq!(read_key(b"short"), None);
    }
}
