//! The bearer token for TCP: made at the first start, readable by its owner only.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Bytes of randomness.
const TOKEN_LEN: usize = 32;

/// Reads the token, or makes it.
///
/// # Errors
/// It is readable by others, empty, or cannot be made.
pub fn load_or_make(path: &Path) -> Result<String> {
    match fs::metadata(path) {
        Ok(meta) if meta.mode() & 0o077 != 0 => {
            bail!(
                "{} can be read by others: chmod 600 it, or delete it to get a new one",
                path.display()
            );
        }
        Ok(_) => {
            let token =
                fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            let token = token.trim().to_owned();
            if token.len() < TOKEN_LEN {
                bail!("{} holds no token: delete it to get a new one", path.display());
            }
            Ok(token)
        }
        Err(_) => make(path).with_context(|| format!("make the token file {}", path.display())),
    }
}

/// Written whole under another name first: nobody ever reads half a token.
fn make(path: &Path) -> Result<String> {
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
