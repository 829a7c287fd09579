//! The host's network: bridge, TAP devices, addresses. Remembers no leases.
//!
//! The nftables rules (NAT, anti-spoofing) are not here yet: see docs/security.md.

mod link;
mod subnet;

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::model::{Mac, VmId};
use crate::sys;

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

/// Handle on the host's network. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Network {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: NetConfig,
    links: link::Links,
    bridge: u32,
}

impl Network {
    /// Makes the bridge, its address and forwarding. Idempotent. TAP devices of an earlier run are
    /// gone with its process.
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn set_up(config: NetConfig) -> Result<Network, NetError> {
        if !config.subnet.contains(config.host_ip) {
            let text = format!("host_ip {} is not in the subnet", config.host_ip);
            return Err(NetError::Config(text));
        }
        let links = link::Links::open()?;
        let bridge = links.ensure_bridge(&config.bridge).await?;
        links.ensure_address(bridge, config.host_ip, config.subnet.prefix_len).await?;
        links.set_up(bridge).await?;
        write_sysctl("/proc/sys/net/ipv4/ip_forward", "1")?;
        // Guests get no IPv6; the bridge need not answer to it. Absent where IPv6 is off.
        let _ =
            write_sysctl(&format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", config.bridge), "1");
        Ok(Network { inner: Arc::new(Inner { config, links, bridge }) })
    }

    /// The configuration in force.
    pub fn config(&self) -> &NetConfig {
        &self.inner.config
    }

    /// Makes the TAP device, joins it to the bridge (isolated from other guests' ports) and brings
    /// it up. The device lives as long as the returned descriptor.
    ///
    /// # Errors
    /// [`NetError`]; nothing is left behind.
    pub async fn attach(&self, port: Port) -> Result<OwnedFd, NetError> {
        let name = tap_name(port.vm_id);
        let tap = sys::tap::open(&name)
            .map_err(|source| NetError::Host { step: format!("make {name}"), source })?;
        let index = self
            .inner
            .links
            .find(&name)
            .await?
            .ok_or_else(|| NetError::Config(format!("{name} was made and is not there")))?;
        let _ = write_sysctl(&format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
        self.inner.links.join(index, self.inner.bridge).await?;
        write_sysctl(&format!("/sys/class/net/{name}/brport/isolated"), "1")?;
        self.inner.links.set_up(index).await?;
        Ok(tap)
    }
}

/// Name of a VM's TAP device.
fn tap_name(id: VmId) -> String {
    format!("vt{id}")
}

fn write_sysctl(path: &str, value: &str) -> Result<(), NetError> {
    std::fs::write(path, value)
        .map_err(|source| NetError::Host { step: format!("write {value} to {path}"), source })
}
