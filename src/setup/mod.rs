//! `volantd setup`: turns a host into one for volantd, and back. A plan is made of what is wished and what
//! is so; its steps that do not hold yet are made, one after the other, and written down before they are.
//! A second run finds that all of them hold. `--uninstall` takes back what was written down, the last
//! first.

mod plan;
mod program;
mod step;

use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::cli::{ServeFlags, SetupArgs};
use crate::config::{self, Config, ConfigError};
use crate::doctor;
use crate::net::NetError;
use plan::{Facts, plan};
use step::Step;

/// Beside the configuration: what was made.
const RECORD: &str = "setup.json";
/// Where packages have the guest's files, seen from the folder of the program and by itself.
const LIBRARIES: [&str; 3] = [".", "../lib/volant", "/usr/lib/volant"];

/// Why setup ended early.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Only root may.
    #[error("setup changes the host: run it as root, or look at the plan with --dry-run")]
    NotRoot,
    /// A check says so.
    #[error("{0}; set up nevertheless with --force")]
    Host(String),
    /// The configuration's file is no TOML.
    #[error("the configuration cannot be changed")]
    Config {
        /// What and where.
        #[source]
        source: toml_edit::TomlError,
    },
    /// The configuration would make no sense.
    #[error(transparent)]
    Value(#[from] ConfigError),
    /// A step could not be made.
    #[error("cannot make the {step}")]
    Make {
        /// Which.
        step: String,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// A step could not be taken back.
    #[error("cannot remove the {step}")]
    Remove {
        /// Which.
        step: String,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// A program failed.
    #[error("`{line}` fails: {why}")]
    Program {
        /// What was run.
        line: String,
        /// What it said.
        why: String,
    },
    /// The bridge or its firewall stays.
    #[error(transparent)]
    Network(#[from] NetError),
    /// The record cannot be read or written.
    #[error("the record {path} of what setup has made", path = path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is nothing to take back.
    #[error("setup has made nothing here: there is no {path}", path = .0.display())]
    NothingMade(PathBuf),
    /// It would lose its state.
    #[error("a daemon runs in {path}: stop it first", path = .0.display())]
    Running(PathBuf),
}

/// Sets up, or takes back.
pub fn main(args: &SetupArgs) -> ExitCode {
    let done = if args.uninstall { uninstall(args) } else { set_up(args) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "for the person at the terminal")]
fn complain(error: &SetupError) {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    eprintln!("error: {text}");
}

#[expect(clippy::print_stdout, reason = "what setup does, as it does it")]
fn tell(line: &str) {
    println!("{line}");
}

fn set_up(args: &SetupArgs) -> Result<(), SetupError> {
    let mut record = Record::read(&args.config)?
        .unwrap_or_else(|| Record { path: Record::path(&args.config), steps: Vec::new() });
    let mut facts = look(args);
    let text = plan::config_text(args, &facts)?;
    let config = config_of(&text, &facts.executable)?;
    let bridge = Step::Network { bridge: config.bridge.clone() };
    facts.foreign_bridge = Path::new("/sys/class/net").join(&config.bridge).exists()
        && !record.steps.contains(&bridge);
    let steps = plan(args, &facts, &config, text);
    let holds = |step: &Step, record: &Record| match step {
        Step::Network { .. } => record.steps.contains(step),
        step => step.holds(Path::new("/")),
    };
    let missing: Vec<&Step> = steps.iter().filter(|step| !holds(step, &record)).collect();
    let refusal = host_refusal(&config);
    if args.dry_run {
        refusal.iter().for_each(|refusal| tell(&format!("would refuse: {refusal}")));
        missing.iter().for_each(|step| tell(&format!("would make: {step}")));
        tell(&format!("{} of {} steps to do", missing.len(), steps.len()));
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        return Err(SetupError::NotRoot);
    }
    if let (Some(refusal), false) = (refusal, args.force) {
        return Err(SetupError::Host(refusal));
    }
    for step in &missing {
        record.note(step)?;
        step.make(Path::new("/"))?;
        tell(&format!("made: {step}"));
    }
    if missing.is_empty() {
        tell("nothing to do: all is as it should be");
    }
    say_what_is_next(args, &facts, &config, &missing);
    Ok(())
}

/// What is so on this host.
fn look(args: &SetupArgs) -> Facts {
    let executable = std::env::current_exe().unwrap_or_else(|_| "/usr/bin/volantd".into());
    let beside = executable.parent().unwrap_or(Path::new("/")).to_owned();
    let came = |name: &str| {
        let places = LIBRARIES.iter().map(|library| beside.join(library).join(name));
        places.filter_map(|path| path.canonicalize().ok()).find(|path| path.is_file())
    };
    let units = ["/usr/lib/systemd/system", "/lib/systemd/system"];
    Facts {
        systemd: Path::new("/run/systemd/system").is_dir(),
        packaged: units.iter().any(|unit| Path::new(unit).join("volantd.service").exists()),
        config_text: fs::read_to_string(&args.config).unwrap_or_default(),
        kernel: came("vmlinux"),
        agent: came("volary"),
        foreign_bridge: false,
        executable,
    }
}

/// The configuration that the text means.
fn config_of(text: &str, executable: &Path) -> Result<Config, SetupError> {
    Ok(config::resolve_text(text, &ServeFlags::default(), executable)?)
}

/// Why this host cannot run guests, whatever setup makes.
fn host_refusal(config: &Config) -> Option<String> {
    let host = doctor::Host::real(config.clone(), &ServeFlags::default());
    doctor::machine_refusal(&host)
}

fn say_what_is_next(args: &SetupArgs, facts: &Facts, config: &Config, missing: &[&Step]) {
    let program = facts.executable.display();
    let named = match args.config == Path::new(config::FILE_DEFAULT) {
        true => String::new(),
        false => format!(" --config {}", args.config.display()),
    };
    if !facts.systemd || args.no_systemd {
        tell(&format!("start it, as root: {program} serve{named}"));
    } else if args.no_start {
        tell("start it: systemctl start volantd");
    } else if missing.iter().any(|step| matches!(step, Step::File { .. }))
        && !missing.iter().any(|step| matches!(step, Step::Started { .. }))
    {
        tell("it runs with what it has read at its start: systemctl restart volantd");
    }
    tell(&format!("token for {}: {}", config.listen, config.token_file.display()));
    tell("users who may use the socket: usermod -aG volant NAME");
    tell(&format!("look at the host: {program} doctor{named}"));
}

fn uninstall(args: &SetupArgs) -> Result<(), SetupError> {
    let path = Record::path(&args.config);
    let record =
        Record::read(&args.config)?.ok_or_else(|| SetupError::NothingMade(path.clone()))?;
    let text = fs::read_to_string(&args.config).unwrap_or_default();
    let config = config_of(&text, Path::new("/")).or_else(|_| config_of("", Path::new("/")))?;
    let state_dir = config.state_dir;
    if args.dry_run {
        record.steps.iter().rev().for_each(|step| tell(&format!("would remove: {step}")));
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        return Err(SetupError::NotRoot);
    }
    let own_folder = args.config.parent();
    let is_own = |step: &&Step| matches!(step, Step::Folder { path, .. } if Some(path.as_path()) == own_folder);
    for step in record.steps.iter().rev().filter(|step| !is_own(step)) {
        match step {
            Step::Network { .. } => refuse_while_running(&state_dir)?,
            Step::Folder { path, .. } if *path == state_dir => remove_data(path, args.yes)?,
            _ => {}
        }
        take_back(step)?;
    }
    fs::remove_file(&path).map_err(|source| SetupError::Record { path, source })?;
    if let Some(step) = record.steps.iter().find(is_own) {
        take_back(step)?;
    }
    if let Some(folder) = config.socket.parent() {
        // The socket's own; with another program's files in it, it stays.
        let _ = fs::remove_dir(folder);
    }
    if Path::new("/run/systemd/system").is_dir() {
        program::run(&["systemctl", "daemon-reload"])?;
    }
    Ok(())
}

/// Takes a step back and says so. A folder with something of somebody's in it stays.
fn take_back(step: &Step) -> Result<(), SetupError> {
    step.take_back(Path::new("/"))?;
    let stays = matches!(step, Step::Folder { path, .. } if path.exists());
    tell(&format!("{}: {step}", if stays { "stays" } else { "removed" }));
    Ok(())
}

/// Two of its files are open as long as a daemon lives; the lock is one.
fn refuse_while_running(state_dir: &Path) -> Result<(), SetupError> {
    let lock = fs::File::open(state_dir.join("lock"));
    match lock.is_ok_and(|lock| lock.try_lock().is_err()) {
        true => Err(SetupError::Running(state_dir.to_owned())),
        false => Ok(()),
    }
}

/// Removes what is in the state folder if `yes`, or if somebody at a terminal says so.
fn remove_data(path: &Path, yes: bool) -> Result<(), SetupError> {
    let has_data = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
    if !has_data {
        return Ok(());
    }
    let shown = path.display();
    if yes
        || answers_yes(&format!("remove all VMs, images, volumes and the token in {shown}? [y/N] "))
    {
        let removed = fs::remove_dir_all(path);
        return removed
            .map_err(|source| SetupError::Remove { step: format!("data in {shown}"), source });
    }
    tell(&format!("stays: what is in {shown} (--yes removes it)"));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a question to the person at the terminal")]
fn answers_yes(question: &str) -> bool {
    if !io::stdin().is_terminal() {
        return false;
    }
    print!("{question}");
    let mut answer = String::new();
    let asked = io::stdout().flush().and_then(|()| io::stdin().lock().read_line(&mut answer));
    asked.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// What setup has made on this host.
#[derive(Debug)]
struct Record {
    path: PathBuf,
    steps: Vec<Step>,
}

impl Record {
    fn path(config: &Path) -> PathBuf {
        config.with_file_name(RECORD)
    }

    fn read(config: &Path) -> Result<Option<Record>, SetupError> {
        let path = Record::path(config);
        match fs::read(&path) {
            Ok(bytes) => {
                let steps = serde_json::from_slice(&bytes).map_err(io::Error::other);
                let steps =
                    steps.map_err(|source| SetupError::Record { path: path.clone(), source })?;
                Ok(Some(Record { path, steps }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(SetupError::Record { path, source }),
        }
    }

    /// Writes a step down, unless it is already or replaces something that setup has not made. Before the
    /// step is made: what a crash leaves is taken back too.
    fn note(&mut self, step: &Step) -> Result<(), SetupError> {
        if matches!(step, Step::Sysctl { .. } | Step::Token { .. }) {
            // The one stays as it is, the other is in the state folder.
            return Ok(());
        }
        if step.is_occupied() || self.steps.iter().any(|noted| noted.is_same(step)) {
            return Ok(());
        }
        self.steps.push(step.clone());
        let text = serde_json::to_string_pretty(&self.steps).map_err(io::Error::other);
        let written = text.and_then(|text| step::write(&self.path, text.as_bytes(), 0o644));
        written.map_err(|source| SetupError::Record { path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests;
