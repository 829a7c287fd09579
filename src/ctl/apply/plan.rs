//! What has to be done so that what is there is as declared. Decides, and does nothing.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::ctl::client::Failure;
use crate::ctl::output::Listed;
use crate::wire::{CreateVm, CreateVolume, PluginView, VmView, VolumeView};

/// The label of a VM that says of which description it was made: not all of that can be seen in it.
const LABEL: &str = "applied";
/// Characters of that label.
const LABEL_LEN: usize = 16;

/// What a file declares.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    volumes: Vec<CreateVolume>,
    plugins: Vec<DeclaredPlugin>,
    vms: Vec<Map<String, Value>>,
}

/// The same, checked.
#[derive(Debug, Default)]
pub struct Declared {
    pub volumes: Vec<CreateVolume>,
    pub plugins: Vec<DeclaredPlugin>,
    pub vms: Vec<CreateVm>,
}

/// A plugin.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredPlugin {
    /// The manifest, or where it is.
    pub manifest: Value,
    /// Whether it may be used.
    #[serde(default = "yes")]
    pub enabled: bool,
}

fn yes() -> bool {
    true
}

impl Declared {
    /// Reads a document. A VM is what REST creates, and `state`: running or stopped.
    pub fn parse(document: Value) -> Result<Declared, String> {
        let file: File = match document {
            Value::Null => File::default(),
            document => serde_json::from_value(document).map_err(|error| error.to_string())?,
        };
        let vms = file.vms.into_iter().map(|mut vm| {
            let name =
                vm.get("name").and_then(Value::as_str).unwrap_or("without a name").to_owned();
            let start = match vm.remove("state").as_ref().map(|state| state.as_str()) {
                None | Some(Some("running")) => true,
                Some(Some("stopped")) => false,
                _ => return Err(format!("VM {name}: state: running or stopped")),
            };
            let vm: Result<CreateVm, _> = serde_json::from_value(Value::Object(vm));
            let vm = vm.map_err(|error| format!("VM {name}: {error}"))?;
            Ok(labeled(CreateVm { start, ..vm }))
        });
        let vms = vms.collect::<Result<_, _>>()?;
        Ok(Declared { volumes: file.volumes, plugins: file.plugins, vms })
    }
}

/// With the label that tells its description from others; whether it runs is no part of that.
fn labeled(mut vm: CreateVm) -> CreateVm {
    let description = serde_json::to_vec(&CreateVm { start: true, ..vm.clone() });
    let digest = Sha256::digest(description.unwrap_or_default());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    vm.labels.insert(LABEL.to_owned(), hex[..LABEL_LEN].to_owned());
    vm
}

/// What is there.
#[derive(Debug, Default)]
pub struct Present {
    pub vms: Vec<VmView>,
    pub plugins: Vec<PluginView>,
    pub volumes: Vec<VolumeView>,
}

/// A deed.
#[derive(Debug)]
pub enum Act {
    Nothing,
    MakeVolume(CreateVolume),
    Grow(u64),
    Install(Value),
    RollBack(String),
    Enable(bool),
    Make(Box<CreateVm>),
    Replace(Box<CreateVm>),
    NeedsReplace,
    Start,
    Stop,
}

/// A deed, to what, and what it changes.
#[derive(Debug, Serialize)]
pub struct Step {
    action: &'static str,
    kind: &'static str,
    /// Name of the thing.
    pub name: String,
    changes: String,
    /// The deed.
    #[serde(skip)]
    pub act: Act,
}

impl Listed for Step {
    const HEADER: &'static [&'static str] = &["ACTION", "KIND", "NAME", "CHANGES"];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn cells(&self) -> Vec<String> {
        vec![self.action.to_owned(), self.kind.to_owned(), self.name.clone(), self.changes.clone()]
    }
}

fn step(kind: &'static str, name: &str, changes: String, act: Act) -> Step {
    let action = match &act {
        Act::Nothing => "unchanged",
        Act::MakeVolume(_) | Act::Make(_) => "create",
        Act::Grow(_) => "grow",
        Act::Install(_) => "install",
        Act::RollBack(_) => "switch",
        Act::Enable(true) => "enable",
        Act::Enable(false) => "disable",
        Act::Replace(_) => "replace",
        Act::NeedsReplace => "differs",
        Act::Start => "start",
        Act::Stop => "stop",
    };
    Step { action, kind, name: name.to_owned(), changes, act }
}

/// The steps, in their order.
///
/// # Errors
/// Something that is declared cannot be.
pub fn plan(
    declared: Declared,
    present: &Present,
    replace: bool,
    diff: bool,
) -> Result<Vec<Step>, Failure> {
    let mut steps = Vec::new();
    for volume in declared.volumes {
        steps.push(of_volume(volume, present)?);
    }
    for plugin in declared.plugins {
        of_plugin(plugin, present, &mut steps)?;
    }
    for vm in declared.vms {
        let there = present.vms.iter().find(|there| there.name == vm.name);
        steps.push(of_vm(vm, there, replace, diff));
    }
    Ok(steps)
}

