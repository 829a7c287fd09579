//! The JSON shapes of the public API, version 1. Field names are those of the original Volant where
//! it has them. Requests refuse unknown fields; `ctl` reads what `api` writes.

mod access;
mod artifact;
mod build;
/// E2B's control plane.
pub mod e2b;
/// E2B's services in a sandbox.
pub mod envd;
mod event;
mod expiry;
mod exposure;
mod file;
mod images;
mod job;
mod log;
mod openapi;
mod plugin;
mod process;
mod vm_access;
mod volume;
mod workload;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use access::{AuditView, CreateToken, CreatedToken, TokenView};
pub use artifact::{BroughtView, FetchPlugin, StoredView};
pub use build::BuiltView;
pub use event::{EventView, EventsView};
pub use expiry::{OnExpiryWord, SetTtl};
pub use exposure::ExposureView;
pub use file::{
    FileEventView, FileListView, FileView, GuestMetricsView, GuestView, MoveBody, PortView,
    TimeSyncView,
};
pub use images::*;
pub use job::{JobStateWord, JobView};
pub use log::LogLine;
pub use openapi::OpenApiDocument;
pub use plugin::{
    ArtifactView, PluginList, PluginVersionView, PluginView, PutArtifact, Rollback, SetEnabled,
};
pub use process::{ProcessView, Signal, SignalBody, StartProcess, TerminalView};
pub use vm_access::{AccessView, SignBody, SignedView};
pub use volume::{CreateVolume, GrowVolume, VmVolume, VolumeUserView, VolumeView};
pub use workload::WorkloadView;

/// `POST /api/v1/vms`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateVm {
    /// 1 to 63 of `a-z`, `0-9`, `-`.
    #[schemars(regex(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))]
    pub name: String,
    /// Class of workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// The plugin that it is made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// Version of the plugin; the current one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin_version: Option<String>,
    /// Virtual CPUs, 1 to 32; the plugin's, or 1, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32))]
    pub cpu_cores: Option<u32>,
    /// Guest RAM in MiB; the plugin's, or 256, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// Absolute path of a kernel on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Absolute path of an initramfs on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initramfs: Option<String>,
    /// Words appended to the kernel command line.
    #[serde(default)]
    pub kernel_cmdline: String,
    /// Environment of what runs in the guest.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Names and values for people and programs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Whether there is a serial console.
    #[serde(default = "yes")]
    pub console: bool,
    /// Whether to start it at once.
    #[serde(default = "yes")]
    pub start: bool,
    /// Ports of the host that lead to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expose: Vec<ExposureView>,
    /// Disks, `/dev/vda` first; at most 8.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub disks: Vec<DiskView>,
    /// `auto`, `pvh` or `linux64`: how an ELF kernel is entered.
    #[serde(default = "auto")]
    #[schemars(extend("enum" = ["auto", "pvh", "linux64"]))]
    pub boot_protocol: String,
    /// Image that becomes the root: its reference or the begin of its id. It must be here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// In place of the image's own arguments (its `Cmd`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// What is written over the image is gone when the VM stops.
    #[serde(default)]
    pub ephemeral: bool,
    /// Size in MiB of the disk for what is written over the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay_mb: Option<u64>,
    /// Volumes, mounted in this order; at most 8, and with disks together 12.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VmVolume>,
    /// Take downloads that the plugin's manifest has no checksum of.
    #[serde(default)]
    pub insecure: bool,
    /// `initramfs`; or `disk`: the first disk with its own init, which starts the agent as a service;
    /// or `disk-without-agent`. The plugin's, or `initramfs`, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["initramfs", "disk", "disk-without-agent", null]))]
    pub boot_from: Option<String>,
    /// Documents for a guest that runs cloud-init; each takes the place of the plugin's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_init: Option<CloudInitBody>,
    /// `bridged`: a network card with a leased address; or `vsock`: no network card, the guest reaches
    /// nothing, and is reached by its agent and the proxy. The plugin's, or `bridged`, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["bridged", "vsock", null]))]
    pub network_mode: Option<String>,
    /// How long it may live, in milliseconds from now; without an end if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 315_360_000_000_u64))]
    pub ttl_ms: Option<u64>,
    /// What follows the end of that time.
    #[serde(default)]
    pub on_expiry: OnExpiryWord,
}

/// Documents for cloud-init, on a disk for its data source NoCloud.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CloudInitBody {
    /// What to do; `#cloud-config` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// Who the instance is; `volant-ID` and the VM's name if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta_data: Option<String>,
    /// How its network is set up; left to the guest if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_config: Option<String>,
}

/// A disk in a raw file of the host.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskView {
    /// Absolute path of a regular file or block device.
    pub path: String,
    /// The guest cannot write.
    #[serde(default)]
    pub readonly: bool,
}

fn auto() -> String {
    "auto".to_owned()
}

fn bridged() -> String {
    "bridged".to_owned()
}

fn yes() -> bool {
    true
}

