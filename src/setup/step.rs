//! One thing that setup makes: whether it is there, how it is made, how it is taken back.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::token;
use crate::setup::SetupError;
use crate::setup::program::{run, succeeds};
use crate::sys::accounts;

/// What setup makes. A list of them is the plan, and, written down, the record of what was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// A system group.
    Group {
        /// Its name.
        name: String,
    },
    /// A system user with a group of the same name.
    User {
        /// Its name.
        name: String,
        /// Its folder, which is not made.
        home: PathBuf,
    },
    /// A user's membership.
    Member {
        /// Who.
        user: String,
        /// In which group.
        group: String,
    },
    /// A folder.
    Folder {
        /// Where.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
        /// Whose, if not root's.
        owner: Option<String>,
    },
    /// A file with contents of setup's.
    File {
        /// Where.
        path: PathBuf,
        /// What is in it; not in the record.
        #[serde(skip)]
        contents: String,
    },
    /// A copy of a file.
    Copy {
        /// Of which; not in the record.
        #[serde(skip)]
        from: PathBuf,
        /// Where.
        to: PathBuf,
        /// Permission bits.
        mode: u32,
    },
    /// The token for TCP. It belongs to the state folder.
    Token {
        /// Where.
        path: PathBuf,
        /// Whose, if not root's.
        owner: Option<String>,
    },
    /// A setting of the kernel, now.
    Sysctl {
        /// Its file.
        path: PathBuf,
        /// Its value.
        value: String,
    },
    /// What the daemon makes at its start: it is taken back with the rest.
    Network {
        /// The bridge.
        bridge: String,
    },
    /// Units that start with the host.
    Enabled {
        /// Which.
        units: Vec<String>,
    },
    /// Units that run.
    Started {
        /// Which.
        units: Vec<String>,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Group { name } => write!(f, "group {name}"),
            Step::User { name, .. } => write!(f, "user {name}"),
            Step::Member { user, group } => write!(f, "{user} in the group {group}"),
            Step::Folder { path, mode, owner } => {
                let owner = owner.as_deref().unwrap_or("root");
                write!(f, "folder {} (mode {mode:o}, of {owner})", path.display())
            }
            Step::File { path, .. } | Step::Copy { to: path, .. } => {
                write!(f, "file {}", path.display())
            }
            Step::Token { path, .. } => write!(f, "token {}", path.display()),
            Step::Sysctl { path, value } => write!(f, "{value} in {}", path.display()),
            Step::Network { bridge } => {
                write!(f, "bridge {bridge} and its firewall (made by the daemon)")
            }
            Step::Enabled { units } => write!(f, "{} started with the host", units.join(" and ")),
            Step::Started { units } => write!(f, "{} started now", units.join(" and ")),
        }
    }
}

impl Step {
    /// Whether it is there, as it should be. `root` is the folder that `/etc` is in.
    pub fn holds(&self, root: &Path) -> bool {
        match self {
            Step::Group { name } => accounts::group(root, name).is_some(),
            Step::User { name, .. } => accounts::user(root, name).is_some(),
            Step::Member { user, group } => {
                let group = accounts::group(root, group);
                group.is_some_and(|group| group.members.contains(user))
            }
            Step::Folder { path, mode, owner } => fs::metadata(path).is_ok_and(|meta| {
                let owned = owner.as_ref().is_none_or(|owner| {
                    accounts::user(root, owner).is_some_and(|user| user.uid == meta.uid())
                });
                meta.is_dir() && meta.permissions().mode() & 0o7777 == *mode && owned
            }),
            Step::File { path, contents } => {
                fs::read_to_string(path).is_ok_and(|present| present == *contents)
            }
            Step::Copy { from, to, .. } => fs::read(to)
                .ok()
                .is_some_and(|present| fs::read(from).is_ok_and(|wanted| wanted == present)),
            Step::Token { path, .. } => path.exists(),
            Step::Sysctl { path, value } => {
                fs::read_to_string(path).is_ok_and(|present| present.trim() == value)
            }
            Step::Network { .. } => true,
            Step::Enabled { units } => {
                units.iter().all(|unit| succeeds(&["systemctl", "is-enabled", "-q", unit]))
            }
            Step::Started { units } => {
                units.iter().all(|unit| succeeds(&["systemctl", "is-active", "-q", unit]))
            }
        }
    }

    /// Whether something is in its place that somebody else has made, if setup has not.
    pub fn is_occupied(&self) -> bool {
        match self {
            Step::Folder { path, .. } | Step::File { path, .. } | Step::Copy { to: path, .. } => {
                path.symlink_metadata().is_ok()
            }
            Step::Group { .. }
            | Step::User { .. }
            | Step::Member { .. }
            | Step::Token { .. }
            | Step::Sysctl { .. }
            | Step::Network { .. }
            | Step::Enabled { .. }
            | Step::Started { .. } => false,
        }
    }

