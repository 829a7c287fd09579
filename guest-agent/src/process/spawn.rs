//! From a checked request to a child: environment, user, session, cgroup, stdio.
#![expect(unsafe_code, reason = "session, group and cgroup are set between fork and exec")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use tokio::net::unix::pipe;
use volant_protocol::{ProcessRequest, ProcessStatus, TAG_LEN_MAX};

use crate::process::output::Stream;
use crate::process::stdio::{self, Sink, Source, Terminal};
use crate::process::tree::Tree;
use crate::reap::{Reaper, Started};
use crate::user::{User, find};

/// Arguments and variables of one request.
const ARGV_MAX: usize = 4096;
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const TERM_DEFAULT: &str = "xterm-256color";

/// Checks what can be known before a process exists.
///
/// # Errors
/// One sentence for the caller.
pub fn check(request: &ProcessRequest) -> Result<(), String> {
    if request.argv.first().is_none_or(String::is_empty) {
        return Err("argv must name a program".to_owned());
    }
    if ARGV_MAX < request.argv.len() + request.env.len() {
        return Err(format!("at most {ARGV_MAX} arguments and variables"));
    }
    let texts = request.argv.iter().chain(request.env.keys()).chain(request.env.values());
    if texts.chain(&request.cwd).any(|text| text.contains('\0')) {
        return Err("a zero byte in an argument, a variable or the folder".to_owned());
    }
    if request.env.keys().any(|name| name.is_empty() || name.contains('=')) {
        return Err("a variable's name is empty or contains '='".to_owned());
    }
    if request.tag.as_ref().is_some_and(|tag| TAG_LEN_MAX < tag.len()) {
        return Err(format!("a tag has at most {TAG_LEN_MAX} bytes"));
    }
    Ok(())
}

/// Environment of every process: the guest's own, then what `base` adds.
pub fn environment(base: &BTreeMap<String, String>, home: &str) -> BTreeMap<String, String> {
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), PATH_DEFAULT.to_owned()),
        ("HOME".to_owned(), home.to_owned()),
    ]);
    env.extend(base.clone());
    env
}

/// A status of a process that never ran.
pub fn failed(code: i32, error: String) -> ProcessStatus {
    ProcessStatus { code: Some(code), error: Some(error), ..ProcessStatus::default() }
}

/// A child and the agent's ends of its stdio.
pub struct Child {
    /// Its number and its end.
    pub started: Started,
    /// Its input, if it has one.
    pub input: Option<Sink>,
    /// Its outputs.
    pub outputs: Vec<(Stream, Source)>,
    /// Its terminal, if it has one.
    pub terminal: Option<Terminal>,
}

/// Starts a checked request as a member of `tree`, with the agent's ends of its stdio in the loop.
///
/// # Errors
/// It never ran, and why.
pub fn spawn(
    request: &ProcessRequest,
    base_env: &BTreeMap<String, String>,
    reaper: &Reaper,
    tree: &Tree,
) -> Result<Child, ProcessStatus> {
    let (mut started, terminal) = begin(request, base_env, reaper, tree)?;
    tree.adopt(started.pid);
    let connected = connect(&mut started, terminal.as_ref()).map_err(|error| {
        tree.kill();
        failed(125, format!("stdio: {error}"))
    });
    let (input, outputs) = connected?;
    Ok(Child { started, input, outputs, terminal })
}

/// Starts a checked request as a member of `tree`.
///
/// # Errors
/// How it would have ended: 127 not found, 126 not executable or no such user.
pub fn begin(
    request: &ProcessRequest,
    base_env: &BTreeMap<String, String>,
    reaper: &Reaper,
    tree: &Tree,
) -> Result<(Started, Option<Terminal>), ProcessStatus> {
    let user = look_up(request)?;
    let home = user.as_ref().map_or("/root", |user| user.home.as_str());
    let mut env = environment(base_env, home);
    if request.terminal.is_some() {
        env.entry("TERM".to_owned()).or_insert_with(|| TERM_DEFAULT.to_owned());
    }
    env.extend(request.env.clone());
    let mut command = Command::new(&request.argv[0]);
    command.args(&request.argv[1..]).env_clear().envs(&env);
    command.current_dir(request.cwd.as_deref().unwrap_or("/"));
    let terminal = match request.terminal {
        Some(size) => {
            let given = Terminal::give(&mut command, size, user.as_ref());
            Some(given.map_err(|error| failed(125, format!("terminal: {error}")))?)
        }
        None => {
            command.stdin(if request.stdin { Stdio::piped() } else { Stdio::null() });
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            None
        }
    };
    prepare(&mut command, user, tree.procs(), terminal.is_some());
    let started = reaper.spawn(&mut command).map_err(|error| {
        let code = if error.kind() == ErrorKind::NotFound { 127 } else { 126 };
        failed(code, format!("{}: {error}", request.argv[0]))
    })?;
    Ok((started, terminal))
}

fn look_up(request: &ProcessRequest) -> Result<Option<User>, ProcessStatus> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let Some(name) = &request.user else { return Ok(None) };
    find(name, &read("/etc/passwd"), &read("/etc/group"))
        .map(Some)
        .ok_or_else(|| failed(126, format!("no user {name:?} in the guest")))
}

type Ends = (Option<Sink>, Vec<(Stream, Source)>);

fn connect(started: &mut Started, terminal: Option<&Terminal>) -> io::Result<Ends> {
    if let Some(terminal) = terminal {
        let source = Source::Terminal(terminal.clone());
        return Ok((Some(Sink::Terminal(terminal.clone())), vec![(Stream::Stdout, source)]));
    }
    let stdin = started.stdin.take().map(|pipe| pipe::Sender::from_owned_fd(pipe.into()));
    let stdout = started.stdout.take().map(|pipe| (Stream::Stdout, OwnedFd::from(pipe)));
    let stderr = started.stderr.take().map(|pipe| (Stream::Stderr, OwnedFd::from(pipe)));
    let open = |(stream, fd): (Stream, OwnedFd)| {
        Ok((stream, Source::Pipe(pipe::Receiver::from_owned_fd(fd)?)))
    };
    let outputs: io::Result<Vec<_>> = stdout.into_iter().chain(stderr).map(open).collect();
    Ok((stdin.transpose()?.map(Sink::Pipe), outputs?))
}

/// Own session, signals as they are by default, own terminal if there is one, own cgroup, then the user.
fn prepare(command: &mut Command, user: Option<User>, procs: Option<File>, terminal: bool) {
    // SAFETY: the closure makes system calls only; its data were made before the fork.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            // What the agent was made to ignore is nobody else's to ignore: a shell cannot trap it.
            for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGCHLD]
            {
                libc::signal(signal, libc::SIG_DFL);
            }
            if terminal {
                stdio::take_control()?;
            }
            if let Some(mut procs) = procs.as_ref() {
                procs.write_all(b"0")?;
            }
            let Some(user) = &user else { return Ok(()) };
            let set = libc::setgroups(user.groups.len(), user.groups.as_ptr()) == 0
                && libc::setgid(user.gid) == 0
                && libc::setuid(user.uid) == 0;
            if set { Ok(()) } else { Err(io::Error::last_os_error()) }
        });
    }
}
