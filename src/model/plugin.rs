//! Names of plugins and of their versions.

use std::fmt;

/// A plugin's name: 1 to 63 letters, digits, `.`, `_`, `-`, beginning with a letter or digit. It
/// appears in URLs and file names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PluginName(String);

/// A plugin's version: like a name, and with `+`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PluginVersion(String);

/// One version of one plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginRef {
    /// The plugin.
    pub name: PluginName,
    /// Its version.
    pub version: PluginVersion,
}

/// What is known of something that a version is made of; what is empty is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArtifactEntry {
    /// Unique within the version.
    pub name: String,
    /// For example `rootfs` or `initramfs`.
    pub kind: String,
    /// Where it comes from.
    pub source_url: String,
    /// Its checksum.
    pub checksum: String,
    /// What the file holds, for example `raw`.
    pub format: String,
    /// Where it is on the host.
    pub local_path: String,
    /// Its size; 0 if it is not known.
    pub size_bytes: u64,
}

/// An artifact as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginArtifact {
    /// Number.
    pub id: i64,
    /// Whose it is.
    pub plugin: PluginRef,
    /// What is known of it.
    pub entry: ArtifactEntry,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: i64,
    /// Milliseconds since the Unix epoch.
    pub updated_at_ms: i64,
}

/// Why a name or version was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("1 to 63 letters, digits and {extra}, beginning with a letter or digit; not {text:?}")]
pub struct InvalidWord {
    text: String,
    extra: &'static str,
}

fn check(text: &str, extra: &'static str) -> Result<String, InvalidWord> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || extra.contains(c);
    let good = (1..=63).contains(&text.len())
        && text.chars().all(allowed)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if good { Ok(text.to_owned()) } else { Err(InvalidWord { text: text.to_owned(), extra }) }
}

impl PluginName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PluginVersion {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for PluginName {
    type Error = InvalidWord;

    fn try_from(text: &str) -> Result<PluginName, InvalidWord> {
        check(text, "._-").map(PluginName)
    }
}

impl TryFrom<&str> for PluginVersion {
    type Error = InvalidWord;

    fn try_from(text: &str) -> Result<PluginVersion, InvalidWord> {
        check(text, "._-+").map(PluginVersion)
    }
}

impl fmt::Display for PluginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for PluginVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_versions_are_words() {
        for good in ["nginx", "a", "0", "My_Plugin-2.0", &"a".repeat(63)] {
            assert!(PluginName::try_from(good).is_ok(), "{good:?}");
        }
        for bad in ["", ".", "..", "-a", "a/b", "a b", "a+b", "ä", &"a".repeat(64)] {
            assert!(PluginName::try_from(bad).is_err(), "{bad:?}");
        }
        assert!(PluginVersion::try_from("1.0.0-rc.1+build5").is_ok());
    }
}
