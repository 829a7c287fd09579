//! `volantd doctor`.

use clap::Args;

use crate::cli::ServeFlags;

/// Arguments of doctor.
#[derive(Debug, Args)]
#[command(
    after_help = "Exits with 0 if no check fails, with 1 if one does, with 2 if a name is unknown."
)]
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
