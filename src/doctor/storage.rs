//! Files that the daemon needs, and those that it keeps.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::artifact::{self, NamedBy};
use crate::config::token;
use crate::doctor::{Finding, Host, chain};
use crate::store::{self, StoreError};
use crate::sys::accounts;

/// MiB below which a first image does not fit, and below which the database may not be written.
const DISK_WARN_MIB: u64 = 2048;
const DISK_FAIL_MIB: u64 = 64;
/// Files that may still be made: an image is a few.
const INODES_WARN: u64 = 1000;
/// What is before the version in the agent (guest-agent/src/main.rs).
const VERSION_MARK: &[u8] = b"volary version ";
/// Letters of a version.
const VERSION_LEN_MAX: usize = 32;
/// Where packages and `make run` have them.
const PACKAGED: &str = "/usr/lib/volant";
/// `PT_INTERP` (elf.h): the program needs a loader, and guests have none.
const PT_INTERP: u32 = 3;

pub fn kernel(host: &Host) -> Finding {
    let path = &host.config.kernel;
    let placed = |finding| place(host, finding, "vmlinux", path, "644");
    if !path.is_file() {
        let why = format!("there is no guest kernel at {}", path.display());
        return placed(Finding::fail(
            why + ": build one with kernel/build.sh, or name it with --kernel",
        ));
    }
    match artifact::open_kernel(path, NamedBy::Daemon) {
        Ok(_) => Finding::ok(format!("{} is a kernel", path.display())),
        Err(error) => placed(Finding::fail(format!("no guest kernel: {}", chain(&error)))),
    }
}

pub fn agent(host: &Host) -> Finding {
    let path = &host.config.agent;
    let placed = |finding| place(host, finding, "volary", path, "755");
    if !path.is_file() {
        let why = format!("there is no guest agent at {}", path.display());
        return placed(Finding::fail(why + ": build volary, or name it with --agent"));
    }
    match linkage(path) {
        Some(Linkage::Static) => Finding::ok(format!("{} is a static program", path.display())),
        Some(Linkage::Dynamic) => placed(Finding::fail(format!(
            "the guest agent {} needs a C library, which guests have not",
            path.display()
        ))),
        None => placed(Finding::fail(format!("{} is no program", path.display()))),
    }
}

pub fn agent_version(host: &Host) -> Finding {
    let path = &host.config.agent;
    let own = env!("CARGO_PKG_VERSION");
    let bytes = fs::read(path).unwrap_or_default();
    let at = bytes.windows(VERSION_MARK.len()).position(|window| window == VERSION_MARK);
    let version = at.map(|at| {
        let rest = &bytes[at + VERSION_MARK.len()..];
        let letters = rest.iter().take(VERSION_LEN_MAX).take_while(|byte| byte.is_ascii_graphic());
        letters.map(|byte| char::from(*byte)).collect::<String>()
    });
    let placed = |finding| place(host, finding, "volary", path, "755");
    match version {
        Some(version) if version == own => Finding::ok(format!("the guest agent is version {own}")),
        Some(version) => placed(Finding::warn(format!(
            "the guest agent is version {version}, this program {own}"
        ))),
        None => placed(Finding::warn(format!("{} does not say its version", path.display()))),
    }
}

/// The command that takes the file from where a package has put it.
fn place(host: &Host, finding: Finding, name: &str, to: &Path, mode: &str) -> Finding {
    let from = Path::new(PACKAGED).join(name);
    if from != *to && host.at(&from.to_string_lossy()).is_file() {
        let from = host.at(&from.to_string_lossy());
        return finding.mend(format!("install -D -m {mode} {} {}", from.display(), to.display()));
    }
    finding
}

pub fn busybox(host: &Host) -> Finding {
    let path = &host.config.busybox;
    let finding = match linkage(path) {
        Some(Linkage::Static) => {
            return Finding::ok(format!("{} is a static busybox", path.display()));
        }
        Some(Linkage::Dynamic) => Finding::warn(format!(
            "{} is not static: guests without an image have no shell",
            path.display()
        )),
        None => Finding::warn(format!(
            "there is no busybox at {}: guests without an image have no shell",
            path.display()
        )),
    };
    let system = host.read("/etc/os-release").unwrap_or_default();
    let has = |word: &str| system.lines().any(|line| line.starts_with("ID") && line.contains(word));
    match () {
        () if has("debian") => finding.mend("apt-get install -y --reinstall busybox-static"),
        () if has("fedora") => finding.mend("dnf install -y busybox"),
        () if has("arch") => finding.mend("pacman -S --noconfirm busybox"),
        () => finding,
    }
}

