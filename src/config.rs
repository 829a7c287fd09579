//! Flags, variables and file resolved into one validated configuration: plain data.

pub mod token;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cli::ServeFlags;

/// Read when no other file is named and it exists.
pub const FILE_DEFAULT: &str = "/etc/volant/volantd.toml";

/// Less than this is no log (`logs::LEN_MIN`).
const LOG_BYTES_MIN: u64 = 64 * 1024;

/// The configuration in effect; also the shape of the file, where every key is optional.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Config {
    /// Folder for the database, the token and images.
    pub state_dir: PathBuf,
    /// Unix socket of the API.
    pub socket: PathBuf,
    /// TCP address of the API.
    pub listen: SocketAddr,
    /// TCP address of the proxy to guests.
    pub proxy_listen: Option<SocketAddr>,
    /// Domain of the proxy's host names.
    pub proxy_domain: String,
    /// File with the bearer token.
    pub token_file: PathBuf,
    /// Default guest kernel.
    pub kernel: PathBuf,
    /// Guest agent.
    pub agent: PathBuf,
    /// Static busybox.
    pub busybox: PathBuf,
    /// Bridge for the guests.
    pub bridge: String,
    /// Subnet of the guests.
    pub subnet: String,
    /// The bridge's address; the subnet's first if absent.
    pub host_ip: Option<Ipv4Addr>,
    /// Name servers told to guests.
    pub dns: Vec<Ipv4Addr>,
    /// Deadline from start to the agent's answer.
    pub boot_timeout_ms: u64,
    /// What a guest has to shut down.
    pub stop_timeout_ms: u64,
    /// Share of the host's memory that guests may have.
    pub memory_percent_max: u8,
    /// Whether guests' RAM is to be in huge pages.
    pub huge_pages: bool,
    /// Bytes kept of what each VM's workload writes, at least 64 KiB.
    pub log_bytes_max: u64,
    /// Networks that may connect by TCP, e.g. 192.0.2.0/24; none means all.
    pub allow: Vec<String>,
    /// Requests that each token has per second; 0 for no limit.
    pub requests_per_second_max: u32,
    /// Log filter.
    pub log_level: String,
    /// How clients reach the API by TCP.
    pub http: HttpSettings,
    /// Where images may come from, and what they may take.
    pub images: ImageSettings,
    /// Where other files of VMs may come from.
    pub artifacts: ArtifactSettings,
    /// What E2B's SDKs get.
    pub e2b: E2bSettings,
}

/// The table `[artifacts]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ArtifactSettings {
    /// Servers that manifests may name, as `images.hosts`.
    pub hosts: Vec<String>,
    /// Servers that are asked without TLS.
    pub plain_http_hosts: Vec<String>,
    /// Folders of the host whose files clients may name: kernels, initramfs, disks. Everything in
    /// them can be read, and written as a disk, by whoever may create VMs.
    pub folders: Vec<PathBuf>,
}

impl Default for ArtifactSettings {
    fn default() -> ArtifactSettings {
        ArtifactSettings {
            hosts: vec!["github.com".to_owned()],
            plain_http_hosts: Vec::new(),
            folders: ["/boot", "/srv/volant"].map(PathBuf::from).to_vec(),
        }
    }
}

/// The table `[http]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSettings {
    /// Names that clients may use for this host, beside localhost and addresses.
    pub hosts: Vec<String>,
    /// Origins whose pages may call the API, e.g. `https://console.example`.
    pub cors_origins: Vec<String>,
    /// Networks of proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<String>,
    /// PEM file with the certificate and those above it: with it, TCP is TLS.
    pub tls_certificate: Option<PathBuf>,
    /// PEM file with the certificate's key.
    pub tls_key: Option<PathBuf>,
}

/// The table `[images]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageSettings {
    /// Registries that clients may name, `HOST[:PORT]`; `*.` begins a pattern for all below. One that
    /// is named here may have a private address.
    pub hosts: Vec<String>,
    /// Registries that are asked without TLS.
    pub plain_http_hosts: Vec<String>,
    /// Credentials, in the form of Docker's config.json.
    pub auth_file: Option<PathBuf>,
    /// What all layers and roots may take together, in MiB.
    pub store_mib_max: u64,
    /// What the files of one image may be together, in MiB.
    pub image_mib_max: u64,
    /// Files, folders and links of one image.
    pub entries_max: usize,
    /// Size of a VM's own disk unless it says otherwise, in MiB; it takes what is written only.
    pub overlay_mib: u64,
}

