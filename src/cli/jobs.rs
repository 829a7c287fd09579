//! Verbs on work that takes long.

use clap::Subcommand;

/// Verbs on operations.
#[derive(Debug, Subcommand)]
pub enum OperationsCommand {
    /// List pulls, imports, fetches and builds that run, and the last that have ended
    #[command(visible_alias = "ls")]
    List,
    /// Show one
    Get {
        /// Number of the operation
        id: u64,
        /// Wait for its end, at most so many seconds
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "600")]
        wait: Option<u64>,
    },
    /// End one; what it has downloaded is kept for the next try
    Cancel {
        /// Number of the operation
        id: u64,
    },
}
