//! Arguments of the verbs on files of a VM.

use clap::{Args, Subcommand};

/// Arguments of cp.
#[derive(Debug, Args)]
pub struct CpArgs {
    /// VM:/PATH, a path of this machine, or - for a tar stream on stdin
    pub from: String,
    /// VM:/PATH, a path of this machine, or - for a tar stream on stdout
    pub to: String,
}

/// Verbs on files of a VM.
#[derive(Debug, Subcommand)]
pub enum FilesCommand {
    /// List a folder
    Ls {
        /// Name of the VM
        name: String,
        /// Absolute path
        #[arg(default_value = "/")]
        path: String,
        /// Levels below it
        #[arg(long, default_value_t = 1)]
        depth: u32,
    },
    /// Show what a path names
    Stat {
        /// Name of the VM
        name: String,
        /// Absolute path
        path: String,
    },
    /// Print a file
    Cat {
        /// Name of the VM
        name: String,
        /// Absolute path
        path: String,
    },
    /// Remove a file or an empty folder
    Rm {
        /// Name of the VM
        name: String,
        /// Absolute path
        path: String,
        /// Also a folder and all that is in it
        #[arg(short, long)]
        recursive: bool,
    },
    /// Make a folder
    Mkdir {
        /// Name of the VM
        name: String,
        /// Absolute path
        path: String,
        /// Also those above it; one that is there is fine
        #[arg(short, long)]
        parents: bool,
        /// Permission bits, octal
        #[arg(long)]
        mode: Option<String>,
    },
    /// Move or rename
    Mv {
        /// Name of the VM
        name: String,
        /// Absolute path
        from: String,
        /// Absolute path
        to: String,
        /// Replace a file that is there
        #[arg(short, long)]
        force: bool,
    },
    /// Follow what changes, one event a line
    Watch {
        /// Name of the VM
        name: String,
        /// Absolute path
        path: String,
        /// Also everything below it
        #[arg(short, long)]
        recursive: bool,
    },
}
