//! Composition root: checks, parts in order, serve, drain in reverse.

mod listen;
mod watchdog;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::extract::Request;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::api::{self, Auth, E2bSettings, Listener, NetworkList, Rules, Service, Shortcut, Tls};
use crate::artifact;
use crate::artifact::fetch::{Fetcher, HostPolicy};
use crate::artifact::folders::Folders;
use crate::artifact::oci::Limits;
use crate::artifact::source::Sources;
use crate::artifact::store::ImageStore;
use crate::cli::ServeFlags;
use crate::config::{self, Config, token};
use crate::doctor;
use crate::net::{NetConfig, Network, Subnet};
use crate::orchestrator::{EngineConfig, Images, ImagesConfig, Orchestrator};
use crate::proxy;
use crate::store::Store;
use crate::telemetry;
use crate::vmm::Hypervisor;
use listen::{Sockets, bind};

/// Runs the daemon until SIGTERM or SIGINT.
pub fn main(flags: &ServeFlags) -> ExitCode {
    report(resolve(flags).and_then(|config| {
        telemetry::install(&config.log_level)
            .map_err(|error| anyhow::anyhow!("log_level: {error}"))?;
        if let Some(refusal) = doctor::start_refusal(&doctor::Host::real(config.clone(), flags)) {
            bail!(refusal);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(serve(config))
    }))
}

/// Prints the configuration in effect.
#[expect(clippy::print_stdout, reason = "the output of `config show`")]
pub fn show_config(flags: &ServeFlags) -> ExitCode {
    report(resolve(flags).and_then(|config| {
        print!("{}", toml::to_string(&config)?);
        Ok(())
    }))
}

#[expect(clippy::print_stderr, reason = "one sentence for whoever started it")]
fn report(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("volantd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn resolve(flags: &ServeFlags) -> Result<Config> {
    let executable = std::env::current_exe().context("find this program")?;
    Ok(config::resolve(flags, &executable)?)
}

async fn serve(config: Config) -> Result<()> {
    raise_descriptor_limit()?;
    make_folder(&config.state_dir)?;
    let _lock = lock(&config.state_dir.join("lock"))?;
    let token = token::load_or_make(&config.token_file)?;
    let tls = load_tls(&config)?;
    let sockets = Sockets::open(&config, tls.clone()).await?;
    let orchestrator = open_engine(&config).await?;

    let shutdown = CancellationToken::new();
    let auth = Auth::new(orchestrator.clone(), &token, rules(&config)?);
    let router = api::router(orchestrator.clone()).merge(proxy::router(orchestrator.clone()));
    let router = api::authorize(router, orchestrator.clone());
    reload_on_hangup(tls.clone())?;
    let agui = api::mount_agui(router.clone(), orchestrator.clone());
    let mcp = api::mount_mcp(router.clone(), orchestrator.clone(), shutdown.child_token());
    let e2b = api::mount_e2b(router.clone(), orchestrator.clone(), e2b_settings(&config));
    let router = router.merge(agui).merge(mcp).merge(e2b);
    let shortcut = shortcut(proxy::Relay::new(orchestrator.clone()), auth.clone());
    let router = api::protect(router, auth);
    let service = Service { router: router.clone(), shortcut: Some(shortcut) };
    let servers = TaskTracker::new();
    if let Some(address) = config.proxy_listen {
        let hosts = proxy::host_router(orchestrator.clone(), &config.proxy_domain);
        let hosts = api::e2b_by_host(router.clone(), hosts, &config.proxy_domain);
        let hosts = Service { router: hosts, shortcut: None };
        let listener = Listener::Tcp(bind(address).await?, tls.clone());
        servers.spawn(api::serve(listener, hosts, shutdown.clone()));
    }
    for listener in sockets.listeners {
        servers.spawn(api::serve(listener, service.clone(), shutdown.clone()));
    }
    tracing::info!(socket = %config.socket.display(), listen = %config.listen, "ready");
    // Absent without systemd.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let _watchdog = AbortOnDropHandle::new(tokio::spawn(watchdog::run(orchestrator.clone())));

    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping the guests");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    let drained = async {
        orchestrator.shut_down().await;
        shutdown.cancel();
        servers.close();
        servers.wait().await;
    };
    tokio::select! {
        () = drained => {}
        _ = terminate.recv() => tracing::warn!("second signal: leaving at once"),
        _ = interrupt.recv() => tracing::warn!("second signal: leaving at once"),
    }
    if sockets.own {
        let _ = fs::remove_file(&config.socket);
    }
    Ok(())
}

/// Plain requests to guests' ports go past the routes, once they have passed their gates.
fn shortcut(relay: proxy::Relay, auth: Auth) -> Shortcut {
    Shortcut(Arc::new(move |stream, template, ended| {
        let (relay, auth) = (relay.clone(), auth.clone());
        let open = move |request: &mut Request| auth.open_port(request);
        Box::pin(async move { relay.serve(stream, template, open, ended).await })
    }))
}

/// Who may connect, and how a request must look.
fn rules(config: &Config) -> Result<Rules> {
    let networks = |texts: &[String], what| NetworkList::parse(texts).context(what);
    Ok(Rules {
        allow: networks(&config.allow, "allow")?,
        trusted_proxies: networks(&config.http.trusted_proxies, "http.trusted_proxies")?,
        hosts: config.http.hosts.clone(),
        origins: config.http.cors_origins.clone(),
        requests_per_second: config.requests_per_second_max,
    })
}

fn load_tls(config: &Config) -> Result<Option<Tls>> {
    let files = config.http.tls_certificate.as_deref().zip(config.http.tls_key.as_deref());
    files.map(|(certificate, key)| Ok(Tls::load(certificate, key)?)).transpose()
}

/// SIGHUP is the order to read the certificate again (`systemctl reload`); it never ends the daemon.
fn reload_on_hangup(tls: Option<Tls>) -> Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match tls.as_ref().map(Tls::reload) {
                Some(Ok(())) => tracing::info!("the certificate was read again"),
                Some(Err(error)) => {
                    tracing::error!(error = %format!("{:#}", anyhow::Error::new(error)), "the old certificate stays")
                }
                None => {}
            }
        }
    });
    Ok(())
}

