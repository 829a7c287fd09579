//! The command line as plain data. No effects, no defaults that depend on the machine.

mod access;
mod actions;
mod artifacts;
mod build;
mod context;
mod declare;
mod doctor;
mod examples;
mod expose;
mod file;
mod images;
mod jobs;
mod life;
mod operations;
mod plugins;
mod process;
mod reference;
mod setup;
mod shell;
mod vm_access;
mod volumes;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

pub use access::{AuditArgs, McpArgs, ScopeWord, TokensCommand};
pub use actions::{PayloadArgs, PluginActionArgs, VmActionArgs};
pub use artifacts::ArtifactsCommand;
pub use build::BuildArgs;
pub use context::ContextCommand;
pub use declare::{ApiArgs, ApplyArgs, PortForwardArgs, TopArgs, WatchArgs};
pub use doctor::DoctorArgs;
pub use examples::EXAMPLES;
pub use expose::{ExposeArgs, UnexposeArgs};
pub use file::{CpArgs, FilesCommand};
pub use images::{ImageArgs, ImagesCommand, PullArgs};
pub use jobs::OperationsCommand;
pub use life::{LifeArgs, OnExpiryArg, TtlArgs};
pub use operations::CallArgs;
pub use plugins::{InstallArgs, PluginsCommand};
pub use process::{AttachArgs, ExecArgs, KillArgs, WaitArgs};
pub use reference::reference;
pub use setup::SetupArgs;
pub use shell::{CompletionsArgs, ManArgs, Shell};
pub use vm_access::{AccessArgs, UrlArgs};
pub use volumes::VolumesCommand;

/// A microVM engine in one process.
#[derive(Debug, Parser)]
#[command(name = "volantd", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; without one, serve.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of serve.
    #[command(flatten)]
    pub serve: ServeFlags,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon
    Serve(ServeFlags),
    /// Look at the configuration
    Config {
        /// What to do with it
        #[arg(value_enum)]
        show: ConfigVerb,
        /// The flags that serve would get
        #[command(flatten)]
        flags: ServeFlags,
    },
    /// Check this host, and say what mends it
    Doctor(Box<DoctorArgs>),
    /// Turn this host into one for volantd, or back
    Setup(Box<SetupArgs>),
    /// Talk to a running daemon
    Ctl(CtlArgs),
    /// Speak MCP on stdin and stdout, for agents on this machine
    Mcp(McpArgs),
    /// Print what a shell reads to complete commands, and names of VMs, plugins, images and volumes
    Completions(CompletionsArgs),
    /// Write man pages
    Man(ManArgs),
}

/// The definition of the command line, with examples in its help.
pub fn command() -> clap::Command {
    examples::with_examples(Cli::command())
}

/// What to do with the configuration.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ConfigVerb {
    /// Print the one in effect
    Show,
}

/// Flags of the daemon. Flags win over VOLANT_* variables, those over the file, that over defaults.
#[derive(Clone, Debug, Default, Args)]
pub struct ServeFlags {
    /// TOML file
    #[arg(long, env = "VOLANT_CONFIG")]
    pub config: Option<PathBuf>,
    /// Folder for the database, the token and images
    #[arg(long, env = "VOLANT_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Unix socket of the API
    #[arg(long, env = "VOLANT_SOCKET")]
    pub socket: Option<PathBuf>,
    /// TCP address of the API
    #[arg(long, env = "VOLANT_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// TCP address of the proxy to guests; none by default
    #[arg(long, env = "VOLANT_PROXY_LISTEN")]
    pub proxy_listen: Option<SocketAddr>,
    /// Domain of the proxy: {port}-{vm}.{domain} is a port of a guest
    #[arg(long, env = "VOLANT_PROXY_DOMAIN")]
    pub proxy_domain: Option<String>,
    /// File with the bearer token for TCP; made at the first start
    #[arg(long, env = "VOLANT_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Default guest kernel
    #[arg(long, env = "VOLANT_KERNEL")]
    pub kernel: Option<PathBuf>,
    /// Guest agent for the default initramfs
    #[arg(long, env = "VOLANT_AGENT")]
    pub agent: Option<PathBuf>,
    /// Static busybox for the default initramfs
    #[arg(long, env = "VOLANT_BUSYBOX")]
    pub busybox: Option<PathBuf>,
    /// Bridge for the guests
    #[arg(long, env = "VOLANT_BRIDGE")]
    pub bridge: Option<String>,
    /// Subnet of the guests
    #[arg(long, env = "VOLANT_SUBNET")]
    pub subnet: Option<String>,
    /// The bridge's address; the subnet's first if absent
    #[arg(long, env = "VOLANT_HOST_IP")]
    pub host_ip: Option<Ipv4Addr>,
    /// Name servers told to guests
    #[arg(long, env = "VOLANT_DNS", value_delimiter = ',')]
    pub dns: Option<Vec<Ipv4Addr>>,
    /// Deadline from start to the agent's answer
    #[arg(long, env = "VOLANT_BOOT_TIMEOUT_MS")]
    pub boot_timeout_ms: Option<u64>,
    /// What a guest has to shut down
    #[arg(long, env = "VOLANT_STOP_TIMEOUT_MS")]
    pub stop_timeout_ms: Option<u64>,
    /// Share of the host's memory that guests may have, in percent
    #[arg(long, env = "VOLANT_MEMORY_PERCENT_MAX")]
    pub memory_percent_max: Option<u8>,
    /// Guest memory in huge pages: quicker starts, some MiB more per VM
    #[arg(long, env = "VOLANT_HUGE_PAGES")]
    pub huge_pages: Option<bool>,
    /// Bytes kept of what each VM's workload writes
    #[arg(long, env = "VOLANT_LOG_BYTES_MAX")]
    pub log_bytes_max: Option<u64>,
    /// Networks that may connect by TCP, e.g. 192.0.2.0/24; none means all
    #[arg(long, env = "VOLANT_ALLOW", value_delimiter = ',')]
    pub allow: Option<Vec<String>>,
    /// Requests that each token has per second; 0 for no limit
    #[arg(long, env = "VOLANT_REQUESTS_PER_SECOND_MAX")]
    pub requests_per_second_max: Option<u32>,
    /// Log filter, e.g. info or volantd=debug
    #[arg(long, env = "VOLANT_LOG_LEVEL")]
    pub log_level: Option<String>,
}

