//! Arguments of the verbs on processes in a VM.

use clap::Args;

use crate::cli::key_value;

/// Arguments of exec.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Name of the VM
    pub name: String,
    /// Send stdin to the command
    #[arg(short, long)]
    pub interactive: bool,
    /// Run it on a terminal of its own
    #[arg(short, long, conflicts_with = "detach")]
    pub tty: bool,
    /// Start it and print its id; `vms attach` looks at it
    #[arg(short, long)]
    pub detach: bool,
    /// Keys that leave a command on a terminal running; empty for none
    #[arg(long, default_value = "ctrl-p,ctrl-q")]
    pub detach_keys: String,
    /// Environment, KEY=VALUE
    #[arg(long, value_parser = key_value)]
    pub env: Vec<(String, String)>,
    /// Working directory
    #[arg(long)]
    pub cwd: Option<String>,
    /// User name, uid or uid:gid
    #[arg(long)]
    pub user: Option<String>,
    /// Kill it after this many seconds
    #[arg(long)]
    pub timeout: Option<u64>,
    /// Kill it when nothing has moved for this many seconds
    #[arg(long)]
    pub idle_timeout: Option<u64>,
    /// A name for it, shown by `vms ps`
    #[arg(long)]
    pub tag: Option<String>,
    /// The command
    #[arg(required = true, last = true)]
    pub argv: Vec<String>,
}

/// Arguments of attach.
#[derive(Debug, Args)]
pub struct AttachArgs {
    /// Name of the VM
    pub name: String,
    /// Number of the process, as `vms ps` shows it
    pub id: u32,
    /// Only look
    #[arg(long)]
    pub no_stdin: bool,
    /// Begin with this byte of the output
    #[arg(long, default_value_t = 0)]
    pub from: u64,
    /// Keys that leave the process running; empty for none
    #[arg(long, default_value = "ctrl-p,ctrl-q")]
    pub detach_keys: String,
}

/// Arguments of kill.
#[derive(Debug, Args)]
pub struct KillArgs {
    /// Name of the VM
    pub name: String,
    /// Number of the process, as `vms ps` shows it
    pub id: u32,
    /// Name or number; KILL reaches all that the process has started
    #[arg(short, long, default_value = "TERM")]
    pub signal: String,
}

/// Arguments of wait.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Name of the VM
    pub name: String,
    /// Number of the process, as `vms ps` shows it
    pub id: u32,
    /// How long to wait, in seconds; without it, until it ends
    #[arg(long)]
    pub timeout: Option<u64>,
}
