//! Images: content digests, and the references by which registries and users name them.

use std::fmt;

/// A SHA-256 digest: the name of bytes that cannot change.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// 64 hexadecimal digits, in lower case.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The first 12 digits: enough for people.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }

    /// The digest of 64 lower-case hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Digest> {
        let bytes = text.as_bytes();
        if bytes.len() != 64 {
            return None;
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(bytes.chunks_exact(2)) {
            let digit = |c: u8| match c {
                b'0'..=b'9' => Some(c - b'0'),
                b'a'..=b'f' => Some(c - b'a' + 10),
                _ => None,
            };
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Digest(digest))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<&str> for Digest {
    type Error = InvalidReference;

    fn try_from(text: &str) -> Result<Digest, InvalidReference> {
        let hex =
            text.strip_prefix("sha256:").ok_or(InvalidReference("a digest begins with sha256:"))?;
        Digest::from_hex(hex).ok_or(InvalidReference("a digest has 64 digits of 0-9 and a-f"))
    }
}

/// Why a reference was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no image reference: {0}")]
pub struct InvalidReference(pub &'static str);

/// `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]` in full: what was left out is filled in as Docker does
/// (`nginx` is `docker.io/library/nginx:latest`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageReference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl ImageReference {
    /// Bytes of a repository's name (the distribution specification's advice for host and name).
    pub const REPOSITORY_LEN_MAX: usize = 255;
    /// Bytes of a tag (distribution specification, "Pulling manifests").
    pub const TAG_LEN_MAX: usize = 128;

    /// `HOST[:PORT]` of the registry.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository in the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The digest, where the reference pins one.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// What to ask the registry for: the digest if there is one, else the tag.
    pub fn selector(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_else(|| "latest".to_owned()),
        }
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl TryFrom<&str> for ImageReference {
    type Error = InvalidReference;

    fn try_from(text: &str) -> Result<ImageReference, InvalidReference> {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(Digest::try_from(digest)?)),
            None => (text, None),
        };
        // A colon after the last slash begins a tag; one before it, a port.
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (name, None),
        };
        let is_host = |host: &str| host.contains(['.', ':']) || host == "localhost";
        let (registry, repository) = match name.split_once('/') {
            Some((host, rest)) if is_host(host) => (host, rest.to_owned()),
            _ if name.contains('/') => ("docker.io", name.to_owned()),
            _ => ("docker.io", format!("library/{name}")),
        };
        check_registry(registry)?;
        check_repository(&repository)?;
        if let Some(tag) = tag {
            check_tag(tag)?;
        }
        let tag = tag.or((digest.is_none()).then_some("latest"));
        let registry = registry.to_owned();
        Ok(ImageReference { registry, repository, tag: tag.map(str::to_owned), digest })
    }
}

fn check_registry(registry: &str) -> Result<(), InvalidReference> {
    let (host, port) = registry.split_once(':').unwrap_or((registry, "443"));
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if 255 < host.len() || !host.split('.').all(label) {
        return Err(InvalidReference("the registry is no host name"));
    }
    match port.parse::<u16>() {
        Ok(1..) => Ok(()),
        _ => Err(InvalidReference("the registry's port is no number from 1 to 65535")),
    }
}

fn check_repository(repository: &str) -> Result<(), InvalidReference> {
    let alphanumeric = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let component = |part: &str| {
        let bytes = part.as_bytes();
        bytes.first().is_some_and(|c| alphanumeric(*c))
            && bytes.last().is_some_and(|c| alphanumeric(*c))
            && bytes.iter().all(|c| alphanumeric(*c) || matches!(c, b'.' | b'_' | b'-'))
            && !part.contains("..")
    };
    if ImageReference::REPOSITORY_LEN_MAX < repository.len()
        || !repository.split('/').all(component)
    {
        return Err(InvalidReference(
            "a repository is made of a-z, 0-9, '.', '_', '-' and '/', in parts that begin and end \
             with a letter or digit",
        ));
    }
    Ok(())
}

