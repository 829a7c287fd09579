//! The model as the wire shows it, and back.

use jiff::Timestamp;
use volant_protocol::{WorkloadCondition, WorkloadReport};

use crate::api::exposures::exposure;
use crate::model::{
    AuditEntry, BootFrom, BootProtocol, CloudInit, Disk, Event, Expiry, Image, ImageRoot,
    ImageWish, InvalidSpec, NetworkMode, OnExpiry, Overlay, PluginArtifact, Token, Vm, VmName,
    VmState, VolumeMount, VolumeName,
};
use crate::orchestrator::{
    self, InstalledVersion, JobState, Orchestrator, Plugin, Progress, VmRequest,
};
use crate::wire::{
    ArtifactView, AuditView, BootStepView, BootView, CloudInitBody, CreateVm, DiskView, EventView,
    ExitView, ImageProgress, ImageView, JobStateWord, JobView, OnExpiryWord, PluginVersionView,
    PluginView, TokenView, VmImageView, VmView, VmVolume, WorkloadView,
};

use crate::api::error::Refusal;

/// A time for clients.
pub fn rfc3339(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| String::new(), |at| format!("{at:.3}"))
}

/// A VM for clients.
pub fn vm(vm: &Vm) -> VmView {
    let steps = vm.timeline.iter();
    let steps = steps.map(|step| BootStepView { step: step.step.to_owned(), at_us: step.at_us });
    VmView {
        id: vm.id.0,
        name: vm.name.to_string(),
        status: vm.state.as_str().to_owned(),
        reason: match &vm.state {
            VmState::Failed { reason } => Some(reason.clone()),
            _ => None,
        },
        ready: vm.is_ready(),
        workload: vm.workload.as_ref().map(workload),
        runtime: vm.runtime.clone(),
        plugin: vm.plugin.as_ref().map(|plugin| plugin.name.to_string()),
        plugin_version: vm.plugin.as_ref().map(|plugin| plugin.version.to_string()),
        labels: vm.labels.clone(),
        ip_address: vm.address().map_or_else(String::new, |ip| ip.to_string()),
        mac_address: vm.mac.to_string(),
        vsock_cid: vm.cid,
        cpu_cores: vm.spec.vcpus,
        memory_mb: vm.spec.memory_mib,
        kernel_cmdline: vm.spec.kernel_cmdline.clone(),
        console: vm.spec.console,
        disks: vm.spec.disks.iter().map(disk).collect(),
        image: vm.spec.image.as_ref().map(image_root),
        volumes: vm.spec.volumes.iter().map(volume).collect(),
        boot_from: vm.spec.boot_from.as_str().to_owned(),
        network_mode: vm.spec.network.as_str().to_owned(),
        created_at: rfc3339(vm.created_at_ms),
        updated_at: rfc3339(vm.updated_at_ms),
        expires_at: vm.expiry.map(|expiry| rfc3339(expiry.at_ms)),
        on_expiry: vm.expiry.map(|expiry| match expiry.then {
            OnExpiry::Delete => OnExpiryWord::Delete,
            OnExpiry::Stop => OnExpiryWord::Stop,
        }),
        boot: BootView { exits: vm.boot_exits, steps: steps.collect() },
    }
}

fn workload(report: &WorkloadReport) -> WorkloadView {
    let exit = report.last_exit.as_ref();
    WorkloadView {
        condition: match report.condition {
            WorkloadCondition::Starting => "starting",
            WorkloadCondition::Ready => "ready",
            WorkloadCondition::Unhealthy => "unhealthy",
            WorkloadCondition::Restarting => "restarting",
            WorkloadCondition::Finished => "finished",
            WorkloadCondition::Failed => "failed",
        }
        .to_owned(),
        reason: report.reason.clone(),
        exits: report.exits,
        last_exit: exit.map(|exit| ExitView {
            exit_code: exit.code,
            signal: exit.signal,
            error: exit.error.clone(),
            ..ExitView::default()
        }),
        out_of_memory: exit.is_some_and(|exit| exit.oom),
        dropped_bytes: report.dropped_bytes,
    }
}

fn disk(disk: &Disk) -> DiskView {
    DiskView { path: disk.path.to_string_lossy().into_owned(), readonly: disk.readonly }
}

fn volume(mount: &VolumeMount) -> VmVolume {
    let VolumeMount { volume, path, readonly, .. } = mount;
    VmVolume { name: volume.to_string(), path: path.clone(), readonly: *readonly }
}

