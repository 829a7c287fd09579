//! Networks, and which address a request comes from.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Networks as address and length of their prefix.
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

    /// Whether it names none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them holds the address. An IPv4 address in IPv6 form is the IPv4 address.
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
        self.0.iter().any(holds)
    }
}

/// The client's address: the connection's own, unless that is a trusted proxy's. Proxies append to
/// X-Forwarded-For, so it is read from its end up to the first address that no trusted proxy has; what
/// stands before it is the client's own claim.
pub fn client_address(peer: IpAddr, trusted: &NetworkList, headers: &HeaderMap) -> IpAddr {
    let mut client = peer.to_canonical();
    let values = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let hops: Vec<&str> = values.flat_map(|value| value.split(',')).map(str::trim).collect();
    for hop in hops.iter().rev() {
        let with_port = || hop.parse().map(|address: SocketAddr| address.ip());
        match hop.parse::<IpAddr>().or_else(|_| with_port()) {
            Ok(address) if trusted.contains(client) => client = address.to_canonical(),
            _ => break,
        }
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_tell_the_client() {
        let trusted = NetworkList::parse(&["192.0.2.0/24", "2001:db8::/32"]).unwrap();
        let table = [
            ("203.0.113.9", &[][..], "203.0.113.9"),
            ("203.0.113.9", &["127.0.0.1"], "203.0.113.9"),
            ("192.0.2.1", &[], "192.0.2.1"),
            ("192.0.2.1", &["203.0.113.9"], "203.0.113.9"),
            ("192.0.2.1", &["127.0.0.1, 203.0.113.9"], "203.0.113.9"),
            ("192.0.2.1", &["127.0.0.1", "203.0.113.9,192.0.2.7"], "203.0.113.9"),
            ("::ffff:192.0.2.1", &["203.0.113.9:4711"], "203.0.113.9"),
            ("2001:db8::1", &["[2001:db9::7]:80"], "2001:db9::7"),
            ("192.0.2.1", &["203.0.113.9, unknown"], "192.0.2.1"),
        ];
        for (peer, values, client) in table {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(FORWARDED_FOR, value.parse().unwrap());
            }
            let seen = client_address(peer.parse().unwrap(), &trusted, &headers);
            assert_eq!(seen, client.parse::<IpAddr>().unwrap(), "{peer} {values:?}");
        }
        let headers = HeaderMap::from_iter([(FORWARDED_FOR, "127.0.0.1".parse().unwrap())]);
        let none = NetworkList::default();
        let peer = "203.0.113.9".parse().unwrap();
        assert_eq!(client_address(peer, &none, &headers), peer, "no proxy is trusted by itself");
    }

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
        assert!(!NetworkList::default().contains("203.0.113.9".parse().unwrap()));
        for text in ["", "x", "192.0.2.0/33", "192.0.2.0/", "2001:db8::/129", "192.0.2/24"] {
            assert!(NetworkList::parse(&[text]).is_err(), "{text:?} was taken");
        }
    }
}
