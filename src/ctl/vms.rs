//! `volantd ctl vms ...`: one function for each verb.

use std::io::IsTerminal;
use std::time::Duration;

use hyper::Method;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{ChangeArgs, CreateArgs, OnExpiryArg, Output, PhaseWord, TtlArgs, VmsCommand};
use crate::ctl::client::{Client, Failure};
use crate::ctl::{
    actions, artifacts, console, copy, exec, expose, files, images, logs, operations, output,
    processes, vm_access, volumes,
};
use crate::wire::{
    CloudInitBody, CreateVm, DiskView, FetchPlugin, OnExpiryWord, PullImage, SetTtl, VmView,
};

const NO_BODY: Option<&()> = None;

/// Runs a verb.
///
/// # Errors
/// [`Failure`].
pub async fn run(client: &Client, command: VmsCommand, form: Output) -> Result<u8, Failure> {
    match command {
        VmsCommand::List => {
            let vms: Vec<VmView> = client.json(Method::GET, "/api/v1/vms", NO_BODY).await?;
            output::vms(form, &vms, false)?;
        }
        VmsCommand::Get { name } => output::vms(form, &[get(client, &name).await?], true)?,
        VmsCommand::Create(args) => create(client, *args, form).await?,
        VmsCommand::Start(args) => change(client, args, "start", form).await?,
        VmsCommand::Stop(args) => change(client, args, "stop", form).await?,
        VmsCommand::Restart(args) => change(client, args, "restart", form).await?,
        VmsCommand::Await { name, phase, timeout } => {
            let phase = match phase {
                PhaseWord::Running => "running",
                PhaseWord::Ready => "ready",
                PhaseWord::Stopped => "stopped",
                PhaseWord::Failed => "failed",
                PhaseWord::Deleted => "deleted",
            };
            let timeout_ms = timeout.saturating_mul(1000);
            let path = path(&name, &format!("/wait?phase={phase}&timeout_ms={timeout_ms}"));
            output::vms(form, &[client.json(Method::GET, &path, NO_BODY).await?], true)?;
        }
        VmsCommand::Ttl(TtlArgs { name, ttl_ms, on_expiry }) => {
            let body = SetTtl { ttl_ms, on_expiry: on_expiry.into() };
            let vm = client.json(Method::PUT, &path(&name, "/ttl"), Some(&body)).await?;
            output::vms(form, &[vm], true)?;
        }
        VmsCommand::Delete { name } => {
            let spinner = spinner("deleting");
            client.send(Method::DELETE, &path(&name, ""), None, "*/*").await?;
            spinner.finish_and_clear();
        }
        VmsCommand::Exec(args) => return exec::run(client, args).await,
        VmsCommand::Ps { name } => processes::list(client, &name, form).await?,
        VmsCommand::Attach(args) => return processes::attach(client, args).await,
        VmsCommand::Kill(args) => processes::kill(client, args).await?,
        VmsCommand::Wait(args) => return processes::wait(client, args).await,
        VmsCommand::Cp(args) => copy::run(client, &args).await?,
        VmsCommand::Files(command) => return files::run(client, command, form).await,
        VmsCommand::Access(args) => vm_access::token(client, &args).await?,
        VmsCommand::Url(args) => vm_access::url(client, args).await?,
        VmsCommand::Expose(args) => expose::add(client, &args, form).await?,
        VmsCommand::Exposed { name } => expose::list(client, &name, form).await?,
        VmsCommand::Unexpose(args) => expose::remove(client, &args).await?,
        VmsCommand::Console(args) => return console::attach(client, &args).await,
        VmsCommand::Operations { name } => operations::list(client, &name, form).await?,
        VmsCommand::Call(args) => return operations::call(client, args).await,
        VmsCommand::Logs(args) => logs::run(client, &args).await?,
        VmsCommand::Action(args) => return actions::of_vm(client, args).await,
        VmsCommand::Timeline { name } => output::timeline(&get(client, &name).await?),
    }
    Ok(0)
}

/// Path of a VM; the name is percent-encoded, so that the server sees what was typed.
pub fn path(name: &str, rest: &str) -> String {
    format!("/api/v1/vms/{}{rest}", encoded(name))
}

/// A text as a segment of a path or a value of a query.
pub fn encoded(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    text.as_bytes()
        .iter()
        .map(
            |byte| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") },
        )
        .collect()
}

/// Pulls an image unless it is here under that name or id.
async fn bring(client: &Client, reference: String) -> Result<(), Failure> {
    let path = format!("/api/v1/images/{}", encoded(&reference));
    match client.send(Method::GET, &path, None, "application/json").await {
        Err(failure) if failure.exit_code == 3 => {
            let request = PullImage { reference, if_missing: true, auth: None };
            images::pull(client, &request).await.map(drop)
        }
        other => other.map(drop),
    }
}

async fn get(client: &Client, name: &str) -> Result<VmView, Failure> {
    client.json(Method::GET, &path(name, ""), NO_BODY).await
}