fn mount(volume: VmVolume) -> Result<VolumeMount, InvalidSpec> {
    let VmVolume { name, path, readonly } = volume;
    let volume = VolumeName::try_from(name.as_str())?;
    Ok(VolumeMount { volume, path, readonly, make_mib: None })
}

fn boot_from(word: &str) -> Result<BootFrom, crate::orchestrator::Error> {
    let reason = || "initramfs, disk or disk-without-agent".to_owned();
    let known = BootFrom::from_word(word);
    Ok(known.ok_or_else(|| InvalidSpec { field: "boot_from", reason: reason() })?)
}

fn network(word: &str) -> Result<NetworkMode, crate::orchestrator::Error> {
    let reason = || "bridged or vsock".to_owned();
    let known = NetworkMode::from_word(word);
    Ok(known.ok_or_else(|| InvalidSpec { field: "network_mode", reason: reason() })?)
}

fn cloud_init(body: CloudInitBody) -> CloudInit {
    let CloudInitBody { user_data, meta_data, network_config } = body;
    CloudInit { user_data, meta_data, network_config }
}

fn image_root(image: &ImageRoot) -> VmImageView {
    let (ephemeral, overlay_mb) = match image.overlay {
        Overlay::Persistent { mib } => (false, Some(mib)),
        Overlay::Ephemeral => (true, None),
    };
    let root = image.root.to_string();
    VmImageView { reference: image.reference.clone(), root, ephemeral, overlay_mb }
}

fn wish(
    name: Option<String>,
    command: Vec<String>,
    ephemeral: bool,
    overlay_mib: Option<u64>,
) -> Result<Option<ImageWish>, crate::orchestrator::Error> {
    match name {
        Some(name) => {
            Ok(Some(ImageWish { name, command, ephemeral, overlay_mib, ..ImageWish::default() }))
        }
        None if command.is_empty() && !ephemeral && overlay_mib.is_none() => Ok(None),
        None => Err(InvalidSpec {
            field: "image",
            reason: "command, ephemeral and overlay_mb belong to an image".to_owned(),
        }
        .into()),
    }
}

/// An image for clients.
pub fn image(image: &Image) -> ImageView {
    ImageView {
        reference: image.reference.clone(),
        id: image.config.to_string(),
        manifest_digest: image.manifest.to_string(),
        root_digest: image.root.to_string(),
        root_bytes: image.root_bytes,
        layer_bytes: image.layer_bytes,
        created_at: rfc3339(image.created_at_ms),
    }
}

/// How far work is, for clients.
pub fn progress(now: &Progress) -> ImageProgress {
    ImageProgress {
        phase: now.phase.as_str().to_owned(),
        bytes_done: now.bytes_done,
        bytes_total: now.bytes_total,
        bytes_resumed: now.bytes_resumed,
    }
}

/// Work that takes long, for clients.
pub fn job(job: orchestrator::JobView) -> JobView {
    let (state, failure) = match job.state {
        JobState::Running => (JobStateWord::Running, None),
        JobState::Succeeded => (JobStateWord::Succeeded, None),
        JobState::Cancelled => (JobStateWord::Cancelled, None),
        JobState::Failed { code, reason } => (JobStateWord::Failed, Some((code, reason))),
    };
    let (code, reason) = failure.unzip();
    JobView {
        id: job.id,
        kind: job.kind.to_owned(),
        subject: job.subject,
        state,
        progress: progress(&job.progress),
        code: code.map(str::to_owned),
        reason,
        started_at: rfc3339(job.began_at_ms),
        ended_at: job.ended_at_ms.map(rfc3339),
    }
}

/// The end of a time that begins now.
///
/// # Errors
/// It is too short or too long.
pub fn expiry(
    orchestrator: &Orchestrator,
    ttl_ms: Option<u64>,
    then: OnExpiryWord,
) -> Result<Option<Expiry>, Refusal> {
    let then = match then {
        OnExpiryWord::Delete => OnExpiry::Delete,
        OnExpiryWord::Stop => OnExpiry::Stop,
    };
    let ttl_ms = ttl_ms.map(|ttl_ms| i64::try_from(ttl_ms).unwrap_or(i64::MAX));
    let expiry = ttl_ms.map(|ttl_ms| orchestrator.expiry_in(ttl_ms, then));
    Ok(expiry.transpose()?)
}