fn of_volume(volume: CreateVolume, present: &Present) -> Result<Step, Failure> {
    let name = volume.name.clone();
    let there = present.volumes.iter().find(|there| there.name == name);
    let wanted = volume.size_mb;
    let Some(there) = there else {
        let changes = format!("size_mb: {wanted}");
        return Ok(step("volume", &name, changes, Act::MakeVolume(volume)));
    };
    let changes = format!("size_mb: {} -> {wanted}", there.size_mb);
    match there.size_mb.cmp(&wanted) {
        std::cmp::Ordering::Equal => Ok(step("volume", &name, String::new(), Act::Nothing)),
        std::cmp::Ordering::Less => Ok(step("volume", &name, changes, Act::Grow(wanted))),
        std::cmp::Ordering::Greater => {
            let text = format!("the volume {name:?} has {} MiB, and cannot shrink", there.size_mb);
            Err(Failure { exit_code: 4, ..Failure::local(text) })
        }
    }
}

fn of_plugin(
    plugin: DeclaredPlugin,
    present: &Present,
    steps: &mut Vec<Step>,
) -> Result<(), Failure> {
    let text = |key: &str| plugin.manifest.get(key).and_then(Value::as_str).map(str::to_owned);
    let (Some(name), Some(version)) = (text("name"), text("version")) else {
        let text = "a plugin's manifest needs a name and a version";
        return Err(Failure { exit_code: 2, ..Failure::local(text) });
    };
    let there = present.plugins.iter().find(|there| there.name == name);
    let before = steps.len();
    let knows = |there: &PluginView| there.versions.iter().any(|one| one.version == version);
    match there {
        Some(there) if there.version == version => {}
        Some(there) if knows(there) => {
            let changes = format!("version: {} -> {version}", there.version);
            steps.push(step("plugin", &name, changes, Act::RollBack(version)));
        }
        there => {
            let from = there.map_or(String::new(), |there| format!("{} -> ", there.version));
            let changes = format!("version: {from}{version}");
            steps.push(step("plugin", &name, changes, Act::Install(plugin.manifest)));
        }
    }
    // A new one may be used.
    let is_enabled = there.is_none_or(|there| there.enabled);
    if is_enabled != plugin.enabled {
        let changes = format!("enabled: {is_enabled} -> {}", plugin.enabled);
        steps.push(step("plugin", &name, changes, Act::Enable(plugin.enabled)));
    }
    if steps.len() == before {
        steps.push(step("plugin", &name, String::new(), Act::Nothing));
    }
    Ok(())
}

fn of_vm(vm: CreateVm, there: Option<&VmView>, replace: bool, diff: bool) -> Step {
    let name = vm.name.clone();
    let Some(there) = there else {
        return step("vm", &name, String::new(), Act::Make(Box::new(vm)));
    };
    let differing = differing(&vm, there);
    let is_as_declared = match there.labels.get(LABEL) {
        Some(label) => Some(label) == vm.labels.get(LABEL),
        // Made by hand: what can be seen of it counts.
        None => differing.is_empty(),
    };
    if !is_as_declared {
        let changes = match (diff, differing.is_empty()) {
            (true, true) => "what the daemon does not show, for example env".to_owned(),
            (true, false) => differing.join("\n"),
            (false, _) => String::new(),
        };
        let act = if replace { Act::Replace(Box::new(vm)) } else { Act::NeedsReplace };
        return step("vm", &name, changes, act);
    }
    let is_down = matches!(there.status.as_str(), "stopped" | "stopping" | "failed");
    let changes =
        format!("state: {} -> {}", there.status, if vm.start { "running" } else { "stopped" });
    match (vm.start, is_down) {
        (true, true) => step("vm", &name, changes, Act::Start),
        (false, false) => step("vm", &name, changes, Act::Stop),
        _ => step("vm", &name, String::new(), Act::Nothing),
    }
}

