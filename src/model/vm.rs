//! The VM: what the user asked for, and what is true of it now.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use volant_protocol::{WorkloadCondition, WorkloadReport};

use crate::model::{
    BootFrom, CloudInit, Expiry, Exposure, ImageRoot, ImageWish, Medium, NetworkMode, Overlay,
    PluginRef, VmName, VolumeMount, Workload,
};

/// A VM's number: never used again after the VM is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VmId(pub i64);

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// What the user asked for. Checked by [`VmSpec::validate`] before it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmSpec {
    /// Virtual CPUs, 1 to [`VmSpec::VCPUS_MAX`].
    pub vcpus: u32,
    /// Guest RAM in MiB, at least [`VmSpec::MEMORY_MIB_MIN`].
    pub memory_mib: u64,
    /// Kernel to boot; the configured default if absent.
    pub kernel: Option<PathBuf>,
    /// Initramfs to boot; the default runtime's if absent.
    pub initramfs: Option<PathBuf>,
    /// Words appended to the kernel command line.
    pub kernel_cmdline: String,
    /// Environment of everything the agent starts.
    pub env: BTreeMap<String, String>,
    /// Whether the guest gets a serial console.
    pub console: bool,
    /// Disks, `/dev/vda` first; at most [`VmSpec::DISKS_MAX`].
    pub disks: Vec<Disk>,
    /// How an ELF kernel is entered.
    pub boot_protocol: BootProtocol,
    /// What the agent starts and keeps alive; none leaves the guest to exec.
    pub workload: Option<Workload>,
    /// The image that is the guest's root; none leaves it in the initramfs.
    pub image: Option<ImageRoot>,
    /// Volumes; at most [`VmSpec::VOLUMES_MAX`].
    pub volumes: Vec<VolumeMount>,
    /// What the kernel starts from.
    pub boot_from: BootFrom,
    /// Seed for a guest that runs cloud-init.
    pub cloud_init: Option<CloudInit>,
    /// How it is connected.
    pub network: NetworkMode,
}

/// A disk in a raw file of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// A regular file or block device.
    pub path: PathBuf,
    /// The guest cannot write.
    pub readonly: bool,
    /// The guest writes to a copy of its own, which lives as long as the VM.
    pub private: bool,
}

/// How an ELF kernel is entered. A bzImage has one way only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootProtocol {
    /// PVH if the kernel offers it, the 64-bit protocol otherwise.
    Auto,
    /// PVH.
    Pvh,
    /// The 64-bit boot protocol.
    Linux64,
}

impl BootProtocol {
    /// All of them, with the word for each on the wire and in the store.
    pub const WORDS: [(BootProtocol, &'static str); 3] = [
        (BootProtocol::Auto, "auto"),
        (BootProtocol::Pvh, "pvh"),
        (BootProtocol::Linux64, "linux64"),
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        let found = BootProtocol::WORDS.iter().find(|(protocol, _)| *protocol == self);
        found.map_or("auto", |(_, word)| word)
    }

    /// The protocol of that word.
    pub fn from_word(word: &str) -> Option<BootProtocol> {
        BootProtocol::WORDS.iter().find(|(_, known)| *known == word).map(|(protocol, _)| *protocol)
    }
}

/// Why a specification was refused; `field` is the name on the wire.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct InvalidSpec {
    /// The offending field.
    pub field: &'static str,
    /// What is wrong with it and what is allowed.
    pub reason: String,
}

impl VmSpec {
    /// As many vCPUs as one MP table and the tests cover.
    pub const VCPUS_MAX: u32 = 32;
    /// Below this the default guest cannot unpack its initramfs.
    pub const MEMORY_MIB_MIN: u64 = 64;
    /// The guest's address space is laid out for at most this much.
    pub const MEMORY_MIB_MAX: u64 = 1024 * 1024;
    /// Room on the kernel command line after the daemon's own words.
    pub const KERNEL_CMDLINE_LEN_MAX: usize = 1024;
    /// Variables of environment.
    pub const ENV_MAX: usize = 256;
    /// Disks.
    pub const DISKS_MAX: usize = 8;
    /// Volumes.
    pub const VOLUMES_MAX: usize = 8;
    /// Disks and volumes together: a machine has 19 places, and uses others itself.
    pub const DEVICES_MAX: usize = 12;

