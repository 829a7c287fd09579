//! The ends of pipes and terminals that the agent keeps.
#![expect(unsafe_code, reason = "terminal ioctls without a safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use volant_protocol::TerminalSize;

use crate::readiness::register;
use crate::user::User;

/// What a terminal's driver takes as end of file (ASCII EOT, the default VEOF).
const END_OF_TEXT: u8 = 4;

/// The agent's end of a terminal.
#[derive(Clone, Debug)]
pub struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl Terminal {
    /// Makes a terminal of this size and gives its other end to `command`, owned by `user`.
    ///
    /// # Errors
    /// The guest has no terminal left, or no devpts.
    pub fn give(
        command: &mut Command,
        size: TerminalSize,
        user: Option<&User>,
    ) -> io::Result<Terminal> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let end = File::from(ioctl_tiocgptpeer(&master, flags)?);
        if let Some(user) = user {
            std::os::unix::fs::fchown(&end, Some(user.uid), None)?;
        }
        rustix::fs::fcntl_setfl(&master, OFlags::NONBLOCK | OFlags::RDWR)?;
        command.stdin(Stdio::from(end.try_clone()?));
        command.stdout(Stdio::from(end.try_clone()?)).stderr(Stdio::from(end));
        let terminal = Terminal(Arc::new(register(master)?));
        terminal.resize(size)?;
        Ok(terminal)
    }

    /// Tells the size; the foreground process gets SIGWINCH.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn resize(&self, size: TerminalSize) -> io::Result<()> {
        let size = Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(self.0.get_ref().as_fd(), size)?)
    }

    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut *buffer)?));
            match read {
                // EIO: nobody has the other end open any more.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Ok(0),
                Ok(outcome) => return outcome,
                Err(_) => {}
            }
        }
    }

    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            if let Ok(written) = ready.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                bytes = &bytes[written?..];
            }
        }
        Ok(())
    }
}

/// Makes the terminal at descriptor 0 the controlling one. Between fork and exec, after setsid.
///
/// # Errors
/// The kernel's.
pub fn take_control() -> io::Result<()> {
    // SAFETY: an ioctl on a number; no memory is involved.
    if unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Where a process's output comes from.
#[derive(Debug)]
pub enum Source {
    /// A pipe's reading end.
    Pipe(pipe::Receiver),
    /// The terminal.
    Terminal(Terminal),
}

impl Source {
    /// The next bytes; 0 at the end.
    ///
    /// # Errors
    /// As `read(2)`.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Source::Pipe(pipe) => pipe.read(buffer).await,
            Source::Terminal(terminal) => terminal.read(buffer).await,
        }
    }
}

/// Where a process's input goes.
#[derive(Debug)]
pub enum Sink {
    /// A pipe's writing end.
    Pipe(pipe::Sender),
    /// The terminal.
    Terminal(Terminal),
}

impl Sink {
    /// Waits until all is taken.
    ///
    /// # Errors
    /// Nobody reads it any more.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Sink::Pipe(pipe) => pipe.write_all(bytes).await,
            Sink::Terminal(terminal) => terminal.write_all(bytes).await,
        }
    }

    /// Ends the input: closes a pipe, types Ctrl-D at a terminal.
    pub async fn end(self) {
        if let Sink::Terminal(terminal) = self {
            // A terminal that is gone has ended already.
            let _ = terminal.write_all(&[END_OF_TEXT]).await;
        }
    }
}
