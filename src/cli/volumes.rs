//! Verbs on volumes.

use std::path::PathBuf;

use clap::Subcommand;

use crate::cli::WatchArgs;

/// Verbs on volumes.
#[derive(Debug, Subcommand)]
pub enum VolumesCommand {
    /// Make an empty volume
    Create {
        /// 1 to 127 letters, digits, '.', '_', '-'
        name: String,
        /// Size in MiB; what is not written takes nothing
        #[arg(long, value_name = "MIB")]
        size: u64,
    },
    /// List all volumes
    #[command(visible_alias = "list")]
    Ls(WatchArgs),
    /// Show one volume
    Inspect {
        /// Name of the volume
        name: String,
    },
    /// Make a volume larger
    Grow {
        /// Name of the volume
        name: String,
        /// The new size in MiB
        #[arg(long, value_name = "MIB")]
        size: u64,
    },
    /// Remove a volume with everything in it
    Rm {
        /// Name of the volume
        name: String,
    },
    /// Write a volume into a file on this machine: its disk, packed by zstd
    Backup {
        /// Name of the volume
        name: String,
        /// The file; it must not be there
        file: PathBuf,
    },
    /// Make a new volume of a backup
    Restore {
        /// Name of the new volume
        name: String,
        /// The file, on this machine
        file: PathBuf,
    },
}