/// A request as the engine takes it; limits are the engine's to check.
///
/// # Errors
/// The name is none, or there is no such boot protocol.
pub fn request(body: CreateVm) -> Result<VmRequest, Refusal> {
    let boot_protocol = BootProtocol::from_word(&body.boot_protocol).ok_or_else(|| InvalidSpec {
        field: "boot_protocol",
        reason: "auto, pvh or linux64".to_owned(),
    });
    let volumes: Result<Vec<_>, InvalidSpec> = body.volumes.into_iter().map(mount).collect();
    let disk =
        |disk: DiskView| Disk { path: disk.path.into(), readonly: disk.readonly, private: false };
    Ok(VmRequest {
        name: VmName::try_from(body.name.as_str())?,
        runtime: body.runtime,
        vcpus: body.cpu_cores,
        memory_mib: body.memory_mb,
        kernel: body.kernel.map(Into::into),
        initramfs: body.initramfs.map(Into::into),
        kernel_cmdline: body.kernel_cmdline,
        env: body.env,
        labels: body.labels,
        console: body.console,
        disks: body.disks.into_iter().map(disk).collect(),
        boot_protocol: boot_protocol.map_err(crate::orchestrator::Error::from)?,
        image: wish(body.image, body.command, body.ephemeral, body.overlay_mb)?,
        volumes: volumes.map_err(crate::orchestrator::Error::from)?,
        insecure: body.insecure,
        boot_from: body.boot_from.as_deref().map(boot_from).transpose()?,
        cloud_init: body.cloud_init.map(cloud_init),
        exposures: body.expose.iter().map(exposure).collect::<Result<_, _>>()?,
        network: body.network_mode.as_deref().map(network).transpose()?,
    })
}

/// An artifact for clients.
pub fn artifact(artifact: &PluginArtifact) -> ArtifactView {
    let PluginArtifact { id, plugin, entry, created_at_ms, updated_at_ms } = artifact;
    let entry = entry.clone();
    ArtifactView {
        id: *id,
        plugin_name: plugin.name.to_string(),
        version: plugin.version.to_string(),
        artifact_name: entry.name,
        kind: entry.kind,
        source_url: entry.source_url,
        checksum: entry.checksum,
        format: entry.format,
        local_path: entry.local_path,
        size_bytes: entry.size_bytes,
        created_at: rfc3339(*created_at_ms),
        updated_at: rfc3339(*updated_at_ms),
    }
}

/// A plugin for clients, with the number of its VMs.
pub fn plugin(plugin: &Plugin, vms: usize) -> PluginView {
    let current = plugin.manifest(None);
    let version = |version: &InstalledVersion| PluginVersionView {
        version: version.version.to_string(),
        installed_at: rfc3339(version.installed_at_ms),
    };
    PluginView {
        name: plugin.name.to_string(),
        version: plugin.current.to_string(),
        enabled: plugin.enabled,
        runtime: current.map(|manifest| manifest.runtime.clone()).unwrap_or_default(),
        actions: current
            .map_or_else(Vec::new, |manifest| manifest.actions.keys().cloned().collect()),
        vms,
        versions: plugin.versions.iter().map(version).collect(),
        installed_at: rfc3339(plugin.installed_at_ms),
        updated_at: rfc3339(plugin.updated_at_ms),
    }
}

/// An event for clients.
pub fn event(event: &Event) -> EventView {
    EventView {
        id: event.id,
        kind: event.kind.as_str().to_owned(),
        name: event.name.to_string(),
        status: event.status.clone(),
        ip_address: event.ip.to_string(),
        mac_address: event.mac.to_string(),
        timestamp: rfc3339(event.at_ms),
        message: event.message.clone(),
    }
}

/// A token for clients.
pub fn token(token: &Token) -> TokenView {
    TokenView {
        id: token.id,
        name: token.name.clone(),
        scope: token.scope.as_str().to_owned(),
        labels: token.labels.clone(),
        created_at: rfc3339(token.created_at_ms),
        expires_at: token.expires_at_ms.map(rfc3339),
        expired: token.is_expired(Timestamp::now().as_millisecond()),
    }
}

/// An entry of the audit log for clients.
pub fn audit(entry: &AuditEntry) -> AuditView {
    AuditView {
        id: entry.id,
        timestamp: rfc3339(entry.at_ms),
        principal: entry.principal.clone(),
        peer: entry.peer.clone(),
        operation: entry.operation.clone(),
        target: entry.target.clone(),
        status: entry.status,
        request_id: entry.request_id.clone(),
    }
}
