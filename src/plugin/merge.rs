//! Manifest and request made into one VM. Pure: the request wins over the manifest, the manifest over
//! the system's defaults.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::model::{
    BootFrom, BootProtocol, CloudInit, Digest, Disk, Exposure, ImageWish, InvalidReference, Medium,
    MediumFormat, MediumRole, NetworkMode, NewVm, PluginName, PluginRef, PluginVersion, Transport,
    VmName, VmSpec, VolumeMount, VolumeName,
};
use crate::plugin::manifest::{
    CloudInit as Seed, Format, Manifest, NetworkMode as Mode, PortProtocol, SeedDocument, Volume,
};
use crate::plugin::parse::Refused;
use crate::plugin::rules::{self, BUILTIN_INITRAMFS};
use crate::plugin::workload;

const VCPUS_DEFAULT: u32 = 1;
const MEMORY_MIB_DEFAULT: u64 = 256;
const RUNTIME_DEFAULT: &str = "default";
/// Of a manifest's volume that names no size; what is not written takes nothing.
const VOLUME_MIB_DEFAULT: u64 = 10 << 10;

/// What a client asks for; what it leaves out is the manifest's or the system's to say.
#[derive(Clone, Debug)]
pub struct VmRequest {
    /// Unique name.
    pub name: VmName,
    /// The class of workload; must be the manifest's.
    pub runtime: Option<String>,
    /// Virtual CPUs.
    pub vcpus: Option<u32>,
    /// Guest RAM in MiB.
    pub memory_mib: Option<u64>,
    /// Kernel on the host.
    pub kernel: Option<PathBuf>,
    /// Initramfs on the host.
    pub initramfs: Option<PathBuf>,
    /// Words for the kernel command line.
    pub kernel_cmdline: String,
    /// Environment; wins over the manifest's by variable.
    pub env: BTreeMap<String, String>,
    /// Labels; win over the manifest's by name, but for those that volantd sets itself.
    pub labels: BTreeMap<String, String>,
    /// Whether there is a serial console.
    pub console: bool,
    /// Disks; follow the manifest's.
    pub disks: Vec<Disk>,
    /// How an ELF kernel is entered.
    pub boot_protocol: BootProtocol,
    /// Image that becomes the root; wins over the manifest's.
    pub image: Option<ImageWish>,
    /// Volumes; one takes the place of the manifest's at the same path.
    pub volumes: Vec<VolumeMount>,
    /// Take downloads that the manifest has no checksum of.
    pub insecure: bool,
    /// What the kernel starts from; wins over what follows from the manifest.
    pub boot_from: Option<BootFrom>,
    /// Documents; each wins over the manifest's.
    pub cloud_init: Option<CloudInit>,
    /// Ports of the host that lead to it; one wins over the manifest's of the same port.
    pub exposures: Vec<Exposure>,
    /// How it is connected; wins over the manifest's.
    pub network: Option<NetworkMode>,
}

impl VmRequest {
    /// One that leaves everything but the name to the manifest and the system.
    pub fn named(name: VmName) -> VmRequest {
        VmRequest {
            name,
            runtime: None,
            vcpus: None,
            memory_mib: None,
            kernel: None,
            initramfs: None,
            kernel_cmdline: String::new(),
            env: BTreeMap::new(),
            labels: BTreeMap::new(),
            console: true,
            disks: Vec::new(),
            boot_protocol: BootProtocol::Auto,
            image: None,
            volumes: Vec::new(),
            insecure: false,
            boot_from: None,
            cloud_init: None,
            exposures: Vec::new(),
            network: None,
        }
    }
}

/// Why manifest and request do not make a VM.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// The request's runtime is not the manifest's.
    #[error("the plugin's runtime is {manifest:?}, not {request:?}")]
    Runtime {
        /// The manifest's.
        manifest: String,
        /// The request's.
        request: String,
    },
    /// A label breaks a rule.
    #[error("label {name:?}: {reason}")]
    Label {
        /// Its name.
        name: String,
        /// The rule.
        reason: &'static str,
    },
    /// The manifest asks for what this daemon cannot do.
    #[error("the manifest's {pointer}: {reason}", pointer = .0.pointer, reason = .0.reason)]
    Unsupported(Refused),
}

