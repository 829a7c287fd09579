//! Changes below a path, by inotify. Every change is told, or that some were lost.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use volant_protocol::{FileEvent, FileEventKind};

use crate::files::{FileError, at};
use crate::readiness::register;

/// Folders of one watch; beyond, changes are told as lost.
const FOLDERS_MAX: usize = 16_384;
/// Bytes read at once: about a hundred events.
const BUFFER_LEN: usize = 16 * 1024;

/// A watch that is in place.
#[derive(Debug)]
pub struct Watch {
    inotify: AsyncFd<OwnedFd>,
    folders: HashMap<i32, PathBuf>,
    root: PathBuf,
    recursive: bool,
}

fn flags() -> WatchFlags {
    WatchFlags::CREATE
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::MODIFY
        | WatchFlags::ATTRIB
        | WatchFlags::DELETE
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF
        | WatchFlags::MOVED_FROM
        | WatchFlags::MOVED_TO
}

impl Watch {
    /// Watches a file, or a folder and, if `recursive`, all below it. Blocks while it looks around.
    ///
    /// # Errors
    /// The path is not there, or the kernel has no watches left.
    pub fn new(path: &Path, recursive: bool) -> Result<Watch, FileError> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
            .map_err(|error| at(path)(error.into()))?;
        let mut folders = HashMap::new();
        let metadata = std::fs::metadata(path).map_err(at(path))?;
        let number = inotify::add_watch(&inotify, path, flags());
        folders.insert(number.map_err(|error| at(path)(error.into()))?, path.to_owned());
        let mut watch = Watch {
            inotify: register(inotify).map_err(at(path))?,
            folders,
            root: path.to_owned(),
            recursive: recursive && metadata.is_dir(),
        };
        if watch.recursive && !watch.add_below(path, &mut Vec::new()) {
            let text = format!("more than {FOLDERS_MAX} folders, or no watches left");
            return Err(FileError::Invalid("watches_exhausted", text));
        }
        Ok(watch)
    }

    /// Watches all folders below `folder`; tells what is there already as created. Whether all of
    /// them could be watched.
    fn add_below(&mut self, folder: &Path, found: &mut Vec<PathBuf>) -> bool {
        let mut pending = vec![folder.to_owned()];
        while let Some(folder) = pending.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                let path = entry.path();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    if !self.add(&path) {
                        return false;
                    }
                    pending.push(path.clone());
                }
                found.push(path);
            }
        }
        true
    }

    /// Whether it could be watched; one that is gone again could.
    fn add(&mut self, path: &Path) -> bool {
        if FOLDERS_MAX <= self.folders.len() {
            return false;
        }
        match inotify::add_watch(self.inotify.get_ref(), path, flags() | WatchFlags::ONLYDIR) {
            Ok(number) => {
                self.folders.insert(number, path.to_owned());
                true
            }
            Err(error) => error != rustix::io::Errno::NOSPC,
        }
    }

    /// The event that tells that the watch is in place.
    pub fn started(&self) -> FileEvent {
        self.event(FileEventKind::Started, &self.root)
    }

    /// The next events, at least one. Cancel-safe.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn next(&mut self) -> io::Result<Vec<FileEvent>> {
        loop {
            let raw = {
                let mut ready = self.inotify.readable().await?;
                let read = ready.try_io(|fd| read(fd.get_ref()));
                let Ok(read) = read else { continue };
                read?
            };
            let events: Vec<FileEvent> =
                raw.into_iter().flat_map(|event| self.translate(event)).collect();
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }

    fn event(&self, kind: FileEventKind, path: &Path) -> FileEvent {
        FileEvent { kind, path: path.to_string_lossy().into_owned() }
    }

    fn translate(&mut self, Raw { number, flags, name }: Raw) -> Vec<FileEvent> {
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            return vec![self.event(FileEventKind::Overflow, &self.root)];
        }
        if flags.contains(ReadFlags::IGNORED) {
            self.folders.remove(&number);
            return Vec::new();
        }
        let Some(folder) = self.folders.get(&number).cloned() else { return Vec::new() };
        // Without a name it is about what is watched; a folder's parent tells the same of it.
        let path = match &name {
            Some(name) => folder.join(name),
            None if folder != self.root => return Vec::new(),
            None => folder,
        };
        let kind = if flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
            FileEventKind::Create
        } else if flags.intersects(ReadFlags::MODIFY | ReadFlags::CLOSE_WRITE) {
            FileEventKind::Write
        } else if flags.intersects(ReadFlags::DELETE | ReadFlags::DELETE_SELF) {
            FileEventKind::Remove
        } else if flags.intersects(ReadFlags::MOVED_FROM | ReadFlags::MOVE_SELF) {
            FileEventKind::Rename
        } else if flags.contains(ReadFlags::ATTRIB) {
            FileEventKind::Chmod
        } else {
            return Vec::new();
        };
        let mut events = vec![self.event(kind, &path)];
        if self.recursive && flags.contains(ReadFlags::ISDIR) {
            match kind {
                FileEventKind::Create => self.follow(&path, &mut events),
                FileEventKind::Rename => self.forget(&path),
                _ => {}
            }
        }
        events
    }

    /// A new folder: it is watched from now on, and what came into it before that is told.
    fn follow(&mut self, path: &Path, events: &mut Vec<FileEvent>) {
        let mut found = Vec::new();
        let complete = self.add(path) && self.add_below(path, &mut found);
        events.extend(found.iter().map(|path| self.event(FileEventKind::Create, path)));
        if !complete {
            events.push(self.event(FileEventKind::Overflow, &self.root));
        }
    }

    /// A folder that was moved away is no longer ours; moved within, it comes back as created.
    fn forget(&mut self, path: &Path) {
        let gone: Vec<i32> = self
            .folders
            .iter()
            .filter(|(_, folder)| folder.starts_with(path))
            .map(|(number, _)| *number)
            .collect();
        for number in gone {
            self.folders.remove(&number);
            // It may have been deleted meanwhile.
            let _ = inotify::remove_watch(self.inotify.get_ref(), number);
        }
    }
}

struct Raw {
    number: i32,
    flags: ReadFlags,
    name: Option<PathBuf>,
}

fn read(fd: &OwnedFd) -> io::Result<Vec<Raw>> {
    let mut buffer = [std::mem::MaybeUninit::uninit(); BUFFER_LEN];
    let mut reader = inotify::Reader::new(fd, &mut buffer);
    let mut events = Vec::new();
    loop {
        let event = reader.next()?;
        let name =
            event.file_name().map(|name| std::os::unix::ffi::OsStrExt::from_bytes(name.to_bytes()));
        let name = name.map(|name: &std::ffi::OsStr| PathBuf::from(name));
        events.push(Raw { number: event.wd(), flags: event.events(), name });
        if reader.is_buffer_empty() {
            return Ok(events);
        }
    }
}
