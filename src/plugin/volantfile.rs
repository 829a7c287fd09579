//! The Volantfile: what `ctl build` makes an artifact and its manifest of.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::plugin::parse::{InvalidManifest, Language, Refused, value};

/// Files that one Volantfile names.
const FILES_MAX: usize = 10_000;

/// What is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// Agent, busybox and files in memory: an appliance.
    Initramfs,
    /// An image and files over it: a read-only root.
    Rootfs,
}

/// A Volantfile.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volantfile {
    /// `1`.
    #[serde(default)]
    pub version: Option<Value>,
    /// What is built.
    pub strategy: Strategy,
    /// The image below the files; for a rootfs.
    #[serde(default)]
    pub image: Option<String>,
    /// Path in the guest, and where it comes from.
    #[serde(default)]
    pub files: BTreeMap<String, FileSource>,
    /// The plugin's manifest, without what is built here.
    pub manifest: Value,
}

/// Where a file or folder comes from: a path beside the Volantfile, with more if that is not enough.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum FileSource {
    /// A file or folder. Modes are 0755 for folders and what can be run, else 0644; root owns all.
    Path(String),
    /// The same, with a mode or an owner of its own.
    With(FileDetails),
}

/// A file or folder with a mode or owner of its own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileDetails {
    /// A path beside the Volantfile.
    pub source: String,
    /// Octal, of every file in it.
    #[serde(default)]
    pub mode: Option<String>,
    /// Numeric owner.
    #[serde(default)]
    pub uid: u64,
    /// Numeric group.
    #[serde(default)]
    pub gid: u64,
}

impl FileSource {
    /// With all that can be said.
    pub fn details(&self) -> FileDetails {
        match self {
            FileSource::Path(source) => {
                FileDetails { source: source.clone(), mode: None, uid: 0, gid: 0 }
            }
            FileSource::With(details) => details.clone(),
        }
    }
}

impl FileDetails {
    /// The mode as a number.
    pub fn mode(&self) -> Option<u32> {
        self.mode.as_deref().and_then(|text| u32::from_str_radix(text, 8).ok())
    }
}

/// Whether a path of the guest can be built: absolute, normal, and not the agent's.
fn is_path(path: &str) -> bool {
    let normal = path.strip_prefix('/').is_some_and(|rest| {
        !rest.is_empty() && rest.split('/').all(|part| !matches!(part, "" | "." | ".."))
    });
    normal && !path.chars().any(char::is_control) && path.len() <= 4096 && path != "/init"
}

/// Reads a Volantfile and checks what does not depend on the host; the manifest is checked once it
/// is whole.
///
/// # Errors
/// [`InvalidManifest`].
pub fn volantfile(document: &[u8]) -> Result<Volantfile, InvalidManifest> {
    let parsed = serde_json::from_value(value(document, Language::Toml)?);
    let file: Volantfile = parsed.map_err(|error: serde_json::Error| InvalidManifest {
        refused: vec![Refused::new("", error.to_string())],
    })?;
    let mut refused = Vec::new();
    let mut rule = |holds: bool, pointer: &str, reason: &str| {
        if !holds {
            refused.push(Refused::new(pointer, reason));
        }
    };
    let known = file.version.as_ref().is_none_or(|version| {
        matches!(version, Value::String(text) if text == "1") || version == &Value::from(1)
    });
    rule(known, "/version", "1");
    let needs_image = file.strategy == Strategy::Rootfs;
    rule(file.image.is_some() == needs_image, "/image", "for a rootfs, and only for one");
    rule(file.manifest.is_object(), "/manifest", "the plugin's manifest");
    for field in ["rootfs", "initramfs", "image"] {
        let absent = file.manifest.get(field).is_none();
        rule(absent, &format!("/manifest/{field}"), "is what is built here");
    }
    rule(file.files.len() <= FILES_MAX, "/files", "too many");
    for (path, source) in file.files.iter().take(FILES_MAX) {
        let pointer = format!("/files/{}", crate::plugin::parse::escaped(path));
        rule(is_path(path), &pointer, "an absolute path of the guest, and not its init");
        let details = source.details();
        let mode = details.mode.is_none() || details.mode().is_some_and(|mode| mode <= 0o7777);
        rule(mode, &pointer, "a mode is octal, up to 7777");
        let owner = details.uid <= 0x1f_ffff && details.gid <= 0x1f_ffff;
        rule(owner, &pointer, "an owner is at most 2097151");
        rule(!details.source.is_empty(), &pointer, "a source is a path");
    }
    InvalidManifest::unless_empty(refused)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "version = '1'\nstrategy = 'initramfs'\n[files]\n'/bin/app' = 'app'\n\
        '/etc/x' = { source = 'x', mode = '0600', uid = 33 }\n[manifest]\nname = 'a'\n";

    #[test]
    fn files_and_strategy_are_read() {
        let file = volantfile(GOOD.as_bytes()).unwrap();
        assert_eq!(file.strategy, Strategy::Initramfs);
        let details = file.files["/etc/x"].details();
        assert_eq!((details.mode(), details.uid, details.gid), (Some(0o600), 33, 0));
        assert_eq!(file.files["/bin/app"].details().source, "app");
    }

    #[test]
    fn each_rule_refuses_by_field() {
        let table = [
            ("'1'", "'2'", "/version"),
            ("'initramfs'", "'rootfs'", "/image"),
            ("'/bin/app'", "'bin/app'", "/files/bin~1app"),
            ("'/bin/app'", "'/init'", "/files/~1init"),
            ("'/bin/app'", "'/a/../b'", "/files/~1a~1..~1b"),
            ("'0600'", "'0999'", "/files/~1etc~1x"),
            ("name = 'a'", "image = 'a'", "/manifest/image"),
            ("strategy", "unknown", ""),
        ];
        for (from, to, pointer) in table {
            let refused = volantfile(GOOD.replace(from, to).as_bytes()).unwrap_err().refused;
            assert_eq!(refused[0].pointer, pointer, "{to}: {refused:?}");
        }
    }
}
