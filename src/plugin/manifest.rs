//! The manifest, version 1: the document that says what a plugin's VMs run. Field names are the
//! original Volant's where it has them. The JSON Schema is made from these types.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a plugin's VMs run, what they need, which actions they offer and how their health is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields, title = "volantd plugin manifest, version 1")]
pub struct Manifest {
    /// Version of this format: `1`, `1.0` or `v1`.
    #[serde(default = "version_1")]
    pub schema_version: String,
    /// Name of the plugin: 1 to 63 letters, digits, `.`, `_`, `-`.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Version of the plugin: like a name, and with `+`. A version, once installed, does not change.
    #[schemars(length(min = 1, max = 63))]
    pub version: String,
    /// The class of workload; the plugin's name if absent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub runtime: String,
    /// Root file system. At least one of `rootfs`, `initramfs` and `image` is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<Rootfs>,
    /// Initial file system in memory; its `init` is the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initramfs: Option<Initramfs>,
    /// Checksum of the root file system, for documents that have it here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// More disks, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<DiskSource>,
    /// OCI image to boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Digest that the image must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// What a VM gets unless it asks otherwise.
    pub resources: Resources,
    /// What can be asked of a VM, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub actions: BTreeMap<String, Action>,
    /// Health by HTTP, in the original's form. Excludes `health`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<EndpointCheck>,
    /// How the workload's health is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// What the agent starts. Needed unless there is an `image`, which says it itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<WorkloadSection>,
    /// Environment of everything the agent starts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Ports that the workload listens on; the first is the one of actions and health unless those
    /// name another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// Folders that outlive the VM's root.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Seed for a guest that runs cloud-init.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_init: Option<CloudInit>,
    /// How the VM is connected; bridged with an address if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkSection>,
    /// Whether a raw or qcow2 `rootfs` starts the agent as a service. Without one there is no workload,
    /// and everything that needs an agent is refused.
    #[serde(default = "yes")]
    pub agent: bool,
    /// Devices of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<Devices>,
    /// Whether the plugin is enabled once it is installed.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// The workload's OpenAPI document: URL or absolute path in the guest's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub openapi: Option<String>,
    /// The action that is an AG-UI agent: runs of the VM's own agent are relayed to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agui: Option<String>,
    /// Labels of the plugin's VMs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

fn version_1() -> String {
    "1".to_owned()
}

fn yes() -> bool {
    true
}

/// A root file system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Rootfs {
    /// `http://`, `https://`, `file://` or an absolute path of the host.
    pub url: String,
    /// `sha256:` and 64 hexadecimal digits, or the digits alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// What the file holds.
    #[serde(default)]
    pub format: Format,
}

/// An initial file system in memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Initramfs {
    /// `http://`, `https://`, `file://`, an absolute path of the host, or `builtin:default` for the
    /// daemon's own: agent and busybox.
    pub url: String,
    /// `sha256:` and 64 hexadecimal digits, or the digits alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
}

/// What a disk's file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The disk's bytes.
    #[default]
    Raw,
    /// QEMU's copy-on-write format.
    Qcow2,
    /// A squashfs file system.
    Squashfs,
    /// An erofs file system.
    Erofs,
    /// An ext4 file system.
    Ext4,
    /// An xfs file system.
    Xfs,
    /// A btrfs file system.
    Btrfs,
}

/// One more disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct DiskSource {
    /// For people.
    #[schemars(length(min = 1))]
    pub name: String,
    /// As a root file system's `url`.
    pub source: String,
    /// `sha256:` and 64 hexadecimal digits, or the digits alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// `raw` or `qcow2`.
    #[serde(default)]
    pub format: Format,
    /// The guest cannot write.
    #[serde(default)]
    pub readonly: bool,
    /// Device name that the original passed on; kept, without effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// What a VM gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Resources {
    /// Virtual CPUs.
    #[schemars(range(min = 1, max = 32))]
    pub cpu_cores: u32,
    /// Guest RAM in MiB.
    #[schemars(range(min = 64))]
    pub memory_mb: u64,
}

/// Something that can be asked of a VM: a request to the workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Action {
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// HTTP method of the request.
    pub method: String,
    /// Path of the request as the workload knows it; appended to the path of `base_url`.
    pub path: String,
    /// Milliseconds until the answer must have begun; 0 or absent for the daemon's default.
    #[serde(default)]
    pub timeout_ms: u64,
    /// TCP port; that of `base_url`, else the first of `ports`, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// JSON Schema of the document that the action takes, an object: people get a form of it, models its
    /// description. What is sent is not checked against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Health by HTTP, in the original's form.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct EndpointCheck {
    /// Path below `base_url`; empty for no check.
    #[serde(default)]
    pub endpoint: String,
    /// Milliseconds that the workload may take to come up; at least two minutes.
    #[serde(default)]
    pub timeout_ms: u64,
}

