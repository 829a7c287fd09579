//! One rule as a list of nf_tables expressions, with methods named for what they match.
//!
//! Registers (linux/netfilter/nf_tables.h): names and comparisons use `VALUE`; the key of the ports
//! set is put together in the registers from `KEY` on, one part after another.

use std::ffi::CStr;
use std::net::Ipv4Addr;

use netlink_bindings::nftables::{
    CmpOps, CtKeys, FibFlags, MetaKeys, PayloadBase, PushExprAttrs, PushExprListAttrs, Registers,
    RejectInetCode, RejectTypes, VerdictCode,
};
use netlink_bindings::traits::Pusher;

use crate::model::Transport;

const VALUE: u32 = Registers::Reg3208 as u32;
const KEY: u32 = Registers::Reg3200 as u32;
const KEY_ETHER: u32 = Registers::Reg3204 as u32;
const KEY_IP: u32 = Registers::Reg3206 as u32;

/// `NFPROTO_IPV4`.
const IPV4: u8 = 2;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// `NFT_FIB_RESULT_ADDRTYPE` (linux/netfilter/nf_tables.h; the package counts from 0), and
/// `RTN_LOCAL` (linux/rtnetlink.h).
const FIB_ADDRESS_TYPE: u32 = 3;
const ROUTE_LOCAL: u32 = 2;
/// `NFT_NAT_DNAT`.
const NAT_DESTINATION: u32 = 1;
/// `IPS_DST_NAT` (linux/netfilter/nf_conntrack_common.h).
const DESTINATION_TRANSLATED: u32 = 1 << 5;
/// RFC 792.
const ECHO_REQUEST: u8 = 8;
/// `NF_CT_STATE_BIT` of established and related (linux/netfilter/nf_conntrack_common.h).
const ESTABLISHED_OR_RELATED: u32 = (1 << 1) | (1 << 2);

/// An Ethernet frame's payload.
#[derive(Clone, Copy, Debug)]
pub enum Protocol {
    /// EtherType 0x0800.
    Ipv4,
    /// EtherType 0x0806.
    Arp,
}

/// What becomes of a packet that matched.
#[derive(Clone, Copy, Debug)]
pub enum Verdict {
    /// It goes on.
    Accept,
    /// It vanishes.
    Drop,
}

/// Expressions so far; a packet must pass all of them, in order.
#[derive(Debug, Default)]
pub struct Rule {
    bytes: Vec<u8>,
}

type Expression<'a> = PushExprAttrs<PushExprListAttrs<&'a mut Vec<u8>>>;