enum Linkage {
    Static,
    Dynamic,
}

/// What kind of x86-64 program it is; nothing if it is none (ELF specification, program header).
fn linkage(path: &Path) -> Option<Linkage> {
    let bytes = fs::read(path).ok()?;
    let number = |at: usize, len: usize| {
        let mut word = [0; 8];
        word[..len].copy_from_slice(bytes.get(at..at.checked_add(len)?)?);
        usize::try_from(u64::from_le_bytes(word)).ok()
    };
    if !bytes.starts_with(b"\x7fELF\x02\x01") || number(18, 2)? != 62 {
        return None;
    }
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let kinds = (0..count).filter_map(|index| number(table.checked_add(index * size)?, 4));
    let mut kinds = kinds.filter_map(|kind| u32::try_from(kind).ok());
    Some(if kinds.any(|kind| kind == PT_INTERP) { Linkage::Dynamic } else { Linkage::Static })
}

pub fn state_dir(host: &Host) -> Finding {
    let path = &host.config.state_dir;
    let shown = path.display();
    let Ok(meta) = fs::metadata(path) else {
        return Finding::ok(format!("{shown} is made at the first start"));
    };
    if !meta.is_dir() {
        return Finding::fail(format!("{shown} is no folder"))
            .mend(format!("mv {shown} {shown}.old"));
    }
    let service = accounts::user(&host.root, "volant");
    let own = rustix::process::geteuid().as_raw();
    let may_own = [Some(0), Some(own), service.map(|user| user.uid)];
    if !may_own.contains(&Some(meta.uid())) {
        return Finding::fail(format!(
            "{shown} belongs to user {}, neither root nor volant",
            meta.uid()
        ))
        .mend(format!("chown root: {shown}"));
    }
    if meta.permissions().mode() & 0o022 != 0 {
        return Finding::fail(format!("others than its owner may write into {shown}"))
            .mend(format!("chmod go-w {shown}"));
    }
    Finding::ok(format!("{shown} is its owner's alone"))
}

pub fn disk(host: &Host) -> Finding {
    let there = host.config.state_dir.ancestors().find(|path| path.exists());
    let Some(space) = there.and_then(|path| rustix::fs::statvfs(path).ok()) else {
        return Finding::warn("the space for the state folder is not known");
    };
    let mib = space.f_bavail.saturating_mul(space.f_frsize) >> 20;
    let shown = host.config.state_dir.display();
    let mend = "volantd ctl images prune";
    // File systems that make inodes as they need them say that they have none.
    if space.f_files != 0 && space.f_favail < INODES_WARN {
        return Finding::warn(format!("{} more files fit below {shown}", space.f_favail))
            .mend(mend);
    }
    let why = format!("{mib} MiB are free below {shown}");
    match mib {
        ..DISK_FAIL_MIB => Finding::fail(why).mend(mend),
        DISK_FAIL_MIB..DISK_WARN_MIB => Finding::warn(why + ", few for images").mend(mend),
        DISK_WARN_MIB.. => Finding::ok(why),
    }
}

pub fn token(host: &Host) -> Finding {
    let path = host.config.token_file.display();
    match token::load(&host.config.token_file) {
        Ok(Some(_)) => Finding::ok(format!("{path} is its owner's alone")),
        Ok(None) => Finding::ok(format!("{path} is made at the first start")),
        Err(token::TokenError::Open { .. }) => {
            Finding::fail(format!("{path} can be read by others")).mend(format!("chmod 600 {path}"))
        }
        Err(token::TokenError::Empty { .. }) => {
            Finding::fail(format!("{path} holds no token; the daemon makes a new one"))
                .mend(format!("rm {path}"))
        }
        Err(error @ token::TokenError::Host { .. }) => Finding::warn(chain(&error)),
    }
}

pub fn store(host: &Host) -> Finding {
    let path = host.config.state_dir.join("state.db");
    let shown = path.display();
    if !path.exists() {
        return Finding::ok(format!("{shown} is made at the first start"));
    }
    match store::inspect::check(&path) {
        Ok(()) => Finding::ok(format!("{shown} is whole")),
        Err(StoreError::Newer(version)) => Finding::fail(format!(
            "{shown} was written by a newer volantd (its version is {version}): install that, or restore a backup"
        )),
        Err(error) => Finding::fail(format!(
            "{shown} is damaged ({}): restore a backup, or begin without VMs",
            chain(&error)
        ))
        .mend(format!("mkdir {shown}.damaged && mv {shown} {shown}-* {shown}.damaged/ 2>/dev/null; test ! -e {shown}")),
    }
}
