//! Which daemon a command goes to: a flag, else the environment, else the context in use, else the one
//! of this machine. Contexts are kept in a file that only its owner reads, since it may hold tokens.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cli::{ContextCommand, CtlArgs};
use crate::ctl::client::{Client, Failure};
use crate::ctl::output::{Listed, Printer};

/// Bytes of a token.
const TOKEN_LEN_MAX: u64 = 4096;

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contexts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, Context>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Context {
    host: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

/// A context as it is listed; without its secret.
#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    current: bool,
    host: String,
    token: String,
}

impl Listed for Shown {
    const HEADER: &'static [&'static str] = &["CURRENT", "NAME", "HOST", "TOKEN"];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn cells(&self) -> Vec<String> {
        let current = if self.current { "*" } else { "" };
        vec![current.to_owned(), self.name.clone(), self.host.clone(), self.token.clone()]
    }
}

/// The folder of a user's own configuration.
pub fn folder() -> Option<PathBuf> {
    let config = std::env::var_os("XDG_CONFIG_HOME").filter(|path| !path.is_empty());
    let config = config.map(PathBuf::from);
    let config = config.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")));
    config.map(|folder| folder.join("volant"))
}

fn file() -> Result<PathBuf, Failure> {
    let folder = folder().ok_or_else(|| Failure::local("neither XDG_CONFIG_HOME nor HOME is set"));
    Ok(folder?.join("contexts.toml"))
}

fn load() -> Result<Contexts, Failure> {
    // Without a home there are no contexts.
    let Ok(path) = file() else { return Ok(Contexts::default()) };
    let failed =
        |error: &dyn std::fmt::Display| Failure::local(format!("{}: {error}", path.display()));
    match std::fs::read_to_string(&path) {
        Ok(text) => toml::from_str(&text).map_err(|error| failed(&error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Contexts::default()),
        Err(error) => Err(failed(&error)),
    }
}

/// Whole or not at all, and for nobody else's eyes.
fn save(contexts: &Contexts) -> Result<(), Failure> {
    let path = file()?;
    let failed = |error: std::io::Error| Failure::local(format!("{}: {error}", path.display()));
    let text = toml::to_string(contexts).map_err(|error| Failure::local(error.to_string()))?;
    let partial = path.with_extension("toml.partial");
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut options = std::fs::OpenOptions::new();
    // One that an earlier try has left may have another mode.
    let _ = std::fs::remove_file(&partial);
    let mut out =
        options.write(true).create_new(true).mode(0o600).open(&partial).map_err(failed)?;
    out.write_all(text.as_bytes()).and_then(|()| out.sync_all()).map_err(failed)?;
    std::fs::rename(&partial, &path).map_err(failed)
}

/// The daemon that the command line means.
///
/// # Errors
/// There is no such context, or its token cannot be read.
pub fn client(args: &CtlArgs) -> Result<Client, Failure> {
    choose(args.host.as_deref(), args.context.as_deref(), args.token_file.as_deref())
}

/// The daemon that a command line without flags means.
///
/// # Errors
/// See [`client`].
pub fn current() -> Result<Client, Failure> {
    choose(None, None, None)
}

fn choose(
    host: Option<&str>,
    context: Option<&str>,
    token_file: Option<&Path>,
) -> Result<Client, Failure> {
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let contexts = load()?;
    let name = match (host, context) {
        (Some(_), _) => None,
        (None, Some(name)) => Some(name.to_owned()),
        (None, None) if env("VOLANT_HOST").is_some() => None,
        (None, None) => env("VOLANT_CONTEXT").or_else(|| contexts.current.clone()),
    };
    let of_env = env("VOLANT_TOKEN_FILE").map(PathBuf::from);
    let Some(name) = name else {
        let of_env_host = env("VOLANT_HOST");
        let host = host.or(of_env_host.as_deref());
        return Client::new(host, token_file.or(of_env.as_deref()));
    };
    let Some(context) = contexts.contexts.get(&name) else {
        return Err(unknown(&name, &contexts));
    };
    if let (Some(token), None) = (&context.token, token_file) {
        return Client::with_token(&context.host, token);
    }
    let token_file = token_file.or(context.token_file.as_deref()).or(of_env.as_deref());
    Client::new(Some(&context.host), token_file)
}

fn unknown(name: &str, contexts: &Contexts) -> Failure {
    let known: Vec<&str> = contexts.contexts.keys().map(String::as_str).collect();
    let hint = match crate::ctl::suggest::nearest(name, &known) {
        Some(near) => format!("did you mean {near}?"),
        None => "`volantd ctl context list` lists them, `context add` makes one".to_owned(),
    };
    let failure = Failure::local(format!("there is no context {name:?}"));
    Failure { exit_code: 3, hint: Some(hint), ..failure }
}

/// Runs a verb.
///
/// # Errors
/// [`Failure`].
pub fn run(
    command: ContextCommand,
    host: Option<String>,
    token_file: Option<PathBuf>,
    out: &Printer,
) -> Result<u8, Failure> {
    let mut contexts = load()?;
    match command {
        ContextCommand::List => {
            let shown = contexts.contexts.iter().map(|(name, context)| Shown {
                name: name.clone(),
                current: contexts.current.as_ref() == Some(name),
                host: context.host.clone(),
                token: match (&context.token, &context.token_file) {
                    (Some(_), _) => "kept here".to_owned(),
                    (None, Some(path)) => path.display().to_string(),
                    (None, None) => "-".to_owned(),
                },
            });
            out.list(&shown.collect::<Vec<_>>())?;
            return Ok(0);
        }
        ContextCommand::Add { name, token_stdin } => {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if name.is_empty() || 63 < name.len() || !name.chars().all(plain) {
                let text = format!("{name:?}: a context's name is 1 to 63 of a-z, 0-9, -");
                return Err(Failure { exit_code: 2, ..Failure::local(text) });
            }
            let Some(host) = host else {
                let text = "--host says which daemon it is";
                return Err(Failure { exit_code: 2, ..Failure::local(text) });
            };
            let token = token_stdin.then(read_token).transpose()?;
            // Refused now rather than when it is used.
            Client::with_token(&host, "")?;
            let token_file = token_file.map(std::path::absolute).transpose();
            let token_file = token_file.map_err(|error| Failure::local(error.to_string()))?;
            contexts.contexts.insert(name, Context { host, token_file, token });
        }
        ContextCommand::Use { name: None } => contexts.current = None,
        ContextCommand::Use { name: Some(name) } => {
            if !contexts.contexts.contains_key(&name) {
                return Err(unknown(&name, &contexts));
            }
            contexts.current = Some(name);
        }
        ContextCommand::Remove { name } => {
            if contexts.contexts.remove(&name).is_none() {
                return Err(unknown(&name, &contexts));
            }
            contexts.current = contexts.current.filter(|current| *current != name);
        }
    }
    save(&contexts)?;
    Ok(0)
}

fn read_token() -> Result<String, Failure> {
    let mut token = String::new();
    let read = std::io::stdin().lock().take(TOKEN_LEN_MAX).read_to_string(&mut token);
    read.map_err(|error| Failure::local(format!("stdin: {error}")))?;
    match token.trim() {
        "" => Err(Failure { exit_code: 2, ..Failure::local("there is no token on stdin") }),
        token => Ok(token.to_owned()),
    }
}
