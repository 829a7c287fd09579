//! What lists show of each thing.

use indicatif::HumanBytes;
use serde::Serialize;

use crate::ctl::exec::exit_code;
use crate::wire::{
    AuditView, BroughtView, ExposureView, FileView, ImageView, PluginView, PortView, ProcessView,
    PrunedView, StoredView, TokenView, VmView, VolumeView,
};

/// Something that lists have.
pub trait Listed: Serialize {
    /// Headings of the cells.
    const HEADER: &'static [&'static str];
    /// Headings of what only `-o wide` shows.
    const WIDE: &'static [&'static str] = &[];

    /// What other commands call it.
    fn name(&self) -> String;

    /// As many as there are headings.
    fn cells(&self) -> Vec<String>;

    /// As many as there are headings of that.
    fn wide(&self) -> Vec<String> {
        Vec::new()
    }
}

impl Listed for VmView {
    const HEADER: &'static [&'static str] =
        &["NAME", "STATUS", "WORKLOAD", "IP", "CPU", "MEM", "CREATED", "REASON"];
    const WIDE: &'static [&'static str] = &["MAC", "CID", "PLUGIN", "IMAGE", "LABELS"];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn cells(&self) -> Vec<String> {
        let workload = self.workload.as_ref();
        let reason = self.reason.clone().or(workload.map(|workload| workload.reason.clone()));
        vec![
            self.name.clone(),
            self.status.clone(),
            workload.map_or("-", |workload| &workload.condition).to_owned(),
            self.ip_address.clone(),
            self.cpu_cores.to_string(),
            self.memory_mb.to_string(),
            self.created_at.clone(),
            reason.unwrap_or_default(),
        ]
    }

    fn wide(&self) -> Vec<String> {
        let labels = self.labels.iter().map(|(key, value)| format!("{key}={value}"));
        let plugin = match (&self.plugin, &self.plugin_version) {
            (Some(plugin), Some(version)) => format!("{plugin}@{version}"),
            (plugin, _) => plugin.clone().unwrap_or_default(),
        };
        vec![
            self.mac_address.clone(),
            self.vsock_cid.to_string(),
            plugin,
            self.image.as_ref().map(|image| image.reference.clone()).unwrap_or_default(),
            labels.collect::<Vec<_>>().join(","),
        ]
    }
}

impl Listed for PluginView {
    const HEADER: &'static [&'static str] =
        &["NAME", "VERSION", "ENABLED", "RUNTIME", "VMS", "ACTIONS"];
    const WIDE: &'static [&'static str] = &["INSTALLED", "UPDATED"];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.version.clone(),
            if self.enabled { "yes" } else { "no" }.to_owned(),
            self.runtime.clone(),
            self.vms.to_string(),
            self.actions.join(" "),
        ]
    }

    fn wide(&self) -> Vec<String> {
        vec![self.installed_at.clone(), self.updated_at.clone()]
    }
}

impl Listed for ImageView {
    const HEADER: &'static [&'static str] = &["REFERENCE", "ID", "ROOT", "LAYERS", "CREATED"];
    const WIDE: &'static [&'static str] = &["MANIFEST", "ROOT DIGEST"];

    fn name(&self) -> String {
        self.reference.clone()
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.reference.clone(),
            self.id.trim_start_matches("sha256:").chars().take(12).collect(),
            HumanBytes(self.root_bytes).to_string(),
            HumanBytes(self.layer_bytes).to_string(),
            self.created_at.clone(),
        ]
    }

    fn wide(&self) -> Vec<String> {
        vec![self.manifest_digest.clone(), self.root_digest.clone()]
    }
}

impl Listed for VolumeView {
    const HEADER: &'static [&'static str] = &["NAME", "MIB", "USED", "ATTACHED", "CREATED"];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn cells(&self) -> Vec<String> {
        let attached = self.attached.iter().map(|user| {
            let readonly = if user.readonly { ":ro" } else { "" };
            format!("{}:{}{readonly}", user.vm, user.path)
        });
        vec![
            self.name.clone(),
            self.size_mb.to_string(),
            HumanBytes(self.used_bytes).to_string(),
            attached.collect::<Vec<_>>().join(" "),
            self.created_at.clone(),
        ]
    }
}

