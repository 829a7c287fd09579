//! Verbs on images.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::WatchArgs;

/// Verbs on images.
#[derive(Debug, Subcommand)]
pub enum ImagesCommand {
    /// Bring an image from its registry
    Pull(PullArgs),
    /// Bring images from a file: OCI layout or `docker save`, as tar, tar.gz or tar.zst
    Import {
        /// The file, on this machine
        file: PathBuf,
        /// What to call the image; as the archive says if absent
        #[arg(long)]
        name: Option<String>,
    },
    /// List all images
    #[command(visible_alias = "list")]
    Ls(WatchArgs),
    /// Show one image and what it runs
    Inspect {
        /// Reference, or the begin of an id
        name: String,
    },
    /// Remove a name, and what nothing else needs
    Rm {
        /// Reference, or the begin of an id
        name: String,
    },
    /// Remove what nothing needs
    Prune {
        /// Also images that no VM runs
        #[arg(long)]
        all: bool,
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
    },
}

/// Arguments of pull.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// [REGISTRY/]REPOSITORY[:TAG][@DIGEST]
    pub reference: String,
    /// Name for the registry
    #[arg(long)]
    pub username: Option<String>,
    /// File with the password, or, without a name, with a token
    #[arg(long)]
    pub password_file: Option<PathBuf>,
}

/// The image of a new VM.
#[derive(Debug, Args)]
pub struct ImageArgs {
    /// Image that becomes the root; pulled if it is not here
    #[arg(long)]
    pub image: Option<String>,
    /// What is written over the image is gone when the VM stops
    #[arg(long, requires = "image")]
    pub ephemeral: bool,
    /// Size in MiB of the disk for what is written over the image
    #[arg(long, requires = "image", value_name = "MIB")]
    pub overlay: Option<u64>,
    /// In place of the image's own arguments
    #[arg(last = true, requires = "image")]
    pub command: Vec<String>,
}
