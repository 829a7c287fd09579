//! Messages of E2B's services in a sandbox, `process.Process` and `filesystem.Filesystem`, in the
//! JSON form of Protocol Buffers: bytes are base64, 64-bit numbers are strings, fields that are not
//! known are passed over.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessConfig {
    /// Program.
    pub cmd: String,
    /// Arguments.
    pub args: Vec<String>,
    /// Environment.
    pub envs: BTreeMap<String, String>,
    /// Working folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
}

/// A terminal.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Pty {
    /// Its size.
    pub size: Option<PtySize>,
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct PtySize {
    /// Characters in a line.
    #[serde(default)]
    pub cols: u16,
    /// Lines.
    #[serde(default)]
    pub rows: u16,
}

/// `Start`.
#[derive(Clone, Debug, Deserialize)]
pub struct StartRequest {
    /// What runs.
    pub process: ProcessConfig,
    /// On a terminal.
    pub pty: Option<Pty>,
    /// A name of the client's choice.
    pub tag: Option<String>,
    /// Whether stdin will be written; so if absent.
    pub stdin: Option<bool>,
}

/// Which process.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProcessSelector {
    /// By the guest kernel's number.
    Pid(i32),
    /// By the client's name for it.
    Tag(String),
}

/// `Connect`, `CloseStdin`.
#[derive(Clone, Debug, Deserialize)]
pub struct ProcessRef {
    /// Which.
    pub process: ProcessSelector,
}

/// Input for a process.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Input {
    /// For its stdin, base64.
    Stdin(String),
    /// For its terminal, base64.
    Pty(String),
}

/// `SendInput`.
#[derive(Clone, Debug, Deserialize)]
pub struct SendInput {
    /// Which.
    pub process: ProcessSelector,
    /// What.
    pub input: Input,
}

/// A message of `StreamInput`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StreamInput {
    /// First: which process.
    Start(ProcessRef),
    /// Then: what.
    Data(InputData),
    /// The client is there.
    Keepalive(serde_json::Value),
}

/// Input in a stream.
#[derive(Clone, Debug, Deserialize)]
pub struct InputData {
    /// What.
    pub input: Input,
}

/// `SendSignal`.
#[derive(Clone, Debug, Deserialize)]
pub struct SendSignal {
    /// Which.
    pub process: ProcessSelector,
    /// `SIGNAL_SIGTERM` or `SIGNAL_SIGKILL`, or their numbers.
    pub signal: serde_json::Value,
}

/// `Update`.
#[derive(Clone, Debug, Deserialize)]
pub struct UpdateProcess {
    /// Which.
    pub process: ProcessSelector,
    /// Its terminal from now on.
    pub pty: Option<Pty>,
}

/// Answer to `List`.
#[derive(Clone, Debug, Serialize)]
pub struct ProcessList {
    /// Those that run.
    pub processes: Vec<ListedProcess>,
}

/// A process that runs.
#[derive(Clone, Debug, Serialize)]
pub struct ListedProcess {
    /// What runs.
    pub config: ProcessConfig,
    /// The guest kernel's number.
    pub pid: i32,
    /// The client's name for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

/// A message of `Start` and `Connect`.
#[derive(Clone, Debug, Serialize)]
pub struct ProcessMessage {
    /// What happened.
    pub event: ProcessEvent,
}

/// What happened to a process.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ProcessEvent {
    /// First: its number.
    Start {
        /// The guest kernel's number.
        pid: i32,
    },
    /// It has written.
    Data(Output),
    /// Last: its end.
    End(ProcessEnd),
    /// Nothing has, for a while.
    Keepalive {},
}

/// What a process has written, base64.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Output {
    /// To stdout.
    Stdout(String),
    /// To stderr.
    Stderr(String),
    /// To its terminal.
    Pty(String),
}

/// The end of a process.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessEnd {
    /// Exit code; -1 when a signal ended it.
    pub exit_code: i32,
    /// Whether it ended by itself.
    pub exited: bool,
    /// In words.
    pub status: String,
    /// The same, when it did not end well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `Stat`, `MakeDir`, `Remove`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PathRequest {
    /// In the guest.
    pub path: String,
}

/// `ListDir`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ListDir {
    /// In the guest.
    pub path: String,
    /// Levels below it; 1 if 0.
    pub depth: u32,
}

/// `Move`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct MoveEntry {
    /// From.
    pub source: String,
    /// To.
    pub destination: String,
}

/// `WatchDir`, `CreateWatcher`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct WatchRequest {
    /// In the guest.
    pub path: String,
    /// All below it as well.
    pub recursive: bool,
}

/// `GetWatcherEvents`, `RemoveWatcher`; answer to `CreateWatcher`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WatcherRef {
    /// Which.
    pub watcher_id: String,
}

/// Answer to `Stat`, `MakeDir`, `Move`.
#[derive(Clone, Debug, Serialize)]
pub struct EntryAnswer {
    /// What is there.
    pub entry: Entry,
}

/// Answer to `ListDir`.
#[derive(Clone, Debug, Serialize)]
pub struct EntryList {
    /// What is there.
    pub entries: Vec<Entry>,
}

/// What a path names.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Last part of the path.
    pub name: String,
    /// `FILE_TYPE_FILE`, `FILE_TYPE_DIRECTORY`, `FILE_TYPE_SYMLINK`, `FILE_TYPE_UNSPECIFIED`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Absolute path.
    pub path: String,
    /// Bytes.
    pub size: String,
    /// Permission bits.
    pub mode: u32,
    /// The same as `ls` writes them.
    pub permissions: String,
    /// Owner.
    pub owner: String,
    /// Group.
    pub group: String,
    /// RFC 3339.
    pub modified_time: String,
    /// Where a symbolic link leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symlink_target: Option<String>,
}

/// A message of `WatchDir`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum WatchMessage {
    /// First: the watch is in place.
    Start {},
    /// Something has changed.
    Filesystem(FilesystemEvent),
    /// Nothing has, for a while.
    Keepalive {},
}

/// A change below a watched folder.
#[derive(Clone, Debug, Serialize)]
pub struct FilesystemEvent {
    /// Path, from the watched folder on.
    pub name: String,
    /// `EVENT_TYPE_CREATE`, `_WRITE`, `_REMOVE`, `_RENAME`, `_CHMOD`.
    #[serde(rename = "type")]
    pub kind: &'static str,
}

/// Answer to `GetWatcherEvents`.
#[derive(Clone, Debug, Serialize)]
pub struct WatcherEvents {
    /// What has changed since the last call.
    pub events: Vec<FilesystemEvent>,
}

/// One file of an upload's answer.
#[derive(Clone, Debug, Serialize)]
pub struct WrittenFile {
    /// Absolute path.
    pub path: String,
    /// Last part of it.
    pub name: String,
    /// `file`.
    #[serde(rename = "type")]
    pub kind: &'static str,
}
