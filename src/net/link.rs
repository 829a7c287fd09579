//! Links and addresses over rtnetlink.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo};
use rtnetlink::{Handle, LinkBridge, LinkBridgePort, LinkUnspec};
use tokio_util::task::AbortOnDropHandle;

use crate::net::NetError;

/// A netlink connection and the task that serves it.
#[derive(Debug)]
pub struct Links {
    handle: Handle,
    _task: AbortOnDropHandle<()>,
}

fn host(step: String) -> impl FnOnce(rtnetlink::Error) -> NetError {
    move |error| NetError::Host { step, source: std::io::Error::other(error) }
}

/// `NLMSG_ERROR` with this code, negated.
fn is_errno(error: &rtnetlink::Error, errno: i32) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -errno)
}

impl Links {
    /// Opens the connection; needs a tokio runtime.
    ///
    /// # Errors
    /// No netlink socket can be had.
    pub fn open() -> Result<Links, NetError> {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|source| NetError::Host { step: "open netlink".to_owned(), source })?;
        Ok(Links { handle, _task: AbortOnDropHandle::new(tokio::spawn(connection)) })
    }

    /// Index of the interface called `name`.
    ///
    /// # Errors
    /// The kernel's answer, other than "no such device".
    pub async fn find(&self, name: &str) -> Result<Option<u32>, NetError> {
        let mut links = self.handle.link().get().match_name(name.to_owned()).execute();
        match links.try_next().await {
            Ok(link) => Ok(link.map(|link| link.header.index)),
            Err(error) if is_errno(&error, libc::ENODEV) => Ok(None),
            Err(error) => Err(host(format!("find {name}"))(error)),
        }
    }

    /// Makes the bridge unless it exists.
    ///
    /// # Errors
    /// An interface of that name is no bridge.
    pub async fn ensure_bridge(&self, name: &str) -> Result<u32, NetError> {
        if self.find(name).await?.is_none() {
            let message = LinkBridge::new(name).build();
            let made = self.handle.link().add(message).execute().await;
            match made {
                Err(error) if !is_errno(&error, libc::EEXIST) => {
                    return Err(host(format!("make the bridge {name}"))(error));
                }
                _ => {}
            }
        }
        let mut links = self.handle.link().get().match_name(name.to_owned()).execute();
        let link = links.try_next().await.map_err(host(format!("find {name}")))?;
        let link = link.ok_or_else(|| NetError::Config(format!("the bridge {name} vanished")))?;
        let is_bridge = link.attributes.iter().any(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => {
                infos.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Bridge)))
            }
            _ => false,
        });
        if is_bridge {
            Ok(link.header.index)
        } else {
            Err(NetError::Config(format!("the interface {name} exists and is no bridge")))
        }
    }

    /// Gives the interface the address unless it has it.
    ///
    /// # Errors
    /// The kernel's answer.
    pub async fn ensure_address(&self, index: u32, ip: Ipv4Addr, len: u8) -> Result<(), NetError> {
        match self.handle.address().add(index, IpAddr::V4(ip), len).execute().await {
            Err(error) if !is_errno(&error, libc::EEXIST) => {
                Err(host(format!("give the bridge the address {ip}/{len}"))(error))
            }
            _ => Ok(()),
        }
    }

    /// Makes `index` a port of the bridge.
    ///
    /// # Errors
    /// The kernel's answer.
    pub async fn join(&self, index: u32, bridge: u32) -> Result<(), NetError> {
        let message = LinkUnspec::new_with_index(index).controller(bridge).build();
        let joined = self.handle.link().set(message).execute().await;
        joined.map_err(host("join a TAP device to the bridge".to_owned()))
    }

    /// Keeps frames of this port of the bridge from its other isolated ports.
    ///
    /// # Errors
    /// The kernel's answer.
    pub async fn isolate(&self, index: u32) -> Result<(), NetError> {
        let message = LinkBridgePort::new(index).isolated(true).build();
        let changed = self.handle.link().change(message).execute().await;
        changed.map_err(host("isolate a port of the bridge".to_owned()))
    }

    /// Removes the interface.
    ///
    /// # Errors
    /// The kernel's answer.
    pub async fn delete(&self, index: u32) -> Result<(), NetError> {
        let deleted = self.handle.link().del(index).execute().await;
        deleted.map_err(host("remove an interface".to_owned()))
    }

    /// Brings the interface up.
    ///
    /// # Errors
    /// The kernel's answer.
    pub async fn set_up(&self, index: u32) -> Result<(), NetError> {
        let message = LinkUnspec::new_with_index(index).up().build();
        let set = self.handle.link().set(message).execute().await;
        set.map_err(host("bring an interface up".to_owned()))
    }
}
