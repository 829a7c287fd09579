//! Verbs on plugins.

use clap::{Args, Subcommand};

use crate::cli::{PluginActionArgs, WatchArgs};

/// Verbs on plugins.
#[derive(Debug, Subcommand)]
pub enum PluginsCommand {
    /// List what is installed
    List(WatchArgs),
    /// Show a plugin's manifest
    Show {
        /// Name of the plugin
        name: String,
        /// This version instead of the current one
        #[arg(long)]
        version: Option<String>,
    },
    /// List a plugin's versions
    Versions {
        /// Name of the plugin
        name: String,
    },
    /// Install a plugin, or a new version of one
    Install(InstallArgs),
    /// Allow new VMs and actions
    Enable {
        /// Name of the plugin
        name: String,
    },
    /// Refuse new VMs and actions; VMs that there are go on
    Disable {
        /// Name of the plugin
        name: String,
    },
    /// Make an earlier version the one of new VMs
    Rollback {
        /// Name of the plugin
        name: String,
        /// This version instead of the one installed before the current one
        #[arg(long)]
        version: Option<String>,
    },
    /// Call an action of any ready VM of a plugin
    Action(PluginActionArgs),
    /// Bring what its VMs are made of: files by address and checksum, images
    Fetch {
        /// Name of the plugin
        name: String,
        /// Version of the plugin; the current one if absent
        #[arg(long)]
        version: Option<String>,
        /// Take downloads that the manifest has no checksum of
        #[arg(long)]
        insecure: bool,
    },
    /// Remove a plugin that no VM is made of, with all its versions
    Remove {
        /// Name of the plugin
        name: String,
    },
}

/// Arguments of install.
#[derive(Debug, Args)]
pub struct InstallArgs {
    /// Name of the plugin, which must be the manifest's; the manifest itself if there is no --manifest
    pub name: Option<String>,
    /// Manifest in JSON, YAML or TOML: a file, an http URL, or - for stdin
    #[arg(short, long, alias = "url", value_name = "FILE|URL|-", required_unless_present = "name")]
    pub manifest: Option<String>,
}
