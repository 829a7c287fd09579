//! Files: one function for each thing that can be done to them. All of it blocks and runs on the
//! runtime's blocking pool, so that a file system that hangs holds up only who asked.

mod watch;

use std::collections::HashMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use volant_protocol::{
    FileInfo, FileKind, FileList, LIST_BYTES_MAX, LIST_LEN_MAX, MoveRequest, PATH_LEN_MAX,
};

use crate::user::{User, find};

pub use watch::Watch;

/// JSON of an entry beside its path, at most.
const ENTRY_BYTES: usize = 400;
const MODE_BITS: u32 = 0o7777;

/// Why something was not done.
#[derive(Debug)]
pub enum FileError {
    /// The request makes no sense: code and sentence.
    Invalid(&'static str, String),
    /// The guest's kernel refused: the path and its answer.
    Kernel(PathBuf, io::Error),
}

/// Adds the path to a kernel's answer.
pub fn at(path: &Path) -> impl FnOnce(io::Error) -> FileError {
    move |error| FileError::Kernel(path.to_owned(), error)
}

/// A path that can be used.
///
/// # Errors
/// It is not absolute, climbs, has a zero byte, or is too long.
pub fn checked(path: &str) -> Result<PathBuf, FileError> {
    let refuse = |why: &str| Err(FileError::Invalid("invalid_path", format!("{path:?} {why}")));
    if PATH_LEN_MAX < path.len() {
        return Err(FileError::Invalid("invalid_path", "the path is too long".to_owned()));
    }
    if path.contains('\0') {
        return refuse("has a zero byte");
    }
    let path_buf = PathBuf::from(path);
    if !path_buf.is_absolute() {
        return refuse("is not absolute");
    }
    if path_buf.components().any(|part| part == Component::ParentDir) {
        return refuse("has a part `..`");
    }
    Ok(path_buf.components().collect())
}

/// Finds a user by name or number.
///
/// # Errors
/// There is none.
pub fn user(name: &str) -> Result<User, FileError> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    find(name, &read("/etc/passwd"), &read("/etc/group"))
        .ok_or_else(|| FileError::Invalid("invalid_user", format!("no user {name:?} in the guest")))
}

/// Names of users and groups by their numbers.
#[derive(Debug)]
pub struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    /// As they are now.
    pub fn read() -> Names {
        let table = |path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let entry = |line: &str| {
                let mut fields = line.split(':');
                let name = fields.next()?.to_owned();
                Some((fields.nth(1)?.parse().ok()?, name))
            };
            text.lines().filter_map(entry).collect()
        };
        Names { users: table("/etc/passwd"), groups: table("/etc/group") }
    }

    fn info(&self, path: &Path, metadata: &Metadata) -> FileInfo {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let name = |names: &HashMap<u32, String>, id: u32| {
            names.get(&id).cloned().unwrap_or_else(|| id.to_string())
        };
        let kind = metadata.file_type();
        FileInfo {
            name: path.file_name().map_or_else(|| "/".to_owned(), |name| text(name.as_ref())),
            path: text(path),
            kind: if kind.is_file() {
                FileKind::File
            } else if kind.is_dir() {
                FileKind::Directory
            } else if kind.is_symlink() {
                FileKind::Symlink
            } else if kind.is_fifo() {
                FileKind::Fifo
            } else if kind.is_socket() {
                FileKind::Socket
            } else {
                FileKind::Device
            },
            size: metadata.len(),
            mode: metadata.mode() & MODE_BITS,
            uid: metadata.uid(),
            gid: metadata.gid(),
            user: name(&self.users, metadata.uid()),
            group: name(&self.groups, metadata.gid()),
            modified_unix_ms: metadata.mtime() * 1000 + metadata.mtime_nsec() / 1_000_000,
            link_target: kind
                .is_symlink()
                .then(|| fs::read_link(path).ok())
                .flatten()
                .map(|target| text(&target)),
        }
    }
}

/// Looks at a path.
///
/// # Errors
/// [`FileError`].
pub fn stat(path: &Path) -> Result<FileInfo, FileError> {
    let metadata = fs::symlink_metadata(path).map_err(at(path))?;
    Ok(Names::read().info(path, &metadata))
}

/// Lists a folder, `depth` levels deep (1 is itself alone).
///
/// # Errors
/// [`FileError`]; what vanishes meanwhile is passed over.
pub fn list(path: &Path, depth: u32, limit: usize) -> Result<FileList, FileError> {
    let names = Names::read();
    let limit = limit.min(LIST_LEN_MAX);
    let mut list = FileList::default();
    let mut bytes = 0;
    let mut pending = vec![(path.to_owned(), depth)];
    while let Some((folder, depth)) = pending.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(_) if folder != path => continue,
            entries => entries.map_err(at(&folder))?,
        };
        let mut paths = Vec::new();
        for entry in entries.flatten() {
            // More than can be shown anyway: the order among them does not matter then.
            if LIST_LEN_MAX <= paths.len() {
                list.truncated = true;
                break;
            }
            paths.push(entry.path());
        }
        paths.sort();
        let mut folders = Vec::new();
        for path in paths {
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            let info = names.info(&path, &metadata);
            bytes += info.path.len() * 2 + ENTRY_BYTES;
            bytes += info.link_target.as_ref().map_or(0, String::len);
            if limit <= list.entries.len() || LIST_BYTES_MAX < bytes {
                list.truncated = true;
                return Ok(list);
            }
            if metadata.is_dir() && 1 < depth {
                folders.push((path, depth - 1));
            }
            list.entries.push(info);
        }
        pending.extend(folders.into_iter().rev());
    }
    Ok(list)
}

