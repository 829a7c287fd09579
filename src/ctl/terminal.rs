//! The terminal on this side: raw mode, size, keys that detach.

use std::io::{self, IsTerminal};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::{AsyncReadExt, Stdin};
use tokio::net::unix::pipe::Receiver;

/// More than a terminal gives at once.
pub const KEYS_LEN_MIN: usize = 8 * 1024;

/// Puts the terminal into raw mode until dropped.
pub struct Raw(Option<Termios>);

impl Raw {
    /// Nothing happens when stdin is no terminal.
    pub fn enter() -> Raw {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Raw(None);
        }
        let Ok(before) = tcgetattr(&stdin) else { return Raw(None) };
        let mut raw = before.clone();
        raw.make_raw();
        let set = tcsetattr(&stdin, OptionalActions::Now, &raw);
        Raw(set.is_ok().then_some(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // Nothing more can be done for a terminal that refuses its own old settings.
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// What is typed, or piped in. A read of a terminal that is given up takes nothing away from whoever
/// reads next; one of a file or pipe goes on in a thread until the program ends.
#[derive(Debug)]
pub enum Keyboard {
    Terminal(Receiver),
    Other(Stdin),
}

impl Keyboard {
    /// Ours.
    ///
    /// # Errors
    /// The terminal cannot be waited for.
    pub fn open() -> io::Result<Keyboard> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(Keyboard::Other(tokio::io::stdin()));
        }
        let fd = rustix::io::fcntl_dupfd_cloexec(&stdin, 3)?;
        // It is waited for as a pipe is. It stays as it is, since it is shared with the shell: a read
        // must not come before there is something.
        Receiver::from_owned_fd_unchecked(fd).map(Keyboard::Terminal)
    }

    /// The next bytes; 0 at the end. `buffer` has [`KEYS_LEN_MIN`] or more: what fills it only in part
    /// was all there is.
    ///
    /// # Errors
    /// The terminal is gone.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Keyboard::Terminal(terminal) => terminal.read(buffer).await,
            Keyboard::Other(stdin) => stdin.read(buffer).await,
        }
    }
}

/// Columns and rows of the terminal, if there is one.
pub fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(std::io::stdout()).or_else(|_| tcgetwinsize(std::io::stdin())).ok()?;
    (size.ws_col != 0 && size.ws_row != 0).then_some((size.ws_col, size.ws_row))
}

/// Finds a sequence of keys in what is typed.
#[derive(Debug)]
pub struct DetachKeys {
    sequence: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// From `ctrl-p,ctrl-q` and the like; empty never matches.
    pub fn parse(text: &str) -> Option<DetachKeys> {
        let key = |key: &str| match (key.strip_prefix("ctrl-"), key.as_bytes()) {
            (Some(letter), _) => match letter.as_bytes() {
                [byte @ (b'a'..=b'z' | b'@'..=b'_')] => Some(byte & 0x1f),
                _ => None,
            },
            (None, [byte]) => Some(*byte),
            _ => None,
        };
        let keys = text.split(',').filter(|key| !key.is_empty());
        let sequence = keys.map(key).collect::<Option<Vec<u8>>>()?;
        Some(DetachKeys { sequence, matched: 0 })
    }

    /// What of `typed` goes on, and whether the sequence is complete. A beginning of the sequence
    /// is held back until it is clear.
    pub fn push(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len());
        for byte in typed {
            if self.sequence.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == self.sequence.len() {
                    return (passed, true);
                }
                continue;
            }
            passed.extend_from_slice(&self.sequence[..self.matched]);
            self.matched = usize::from(self.sequence.first() == Some(byte));
            if self.matched == 0 {
                passed.push(*byte);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_detach_sequence_is_found_and_everything_else_passes() {
        let check = |keys: &str, typed: &[&[u8]]| {
            let mut keys = DetachKeys::parse(keys).unwrap();
            let mut all = Vec::new();
            for part in typed {
                let (passed, detached) = keys.push(part);
                all.extend(passed);
                if detached {
                    return (all, true);
                }
            }
            (all, false)
        };
        assert_eq!(check("ctrl-p,ctrl-q", &[b"ls\x10\x11"]), (b"ls".to_vec(), true));
        assert_eq!(check("ctrl-p,ctrl-q", &[b"a\x10", b"\x11"]), (b"a".to_vec(), true));
        assert_eq!(check("ctrl-p,ctrl-q", &[b"\x10", b"x\x11"]), (b"\x10x\x11".to_vec(), false));
        assert_eq!(check("ctrl-p,ctrl-q", &[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
        assert_eq!(check("", &[b"\x10\x11"]), (b"\x10\x11".to_vec(), false));
        assert_eq!(check("ctrl-]", &[b"\x1d"]), (b"".to_vec(), true));
        assert!(DetachKeys::parse("ctrl-pp").is_none());
    }
}
