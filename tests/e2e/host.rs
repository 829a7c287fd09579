//! What the daemon says on a host that lacks something, each in one sentence.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::daemon::{Daemon, named};

/// A device that is not there for as long as this lives.
struct Hidden {
    path: &'static str,
    aside: PathBuf,
}

impl Hidden {
    fn new(path: &'static str) -> Hidden {
        let aside = PathBuf::from(format!("{path}-hidden"));
        std::fs::rename(path, &aside).unwrap();
        Hidden { path, aside }
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        std::fs::rename(&self.aside, self.path).unwrap();
    }
}

/// A daemon for `folder`, with some flags set otherwise.
fn serve(folder: &Path, otherwise: &[(&'static str, &Path)]) -> Command {
    let mut flags = BTreeMap::from([
        ("--state-dir", folder.join("state")),
        ("--socket", folder.join("socket")),
        ("--kernel", named("VOLANT_KERNEL")),
        ("--agent", named("VOLARY")),
        ("--listen", "127.0.0.1:17777".into()),
    ]);
    flags.extend(otherwise.iter().map(|(flag, value)| (*flag, value.to_path_buf())));
    let mut command = Command::new(named("VOLANTD"));
    command.arg("serve");
    for (flag, value) in flags {
        command.arg(flag).arg(value);
    }
    command
}

/// The daemon refuses to start; what it says.
fn refusal(command: &mut Command) -> String {
    let out = command.output().unwrap();
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    let text = String::from_utf8(out.stderr).unwrap();
    let last = text.lines().last().unwrap_or_default().to_owned();
    assert!(last.starts_with("volantd: "), "{text}");
    last
}

#[test]
fn each_lack_of_the_host_is_told_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Path::new("/no/such");
    let says = |command: &mut Command, words: &str| {
        let text = refusal(command);
        assert!(text.contains(words), "{text}");
    };
    {
        let _kvm = Hidden::new("/dev/kvm");
        says(&mut serve(folder.path(), &[]), "there is no /dev/kvm");
    }
    {
        let _tun = Hidden::new("/dev/net/tun");
        says(&mut serve(folder.path(), &[]), "there is no /dev/net/tun");
    }
    const NOBODY: u32 = 65534;
    says(serve(folder.path(), &[]).uid(NOBODY).gid(NOBODY), "/dev/kvm may not be opened");
    says(&mut serve(folder.path(), &[("--kernel", missing)]), "no guest kernel at /no/such");
    says(&mut serve(folder.path(), &[("--agent", missing)]), "no guest agent at /no/such");
    assert!(!folder.path().join("state").exists(), "a daemon that refused made its folder");
}

#[test]
fn what_another_program_uses_is_told() {
    let daemon = Daemon::start();
    let folder = tempfile::tempdir().unwrap();
    let text = refusal(&mut serve(folder.path(), &[]));
    assert!(text.contains("127.0.0.1:17777 cannot be listened on"), "{text}");
    let text = refusal(&mut serve(folder.path(), &[("--state-dir", &daemon.state_dir())]));
    assert!(text.contains("another volantd uses this state folder"), "{text}");
}
