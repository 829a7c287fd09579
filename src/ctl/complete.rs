//! What can follow on a command line: verbs, flags, and the names of what is there.

use clap::{Arg, Command, CommandFactory};

use crate::cli::Cli;

/// Of what an argument is the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Vm,
    Plugin,
    Image,
    Volume,
}

/// What `path`, words after `ctl`, calls by its argument `id`.
pub fn kind(path: &[&str], id: &str) -> Option<Kind> {
    match (path, id) {
        // These make something new.
        (["vms" | "volumes", "create"] | ["volumes", "restore"], "name")
        | (["plugins", "install"], _) => None,
        (["vms", ..], "name") | (["top" | "port-forward"], "name") => Some(Kind::Vm),
        (["plugins", ..], "name") | (_, "plugin") => Some(Kind::Plugin),
        (["images", "rm" | "inspect"], "name") | (_, "image") => Some(Kind::Image),
        (["volumes", ..], "name") => Some(Kind::Volume),
        _ => None,
    }
}

/// The word before the cursor, and what it may become.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    /// The word.
    pub word: String,
    /// What begins with it.
    pub words: Vec<String>,
}

/// Completes `line`, words after `ctl`; `names` tells what there is of a kind.
pub fn candidates(line: &str, names: impl Fn(Kind) -> Vec<String>) -> Candidates {
    let mut words: Vec<&str> = line.split(' ').collect();
    let word = words.pop().unwrap_or_default();
    let words = words.into_iter().filter(|word| !word.is_empty());
    let cli = Cli::command();
    let mut command = cli.find_subcommand("ctl").unwrap_or(&cli);
    let (mut path, mut positional, mut flag) = (Vec::new(), 0, None::<&Arg>);
    for one in words {
        if one == "--" {
            // What follows is a program of the guest's.
            return Candidates::default();
        }
        if flag.take().is_some() {
            continue;
        }
        if let Some(next) = command.find_subcommand(one) {
            path.push(one);
            command = next;
        } else if let Some(long) = one.strip_prefix("--") {
            flag = command
                .get_arguments()
                .find(|arg| takes_value(arg) && arg.get_long() == Some(long));
        } else if !one.starts_with('-') {
            positional += 1;
        }
    }
    let of_arg = |arg: &Arg| {
        let values = arg.get_possible_values().into_iter().map(|v| v.get_name().to_owned());
        let named = kind(&path, arg.get_id().as_str()).map(&names).unwrap_or_default();
        values.chain(named).collect::<Vec<_>>()
    };
    let mut found = match flag {
        Some(flag) => of_arg(flag),
        None if word.starts_with('-') => longs(command),
        None if command.has_subcommands() => {
            command.get_subcommands().map(|one| one.get_name().to_owned()).collect()
        }
        None => command.get_positionals().nth(positional).map(of_arg).unwrap_or_default(),
    };
    found.retain(|one| one.starts_with(word));
    Candidates { word: word.to_owned(), words: found }
}

fn takes_value(arg: &Arg) -> bool {
    arg.get_action().takes_values()
}

fn longs(command: &Command) -> Vec<String> {
    command.get_arguments().filter_map(|arg| Some(format!("--{}", arg.get_long()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str) -> Vec<String> {
        let names = |kind| match kind {
            Kind::Vm => vec!["web".to_owned(), "work".to_owned(), "db".to_owned()],
            Kind::Plugin => vec!["nginx".to_owned()],
            Kind::Image => vec!["docker.io/library/debian:12".to_owned()],
            Kind::Volume => vec!["data".to_owned()],
        };
        candidates(line, names).words
    }

    #[test]
    fn verbs_flags_and_names_are_completed() {
        assert_eq!(check("vm"), ["vms"]);
        assert_eq!(check("vms sta"), ["start"]);
        assert_eq!(check("vms start w"), ["web", "work"]);
        assert_eq!(check("vms start web "), [""; 0]);
        assert_eq!(check("vms create new --plu"), ["--plugin", "--plugin-version"]);
        assert_eq!(check("vms create new --plugin "), ["nginx"]);
        assert_eq!(check("vms create new --image d"), ["docker.io/library/debian:12"]);
        assert_eq!(check("vms create w"), [""; 0]);
        assert_eq!(check("vms action web "), ["nginx"]);
        assert_eq!(check("vms await web --for re"), ["ready"]);
        assert_eq!(check("volumes rm "), ["data"]);
        assert_eq!(check("vms exec web -- w"), [""; 0]);
    }
}