/// `volantd ctl`.
#[derive(Debug, Args)]
pub struct CtlArgs {
    /// Daemon: unix:///path, http://host:port or https://host:port; else VOLANT_HOST
    #[arg(long, global = true)]
    pub host: Option<String>,
    /// Name of a daemon, as `context list` has it; else VOLANT_CONTEXT, else the one in use
    #[arg(long, conflicts_with = "host", global = true)]
    pub context: Option<String>,
    /// File with the bearer token; else the context's, else VOLANT_TOKEN_FILE
    #[arg(long, global = true)]
    pub token_file: Option<PathBuf>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value = "table", env = "VOLANT_OUTPUT", global = true)]
    pub output: Output,
    /// A line for each, in the language of Jinja, for example '{{ name }} {{ ip_address }}'
    #[arg(long, value_name = "TEXT", global = true)]
    pub template: Option<String>,
    /// Only names, one a line; the same as -o name
    #[arg(short, long, conflicts_with = "template", global = true)]
    pub quiet: bool,
    /// What to do; without one, on a terminal, the terminal interface
    #[command(subcommand)]
    pub command: Option<CtlCommand>,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Columns for people
    Table,
    /// The same with more columns
    Wide,
    /// JSON for programs
    Json,
    /// YAML
    Yaml,
    /// Only names, one a line
    Name,
    /// What --template says
    Template,
}

/// Verbs of `ctl`.
#[derive(Debug, Subcommand)]
pub enum CtlCommand {
    /// Look at the fleet and work on it, on the whole terminal
    Tui,
    /// Create, look at, run and remove VMs
    #[command(subcommand)]
    Vms(VmsCommand),
    /// Install, look at and remove plugins
    #[command(subcommand)]
    Plugins(PluginsCommand),
    /// Bring, look at and remove images
    #[command(subcommand)]
    Images(ImagesCommand),
    /// Build an artifact and its manifest of a Volantfile
    Build(BuildArgs),
    /// Look at the files that VMs are made of, beside images
    #[command(subcommand)]
    Artifacts(ArtifactsCommand),
    /// Look at and end work that takes long
    #[command(subcommand)]
    Operations(OperationsCommand),
    /// Make, grow, back up and remove volumes
    #[command(subcommand)]
    Volumes(VolumesCommand),
    /// Make VMs, plugins and volumes as a file declares them
    Apply(ApplyArgs),
    /// Show what guests use of processors, memory, disk and network
    Top(TopArgs),
    /// Let ports of this machine lead to a VM, for as long as this runs
    PortForward(PortForwardArgs),
    /// Send any request, and print the answer
    Api(ApiArgs),
    /// Daemons by name
    #[command(subcommand)]
    Context(ContextCommand),
    /// Show the daemon's version and how many VMs there are
    Info,
    /// Who may call over TCP
    #[command(subcommand)]
    Tokens(TokensCommand),
    /// Who has changed what, newest first
    Audit(AuditArgs),
    /// Follow what happens, one event a line
    Events {
        /// As it does anyway
        #[arg(short, long, hide = true)]
        follow: bool,
        /// Begin after this event
        #[arg(long)]
        since: Option<i64>,
    },
}