/// Shown on a terminal only.
fn spinner(message: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        spinner.set_style(style);
    }
    spinner.set_message(message);
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

async fn create(client: &Client, args: CreateArgs, form: Output) -> Result<(), Failure> {
    let volumes = args.volumes.iter().map(|text| volumes::of_vm(text)).collect::<Result<_, _>>()?;
    if let Some(reference) = args.image.image.clone() {
        bring(client, reference).await?;
    } else if let Some(plugin) = &args.plugin {
        let version = args.plugin_version.clone();
        let request = FetchPlugin { version, insecure: args.insecure };
        artifacts::fetch(client, plugin, &request).await?;
    }
    let cloud_init = cloud_init(&args)?;
    let body = CreateVm {
        name: args.name,
        runtime: None,
        plugin: args.plugin,
        plugin_version: args.plugin_version,
        cpu_cores: args.cpu,
        memory_mb: args.memory,
        kernel: args.kernel,
        initramfs: args.initramfs,
        kernel_cmdline: args.kernel_cmdline,
        env: args.env.into_iter().collect(),
        labels: args.labels.into_iter().collect(),
        console: !args.no_console,
        start: !args.no_start,
        expose: args.expose.iter().map(|text| expose::parse(text)).collect::<Result<_, _>>()?,
        disks: args.disks.iter().map(|text| disk(text)).collect(),
        boot_protocol: args.boot_protocol,
        image: args.image.image,
        command: args.image.command,
        ephemeral: args.image.ephemeral,
        overlay_mb: args.image.overlay,
        volumes,
        insecure: args.insecure,
        boot_from: args.boot_from,
        cloud_init,
        network_mode: args.network,
        ttl_ms: args.life.ttl_ms,
        on_expiry: args.life.on_expiry.into(),
    };
    let spinner = spinner("booting");
    let timeout_ms = args.timeout.saturating_mul(1000);
    let wait = args.wait && !args.no_start;
    let path = format!("/api/v1/vms?wait={wait}&until=ready&timeout_ms={timeout_ms}");
    let vm: Result<VmView, Failure> = client.json(Method::POST, &path, Some(&body)).await;
    spinner.finish_and_clear();
    let vm = vm?;
    output::vms(form, std::slice::from_ref(&vm), true)?;
    if wait { came_up(&vm) } else { Ok(()) }
}

/// The documents whose files are named.
fn cloud_init(args: &CreateArgs) -> Result<Option<CloudInitBody>, Failure> {
    let read = |path: &Option<std::path::PathBuf>| {
        let Some(path) = path else { return Ok(None) };
        let text = std::fs::read_to_string(path);
        text.map(Some).map_err(|e| Failure::local(format!("{}: {e}", path.display())))
    };
    let documents = CloudInitBody {
        user_data: read(&args.user_data)?,
        meta_data: read(&args.meta_data)?,
        network_config: read(&args.network_config)?,
    };
    let CloudInitBody { user_data, meta_data, network_config } = &documents;
    let any = user_data.is_some() || meta_data.is_some() || network_config.is_some();
    Ok(any.then_some(documents))
}

impl From<OnExpiryArg> for OnExpiryWord {
    fn from(then: OnExpiryArg) -> OnExpiryWord {
        match then {
            OnExpiryArg::Delete => OnExpiryWord::Delete,
            OnExpiryArg::Stop => OnExpiryWord::Stop,
        }
    }
}

/// Whether a VM that was waited for does what it is there for, or has done it.
fn came_up(vm: &VmView) -> Result<(), Failure> {
    match &vm.workload {
        Some(workload) if !vm.ready && workload.condition != "finished" => {
            let (condition, reason) = (&workload.condition, &workload.reason);
            let hint = format!("`volantd ctl vms logs {}` shows its output", vm.name);
            let message = format!("the VM runs, but its workload is {condition}: {reason}");
            Err(Failure { hint: Some(hint), ..Failure::local(message) })
        }
        _ => Ok(()),
    }
}

fn disk(text: &str) -> DiskView {
    let readonly = text.strip_suffix(":ro");
    DiskView { path: readonly.unwrap_or(text).to_owned(), readonly: readonly.is_some() }
}

async fn change(
    client: &Client,
    args: ChangeArgs,
    verb: &'static str,
    form: Output,
) -> Result<(), Failure> {
    let spinner = spinner(verb);
    let timeout_ms = args.timeout.saturating_mul(1000);
    let wait = args.wait;
    let query = format!("/{verb}?wait={wait}&until=ready&timeout_ms={timeout_ms}");
    let vm: Result<VmView, Failure> =
        client.json(Method::POST, &path(&args.name, &query), NO_BODY).await;
    spinner.finish_and_clear();
    let vm = vm?;
    output::vms(form, std::slice::from_ref(&vm), true)?;
    if wait { came_up(&vm) } else { Ok(()) }
}
