//! Entry point: argv to the daemon or to the client.

use std::process::ExitCode;

use clap::FromArgMatches;
use volantd::cli::{self, Cli, Command};
use volantd::{ctl, daemon, doctor, setup};

fn main() -> ExitCode {
    ctl::complete();
    let words = ctl::expanded(std::env::args_os().collect());
    let matches = cli::command().get_matches_from(words);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match cli.command {
        None => daemon::main(&cli.serve),
        Some(Command::Serve(flags)) => daemon::main(&flags),
        Some(Command::Config { show: _, flags }) => daemon::show_config(&flags),
        Some(Command::Doctor(args)) => doctor::main(&args),
        Some(Command::Setup(args)) => setup::main(&args),
        Some(Command::Ctl(ctl)) => ctl::main(ctl),
        Some(Command::Mcp(args)) => ctl::serve_mcp(&args),
        Some(Command::Completions(args)) => ctl::completions(&args),
        Some(Command::Man(args)) => ctl::man(&args),
    }
}
