//! Firecracker, as its users start it: one process, one configuration file, serial on stdout.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use crate::daemon::{Daemon, named};

/// The words that volantd gives its guests (src/orchestrator/cmdline.rs), console on.
const CMDLINE: &str = "console=ttyS0 8250.nr_uarts=1 quiet loglevel=1 panic=-1 reboot=t \
    rdinit=/init nomodule random.trust_cpu=on tsc=reliable no_timer_check rcupdate.rcu_expedited=1";
/// The agent finds no vsock device there and says so: the first output of user space.
const FIRST_OUTPUT: &str = "volary:";

pub(crate) struct Firecracker {
    program: PathBuf,
    config: PathBuf,
}

impl Firecracker {
    pub(crate) fn from_environment(daemon: &Daemon, memory_mib: u64) -> Option<Firecracker> {
        let program = PathBuf::from(std::env::var_os("FIRECRACKER")?);
        let initramfs = std::fs::read_dir(daemon.state_dir().join("images"))
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "cpio"))
            .unwrap();
        let config = serde_json::json!({
            "boot-source": {
                "kernel_image_path": named("VOLANT_KERNEL"),
                "initrd_path": initramfs,
                "boot_args": CMDLINE,
            },
            "drives": [],
            "machine-config": { "vcpu_count": 1, "mem_size_mib": memory_mib },
        });
        let path = daemon.state_dir().join("firecracker.json");
        std::fs::write(&path, config.to_string()).unwrap();
        Some(Firecracker { program, config: path })
    }

    /// Milliseconds from before the process exists to its guest's first line, and the process.
    pub(crate) fn cold_start(&self) -> (f64, Process) {
        let began = Instant::now();
        let mut child = Command::new(&self.program)
            .args(["--no-api", "--config-file"])
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut process = Process { child, output };
        let mut seen = String::new();
        loop {
            let mut line = Vec::new();
            assert_ne!(
                process.output.read_until(b'\n', &mut line).unwrap(),
                0,
                "its guest said: {seen}"
            );
            let line = String::from_utf8_lossy(&line);
            if line.contains(FIRST_OUTPUT) {
                return (began.elapsed().as_secs_f64() * 1e3, process);
            }
            seen.push_str(&line);
        }
    }
}

/// A running Firecracker; ended when dropped.
pub(crate) struct Process {
    child: Child,
    /// Held open: it panics when nobody takes its guest's output.
    output: BufReader<ChildStdout>,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
