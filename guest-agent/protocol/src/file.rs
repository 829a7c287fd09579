//! Files of the guest. Paths are absolute; names that are not UTF-8 are shown with replacement
//! characters and cannot be addressed.

use serde::{Deserialize, Serialize};

/// What a path names, itself (a symbolic link is not followed).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    /// Last part of the path.
    pub name: String,
    /// Absolute path.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
    /// Bytes.
    pub size: u64,
    /// Permission bits, set-user-id and the like included.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Owner's name, or its number.
    pub user: String,
    /// Group's name, or its number.
    pub group: String,
    /// Last change of the contents, in milliseconds since the Unix epoch.
    pub modified_unix_ms: i64,
    /// Where a symbolic link leads.
    pub link_target: Option<String>,
}

/// Kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// Regular file.
    File,
    /// Folder.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Unix socket.
    Socket,
    /// Device.
    Device,
}

/// Answer to `GET /v1/files/list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileList {
    /// Contents of the folder, each folder's before the next one's, in the order of their names.
    pub entries: Vec<FileInfo>,
    /// There is more than was asked for.
    pub truncated: bool,
}

/// `POST /v1/files/move`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveRequest {
    /// What.
    pub from: String,
    /// Its new path.
    pub to: String,
    /// Whether a file that is there is replaced.
    pub replace: bool,
}

/// One line of `GET /v1/files/watch`: JSON, one event a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEvent {
    /// What happened.
    pub kind: FileEventKind,
    /// To what; the watched path itself for [`FileEventKind::Overflow`].
    pub path: String,
}

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileEventKind {
    /// The watch is in place: what happens from now on is told.
    Started,
    /// It came to be, or was moved here.
    Create,
    /// Its contents changed.
    Write,
    /// It is gone.
    Remove,
    /// It was moved away; where to is told as [`FileEventKind::Create`].
    Rename,
    /// Its mode, owner or times changed.
    Chmod,
    /// Events were lost: look at everything again.
    Overflow,
}