fn check_tag(tag: &str) -> Result<(), InvalidReference> {
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    let bytes = tag.as_bytes();
    let good = bytes.len() <= ImageReference::TAG_LEN_MAX
        && bytes.first().is_some_and(|c| word(*c))
        && bytes.iter().all(|c| word(*c) || matches!(c, b'.' | b'-'));
    if good {
        Ok(())
    } else {
        Err(InvalidReference("a tag is made of letters, digits, '_', '.', '-'"))
    }
}

/// An image in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its name in full, unique.
    pub reference: String,
    /// Digest of the manifest for this platform.
    pub manifest: Digest,
    /// Digest of its configuration: the image's id.
    pub config: Digest,
    /// Names the tree that its layers make: images of the same layers share one.
    pub root: Digest,
    /// Bytes of the read-only disk made of it.
    pub root_bytes: u64,
    /// Compressed bytes of its layers.
    pub layer_bytes: u64,
    /// When it came here, in milliseconds since the Unix epoch.
    pub created_at_ms: i64,
}

/// What a new VM wishes to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageWish {
    /// Reference, or the begin of an id.
    pub name: String,
    /// Digest that its manifest must have.
    pub digest: Option<Digest>,
    /// In place of the image's own arguments; empty for those.
    pub command: Vec<String>,
    /// What is said of the workload; wins over the image's own. It need not name a program.
    pub workload: Option<volant_protocol::Workload>,
    /// What is written is gone when the VM stops.
    pub ephemeral: bool,
    /// Size of the disk for what is written, in MiB; the configured one if absent.
    pub overlay_mib: Option<u64>,
    /// Bring it from its registry if it is not here.
    pub bring: bool,
}

/// The image that a VM runs, as it was when the VM was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRoot {
    /// What it was called.
    pub reference: String,
    /// The read-only root, shared by all VMs of it.
    pub root: Digest,
    /// Folders that must exist before the workload starts.
    pub folders: Vec<String>,
    /// Where what is written goes.
    pub overlay: Overlay,
}

/// Where what a guest writes over its image goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlay {
    /// A disk of the VM's own, which lives as long as the VM.
    Persistent {
        /// Its size in MiB, [`Overlay::MIB_MIN`] to [`Overlay::MIB_MAX`].
        mib: u64,
    },
    /// The guest's memory.
    Ephemeral,
}

impl Overlay {
    /// Room for a journal and something beside it.
    pub const MIB_MIN: u64 = 64;
    /// 8 TiB.
    pub const MIB_MAX: u64 = 8 << 20;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_filled_in() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let pinned = format!("ghcr.io/a/b@{digest}");
        let both = format!("localhost:5000/a:1@{digest}");
        let table = [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("someone/app", "docker.io/someone/app:latest"),
            ("127.0.0.1:5000/web", "127.0.0.1:5000/web:latest"),
            ("localhost/web:x", "localhost/web:x"),
            ("quay.io/a/b/c:v1.0-rc_1", "quay.io/a/b/c:v1.0-rc_1"),
            (&pinned, &pinned),
            (&both, &both),
        ];
        for (text, full) in table {
            assert_eq!(ImageReference::try_from(text).unwrap().to_string(), full);
        }
        assert_eq!(ImageReference::try_from(both.as_str()).unwrap().selector(), digest);
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        let long = "a".repeat(300);
        let table = [
            "",
            "Nginx",
            "a//b",
            "../etc",
            "a/../b",
            "a:",
            "a: b",
            "a:b:c",
            "-a",
            "a-",
            "a b",
            "host.:5000/a",
            "h.io:0/a",
            "h.io:99999/a",
            "h.io:x/a",
            "a@sha256:12",
            "a@md5:00",
            "nginx:-x",
            "user@host/a",
            "http://a/b",
            "a\n",
            &long,
        ];
        for text in table {
            assert!(ImageReference::try_from(text).is_err(), "{text:?} was accepted");
        }
        let upper = format!("sha256:{}", "AB".repeat(32));
        assert!(Digest::try_from(upper.as_str()).is_err());
    }
}
