//! stdout is data: tables for people, JSON and YAML for programs.
#![expect(clippy::print_stdout, reason = "the output of commands")]

use comfy_table::Table;
use serde_json::Value;

use crate::cli::Output;
use crate::ctl::client::Failure;
use crate::wire::{EventView, PluginView, VmView};

/// Prints a value for programs: YAML if asked for, else JSON.
///
/// # Errors
/// It cannot be encoded.
pub fn value(output: Output, value: &impl serde::Serialize) -> Result<(), Failure> {
    let value = serde_json::to_value(value).map_err(|error| Failure::local(error.to_string()))?;
    match output {
        Output::Yaml => {
            let text = serde_yaml_ng::to_string(&value);
            print!("{}", text.map_err(|error| Failure::local(error.to_string()))?);
        }
        Output::Json | Output::Table => println!("{value:#}"),
    }
    Ok(())
}

/// Prints VMs; a single one not as a list.
///
/// # Errors
/// It cannot be encoded.
pub fn vms(output: Output, vms: &[VmView], single: bool) -> Result<(), Failure> {
    match (output, vms) {
        (Output::Json | Output::Yaml, [vm]) if single => value(output, vm),
        (Output::Json | Output::Yaml, vms) => value(output, &vms),
        (Output::Table, vms) => {
            let header = ["NAME", "STATUS", "WORKLOAD", "IP", "CPU", "MEM", "CREATED", "REASON"];
            print_table(
                header,
                vms.iter().map(|vm| {
                    let workload = vm.workload.as_ref();
                    [
                        vm.name.clone(),
                        vm.status.clone(),
                        workload.map_or("-", |workload| &workload.condition).to_owned(),
                        vm.ip_address.clone(),
                        vm.cpu_cores.to_string(),
                        vm.memory_mb.to_string(),
                        vm.created_at.clone(),
                        reason(vm),
                    ]
                }),
            );
            Ok(())
        }
    }
}

pub fn print_table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) {
    let mut table = Table::new();
    table.set_header(header);
    table.add_rows(rows);
    println!("{table}");
}

/// Prints plugins.
///
/// # Errors
/// They cannot be encoded.
pub fn plugins(output: Output, plugins: &[PluginView]) -> Result<(), Failure> {
    if output != Output::Table {
        return value(output, &plugins);
    }
    let header = ["NAME", "VERSION", "ENABLED", "RUNTIME", "VMS", "ACTIONS"];
    let rows = plugins.iter().map(|plugin| {
        [
            plugin.name.clone(),
            plugin.version.clone(),
            if plugin.enabled { "yes" } else { "no" }.to_owned(),
            plugin.runtime.clone(),
            plugin.vms.to_string(),
            plugin.actions.join(" "),
        ]
    });
    print_table(header, rows);
    Ok(())
}

/// Prints the versions of a plugin.
///
/// # Errors
/// They cannot be encoded.
pub fn plugin_versions(output: Output, plugin: &PluginView) -> Result<(), Failure> {
    if output != Output::Table {
        return value(output, &plugin.versions);
    }
    let rows = plugin.versions.iter().map(|version| {
        let current = if version.version == plugin.version { "*" } else { "" };
        [version.version.clone(), current.to_owned(), version.installed_at.clone()]
    });
    print_table(["VERSION", "CURRENT", "INSTALLED"], rows);
    Ok(())
}

/// Prints a document; for people as YAML, since it has no columns.
///
/// # Errors
/// It cannot be encoded.
pub fn document(output: Output, document: &Value) -> Result<(), Failure> {
    value(if output == Output::Table { Output::Yaml } else { output }, document)
}

/// Prints a line.
pub fn line(text: &str) {
    println!("{text}");
}

/// Why the VM, or its workload, is as it is.
fn reason(vm: &VmView) -> String {
    let workload = vm.workload.as_ref().map(|workload| workload.reason.clone());
    vm.reason.clone().or(workload).unwrap_or_default()
}

/// Prints the steps of the latest start.
pub fn timeline(vm: &VmView) {
    let mut last = 0;
    for step in &vm.boot.steps {
        let (at, took) = (ms(step.at_us), ms(step.at_us.saturating_sub(last)));
        println!("{:<16} {at:>10} ms  (+{took} ms)", step.step);
        last = step.at_us;
    }
    println!("{:<16} {:>10}", "KVM_RUN returns", vm.boot.exits);
}

fn ms(us: u64) -> String {
    format!("{}.{:01}", us / 1000, us % 1000 / 100)
}

/// A printer of events, one a line.
pub fn event(output: Output) -> impl FnMut(&str, &str) -> Result<(), Failure> {
    move |_, data| {
        if output != Output::Table {
            println!("{data}");
            return Ok(());
        }
        if let Ok(event) = serde_json::from_str::<EventView>(data) {
            println!("{} {:<12} {:<20} {}", event.timestamp, event.kind, event.name, event.message);
        }
        Ok(())
    }
}
