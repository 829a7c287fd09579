//! The nftables rules: NAT, what guests may reach, and who they may claim to be.
//!
//! Two tables, named after the bridge, are replaced as a whole when the daemon starts, in one
//! transaction: nothing of an earlier run survives. A third (`exposed`) ends with the daemon. A guest's port is one element of one set, added
//! before its TAP device forwards anything and removed when its [`Port`] guard is dropped.
//! docs/networking.md shows the rules in nft's own words.
//!
//! Netlink answers from the kernel at once; calls are made on whatever thread holds the guard.

mod exposed;
mod inspect;
mod rule;

use std::ffi::CString;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use netlink_bindings::nftables::{Chained, Nfgenmsg};
use netlink_bindings::traits::Pusher;
use netlink_socket2::NetlinkSocket;

use crate::model::Mac;
use crate::net::{NetConfig, NetError};
use rule::{Protocol, Rule, Verdict};

pub use exposed::{EXPOSED_MAX, Forward};
pub use inspect::{OpenPort, dropping_chain, open_ports, probe, remove};

/// `NFPROTO_INET` and `NFPROTO_BRIDGE` (linux/netfilter.h).
const INET: u8 = 1;
const BRIDGE: u8 = 7;
/// `NFNL_SUBSYS_NFTABLES` (linux/netfilter/nfnetlink.h): whom a batch is for.
const SUBSYSTEM: u16 = 10;
/// What the step is called in errors.
const SET_UP_STEP: &str = "set up nftables (are the modules nf_tables, nft_masq, nft_ct, nft_fib_inet, nft_nat and nft_reject_inet there?)";
/// Sequence numbers put aside for one transaction: more than it has messages.
const MESSAGES_MAX: u32 = 64;

/// Hooks of the inet family (linux/netfilter.h) and of the bridge (linux/netfilter_bridge.h).
const PREROUTING: u32 = 0;
const INPUT: u32 = 1;
const FORWARD: u32 = 2;
const POSTROUTING: u32 = 4;
/// `NF_IP_PRI_FILTER` and `NF_IP_PRI_NAT_SRC`; `NF_BR_PRI_NAT_DST_BRIDGED` (first in the bridge).
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_SOURCE_NAT: i32 = 100;
const PRIORITY_FIRST: i32 = -300;

/// The set of (TAP device, Ethernet address, IPv4 address) that guests may send from.
const PORTS: &std::ffi::CStr = c"ports";
/// Bytes of its key: interface name, Ethernet address padded to registers, IPv4 address.
const PORT_KEY_LEN: usize = 16 + 8 + 4;
/// How `nft list` shows the key: ifname . ether_addr . ipv4_addr, six bits each (nftables'
/// datatype numbers, concatenated as its documentation of `typeof` says).
const PORT_KEY_TYPE: u32 = (41 << 12) | (9 << 6) | 7;

/// The rules of one bridge. Cheap to clone.
#[derive(Clone)]
pub struct Firewall {
    socket: Arc<Mutex<NetlinkSocket>>,
    /// Table name, in both families.
    table: Arc<CString>,
    /// The table of what is exposed; it ends with this process, and has its number so that a
    /// successor may have its own beside it.
    exposed: Arc<CString>,
}

impl std::fmt::Debug for Firewall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Firewall").field("table", &self.table).finish_non_exhaustive()
    }
}

/// A guest's right to send. Dropping it takes the right away.
#[derive(Debug)]
pub struct Port {
    firewall: Firewall,
    key: [u8; PORT_KEY_LEN],
}

impl Drop for Port {
    fn drop(&mut self) {
        let key = self.key;
        let removed = self.firewall.transact(|batch, table| {
            batch
                .request()
                .op_delsetelem_do(&family(BRIDGE))
                .encode()
                .push_table(table)
                .push_set(PORTS)
                .nested_elements()
                .nested_elem()
                .nested_key()
                .push_value(&key);
        });
        if let Err(error) = removed {
            // A new start of the daemon replaces the table.
            tracing::error!(%error, "a guest's port stays in the firewall");
        }
    }
}

fn family(nfgen_family: u8) -> Nfgenmsg {
    Nfgenmsg { nfgen_family, ..Nfgenmsg::new() }
}

impl Firewall {
    /// Replaces the rules of `config.bridge` by fresh ones, atomically.
    ///
    /// # Errors
    /// The kernel has no nf_tables, or a part of it is missing.
    pub fn set_up(config: &NetConfig) -> Result<Firewall, NetError> {
        let firewall = Firewall::named(&config.bridge)?;
        let made = firewall.transact(|batch, _| firewall.lay_down(batch, config));
        made.map_err(|source| NetError::Host { step: SET_UP_STEP.to_owned(), source })?;
        Ok(firewall)
    }