/// Verbs on VMs.
#[derive(Debug, Subcommand)]
pub enum VmsCommand {
    /// List all VMs
    List(WatchArgs),
    /// Show one VM
    Get {
        /// Name of the VM
        name: String,
    },
    /// Create a VM and start it
    Create(Box<CreateArgs>),
    /// Start a stopped VM
    Start(ChangeArgs),
    /// Shut a VM down
    Stop(ChangeArgs),
    /// Stop, then start
    Restart(ChangeArgs),
    /// Return once a VM is in a phase
    Await {
        /// Name of the VM
        name: String,
        /// What to wait for
        #[arg(long = "for", value_enum, default_value = "running")]
        phase: PhaseWord,
        /// How long to wait, in seconds
        #[arg(long, default_value_t = 120)]
        timeout: u64,
    },
    /// Let a VM's time be over after a while, or never
    Ttl(TtlArgs),
    /// Remove a VM and all that is its own
    Delete {
        /// Name of the VM
        name: String,
    },
    /// Run a command in a VM; exits as the command does
    Exec(ExecArgs),
    /// List the processes that were started in a VM
    Ps {
        /// Name of the VM
        name: String,
        /// Whether it is shown again
        #[command(flatten)]
        watch: WatchArgs,
    },
    /// Look at a process again, or go on with it; exits as the process does
    Attach(AttachArgs),
    /// Send a signal to a process
    Kill(KillArgs),
    /// Wait for the end of a process; exits as the process did
    Wait(WaitArgs),
    /// Copy files and trees between this machine and a VM
    Cp(CpArgs),
    /// Let a port of the host lead to one of a VM, and print the host's
    Expose(ExposeArgs),
    /// List the ports of the host that lead to a VM
    Exposed {
        /// Name of the VM
        name: String,
    },
    /// Let a port of the host lead nowhere again
    Unexpose(UnexposeArgs),
    /// Show the token that opens a VM's ports, making one if there is none
    Access(AccessArgs),
    /// Make an address that opens a port of a VM for a while
    Url(UrlArgs),
    /// Look at and change files in a VM
    #[command(subcommand)]
    Files(FilesCommand),
    /// Attach the terminal to the serial console
    Console(ConsoleArgs),
    /// List what the VM can be asked: its plugin's actions and its workload's own operations
    Operations {
        /// Name of the VM
        name: String,
    },
    /// Call one of the VM's operations
    Call(CallArgs),
    /// Print what the workload has written, or the serial console's output
    Logs(LogsArgs),
    /// Call an action of a plugin
    Action(VmActionArgs),
    /// Show what the latest start took
    Timeline {
        /// Name of the VM
        name: String,
    },
    /// Show the guest's kernel, its agent, and what that can do
    Guest {
        /// Name of the VM
        name: String,
    },
    /// Show counters of processors, memory, disk and network since the guest's start
    Metrics {
        /// Name of the VM
        name: String,
    },
    /// List what listens in the guest
    Ports {
        /// Name of the VM
        name: String,
        /// Whether it is shown again
        #[command(flatten)]
        watch: WatchArgs,
    },
    /// Set the guest's clock to the host's, and print how far it was ahead, in milliseconds
    SyncTime {
        /// Name of the VM
        name: String,
    },
}

/// What can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PhaseWord {
    /// Its agent has answered
    Running,
    /// It runs, and its workload, if it has one, is ready
    Ready,
    /// It is down
    Stopped,
    /// It is down, and not by anyone's wish
    Failed,
    /// It is gone
    Deleted,
}

