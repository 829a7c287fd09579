//! `vms expose`, `exposed` and `unexpose`.

use hyper::Method;

use crate::cli::{ExposeArgs, UnexposeArgs};
use crate::ctl::client::{Client, Failure};
use crate::ctl::output::Printer;
use crate::ctl::vms::{encoded, path};
use crate::wire::ExposureView;

/// `[IP:][HOST-PORT:]GUEST-PORT[/udp]`.
///
/// # Errors
/// It is something else.
pub fn parse(text: &str) -> Result<ExposureView, Failure> {
    let refuse = || {
        let text = format!("{text:?} is not like [IP:][HOST-PORT:]GUEST-PORT[/udp]");
        Failure { exit_code: 2, ..Failure::local(text) }
    };
    let (ports, transport) = text.split_once('/').unwrap_or((text, "tcp"));
    let mut parts = ports.rsplit(':');
    let port = |part: &str| part.parse::<u16>().map_err(|_| refuse());
    let guest_port = port(parts.next().unwrap_or_default())?;
    let host_port = parts.next().map(port).transpose()?.unwrap_or(0);
    let host_ip = parts.next().unwrap_or("0.0.0.0").to_owned();
    if parts.next().is_some() {
        return Err(refuse());
    }
    Ok(ExposureView { guest_port, host_port, host_ip, transport: transport.to_owned() })
}

/// Exposes a port and prints the host's.
///
/// # Errors
/// [`Failure`].
pub async fn add(client: &Client, args: &ExposeArgs, out: &Printer) -> Result<(), Failure> {
    let body = parse(&args.ports)?;
    let target = path(&args.name, "/exposures");
    let exposed: ExposureView = client.json(Method::POST, &target, Some(&body)).await?;
    if out.is_table() {
        return out.line(&exposed.host_port.to_string());
    }
    out.one(&exposed)
}

/// Lists what is exposed.
///
/// # Errors
/// [`Failure`].
pub async fn list(client: &Client, name: &str, out: &Printer) -> Result<(), Failure> {
    let none: Option<&()> = None;
    let target = path(name, "/exposures");
    let exposed: Vec<ExposureView> = client.json(Method::GET, &target, none).await?;
    out.list(&exposed)
}

/// Ends an exposure.
///
/// # Errors
/// [`Failure`].
pub async fn remove(client: &Client, args: &UnexposeArgs) -> Result<(), Failure> {
    let (place, transport) = args.port.split_once('/').unwrap_or((&args.port, "tcp"));
    let (ip, port) = place.rsplit_once(':').map_or((None, place), |(ip, port)| (Some(ip), port));
    let query = ip.map_or(String::new(), |ip| format!("?host_ip={}", encoded(ip)));
    let target = path(&args.name, &format!("/exposures/{transport}/{port}{query}"));
    client.send(Method::DELETE, &target, None, "*/*").await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_they_are_written() {
        let check = |text: &str| {
            let view = parse(text).ok()?;
            Some((view.host_ip, view.host_port, view.guest_port, view.transport))
        };
        let some = |ip: &str, host, guest, transport: &str| {
            Some((ip.to_owned(), host, guest, transport.to_owned()))
        };
        assert_eq!(check("80"), some("0.0.0.0", 0, 80, "tcp"));
        assert_eq!(check("8080:80"), some("0.0.0.0", 8080, 80, "tcp"));
        assert_eq!(check("127.0.0.1:5353:53/udp"), some("127.0.0.1", 5353, 53, "udp"));
        assert_eq!(check("a:80"), None);
        assert_eq!(check("1:2:3:4"), None);
        assert_eq!(check(""), None);
    }
}
