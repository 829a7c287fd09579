//! The host's network: bridge, TAP devices, addresses, firewall. Remembers no leases.

mod firewall;
mod link;
mod reserve;
mod subnet;

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::model::{Mac, VmId};
use crate::sys::{self, crash};

pub use firewall::{EXPOSED_MAX, Forward, OpenPort, dropping_chain, open_ports, probe};
pub use reserve::{Reservation, reserve};
pub use subnet::Subnet;

/// A failure to change the host's network.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The host refused a step.
    #[error("{step}")]
    Host {
        /// The attempted step with its subject.
        step: String,
        /// The host's answer.
        #[source]
        source: std::io::Error,
    },
    /// The subnet or bridge configured cannot be used; the text says why.
    #[error("{0}")]
    Config(String),
}

/// What the network is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// Bridge name, at most 15 bytes.
    pub bridge: String,
    /// The guests' subnet.
    pub subnet: Subnet,
    /// The bridge's own address in it: the guests' gateway.
    pub host_ip: Ipv4Addr,
}

/// A guest's place on the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// Gives the TAP device its name (`vt<id>`).
    pub vm_id: VmId,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its IPv4 address.
    pub ip: Ipv4Addr,
}

/// Names of TAP devices begin so; the firewall tells guests' ports by it.
pub const TAP_PREFIX: &str = "vt";

/// A guest's connection to the bridge: a TAP device and the right to send through it.
#[derive(Debug)]
pub struct Attachment {
    /// The device; it lives as long as the descriptor.
    pub tap: OwnedFd,
    /// The right; it ends when this is dropped.
    pub permit: Permit,
}

/// A guest's right to send as itself, taken away on drop.
#[derive(Debug)]
pub struct Permit {
    _port: firewall::Port,
}

/// Handle on the host's network. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Network {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: NetConfig,
    links: link::Links,
    firewall: firewall::Firewall,
    bridge: u32,
}

impl Network {
    /// Makes the bridge, its address, forwarding and the firewall. Idempotent. TAP devices of an
    /// earlier run are gone with its process, its firewall rules are replaced.
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn set_up(config: NetConfig) -> Result<Network, NetError> {
        if !config.subnet.contains(config.host_ip) {
            let text = format!("host_ip {} is not in the subnet", config.host_ip);
            return Err(NetError::Config(text));
        }
        let links = link::Links::open()?;
        // Before the bridge: no frame passes unchecked.
        let firewall = firewall::Firewall::set_up(&config)?;
        let bridge = links.ensure_bridge(&config.bridge).await?;
        links.ensure_address(bridge, config.host_ip, config.subnet.prefix_len).await?;
        links.set_up(bridge).await?;
        write_sysctl("/proc/sys/net/ipv4/ip_forward", "1")?;
        // What the host's loopback sends to an exposed port leaves by the bridge. What guests send
        // to the loopback is refused like all they send to the host.
        write_sysctl(&format!("/proc/sys/net/ipv4/conf/{}/route_localnet", config.bridge), "1")?;
        // Guests get no IPv6; the bridge need not answer to it. Absent where IPv6 is off.
        let _ =
            write_sysctl(&format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", config.bridge), "1");
        Ok(Network { inner: Arc::new(Inner { config, links, firewall, bridge }) })
    }

    /// Replaces all ports of the host that lead to guests, at once.
    ///
    /// # Errors
    /// [`NetError`]; nothing has changed then.
    pub fn set_forwards(&self, forwards: &[Forward]) -> Result<(), NetError> {
        self.inner.firewall.set_forwards(forwards)
    }

    /// The configuration in force.
    pub fn config(&self) -> &NetConfig {
        &self.inner.config
    }

    /// Makes the TAP device, joins it to the bridge (isolated from other guests' ports) and brings
    /// it up, with the right to send as `port`.
    ///
    /// # Errors
    /// [`NetError`]; nothing is left behind.
    pub async fn attach(&self, port: Port) -> Result<Attachment, NetError> {
        let name = tap_name(port.vm_id);
        let tap = sys::tap::open(&name)
            .map_err(|source| NetError::Host { step: format!("make {name}"), source })?;
        crash::point("start.tap");
        let port = self.inner.firewall.open_port(&name, port.mac, port.ip)?;
        crash::point("start.permit");
        let index = self
            .inner
            .links
            .find(&name)
            .await?
            .ok_or_else(|| NetError::Config(format!("{name} was made and is not there")))?;
        let _ = write_sysctl(&format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
        self.inner.links.join(index, self.inner.bridge).await?;
        self.inner.links.isolate(index).await?;
        self.inner.links.set_up(index).await?;
        Ok(Attachment { tap, permit: Permit { _port: port } })
    }
}

/// Removes what [`Network::set_up`] has made for this bridge, the bridge included. What is not there is
/// no error.
///
/// # Errors
/// [`NetError`].
pub async fn tear_down(bridge: &str) -> Result<(), NetError> {
    let links = link::Links::open()?;
    if let Some(index) = links.find(bridge).await? {
        links.delete(index).await?;
    }
    firewall::remove(bridge)
}

/// Name of a VM's TAP device.
fn tap_name(id: VmId) -> String {
    format!("{TAP_PREFIX}{id}")
}

/// A value that is there already is not written: the host may not let this process write.
fn write_sysctl(path: &str, value: &str) -> Result<(), NetError> {
    if std::fs::read_to_string(path).is_ok_and(|current| current.trim() == value) {
        return Ok(());
    }
    std::fs::write(path, value)
        .map_err(|source| NetError::Host { step: format!("write {value} to {path}"), source })
}