/// Arguments of create.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// 1 to 63 of a-z, 0-9, -
    pub name: String,
    /// Plugin that it is made of
    #[arg(long)]
    pub plugin: Option<String>,
    /// Version of the plugin; the current one if absent
    #[arg(long, requires = "plugin")]
    pub plugin_version: Option<String>,
    /// Virtual CPUs; the plugin's, or 1, if absent
    #[arg(long)]
    pub cpu: Option<u32>,
    /// Guest RAM in MiB; the plugin's, or 256, if absent
    #[arg(long)]
    pub memory: Option<u64>,
    /// Kernel on the daemon's host
    #[arg(long)]
    pub kernel: Option<String>,
    /// Initramfs on the daemon's host
    #[arg(long)]
    pub initramfs: Option<String>,
    /// Words for the kernel command line
    #[arg(long, default_value = "")]
    pub kernel_cmdline: String,
    /// Environment, KEY=VALUE
    #[arg(long, value_parser = key_value)]
    pub env: Vec<(String, String)>,
    /// Label, KEY=VALUE
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
    pub labels: Vec<(String, String)>,
    /// Raw file of the daemon's host as a disk, /dev/vda first; PATH:ro for read-only
    #[arg(long = "disk", value_name = "PATH[:ro]")]
    pub disks: Vec<String>,
    /// Volume, mounted at a path of the guest; :ro for read-only, as many VMs may have it
    #[arg(long = "volume", value_name = "NAME:PATH[:ro]")]
    pub volumes: Vec<String>,
    /// What it runs
    #[command(flatten)]
    pub image: ImageArgs,
    /// What the kernel starts from: initramfs, disk (the first one, whose own init starts the agent) or
    /// disk-without-agent
    #[arg(long, value_name = "WHAT")]
    pub boot_from: Option<String>,
    /// How it is connected: bridged, or vsock for no network card; the plugin's, or bridged, if absent
    #[arg(long, value_name = "MODE")]
    pub network: Option<String>,
    /// File with cloud-init's user data
    #[arg(long, value_name = "FILE")]
    pub user_data: Option<PathBuf>,
    /// File with cloud-init's meta data
    #[arg(long, value_name = "FILE")]
    pub meta_data: Option<PathBuf>,
    /// File with cloud-init's network configuration
    #[arg(long, value_name = "FILE")]
    pub network_config: Option<PathBuf>,
    /// Take downloads that the plugin's manifest has no checksum of
    #[arg(long, requires = "plugin")]
    pub insecure: bool,
    /// How an ELF kernel is entered: auto, pvh or linux64
    #[arg(long, default_value = "auto")]
    pub boot_protocol: String,
    /// Port of the host that leads to it: [IP:][HOST-PORT:]GUEST-PORT[/udp]
    #[arg(long = "expose", value_name = "PORTS")]
    pub expose: Vec<String>,
    /// How long it may live
    #[command(flatten)]
    pub life: LifeArgs,
    /// No serial console
    #[arg(long)]
    pub no_console: bool,
    /// Do not start it
    #[arg(long)]
    pub no_start: bool,
    /// Wait until it runs, and its workload, if it has one, is ready
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub wait: bool,
    /// How long to wait, in seconds
    #[arg(long, default_value_t = 120)]
    pub timeout: u64,
}

/// Arguments of logs.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Name of the VM
    pub name: String,
    /// Go on as more comes
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last lines
    #[arg(long)]
    pub tail: Option<usize>,
    /// Only what came since then: a time as in RFC 3339, or how long ago, as in 90s, 10m, 2h
    #[arg(long)]
    pub since: Option<String>,
    /// Whose output; the workload's if the VM has one
    #[arg(long, value_enum)]
    pub source: Option<LogSource>,
    /// Time and stream before each line
    #[arg(short, long)]
    pub timestamps: bool,
}

/// Whose output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogSource {
    /// The serial console's
    Console,
    /// The workload's stdout and stderr
    Workload,
}

/// Arguments of console.
#[derive(Debug, Args)]
pub struct ConsoleArgs {
    /// Name of the VM
    pub name: String,
    /// Only look on
    #[arg(long, conflicts_with = "take")]
    pub view: bool,
    /// Type in place of whoever types now
    #[arg(long)]
    pub take: bool,
    /// Keys that detach
    #[arg(long, default_value = "ctrl-]")]
    pub detach_keys: String,
}

/// Arguments of start, stop and restart.
#[derive(Debug, Args)]
pub struct ChangeArgs {
    /// Name of the VM
    pub name: String,
    /// Wait until it is done
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub wait: bool,
    /// How long to wait, in seconds
    #[arg(long, default_value_t = 120)]
    pub timeout: u64,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_seeds_lines_parse() {
        let line = "volantd ctl vms create demo --cpu 2 --memory 512";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Some(Command::Ctl(CtlArgs { command, .. })) = cli.command else { panic!("not ctl") };
        let Some(CtlCommand::Vms(VmsCommand::Create(create))) = command else {
            panic!("not create")
        };
        assert_eq!((create.cpu, create.memory, create.wait), (Some(2), Some(512), true));
        let line = "volantd ctl plugins install browser --manifest ./manifests/browser.json";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Some(Command::Ctl(CtlArgs { command, .. })) = cli.command else { panic!("not ctl") };
        let Some(CtlCommand::Plugins(PluginsCommand::Install(install))) = command else {
            panic!("not install")
        };
        assert_eq!(install.name.as_deref(), Some("browser"));
        for line in [
            "volantd ctl vms action demo browser navigate --payload {\"url\":\"https://a\"}",
            "volantd ctl plugins action browser navigate --payload ./payload.json",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }
}
