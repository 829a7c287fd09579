//! Manifest and request made into one VM. Pure: the request wins over the manifest, the manifest over
//! the system's defaults.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::model::{
    BootProtocol, Digest, Disk, ImageWish, InvalidReference, NewVm, PluginName, PluginRef,
    PluginVersion, VmName, VmSpec, VolumeMount, VolumeName,
};
use crate::plugin::manifest::{Format, Manifest, NetworkMode, Volume};
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
    };
    let Some(manifest) = manifest else {
        let runtime = request.runtime.unwrap_or_else(|| RUNTIME_DEFAULT.to_owned());
        let labels = request.labels;
        let image = request.image;
        return Ok(NewVm { name: request.name, spec, runtime, plugin: None, labels, image });
    };
    if let Some(wanted) = request.runtime.filter(|wanted| *wanted != manifest.runtime) {
        return Err(MergeError::Runtime { manifest: manifest.runtime.clone(), request: wanted });
    }
    if let Some(refused) = unsupported(manifest) {
        return Err(unsupported_by(refused));
    }
    if spec.initramfs.is_none()
        && let Some(initramfs) = &manifest.initramfs
        && initramfs.url != BUILTIN_INITRAMFS
    {
        spec.initramfs = host_path(&initramfs.url);
    }
    let disks = manifest
        .disks
        .iter()
        .filter_map(|disk| Some(Disk { path: host_path(&disk.source)?, readonly: disk.readonly }));
    spec.disks = disks.chain(spec.disks).collect();
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
    Ok(NewVm { name: request.name, spec, runtime, plugin, labels, image })
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

/// The path of `file://` or an absolute path.
fn host_path(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("file://").unwrap_or(url);
    path.starts_with('/').then(|| path.into())
}

/// The first thing in a manifest that this daemon has no means for: such a VM is refused rather than
/// made without it.
fn unsupported(manifest: &Manifest) -> Option<Refused> {
    let remote = |url: &str| host_path(url).is_none() && url != BUILTIN_INITRAMFS;
    let download = "downloads are not supported yet; name a file of the host";
    let checksum = "checksums are not supported yet";
    let initramfs = manifest.initramfs.as_ref();
    let modes = [NetworkMode::Vsock, NetworkMode::Dhcp];
    let network = manifest.network.as_ref();
    let published =
        |ports: &[crate::plugin::manifest::Port]| ports.iter().any(|port| port.host_port.is_some());
    let table = [
        (manifest.rootfs.is_some(), "/rootfs", "root file systems are not supported yet"),
        (initramfs.is_some_and(|medium| remote(&medium.url)), "/initramfs/url", download),
        (
            initramfs.is_some_and(|medium| medium.checksum.is_some()),
            "/initramfs/checksum",
            checksum,
        ),
        (manifest.disks.iter().any(|disk| remote(&disk.source)), "/disks", download),
        (manifest.disks.iter().any(|disk| disk.checksum.is_some()), "/disks", checksum),
        (
            manifest.disks.iter().any(|disk| disk.format != Format::Raw),
            "/disks",
            "only raw disks are supported yet",
        ),
        (manifest.cloud_init.is_some(), "/cloud_init", "cloud-init is not supported yet"),
        (
            network.is_some_and(|network| modes.contains(&network.mode)),
            "/network/mode",
            "only bridged is supported yet",
        ),
        (
            network.is_some_and(|network| network.subnet.is_some() || network.gateway.is_some()),
            "/network/subnet",
            "networks of their own are not supported yet",
        ),
        (
            published(&manifest.ports) || network.is_some_and(|net| published(&net.expose)),
            "/ports",
            "publishing ports is not supported yet",
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
