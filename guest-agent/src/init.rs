//! What PID 1 owes its guest: mounts, and an orderly end.
#![expect(unsafe_code, reason = "port output to the machine's exit port")]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::mount::{MountFlags, mount};
use rustix::process::Signal;
use rustix::system::RebootCommand;
use tokio::signal::unix::{SignalKind, signal};
use volant_protocol::{ShutdownMode, ShutdownRequest};

use crate::http::Agent;
use crate::observe;
use crate::volumes;

/// The VMM ends the machine when a byte is written here: 1 power off, 2 reset.
const EXIT_PORT: u16 = 0x5f0;
/// What processes get when a signal, not the host, asks for the end.
const SIGNAL_GRACE: Duration = Duration::from_secs(5);
/// What the kernel gets to take killed processes away.
const KILL_GRACE: Duration = Duration::from_secs(1);

/// Whether this is the guest's init, and not a service of another one.
pub fn is_init() -> bool {
    std::process::id() == 1
}

/// File systems that the agent itself needs before it can call home.
pub fn mount_first() {
    mount_at("devtmpfs", "/dev", MountFlags::NOSUID, "mode=0755");
    mount_at("proc", "/proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, "");
}

/// The others; the host's first request is already on its way.
pub fn mount_rest() {
    let plain = MountFlags::NOSUID | MountFlags::NODEV;
    mount_at("sysfs", "/sys", plain | MountFlags::NOEXEC, "");
    mount_at("cgroup2", "/sys/fs/cgroup", plain | MountFlags::NOEXEC, "");
    // Out of memory is told for each cgroup only where the controller is on.
    let _ = std::fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
    mount_at(
        "devpts",
        "/dev/pts",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        "mode=0620,ptmxmode=0666",
    );
    mount_at("tmpfs", "/dev/shm", plain, "mode=1777");
    mount_at("tmpfs", "/run", plain, "mode=0755");
    mount_at("tmpfs", "/tmp", plain, "mode=1777");
}

/// Mounts, or leaves it: a guest without one of them still serves.
fn mount_at(kind: &str, target: &str, flags: MountFlags, data: &str) {
    let _ = rustix::fs::mkdir(target, Mode::from_raw_mode(0o755));
    let data = std::ffi::CString::new(data).unwrap_or_default();
    let _ = mount(kind, target, kind, flags, data.as_c_str());
}

/// Says why on the console and ends the machine: without an agent the host can do nothing with it.
pub fn fail(reason: &str) -> ExitCode {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "volary: {reason}");
    if is_init() {
        end(ShutdownMode::Poweroff);
    }
    ExitCode::FAILURE
}

/// SIGTERM, SIGINT and SIGPWR power the guest off.
///
/// # Errors
/// The handlers cannot be installed.
pub fn shut_down_on_signals(agent: &Arc<Agent>) -> std::io::Result<()> {
    for kind in
        [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::from_raw(libc::SIGPWR)]
    {
        let mut signals = signal(kind)?;
        let agent = Arc::clone(agent);
        tokio::spawn(async move {
            signals.recv().await;
            let grace_ms = u64::try_from(SIGNAL_GRACE.as_millis()).unwrap_or(0);
            agent.shut_down(ShutdownRequest { mode: ShutdownMode::Poweroff, grace_ms }).await;
        });
    }
    Ok(())
}

/// Ends all processes, syncs, and ends the machine; or asks the init that this is a service of.
pub async fn shut_down(request: ShutdownRequest) {
    if !is_init() {
        return ask_init().await;
    }
    signal_all(Signal::TERM);
    hang_up();
    until_alone(Duration::from_millis(request.grace_ms)).await;
    signal_all(Signal::KILL);
    // Until they are gone their files are open, and no file system can be brought to rest.
    until_alone(KILL_GRACE).await;
    rustix::fs::sync();
    volumes::close_all();
    end(request.mode);
}

async fn until_alone(grace: Duration) {
    let deadline = tokio::time::Instant::now() + grace;
    while tokio::time::Instant::now() < deadline && others_live() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whatever is asked for, a reboot: it ends the machine, which a power off does not without ACPI.
async fn ask_init() {
    if std::path::Path::new("/run/systemd/system").exists() {
        // systemd(1), "Signals": starts reboot.target.
        let reboot = libc::SIGRTMIN() + 5;
        // SAFETY: no memory is involved.
        unsafe { libc::kill(1, reboot) };
        return;
    }
    // Without it the host ends the machine when its patience does.
    let _ = tokio::process::Command::new("/sbin/reboot").status().await;
}

fn signal_all(signal: Signal) {
    // kill(-1) reaches every process but PID 1 itself; ESRCH means there is none.
    // SAFETY: no memory is involved.
    unsafe { libc::kill(-1, signal.as_raw()) };
}

/// An interactive shell takes no notice of SIGTERM; that its terminal is gone it does notice.
/// Only the leader of a terminal's session is told: to others SIGHUP may mean to reload.
fn hang_up() {
    let leads_terminal = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        is_terminal_leader(*pid, &stat)
    };
    for pid in observe::pids().filter(leads_terminal) {
        // SAFETY: no memory is involved.
        unsafe { libc::kill(pid, libc::SIGHUP) };
    }
}

/// Reads session and controlling terminal out of /proc/PID/stat (proc_pid_stat(5), fields 6 and
/// 7). The command before them is in brackets and may hold anything.
fn is_terminal_leader(pid: i32, stat: &str) -> bool {
    let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = after.split_whitespace().skip(3).map(|field| field.parse::<i32>().ok());
    let (session, terminal) = (fields.next().flatten(), fields.next().flatten());
    session == Some(pid) && terminal.is_some_and(|terminal| terminal != 0)
}

/// Whether any process but this one is alive; kernel threads have no command line.
fn others_live() -> bool {
    observe::pids().any(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline"));
        pid != 1 && line.is_ok_and(|line| !line.is_empty())
    })
}

/// Ends the machine at once.
pub fn end(mode: ShutdownMode) {
    let byte: u8 = match mode {
        ShutdownMode::Poweroff => 1,
        ShutdownMode::Reboot => 2,
    };
    // SAFETY: asks for one port; no memory is involved.
    if unsafe { libc::ioperm(libc::c_ulong::from(EXIT_PORT), 1, 1) } == 0 {
        // SAFETY: the port is permitted; writing it ends the machine, which is the purpose.
        unsafe {
            std::arch::asm!("out dx, al", in("dx") EXIT_PORT, in("al") byte, options(nomem, nostack))
        };
    }
    // Another VMM has no such port.
    let command = match mode {
        ShutdownMode::Poweroff => RebootCommand::PowerOff,
        ShutdownMode::Reboot => RebootCommand::Restart,
    };
    let _ = rustix::system::reboot(command);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaders_of_terminals_are_told_from_others() {
        let leads = |stat| is_terminal_leader(36, stat);
        assert!(leads("36 (sh) S 1 36 36 1088 36 4194560 120"));
        assert!(leads("36 (a ) 1 0 (b) S 1 36 36 -1 36 4194560 120"), "a name may hold anything");
        assert!(!leads("36 (sh) S 1 36 36 0 -1 4194560 120"), "a session without a terminal");
        assert!(!leads("36 (vi) S 12 36 12 1088 36 4194560 120"), "a member");
        assert!(!leads("") && !leads("36 (sh") && !leads("36 (sh) S 1"));
    }
}
