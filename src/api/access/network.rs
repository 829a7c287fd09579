//! Networks that may connect.

use std::net::IpAddr;

/// Networks as address and length of their prefix; none means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkList(Vec<(IpAddr, u32)>);

/// A text that is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network; write 192.0.2.0/24, 2001:db8::/32 or one address")]
pub struct InvalidNetwork(pub String);

impl NetworkList {
    /// Reads `192.0.2.0/24`, `2001:db8::/32`, or single addresses.
    ///
    /// # Errors
    /// The first that is none.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<NetworkList, InvalidNetwork> {
        let one = |text: &T| {
            let text = text.as_ref();
            let invalid = || InvalidNetwork(text.to_owned());
            let (address, length) = match text.split_once('/') {
                Some((address, length)) => (address, Some(length)),
                None => (text, None),
            };
            let address: IpAddr = address.parse().map_err(|_| invalid())?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            let length = match length {
                Some(length) => length.parse().map_err(|_| invalid())?,
                None => most,
            };
            if most < length { Err(invalid()) } else { Ok((address, length)) }
        };
        texts.iter().map(one).collect::<Result<_, _>>().map(NetworkList)
    }

    /// Whether the address may connect. An IPv4 address in IPv6 form is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let holds = |(network, length): &(IpAddr, u32)| match (network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = u32::from(*network) ^ u32::from(address);
                differing.checked_shr(32 - length).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = u128::from(*network) ^ u128::from(address);
                differing.checked_shr(128 - length).unwrap_or(0) == 0
            }
            _ => false,
        };
        self.0.is_empty() || self.0.iter().any(holds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_addresses() {
        let table = [
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8:9::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("127.0.0.0/8", "::ffff:127.0.0.1", true),
        ];
        for (network, address, held) in table {
            let list = NetworkList::parse(&[network]).unwrap();
            assert_eq!(list.contains(address.parse().unwrap()), held, "{network} {address}");
        }
        assert!(NetworkList::default().contains("203.0.113.9".parse().unwrap()));
        for text in ["", "x", "192.0.2.0/33", "192.0.2.0/", "2001:db8::/129", "192.0.2/24"] {
            assert!(NetworkList::parse(&[text]).is_err(), "{text:?} was taken");
        }
    }
}