    /// Checks every limit that does not depend on the host.
    ///
    /// # Errors
    /// The first field that breaks a rule.
    pub fn validate(&self) -> Result<(), InvalidSpec> {
        let refuse = |field, reason| Err(InvalidSpec { field, reason });
        if self.vcpus < 1 || VmSpec::VCPUS_MAX < self.vcpus {
            let reason = format!("1 to {} vCPUs, not {}", VmSpec::VCPUS_MAX, self.vcpus);
            return refuse("cpu_cores", reason);
        }
        if self.memory_mib < VmSpec::MEMORY_MIB_MIN || VmSpec::MEMORY_MIB_MAX < self.memory_mib {
            let (min, max) = (VmSpec::MEMORY_MIB_MIN, VmSpec::MEMORY_MIB_MAX);
            return refuse("memory_mb", format!("{min} to {max} MiB, not {}", self.memory_mib));
        }
        if VmSpec::KERNEL_CMDLINE_LEN_MAX < self.kernel_cmdline.len()
            || !self.kernel_cmdline.chars().all(|c| matches!(c, ' '..='~'))
        {
            let max = VmSpec::KERNEL_CMDLINE_LEN_MAX;
            return refuse("kernel_cmdline", format!("at most {max} printable ASCII characters"));
        }
        let bad_name = |name: &str| name.is_empty() || name.contains(['=', '\0']);
        if VmSpec::ENV_MAX < self.env.len()
            || self.env.iter().any(|(name, value)| bad_name(name) || value.contains('\0'))
        {
            let reason = format!("at most {} variables, names without '='", VmSpec::ENV_MAX);
            return refuse("env", reason);
        }
        if VmSpec::DISKS_MAX < self.disks.len() {
            return refuse("disks", format!("at most {} disks", VmSpec::DISKS_MAX));
        }
        let devices = self.disks.len() + self.volumes.len();
        if VmSpec::VOLUMES_MAX < self.volumes.len() || VmSpec::DEVICES_MAX < devices {
            let (max, both) = (VmSpec::VOLUMES_MAX, VmSpec::DEVICES_MAX);
            return refuse("volumes", format!("at most {max} volumes, {both} with disks"));
        }
        VolumeMount::check(&self.volumes)?;
        if let Some(seed) = &self.cloud_init {
            seed.check()?;
        }
        if self.boot_from.is_disk() {
            if self.disks.is_empty() || self.image.is_some() || self.initramfs.is_some() {
                let reason = "a disk to boot from, and neither image nor initramfs".to_owned();
                return refuse("boot_from", reason);
            }
            if !self.boot_from.has_agent() && !self.network.has_card() {
                let reason = "a guest without an agent is reached by its network only".to_owned();
                return refuse("network_mode", reason);
            }
            let for_agent = self.workload.is_some() || !self.volumes.is_empty();
            if !self.boot_from.has_agent() && for_agent {
                let reason = "nobody would start a workload or mount volumes".to_owned();
                return refuse("boot_from", reason);
            }
        }
        if let Some(ImageRoot { overlay: Overlay::Persistent { mib }, .. }) = &self.image
            && !(Overlay::MIB_MIN..=Overlay::MIB_MAX).contains(mib)
        {
            let (min, max) = (Overlay::MIB_MIN, Overlay::MIB_MAX);
            return refuse("overlay_mb", format!("{min} to {max} MiB, not {mib}"));
        }
        Ok(())
    }
}

/// Where a VM is in its life.
///
/// ```text
///            create                    agent answers
///   (none) ────────▶ Starting ───────────────────────▶ Running
///                      ▲  │ fault, deadline               │ stop
///                start │  ▼                               ▼
///                    Stopped ◀───────────────────────── Stopping
///                      ▲    guest powers off, resets, stops
///                      │ (start, as from Stopped)
///                    Failed{reason} ◀── fault, panic while Starting or Running
///   any ── delete ──▶ Deleting ──▶ (none)
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmState {
    /// A machine is being built or is booting; the agent has not answered yet.
    Starting,
    /// The agent has answered.
    Running,
    /// A stop was asked for; the guest has a deadline to go.
    Stopping,
    /// No machine. The record, its address and its disks stay.
    Stopped,
    /// No machine, and not by anyone's wish.
    Failed {
        /// One sentence for the user.
        reason: String,
    },
    /// Everything of it is being removed.
    Deleting,
}

