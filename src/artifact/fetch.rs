//! HTTP(S) to hosts that the configuration allows. Addresses are looked at after the name has been
//! resolved and are then connected to as they are, so that a name cannot lead to this host or its
//! neighbours unless it is allowed to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// To resolve, connect and shake hands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// From the request to the head of the answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// From one answer to the next place.
const REDIRECTS_MAX: usize = 5;
/// Bytes of a head.
const HEAD_LEN_MAX: usize = 64 * 1024;

/// Where `docker.io` is.
pub const DOCKER_HUB: &str = "registry-1.docker.io";

/// Why nothing came.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not an address that can be asked.
    #[error("{0:?} is no http or https address")]
    Url(String),
    /// The configuration does not name the host.
    #[error("the host {0:?} is not among those that may be asked")]
    HostNotAllowed(String),
    /// Without TLS, and the configuration does not allow that.
    #[error("the host {0:?} may not be asked without TLS")]
    PlainHttp(String),
    /// It resolves to an address that is not public.
    #[error("the host {host:?} has the address {address}, which is not public")]
    PrivateAddress {
        /// The host.
        host: String,
        /// What it resolves to.
        address: IpAddr,
    },
    /// It does not resolve, does not answer, or breaks off.
    #[error("cannot {step} {host:?}: {cause}")]
    Network {
        /// The attempted step.
        step: &'static str,
        /// The host.
        host: String,
        /// Why.
        cause: std::io::Error,
    },
    /// It sends on and on.
    #[error("more than {REDIRECTS_MAX} redirections")]
    Redirects,
}

impl FetchError {
    /// Whether it may help to try again.
    pub fn is_passing(&self) -> bool {
        matches!(self, FetchError::Network { .. })
    }
}

/// Which hosts may be asked.
#[derive(Clone, Debug, Default)]
pub struct HostPolicy {
    /// Hosts, with a port where it is not 443; `*.` begins a pattern for all below.
    pub allowed: Vec<String>,
    /// Those that are asked without TLS (port 80 unless named).
    pub plain_http: Vec<String>,
}

impl HostPolicy {
    fn allows(&self, authority: &str) -> bool {
        let name = if authority == DOCKER_HUB { "docker.io" } else { authority };
        let matches = |pattern: &String| match pattern.strip_prefix("*.") {
            Some(domain) => name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')),
            None => pattern == name,
        };
        self.allowed.iter().any(matches) || self.is_plain(authority)
    }

    /// Whether the host is asked without TLS.
    pub fn is_plain(&self, authority: &str) -> bool {
        self.plain_http.iter().any(|host| host == authority)
    }
}

/// Who has named a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// A client of ours: the configuration must name it too.
    ByClient,
    /// A host that was allowed, by a redirection or a challenge: it must be public.
    ByHost,
}

/// Asks.
#[derive(Clone)]
pub struct Fetcher {
    policy: Arc<HostPolicy>,
    tls: TlsConnector,
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// Where to connect.
struct Place {
    authority: String,
    host: String,
    port: u16,
    tls: bool,
}

impl Fetcher {
    /// A fetcher that trusts the certificates that the host system trusts.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(policy: HostPolicy) -> std::io::Result<Fetcher> {
        let mut roots = RootCertStore::empty();
        // What the system has that cannot be read is not trusted; the rest is.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(std::io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Fetcher { policy: Arc::new(policy), tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Which hosts may be asked.
    pub fn policy(&self) -> &HostPolicy {
        &self.policy
    }

    /// `GET`, following redirections. Authorization is not shown to another host.
    ///
    /// # Errors
    /// [`FetchError`]; an answer that tells of a failure is none.
    pub async fn get(
        &self,
        url: &str,
        headers: &HeaderMap,
        named: Named,
    ) -> Result<Response<Incoming>, FetchError> {
        let (mut url, mut headers, mut named) = (url.to_owned(), headers.clone(), named);
        for _ in 0..=REDIRECTS_MAX {
            let uri: Uri = url.parse().map_err(|_| FetchError::Url(url.clone()))?;
            let place = self.place(&uri)?;
            let answer = self.ask(&place, &uri, &headers, named).await?;
            let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let Some(location) = location.filter(|_| answer.status().is_redirection()) else {
                return Ok(answer);
            };
            let scheme = if place.tls { "https" } else { "http" };
            let next = match location.starts_with('/') && !location.starts_with("//") {
                true => format!("{scheme}://{}{location}", place.authority),
                false => location.to_owned(),
            };
            if next.parse::<Uri>().ok().and_then(|uri| uri.authority().map(|a| a.to_string()))
                != Some(place.authority)
            {
                headers.remove(AUTHORIZATION);
                named = Named::ByHost;
            }
            url = next;
        }
        Err(FetchError::Redirects)
    }

    fn place(&self, uri: &Uri) -> Result<Place, FetchError> {
        let wrong = || FetchError::Url(uri.to_string());
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().filter(|a| !a.as_str().contains('@')).ok_or_else(wrong)?;
        let host = authority.host().trim_matches(['[', ']']).to_ascii_lowercase();
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let authority = authority.as_str().to_ascii_lowercase();
        if !tls && !self.policy.is_plain(&authority) {
            return Err(FetchError::PlainHttp(authority));
        }
        Ok(Place { authority, host, port, tls })
    }