/// Linux gives huge pages to shared memory only where this allows it, and never by default. With
/// `advise` nobody else's memory changes: only who asks gets them
/// (Documentation/admin-guide/mm/transhuge.rst).
const SHMEM_HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

/// Lets guests' memory have huge pages. Without them guests start slower, nothing else.
fn allow_huge_pages() {
    let Ok(policy) = fs::read_to_string(SHMEM_HUGE_PAGES) else { return };
    if policy.contains("[never]")
        && let Err(error) = fs::write(SHMEM_HUGE_PAGES, "advise")
    {
        tracing::warn!(%error, "guests get no huge pages: {SHMEM_HUGE_PAGES} says never");
    }
}

async fn open_engine(config: &Config) -> Result<Orchestrator> {
    let busybox = config.busybox.exists().then_some(config.busybox.as_path());
    let images = config.state_dir.join("images");
    let initramfs = artifact::default_initramfs(&images, &config.agent, busybox)?;
    let subnet: Subnet = config.subnet.parse().context("subnet")?;
    let host_ip = config.host_ip.unwrap_or(subnet.first_host());
    let network = NetConfig { bridge: config.bridge.clone(), subnet, host_ip };
    let network = Network::set_up(network).await.context("set up the network")?;
    if config.huge_pages {
        allow_huge_pages();
    }
    let kvm = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm")?;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let hypervisor = Hypervisor::new(OwnedFd::from(kvm), cpus.div_ceil(2)).context("use KVM")?;
    let store = Store::open(&config.state_dir.join("state.db"))?;
    let images = open_images(config)?;
    let engine = EngineConfig {
        kernel: config.kernel.clone(),
        initramfs,
        boot_timeout: Duration::from_millis(config.boot_timeout_ms),
        stop_timeout: Duration::from_millis(config.stop_timeout_ms),
        dns: config.dns.clone(),
        logs: config.state_dir.join("logs"),
        log_len_max: config.log_bytes_max,
        volumes: config.state_dir.join("volumes"),
        agent: config.agent.clone(),
        busybox: config.busybox.clone(),
        sources: sources(config, &images)?,
        huge_pages: config.huge_pages,
        memory_mib_max: host_memory_mib()? * u64::from(config.memory_percent_max) / 100,
        proxy_authority: proxy_authority(config),
        proxy_scheme: if config.http.tls_key.is_some() { "https" } else { "http" },
    };
    Ok(Orchestrator::open(engine, store, network, hypervisor, images).await?)
}

fn sources(config: &Config, images: &Images) -> Result<Sources> {
    let settings = &config.artifacts;
    let policy = HostPolicy {
        allowed: settings.hosts.clone(),
        plain_http: settings.plain_http_hosts.clone(),
    };
    let folders = Folders { named: settings.folders.clone(), own: images.store().folders() };
    let fetcher = Fetcher::new(policy).context("set up TLS")?;
    Ok(Sources { fetcher, folders: Arc::new(folders) })
}

/// Domain and port below which ports of VMs have names.
fn proxy_authority(config: &Config) -> Option<String> {
    let address = config.proxy_listen?;
    Some(format!("{}:{}", config.proxy_domain, address.port()))
}

fn e2b_settings(config: &Config) -> E2bSettings {
    let settings = config.e2b.clone();
    E2bSettings {
        templates: settings.templates,
        cpus: settings.cpus,
        memory_mib: settings.memory_mib,
        domain: proxy_authority(config),
    }
}

fn open_images(config: &Config) -> Result<Images> {
    let settings = &config.images;
    let root = config.state_dir.join("images/store");
    let store = ImageStore::open(root, settings.store_mib_max.saturating_mul(1 << 20));
    let policy = HostPolicy {
        allowed: settings.hosts.clone(),
        plain_http: settings.plain_http_hosts.clone(),
    };
    Ok(Images::new(ImagesConfig {
        store: store.context("open the image store")?,
        fetcher: Fetcher::new(policy).context("set up TLS")?,
        limits: Limits {
            inodes_max: settings.entries_max,
            bytes_max: settings.image_mib_max.saturating_mul(1 << 20),
            ..Limits::default()
        },
        auth_file: settings.auth_file.clone(),
        overlays: config.state_dir.join("images/overlays"),
        overlay_mib: settings.overlay_mib,
    }))
}

/// A guest takes about ten descriptors, a client one: the soft limit of 1024 is soon reached.
fn raise_descriptor_limit() -> Result<()> {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit)
        .context("raise the limit of open files")
}

fn host_memory_mib() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(kib.context("no MemTotal in /proc/meminfo")? / 1024)
}

fn make_folder(path: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("make {}", path.display()))
}

/// Two daemons must not share a state folder.
fn lock(path: &Path) -> Result<fs::File> {
    let file = fs::File::create(path).with_context(|| format!("make {}", path.display()))?;
    if file.try_lock().is_err() {
        bail!(
            "another volantd uses this state folder; stop it, or give this one its own --state-dir"
        );
    }
    Ok(file)
}
