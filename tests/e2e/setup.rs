//! `volantd setup` on a host without systemd; tests/devvm/systemd.sh has one with it.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::daemon::named;

/// What setup makes outside the folders that a test names.
const MADE: [&str; 3] = [
    "/etc/sysctl.d/60-volant.conf",
    "/etc/modules-load.d/volant.conf",
    "/etc/tmpfiles.d/volant.conf",
];

fn setup(folder: &Path, flags: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(named("VOLANTD"));
    command.arg("setup").arg("--config").arg(folder.join("etc/volantd.toml")).args(flags);
    let out = command.stdin(Stdio::null()).output().unwrap();
    let text = [out.stdout, out.stderr].concat();
    (out.status.code(), String::from_utf8(text).unwrap())
}

#[track_caller]
fn says(folder: &Path, flags: &[&str], code: i32, words: &str) -> String {
    let (status, text) = setup(folder, flags);
    assert!(status == Some(code) && text.contains(words), "{flags:?}: {status:?} {text}");
    text
}

/// Taken back when it is dropped: a test that fails must not leave its neighbours a second bridge.
struct Host<'a> {
    folder: &'a Path,
    daemon: Child,
}

impl Drop for Host<'_> {
    fn drop(&mut self) {
        // It is over already where the test has come so far.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        setup(self.folder, &["--uninstall", "--yes"]);
    }
}

#[test]
fn a_host_is_set_up_once_and_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (state, kernel) = (folder.join("state"), named("VOLANT_KERNEL"));
    let (state_dir, kernel) = (state.display().to_string(), kernel.display().to_string());
    let agent = named("VOLARY").display().to_string();
    let flags =
        ["--state-dir", &state_dir, "--kernel", &kernel, "--agent", &agent, "--bridge", "vbr3"];
    let exist = || MADE.map(|path| Path::new(path).exists());

    says(folder, &[&flags[..], &["--dry-run"]].concat(), 0, "would make: group volant");
    assert!(!folder.join("etc").exists() && exist() == [false; 3], "a dry run changed something");
    says(folder, &["--uninstall"], 1, "setup has made nothing here");
    let text = says(folder, &flags, 0, "made: file");
    assert!(text.contains("start it, as root: ") && exist() == [true; 3], "{text}");
    says(folder, &flags, 0, "nothing to do");
    says(folder, &[], 0, "nothing to do");

    // What it has made is what the daemon needs: it starts with it.
    let daemon = Command::new(named("VOLANTD"))
        .arg("serve")
        .arg("--config")
        .arg(folder.join("etc/volantd.toml"))
        .args(["--socket".as_ref(), folder.join("socket").as_os_str()])
        .spawn()
        .unwrap();
    let mut host = Host { folder, daemon };
    // The socket is there before the network is: it must answer.
    let socket = folder.join("socket").display().to_string();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    let answers = || {
        let mut curl = Command::new("curl");
        curl.args(["-sf", "-o", "/dev/null", "--max-time", "5", "--unix-socket", &socket]);
        curl.arg("http://localhost/readyz").status().unwrap().success()
    };
    while !answers() {
        assert!(std::time::Instant::now() < deadline && host.daemon.try_wait().unwrap().is_none());
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    }
    assert!(Path::new("/sys/class/net/vbr3/bridge").exists());
    says(folder, &["--uninstall"], 1, "a daemon runs in");
    host.daemon.kill().unwrap();
    host.daemon.wait().unwrap();

    std::fs::write(folder.join("etc/mine"), "").unwrap();
    says(folder, &["--uninstall", "--dry-run"], 0, "would remove: bridge vbr3");
    says(folder, &["--uninstall"], 0, "stays: what is in");
    assert!(state.join("token").exists() && folder.join("etc/mine").exists());
    assert!(!folder.join("etc/volantd.toml").exists() && exist() == [false; 3]);
    assert!(!Path::new("/sys/class/net/vbr3").exists(), "the bridge is left");
    let accounts = std::fs::read_to_string("/etc/group").unwrap();
    assert!(!accounts.contains("\nvolant:"), "the group is left");
    let tables = Command::new("nft").args(["list", "tables"]).output().unwrap();
    let tables = String::from_utf8(tables.stdout).unwrap();
    assert!(!tables.contains("volant_vbr3"), "{tables}");
}
