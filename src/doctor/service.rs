//! The daemon as a process and a service: limits, sockets, ports, systemd's unit, the running one.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use crate::doctor::{Finding, Host};
use crate::sys::accounts;

/// Descriptors that a full house of clients and a hundred guests need.
pub const DESCRIPTORS_WANTED: u64 = 16 * 1024;
/// Bytes of a Unix socket's path (`sun_path`, unix(7)), its end aside.
const SOCKET_LEN_MAX: usize = 107;
/// How long a daemon may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer that are looked at.
const ANSWER_LEN_MAX: u64 = 64 * 1024;
/// Where units are, those of the operator first (systemd.unit(5)).
const UNIT_FOLDERS: [&str; 3] =
    ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

pub fn descriptors(_: &Host) -> Finding {
    descriptors_of(getrlimit(Resource::Nofile).maximum)
}

/// `most` is the limit that the process may set for itself; nothing means none.
pub fn descriptors_of(most: Option<u64>) -> Finding {
    match most {
        Some(most) if most < DESCRIPTORS_WANTED => {
            let shell = rustix::process::getppid().map_or(1, |pid| pid.as_raw_nonzero().get());
            Finding::warn(format!("a process started here may open {most} files, a hundred guests need {DESCRIPTORS_WANTED}"))
                .mend(format!("prlimit --pid {shell} --nofile={DESCRIPTORS_WANTED}:524288"))
        }
        _ => Finding::ok("enough files may be open"),
    }
}

pub fn group(host: &Host) -> Finding {
    match accounts::group(&host.root, "volant") {
        Some(_) => Finding::ok("the group volant is there; its members may use the socket"),
        None => Finding::warn("there is no group volant: only root may use the socket")
            .mend("groupadd --system volant"),
    }
}

pub fn socket(host: &Host) -> Finding {
    let path = &host.config.socket;
    let shown = path.display();
    if SOCKET_LEN_MAX < path.as_os_str().len() {
        return Finding::fail(format!(
            "the socket's path has more than {SOCKET_LEN_MAX} bytes: name another with --socket"
        ));
    }
    let Ok(meta) = std::fs::symlink_metadata(path) else {
        return Finding::ok(format!("{shown} is made by the daemon"));
    };
    if !meta.file_type().is_socket() {
        return Finding::fail(format!("{shown} is no socket"))
            .mend(format!("mv {shown} {shown}.old"));
    }
    if meta.permissions().mode() & 0o007 != 0 {
        return Finding::fail(format!("every user may connect to {shown}, and do what root may"))
            .mend(format!("chmod o= {shown}"));
    }
    Finding::ok(format!("{shown} is for its owner and group"))
}

pub fn port(host: &Host) -> Finding {
    let address = host.config.listen;
    if daemon_version_of(host).is_some() {
        return Finding::ok(format!("{address} is the daemon's own"));
    }
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok(format!("{address} is free")),
        Err(error) => {
            let is_free = |port: &u16| TcpListener::bind((address.ip(), *port)).is_ok();
            let free = (address.port()..u16::MAX).skip(1).find(is_free);
            let finding = Finding::fail(format!("{address} cannot be listened on ({error})"));
            match free {
                Some(free) => {
                    finding.mend(format!("{} --listen {}:{free}", host.setup, address.ip()))
                }
                None => finding,
            }
        }
    }
}

/// Whether systemd runs this host (sd_booted(3)).
fn has_systemd(host: &Host) -> bool {
    host.at("/run/systemd/system").is_dir()
}

fn has_unit(host: &Host) -> bool {
    UNIT_FOLDERS.iter().any(|folder| host.at(folder).join("volantd.service").exists())
}

pub fn unit(host: &Host) -> Finding {
    match (has_systemd(host), has_unit(host)) {
        (false, _) => Finding::ok("systemd does not run this host"),
        (true, true) => Finding::ok("systemd knows volantd.service"),
        (true, false) => Finding::warn(
            "systemd does not know volantd.service: the daemon does not start with the host",
        )
        .mend(&host.setup),
    }
}

pub fn daemon(host: &Host) -> Finding {
    let shown = host.config.socket.display();
    if daemon_version_of(host).is_some() {
        return Finding::ok(format!("a daemon answers on {shown}"));
    }
    let finding = Finding::warn(format!("no daemon answers on {shown}"));
    match has_systemd(host) && has_unit(host) {
        true => finding.mend("systemctl start volantd"),
        false => finding,
    }
}

pub fn daemon_version(host: &Host) -> Finding {
    let own = env!("CARGO_PKG_VERSION");
    match daemon_version_of(host) {
        None => Finding::ok("no daemon answers that could be another version"),
        Some(version) if version == own => Finding::ok(format!("the daemon is version {own}")),
        Some(version) => {
            Finding::warn(format!("the daemon that runs is version {version}, this program {own}"))
                .mend("systemctl restart volantd")
        }
    }
}

/// What the daemon says of itself; nothing if none answers.
fn daemon_version_of(host: &Host) -> Option<String> {
    let mut stream = UnixStream::connect(&host.config.socket).ok()?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).ok()?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT)).ok()?;
    let head = "Host: localhost\r\nConnection: close";
    let request = format!("GET /api/v1/system/info HTTP/1.1\r\n{head}\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.take(ANSWER_LEN_MAX).read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let info: serde_json::Value = serde_json::from_str(body).ok()?;
    let version = info.get("version")?.as_str()?;
    head.starts_with("HTTP/1.1 200").then(|| version.to_owned())
}
