//! The bearer token for TCP: made once, readable by its owner only.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes of randomness; the text has twice as many letters.
const TOKEN_LEN: usize = 32;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Its file's mode lets others read it.
    #[error("{path} can be read by others: chmod 600 it, or delete it to get a new one", path = path.display())]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// The file has something else in it.
    #[error("{path} holds no token: delete it to get a new one", path = path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The host refused.
    #[error("{step} the token file {path}", path = path.display())]
    Host {
        /// The attempted step.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
}

/// Reads the token; `None` if there is no file.
///
/// # Errors
/// [`TokenError`].
pub fn load(path: &Path) -> Result<Option<String>, TokenError> {
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(host("look at", path)(source)),
    };
    if meta.mode() & 0o077 != 0 {
        return Err(TokenError::Open { path: path.to_owned() });
    }
    let token = fs::read_to_string(path).map_err(host("read", path))?.trim().to_owned();
    if token.len() < TOKEN_LEN {
        return Err(TokenError::Empty { path: path.to_owned() });
    }
    Ok(Some(token))
}

/// Reads the token, or makes it.
///
/// # Errors
/// [`TokenError`].
pub fn load_or_make(path: &Path) -> Result<String, TokenError> {
    match load(path)? {
        Some(token) => Ok(token),
        None => make(path).map_err(host("make", path)),
    }
}

fn host(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TokenError {
    let path = path.to_owned();
    move |source| TokenError::Host { step, path, source }
}

/// Written whole under another name first: nobody ever reads half a token.
fn make(path: &Path) -> io::Result<String> {
    let mut bytes = [0u8; TOKEN_LEN];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())?;
    let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
    file.write_all(token.as_bytes())?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_made_once_and_kept_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/token");
        let token = load_or_make(&path).unwrap();
        assert_eq!((token.len(), fs::metadata(&path).unwrap().mode() & 0o777), (64, 0o600));
        assert_eq!(load_or_make(&path).unwrap(), token);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(load_or_make(&path).unwrap_err().to_string().contains("chmod 600"));
    }
}
