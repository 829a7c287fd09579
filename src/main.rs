//! Entry point: argv to the daemon or to the client.

use std::process::ExitCode;

use clap::Parser;
use volantd::cli::{Cli, Command};
use volantd::{ctl, daemon};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        None => daemon::main(&cli.serve),
        Some(Command::Serve(flags)) => daemon::main(&flags),
        Some(Command::Config { show: _, flags }) => daemon::show_config(&flags),
        Some(Command::Ctl(ctl)) => ctl::main(ctl),
        Some(Command::Mcp(args)) => ctl::serve_mcp(&args),
    }
}
