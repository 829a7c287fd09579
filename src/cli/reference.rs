//! The command line as a page, docs/cli-reference.md: the help of each command, as it is shown.

use std::fmt::Write;

use clap::Command;

/// Characters of a line.
const WIDTH: usize = 110;

/// The page.
pub fn reference(command: Command) -> String {
    // Not a terminal's, so that it is the same everywhere.
    let mut command = command.term_width(WIDTH);
    command.build();
    let mut page = "# Commands\n\nMade from the program itself; `VOLANT_UPDATE_GOLDENS=1 cargo test` makes it anew.\n".to_owned();
    section(&mut command, &mut page);
    page
}

fn section(command: &mut Command, page: &mut String) {
    let name = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
    let help = command.render_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    // Writing to a String cannot fail.
    let _ = write!(page, "\n## {name}\n\n```text\n{}\n```\n", help.join("\n"));
    for one in command.get_subcommands_mut().filter(|one| one.get_name() != "help") {
        section(one, page);
    }
}
