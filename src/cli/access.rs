//! Verbs on tokens and the audit log, and the flags of `volantd mcp`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Verbs on tokens.
#[derive(Debug, Subcommand)]
pub enum TokensCommand {
    /// List all tokens, without their secrets
    List,
    /// Make a token and print its secret, this once
    Create {
        /// 1 to 63 of a-z, 0-9, -
        name: String,
        /// What it opens; each scope holds the ones before it
        #[arg(long, value_enum, default_value = "operate")]
        scope: ScopeWord,
        /// Only VMs with this label are opened by it, and nothing else; KEY=VALUE, repeatable
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = super::key_value)]
        labels: Vec<(String, String)>,
        /// Seconds after which it opens nothing any more; never if absent
        #[arg(long, value_name = "SECONDS")]
        expires: Option<u32>,
    },
    /// End a token
    Revoke {
        /// Name of the token
        name: String,
    },
}

/// What a token opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScopeWord {
    /// Look
    Read,
    /// Change VMs and run things in them
    Operate,
    /// Everything, tokens too
    Admin,
}

/// Arguments of audit.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Entries at most, 1 to 1000
    #[arg(long, default_value_t = 100)]
    pub limit: u32,
    /// Only entries older than this one
    #[arg(long)]
    pub before: Option<i64>,
}

/// Flags of `volantd mcp`.
#[derive(Debug, Args)]
pub struct McpArgs {
    /// Daemon: unix:///path, http://host:port or https://host:port
    #[arg(long, env = "VOLANT_HOST")]
    pub host: Option<String>,
    /// File with the bearer token
    #[arg(long, env = "VOLANT_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
}