/// How the workload's health is told. Exactly one of `http`, `tcp` and `exec`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Health {
    /// A request; healthy with a status from 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpProbe>,
    /// A connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpProbe>,
    /// A command as the workload's user; healthy with exit code 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecProbe>,
    /// Milliseconds between looks.
    #[serde(default = "health_interval_ms")]
    #[schemars(range(min = 50, max = 3_600_000))]
    pub interval_ms: u64,
    /// Milliseconds that one look may take.
    #[serde(default = "health_timeout_ms")]
    #[schemars(range(min = 1, max = 3_600_000))]
    pub timeout_ms: u64,
    /// Failures in a row that make it unhealthy.
    #[serde(default = "health_retries")]
    #[schemars(range(min = 1, max = 1000))]
    pub retries: u32,
    /// Milliseconds after a start during which failures do not count.
    #[serde(default = "health_start_period_ms")]
    #[schemars(range(max = 3_600_000))]
    pub start_period_ms: u64,
}

fn health_interval_ms() -> u64 {
    10_000
}

fn health_timeout_ms() -> u64 {
    5_000
}

fn health_retries() -> u32 {
    3
}

fn health_start_period_ms() -> u64 {
    30_000
}

/// A look by HTTP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HttpProbe {
    /// Path, appended to that of `base_url`.
    #[serde(default = "root_path")]
    pub path: String,
    /// TCP port; as for an action if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
}

fn root_path() -> String {
    "/".to_owned()
}

/// A look by connecting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct TcpProbe {
    /// TCP port; as for an action if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
}

/// A look by a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ExecProbe {
    /// Program and arguments.
    pub command: Words,
}

/// A program alone, or with its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Words {
    /// The program.
    One(String),
    /// Program and arguments.
    Many(Vec<String>),
}

impl Default for Words {
    fn default() -> Words {
        Words::Many(Vec::new())
    }
}

impl Words {
    /// As a list.
    pub fn as_slice(&self) -> &[String] {
        match self {
            Words::One(word) => std::slice::from_ref(word),
            Words::Many(words) => words,
        }
    }
}

/// What the agent starts and keeps alive.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct WorkloadSection {
    /// `http` for a server at `base_url`, `exec` for anything else.
    #[serde(default, rename = "type")]
    pub kind: WorkloadKind,
    /// Where the workload's server listens in the guest, e.g. `http://127.0.0.1:8080`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// Program and its first arguments. An image's own if there is an `image`.
    #[serde(default)]
    pub entrypoint: Words,
    /// Further arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Environment of this process, over the manifest's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// User name, uid or uid:gid; root if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Signal that asks it to end, e.g. `SIGQUIT`; SIGTERM if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// What follows its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<RestartSection>,
}

/// The kind of a workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WorkloadKind {
    /// Any program.
    #[default]
    Exec,
    /// A server that answers HTTP.
    Http,
}

/// What follows the workload's end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RestartSection {
    /// After which ends it is started again.
    #[serde(default)]
    pub policy: RestartPolicy,
    /// The first pause in milliseconds; it doubles with each try.
    #[serde(default = "backoff_min_ms")]
    #[schemars(range(min = 1, max = 3_600_000))]
    pub backoff_min_ms: u64,
    /// The longest pause in milliseconds.
    #[serde(default = "backoff_max_ms")]
    #[schemars(range(min = 1, max = 3_600_000))]
    pub backoff_max_ms: u64,
    /// Tries in a row until it is given up as failed; without a limit if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries_max: Option<u32>,
}

fn backoff_min_ms() -> u64 {
    200
}

fn backoff_max_ms() -> u64 {
    10_000
}

/// After which ends a workload is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// None.
    Never,
    /// Any but exit code 0.
    #[default]
    OnFailure,
    /// All.
    Always,
}

/// A port that the workload listens on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Port {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// In the guest.
    #[schemars(range(min = 1))]
    pub port: u16,
    /// `tcp` or `udp`.
    #[serde(default)]
    pub protocol: PortProtocol,
    /// Port of the host that leads there; not published if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port: Option<u16>,
}

/// The protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PortProtocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// A folder that outlives the VM's root.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Volume {
    /// Name of the volume: with the VM's name before it the VM's own, or, if the guest may only read
    /// it, as it is.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Absolute path in the guest.
    pub path: String,
    /// The guest cannot write.
    #[serde(default)]
    pub readonly: bool,
    /// Size in MiB when it is made; 10240 if absent. What is not written takes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 64))]
    pub size_mb: Option<u64>,
}

/// Seed for a guest that runs cloud-init.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct CloudInit {
    /// `NoCloud`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datasource: Option<String>,
    /// `vfat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed_mode: Option<String>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<SeedDocument>,
    /// Who the instance is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta_data: Option<SeedDocument>,
    /// How its network is set up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_config: Option<SeedDocument>,
}

/// One document of a seed: its content, or a file that `ctl` reads at installation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SeedDocument {
    /// Whether the content is here; follows from the other two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inline: Option<bool>,
    /// The content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// File beside the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// How a VM is connected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct NetworkSection {
    /// `bridged` with an address, `dhcp`, or `vsock` without a network card.
    pub mode: NetworkMode,
    /// CIDR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    /// IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Whether the daemon chooses the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_assign: Option<bool>,
    /// Ports to publish.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expose: Vec<Port>,
}

/// How a VM is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// No network card.
    Vsock,
    /// On the bridge, with a leased address.
    Bridged,
    /// On the bridge; the guest asks for an address.
    Dhcp,
}

/// Devices of the host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Devices {
    /// PCI addresses, e.g. `0000:01:00.0`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pci_passthrough: Vec<String>,
    /// Vendors and devices allowed, e.g. `10de:*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowlist: Vec<String>,
}