    /// The rules of this bridge, whether or not they are there.
    fn named(bridge: &str) -> Result<Firewall, NetError> {
        let name = |name: String| {
            let name = CString::new(name);
            name.map(Arc::new)
                .map_err(|_| NetError::Config("a bridge's name has no NUL".to_owned()))
        };
        let table = name(format!("volant_{bridge}"))?;
        let exposed = name(format!("volant_{bridge}_{}", std::process::id()))?;
        Ok(Firewall { socket: Arc::new(Mutex::new(NetlinkSocket::new())), table, exposed })
    }

    fn lay_down(&self, batch: &mut Chained<'static>, config: &NetConfig) {
        let table = &self.table;
        for nfgen_family in [INET, BRIDGE] {
            replace_table(batch, table, nfgen_family);
        }
        let mut inet = Table { batch, name: table, family: INET };
        input_chain(&mut inet, &config.bridge);
        forward_chain(&mut inet, config);
        source_nat_chain(&mut inet, config);
        let mut bridge = Table { batch: inet.batch, name: table, family: BRIDGE };
        bridge.add_ports_set();
        identity_chain(&mut bridge);
        exposed::add_table(bridge.batch, &self.exposed, &config.bridge);
    }

    /// Lets the guest behind the TAP device `tap` send as `mac` and `ip`, and as nobody else.
    ///
    /// # Errors
    /// The kernel's answer; nothing has changed then.
    pub fn open_port(&self, tap: &str, mac: Mac, ip: Ipv4Addr) -> Result<Port, NetError> {
        let key = port_key(tap, mac, ip);
        let added = self.transact(|batch, table| {
            batch
                .request()
                .set_create()
                .op_newsetelem_do(&family(BRIDGE))
                .encode()
                .push_table(table)
                .push_set(PORTS)
                .nested_elements()
                .nested_elem()
                .nested_key()
                .push_value(&key);
        });
        added.map_err(|source| NetError::Host {
            step: format!("let {tap} into the firewall"),
            source,
        })?;
        Ok(Port { firewall: self.clone(), key })
    }

    /// One transaction: all that `build` adds takes effect, or nothing.
    fn transact(
        &self,
        build: impl FnOnce(&mut Chained<'static>, &std::ffi::CStr),
    ) -> std::io::Result<()> {
        self.transact_many(MESSAGES_MAX, build)
    }

    /// The same with at most so many messages.
    fn transact_many(
        &self,
        messages_max: u32,
        build: impl FnOnce(&mut Chained<'static>, &std::ffi::CStr),
    ) -> std::io::Result<()> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let mut whom = Nfgenmsg::new();
        whom.set_res_id(SUBSYSTEM);
        let mut batch = Chained::new(socket.reserve_seq(messages_max));
        batch.request().op_batch_begin_do(&whom);
        build(&mut batch, &self.table);
        batch.request().op_batch_end_do(&whom);
        let answered = socket.request_chained(&batch.finalize())?.recv_all();
        answered.map_err(|error| std::io::Error::new(error.as_io_error().kind(), error))
    }
}

fn port_key(tap: &str, mac: Mac, ip: Ipv4Addr) -> [u8; PORT_KEY_LEN] {
    let mut key = [0; PORT_KEY_LEN];
    // At most 15 bytes: the kernel took the name.
    for (slot, byte) in key[..15].iter_mut().zip(tap.bytes()) {
        *slot = byte;
    }
    key[16..22].copy_from_slice(&mac.0);
    key[24..].copy_from_slice(&ip.octets());
    key
}

/// Add, delete, add: works whether or not the table is there, on every kernel.
fn replace_table(batch: &mut Chained<'static>, table: &std::ffi::CStr, nfgen_family: u8) {
    batch.request().set_create().op_newtable_do(&family(nfgen_family)).encode().push_name(table);
    batch.request().op_deltable_do(&family(nfgen_family)).encode().push_name(table);
    batch.request().set_create().op_newtable_do(&family(nfgen_family)).encode().push_name(table);
}

/// A table that is being filled.
struct Table<'a> {
    batch: &'a mut Chained<'static>,
    name: &'a std::ffi::CStr,
    family: u8,
}

