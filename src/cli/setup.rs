//! `volantd setup`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;

/// Arguments of setup. What is not named stays as the configuration has it.
#[derive(Clone, Debug, Default, Args)]
pub struct SetupArgs {
    /// Configuration that is written
    #[arg(
        long,
        value_name = "FILE",
        env = "VOLANT_CONFIG",
        default_value = "/etc/volant/volantd.toml"
    )]
    pub config: PathBuf,
    /// Bridge for the guests
    #[arg(long)]
    pub bridge: Option<String>,
    /// Subnet of the guests
    #[arg(long)]
    pub subnet: Option<String>,
    /// The bridge's address; the subnet's first if absent
    #[arg(long)]
    pub host_ip: Option<Ipv4Addr>,
    /// TCP address of the API
    #[arg(long)]
    pub listen: Option<SocketAddr>,
    /// Folder for the database, the token and images
    #[arg(long, visible_alias = "work-dir")]
    pub state_dir: Option<PathBuf>,
    /// Guest kernel, copied into the state folder
    #[arg(long, value_name = "FILE", visible_aliases = ["vmlinux", "bzimage"])]
    pub kernel: Option<PathBuf>,
    /// Guest agent, copied into the state folder
    #[arg(long, value_name = "FILE")]
    pub agent: Option<PathBuf>,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not start the daemon
    #[arg(long)]
    pub no_start: bool,
    /// Leave systemd alone
    #[arg(long)]
    pub no_systemd: bool,
    /// Go on although this host cannot run guests
    #[arg(long)]
    pub force: bool,
    /// Remove what setup has made
    #[arg(long)]
    pub uninstall: bool,
    /// Remove VMs, images and volumes as well, without asking
    #[arg(long, requires = "uninstall")]
    pub yes: bool,
}
