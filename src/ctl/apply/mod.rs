//! `ctl apply`: what a file declares is made so, in the order volumes, plugins, VMs. What is so already
//! is left alone; what is not declared is never touched.

mod plan;

use std::path::Path;

use hyper::Method;
use serde_json::Value;

use crate::cli::ApplyArgs;
use crate::ctl::client::{Client, Failure};
use crate::ctl::output::Printer;
use crate::ctl::vms::{encoded, path};
use crate::ctl::{artifacts, plugins, source, vms};
use crate::wire::{
    CreateVm, FetchPlugin, GrowVolume, PluginList, PluginView, Rollback, SetEnabled, VmView,
    VolumeView,
};
use plan::{Act, Declared, Present, Step};

/// Bytes of a file.
const FILE_LEN_MAX: usize = 4 * 1024 * 1024;

const NO_BODY: Option<&()> = None;

/// Brings about what the file says.
///
/// # Errors
/// The file is wrong, something is refused, or a change needs `--replace`. What was done stays.
pub async fn run(client: &Client, args: &ApplyArgs, out: &Printer) -> Result<u8, Failure> {
    let file = args.file.to_string_lossy();
    let declared = read(&file, &args.file).await?;
    let steps = plan::plan(declared, &present(client).await?, args.replace, args.diff)?;
    if args.dry_run {
        out.list(&steps)?;
        return Ok(0);
    }
    if let Some(step) = steps.iter().find(|step| matches!(step.act, Act::NeedsReplace)) {
        out.list(&steps)?;
        let hint = "--replace deletes it and makes it anew; --diff shows what differs".to_owned();
        let failure =
            Failure::local(format!("the VM {:?} is there, but not as declared", step.name));
        return Err(Failure { exit_code: 4, hint: Some(hint), ..failure });
    }
    for step in &steps {
        apply(client, step, args, out).await?;
    }
    out.list(&steps)?;
    Ok(0)
}

async fn read(file: &str, path: &Path) -> Result<Declared, Failure> {
    let text = source::read(file, FILE_LEN_MAX)?;
    let wrong = |error: &dyn std::fmt::Display| Failure {
        exit_code: 2,
        ..Failure::local(format!("{file}: {error}"))
    };
    let document: Value = serde_yaml_ng::from_slice(&text).map_err(|error| wrong(&error))?;
    let mut declared = Declared::parse(document).map_err(|error| wrong(&error))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    for plugin in &mut declared.plugins {
        if let Value::String(place) = &plugin.manifest {
            let place = match source::is_url(place) || place.starts_with('/') {
                true => place.clone(),
                false => folder.join(place).to_string_lossy().into_owned(),
            };
            plugin.manifest = plugins::manifest(&place).await?;
        }
    }
    Ok(declared)
}

async fn present(client: &Client) -> Result<Present, Failure> {
    let plugins: PluginList = client.json(Method::GET, "/api/v1/plugins", NO_BODY).await?;
    Ok(Present {
        vms: client.json(Method::GET, "/api/v1/vms", NO_BODY).await?,
        volumes: client.json(Method::GET, "/api/v1/volumes", NO_BODY).await?,
        plugins: plugins.items,
    })
}

async fn apply(
    client: &Client,
    step: &Step,
    args: &ApplyArgs,
    out: &Printer,
) -> Result<(), Failure> {
    let name = &step.name;
    let plugin = |rest: &str| format!("/api/v1/plugins/{}{rest}", encoded(name));
    match &step.act {
        Act::Nothing | Act::NeedsReplace => {}
        Act::MakeVolume(body) => {
            let _: VolumeView = client.json(Method::POST, "/api/v1/volumes", Some(body)).await?;
        }
        Act::Grow(size_mb) => {
            let target = format!("/api/v1/volumes/{}/grow", encoded(name));
            let body = GrowVolume { size_mb: *size_mb };
            let _: VolumeView = client.json(Method::POST, &target, Some(&body)).await?;
        }
        Act::Install(manifest) => {
            let _: PluginView =
                client.json(Method::POST, "/api/v1/plugins", Some(manifest)).await?;
        }
        Act::RollBack(version) => {
            let body = Rollback { version: Some(version.clone()) };
            let _: PluginView =
                client.json(Method::POST, &plugin("/rollback"), Some(&body)).await?;
        }
        Act::Enable(enabled) => {
            let body = SetEnabled { enabled: *enabled };
            let _: PluginView = client.json(Method::POST, &plugin("/enabled"), Some(&body)).await?;
        }
        Act::Make(vm) => make(client, vm, args, out).await?,
        Act::Replace(vm) => {
            client.send(Method::DELETE, &path(name, ""), None, "*/*").await?;
            make(client, vm, args, out).await?;
        }
        Act::Start => change(client, name, "start", args).await?,
        Act::Stop => change(client, name, "stop", args).await?,
    }
    Ok(())
}

async fn make(
    client: &Client,
    vm: &CreateVm,
    args: &ApplyArgs,
    out: &Printer,
) -> Result<(), Failure> {
    if let Some(reference) = vm.image.clone() {
        vms::bring(client, reference, out).await?;
    } else if let Some(plugin) = &vm.plugin {
        let request = FetchPlugin { version: vm.plugin_version.clone(), insecure: vm.insecure };
        artifacts::fetch(client, plugin, &request, out).await?;
    }
    let wait = args.wait && vm.start;
    let target = format!("/api/v1/vms?wait={wait}&until=ready&timeout_ms={}", timeout_ms(args));
    let made: VmView = client.json(Method::POST, &target, Some(vm)).await?;
    if wait { vms::came_up(&made) } else { Ok(()) }
}

async fn change(client: &Client, name: &str, verb: &str, args: &ApplyArgs) -> Result<(), Failure> {
    let rest = format!("/{verb}?wait={}&until=ready&timeout_ms={}", args.wait, timeout_ms(args));
    let vm: VmView = client.json(Method::POST, &path(name, &rest), NO_BODY).await?;
    if verb == "start" && args.wait { vms::came_up(&vm) } else { Ok(()) }
}

fn timeout_ms(args: &ApplyArgs) -> u64 {
    args.timeout.saturating_mul(1000)
}