    /// Whether it is the same thing, whatever is in it.
    pub fn is_same(&self, other: &Step) -> bool {
        self.to_string() == other.to_string()
    }

    /// Makes it.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn make(&self, root: &Path) -> Result<(), SetupError> {
        let host = |source| SetupError::Make { step: self.to_string(), source };
        match self {
            Step::Group { name } => run(&["groupadd", "--system", name]),
            Step::User { name, home } => {
                let home = home.to_string_lossy();
                let shell = ["--shell", "/usr/sbin/nologin", "--gid", name, name];
                let flags = ["useradd", "--system", "--no-create-home", "--home-dir", &home];
                run(&[&flags[..], &shell[..]].concat())
            }
            Step::Member { user, group } => run(&["usermod", "-a", "-G", group, user]),
            Step::Folder { path, mode, owner } => {
                fs::create_dir_all(path).map_err(host)?;
                if !self.holds(root) {
                    give(root, path, owner.as_deref()).map_err(host)?;
                }
                fs::set_permissions(path, fs::Permissions::from_mode(*mode)).map_err(host)
            }
            Step::File { path, contents } => write(path, contents.as_bytes(), 0o644).map_err(host),
            Step::Copy { from, to, mode } => {
                let contents = fs::read(from);
                contents.and_then(|contents| write(to, &contents, *mode)).map_err(host)
            }
            Step::Token { path, owner } => {
                let made = token::load_or_make(path).map_err(io::Error::other);
                made.and_then(|_| give(root, path, owner.as_deref())).map_err(host)
            }
            Step::Sysctl { path, value } => fs::write(path, value).map_err(host),
            Step::Network { .. } => Ok(()),
            Step::Enabled { units } => {
                run(&["systemctl", "daemon-reload"])?;
                systemctl(&["enable", "-q"], units)
            }
            Step::Started { units } => systemctl(&["start"], units),
        }
    }

    /// Takes it back. What is not there any more is no error, and what others may rely on by now stays: a
    /// setting of the kernel, and whatever else is in a folder.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn take_back(&self, root: &Path) -> Result<(), SetupError> {
        let host = |source| SetupError::Remove { step: self.to_string(), source };
        match self {
            Step::Group { name } if accounts::group(root, name).is_some() => {
                run(&["groupdel", name])
            }
            Step::User { name, .. } if accounts::user(root, name).is_some() => {
                run(&["userdel", name])
            }
            Step::Member { user, group } if self.holds(root) => {
                run(&["gpasswd", "-d", user, group])
            }
            Step::Folder { path, .. } => match fs::remove_dir(path) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
                removed => absent_is_fine(removed).map_err(host),
            },
            Step::File { path, .. } | Step::Copy { to: path, .. } => {
                absent_is_fine(fs::remove_file(path)).map_err(host)
            }
            Step::Network { bridge } => tear_down(bridge),
            Step::Enabled { units } => systemctl(&["disable", "-q"], units),
            Step::Started { units } => systemctl(&["stop"], units),
            Step::Group { .. }
            | Step::User { .. }
            | Step::Member { .. }
            | Step::Token { .. }
            | Step::Sysctl { .. } => Ok(()),
        }
    }
}

fn systemctl(verb: &[&str], units: &[String]) -> Result<(), SetupError> {
    let units: Vec<&str> = units.iter().map(String::as_str).collect();
    run(&[&["systemctl"], verb, &units].concat())
}

/// Gives the path, and all that is below it, to a user and its group: a daemon that root has run before
/// may have left files there.
fn give(root: &Path, path: &Path, owner: Option<&str>) -> io::Result<()> {
    let Some(owner) = owner else { return Ok(()) };
    let user = accounts::user(root, owner)
        .ok_or_else(|| io::Error::other(format!("there is no user {owner}")))?;
    let mut pending = vec![path.to_owned()];
    while let Some(path) = pending.pop() {
        // Links themselves are given, not what they lead to.
        lchown(&path, Some(user.uid), Some(user.gid))?;
        if path.symlink_metadata()?.is_dir() {
            let entries = fs::read_dir(&path)?.map(|entry| entry.map(|entry| entry.path()));
            pending.extend(entries.collect::<io::Result<Vec<_>>>()?);
        }
    }
    Ok(())
}

/// Written whole under another name first: nobody ever reads half of it.
pub fn write(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    fs::write(&partial, contents)?;
    fs::set_permissions(&partial, fs::Permissions::from_mode(mode))?;
    fs::rename(&partial, path)
}

fn absent_is_fine(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn tear_down(bridge: &str) -> Result<(), SetupError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime
        .map_err(|source| SetupError::Remove { step: format!("bridge {bridge}"), source })?;
    Ok(runtime.block_on(crate::net::tear_down(bridge))?)
}
