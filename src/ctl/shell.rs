//! What is made of the command line's own definition: completion that knows what there is, man pages.

use std::process::ExitCode;
use std::time::Duration;

use clap::Command;
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::Shells;
use hyper::Method;

use crate::cli::{CompletionsArgs, ManArgs, Shell, command};
use crate::ctl::client::Failure;
use crate::ctl::complete::{Kind, kind};
use crate::ctl::context;
use crate::ctl::finish;
use crate::ctl::output::Printer;
use crate::wire::{ImageView, PluginList, VmView, VolumeView};

/// How long the daemon has to say what there is, while somebody waits for a completion.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// The variable by which the shell asks.
const VARIABLE: &str = "COMPLETE";
/// The link by which the program is `volantd ctl`.
const LINK: &str = "volar";

const NO_BODY: Option<&()> = None;

/// Words that a call by the link stands for: `volar vms list` is `volantd ctl vms list`. What `ctl` does
/// not know and `volantd` does, as setup, is volantd's.
pub fn expanded(words: Vec<std::ffi::OsString>) -> Vec<std::ffi::OsString> {
    let by_link = words.first().is_some_and(|word| {
        std::path::Path::new(word).file_name().is_some_and(|name| name == LINK)
    });
    if !by_link {
        return words;
    }
    let all = command();
    let verb = words.iter().skip(1).find_map(|word| word.to_str().filter(|w| !w.starts_with('-')));
    let of_ctl = all.find_subcommand("ctl").zip(verb);
    let of_ctl = of_ctl.is_some_and(|(ctl, verb)| ctl.find_subcommand(verb).is_some());
    let of_volantd = verb.is_some_and(|verb| all.find_subcommand(verb).is_some());
    let mut words = words.into_iter();
    let inserted = if of_volantd && !of_ctl { None } else { Some("ctl".into()) };
    words.next().into_iter().chain(inserted).chain(words).collect()
}

/// The completions, if the shell has asked for some; else nothing happens.
pub fn complete() {
    clap_complete::CompleteEnv::with_factory(completing).var(VARIABLE).complete();
}

/// Prints what the shell reads to ask for completions.
pub fn completions(args: &CompletionsArgs) -> ExitCode {
    finish(async {
        let name = match args.shell {
            Shell::Bash => "bash",
            Shell::Zsh => "zsh",
            Shell::Fish => "fish",
        };
        let shells = Shells::builtins();
        let shell = shells.completer(name);
        let shell = shell.ok_or_else(|| Failure::local(format!("{name} is not known")))?;
        let mut script = Vec::new();
        for program in ["volantd", LINK] {
            let written =
                shell.write_registration(VARIABLE, program, program, program, &mut script);
            written.map_err(|error| Failure::local(error.to_string()))?;
        }
        Printer::to_stdout().write(&script)?;
        Ok(0)
    })
}

/// Writes a man page for each command into a folder.
pub fn man(args: &ManArgs) -> ExitCode {
    finish(async {
        let failed =
            |error: std::io::Error| Failure::local(format!("{}: {error}", args.folder.display()));
        std::fs::create_dir_all(&args.folder).map_err(failed)?;
        clap_mangen::generate_to(command(), &args.folder).map_err(failed)?;
        Ok(0)
    })
}

/// The command line, with what there is for its arguments.
fn completing() -> Command {
    let by_link = std::env::args_os().next().is_some_and(|word| {
        std::path::Path::new(&word).file_name().is_some_and(|name| name == LINK)
    });
    let all = command().mut_subcommand("ctl", |ctl| with_names(ctl, &[]));
    match all.find_subcommand("ctl") {
        Some(ctl) if by_link => ctl.clone().name(LINK).bin_name(LINK),
        _ => all,
    }
}

fn with_names(mut command: Command, path: &[&str]) -> Command {
    let names: Vec<String> =
        command.get_subcommands().map(|one| one.get_name().to_owned()).collect();
    for name in &names {
        let path = [path, &[name.as_str()]].concat();
        command = command.mut_subcommand(name, |one| with_names(one, &path));
    }
    command.mut_args(|arg| match kind(path, arg.get_id().as_str()) {
        Some(kind) => arg.add(ArgValueCandidates::new(move || candidates(kind))),
        None => arg,
    })
}

/// None, where the daemon does not answer in time.
fn candidates(kind: Kind) -> Vec<CompletionCandidate> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asked = async { tokio::time::timeout(ANSWER_MAX, names(kind)).await };
    let names = runtime.ok().map(|runtime| runtime.block_on(asked));
    let names = names.and_then(Result::ok).and_then(Result::ok).unwrap_or_default();
    names.into_iter().map(CompletionCandidate::new).collect()
}

async fn names(kind: Kind) -> Result<Vec<String>, Failure> {
    let client = context::current()?;
    Ok(match kind {
        Kind::Vm => {
            let all: Vec<VmView> = client.json(Method::GET, "/api/v1/vms", NO_BODY).await?;
            all.into_iter().map(|vm| vm.name).collect()
        }
        Kind::Plugin => {
            let all: PluginList = client.json(Method::GET, "/api/v1/plugins", NO_BODY).await?;
            all.plugins
        }
        Kind::Image => {
            let all: Vec<ImageView> = client.json(Method::GET, "/api/v1/images", NO_BODY).await?;
            all.into_iter().map(|image| image.reference).collect()
        }
        Kind::Volume => {
            let all: Vec<VolumeView> = client.json(Method::GET, "/api/v1/volumes", NO_BODY).await?;
            all.into_iter().map(|volume| volume.name).collect()
        }
    })
}