impl Listed for ProcessView {
    const HEADER: &'static [&'static str] =
        &["ID", "PID", "STATUS", "USER", "TAG", "STARTED", "COMMAND"];
    const WIDE: &'static [&'static str] = &["FOLDER", "TERMINAL"];

    fn name(&self) -> String {
        self.id.to_string()
    }

    fn cells(&self) -> Vec<String> {
        let status = match &self.exit {
            Some(exit) => format!("exited {}", exit_code(exit)),
            None => self.status.clone(),
        };
        vec![
            self.id.to_string(),
            self.pid.to_string(),
            status,
            self.user.clone(),
            self.tag.clone().unwrap_or_default(),
            self.started_at.clone(),
            self.argv.join(" "),
        ]
    }

    fn wide(&self) -> Vec<String> {
        vec![self.cwd.clone(), if self.terminal { "yes" } else { "no" }.to_owned()]
    }
}

impl Listed for ExposureView {
    const HEADER: &'static [&'static str] = &["HOST", "GUEST PORT", "TRANSPORT"];

    fn name(&self) -> String {
        format!("{}/{}", self.host_port, self.transport)
    }

    fn cells(&self) -> Vec<String> {
        let host = format!("{}:{}", self.host_ip, self.host_port);
        vec![host, self.guest_port.to_string(), self.transport.clone()]
    }
}

impl Listed for FileView {
    const HEADER: &'static [&'static str] = &["MODE", "USER", "GROUP", "SIZE", "MODIFIED", "PATH"];

    fn name(&self) -> String {
        self.path.clone()
    }

    fn cells(&self) -> Vec<String> {
        let path = match &self.link_target {
            Some(target) => format!("{} -> {target}", self.path),
            None => self.path.clone(),
        };
        vec![
            self.mode.clone(),
            self.user.clone(),
            self.group.clone(),
            self.size.to_string(),
            self.modified_at.clone(),
            path,
        ]
    }
}

impl Listed for TokenView {
    const HEADER: &'static [&'static str] = &["NAME", "SCOPE", "LABELS", "CREATED", "EXPIRES"];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn cells(&self) -> Vec<String> {
        let ends = self.expires_at.clone().unwrap_or_else(|| "never".to_owned());
        let ends = if self.expired { format!("{ends} (over)") } else { ends };
        let labels = self.labels.iter().map(|(key, value)| format!("{key}={value}"));
        let labels = labels.collect::<Vec<_>>().join(",");
        vec![self.name.clone(), self.scope.clone(), labels, self.created_at.clone(), ends]
    }
}

impl Listed for AuditView {
    const HEADER: &'static [&'static str] = &["ID", "TIME", "WHO", "OPERATION", "TARGET", "STATUS"];
    const WIDE: &'static [&'static str] = &["REQUEST"];

    fn name(&self) -> String {
        self.id.to_string()
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.timestamp.clone(),
            format!("{} ({})", self.principal, self.peer),
            self.operation.clone(),
            self.target.clone(),
            self.status.to_string(),
        ]
    }

    fn wide(&self) -> Vec<String> {
        vec![self.request_id.clone()]
    }
}

impl Listed for StoredView {
    const HEADER: &'static [&'static str] = &["KIND", "DIGEST", "SIZE"];

    fn name(&self) -> String {
        self.digest.clone()
    }

    fn cells(&self) -> Vec<String> {
        vec![self.kind.clone(), self.digest.clone(), HumanBytes(self.bytes).to_string()]
    }
}

impl Listed for BroughtView {
    const HEADER: &'static [&'static str] = &["SOURCE", "DIGEST", "SIZE"];

    fn name(&self) -> String {
        self.digest.clone()
    }

    fn cells(&self) -> Vec<String> {
        vec![self.source.clone(), self.digest.clone(), HumanBytes(self.bytes).to_string()]
    }
}

impl Listed for PrunedView {
    const HEADER: &'static [&'static str] = &["KIND", "NAME", "SIZE"];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn cells(&self) -> Vec<String> {
        vec![self.kind.clone(), self.name.clone(), HumanBytes(self.bytes).to_string()]
    }
}

impl Listed for PortView {
    const HEADER: &'static [&'static str] = &["PORT", "PROTOCOL", "ADDRESS", "PID", "PROGRAM"];

    fn name(&self) -> String {
        format!("{}/{}", self.port, self.protocol)
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.port.to_string(),
            self.protocol.clone(),
            self.address.clone(),
            self.pid.map_or_else(String::new, |pid| pid.to_string()),
            self.program.clone().unwrap_or_default(),
        ]
    }
}
