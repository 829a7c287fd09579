//! Arguments of the verbs on who may reach a VM's ports.

use clap::Args;

/// Arguments of access.
#[derive(Debug, Args)]
pub struct AccessArgs {
    /// Name of the VM
    pub name: String,
    /// Give it a new token; earlier ones and signed addresses end
    #[arg(long, conflicts_with = "revoke")]
    pub renew: bool,
    /// Take its token and signed addresses away
    #[arg(long)]
    pub revoke: bool,
}

/// Arguments of url.
#[derive(Debug, Args)]
pub struct UrlArgs {
    /// Name of the VM
    pub name: String,
    /// Port in the VM
    pub port: u16,
    /// Path and query
    #[arg(long, default_value = "/")]
    pub path: String,
    /// How long it opens the port, in seconds
    #[arg(long, default_value_t = 3600)]
    pub expires: u64,
}
