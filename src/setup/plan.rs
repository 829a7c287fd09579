//! The plan: a list of steps that follows from what is wished and what is so. Pure.

use std::path::{Path, PathBuf};

use crate::cli::SetupArgs;
use crate::config::Config;
use crate::setup::SetupError;
use crate::setup::step::Step;

/// User and group of the daemon under systemd.
pub const ACCOUNT: &str = "volant";
/// Systemd starts the one, and the other with it.
const UNITS: [&str; 2] = ["volantd.socket", "volantd.service"];
const SERVICE: &str = include_str!("files/volantd.service");
const SOCKET: &str = include_str!("files/volantd.socket");
const TMPFILES: &str = include_str!("files/tmpfiles.conf");
const SYSCTL: &str = include_str!("files/sysctl.conf");
const MODULES: &str = include_str!("files/modules.conf");
/// What the units of the package name; replaced where the program is elsewhere.
const PROGRAM: &str = "/usr/bin/volantd";
const STATE_DIR: &str = "/var/lib/volant";
const SOCKET_PATH: &str = "/run/volant/volant.sock";

/// What is so on the host.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Systemd runs it.
    pub systemd: bool,
    /// A package has brought the units, and the user.
    pub packaged: bool,
    /// This program.
    pub executable: PathBuf,
    /// What the configuration file says now; empty if there is none.
    pub config_text: String,
    /// Guest kernel and agent that came with this program.
    pub kernel: Option<PathBuf>,
    /// See `kernel`.
    pub agent: Option<PathBuf>,
    /// There is a bridge of the name wanted that setup has not made.
    pub foreign_bridge: bool,
}

/// The configuration file with what is wished in it; everything else in it stays, comments included.
///
/// # Errors
/// The file is no TOML.
pub fn config_text(wishes: &SetupArgs, facts: &Facts) -> Result<String, SetupError> {
    let mut document: toml_edit::DocumentMut =
        facts.config_text.parse().map_err(|source| SetupError::Config { source })?;
    let present: toml_edit::DocumentMut = document.clone();
    let has = |key: &str| present.contains_key(key);
    let state_dir = present.get("state_dir").and_then(|value| value.as_str()).unwrap_or(STATE_DIR);
    let state_dir = wishes.state_dir.clone().unwrap_or_else(|| state_dir.into());
    let mut set = |key: &str, value: Option<String>| {
        let Some(value) = value else { return };
        let mut value = toml_edit::Value::from(value);
        if let Some(old) = document.get(key).and_then(toml_edit::Item::as_value) {
            *value.decor_mut() = old.decor().clone();
        }
        document[key] = toml_edit::Item::Value(value);
    };
    let shown = |path: &PathBuf| path.display().to_string();
    set("bridge", wishes.bridge.clone());
    set("subnet", wishes.subnet.clone());
    set("host_ip", wishes.host_ip.map(|ip| ip.to_string()));
    set("listen", wishes.listen.map(|address| address.to_string()));
    set("state_dir", wishes.state_dir.as_ref().map(shown));
    let files = [
        ("kernel", &wishes.kernel, &facts.kernel, "kernel/vmlinux"),
        ("agent", &wishes.agent, &facts.agent, "kernel/volary"),
    ];
    for (key, wished, came, copy) in files {
        match wished {
            Some(_) => set(key, Some(shown(&state_dir.join(copy)))),
            None if !has(key) => set(key, came.as_ref().map(shown)),
            None => {}
        }
    }
    Ok(document.to_string())
}

/// All that there should be. `config` is what `text` means, with defaults for the rest.
pub fn plan(wishes: &SetupArgs, facts: &Facts, config: &Config, text: String) -> Vec<Step> {
    let service = facts.systemd && !wishes.no_systemd;
    let owner = service.then(|| ACCOUNT.to_owned());
    // First: the record of what is made is in it, and a folder that is there already is not setup's.
    let folder = wishes.config.parent().map(Path::to_owned);
    let folder = folder.map(|path| Step::Folder { path, mode: 0o755, owner: None });
    let mut steps: Vec<Step> = folder.into_iter().collect();
    steps.push(Step::Group { name: ACCOUNT.to_owned() });
    if service {
        let home = config.state_dir.clone();
        steps.push(Step::Group { name: "kvm".to_owned() });
        steps.push(Step::User { name: ACCOUNT.to_owned(), home });
        steps.push(Step::Member { user: ACCOUNT.to_owned(), group: "kvm".to_owned() });
    }
    let state_dir = config.state_dir.clone();
    steps.push(Step::Folder { path: state_dir, mode: 0o750, owner: owner.clone() });
    steps.push(Step::File { path: wishes.config.clone(), contents: text });
    let copies = [(&wishes.kernel, &config.kernel, 0o644), (&wishes.agent, &config.agent, 0o755)];
    for (from, to, mode) in copies {
        if let Some(from) = from {
            steps.push(Step::Copy { from: from.clone(), to: to.clone(), mode });
        }
    }
    steps.push(Step::Token { path: config.token_file.clone(), owner });
    steps.extend(kernel_steps(facts));
    if !facts.foreign_bridge {
        steps.push(Step::Network { bridge: config.bridge.clone() });
    }
    if service {
        steps.extend(unit_steps(wishes, facts, config));
    }
    steps
}

fn file(path: &str, contents: impl Into<String>) -> Step {
    Step::File { path: path.into(), contents: contents.into() }
}

fn kernel_steps(facts: &Facts) -> Vec<Step> {
    let mut steps = vec![
        file("/etc/sysctl.d/60-volant.conf", SYSCTL),
        file("/etc/modules-load.d/volant.conf", MODULES),
        Step::Sysctl { path: "/proc/sys/net/ipv4/ip_forward".into(), value: "1".to_owned() },
    ];
    if !facts.packaged {
        steps.push(file("/etc/tmpfiles.d/volant.conf", TMPFILES));
    }
    steps
}

fn unit_steps(wishes: &SetupArgs, facts: &Facts, config: &Config) -> Vec<Step> {
    let mut steps = Vec::new();
    if !facts.packaged {
        let program = facts.executable.display().to_string();
        let service = SERVICE.replace(PROGRAM, &program);
        steps.push(file("/etc/systemd/system/volantd.socket", SOCKET));
        steps.push(file("/etc/systemd/system/volantd.service", service));
    }
    let mut more = String::new();
    let usual = Path::new(crate::config::FILE_DEFAULT);
    if wishes.config != usual {
        more += &format!("Environment=VOLANT_CONFIG={}\n", wishes.config.display());
    }
    if config.state_dir != Path::new(STATE_DIR) {
        more += &format!("ReadWritePaths={}\n", config.state_dir.display());
    }
    if !more.is_empty() {
        let path = "/etc/systemd/system/volantd.service.d";
        steps.push(Step::Folder { path: path.into(), mode: 0o755, owner: None });
        steps.push(file(&format!("{path}/setup.conf"), format!("[Service]\n{more}")));
    }
    if config.socket != Path::new(SOCKET_PATH) {
        let path = "/etc/systemd/system/volantd.socket.d";
        let listen = format!("[Socket]\nListenStream=\nListenStream={}\n", config.socket.display());
        steps.push(Step::Folder { path: path.into(), mode: 0o755, owner: None });
        steps.push(file(&format!("{path}/setup.conf"), listen));
    }
    let units: Vec<String> = UNITS.map(str::to_owned).to_vec();
    steps.push(Step::Enabled { units: units.clone() });
    if !wishes.no_start {
        steps.push(Step::Started { units });
    }
    steps
}