/// Makes the VM that `request` describes, of the plugin of `manifest` if there is one.
///
/// # Errors
/// [`MergeError`].
pub fn merge(manifest: Option<&Manifest>, request: VmRequest) -> Result<NewVm, MergeError> {
    for (name, value) in &request.labels {
        rules::label(name, value)
            .map_err(|reason| MergeError::Label { name: name.clone(), reason })?;
    }
    let resources = manifest.map(|manifest| &manifest.resources);
    let vcpus = request.vcpus.or(resources.map(|resources| resources.cpu_cores));
    let memory_mib = request.memory_mib.or(resources.map(|resources| resources.memory_mb));
    let mut spec = VmSpec {
        vcpus: vcpus.unwrap_or(VCPUS_DEFAULT),
        memory_mib: memory_mib.unwrap_or(MEMORY_MIB_DEFAULT),
        kernel: request.kernel,
        initramfs: request.initramfs,
        kernel_cmdline: request.kernel_cmdline,
        env: request.env.clone(),
        console: request.console,
        disks: request.disks,
        boot_protocol: request.boot_protocol,
        workload: None,
        image: None,
        volumes: request.volumes,
        boot_from: request.boot_from.unwrap_or_default(),
        cloud_init: request.cloud_init,
        network: request.network.or_else(|| manifest.and_then(network)).unwrap_or_default(),
    };
    let Some(manifest) = manifest else {
        let runtime = request.runtime.unwrap_or_else(|| RUNTIME_DEFAULT.to_owned());
        let (name, labels, image) = (request.name, request.labels, request.image);
        let (plugin, media, exposures) = (None, Vec::new(), request.exposures);
        let expiry = None;
        return Ok(NewVm { name, spec, runtime, plugin, labels, image, media, expiry, exposures });
    };
    if let Some(wanted) = request.runtime.filter(|wanted| *wanted != manifest.runtime) {
        return Err(MergeError::Runtime { manifest: manifest.runtime.clone(), request: wanted });
    }
    if let Some(refused) = unsupported(manifest) {
        return Err(unsupported_by(refused));
    }
    let media = media(manifest, &mut spec, request.insecure)?;
    spec.boot_from = request.boot_from.unwrap_or_else(|| boot_from(manifest, &spec));
    spec.cloud_init = match (manifest.cloud_init.as_ref().map(documents), spec.cloud_init) {
        (Some(own), Some(over)) => Some(own.overridden_by(over)),
        (own, over) => own.or(over),
    };
    spec.volumes = volumes(&manifest.volumes, &request.name, &spec.volumes)?;
    spec.env = with(&manifest.env, &request.env);
    let said = workload::plain(manifest).map(|mut said| {
        workload::drop_env(&mut said, &request.env);
        said
    });
    // An image may say itself what it runs; what the manifest says beside that is kept for it.
    let (own, for_image) = match said {
        Some(said) if said.argv.is_empty() => (None, Some(said)),
        said => (said, None),
    };
    spec.workload =
        own.map(|own| workload::checked(own, manifest)).transpose().map_err(unsupported_by)?;
    let mut labels = with(&manifest.labels, &request.labels);
    let own = [("volant.plugin", &manifest.name), ("volant.runtime", &manifest.runtime)];
    labels.extend(own.map(|(name, value)| (name.to_owned(), value.clone())));
    let plugin = Some(reference(manifest)?);
    let runtime = manifest.runtime.clone();
    let image = match (request.image, &manifest.image) {
        (None, Some(name)) => Some(manifest_image(name, manifest)?),
        (image, _) => image,
    };
    let image = image.map(|wish| ImageWish { workload: for_image, ..wish });
    let (name, exposures) = (request.name, exposures(manifest, request.exposures));
    Ok(NewVm { name, spec, runtime, plugin, labels, image, media, expiry: None, exposures })
}

fn unsupported_by(refused: Refused) -> MergeError {
    MergeError::Unsupported(refused)
}

/// Name and version of a manifest.
fn reference(manifest: &Manifest) -> Result<PluginRef, MergeError> {
    let refused = |pointer: &str, error: crate::model::InvalidWord| {
        unsupported_by(Refused::new(pointer, error.to_string()))
    };
    let name = PluginName::try_from(manifest.name.as_str());
    let version = PluginVersion::try_from(manifest.version.as_str());
    Ok(PluginRef {
        name: name.map_err(|error| refused("/name", error))?,
        version: version.map_err(|error| refused("/version", error))?,
    })
}

