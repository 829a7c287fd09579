//! Verbs on contexts: daemons that have a name.

use clap::Subcommand;

/// Verbs on contexts.
#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// Give the daemon that --host says a name
    Add {
        /// 1 to 63 of a-z, 0-9, -
        name: String,
        /// Read the bearer token from stdin, and keep it; --token-file is read each time instead
        #[arg(long)]
        token_stdin: bool,
    },
    /// Let commands go to this one from now on; without a name, to the daemon of this machine
    Use {
        /// Name of the context
        name: Option<String>,
    },
    /// List them
    List,
    /// Forget one
    Remove {
        /// Name of the context
        name: String,
    },
}
