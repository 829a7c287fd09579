//! `volantd doctor`.

use clap::Args;

use crate::cli::ServeFlags;

/// Arguments of doctor.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Findings as JSON
    #[arg(long)]
    pub json: bool,
    /// Only these checks
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub only: Vec<String>,
    /// The flags that serve would get
    #[command(flatten)]
    pub flags: ServeFlags,
}
