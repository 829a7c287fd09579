//! Processes in the guest: they have ids and outlive the connections that look at them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `POST /v1/processes`. With `Upgrade: volant-exec` the connection becomes an attachment to the
/// new process ([`crate::Frame`]s), else the answer is its [`ProcessInfo`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRequest {
    /// Program and arguments; the program is looked up in `PATH` unless it contains `/`.
    pub argv: Vec<String>,
    /// Added to the guest's environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Working directory; `/` if absent.
    #[serde(default)]
    pub cwd: Option<String>,
    /// `name`, `uid` or `uid:gid`; root if absent.
    #[serde(default)]
    pub user: Option<String>,
    /// The process tree is killed after this many milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// The process tree is killed when nothing was read from it or written to it for this many
    /// milliseconds.
    #[serde(default)]
    pub idle_timeout_ms: Option<u64>,
    /// Whether stdin will be written; otherwise it is empty. A terminal always has one.
    #[serde(default)]
    pub stdin: bool,
    /// Run it on a terminal of this size. Its output is one stream then: stdout.
    #[serde(default)]
    pub terminal: Option<TerminalSize>,
    /// A name of the caller's choice, at most [`crate::TAG_LEN_MAX`] bytes.
    #[serde(default)]
    pub tag: Option<String>,
    /// Whether it outlives the connection that starts it. Without an upgrade it always does.
    #[serde(default)]
    pub keep: bool,
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Characters in a line.
    pub cols: u16,
    /// Lines.
    pub rows: u16,
}

/// A process, as long as the agent remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Given by the agent, never used again while the guest is up.
    pub id: u32,
    /// The guest kernel's number; also of its session and process group.
    pub pid: i32,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// As asked for; `root` if nobody was.
    pub user: String,
    /// As asked for.
    pub tag: Option<String>,
    /// Whether it runs on a terminal.
    pub terminal: bool,
    /// Start, in milliseconds since the Unix epoch, by the guest's clock.
    pub started_unix_ms: u64,
    /// Bytes of output so far, both streams together.
    pub output_end: u64,
    /// Offset of the oldest byte that is still kept for who attaches.
    pub output_start: u64,
    /// How it ended; absent while it runs.
    pub status: Option<ProcessStatus>,
}

/// How a process ended. Exactly one of `code` and `signal` is set; when `error` is set it never
/// ran, and `code` is 127 (not found), 126 (not executable) or 125 (the agent's fault).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Exit code.
    pub code: Option<i32>,
    /// Number of the signal that ended it.
    pub signal: Option<i32>,
    /// Which deadline killed it, if one did.
    pub deadline: Option<Deadline>,
    /// Why it never ran.
    pub error: Option<String>,
}

/// A deadline of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deadline {
    /// `timeout_ms`.
    Total,
    /// `idle_timeout_ms`.
    Idle,
}

/// `POST /v1/processes/{id}/signal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalRequest {
    /// Number of the signal. SIGKILL reaches every process that this one has started, any other
    /// its process group.
    pub signal: u8,
}
