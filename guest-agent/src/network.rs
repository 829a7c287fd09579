//! Host name, addresses, name servers, clock: what the host tells at boot.
#![expect(unsafe_code, reason = "interface ioctls")]

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketType, socket};
use volant_protocol::{GuestConfig, NetworkConfig};

/// Applies everything.
///
/// # Errors
/// The first step that the kernel refuses.
pub fn apply(config: &GuestConfig) -> io::Result<()> {
    let seconds = i64::try_from(config.unix_time_ns / 1_000_000_000).unwrap_or(i64::MAX);
    let nanos = i64::try_from(config.unix_time_ns % 1_000_000_000).unwrap_or(0);
    if 0 < seconds {
        let now = rustix::time::Timespec { tv_sec: seconds, tv_nsec: nanos };
        rustix::time::clock_settime(rustix::time::ClockId::Realtime, now)?;
    }
    rustix::system::sethostname(config.hostname.as_bytes())?;
    let control = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    up(&control, "lo")?;
    if let Some(network) = &config.network {
        configure(&control, network)?;
    }
    Ok(())
}

fn configure(control: &OwnedFd, network: &NetworkConfig) -> io::Result<()> {
    let mask = u32::MAX.checked_shl(32 - u32::from(network.prefix_len.min(32))).unwrap_or(0);
    set_address(control, libc::SIOCSIFADDR, network.address)?;
    set_address(control, libc::SIOCSIFNETMASK, Ipv4Addr::from(mask))?;
    up(control, "eth0")?;
    add_default_route(control, network.gateway)?;
    let servers: String =
        network.dns.iter().map(|server| format!("nameserver {server}\n")).collect();
    replace("/etc/resolv.conf", &servers)
}

/// Writes what an image's programs look names up in: its own files know nothing of this guest.
///
/// # Errors
/// A file cannot be written.
pub fn write_names(config: &GuestConfig) -> io::Result<()> {
    let name = &config.hostname;
    let own = config.network.as_ref().map(|network| format!("{}\t{name}\n", network.address));
    let hosts = format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{}",
        own.unwrap_or_default()
    );
    replace("/etc/hosts", &hosts)?;
    replace("/etc/hostname", &format!("{name}\n"))
}

/// Puts a file in place of what is there: an image may have a link there, to where nothing is.
fn replace(path: &str, text: &str) -> io::Result<()> {
    let _ = std::fs::create_dir("/etc");
    let _ = std::fs::remove_file(path);
    std::fs::write(path, text)
}

fn sockaddr(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (slot, byte) in data[2..6].iter_mut().zip(address.octets()) {
        *slot = byte.cast_signed();
    }
    let family = libc::sa_family_t::try_from(libc::AF_INET).unwrap_or(0);
    libc::sockaddr { sa_family: family, sa_data: data }
}

fn request(name: &str) -> libc::ifreq {
    // SAFETY: ifreq is plain data; all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().take(15).zip(name.bytes()) {
        *slot = byte.cast_signed();
    }
    request
}

fn ioctl<T>(control: &OwnedFd, number: libc::Ioctl, argument: &mut T) -> io::Result<()> {
    // SAFETY: each caller passes the struct that belongs to the number, alive for the call.
    let result = unsafe { libc::ioctl(control.as_raw_fd(), number, std::ptr::from_mut(argument)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn set_address(control: &OwnedFd, number: libc::Ioctl, address: Ipv4Addr) -> io::Result<()> {
    let mut request = request("eth0");
    request.ifr_ifru.ifru_addr = sockaddr(address);
    ioctl(control, number, &mut request)
}

fn up(control: &OwnedFd, name: &str) -> io::Result<()> {
    let mut request = request(name);
    let flags = libc::IFF_UP | libc::IFF_RUNNING;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).unwrap_or(0);
    ioctl(control, libc::SIOCSIFFLAGS, &mut request)
}

fn add_default_route(control: &OwnedFd, gateway: Ipv4Addr) -> io::Result<()> {
    // SAFETY: rtentry is plain data; all zeroes is a valid value.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = sockaddr(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = sockaddr(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = sockaddr(gateway);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    match ioctl(control, libc::SIOCADDRT, &mut route) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}
