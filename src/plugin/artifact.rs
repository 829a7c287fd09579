//! What a manifest says that a plugin is made of, and the rules for what its author adds.

use crate::model::ArtifactEntry;
use crate::plugin::manifest::{Format, Manifest};
use crate::plugin::parse::{InvalidManifest, Refused};
use crate::plugin::rules;

/// Characters of a name, kind or format.
const WORD_LEN_MAX: usize = 128;
/// SQLite's integers end there.
const SIZE_MAX: u64 = i64::MAX.unsigned_abs();

fn word(format: Format) -> String {
    let word = match format {
        Format::Raw => "raw",
        Format::Qcow2 => "qcow2",
        Format::Squashfs => "squashfs",
        Format::Erofs => "erofs",
        Format::Ext4 => "ext4",
        Format::Xfs => "xfs",
        Format::Btrfs => "btrfs",
    };
    word.to_owned()
}

fn entry(name: &str, kind: &str, url: &str, checksum: Option<&String>) -> ArtifactEntry {
    let path = url.strip_prefix("file://").unwrap_or(url);
    ArtifactEntry {
        name: name.to_owned(),
        kind: kind.to_owned(),
        source_url: url.to_owned(),
        checksum: checksum.cloned().unwrap_or_default(),
        local_path: if path.starts_with('/') { path.to_owned() } else { String::new() },
        ..ArtifactEntry::default()
    }
}

/// The media that a manifest names: `rootfs`, `initramfs`, `image`, and its disks by their names.
pub fn of(manifest: &Manifest) -> Vec<ArtifactEntry> {
    let mut all = Vec::new();
    if let Some(rootfs) = &manifest.rootfs {
        let checksum = rootfs.checksum.as_ref().or(manifest.checksum.as_ref());
        let format = word(rootfs.format);
        all.push(ArtifactEntry { format, ..entry("rootfs", "rootfs", &rootfs.url, checksum) });
    }
    if let Some(initramfs) = &manifest.initramfs {
        let checksum = initramfs.checksum.as_ref();
        all.push(entry("initramfs", "initramfs", &initramfs.url, checksum));
    }
    if let Some(image) = &manifest.image {
        all.push(entry("image", "image", image, manifest.image_digest.as_ref()));
    }
    for disk in &manifest.disks {
        let format = word(disk.format);
        let entry = entry(&disk.name, "disk", &disk.source, disk.checksum.as_ref());
        all.push(ArtifactEntry { format, ..entry });
    }
    all
}

/// The rules for an artifact that a client describes. What is empty is not known.
///
/// # Errors
/// Every field that breaks one.
pub fn check(entry: &ArtifactEntry) -> Result<(), InvalidManifest> {
    let mut refused = Vec::new();
    let mut rule = |holds: bool, field: &str, reason: &str| {
        if !holds {
            refused.push(Refused::new(format!("/{field}"), reason));
        }
    };
    let word = |text: &str| text.len() <= WORD_LEN_MAX && !text.chars().any(char::is_control);
    let name_fits = !entry.name.trim().is_empty() && word(&entry.name);
    rule(name_fits, "artifact_name", "1 to 128 printable characters");
    rule(word(&entry.kind), "kind", "at most 128 printable characters");
    rule(word(&entry.format), "format", "at most 128 printable characters");
    let url = &entry.source_url;
    rule(url.is_empty() || rules::is_url(url), "source_url", rules::URL_RULE);
    let checksum = &entry.checksum;
    let checksum_fits = checksum.is_empty() || rules::is_checksum(checksum);
    rule(checksum_fits, "checksum", rules::CHECKSUM_RULE);
    let path = &entry.local_path;
    let path_fits = path.is_empty() || path.starts_with('/') && rules::is_text(path);
    rule(path_fits, "local_path", "an absolute path");
    rule(entry.size_bytes <= SIZE_MAX, "size_bytes", "not as large as that");
    InvalidManifest::unless_empty(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_refuses_by_field() {
        let good = ArtifactEntry { name: "rootfs".to_owned(), ..ArtifactEntry::default() };
        check(&good).unwrap();
        type Change = fn(&mut ArtifactEntry);
        let table: [(&str, Change); 6] = [
            ("/artifact_name", |entry| entry.name = " ".to_owned()),
            ("/kind", |entry| entry.kind = "\n".to_owned()),
            ("/source_url", |entry| entry.source_url = "ftp://x".to_owned()),
            ("/checksum", |entry| entry.checksum = "sha256:1".to_owned()),
            ("/local_path", |entry| entry.local_path = "relative".to_owned()),
            ("/size_bytes", |entry| entry.size_bytes = u64::MAX),
        ];
        for (field, change) in table {
            let mut wrong = good.clone();
            change(&mut wrong);
            let refused = check(&wrong).expect_err(field).refused;
            assert_eq!((refused.len(), refused[0].pointer.as_str()), (1, field));
        }
    }
}