/// The table `[e2b]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct E2bSettings {
    /// Virtual CPUs of a sandbox, unless a plugin says otherwise.
    pub cpus: u32,
    /// RAM of a sandbox in MiB, unless a plugin says otherwise.
    pub memory_mib: u64,
    /// Images by the names of templates, as in `base = "docker.io/library/debian:bookworm"`.
    pub templates: BTreeMap<String, String>,
}

impl Default for E2bSettings {
    fn default() -> E2bSettings {
        E2bSettings { cpus: 1, memory_mib: 512, templates: BTreeMap::new() }
    }
}

impl Default for ImageSettings {
    fn default() -> ImageSettings {
        let hosts = [
            "docker.io",
            "ghcr.io",
            "quay.io",
            "registry.k8s.io",
            "mcr.microsoft.com",
            "public.ecr.aws",
            "gcr.io",
            "registry.gitlab.com",
        ];
        ImageSettings {
            hosts: hosts.map(str::to_owned).to_vec(),
            plain_http_hosts: Vec::new(),
            auth_file: None,
            store_mib_max: 100 << 10,
            image_mib_max: 32 << 10,
            entries_max: 500_000,
            overlay_mib: 10 << 10,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    state_dir: Option<PathBuf>,
    socket: Option<PathBuf>,
    listen: Option<SocketAddr>,
    proxy_listen: Option<SocketAddr>,
    proxy_domain: Option<String>,
    token_file: Option<PathBuf>,
    kernel: Option<PathBuf>,
    agent: Option<PathBuf>,
    busybox: Option<PathBuf>,
    bridge: Option<String>,
    subnet: Option<String>,
    host_ip: Option<Ipv4Addr>,
    dns: Option<Vec<Ipv4Addr>>,
    boot_timeout_ms: Option<u64>,
    stop_timeout_ms: Option<u64>,
    memory_percent_max: Option<u8>,
    huge_pages: Option<bool>,
    log_bytes_max: Option<u64>,
    allow: Option<Vec<String>>,
    requests_per_second_max: Option<u32>,
    log_level: Option<String>,
    http: Option<HttpSettings>,
    images: Option<ImageSettings>,
    artifacts: Option<ArtifactSettings>,
    e2b: Option<E2bSettings>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file named cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The host's answer.
        #[source]
        source: std::io::Error,
    },
    /// The file is no configuration.
    #[error("{path} is no configuration", path = path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What and where.
        #[source]
        source: toml::de::Error,
    },
    /// A value is out of its range.
    #[error("{0}")]
    Value(String),
}

/// Resolves: flags (which clap has merged with VOLANT_* variables), then the file, then systemd's
/// folders, then defaults. `executable` is this program, beside which the agent is looked for.
///
/// # Errors
/// [`ConfigError`].
pub fn resolve(flags: &ServeFlags, executable: &Path) -> Result<Config, ConfigError> {
    settle(flags, read(flags.config.as_deref())?, executable)
}

/// The same with this text in place of the file.
///
/// # Errors
/// [`ConfigError`].
pub fn resolve_text(
    text: &str,
    flags: &ServeFlags,
    executable: &Path,
) -> Result<Config, ConfigError> {
    settle(flags, parse(text, Path::new(FILE_DEFAULT))?, executable)
}

