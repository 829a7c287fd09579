//! The detail of what is marked.

use crate::ctl::output::ms;
use crate::ctl::tui::state::{Load, State, Subject};
use crate::ctl::tui::update::Effect;
use crate::wire::{VmView, VolumeView};

/// Fills the pane, or asks for what it needs.
pub fn settle(state: &mut State, effects: &mut Vec<Effect>) {
    let Some(key) = state.selection().key.clone() else {
        state.described = None;
        state.detail.fill(std::iter::once(nothing(state).to_owned()));
        return;
    };
    let lines = match state.subject {
        Subject::Vms => state.vm().map(|vm| of_vm(vm, state.loads.get(&key))),
        Subject::Volumes => state.volumes.iter().find(|one| one.name == key).map(of_volume),
        subject @ (Subject::Plugins | Subject::Images) => {
            let wanted = Some((subject, key.clone()));
            if state.described != wanted {
                state.detail.clear();
                state.described = wanted;
                effects.push(Effect::Describe(subject, key));
            }
            return;
        }
    };
    let wanted = Some((state.subject, key));
    if state.described != wanted {
        state.detail.clear();
        state.described = wanted;
    }
    state.detail.fill(lines.unwrap_or_default().into_iter());
}

fn nothing(state: &State) -> &'static str {
    match (state.filter.is_empty(), state.subject) {
        (false, _) => "Nothing matches the filter; Esc takes it away.",
        (true, Subject::Vms) => "No VMs yet: n makes one.",
        (true, Subject::Plugins) => "No plugins yet: n installs one.",
        (true, Subject::Images) => "No images yet: n pulls one.",
        (true, Subject::Volumes) => "No volumes yet: n makes one.",
    }
}

fn line(label: &str, text: impl std::fmt::Display) -> String {
    format!("{label:<11}{text}")
}

fn of_vm(vm: &VmView, load: Option<&Load>) -> Vec<String> {
    let mut lines = vec![line("name", &vm.name), line("status", &vm.status)];
    lines.extend(vm.reason.iter().map(|reason| line("reason", reason)));
    if let Some(workload) = &vm.workload {
        let restarts = format!("{} ({} exits)", workload.condition, workload.exits);
        lines.push(line("workload", restarts));
        if !workload.reason.is_empty() {
            lines.push(line("", &workload.reason));
        }
    }
    if let Some(load) = load.filter(|_| vm.status == "running") {
        lines.extend(of_load(load));
    }
    lines.push(line("cpu", format!("{} vCPU", vm.cpu_cores)));
    lines.push(line("memory", format!("{} MiB", vm.memory_mb)));
    lines.push(line("address", format!("{}  {}", vm.ip_address, vm.mac_address)));
    lines.push(line("vsock", vm.vsock_cid));
    if let Some(plugin) = &vm.plugin {
        lines.push(line(
            "plugin",
            format!("{plugin} {}", vm.plugin_version.as_deref().unwrap_or("")),
        ));
    }
    if let Some(image) = &vm.image {
        lines.push(line("image", &image.reference));
    }
    lines.extend(vm.volumes.iter().map(|one| {
        let readonly = if one.readonly { " (read-only)" } else { "" };
        line("volume", format!("{} at {}{readonly}", one.name, one.path))
    }));
    lines.extend(vm.disks.iter().map(|disk| line("disk", &disk.path)));
    lines.extend(vm.labels.iter().map(|(key, value)| line("label", format!("{key}={value}"))));
    lines.push(line("boots from", &vm.boot_from));
    lines.push(line("created", &vm.created_at));
    if let Some(end) = &vm.expires_at {
        lines.push(line("ends", end));
    }
    if !vm.boot.steps.is_empty() {
        lines.push(String::new());
        lines.push(format!("latest start ({} returns of KVM_RUN)", vm.boot.exits));
        let step = |step: &crate::wire::BootStepView| {
            format!("  {:<18}{:>10} ms", step.step, ms(step.at_us))
        };
        lines.extend(vm.boot.steps.iter().map(step));
    }
    lines
}

fn of_load(load: &Load) -> Vec<String> {
    let Some(now) = load.latest() else { return Vec::new() };
    let mib = |bytes: u64| bytes >> 20;
    let bars: String = load.cpu_percent.iter().map(|percent| bar(*percent)).collect();
    let percent =
        load.cpu_percent.back().map_or(String::new(), |percent| format!("{percent:>3}% "));
    let used = mib(now.memory_total.saturating_sub(now.memory_available));
    vec![
        line("load", format!("{percent}{bars}")),
        line(
            "",
            format!(
                "{used} of {} MiB used, {} cached",
                mib(now.memory_total),
                mib(now.memory_cached)
            ),
        ),
        line(
            "",
            format!(
                "{} of {} MiB of disk, {} processes",
                mib(now.disk_used),
                mib(now.disk_total),
                now.processes
            ),
        ),
        line("", format!("{} KiB in, {} KiB out", now.net_received >> 10, now.net_sent >> 10)),
    ]
}

/// An eighth of a character for each 12.5 percent.
fn bar(percent: u64) -> char {
    let bars = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let index = usize::try_from(percent.min(100) * 7 / 100).unwrap_or(0);
    bars[index]
}

fn of_volume(volume: &VolumeView) -> Vec<String> {
    let mut lines = vec![
        line("name", &volume.name),
        line("size", format!("{} MiB", volume.size_mb)),
        line("on disk", format!("{} MiB", volume.used_bytes >> 20)),
        line("created", &volume.created_at),
    ];
    lines.extend(volume.attached.iter().map(|user| {
        let readonly = if user.readonly { " (read-only)" } else { "" };
        line("attached", format!("{} at {}{readonly}", user.vm, user.path))
    }));
    lines
}
