//! Programs of the host that setup runs, where no library does what they do: accounts and units.

use std::process::{Command, Stdio};

use crate::setup::SetupError;

/// Runs a program, and tells what it says if it fails.
///
/// # Errors
/// [`SetupError::Program`].
pub fn run(words: &[&str]) -> Result<(), SetupError> {
    let failed = |why: String| SetupError::Program { line: words.join(" "), why };
    let mut command = Command::new(words[0]);
    let out = command.args(&words[1..]).stdin(Stdio::null()).output();
    let out = out.map_err(|error| failed(error.to_string()))?;
    match out.status.success() {
        true => Ok(()),
        false => Err(failed(String::from_utf8_lossy(&out.stderr).trim().to_owned())),
    }
}

/// Whether a program that asks something says yes.
pub fn succeeds(words: &[&str]) -> bool {
    run(words).is_ok()
}