impl Rule {
    /// The encoded list.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn add(mut self, build: impl FnOnce(Expression<'_>)) -> Rule {
        build(PushExprListAttrs::new(&mut self.bytes).nested_elem());
        self
    }

    fn meta(self, key: MetaKeys, register: u32) -> Rule {
        self.add(|expression| {
            expression.nested_data_meta().push_key(key as u32).push_dreg(register);
        })
    }

    fn payload(self, base: PayloadBase, offset: u32, len: u32, register: u32) -> Rule {
        self.add(|expression| {
            expression
                .nested_data_payload()
                .push_dreg(register)
                .push_base(base as u32)
                .push_offset(offset)
                .push_len(len);
        })
    }

    fn compare(self, op: CmpOps, value: &[u8]) -> Rule {
        self.add(|expression| {
            expression
                .nested_data_cmp()
                .push_sreg(VALUE)
                .push_op(op as u32)
                .nested_data()
                .push_value(value);
        })
    }

    fn mask(self, mask: [u8; 4]) -> Rule {
        self.add(|expression| {
            expression
                .nested_data_bitwise()
                .push_sreg(VALUE)
                .push_dreg(VALUE)
                .push_len(4)
                .nested_mask()
                .push_value(&mask)
                .end_nested()
                .nested_xor()
                .push_value(&[0; 4]);
        })
    }

    fn name(self, key: MetaKeys, op: CmpOps, name: &str) -> Rule {
        let mut padded = [0; 16];
        for (slot, byte) in padded[..15].iter_mut().zip(name.bytes()) {
            *slot = byte;
        }
        self.meta(key, VALUE).compare(op, &padded)
    }

    /// The packet came in by this interface.
    pub fn comes_from(self, interface: &str) -> Rule {
        self.name(MetaKeys::Iifname, CmpOps::Eq, interface)
    }

    /// The packet came in by an interface whose name begins so.
    pub fn comes_from_prefix(self, prefix: &str) -> Rule {
        self.meta(MetaKeys::Iifname, VALUE).compare(CmpOps::Eq, prefix.as_bytes())
    }

    /// The packet came in by any other interface.
    pub fn comes_from_elsewhere_than(self, interface: &str) -> Rule {
        self.name(MetaKeys::Iifname, CmpOps::Neq, interface)
    }

    /// The packet leaves by this interface.
    pub fn goes_to(self, interface: &str) -> Rule {
        self.name(MetaKeys::Oifname, CmpOps::Eq, interface)
    }

    /// The packet leaves by any other interface.
    pub fn goes_elsewhere_than(self, interface: &str) -> Rule {
        self.name(MetaKeys::Oifname, CmpOps::Neq, interface)
    }

    /// The packet belongs, or is related, to a connection seen before.
    pub fn answers(self) -> Rule {
        self.add(|expression| {
            expression.nested_data_ct().push_key(CtKeys::State as u32).push_dreg(VALUE);
        })
        .mask(ESTABLISHED_OR_RELATED.to_ne_bytes())
        .compare(CmpOps::Neq, &[0; 4])
    }

    /// Someone pings.
    pub fn pings(self) -> Rule {
        self.ipv4()
            .meta(MetaKeys::L4Proto, VALUE)
            .compare(CmpOps::Eq, &[ICMP])
            .payload(PayloadBase::TransportHeader, 0, 1, VALUE)
            .compare(CmpOps::Eq, &[ECHO_REQUEST])
    }

    fn ipv4(self) -> Rule {
        self.meta(MetaKeys::Nfproto, VALUE).compare(CmpOps::Eq, &[IPV4])
    }

    fn address_in(self, offset: u32, network: Ipv4Addr, prefix_len: u8) -> Rule {
        // Bits of the host are left out of both sides: 127.0.0.1/8 is 127.0.0.0/8.
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix_len)).unwrap_or(0);
        self.ipv4()
            .payload(PayloadBase::NetworkHeader, offset, 4, VALUE)
            .mask(mask.to_be_bytes())
            .compare(CmpOps::Eq, &(u32::from(network) & mask).to_be_bytes())
    }

    /// The IPv4 source (RFC 791, octet 12) is in the subnet.
    pub fn source_in(self, network: Ipv4Addr, prefix_len: u8) -> Rule {
        self.address_in(12, network, prefix_len)
    }

    /// The IPv4 destination (octet 16) is in the subnet.
    pub fn destination_in(self, network: Ipv4Addr, prefix_len: u8) -> Rule {
        self.address_in(16, network, prefix_len)
    }

    /// The packet is for an address of the host.
    pub fn for_host(self) -> Rule {
        self.ipv4()
            .add(|expression| {
                expression
                    .nested_data_fib()
                    .push_dreg(VALUE)
                    .push_result(FIB_ADDRESS_TYPE)
                    .push_flags(FibFlags::Daddr as u32);
            })
            .compare(CmpOps::Eq, &ROUTE_LOCAL.to_ne_bytes())
    }

    /// The packet is for this port (both transports have it at octet 2).
    pub fn for_port(self, transport: Transport, port: u16) -> Rule {
        let protocol = match transport {
            Transport::Tcp => TCP,
            Transport::Udp => UDP,
        };
        self.meta(MetaKeys::L4Proto, VALUE)
            .compare(CmpOps::Eq, &[protocol])
            .payload(PayloadBase::TransportHeader, 2, 2, VALUE)
            .compare(CmpOps::Eq, &port.to_be_bytes())
    }

    /// The connection's destination was changed on its way here.
    pub fn translated(self) -> Rule {
        self.add(|expression| {
            expression.nested_data_ct().push_key(CtKeys::Status as u32).push_dreg(VALUE);
        })
        .mask(DESTINATION_TRANSLATED.to_ne_bytes())
        .compare(CmpOps::Neq, &[0; 4])
    }

    fn load(self, register: u32, value: &[u8]) -> Rule {
        self.add(|expression| {
            expression.nested_data_immediate().push_dreg(register).nested_data().push_value(value);
        })
    }

    /// Ends the rule: the connection goes to this address and port.
    pub fn lead_to(self, ip: Ipv4Addr, port: u16) -> Rule {
        self.load(VALUE, &ip.octets()).load(KEY, &port.to_be_bytes()).add(|expression| {
            expression
                .nested_data_nat()
                .push_type(NAT_DESTINATION)
                .push_family(u32::from(IPV4))
                .push_reg_addr_min(VALUE)
                .push_reg_proto_min(KEY);
        })
    }

    /// The other chain's rules are next.
    pub fn jump(self, chain: &CStr) -> Rule {
        self.add(|expression| {
            expression
                .nested_data_immediate()
                .push_dreg(Registers::RegVerdict as u32)
                .nested_data()
                .nested_verdict()
                .push_code(VerdictCode::Jump as u32)
                .push_chain(chain);
        })
    }

    /// The frame carries this.
    pub fn protocol(self, protocol: Protocol) -> Rule {
        let ethertype: [u8; 2] = match protocol {
            Protocol::Ipv4 => [0x08, 0x00],
            Protocol::Arp => [0x08, 0x06],
        };
        self.meta(MetaKeys::Protocol, VALUE).compare(CmpOps::Eq, &ethertype)
    }

    /// Interface, Ethernet source and IPv4 source are an element of the set.
    pub fn sender_in(self, set: &CStr) -> Rule {
        self.meta(MetaKeys::Iifname, KEY)
            .payload(PayloadBase::LinkLayerHeader, 6, 6, KEY_ETHER)
            .payload(PayloadBase::NetworkHeader, 12, 4, KEY_IP)
            .lookup(set)
    }

    /// Interface, both Ethernet sources (the frame's and ARP's own, RFC 826) and the sender's IPv4
    /// address are an element of the set.
    pub fn arp_sender_in(self, set: &CStr) -> Rule {
        self.meta(MetaKeys::Iifname, KEY)
            .payload(PayloadBase::LinkLayerHeader, 6, 6, KEY_ETHER)
            .payload(PayloadBase::NetworkHeader, 14, 4, KEY_IP)
            .lookup(set)
            .payload(PayloadBase::NetworkHeader, 8, 6, KEY_ETHER)
            .lookup(set)
    }

    fn lookup(self, set: &CStr) -> Rule {
        self.add(|expression| {
            let mut lookup = expression.nested_data_lookup().push_set(set);
            let bytes = lookup.as_vec_mut();
            // NFTA_LOOKUP_SREG by hand: the package's number for it is that of another attribute.
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes.extend([8u16, 2].map(u16::to_ne_bytes).concat());
            bytes.extend(KEY.to_be_bytes());
        })
    }

    /// Counts what got here, for whoever looks with `nft list`.
    pub fn count(self) -> Rule {
        self.add(|expression| {
            expression.nested_data_counter();
        })
    }

    /// Ends the rule.
    pub fn verdict(self, verdict: Verdict) -> Rule {
        let code = match verdict {
            Verdict::Accept => VerdictCode::Accept,
            Verdict::Drop => VerdictCode::Drop,
        };
        self.add(|expression| {
            expression
                .nested_data_immediate()
                .push_dreg(Registers::RegVerdict as u32)
                .nested_data()
                .nested_verdict()
                .push_code(code as u32);
        })
    }

    /// Ends the rule: the sender is told that this is forbidden.
    pub fn reject(self) -> Rule {
        self.add(|expression| {
            expression
                .nested_data_reject()
                .push_type(RejectTypes::IcmpxUnreach as u32)
                .push_icmp_code(RejectInetCode::IcmpxAdminProhibited as u8);
        })
    }

    /// Ends the rule: the packet gets the address of the interface it leaves by.
    pub fn masquerade(self) -> Rule {
        self.add(|expression| {
            expression.push_name(c"masq");
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_the_network_stands_for_the_network() {
        let rule = |ip: [u8; 4]| Rule::default().source_in(ip.into(), 8).into_bytes();
        assert_eq!(rule([127, 0, 0, 1]), rule([127, 0, 0, 0]));
        assert_ne!(rule([127, 0, 0, 1]), rule([126, 0, 0, 0]));
    }
}
