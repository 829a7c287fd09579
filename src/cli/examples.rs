//! An example for each command, shown at the end of its help. `tests/clients/examples.py` runs those of
//! `ctl` one after another, so they tell a story: what one needs, an earlier one has made.

use clap::Command;

/// Words after `volantd`, and lines that run them.
pub const EXAMPLES: &[(&str, &[&str])] = &[
    ("serve", &["volantd serve --listen 127.0.0.1:7777"]),
    ("config", &["volantd config show"]),
    ("doctor", &["volantd doctor", "volantd doctor --only kvm,nftables --json"]),
    ("setup", &["volantd setup --dry-run", "volantd setup", "volantd setup --uninstall"]),
    ("mcp", &["volantd mcp --host unix:///run/volant/volant.sock"]),
    ("completions", &["volantd completions bash >/etc/bash_completion.d/volantd"]),
    ("man", &["volantd man /usr/local/share/man/man1"]),
    ("ctl tui", &["volantd ctl tui"]),
    ("ctl info", &["volantd ctl info"]),
    (
        "ctl context add",
        &["volantd ctl context add lab --host http://192.0.2.7:7777 --token-stdin <token"],
    ),
    ("ctl context list", &["volantd ctl context list"]),
    ("ctl context use", &["volantd ctl context use lab", "volantd ctl context use"]),
    ("ctl context remove", &["volantd ctl context remove lab"]),
    ("ctl volumes create", &["volantd ctl volumes create data --size 64"]),
    ("ctl volumes ls", &["volantd ctl volumes ls"]),
    ("ctl volumes inspect", &["volantd ctl volumes inspect data -o yaml"]),
    ("ctl volumes grow", &["volantd ctl volumes grow data --size 128"]),
    ("ctl volumes backup", &["volantd ctl volumes backup data data.zst"]),
    ("ctl volumes restore", &["volantd ctl volumes restore copy data.zst"]),
    ("ctl volumes rm", &["volantd ctl volumes rm copy"]),
    (
        "ctl plugins install",
        &["volantd ctl plugins install --manifest docs/examples/http-appliance/manifest.yaml"],
    ),
    ("ctl plugins list", &["volantd ctl plugins list -o wide"]),
    ("ctl plugins show", &["volantd ctl plugins show http-appliance"]),
    ("ctl plugins versions", &["volantd ctl plugins versions http-appliance"]),
    ("ctl plugins disable", &["volantd ctl plugins disable http-appliance"]),
    ("ctl plugins enable", &["volantd ctl plugins enable http-appliance"]),
    ("ctl plugins fetch", &["volantd ctl plugins fetch http-appliance"]),
    ("ctl plugins rollback", &["volantd ctl plugins rollback http-appliance --version 1.0.0"]),
    (
        "ctl vms create",
        &[
            "volantd ctl vms create web --memory 128 --volume data:/srv --label tier=front",
            "volantd ctl vms create greeter --plugin http-appliance",
        ],
    ),
    (
        "ctl vms list",
        &[
            "volantd ctl vms list -o wide",
            "volantd ctl vms list --template '{{ name }} {{ status }}'",
        ],
    ),
    ("ctl vms get", &["volantd ctl vms get web -o json"]),
    ("ctl vms await", &["volantd ctl vms await web --for ready --timeout 60"]),
    ("ctl vms timeline", &["volantd ctl vms timeline web"]),
    ("ctl vms ttl", &["volantd ctl vms ttl web 12h --on-expiry stop"]),
    ("ctl vms guest", &["volantd ctl vms guest web"]),
    ("ctl vms metrics", &["volantd ctl vms metrics web"]),
    ("ctl vms ports", &["volantd ctl vms ports web"]),
    ("ctl vms sync-time", &["volantd ctl vms sync-time web"]),
    ("ctl top", &["volantd ctl top --once"]),
    (
        "ctl vms exec",
        &["volantd ctl vms exec web -- uname -a", "volantd ctl vms exec -d web -- sleep 600"],
    ),
    ("ctl vms ps", &["volantd ctl vms ps web"]),
    ("ctl vms attach", &["volantd ctl vms attach web 2 --no-stdin"]),
    ("ctl vms kill", &["volantd ctl vms kill web 2 --signal KILL"]),
    ("ctl vms wait", &["volantd ctl vms wait web 2 --timeout 60"]),
    ("ctl vms cp", &["volantd ctl vms cp README.md web:/tmp/README.md"]),
    ("ctl vms files ls", &["volantd ctl vms files ls web /tmp"]),
    ("ctl vms files stat", &["volantd ctl vms files stat web /tmp/README.md"]),
    ("ctl vms files cat", &["volantd ctl vms files cat web /tmp/README.md"]),
    ("ctl vms files mkdir", &["volantd ctl vms files mkdir web /tmp/a/b --parents"]),
    ("ctl vms files mv", &["volantd ctl vms files mv web /tmp/README.md /tmp/a/README"]),
    ("ctl vms files rm", &["volantd ctl vms files rm web /tmp/a --recursive"]),
    ("ctl vms files watch", &["volantd ctl vms files watch web /tmp"]),
    ("ctl vms logs", &["volantd ctl vms logs web --tail 20"]),
    ("ctl vms console", &["volantd ctl vms console web --view"]),
    ("ctl vms expose", &["volantd ctl vms expose web 127.0.0.1:8080:80"]),
    ("ctl vms exposed", &["volantd ctl vms exposed web"]),
    ("ctl vms unexpose", &["volantd ctl vms unexpose web 8080"]),
    ("ctl port-forward", &["volantd ctl port-forward web 8081:80"]),
    ("ctl vms access", &["volantd ctl vms access web"]),
    ("ctl vms url", &["volantd ctl vms url web 80 --expires 600"]),
    ("ctl vms operations", &["volantd ctl vms operations greeter"]),
    ("ctl vms action", &["volantd ctl vms action greeter http-appliance page"]),
    ("ctl plugins action", &["volantd ctl plugins action http-appliance page"]),
    ("ctl vms call", &["volantd ctl vms call greeter page"]),
    ("ctl vms stop", &["volantd ctl vms stop web"]),
    ("ctl vms start", &["volantd ctl vms start web"]),
    ("ctl vms restart", &["volantd ctl vms restart web"]),
    ("ctl vms delete", &["volantd ctl vms delete greeter"]),
    ("ctl plugins remove", &["volantd ctl plugins remove http-appliance"]),
    (
        "ctl apply",
        &[
            "volantd ctl apply -f docs/examples/fleet.yaml --dry-run --diff",
            "volantd ctl apply -f docs/examples/fleet.yaml",
        ],
    ),
    (
        "ctl api",
        &["volantd ctl api GET vms", "volantd ctl api POST vms/web/exec -d '{\"argv\":[\"id\"]}'"],
    ),
    ("ctl events", &["volantd ctl events --since 0"]),
    ("ctl tokens create", &["volantd ctl tokens create ci --scope operate --expires 86400"]),
    ("ctl tokens list", &["volantd ctl tokens list"]),
    ("ctl tokens revoke", &["volantd ctl tokens revoke ci"]),
    ("ctl audit", &["volantd ctl audit --limit 20"]),
    ("ctl images import", &["volantd ctl images import image.tar --name example/hello:1"]),
    ("ctl images ls", &["volantd ctl images ls"]),
    ("ctl images inspect", &["volantd ctl images inspect example/hello:1"]),
    ("ctl images rm", &["volantd ctl images rm example/hello:1"]),
    ("ctl images prune", &["volantd ctl images prune --dry-run"]),
    ("ctl images pull", &["volantd ctl images pull registry.example/hello:1"]),
    ("ctl operations list", &["volantd ctl operations list"]),
    ("ctl operations get", &["volantd ctl operations get 1 --wait 60"]),
    ("ctl operations cancel", &["volantd ctl operations cancel 1"]),
    ("ctl artifacts ls", &["volantd ctl artifacts ls"]),
    ("ctl build", &["volantd ctl build docs/examples/python-worker --output-dir out --install"]),
];

