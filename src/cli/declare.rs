//! Arguments of the commands that are not verbs of one thing: apply, api, top, port-forward.

use std::path::PathBuf;

use clap::Args;

/// Arguments of apply.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// YAML with `volumes`, `plugins` and `vms`, or - for stdin
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Show each field that differs
    #[arg(long)]
    pub diff: bool,
    /// Delete VMs whose description has changed, and make them anew
    #[arg(long)]
    pub replace: bool,
    /// Wait until each VM is ready
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub wait: bool,
    /// How long to wait for each, in seconds
    #[arg(long, default_value_t = 120)]
    pub timeout: u64,
}

/// Arguments of api.
#[derive(Debug, Args)]
pub struct ApiArgs {
    /// GET, POST, PUT, PATCH or DELETE
    pub method: String,
    /// Path and query; /api/v1/ is put before it unless it begins with /
    pub path: String,
    /// The body: JSON, @FILE, or - for stdin
    #[arg(short, long, value_name = "JSON|@FILE|-")]
    pub data: Option<String>,
    /// A header, NAME:VALUE
    #[arg(short = 'H', long = "header", value_name = "NAME:VALUE")]
    pub headers: Vec<String>,
}

/// Arguments of top.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Names of VMs; all that run if absent
    pub name: Vec<String>,
    /// Measure again and again; the default on a terminal
    #[arg(short, long)]
    pub watch: bool,
    /// Measure once
    #[arg(long, conflicts_with = "watch")]
    pub once: bool,
    /// Seconds between two measurements
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub every: u64,
}

/// Arguments of port-forward.
#[derive(Debug, Args)]
pub struct PortForwardArgs {
    /// Name of the VM
    pub name: String,
    /// [LOCAL:]REMOTE, TCP; 0 as LOCAL is any that is free
    #[arg(required = true, value_name = "[LOCAL:]REMOTE")]
    pub ports: Vec<String>,
    /// Address of this machine to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub address: std::net::IpAddr,
}

/// Whether a list is shown again when it changes.
#[derive(Clone, Copy, Debug, Args)]
pub struct WatchArgs {
    /// Show it again whenever it has changed
    #[arg(short, long)]
    pub watch: bool,
}
