//! The folders of the host whose files clients may name. A path is looked up once; what is opened is
//! what was looked at, whatever is renamed meanwhile.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::artifact::{ArtifactError, unusable};

/// What is said of every path outside, whether there is something or not.
const OUTSIDE: &str = "is in none of the folders whose files may be named (artifacts.folders)";

/// Folders.
#[derive(Clone, Debug, Default)]
pub struct Folders {
    /// Those of the configuration.
    pub named: Vec<PathBuf>,
    /// The daemon's own, whose files may be read only.
    pub own: Vec<PathBuf>,
}

impl Folders {
    /// A handle on the file at `path` that can be looked at and opened again, and nothing else.
    ///
    /// # Errors
    /// [`ArtifactError::Unusable`]: it is outside, or is not there.
    pub fn find(&self, path: &Path, write: bool) -> Result<OwnedFd, ArtifactError> {
        if !path.is_absolute() {
            return Err(unusable(path, "is not an absolute path"));
        }
        let folders = self.named.iter().chain(self.own.iter().filter(|_| !write));
        let canonical = std::fs::canonicalize(path);
        for folder in folders {
            let Ok(folder) = std::fs::canonicalize(folder) else { continue };
            let wanted = canonical.as_deref().unwrap_or(path);
            let Ok(rest) = wanted.strip_prefix(&folder) else { continue };
            if canonical.is_err() {
                return Err(unusable(path, "does not exist"));
            }
            let rest = if rest.as_os_str().is_empty() { Path::new(".") } else { rest };
            return open_below(&folder, rest).map_err(|error| match error {
                rustix::io::Errno::NOENT => unusable(path, "does not exist"),
                other => unusable(path, format!("cannot be looked at: {other}")),
            });
        }
        Err(unusable(path, OUTSIDE))
    }
}

/// No link is followed: the path was resolved before, and a new link is someone's trick.
fn open_below(folder: &Path, rest: &Path) -> Result<OwnedFd, rustix::io::Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let folder = rustix::fs::open(folder, flags | OFlags::DIRECTORY, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(&folder, rest, flags, Mode::empty(), resolve)
}

/// Opens what a handle stands for.
///
/// # Errors
/// The host's.
pub fn reopen(handle: &OwnedFd, options: &std::fs::OpenOptions) -> std::io::Result<File> {
    use std::os::fd::AsRawFd;
    options.open(format!("/proc/self/fd/{}", handle.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_files_in_the_folders_are_found() {
        let all = tempfile::tempdir().unwrap();
        let path = |name: &str| all.path().join(name);
        for folder in ["in/deep", "out", "own"] {
            std::fs::create_dir_all(path(folder)).unwrap();
        }
        for file in ["in/deep/file", "out/secret", "own/blob"] {
            std::fs::write(path(file), "x").unwrap();
        }
        symlink("deep/file", path("in/good")).unwrap();
        symlink(path("in/deep/file"), path("in/absolute")).unwrap();
        symlink("../out/secret", path("in/bad")).unwrap();
        symlink(path("out"), path("in/folder")).unwrap();
        let folders = Folders { named: vec![path("in"), path("none")], own: vec![path("own")] };
        for good in ["in/deep/file", "in/good", "in/absolute", "in/deep/../deep/file"] {
            folders.find(&path(good), true).expect(good);
        }
        folders.find(&path("own/blob"), false).unwrap();
        let bad = ["in/bad", "in/folder/secret", "in/../out/secret", "out/secret", "out/none"];
        for bad in bad {
            let error = folders.find(&path(bad), false).unwrap_err().to_string();
            assert!(error.ends_with(OUTSIDE), "{bad}: {error}");
        }
        assert!(folders.find(&path("own/blob"), true).is_err(), "its own files are written to");
        let error = folders.find(&path("in/none"), false).unwrap_err().to_string();
        assert!(error.ends_with("does not exist"), "{error}");
        assert!(folders.find(Path::new("in/deep/file"), false).is_err());
    }
}