impl VmState {
    /// The word used on the wire and in the store.
    pub fn as_str(&self) -> &'static str {
        match self {
            VmState::Starting => "starting",
            VmState::Running => "running",
            VmState::Stopping => "stopping",
            VmState::Stopped => "stopped",
            VmState::Failed { .. } => "failed",
            VmState::Deleting => "deleting",
        }
    }
}

/// What `create` stores before anything else exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVm {
    /// Unique name.
    pub name: VmName,
    /// What it runs.
    pub spec: VmSpec,
    /// The class of workload; `default` without a plugin.
    pub runtime: String,
    /// The plugin that it is made of.
    pub plugin: Option<PluginRef>,
    /// Names and values for people and programs.
    pub labels: BTreeMap<String, String>,
    /// The image that it wishes to run; the specification has it once it has been found.
    pub image: Option<ImageWish>,
    /// Files that are brought first; the specification has their paths then.
    pub media: Vec<Medium>,
    /// When its time is over, if it has an end.
    pub expiry: Option<Expiry>,
    /// Ports of the host that lead to it.
    pub exposures: Vec<Exposure>,
}

/// One step of a start, for the boot timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootStep {
    /// Stable snake_case word, e.g. `agent_ready`.
    pub step: &'static str,
    /// Microseconds since the request was accepted.
    pub at_us: u64,
}

/// The record of a VM as the orchestrator shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vm {
    /// Number.
    pub id: VmId,
    /// Name.
    pub name: VmName,
    /// What it runs.
    pub spec: VmSpec,
    /// The class of workload.
    pub runtime: String,
    /// The plugin that it is made of.
    pub plugin: Option<PluginRef>,
    /// Names and values for people and programs.
    pub labels: BTreeMap<String, String>,
    /// Where it is in its life.
    pub state: VmState,
    /// Leased address, for as long as the record lives; without a network card nobody has it.
    pub ip: Ipv4Addr,
    /// Address of its network card.
    pub mac: Mac,
    /// vsock context id, at least 3.
    pub cid: u32,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: i64,
    /// Milliseconds since the Unix epoch.
    pub updated_at_ms: i64,
    /// When its time is over, if it has an end.
    pub expiry: Option<Expiry>,
    /// Steps of the latest start; empty when the daemon has not started it itself.
    pub timeline: Vec<BootStep>,
    /// KVM_RUN returns of the latest start until the agent answered; 0 before.
    pub boot_exits: u64,
    /// What its workload last said; none without a workload, without a machine, and before the first
    /// report.
    pub workload: Option<WorkloadReport>,
}

impl Vm {
    /// Where the guest is on the bridge, if it has a network card.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.spec.network.has_card().then_some(self.ip)
    }

    /// Whether it does what it is there for: it runs, and its workload, if it has one, is ready.
    pub fn is_ready(&self) -> bool {
        let workload_ready = match (&self.spec.workload, &self.workload) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(_), Some(report)) => report.condition == WorkloadCondition::Ready,
        };
        self.state == VmState::Running && workload_ready
    }

    /// Whether it is not ready, but may be soon without anyone's doing.
    pub fn is_coming_up(&self) -> bool {
        match self.state {
            VmState::Starting => true,
            VmState::Running => match (&self.spec.workload, &self.workload) {
                (None, _) => false,
                (Some(_), None) => true,
                (Some(_), Some(report)) => matches!(
                    report.condition,
                    WorkloadCondition::Starting | WorkloadCondition::Restarting
                ),
            },
            VmState::Stopping | VmState::Stopped | VmState::Failed { .. } | VmState::Deleting => {
                false
            }
        }
    }
}
