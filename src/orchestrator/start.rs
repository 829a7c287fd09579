//! From a stored intent to a guest whose agent has answered, in phases. A phase that fails undoes
//! what was made: every resource has an owner that cleans up.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::MemfdFlags;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use volant_protocol::{AgentInfo, GuestConfig, HOST_PORT, NetworkConfig, RootConfig};

use crate::agent;
use crate::artifact::{self, ArtifactError, NamedBy, partition, seed};
use crate::model::{self, BootStep, CloudInit, Disk, Overlay, Vm, VmSpec};
use crate::net::{Attachment, Permit, Port};
use crate::orchestrator::machine::{Live, accept};
use crate::orchestrator::{Error, Shared, cmdline, overlay, volumes};
use crate::sys::crash;
use crate::vmm::{self, BootProtocol, Console, DiskSpec, Exit, NetSpec, Spec, check_images};

/// Bytes of the console quoted when a guest does not come up.
const CONSOLE_TAIL_LEN: usize = 200;

/// A guest that runs.
#[derive(Debug)]
pub struct Started {
    /// Its machine.
    pub live: Live,
    /// How the machine ends.
    pub exit: oneshot::Receiver<Exit>,
    /// Its right to send, if it has a network card.
    pub permit: Option<Permit>,
    /// What took how long.
    pub timeline: Vec<BootStep>,
    /// KVM_RUN returns until the agent answered.
    pub exits: u64,
    /// What the agent says of itself, if there is one.
    pub agent: Option<AgentInfo>,
}

struct Clock {
    began: Instant,
    steps: Vec<BootStep>,
}

impl Clock {
    fn mark(&mut self, step: &'static str) {
        let at_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.steps.push(BootStep { step, at_us });
    }

    /// Adds what the machine has timed by itself, from the beginning of its building on.
    fn first_instruction(&mut self, since_build_ns: u64) {
        let built = self.steps.iter().find(|step| step.step == "tap_ready");
        let at_us = built.map_or(0, |step| step.at_us) + since_build_ns / 1000;
        self.steps.push(BootStep { step: "first_instruction", at_us });
        self.steps.sort_by_key(|step| step.at_us);
    }
}

/// Starts `vm`. `publish` gets the machine's console and vsock as soon as they exist. When
/// `interrupted` is cancelled the machine is ended as if it had failed.
///
/// # Errors
/// One sentence for the user.
pub async fn run(
    shared: &Shared,
    vm: &Vm,
    began: Instant,
    interrupted: &CancellationToken,
    publish: impl Fn(&Live),
) -> Result<Started, String> {
    let mut clock = Clock { began, steps: Vec::new() };
    clock.mark("stored");
    let opened = open_images(shared, &vm.spec).map_err(|error| error.to_string());
    let (kernel, initramfs) = opened?;
    let mut disks = open_disks(shared, vm).await?;
    disks.extend(image_disks(shared, vm).await?);
    disks.extend(volumes::open_disks(shared, vm).await?);
    let root = vm.spec.boot_from.is_disk().then(|| root_device(&disks)).transpose()?;
    disks.extend(seed_disk(vm)?);
    clock.mark("files_open");
    let (net, permit) = attach(shared, vm).await?.unzip();
    clock.mark("tap_ready");
    let cmdline = cmdline::for_vm(vm, shared.network.config(), root.as_deref());
    let machine = machine_spec(shared, vm, (kernel, initramfs), disks, (net, cmdline));
    let (live, mut exit) = Live::build(shared.hypervisor.clone(), machine).await?;
    clock.mark("machine_built");
    crash::point("start.built");
    let Some(machine) = live.machine() else { return Err("no machine".to_owned()) };
    let vsock = machine.vsock();
    let mut listener = vsock.listen(HOST_PORT).map_err(|error| error.to_string())?;
    publish(&live);
    machine.resume();
    clock.mark("vcpus_started");
    crash::point("start.resumed");
    let config = guest_config(shared, vm);
    let answered = async {
        if !vm.spec.boot_from.has_agent() {
            return Ok(None);
        }
        let stream = accept(&mut listener).await.map_err(|error| error.to_string())?;
        clock.mark("agent_connected");
        let info = agent::configure(stream, &config).await.map_err(|e| super::chain(&e))?;
        clock.mark("agent_ready");
        Ok::<Option<AgentInfo>, String>(Some(info))
    };
    let limit = shared.config.boot_timeout;
    let outcome = tokio::select! {
        biased;
        ended = &mut exit => Err(format!("the guest ended while booting: {}", reason(ended.ok()))),
        outcome = answered => outcome,
        () = interrupted.cancelled() => Err("it was stopped".to_owned()),
        () = tokio::time::sleep(limit) => Err(format!("the agent did not answer in {} s", limit.as_secs())),
    };
    let agent = match outcome {
        Ok(agent) => agent,
        Err(text) => {
            let tail = console_tail(&machine.console());
            live.stop().await;
            let quoted = format!("{text}; its console ends: {tail}");
            return Err(if tail.is_empty() { text } else { quoted });
        }
    };
    let stats = machine.stats();
    clock.first_instruction(stats.first_instruction_ns);
    crash::point("start.answered");
    Ok(Started { live, exit, permit, timeline: clock.steps, exits: stats.exits, agent })
}

