//! A shell on the serial console, for as long as the guest lives. Off the path to ready.
#![expect(unsafe_code, reason = "the shell's session is made between fork and exec")]

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::termios::{Winsize, tcsetwinsize};
use volant_protocol::TerminalSize;

use crate::reap::Reaper;

const TERMINAL: &str = "/dev/ttyS0";
const SHELL: &str = "/bin/sh";
/// Pause before a shell that has ended is started again; doubles up to the maximum.
const RESTART_MIN: Duration = Duration::from_millis(200);
const RESTART_MAX: Duration = Duration::from_secs(10);

/// Keeps a shell running. Returns at once where there is no terminal or no shell.
pub async fn run(reaper: Reaper, env: Vec<(String, String)>) {
    let mut pause = RESTART_MIN;
    while let Ok(mut command) = shell(&env) {
        let Ok(started) = reaper.spawn(&mut command) else { return };
        let began = tokio::time::Instant::now();
        let _ = started.exit.await;
        pause =
            if RESTART_MAX < began.elapsed() { RESTART_MIN } else { (pause * 2).min(RESTART_MAX) };
        tokio::time::sleep(pause).await;
    }
}

/// Tells the serial line's size, which the line itself cannot carry; its foreground process gets
/// SIGWINCH.
///
/// # Errors
/// There is no serial line.
pub fn resize(size: TerminalSize) -> std::io::Result<()> {
    let terminal = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
        .open(TERMINAL)?;
    let size = Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(tcsetwinsize(terminal, size)?)
}

fn shell(env: &[(String, String)]) -> std::io::Result<Command> {
    std::fs::metadata(SHELL)?;
    let terminal = OpenOptions::new().read(true).write(true).open(TERMINAL)?;
    let mut command = Command::new(SHELL);
    command.arg("-l").env_clear().envs(env.iter().cloned()).current_dir("/");
    command.stdin(Stdio::from(terminal.try_clone()?));
    command.stdout(Stdio::from(terminal.try_clone()?)).stderr(Stdio::from(terminal));
    // SAFETY: only async-signal-safe calls; the terminal is descriptor 0 by then.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            if libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    Ok(command)
}
