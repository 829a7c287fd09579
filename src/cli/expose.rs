//! Arguments of the verbs on ports of the host that lead to a VM.

use clap::Args;

/// Arguments of expose.
#[derive(Debug, Args)]
pub struct ExposeArgs {
    /// Name of the VM
    pub name: String,
    /// [IP:][HOST-PORT:]GUEST-PORT[/udp]; without a host port, any that is free
    pub ports: String,
}

/// Arguments of unexpose.
#[derive(Debug, Args)]
pub struct UnexposeArgs {
    /// Name of the VM
    pub name: String,
    /// [IP:]HOST-PORT[/udp]
    pub port: String,
}