/// The guest's network card and its right to send, if it is to have one.
async fn attach(shared: &Shared, vm: &Vm) -> Result<Option<(NetSpec, Permit)>, String> {
    let Some(ip) = vm.address() else { return Ok(None) };
    let port = Port { vm_id: vm.id, mac: vm.mac, ip };
    let attached = shared.network.attach(port).await.map_err(|e| super::chain(&e))?;
    let Attachment { tap, permit } = attached;
    Ok(Some((NetSpec { tap, mac: vm.mac.0 }, permit)))
}

fn machine_spec(
    shared: &Shared,
    vm: &Vm,
    (kernel, initramfs): (File, Option<File>),
    disks: Vec<DiskSpec>,
    (net, cmdline): (Option<NetSpec>, String),
) -> Spec {
    let spec = &vm.spec;
    Spec {
        label: vm.id.to_string(),
        vcpus: u8::try_from(spec.vcpus).unwrap_or(u8::MAX),
        memory_mib: spec.memory_mib,
        huge_pages: shared.config.huge_pages,
        kernel,
        initramfs,
        cmdline,
        boot_protocol: match spec.boot_protocol {
            model::BootProtocol::Auto => BootProtocol::Auto,
            model::BootProtocol::Pvh => BootProtocol::Pvh,
            model::BootProtocol::Linux64 => BootProtocol::Linux64,
        },
        disks,
        console: spec.console,
        cid: vm.cid,
        net,
    }
}

/// Whether a VM of this specification can be started at all, as far as its files tell. A disk that
/// another VM has in use is no reason to refuse: it may be free when this one starts.
///
/// # Errors
/// The first file that cannot be used.
pub fn check(shared: &Shared, spec: &VmSpec) -> Result<(), Error> {
    let (kernel, initramfs) = open_images(shared, spec)?;
    check_images(&kernel, initramfs.as_ref(), spec.memory_mib).map_err(|error| match error {
        vmm::Error::Image(text) => Error::Image(text),
        vmm::Error::Host { .. } => Error::Internal("an image cannot be looked at"),
    })?;
    for disk in &spec.disks {
        artifact::look_at_disk(&disk.path, by_client(shared))?;
    }
    Ok(())
}

fn open_images(shared: &Shared, spec: &VmSpec) -> Result<(File, Option<File>), ArtifactError> {
    let client = by_client(shared);
    let kernel = match &spec.kernel {
        Some(path) => artifact::open_kernel(path, client)?,
        None => artifact::open_kernel(&shared.config.kernel, NamedBy::Daemon)?,
    };
    let initramfs = match &spec.initramfs {
        _ if spec.boot_from.is_disk() => None,
        Some(path) => Some(artifact::open_initramfs(path, client)?),
        None => Some(artifact::open_initramfs(&shared.config.initramfs, NamedBy::Daemon)?),
    };
    Ok((kernel, initramfs))
}

fn by_client(shared: &Shared) -> NamedBy<'_> {
    NamedBy::Client(&shared.config.sources.folders)
}

