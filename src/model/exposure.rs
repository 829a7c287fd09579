//! A port of a guest that the host answers on.

use std::net::Ipv4Addr;

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// IP protocol 6.
    Tcp,
    /// IP protocol 17.
    Udp,
}

impl Transport {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        }
    }

    /// What a word means.
    pub fn from_word(word: &str) -> Option<Transport> {
        [Transport::Tcp, Transport::Udp].into_iter().find(|transport| transport.as_str() == word)
    }
}

/// A port of the host that leads to one of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// Of both ports.
    pub transport: Transport,
    /// The host's address; all of them if unspecified (0.0.0.0).
    pub host_ip: Ipv4Addr,
    /// The host's port; 0 asks for any, and is never stored.
    pub host_port: u16,
    /// The guest's port.
    pub guest_port: u16,
}
