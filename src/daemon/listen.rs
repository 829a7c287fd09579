//! The sockets of the API: those that the service manager has opened, else its own.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::net::AddressFamily;
use rustix::net::sockopt::socket_domain;
use tokio::net::{TcpListener, UnixListener};

use crate::api::{Listener, Tls};
use crate::config::Config;
use crate::sys::{accounts, activation};

/// Members of it may use the socket.
const GROUP: &str = "volant";

/// What is listened on.
#[derive(Debug)]
pub struct Sockets {
    /// All of them.
    pub listeners: Vec<Listener>,
    /// Whether the Unix socket's file is this process's to remove.
    pub own: bool,
}

impl Sockets {
    /// Takes the sockets that were passed on, and opens those that were not.
    ///
    /// # Errors
    /// An address is in use; the text says what to do.
    pub async fn open(config: &Config, tls: Option<Tls>) -> Result<Sockets> {
        let passed = activation::sockets().context("take the sockets of the service manager")?;
        let (mut unix, mut tcp) = (Vec::new(), Vec::new());
        for socket in passed {
            match socket_domain(&socket).context("look at a socket of the service manager")? {
                AddressFamily::UNIX => unix.push(socket),
                AddressFamily::INET | AddressFamily::INET6 => tcp.push(socket),
                other => bail!("the service manager has passed a socket of the family {other:?}"),
            }
        }
        let own = unix.is_empty();
        let mut listeners = Vec::new();
        if tcp.is_empty() {
            listeners.push(Listener::Tcp(bind(config.listen).await?, tls.clone()));
        }
        for socket in tcp {
            listeners.push(Listener::Tcp(tokio_tcp(socket)?, tls.clone()));
        }
        if own {
            listeners.push(Listener::Unix(bind_unix(&config.socket)?));
        }
        for socket in unix {
            listeners.push(Listener::Unix(tokio_unix(socket)?));
        }
        Ok(Sockets { listeners, own })
    }
}

fn tokio_tcp(socket: OwnedFd) -> Result<TcpListener> {
    let socket = std::net::TcpListener::from(socket);
    socket.set_nonblocking(true)?;
    Ok(TcpListener::from_std(socket)?)
}

fn tokio_unix(socket: OwnedFd) -> Result<UnixListener> {
    let socket = std::os::unix::net::UnixListener::from(socket);
    socket.set_nonblocking(true)?;
    Ok(UnixListener::from_std(socket)?)
}

/// Listens on an address.
///
/// # Errors
/// It is in use.
pub async fn bind(address: SocketAddr) -> Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| {
        format!("{address} cannot be listened on; is another program using the port?")
    })
}

fn bind_unix(path: &Path) -> Result<UnixListener> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    if path.exists() {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            bail!("another daemon answers on {}", path.display());
        }
        fs::remove_file(path).context("remove a stale socket")?;
    }
    let unix = UnixListener::bind(path).with_context(|| format!("bind {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    if let Some(group) = accounts::group(Path::new("/"), GROUP)
        && let Err(error) = std::os::unix::fs::chown(path, None, Some(group.gid))
    {
        tracing::warn!(%error, "the socket stays this user's: {GROUP} cannot be given it");
    }
    Ok(unix)
}