/// A disk of the VM's own is copied before its first start.
async fn open_disks(shared: &Shared, vm: &Vm) -> Result<Vec<DiskSpec>, String> {
    let mut disks = Vec::new();
    for (index, disk) in vm.spec.disks.iter().enumerate() {
        let Disk { path, readonly, private } = disk;
        let file = if *private {
            let (folder, id) = (shared.images.overlays().to_owned(), vm.id);
            let from = artifact::open_disk(path, true, by_client(shared));
            let from = from.map_err(|error| error.to_string())?;
            let copied = move || overlay::ensure_copy(&folder, id, index, &from);
            let copied = tokio::task::spawn_blocking(copied).await;
            let path = copied.map_err(|_| "copying a disk panicked".to_owned())??;
            artifact::open_disk(&path, false, NamedBy::Daemon)
        } else {
            artifact::open_disk(path, *readonly, by_client(shared))
        };
        let file = file.map_err(|error| error.to_string())?;
        disks.push(DiskSpec { file, readonly: *readonly, serial: format!("disk-{index}") });
    }
    Ok(disks)
}

/// Where the kernel finds the root on the first disk.
fn root_device(disks: &[DiskSpec]) -> Result<String, String> {
    let disk = disks.first().ok_or("there is no disk to boot from")?;
    match partition::root_of(&disk.file).map_err(|error| format!("the first disk: {error}"))? {
        0 => Ok("/dev/vda".to_owned()),
        number => Ok(format!("/dev/vda{number}")),
    }
}

/// The seed for cloud-init, the last disk, made anew for each start in a file without a name.
fn seed_disk(vm: &Vm) -> Result<Option<DiskSpec>, String> {
    let Some(CloudInit { user_data, meta_data, network_config }) = &vm.spec.cloud_init else {
        return Ok(None);
    };
    let own = format!("instance-id: volant-{}\nlocal-hostname: {}\n", vm.id, vm.name);
    let mut files = vec![
        ("user-data", user_data.as_deref().unwrap_or("#cloud-config\n")),
        ("meta-data", meta_data.as_deref().unwrap_or(&own)),
    ];
    files.extend(network_config.as_deref().map(|text| ("network-config", text)));
    let made = || {
        let bytes = seed::disk(&files)?;
        let mut file = File::from(rustix::fs::memfd_create("seed", MemfdFlags::CLOEXEC)?);
        file.write_all(&bytes)?;
        Ok::<File, std::io::Error>(file)
    };
    let file = made().map_err(|error| format!("make the seed of cloud-init: {error}"))?;
    Ok(Some(DiskSpec { file, readonly: true, serial: "cloud-init".to_owned() }))
}

/// The disks of the VM's image, after its others: the agent finds them by their serials.
async fn image_disks(shared: &Shared, vm: &Vm) -> Result<Vec<DiskSpec>, String> {
    let Some(image) = vm.spec.image.clone() else { return Ok(Vec::new()) };
    let (images, id) = (shared.images.clone(), vm.id);
    let opened = tokio::task::spawn_blocking(move || overlay::open_disks(&images, id, &image));
    opened.await.map_err(|_| "opening the image panicked".to_owned())?
}

/// One sentence for the end of a machine.
pub fn reason(exit: Option<Exit>) -> String {
    match exit {
        Some(Exit::PowerOff) => "the guest powered off".to_owned(),
        Some(Exit::Reset) => "the guest asked for a reset".to_owned(),
        Some(Exit::Crashed) => "the guest crashed (triple fault)".to_owned(),
        Some(Exit::Stopped) => "the machine was stopped".to_owned(),
        Some(Exit::Fault(text)) => text,
        None => "the machine was lost".to_owned(),
    }
}

fn console_tail(console: &Arc<dyn Console>) -> String {
    let (_, bytes) = console.read_from(0, usize::MAX);
    let tail = &bytes[bytes.len().saturating_sub(CONSOLE_TAIL_LEN)..];
    let text = String::from_utf8_lossy(tail);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

fn guest_config(shared: &Shared, vm: &Vm) -> GuestConfig {
    let network = shared.network.config();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    GuestConfig {
        hostname: vm.name.to_string(),
        network: vm.address().map(|address| NetworkConfig {
            address,
            prefix_len: network.subnet.prefix_len,
            gateway: network.host_ip,
            dns: shared.config.dns.clone(),
        }),
        env: vm.spec.env.clone(),
        unix_time_ns: u64::try_from(now.as_nanos()).unwrap_or(0),
        console_shell: vm.spec.console,
        root: vm.spec.image.as_ref().map(|image| RootConfig {
            persistent: matches!(image.overlay, Overlay::Persistent { .. }),
            folders: image.folders.clone(),
        }),
        mounts: volumes::mounts(vm),
        workload: vm.spec.workload.as_ref().map(|workload| workload.plain().clone()),
    }
}
