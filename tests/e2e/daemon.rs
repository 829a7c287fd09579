//! A daemon of its own for one test: own state folder and socket; ended and removed afterwards.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use crate::client::Client;

/// How long anything may take in emulation.
const DEADLINE: Duration = Duration::from_secs(300);
/// Between looks at a condition.
const POLL: Duration = Duration::from_millis(50);

/// Address of the proxy's own listener.
pub(crate) const PROXY: &str = "127.0.0.1:17780";

pub(crate) struct Daemon {
    folder: tempfile::TempDir,
    child: Child,
}

pub(crate) fn named(variable: &str) -> PathBuf {
    std::env::var_os(variable).map(PathBuf::from).unwrap_or_else(|| panic!("{variable} is not set"))
}

fn spawn(folder: &Path, crash_at: &str) -> Child {
    let path = |name: &str| folder.join(name);
    let log = std::fs::OpenOptions::new().create(true).append(true).open(path("log")).unwrap();
    Command::new(named("VOLANTD"))
        .arg("serve")
        .args(["--config".as_ref(), path("volantd.toml").as_os_str()])
        .args(["--state-dir".as_ref(), path("state").as_os_str()])
        .args(["--socket".as_ref(), path("socket").as_os_str()])
        .args(["--kernel".as_ref(), named("VOLANT_KERNEL").as_os_str()])
        .args(["--agent".as_ref(), named("VOLARY").as_os_str()])
        .args(["--proxy-listen", PROXY, "--listen", "127.0.0.1:17777", "--busybox", "/bin/busybox"])
        .args(["--boot-timeout-ms", "300000"])
        .env("VOLANT_CRASH_AT", crash_at)
        .env("VOLANT_LOG_BYTES_MAX", "65536")
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Daemon {
    pub(crate) fn start() -> Daemon {
        Daemon::start_with("")
    }

    /// With this configuration file.
    pub(crate) fn start_with(config: &str) -> Daemon {
        assert!(Path::new("/dev/kvm").exists(), "this suite needs /dev/kvm; see docs/devvm.md");
        let folder = tempfile::tempdir().unwrap();
        // Tests put what they name anywhere; where that matters they say so themselves.
        let anywhere = match config.contains("[artifacts]") {
            true => "",
            false => "\n[artifacts]\nfolders = [\"/\"]\n",
        };
        let stop = match config.contains("stop_timeout_ms") {
            true => "",
            false => "stop_timeout_ms = 12000\n",
        };
        let text = format!("{stop}{config}{anywhere}");
        std::fs::write(folder.path().join("volantd.toml"), text).unwrap();
        let child = spawn(folder.path(), "");
        let mut daemon = Daemon { folder, child };
        daemon.wait_ready();
        daemon
    }

    fn wait_ready(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        while self.look("/readyz").is_none() {
            let ended = self.child.try_wait().unwrap();
            let waiting = ended.is_none() && Instant::now() < deadline;
            assert!(waiting, "the daemon does not answer ({ended:?}); the log:\n{}", self.log());
            std::thread::park_timeout(POLL);
        }
    }

    /// What a GET answers, if it is answered well. Starting `ctl` takes the emulator longer than what
    /// it asks for.
    fn look(&self, path: &str) -> Option<serde_json::Value> {
        let mut stream = UnixStream::connect(self.socket()).ok()?;
        let head = "Host: localhost\r\nConnection: close";
        write!(stream, "GET {path} HTTP/1.1\r\n{head}\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.1 200").then(|| serde_json::from_str(body).ok())?
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn kill_and_restart(&mut self) {
        self.kill();
        self.restart();
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn restart(&mut self) {
        self.child = spawn(self.folder.path(), "");
        self.wait_ready();
    }

    /// Asks it to end, as systemd does, and starts another.
    pub(crate) fn terminate_and_restart(&mut self) {
        self.terminate();
        let ended = self.child.wait().unwrap();
        assert!(ended.success(), "{ended}; the log:\n{}", self.log());
        self.child = spawn(self.folder.path(), "");
        self.wait_ready();
    }

    fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        if let Some(pid) = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()) {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Restarts with the order to die at `point` (`sys/crash.rs`).
    pub(crate) fn restart_to_crash_at(&mut self, point: &str) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(self.folder.path(), point);
        self.wait_ready();
    }

    /// Waits for the death that was ordered, and starts without an order.
    pub(crate) fn restart_after_crash(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the daemon did not die where it was told to");
            std::thread::park_timeout(POLL);
        }
        self.child = spawn(self.folder.path(), "");
        self.wait_ready();
    }

    /// Files in the state folder, the database's temporary ones aside.
    pub(crate) fn state_files(&self) -> BTreeSet<String> {
        let mut files = BTreeSet::new();
        let mut folders = vec![self.state_dir()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if !path.to_string_lossy().contains("state.db-") {
                    files.insert(path.display().to_string());
                }
            }
        }
        files
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(named("VOLANTD"));
        command.arg("ctl").env("VOLANT_HOST", self.host());
        command.args(args);
        command
    }

    /// What `VOLANT_HOST` must be.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// The token for TCP.
    pub(crate) fn token(&self) -> String {
        std::fs::read_to_string(self.state_dir().join("token")).unwrap().trim().to_owned()
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.socket())
    }

    /// Creates a small VM with some flags more, and waits until it runs.
    pub(crate) fn create(&self, name: &str, flags: &[&str]) {
        let memory: &[&str] = if flags.contains(&"--memory") { &[] } else { &["--memory", "96"] };
        let out = self.ctl(&[&["vms", "create", name], memory, flags].concat());
        assert!(out.status.success(), "{out:?}");
    }

    /// Threads of the daemon. A vCPU's is named `v<VM>-c<number>`; `kvm-nx-lpage-re` is the
    /// kernel's own, one for each VM.
    pub(crate) fn threads_but_vcpus(&self) -> usize {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let names = tasks.flatten().map(|task| std::fs::read_to_string(task.path().join("comm")));
        let others = |name: &String| {
            let is_vcpu = name.starts_with('v') && name.contains("-c");
            !is_vcpu && !name.starts_with("kvm-nx-lpage")
        };
        names.flatten().filter(others).count()
    }

    #[allow(dead_code, reason = "for tests/stress only")]
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// KiB of memory that are the daemon's alone, guests' RAM aside.
    pub(crate) fn private_kib(&self) -> u64 {
        let maps = format!("/proc/{}/smaps", self.child.id());
        let mut of_guest = false;
        let mut sum = 0;
        for line in std::fs::read_to_string(maps).unwrap().lines() {
            let mut words = line.split_whitespace();
            match words.next().unwrap_or_default() {
                "Private_Clean:" | "Private_Dirty:" if !of_guest => {
                    sum += words.next().unwrap().parse::<u64>().unwrap();
                }
                // The head of a mapping begins with its range.
                range if !range.ends_with(':') => of_guest = line.contains("/memfd:volant-"),
                _ => {}
            }
        }
        sum
    }

    pub(crate) fn ctl(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    pub(crate) fn wait_for_status(&self, name: &str, status: &str) {
        self.wait(&format!("{name} to be {status}"), || {
            self.look(&format!("/api/v1/vms/{name}")).is_some_and(|vm| vm["status"] == status)
        });
    }

    /// Looks at a condition (a level, not an edge) until it holds.
    pub(crate) async fn wait_async(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !holds().await {
            assert!(Instant::now() < deadline, "waited for {what}; the log:\n{}", self.log());
            std::thread::park_timeout(POLL);
        }
    }

    /// Looks at a condition (a level, not an edge) until it holds.
    pub(crate) fn wait(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !holds() {
            assert!(Instant::now() < deadline, "waited for {what}; the log:\n{}", self.log());
            std::thread::park_timeout(POLL);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.terminate();
        let _ = self.child.wait();
        if std::thread::panicking() {
            // Captured by the test harness, and shown since this test fails.
            print_log(&self.log());
        }
    }
}

#[expect(clippy::print_stderr, reason = "the log of a failed test")]
fn print_log(log: &str) {
    eprintln!("the daemon's log:\n{log}");
}