/// The manifest's volumes, of this VM, and those of the request. One that the guest may write to is
/// the VM's own, by its name, and made if there is none: a VM of the same name finds it again. One
/// that it may only read is shared, by the name in the manifest, and must be there.
fn volumes(
    manifest: &[Volume],
    vm: &VmName,
    request: &[VolumeMount],
) -> Result<Vec<VolumeMount>, MergeError> {
    let is_free = |volume: &&Volume| !request.iter().any(|mount| mount.path == volume.path);
    let mount = |volume: &Volume| {
        let name = match volume.readonly {
            true => VolumeName::try_from(volume.name.as_str()),
            false => VolumeName::of_vm(vm, &volume.name),
        };
        let name = name.map_err(|error| unsupported_by(Refused::new("/volumes", error.reason)))?;
        let mib = volume.size_mb.unwrap_or(VOLUME_MIB_DEFAULT);
        Ok(VolumeMount {
            volume: name,
            path: volume.path.clone(),
            readonly: volume.readonly,
            make_mib: (!volume.readonly).then_some(mib),
        })
    };
    let own = manifest.iter().filter(is_free).map(mount).collect::<Result<Vec<_>, _>>()?;
    Ok(own.into_iter().chain(request.iter().cloned()).collect())
}

/// The manifest's image, pinned by its digest if it names one.
fn manifest_image(name: &str, manifest: &Manifest) -> Result<ImageWish, MergeError> {
    let refused =
        |pointer, error: InvalidReference| unsupported_by(Refused::new(pointer, error.to_string()));
    let digest = manifest.image_digest.as_deref().map(Digest::try_from).transpose();
    let workload = manifest.workload.as_ref();
    let own_program = workload.is_none_or(|section| section.entrypoint.as_slice().is_empty());
    let args = workload.map(|section| section.args.clone()).filter(|_| own_program);
    Ok(ImageWish {
        name: name.to_owned(),
        digest: digest.map_err(|error| refused("/image_digest", error))?,
        command: args.unwrap_or_default(),
        bring: true,
        ..ImageWish::default()
    })
}

fn with(
    base: &BTreeMap<String, String>,
    over: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut all = base.clone();
    all.extend(over.clone());
    all
}

/// A checksum as a digest; others than SHA-256 cannot be looked at.
fn digest(checksum: &str) -> Option<Digest> {
    let hex = checksum.strip_prefix("sha256:").unwrap_or(checksum);
    Digest::from_hex(&hex.to_ascii_lowercase())
}

/// The digests of the files that a manifest names.
pub fn digests_of(manifest: &Manifest) -> Vec<Digest> {
    let checksums = manifest.disks.iter().map(|disk| disk.checksum.as_deref());
    let initramfs = manifest.initramfs.as_ref().map(|medium| medium.checksum.as_deref());
    let rootfs = manifest.rootfs.as_ref().map(|medium| medium.checksum.as_deref());
    let rootfs = rootfs.map(|checksum| checksum.or(manifest.checksum.as_deref()));
    checksums.chain(initramfs).chain(rootfs).flatten().filter_map(digest).collect()
}

/// A disk of its own is what a VM starts from unless there is an initramfs.
fn boot_from(manifest: &Manifest, spec: &VmSpec) -> BootFrom {
    let format = manifest.rootfs.as_ref().map(|rootfs| rootfs.format);
    let is_disk = matches!(format, Some(Format::Raw | Format::Qcow2));
    match is_disk && manifest.initramfs.is_none() && spec.initramfs.is_none() {
        true if manifest.agent => BootFrom::Disk,
        true => BootFrom::DiskWithoutAgent,
        false => BootFrom::Initramfs,
    }
}

/// How the manifest's VMs are connected, if it says.
fn network(manifest: &Manifest) -> Option<NetworkMode> {
    manifest.network.as_ref().map(|network| match network.mode {
        Mode::Vsock => NetworkMode::Vsock,
        Mode::Bridged | Mode::Dhcp => NetworkMode::Bridged,
    })
}

fn documents(seed: &Seed) -> CloudInit {
    let text = |document: &Option<SeedDocument>| {
        document.as_ref().and_then(|document| document.content.clone())
    };
    CloudInit {
        user_data: text(&seed.user_data),
        meta_data: text(&seed.meta_data),
        network_config: text(&seed.network_config),
    }
}

