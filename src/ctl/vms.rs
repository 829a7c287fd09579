//! `volantd ctl vms ...`: one function for each verb.

use hyper::Method;

use crate::cli::{ChangeArgs, CreateArgs, OnExpiryArg, PhaseWord, TtlArgs, VmsCommand, WatchArgs};
use crate::ctl::client::{Client, Failure};
use crate::ctl::output::Printer;
use crate::ctl::{
    actions, artifacts, console, copy, exec, expose, files, guest, images, logs, operations,
    processes, vm_access, volumes, watch,
};
use crate::wire::{
    CloudInitBody, CreateVm, DiskView, FetchPlugin, OnExpiryWord, PullImage, SetTtl, VmView,
};

const NO_BODY: Option<&()> = None;

/// Runs a verb.
///
/// # Errors
/// [`Failure`].
pub async fn run(client: &Client, command: VmsCommand, out: &Printer) -> Result<u8, Failure> {
    match command {
        VmsCommand::List(WatchArgs { watch }) => {
            let read =
                async || client.json::<Vec<VmView>>(Method::GET, "/api/v1/vms", NO_BODY).await;
            watch::list(watch, out, read).await?;
        }
        VmsCommand::Get { name } => out.one(&get(client, &name).await?)?,
        VmsCommand::Create(args) => create(client, *args, out).await?,
        VmsCommand::Start(args) => change(client, args, "start", out).await?,
        VmsCommand::Stop(args) => change(client, args, "stop", out).await?,
        VmsCommand::Restart(args) => change(client, args, "restart", out).await?,
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
            out.one::<VmView>(&client.json(Method::GET, &path, NO_BODY).await?)?;
        }
        VmsCommand::Ttl(TtlArgs { name, ttl_ms, on_expiry }) => {
            let body = SetTtl { ttl_ms, on_expiry: on_expiry.into() };
            let vm: VmView = client.json(Method::PUT, &path(&name, "/ttl"), Some(&body)).await?;
            out.one(&vm)?;
        }
        VmsCommand::Delete { name } => {
            let spinner = out.spinner("deleting");
            client.send(Method::DELETE, &path(&name, ""), None, "*/*").await?;
            spinner.finish_and_clear();
        }
        VmsCommand::Exec(args) => return exec::run(client, args, out).await,
        VmsCommand::Ps { name, watch } => processes::list(client, &name, watch.watch, out).await?,
        VmsCommand::Attach(args) => return processes::attach(client, args, out).await,
        VmsCommand::Kill(args) => processes::kill(client, args).await?,
        VmsCommand::Wait(args) => return processes::wait(client, args).await,
        VmsCommand::Cp(args) => copy::run(client, &args).await?,
        VmsCommand::Files(command) => return files::run(client, command, out).await,
        VmsCommand::Access(args) => vm_access::token(client, &args, out).await?,
        VmsCommand::Url(args) => vm_access::url(client, args, out).await?,
        VmsCommand::Expose(args) => expose::add(client, &args, out).await?,
        VmsCommand::Exposed { name } => expose::list(client, &name, out).await?,
        VmsCommand::Unexpose(args) => expose::remove(client, &args).await?,
        VmsCommand::Console(args) => return console::attach(client, &args).await,
        VmsCommand::Operations { name } => operations::list(client, &name, out).await?,
        VmsCommand::Call(args) => return operations::call(client, args, out).await,
        VmsCommand::Logs(args) => logs::run(client, &args, out).await?,
        VmsCommand::Action(args) => return actions::of_vm(client, args, out).await,
        VmsCommand::Guest { name } => guest::info(client, &name, out).await?,
        VmsCommand::Metrics { name } => guest::metrics(client, &name, out).await?,
        VmsCommand::Ports { name, watch } => {
            guest::ports(client, &name, watch.watch, out).await?;
        }
        VmsCommand::SyncTime { name } => guest::sync_time(client, &name, out).await?,
        VmsCommand::Timeline { name } => out.timeline(&get(client, &name).await?)?,
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
///
/// # Errors
/// [`Failure`].
pub async fn bring(client: &Client, reference: String, out: &Printer) -> Result<(), Failure> {
    let path = format!("/api/v1/images/{}", encoded(&reference));
    match client.send(Method::GET, &path, None, "application/json").await {
        Err(failure) if failure.exit_code == 3 => {
            let request = PullImage { reference, if_missing: true, auth: None };
            images::pull(client, &request, out).await.map(drop)
        }
        other => other.map(drop),
    }
}

async fn get(client: &Client, name: &str) -> Result<VmView, Failure> {
    client.json(Method::GET, &path(name, ""), NO_BODY).await
}

async fn create(client: &Client, args: CreateArgs, out: &Printer) -> Result<(), Failure> {
    let volumes = args.volumes.iter().map(|text| volumes::of_vm(text)).collect::<Result<_, _>>()?;
    if let Some(reference) = args.image.image.clone() {
        bring(client, reference, out).await?;
    } else if let Some(plugin) = &args.plugin {
        let version = args.plugin_version.clone();
        let request = FetchPlugin { version, insecure: args.insecure };
        artifacts::fetch(client, plugin, &request, out).await?;
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
    let spinner = out.spinner("booting");
    let timeout_ms = args.timeout.saturating_mul(1000);
    let wait = args.wait && !args.no_start;
    let path = format!("/api/v1/vms?wait={wait}&until=ready&timeout_ms={timeout_ms}");
    let vm: Result<VmView, Failure> = client.json(Method::POST, &path, Some(&body)).await;
    spinner.finish_and_clear();
    let vm = vm?;
    out.one(&vm)?;
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
///
/// # Errors
/// It does not, and why.
pub fn came_up(vm: &VmView) -> Result<(), Failure> {
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
    out: &Printer,
) -> Result<(), Failure> {
    let spinner = out.spinner(verb);
    let timeout_ms = args.timeout.saturating_mul(1000);
    let wait = args.wait;
    let query = format!("/{verb}?wait={wait}&until=ready&timeout_ms={timeout_ms}");
    let vm: Result<VmView, Failure> =
        client.json(Method::POST, &path(&args.name, &query), NO_BODY).await;
    spinner.finish_and_clear();
    let vm = vm?;
    out.one(&vm)?;
    if wait { came_up(&vm) } else { Ok(()) }
}
