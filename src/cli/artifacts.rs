//! Verbs on the files that VMs are made of, beside images.

use clap::Subcommand;

/// Verbs on artifacts.
#[derive(Debug, Subcommand)]
pub enum ArtifactsCommand {
    /// List the files that VMs are made of; `images prune` removes what nobody needs
    Ls,
}