/// Makes a folder.
///
/// # Errors
/// [`FileError`]; with `parents` a folder that is there is none.
pub fn make_folder(
    path: &Path,
    parents: bool,
    mode: u32,
    owner: Option<&User>,
) -> Result<FileInfo, FileError> {
    if parents && path.is_dir() {
        return stat(path);
    }
    if parents && let Some(parent) = path.parent() {
        make_parents(parent, owner)?;
    }
    fs::DirBuilder::new().create(path).map_err(at(path))?;
    // Not left to the umask.
    set_mode(path, mode)?;
    give(path, owner)?;
    stat(path)
}

fn make_parents(path: &Path, owner: Option<&User>) -> Result<(), FileError> {
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    for folder in missing.into_iter().rev() {
        match fs::DirBuilder::new().mode(0o755).create(folder) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => {
                made.map_err(at(folder))?;
                give(folder, owner)?;
            }
        }
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<(), FileError> {
    let permissions = fs::Permissions::from_mode(mode & MODE_BITS);
    fs::set_permissions(path, permissions).map_err(at(path))
}

fn give(path: &Path, owner: Option<&User>) -> Result<(), FileError> {
    let Some(User { uid, gid, .. }) = owner else { return Ok(()) };
    std::os::unix::fs::lchown(path, Some(*uid), Some(*gid)).map_err(at(path))
}

/// Moves or renames, within one file system.
///
/// # Errors
/// [`FileError`]; without `replace` a file that is there is one.
pub fn rename(request: &MoveRequest) -> Result<FileInfo, FileError> {
    let (from, to) = (checked(&request.from)?, checked(&request.to)?);
    let flags = if request.replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
    renameat_with(CWD, &from, CWD, &to, flags).map_err(|error| match error {
        rustix::io::Errno::XDEV => {
            let text = "the two paths are on different file systems".to_owned();
            FileError::Invalid("cross_device", text)
        }
        // Of the two paths it is not told which.
        rustix::io::Errno::EXIST | rustix::io::Errno::NOTEMPTY => at(&to)(error.into()),
        error => at(&from)(error.into()),
    })?;
    stat(&to)
}

/// Removes a file, or a folder: an empty one, or with `recursive` all that is in it.
///
/// # Errors
/// [`FileError`].
pub fn remove(path: &Path, recursive: bool) -> Result<(), FileError> {
    if path == Path::new("/") {
        return Err(FileError::Invalid("invalid_path", "the root is not removed".to_owned()));
    }
    let metadata = fs::symlink_metadata(path).map_err(at(path))?;
    let removed = match (metadata.is_dir(), recursive) {
        (false, _) => fs::remove_file(path),
        (true, false) => fs::remove_dir(path),
        (true, true) => fs::remove_dir_all(path),
    };
    removed.map_err(at(path))
}

/// Opens a regular file for reading.
///
/// # Errors
/// [`FileError`].
pub fn open(path: &Path) -> Result<(File, u64), FileError> {
    // A pipe without a writer would wait for ever; what is no file is refused below.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(at(path))?;
    let metadata = regular(&file, path)?;
    Ok((file, metadata.len()))
}

fn regular(file: &File, path: &Path) -> Result<Metadata, FileError> {
    let metadata = file.metadata().map_err(at(path))?;
    if metadata.is_dir() {
        return Err(at(path)(ErrorKind::IsADirectory.into()));
    }
    if !metadata.is_file() {
        let text = format!("{} is no regular file", path.display());
        return Err(FileError::Invalid("not_a_file", text));
    }
    Ok(metadata)
}

/// How a file is written.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Permission bits; a new file's are 0644 without them.
    pub mode: Option<u32>,
    /// Owner of a new file and of the folders made for it.
    pub owner: Option<User>,
    /// Whether folders on the way are made.
    pub parents: bool,
    /// Whether bytes are added at the end.
    pub append: bool,
    /// Time of the last change, in milliseconds since the Unix epoch.
    pub modified_unix_ms: Option<i64>,
}

/// Opens a regular file for writing; a new or emptied one unless it is appended to.
///
/// # Errors
/// [`FileError`].
pub fn create(path: &Path, options: &WriteOptions) -> Result<File, FileError> {
    if options.parents
        && let Some(parent) = path.parent()
    {
        make_parents(parent, options.owner.as_ref())?;
    }
    let mut open = OpenOptions::new();
    open.write(true).append(options.append).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = match open.clone().create_new(true).mode(0o644).open(path) {
        Ok(file) => {
            give(path, options.owner.as_ref())?;
            file
        }
        // Emptied only when it is known to be a regular file.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            open.open(path).map_err(at(path))?
        }
        Err(error) => return Err(at(path)(error)),
    };
    regular(&file, path)?;
    if !options.append {
        file.set_len(0).map_err(at(path))?;
    }
    Ok(file)
}

/// After the last byte: mode and time.
///
/// # Errors
/// [`FileError`].
pub fn finish(file: &File, path: &Path, options: &WriteOptions) -> Result<FileInfo, FileError> {
    if let Some(mode) = options.mode {
        let permissions = fs::Permissions::from_mode(mode & MODE_BITS);
        file.set_permissions(permissions).map_err(at(path))?;
    }
    if let Some(ms) = options.modified_unix_ms {
        let distance = Duration::from_millis(ms.unsigned_abs());
        let time = match ms {
            0.. => SystemTime::UNIX_EPOCH.checked_add(distance),
            _ => SystemTime::UNIX_EPOCH.checked_sub(distance),
        };
        if let Some(time) = time {
            file.set_modified(time).map_err(at(path))?;
        }
    }
    stat(path)
}