fn settle(flags: &ServeFlags, file: File, executable: &Path) -> Result<Config, ConfigError> {
    let flags = flags.clone();
    let state_dir = flags.state_dir.or(file.state_dir);
    let state_dir = state_dir.unwrap_or_else(|| systemd("STATE_DIRECTORY", "/var/lib/volant"));
    let run_dir = systemd("RUNTIME_DIRECTORY", "/run/volant");
    let beside = executable.with_file_name("volary");
    let config = Config {
        socket: flags.socket.or(file.socket).unwrap_or_else(|| run_dir.join("volant.sock")),
        listen: flags.listen.or(file.listen).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 7777))),
        proxy_listen: flags.proxy_listen.or(file.proxy_listen),
        proxy_domain: flags
            .proxy_domain
            .or(file.proxy_domain)
            .unwrap_or_else(|| "volant.localhost".to_owned()),
        token_file: flags.token_file.or(file.token_file).unwrap_or_else(|| state_dir.join("token")),
        kernel: flags.kernel.or(file.kernel).unwrap_or_else(|| state_dir.join("kernel/vmlinux")),
        agent: flags.agent.or(file.agent).unwrap_or(beside),
        busybox: flags.busybox.or(file.busybox).unwrap_or_else(|| "/bin/busybox".into()),
        bridge: flags.bridge.or(file.bridge).unwrap_or_else(|| "vbr0".to_owned()),
        subnet: flags.subnet.or(file.subnet).unwrap_or_else(|| "192.168.127.0/24".to_owned()),
        host_ip: flags.host_ip.or(file.host_ip),
        dns: flags.dns.or(file.dns).unwrap_or_else(|| vec![Ipv4Addr::new(1, 1, 1, 1)]),
        boot_timeout_ms: flags.boot_timeout_ms.or(file.boot_timeout_ms).unwrap_or(60_000),
        stop_timeout_ms: flags.stop_timeout_ms.or(file.stop_timeout_ms).unwrap_or(10_000),
        huge_pages: flags.huge_pages.or(file.huge_pages).unwrap_or(true),
        memory_percent_max: flags.memory_percent_max.or(file.memory_percent_max).unwrap_or(90),
        log_bytes_max: flags.log_bytes_max.or(file.log_bytes_max).unwrap_or(16 << 20),
        http: file.http.unwrap_or_default(),
        images: file.images.unwrap_or_default(),
        artifacts: file.artifacts.unwrap_or_default(),
        e2b: file.e2b.unwrap_or_default(),
        allow: flags.allow.or(file.allow).unwrap_or_default(),
        requests_per_second_max: flags
            .requests_per_second_max
            .or(file.requests_per_second_max)
            .unwrap_or(10_000),
        log_level: flags.log_level.or(file.log_level).unwrap_or_else(|| "info".to_owned()),
        state_dir,
    };
    if config.bridge.is_empty() || 15 < config.bridge.len() || config.bridge.contains(['/', ' ']) {
        return Err(ConfigError::Value(format!(
            "bridge: {:?} is no interface name",
            config.bridge
        )));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    if config.proxy_domain.is_empty() || !config.proxy_domain.chars().all(plain) {
        return Err(ConfigError::Value(format!(
            "proxy_domain: {:?} is no domain",
            config.proxy_domain
        )));
    }
    if !(1..=100).contains(&config.memory_percent_max) {
        return Err(ConfigError::Value("memory_percent_max: 1 to 100".to_owned()));
    }
    if config.http.tls_certificate.is_some() != config.http.tls_key.is_some() {
        let text = "http.tls_certificate and http.tls_key: both or neither";
        return Err(ConfigError::Value(text.to_owned()));
    }
    if config.log_bytes_max < LOG_BYTES_MIN {
        return Err(ConfigError::Value(format!("log_bytes_max: at least {LOG_BYTES_MIN}")));
    }
    Ok(config)
}

fn read(named: Option<&Path>) -> Result<File, ConfigError> {
    let path = named.unwrap_or(Path::new(FILE_DEFAULT));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(File::default());
        }
        Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
    };
    parse(&text, path)
}

fn parse(text: &str, path: &Path) -> Result<File, ConfigError> {
    toml::from_str(text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source })
}

/// A folder that systemd has made for the unit (systemd.exec, RuntimeDirectory=).
fn systemd(variable: &str, default: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| default.into(), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("volantd.toml");
        std::fs::write(&path, "bridge = \"vbr7\"\nsubnet = \"10.9.0.0/24\"\n").unwrap();
        let flags = ServeFlags {
            config: Some(path.clone()),
            bridge: Some("vbr9".to_owned()),
            ..ServeFlags::default()
        };
        let config = resolve(&flags, Path::new("/opt/volant/volantd")).unwrap();
        assert_eq!((config.bridge.as_str(), config.subnet.as_str()), ("vbr9", "10.9.0.0/24"));
        assert_eq!(config.stop_timeout_ms, 10_000);
        assert_eq!(config.agent, Path::new("/opt/volant/volary"));
        std::fs::write(&path, "bridgge = \"x\"\n").unwrap();
        assert!(matches!(resolve(&flags, Path::new("/x")), Err(ConfigError::Parse { .. })));
    }
}