/// Puts the examples into the help.
pub fn with_examples(command: Command) -> Command {
    below(command, "")
}

fn below(mut command: Command, path: &str) -> Command {
    let names: Vec<String> =
        command.get_subcommands().map(|one| one.get_name().to_owned()).collect();
    for name in names {
        let path = if path.is_empty() { name.clone() } else { format!("{path} {name}") };
        command = command.mut_subcommand(&name, |one| below(one, &path));
    }
    // What is in the environment is nobody else's affair.
    command = command.mut_args(|arg| arg.hide_env_values(true));
    match EXAMPLES.iter().find(|(of, _)| *of == path) {
        Some((_, lines)) => {
            let lines: Vec<String> = lines.iter().map(|line| format!("  {line}")).collect();
            let heading = if lines.len() == 1 { "Example:" } else { "Examples:" };
            command.after_help(format!("{heading}\n{}", lines.join("\n")))
        }
        None => command,
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::Cli;

    fn leaves(command: &Command, path: &str, found: &mut Vec<String>) {
        for one in command.get_subcommands().filter(|one| !one.is_hide_set()) {
            let path = format!("{path} {}", one.get_name());
            if one.has_subcommands() {
                leaves(one, &path, found);
            } else {
                found.push(path.trim().to_owned());
            }
        }
    }

    #[test]
    fn every_command_of_ctl_has_an_example_that_parses() {
        let mut commands = Vec::new();
        leaves(Cli::command().find_subcommand("ctl").unwrap(), "ctl", &mut commands);
        for command in &commands {
            assert!(EXAMPLES.iter().any(|(of, _)| of == command), "{command} has no example");
        }
        for (of, lines) in EXAMPLES {
            assert!(!of.starts_with("ctl ") || commands.iter().any(|one| one == of), "no {of}");
            for line in *lines {
                let words = shlex::split(line).unwrap();
                let words = words.iter().take_while(|word| !word.starts_with(['<', '>']));
                assert!(line.starts_with(&format!("volantd {of}")), "{of}: {line}");
                if let Err(error) = Cli::try_parse_from(words) {
                    panic!("{line}: {error}");
                }
            }
        }
    }
}
