//! Ports of the host that lead to guests: one chain with a rule for each, replaced as a whole.
//!
//! They are in a table of their own, which the kernel removes when the daemon's netlink socket is
//! closed (`NFT_TABLE_F_OWNER`, Linux 5.12): a daemon that is killed leaves no port open.

use std::net::Ipv4Addr;

use netlink_bindings::nftables::{Chained, TableFlags};

use crate::model::Exposure;
use crate::net::firewall::rule::Verdict;
use crate::net::firewall::{Firewall, INET, PREROUTING, PRIORITY_SOURCE_NAT, Table, family};
use crate::net::{NetConfig, NetError};

/// `NF_INET_LOCAL_OUT`.
const OUTPUT: u32 = 3;
/// `NF_IP_PRI_NAT_DST`.
const PRIORITY_DESTINATION_NAT: i32 = -100;
/// The chain of the rules.
const CHAIN: &std::ffi::CStr = c"exposed";
/// Rules at once: all of them travel in one message to the kernel.
pub const EXPOSED_MAX: usize = 256;

/// An exposure of a guest that is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Which ports.
    pub exposure: Exposure,
    /// The guest's address.
    pub guest_ip: Ipv4Addr,
}

/// The table, without a rule for any guest yet. What guests send is not looked at: they do not
/// reach each other by way of the host.
pub(super) fn add_table(batch: &mut Chained<'static>, name: &std::ffi::CStr, bridge: &str) {
    batch
        .request()
        .set_create()
        .op_newtable_do(&family(INET))
        .encode()
        .push_name(name)
        .push_flags(TableFlags::Owner as u32);
    let mut table = Table { batch, name, family: INET };
    table.add_plain_chain(CHAIN);
    let (outside, host) = (c"exposed_outside", c"exposed_host");
    table.add_chain(outside, c"nat", PREROUTING, PRIORITY_DESTINATION_NAT);
    table.add_rule(outside, |rule| rule.comes_from_elsewhere_than(bridge).for_host().jump(CHAIN));
    table.add_chain(host, c"nat", OUTPUT, PRIORITY_DESTINATION_NAT);
    table.add_rule(host, |rule| rule.for_host().jump(CHAIN));
    // What the host's own loopback sends must come back to it.
    let back = c"exposed_back";
    table.add_chain(back, c"nat", super::POSTROUTING, PRIORITY_SOURCE_NAT - 1);
    table
        .add_rule(back, |rule| rule.source_in(Ipv4Addr::LOCALHOST, 8).goes_to(bridge).masquerade());
}

/// What was led to a guest may pass.
pub(super) fn forward_rule(table: &mut Table<'_>, chain: &std::ffi::CStr, config: &NetConfig) {
    table
        .add_rule(chain, |rule| rule.goes_to(&config.bridge).translated().verdict(Verdict::Accept));
}

fn flush(batch: &mut Chained<'static>, table: &std::ffi::CStr) {
    batch.request().op_delrule_do(&family(INET)).encode().push_table(table).push_chain(CHAIN);
}

impl Firewall {
    /// Replaces all forwards.
    ///
    /// # Errors
    /// The kernel's answer; nothing has changed then.
    pub fn set_forwards(&self, forwards: &[Forward]) -> Result<(), NetError> {
        let messages = u32::try_from(forwards.len()).unwrap_or(u32::MAX).saturating_add(3);
        let set = self.transact_many(messages, |batch, _| {
            let name = self.exposed.as_c_str();
            flush(batch, name);
            let mut table = Table { batch, name, family: INET };
            for Forward { exposure, guest_ip } in forwards {
                table.add_rule(CHAIN, |rule| {
                    let any = exposure.host_ip.is_unspecified();
                    let rule = if any { rule } else { rule.destination_in(exposure.host_ip, 32) };
                    rule.for_port(exposure.transport, exposure.host_port)
                        .lead_to(*guest_ip, exposure.guest_port)
                });
            }
        });
        set.map_err(|source| NetError::Host { step: "expose ports".to_owned(), source })
    }
}
