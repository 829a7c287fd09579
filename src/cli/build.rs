//! Building.

use std::path::PathBuf;

use clap::Args;

/// Arguments of build.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// The Volantfile, or its folder
    #[arg(default_value = ".")]
    pub source: PathBuf,
    /// Folder for the artifact and its manifest
    #[arg(short = 'd', long, default_value = ".")]
    pub output_dir: PathBuf,
    /// Install the plugin as well
    #[arg(long)]
    pub install: bool,
}
