//! Ports of the host that are set aside: nobody else gets them, and nobody is listened to.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with};

use crate::model::Transport;

/// A port that is set aside until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    _socket: OwnedFd,
    /// Which one.
    pub port: u16,
}

/// Sets a port aside; 0 means any that is free.
///
/// # Errors
/// `AddrInUse` when another program has it, `AddrNotAvailable` when the address is not the host's.
pub fn reserve(transport: Transport, ip: Ipv4Addr, port: u16) -> io::Result<Reservation> {
    let kind = match transport {
        Transport::Tcp => SocketType::STREAM,
        Transport::Udp => SocketType::DGRAM,
    };
    let socket = socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrV4::new(ip, port))?;
    let bound = SocketAddrV4::try_from(getsockname(&socket)?).map_err(io::Error::other)?;
    Ok(Reservation { _socket: socket, port: bound.port() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_one_holder() {
        let any = reserve(Transport::Tcp, Ipv4Addr::UNSPECIFIED, 0).unwrap();
        let taken = reserve(Transport::Tcp, Ipv4Addr::LOCALHOST, any.port).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        assert!(std::net::TcpListener::bind(("127.0.0.1", any.port)).is_err());
        assert!(std::net::TcpStream::connect(("127.0.0.1", any.port)).is_err(), "it listens");
        let port = any.port;
        drop(any);
        assert_eq!(reserve(Transport::Tcp, Ipv4Addr::UNSPECIFIED, port).unwrap().port, port);
        let foreign = reserve(Transport::Udp, Ipv4Addr::new(192, 0, 2, 1), 0).unwrap_err();
        assert_eq!(foreign.kind(), io::ErrorKind::AddrNotAvailable);
    }
}
