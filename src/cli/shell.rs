//! Arguments of what is generated from the command line's own definition.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Arguments of completions.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// A shell that can complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

/// Arguments of man.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Folder for the pages
    pub folder: PathBuf,
}