    async fn resolve(&self, place: &Place, named: Named) -> Result<Vec<SocketAddr>, FetchError> {
        let allowed = self.policy.allows(&place.authority);
        if named == Named::ByClient && !allowed {
            return Err(FetchError::HostNotAllowed(place.authority.clone()));
        }
        let found = tokio::net::lookup_host((place.host.as_str(), place.port)).await;
        let found: Vec<SocketAddr> = found.map_err(network("resolve", place))?.collect();
        if !allowed && let Some(private) = found.iter().find(|address| !is_public(address.ip())) {
            let (host, address) = (place.host.clone(), private.ip());
            return Err(FetchError::PrivateAddress { host, address });
        }
        Ok(found)
    }

    async fn ask(
        &self,
        place: &Place,
        uri: &Uri,
        headers: &HeaderMap,
        named: Named,
    ) -> Result<Response<Incoming>, FetchError> {
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.connect(place, named));
        let stream = connected.await.map_err(|_| late("connect to", place))??;
        let mut request = Request::new(Empty::<Bytes>::new());
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().map_err(|_| FetchError::Url(uri.to_string()))?;
        *request.headers_mut() = headers.clone();
        let host = HeaderValue::from_str(&place.authority);
        let host = host.map_err(|_| FetchError::Url(uri.to_string()))?;
        request.headers_mut().insert(HOST, host);
        let agent = HeaderValue::from_static(concat!("volantd/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(USER_AGENT, agent);
        let io = |error: hyper::Error| network("talk to", place)(std::io::Error::other(error));
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_LEN_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io)?;
        // Ends with the answer's body; its error reaches whoever reads that.
        tokio::spawn(connection);
        let answered = tokio::time::timeout(HEAD_TIMEOUT, sender.send_request(request)).await;
        answered.map_err(|_| late("wait for", place))?.map_err(io)
    }

    async fn connect(&self, place: &Place, named: Named) -> Result<Box<dyn Wire>, FetchError> {
        let addresses = self.resolve(place, named).await?;
        let stream = TcpStream::connect(addresses.as_slice()).await;
        let stream = stream.map_err(network("connect to", place))?;
        if !place.tls {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(place.host.clone());
        let name = name.map_err(|_| FetchError::Url(place.authority.clone()))?;
        let stream = self.tls.connect(name, stream).await;
        Ok(Box::new(stream.map_err(network("shake hands with", place))?))
    }
}

/// A connection of either kind.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

fn network(step: &'static str, place: &Place) -> impl FnOnce(std::io::Error) -> FetchError + use<> {
    let host = place.host.clone();
    move |cause| FetchError::Network { step, host, cause }
}

fn late(step: &'static str, place: &Place) -> FetchError {
    network(step, place)(std::io::ErrorKind::TimedOut.into())
}

/// Whether an address is one that anybody may name: not this host, its networks, or what is
/// reserved (IANA's registries of special-purpose addresses).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => {
            let embedded = |at: usize| {
                let octets = v6.octets();
                Ipv4Addr::new(octets[at], octets[at + 1], octets[at + 2], octets[at + 3])
            };
            match v6.segments() {
                // IPv4 in IPv6: mapped, translated (NAT64), 6to4.
                [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
                    is_public_v4(embedded(12))
                }
                [0x2002, ..] => is_public_v4(embedded(2)),
                // Teredo, documentation, ORCHID and others that no server is at.
                [0x2001, 0..0x200, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..0x1000, ..] => false,
                // Global unicast; everything else is loopback, local, multicast or unassigned.
                [first, ..] => first & 0xe000 == 0x2000,
            }
        }
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 168, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (198, 18..=19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_not_public() {
        let private = [
            "127.0.0.1",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.127.1",
            "169.254.169.254",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "192.0.2.1",
        ];
        for text in private {
            assert!(!is_public(text.parse().unwrap()), "{text} was taken for public");
        }
        let public = [
            "1.1.1.1",
            "172.32.0.1",
            "192.167.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "2a00:1450:4001::1",
            "::ffff:8.8.8.8",
            "2001:4860:4860::8888",
        ];
        for text in public {
            assert!(is_public(text.parse().unwrap()), "{text} was taken for private");
        }
    }

    #[tokio::test]
    async fn hosts_are_refused_by_name() {
        let policy = HostPolicy {
            allowed: vec!["registry.example".to_owned(), "*.cdn.example".to_owned()],
            plain_http: vec!["127.0.0.1:1".to_owned()],
        };
        let fetcher = Fetcher::new(policy).unwrap();
        let ask = async |url: &str, named| {
            let answer = fetcher.get(url, &HeaderMap::new(), named).await;
            answer.expect_err("a refusal").to_string()
        };
        let table = [
            ("https://other.example/", Named::ByClient, "not among"),
            ("https://cdn.example/", Named::ByClient, "not among"),
            ("https://registry.example:444/", Named::ByClient, "not among"),
            ("https://evilregistry.example/", Named::ByClient, "not among"),
            ("http://registry.example/", Named::ByClient, "without TLS"),
            ("http://127.0.0.1:2/", Named::ByHost, "without TLS"),
            ("https://127.0.0.1/", Named::ByHost, "not public"),
            ("https://[::1]/", Named::ByHost, "not public"),
            ("https://localhost/", Named::ByHost, "not public"),
            ("https://169.254.169.254/latest", Named::ByHost, "not public"),
            ("file:///etc/passwd", Named::ByClient, "no http"),
            ("https://user@registry.example/", Named::ByClient, "no http"),
            ("/v2/", Named::ByClient, "no http"),
            // Allowed, and nobody is there.
            ("http://127.0.0.1:1/", Named::ByClient, "connect to"),
        ];
        for (url, named, text) in table {
            let refusal = ask(url, named).await;
            assert!(refusal.contains(text), "{url}: {refusal}");
        }
    }
}
