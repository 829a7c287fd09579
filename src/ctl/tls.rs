//! TLS to a remote daemon.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Names a PEM file of certificates to trust beside the system's own.
const CA_FILE: &str = "VOLANT_TLS_CA";
const PORT_DEFAULT: u16 = 443;

/// Connects to `HOST[:PORT]`, whose certificate must be for that host.
///
/// # Errors
/// Nobody answers, or the certificate is not trusted.
pub async fn connect(address: &str) -> io::Result<TlsStream<TcpStream>> {
    let (host, port) = split(address);
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let mut roots = RootCertStore::empty();
    // What the system has that cannot be read is not trusted; the rest is.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = std::env::var_os(CA_FILE) {
        let named = CertificateDer::pem_file_iter(Path::new(&path)).map_err(io::Error::other)?;
        for certificate in named {
            let certificate = certificate.map_err(io::Error::other)?;
            roots.add(certificate).map_err(io::Error::other)?;
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect((host, port)).await?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Host and port; an IPv6 address stands in brackets.
fn split(address: &str) -> (&str, u16) {
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()),
        _ => (address, None),
    };
    (host.trim_matches(['[', ']']), port.unwrap_or(PORT_DEFAULT))
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn addresses_are_split() {
        assert_eq!(split("box.example:7777"), ("box.example", 7777));
        assert_eq!(split("box.example"), ("box.example", 443));
        assert_eq!(split("[::1]:7777"), ("::1", 7777));
        assert_eq!(split("[::1]"), ("::1", 443));
    }
}