/// A VM.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct VmView {
    /// Number.
    pub id: i64,
    /// Name.
    pub name: String,
    /// `starting`, `running`, `stopping`, `stopped`, `failed`, `deleting`.
    pub status: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether it does what it is there for: it runs, and its workload, if it has one, is ready.
    #[serde(default)]
    pub ready: bool,
    /// How its workload is, once it has told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<WorkloadView>,
    /// Class of workload.
    pub runtime: String,
    /// The plugin that it is made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// The plugin's version that it is made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin_version: Option<String>,
    /// Names and values for people and programs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Leased IPv4 address; empty without a network card.
    pub ip_address: String,
    /// Ethernet address.
    pub mac_address: String,
    /// vsock context id.
    pub vsock_cid: u32,
    /// Virtual CPUs.
    pub cpu_cores: u32,
    /// Guest RAM in MiB.
    pub memory_mb: u64,
    /// Words appended to the kernel command line.
    pub kernel_cmdline: String,
    /// Whether there is a serial console.
    pub console: bool,
    /// Disks, `/dev/vda` first.
    #[serde(default)]
    pub disks: Vec<DiskView>,
    /// The image that is its root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<VmImageView>,
    /// Its volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VmVolume>,
    /// `initramfs`, `disk` or `disk-without-agent`. Without an agent, `running` means that the machine
    /// runs, not that the guest is up; the guest has a serial console and a network, and everything
    /// that needs an agent is refused: exec, files, metrics, volumes, a workload. It is stopped without
    /// being asked.
    pub boot_from: String,
    /// `bridged`, or `vsock` without a network card.
    #[serde(default = "bridged")]
    pub network_mode: String,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// RFC 3339, UTC.
    pub updated_at: String,
    /// When its time is over, if it has an end: RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// What follows that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_expiry: Option<OnExpiryWord>,
    /// The latest start.
    pub boot: BootView,
}

/// The latest start of a VM.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct BootView {
    /// Returns of KVM_RUN until the agent answered.
    pub exits: u64,
    /// What happened when.
    pub steps: Vec<BootStepView>,
}

/// One step of a start.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BootStepView {
    /// Stable word.
    pub step: String,
    /// Microseconds since the request was accepted.
    pub at_us: u64,
}

/// `POST /api/v1/vms/{name}/exec`. Either `argv` or `command`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("oneOf" = [{ "required": ["argv"] }, { "required": ["command"] }]))]
pub struct ExecBody {
    /// Program and arguments.
    #[schemars(length(min = 1))]
    pub argv: Vec<String>,
    /// A line for `/bin/sh -c`.
    pub command: Option<String>,
    /// Added to the guest's environment.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub cwd: Option<String>,
    /// `name`, `uid` or `uid:gid`.
    pub user: Option<String>,
    /// Text for stdin.
    pub stdin: Option<String>,
    /// Bytes for stdin, base64.
    pub stdin_base64: Option<String>,
    /// The process tree is killed after this many milliseconds.
    pub timeout_ms: Option<u64>,
    /// The process tree is killed when nothing moved for this many milliseconds.
    pub idle_timeout_ms: Option<u64>,
}

/// How a process ended: the answer's tail, the data of the SSE event `exit`, and a workload's last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExitView {
    /// Exit code; absent when a signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Number of the signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// A deadline killed it.
    #[serde(default)]
    pub timed_out: bool,
    /// Which one: `total` or `idle`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// Why it never ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The buffered answer of exec.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ExecView {
    /// How it ended.
    #[serde(flatten)]
    pub exit: ExitView,
    /// Output, as text or base64.
    pub stdout: String,
    /// `utf-8` or `base64`.
    pub stdout_encoding: String,
    /// Errors, as text or base64.
    pub stderr: String,
    /// `utf-8` or `base64`.
    pub stderr_encoding: String,
}

/// Data of the SSE events `stdout` and `stderr`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChunkView {
    /// Bytes, base64.
    pub data: String,
}

/// Data of the SSE event `gap`: output was dropped before the client came to it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GapView {
    /// So many bytes.
    pub lost: u64,
}

/// RFC 9457 problem, with the original's `error`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// `urn:volant:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What went wrong, for a person.
    pub detail: String,
    /// Stable word.
    pub code: String,
    /// Same as `detail`, for clients of the original.
    pub error: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Each field that was refused, where the body is a document.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ProblemField>,
}

/// One refused field (RFC 9457, 3.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProblemField {
    /// JSON pointer (RFC 6901).
    pub pointer: String,
    /// What is wrong and what is allowed.
    pub detail: String,
}

impl Problem {
    /// A problem; `title` is the status in words.
    pub fn new(
        status: u16,
        title: &str,
        code: &str,
        detail: String,
        hint: Option<&str>,
    ) -> Problem {
        Problem {
            kind: format!("urn:volant:problem:{code}"),
            title: title.to_owned(),
            status,
            code: code.to_owned(),
            error: detail.clone(),
            detail,
            hint: hint.map(str::to_owned),
            errors: Vec::new(),
        }
    }
}

/// `GET /api/v1/system/info`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SystemInfo {
    /// `ok`.
    pub status: String,
    /// Version of the daemon.
    pub version: String,
    /// VMs by status.
    pub vms: BTreeMap<String, usize>,
}

/// `GET /healthz`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
}