/// Fields that are declared, that can be seen, and that are not alike.
fn differing(vm: &CreateVm, there: &VmView) -> Vec<String> {
    let (Ok(Value::Object(declared)), Ok(mut there)) =
        (serde_json::to_value(vm), serde_json::to_value(there))
    else {
        return Vec::new();
    };
    // An image is asked for by name, and shown with more.
    if let Some(reference) = there.pointer("/image/reference").cloned() {
        there["image"] = reference;
    }
    let seen = declared.into_iter().filter_map(|(key, wanted)| {
        let mut now = there.get(&key)?.clone();
        let mut wanted = wanted;
        for labels in [&mut now, &mut wanted] {
            if key == "labels"
                && let Some(labels) = labels.as_object_mut()
            {
                labels.remove(LABEL);
            }
        }
        (now != wanted).then(|| format!("{key}: {now} -> {wanted}"))
    });
    seen.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn vm_there(vm: &CreateVm, status: &str) -> VmView {
        serde_json::from_value(json!({
            "id": 1, "name": vm.name, "status": status, "runtime": "default",
            "ip_address": "", "mac_address": "", "vsock_cid": 3, "cpu_cores": 1,
            "memory_mb": vm.memory_mb.unwrap_or(256), "kernel_cmdline": "", "console": true,
            "boot_from": "initramfs", "created_at": "", "updated_at": "", "labels": vm.labels,
            "boot": { "exits": 0, "steps": [] }
        }))
        .unwrap()
    }

    fn declared() -> Declared {
        Declared::parse(json!({
            "volumes": [{ "name": "data", "size_mb": 128 }],
            "plugins": [{ "manifest": { "name": "p", "version": "2" }, "enabled": false }],
            "vms": [{ "name": "web", "memory_mb": 512 }, { "name": "db", "state": "stopped" }]
        }))
        .unwrap()
    }

    fn actions(steps: &[Step]) -> Vec<String> {
        steps.iter().map(|step| format!("{} {}", step.action, step.name)).collect()
    }

    #[test]
    fn what_is_missing_is_made_and_what_is_there_is_left_alone() {
        let steps = plan(declared(), &Present::default(), false, false).unwrap();
        let expected = ["create data", "install p", "disable p", "create web", "create db"];
        assert_eq!(actions(&steps), expected);
        let again = declared();
        let plugin = json!({ "name": "p", "version": "2", "enabled": false, "runtime": "p",
            "actions": [], "vms": 0, "versions": [{ "version": "2", "installed_at": "" }],
            "installed_at": "", "updated_at": "" });
        let mut present = Present {
            vms: vec![vm_there(&again.vms[0], "running"), vm_there(&again.vms[1], "stopped")],
            plugins: vec![serde_json::from_value(plugin).unwrap()],
            volumes: vec![VolumeView {
                name: "data".to_owned(),
                size_mb: 128,
                used_bytes: 0,
                attached: Vec::new(),
                created_at: String::new(),
            }],
        };
        let steps = plan(again, &present, false, false).unwrap();
        assert!(steps.iter().all(|step| matches!(step.act, Act::Nothing)), "{steps:?}");
        present.vms[0].status = "failed".to_owned();
        present.volumes[0].size_mb = 64;
        let steps = plan(declared(), &present, false, false).unwrap();
        let expected = ["grow data", "unchanged p", "start web", "unchanged db"];
        assert_eq!(actions(&steps), expected);
        present.volumes[0].size_mb = 256;
        assert!(plan(declared(), &present, false, false).is_err());
    }

    #[test]
    fn a_description_that_has_changed_needs_a_new_vm() {
        let before = declared();
        let present =
            Present { vms: vec![vm_there(&before.vms[0], "running")], ..Present::default() };
        let changed = || {
            let vms = json!({ "vms": [{ "name": "web", "memory_mb": 512, "env": { "A": "1" } }] });
            Declared::parse(vms).unwrap()
        };
        let steps = plan(changed(), &present, false, true).unwrap();
        assert_eq!(actions(&steps), ["differs web"]);
        assert!(steps[0].changes.contains("env"));
        let steps = plan(changed(), &present, true, false).unwrap();
        assert_eq!(actions(&steps), ["replace web"]);
        // One that was made by hand is compared by what can be seen.
        let mut by_hand = vm_there(&before.vms[0], "running");
        by_hand.labels.clear();
        let present = Present { vms: vec![by_hand], ..Present::default() };
        let smaller = json!({ "vms": [{ "name": "web", "memory_mb": 128 }] });
        let steps = plan(Declared::parse(smaller).unwrap(), &present, false, true).unwrap();
        assert_eq!(steps[0].changes, "memory_mb: 512 -> 128");
    }

    #[test]
    fn a_wrong_file_is_told_with_its_place() {
        let wrong = |document: Value| Declared::parse(document).unwrap_err();
        assert!(wrong(json!({ "vm": [] })).contains("unknown field `vm`"));
        assert!(
            wrong(json!({ "vms": [{ "name": "a", "cpus": 1 }] })).contains("VM a: unknown field")
        );
        assert!(wrong(json!({ "vms": [{ "name": "a", "state": "up" }] })).contains("VM a: state"));
        assert!(Declared::parse(Value::Null).unwrap().vms.is_empty());
    }
}