/// Fills in the files that a manifest names. Those that come from elsewhere, are packed, or have a
/// checksum, go through the store; a file of the host without one is taken where it is.
fn media(
    manifest: &Manifest,
    spec: &mut VmSpec,
    insecure: bool,
) -> Result<Vec<Medium>, MergeError> {
    let mut media = Vec::new();
    let mut medium = |role, pointer: &str, url: &str, checksum: Option<&str>, format| {
        let refused = |reason: &str| unsupported_by(Refused::new(pointer, reason));
        let path = host_path(url);
        let wrong = || refused("only SHA-256 checksums can be checked: 64 digits");
        let digest = checksum.map(|checksum| digest(checksum).ok_or_else(wrong)).transpose()?;
        if path.is_none() && digest.is_none() && !insecure {
            return Err(refused("a download needs a checksum (or --insecure)"));
        }
        let in_place = role != MediumRole::Root && format == MediumFormat::Raw;
        if path.is_some() && digest.is_none() && in_place {
            return Ok(path);
        }
        let source =
            path.map_or_else(|| url.to_owned(), |path| path.to_string_lossy().into_owned());
        media.push(Medium { role, source, digest, format });
        Ok(None)
    };
    if spec.initramfs.is_none()
        && let Some(initramfs) = &manifest.initramfs
        && initramfs.url != BUILTIN_INITRAMFS
    {
        let (role, checksum) = (MediumRole::Initramfs, initramfs.checksum.as_deref());
        let pointer = "/initramfs/url";
        spec.initramfs = medium(role, pointer, &initramfs.url, checksum, MediumFormat::Raw)?;
    }
    let mut disks = Vec::new();
    if let Some(rootfs) = &manifest.rootfs {
        let checksum = rootfs.checksum.as_deref().or(manifest.checksum.as_deref());
        let (role, format) = match rootfs.format {
            Format::Raw => (MediumRole::Disk(0), MediumFormat::Raw),
            Format::Qcow2 => (MediumRole::Disk(0), MediumFormat::Qcow2),
            _ => (MediumRole::Root, MediumFormat::Raw),
        };
        let path = medium(role, "/rootfs/url", &rootfs.url, checksum, format)?;
        if role != MediumRole::Root {
            disks.push(Disk { path: path.unwrap_or_default(), readonly: false, private: true });
        }
    }
    for (index, disk) in manifest.disks.iter().enumerate() {
        let format = match disk.format {
            Format::Qcow2 => MediumFormat::Qcow2,
            _ => MediumFormat::Raw,
        };
        let (role, checksum) = (MediumRole::Disk(disks.len()), disk.checksum.as_deref());
        let pointer = format!("/disks/{index}/source");
        let path = medium(role, &pointer, &disk.source, checksum, format)?;
        let (path, readonly) = (path.unwrap_or_default(), disk.readonly);
        disks.push(Disk { path, readonly, private: false });
    }
    disks.append(&mut spec.disks);
    spec.disks = disks;
    Ok(media)
}

/// The manifest's ports that lead out, on all addresses of the host, and what is asked for.
fn exposures(manifest: &Manifest, asked: Vec<Exposure>) -> Vec<Exposure> {
    let network = manifest.network.iter().flat_map(|network| &network.expose);
    let published = manifest.ports.iter().chain(network).filter_map(|port| {
        let transport = match port.protocol {
            PortProtocol::Tcp => Transport::Tcp,
            PortProtocol::Udp => Transport::Udp,
        };
        let (guest_port, host_port) = (port.port, port.host_port?);
        Some(Exposure { transport, host_ip: Ipv4Addr::UNSPECIFIED, host_port, guest_port })
    });
    let same = |one: &Exposure, two: &Exposure| {
        (one.transport, one.guest_port) == (two.transport, two.guest_port)
    };
    let mut all: Vec<Exposure> = Vec::new();
    for exposure in published {
        if !all.contains(&exposure) && !asked.iter().any(|own| same(own, &exposure)) {
            all.push(exposure);
        }
    }
    all.extend(asked);
    all
}

/// The path of `file://` or an absolute path.
fn host_path(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("file://").unwrap_or(url);
    path.starts_with('/').then(|| path.into())
}

/// The first thing in a manifest that this daemon has no means for: such a VM is refused rather than
/// made without it.
fn unsupported(manifest: &Manifest) -> Option<Refused> {
    let rootfs = manifest.rootfs.as_ref();
    let network = manifest.network.as_ref();
    let table = [
        (
            matches!(rootfs.map(|rootfs| rootfs.format), Some(Format::Xfs | Format::Btrfs)),
            "/rootfs/format",
            "the guest's kernel has neither xfs nor btrfs",
        ),
        (
            network.is_some_and(|network| network.mode == Mode::Dhcp),
            "/network/mode",
            "bridged or vsock: the daemon leases addresses itself, and tells them to its guests",
        ),
        (
            network.is_some_and(|network| network.subnet.is_some() || network.gateway.is_some()),
            "/network/subnet",
            "networks of their own are not supported yet",
        ),
        (
            manifest.devices.as_ref().is_some_and(|devices| !devices.pci_passthrough.is_empty()),
            "/devices",
            "PCI passthrough is not supported yet",
        ),
    ];
    let found = table.into_iter().find(|(lacks, ..)| *lacks);
    found.map(|(_, pointer, reason)| Refused::new(pointer, reason))
}
