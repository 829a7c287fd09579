//! `volantd doctor`: what a host must have, and what is wrong with this one. Each check is a function of
//! the host that changes nothing; the list of them is here. The daemon makes those of its own start with
//! the same functions.

mod machine;
mod network;
mod report;
mod service;
mod storage;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use crate::cli::{DoctorArgs, ServeFlags};
use crate::config::{self, Config};

/// Where facts are read, and the configuration that they are held against.
#[derive(Debug)]
pub struct Host {
    /// The folder that `/dev`, `/proc`, `/sys`, `/etc` and `/run` are in, so that tests have their own.
    pub root: PathBuf,
    /// What the daemon would run with.
    pub config: Config,
    /// `volantd setup` with the configuration file, if that is not the usual one.
    pub setup: String,
}

impl Host {
    /// This host.
    pub fn real(config: Config, flags: &ServeFlags) -> Host {
        Host { root: "/".into(), config, setup: setup_command(flags) }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// What a file of the kernel says, without the end of the line; nothing if it is not there.
    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.at(path)).ok().map(|text| text.trim_end().to_owned())
    }
}

fn setup_command(flags: &ServeFlags) -> String {
    let named = flags.config.as_ref().map(|file| format!(" --config {}", file.display()));
    format!("volantd setup{}", named.unwrap_or_default())
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// The daemon works, and something is worse than it could be.
    Warn,
    /// The daemon, or a part of it, does not work.
    Fail,
}

/// What a check has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub status: Status,
    /// What is so, in one sentence without a dot.
    pub why: String,
    /// The shell command that mends it, where a command can.
    pub mend: Option<String>,
}

impl Finding {
    fn ok(why: impl Into<String>) -> Finding {
        Finding { status: Status::Ok, why: why.into(), mend: None }
    }

    fn warn(why: impl Into<String>) -> Finding {
        Finding { status: Status::Warn, why: why.into(), mend: None }
    }

    fn fail(why: impl Into<String>) -> Finding {
        Finding { status: Status::Fail, why: why.into(), mend: None }
    }

    fn mend(mut self, command: impl Into<String>) -> Finding {
        self.mend = Some(command.into());
        self
    }

    /// The finding in a sentence, the command included.
    pub fn sentence(&self) -> String {
        match &self.mend {
            Some(mend) => format!("{}: {mend}", self.why),
            None => self.why.clone(),
        }
    }
}

/// When a check is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// By the daemon too: it does not start if the check fails.
    Start,
    /// When somebody asks.
    Asked,
}

/// One check.
#[derive(Debug)]
pub struct Check {
    /// Its name, which never changes.
    pub name: &'static str,
    stage: Stage,
    look: fn(&Host) -> Finding,
}

const fn start(name: &'static str, look: fn(&Host) -> Finding) -> Check {
    Check { name, stage: Stage::Start, look }
}

const fn asked(name: &'static str, look: fn(&Host) -> Finding) -> Check {
    Check { name, stage: Stage::Asked, look }
}

/// All checks, in the order in which they are told; cheap ones first.
pub const CHECKS: &[Check] = &[
    start("kvm", machine::kvm),
    start("kvm-access", machine::kvm_access),
    start("virtualization", machine::virtualization),
    start("tun", machine::tun),
    start("kernel", storage::kernel),
    start("agent", storage::agent),
    start("bridge", network::bridge),
    asked("pvm", machine::pvm),
    asked("nested", machine::nested),
    asked("vhost-net", machine::vhost_net),
    asked("cgroup", machine::cgroup),
    asked("memory", machine::memory),
    asked("overcommit", machine::overcommit),
    asked("huge-pages", machine::huge_pages),
    asked("clock", machine::clock),
    asked("descriptors", service::descriptors),
    asked("nftables", network::nftables),
    asked("ip-forward", network::ip_forward),
    asked("subnet", network::subnet),
    asked("forward-policy", network::forward_policy),
    asked("taps", network::taps),
    asked("firewall-entries", network::firewall_entries),
    asked("busybox", storage::busybox),
    asked("agent-version", storage::agent_version),
    asked("state-dir", storage::state_dir),
    asked("disk", storage::disk),
    asked("token", storage::token),
    asked("store", storage::store),
    asked("group", service::group),
    asked("socket", service::socket),
    asked("port", service::port),
    asked("unit", service::unit),
    asked("daemon", service::daemon),
    asked("daemon-version", service::daemon_version),
];

/// A check with what it has found.
#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    #[serde(flatten)]
    finding: Finding,
}

/// The sentence of the first check that the daemon cannot start without, if one fails.
pub fn start_refusal(host: &Host) -> Option<String> {
    let starting = CHECKS.iter().filter(|check| check.stage == Stage::Start);
    let mut findings = starting.map(|check| (check.look)(host));
    findings.find(|finding| finding.status == Status::Fail).map(|finding| finding.sentence())
}

/// The same of what no setup can give: the machine's own part.
pub fn machine_refusal(host: &Host) -> Option<String> {
    let looks = [machine::kvm, machine::kvm_access, machine::virtualization];
    let mut findings = looks.map(|look| look(host)).into_iter();
    findings.find(|finding| finding.status == Status::Fail).map(|finding| finding.sentence())
}

/// Makes the checks asked for and prints what they have found.
pub fn main(args: &DoctorArgs) -> ExitCode {
    let unknown = args.only.iter().find(|name| !CHECKS.iter().any(|check| check.name == **name));
    if let Some(name) = unknown {
        return report::unknown_name(name);
    }
    let executable = std::env::current_exe().unwrap_or_else(|_| "/usr/bin/volantd".into());
    let lines = match config::resolve(&args.flags, &executable) {
        Ok(config) => look(&Host::real(config, &args.flags), &args.only),
        Err(error) => vec![Line { name: "config", finding: no_config(&error, &args.flags) }],
    };
    report::print(&lines, args.json)
}

fn look(host: &Host, only: &[String]) -> Vec<Line> {
    let wanted = |check: &&Check| only.is_empty() || only.iter().any(|name| name == check.name);
    let line = |check: &Check| Line { name: check.name, finding: (check.look)(host) };
    CHECKS.iter().filter(wanted).map(line).collect()
}

fn no_config(error: &config::ConfigError, flags: &ServeFlags) -> Finding {
    let why = chain(error);
    let file = flags.config.as_deref().unwrap_or(Path::new(config::FILE_DEFAULT)).display();
    match error {
        config::ConfigError::Parse { .. } => {
            Finding::fail(why).mend(format!("mv {file} {file}.bad && {}", setup_command(flags)))
        }
        config::ConfigError::Read { .. } | config::ConfigError::Value(_) => Finding::fail(why),
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string().trim().to_owned();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {}", cause.to_string().trim());
        source = cause.source();
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests;