impl Table<'_> {
    fn add_chain(&mut self, name: &std::ffi::CStr, kind: &std::ffi::CStr, hook: u32, order: i32) {
        self.batch
            .request()
            .set_create()
            .op_newchain_do(&family(self.family))
            .encode()
            .push_table(self.name)
            .push_name(name)
            .push_type(kind)
            .nested_hook()
            .push_num(hook)
            .push_priority(order);
    }

    /// A chain that others jump to.
    fn add_plain_chain(&mut self, name: &std::ffi::CStr) {
        self.batch
            .request()
            .set_create()
            .op_newchain_do(&family(self.family))
            .encode()
            .push_table(self.name)
            .push_name(name);
    }

    fn add_rule(&mut self, chain: &std::ffi::CStr, build: impl FnOnce(Rule) -> Rule) {
        let request = self.batch.request().set_create().set_append();
        let mut expressions = request
            .op_newrule_do(&family(self.family))
            .into_encoder()
            .push_table(self.name)
            .push_chain(chain)
            .nested_expressions();
        expressions.as_vec_mut().extend_from_slice(&build(Rule::default()).into_bytes());
    }

    fn add_ports_set(&mut self) {
        let key_len = u32::try_from(PORT_KEY_LEN).unwrap_or(u32::MAX);
        self.batch
            .request()
            .set_create()
            .op_newset_do(&family(self.family))
            .encode()
            .push_table(self.name)
            .push_name(PORTS)
            .push_flags(0)
            .push_key_type(PORT_KEY_TYPE)
            .push_key_len(key_len)
            .push_id(1);
    }
}

/// Guests reach no service of the host, its API included; the host may talk to them, and they may
/// ping it.
fn input_chain(table: &mut Table<'_>, bridge: &str) {
    let chain = c"input";
    table.add_chain(chain, c"filter", INPUT, PRIORITY_FILTER);
    table.add_rule(chain, |rule| rule.comes_from(bridge).answers().verdict(Verdict::Accept));
    table.add_rule(chain, |rule| rule.comes_from(bridge).pings().verdict(Verdict::Accept));
    table.add_rule(chain, |rule| rule.comes_from(bridge).count().reject());
}

/// Guests reach the outside, but neither each other by way of the host nor link-local addresses:
/// on a cloud machine 169.254.169.254 would hand them the host's credentials. Nobody outside
/// reaches guests, except with answers and by the ports that are exposed.
fn forward_chain(table: &mut Table<'_>, config: &NetConfig) {
    let (chain, bridge) = (c"forward", config.bridge.as_str());
    table.add_chain(chain, c"filter", FORWARD, PRIORITY_FILTER);
    let link_local = Ipv4Addr::new(169, 254, 0, 0);
    table.add_rule(chain, |rule| rule.comes_from(bridge).goes_to(bridge).count().reject());
    table.add_rule(chain, |rule| {
        rule.comes_from(bridge).destination_in(link_local, 16).count().reject()
    });
    table.add_rule(chain, |rule| rule.goes_to(bridge).answers().verdict(Verdict::Accept));
    exposed::forward_rule(table, chain, config);
    table.add_rule(chain, |rule| rule.goes_to(bridge).count().reject());
}

fn source_nat_chain(table: &mut Table<'_>, config: &NetConfig) {
    let chain = c"postrouting";
    table.add_chain(chain, c"nat", POSTROUTING, PRIORITY_SOURCE_NAT);
    let (network, prefix_len) = (config.subnet.network, config.subnet.prefix_len);
    table.add_rule(chain, |rule| {
        rule.source_in(network, prefix_len).goes_elsewhere_than(&config.bridge).masquerade()
    });
}

/// What comes from a guest carries the guest's own addresses, or is dropped. IPv4 and ARP only.
fn identity_chain(table: &mut Table<'_>) {
    let chain = c"prerouting";
    table.add_chain(chain, c"filter", PREROUTING, PRIORITY_FIRST);
    let guests = |rule: Rule| rule.comes_from_prefix(super::TAP_PREFIX);
    table.add_rule(chain, |rule| {
        guests(rule).protocol(Protocol::Ipv4).sender_in(PORTS).verdict(Verdict::Accept)
    });
    table.add_rule(chain, |rule| {
        guests(rule).protocol(Protocol::Arp).arp_sender_in(PORTS).verdict(Verdict::Accept)
    });
    table.add_rule(chain, |rule| guests(rule).count().verdict(Verdict::Drop));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_holds_each_part_at_the_start_of_a_register() {
        let key = port_key("vt12", Mac([2, 0x76, 10, 0, 0, 9]), Ipv4Addr::new(10, 0, 0, 9));
        assert_eq!(&key[..5], b"vt12\0");
        assert_eq!(&key[16..24], [2, 0x76, 10, 0, 0, 9, 0, 0]);
        assert_eq!(&key[24..], [10, 0, 0, 9]);
        assert_eq!(port_key("a-name-that-is-too-long", Mac([0; 6]), Ipv4Addr::LOCALHOST)[15], 0);
    }
}
