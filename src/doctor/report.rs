//! How findings are told: a table for people, JSON for programs, one exit code for both.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use serde::Serialize;

use crate::doctor::{CHECKS, Line, Status};

/// A name that no check has.
const EXIT_USAGE: u8 = 2;

/// What `--json` prints; `status` is the worst of all.
#[derive(Debug, Serialize)]
struct Document<'a> {
    version: &'static str,
    status: Status,
    checks: &'a [Line],
}

/// Prints all lines.
pub fn print(lines: &[Line], json: bool) -> ExitCode {
    let worst = lines.iter().map(|line| line.finding.status).max().unwrap_or(Status::Ok);
    let text = if json {
        let document =
            Document { version: env!("CARGO_PKG_VERSION"), status: worst, checks: lines };
        serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
    } else {
        let colored = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        table(lines, colored)
    };
    // A reader who has seen enough is no failure of the host.
    let _ = std::io::stdout().write_all(text.as_bytes());
    if worst == Status::Fail { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn table(lines: &[Line], colored: bool) -> String {
    let width = lines.iter().map(|line| line.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Line { name, finding } in lines {
        let (word, color) = match finding.status {
            Status::Ok => ("ok  ", "32"),
            Status::Warn => ("warn", "33"),
            Status::Fail => ("FAIL", "31"),
        };
        let word = if colored { format!("\x1b[{color}m{word}\x1b[0m") } else { word.to_owned() };
        text += &format!("{word}  {name:width$}  {}\n", finding.why);
        if let Some(mend) = &finding.mend {
            text += &format!("      {:width$}  mend: {mend}\n", "");
        }
    }
    let count = |status| lines.iter().filter(|line| line.finding.status == status).count();
    let (warnings, failures) = (count(Status::Warn), count(Status::Fail));
    text + &format!("{} checks: {warnings} to look at, {failures} failed\n", lines.len())
}

/// Tells a name that no check has.
#[expect(clippy::print_stderr, reason = "for the person at the terminal")]
pub fn unknown_name(name: &str) -> ExitCode {
    let known: Vec<&str> = CHECKS.iter().map(|check| check.name).collect();
    eprintln!("error: there is no check {name:?}\nhint: the checks are {}", known.join(", "));
    ExitCode::from(EXIT_USAGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Finding;

    #[test]
    fn a_table_has_the_command_below_its_check() {
        let lines = [
            Line { name: "a", finding: Finding::ok("is there") },
            Line { name: "longer", finding: Finding::fail("is not").mend("make it") },
        ];
        assert_eq!(
            table(&lines, false),
            "ok    a       is there\nFAIL  longer  is not\n              mend: make it\n\
             2 checks: 0 to look at, 1 failed\n"
        );
        assert!(table(&lines, true).contains("\x1b[31mFAIL\x1b[0m"));
    }
}
