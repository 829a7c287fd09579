//! Images made of Debian's packages: what volantd makes of them against what umoci does. Needs the
//! programs that tests/devvm/images.sh installs, and no guest.
#![expect(clippy::unwrap_used, reason = "a step that fails is the test's failure")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Seek, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sha2::Digest as _;
use volantd::artifact::oci::{
    Compression, Document, ImageConfig, Layer, Limits, Manifest, build_root, choose,
};
use volantd::model::Digest;

fn run(program: &str, args: &[&str]) -> Duration {
    let began = Instant::now();
    let out = Command::new(program).args(args).output().unwrap();
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    began.elapsed()
}

/// The OCI layout with the test images.
fn layout() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/devvm/images.sh");
    let out = Command::new(script).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Path::new(String::from_utf8(out.stdout).unwrap().trim()).join("layout")
}

fn blob(layout: &Path, digest: Digest) -> PathBuf {
    layout.join("blobs/sha256").join(digest.hex())
}

fn manifest(layout: &Path, tag: &str) -> Manifest {
    let index = fs::read(layout.join("index.json")).unwrap();
    let index = Document::parse(&index, Some("application/vnd.oci.image.index.v1+json"));
    let Document::Index(manifests) = index.unwrap() else { panic!("no index") };
    let named = |descriptor: &&_| {
        let descriptor: &volantd::artifact::oci::Descriptor = descriptor;
        descriptor.annotations.values().any(|name| name == tag)
    };
    let found: Vec<_> = manifests.iter().filter(named).cloned().collect();
    let bytes = fs::read(blob(layout, choose(&found).unwrap().digest().unwrap())).unwrap();
    let Document::Manifest(manifest) = Document::parse(&bytes, None).unwrap() else {
        panic!("no manifest")
    };
    manifest
}

fn convert(layout: &Path, tag: &str, out: &Path) -> Duration {
    let manifest = manifest(layout, tag);
    let config = fs::read(blob(layout, manifest.config.digest().unwrap())).unwrap();
    let diff_ids = ImageConfig::parse(&config).unwrap().diff_ids().unwrap();
    let began = Instant::now();
    let layers = manifest.layers.iter().zip(diff_ids).map(|(layer, diff_id)| Layer {
        file: File::open(blob(layout, layer.digest().unwrap())).unwrap(),
        compression: layer.compression().unwrap(),
        diff_id,
    });
    let file = File::create(out).unwrap();
    build_root(layers.collect(), file, Limits::default(), &|_| Ok(())).unwrap();
    began.elapsed()
}

/// A layer with `count` empty files, each with a name of its own.
fn many_files(count: u32) -> File {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(0);
    let mut out = std::io::BufWriter::new(tempfile::tempfile().unwrap());
    for number in 0..count {
        header.set_path(format!("{:03}/{number}", number / 1000)).unwrap();
        header.set_cksum();
        out.write_all(header.as_bytes()).unwrap();
    }
    out.write_all(&[0; 1024]).unwrap();
    let mut file = out.into_inner().unwrap();
    file.rewind().unwrap();
    file
}

/// The most memory that this process has had, in KiB.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What of an entry can be compared: kind and mode, owner, links, time, content, attributes, and
/// the first name of its inode.
type Listing = BTreeMap<String, String>;

/// What umoci has unpacked.
fn unpacked(root: &Path) -> Listing {
    let (mut found, mut inodes) = (Listing::new(), BTreeMap::new());
    let mut pending = vec![String::new()];
    while let Some(name) = pending.pop() {
        let path = root.join(name.trim_start_matches('/'));
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        let content = if kind.is_symlink() {
            fs::read_link(&path).unwrap().display().to_string()
        } else if kind.is_file() {
            format!("{} {}", meta.len(), hash(&fs::read(&path).unwrap()))
        } else if kind.is_char_device() || kind.is_block_device() {
            format!("device {}", meta.rdev())
        } else {
            String::new()
        };
        let first = inodes.entry(meta.ino()).or_insert_with(|| name.clone()).clone();
        let (time, nanos) = (meta.mtime(), meta.mtime_nsec());
        let (owner, links) = ((meta.uid(), meta.gid()), meta.nlink());
        let attributes = attributes(&path);
        let text = describe(meta.mode(), owner, links, (time, nanos), &content, &attributes);
        if kind.is_dir() {
            let mut names: Vec<_> = fs::read_dir(&path).unwrap().map(|e| e.unwrap()).collect();
            names.sort_by_key(|entry| std::cmp::Reverse(entry.file_name()));
            pending.extend(names.iter().map(|e| format!("{name}/{}", e.file_name().display())));
        }
        found.insert(name, format!("{text} {first}"));
    }
    found
}

fn attributes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 4096];
    let len = rustix::fs::llistxattr(path, &mut names).unwrap_or(0);
    let names = names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let read = |name: &[u8]| {
        let name = String::from_utf8(name.to_vec()).unwrap();
        let mut value = vec![0; 4096];
        let len = rustix::fs::lgetxattr(path, name.as_str(), &mut value).unwrap();
        value.truncate(len);
        (name, value)
    };
    names.map(read).collect()
}

fn describe(
    mode: u32,
    owner: (u32, u32),
    links: u64,
    time: (i64, i64),
    content: &str,
    attributes: &BTreeMap<String, Vec<u8>>,
) -> String {
    // Without root, umoci keeps owners to itself, and file systems count folders' links differently.
    let owner = if rustix::process::geteuid().is_root() { owner } else { (0, 0) };
    let links = if mode & 0o170_000 == 0o040_000 { 0 } else { links };
    format!("{mode:o} {owner:?} {links} {time:?} {content} {attributes:?}")
}

/// Reads an image as erofs_fs.h describes it, apart from the code that has written it.
struct Erofs(Vec<u8>);

impl Erofs {
    fn number(&self, at: usize, len: usize) -> usize {
        self.0[at..at + len].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
    }

    fn listing(&self) -> Listing {
        let (mut found, mut inodes) = (Listing::new(), BTreeMap::new());
        let mut pending = vec![(String::new(), self.number(1024 + 14, 2))];
        while let Some((name, nid)) = pending.pop() {
            let at = self.number(1024 + 40, 4) * 4096 + nid * 32;
            let (format, mode) = (self.number(at, 2), self.number(at + 4, 2));
            let data = self.content(at, format);
            let content = match mode & 0o170_000 {
                0o120_000 => String::from_utf8(data.clone()).unwrap(),
                0o100_000 => format!("{} {}", data.len(), hash(&data)),
                0o020_000 | 0o060_000 => format!("device {}", self.number(at + 16, 4)),
                _ => String::new(),
            };
            let first = inodes.entry(nid).or_insert_with(|| name.clone()).clone();
            let owner = (self.number(at + 24, 4), self.number(at + 28, 4));
            let owner = (u32::try_from(owner.0).unwrap(), u32::try_from(owner.1).unwrap());
            let time = (self.number(at + 32, 8) as u64).cast_signed();
            let nanos = (self.number(at + 40, 4) as u64).cast_signed();
            let links = self.number(at + 44, 4) as u64;
            let mode = u32::try_from(mode).unwrap();
            let attributes = self.attributes(at);
            let text = describe(mode, owner, links, (time, nanos), &content, &attributes);
            if mode & 0o170_000 == 0o040_000 {
                let names = Erofs(data).names();
                let names = names.into_iter().rev().filter(|(name, _)| name != "." && name != "..");
                pending.extend(names.map(|(inner, nid)| (format!("{name}/{inner}"), nid)));
            }
            found.insert(name, format!("{text} {first}"));
        }
        found
    }

    fn xattr_len(&self, at: usize) -> usize {
        match self.number(at + 2, 2) {
            0 => 0,
            count => 12 + (count - 1) * 4,
        }
    }

    fn content(&self, at: usize, format: usize) -> Vec<u8> {
        let kind = self.number(at + 4, 2) & 0o170_000;
        if ![0o040_000, 0o100_000, 0o120_000].contains(&kind) {
            return Vec::new();
        }
        let (len, block) = (self.number(at + 8, 8), self.number(at + 16, 4));
        let outside = if format == 5 { (len - 1) / 4096 * 4096 } else { len };
        let inline = at + 64 + self.xattr_len(at);
        let blocks = &self.0[block * 4096..block * 4096 + outside];
        [blocks, &self.0[inline..inline + len - outside]].concat()
    }

    fn attributes(&self, at: usize) -> BTreeMap<String, Vec<u8>> {
        let prefixes = ["", "user.", "system.posix_acl_access", "system.posix_acl_default"];
        let prefixes = [&prefixes[..], &["trusted.", "lustre.", "security."]].concat();
        let end = at + 64 + self.xattr_len(at);
        let (mut next, mut found) = (at + 64 + 12, BTreeMap::new());
        while next < end {
            let (name_len, index) = (self.number(next, 1), self.number(next + 1, 1));
            let value_at = next + 4 + name_len;
            let value_end = value_at + self.number(next + 2, 2);
            let name = String::from_utf8_lossy(&self.0[next + 4..value_at]);
            let value = self.0[value_at..value_end].to_vec();
            found.insert(format!("{}{name}", prefixes[index]), value);
            next = value_end.next_multiple_of(4);
        }
        found
    }

    /// Names and inodes of a folder, of whose listing this is.
    fn names(&self) -> Vec<(String, usize)> {
        let mut found = Vec::new();
        for begin in (0..self.0.len()).step_by(4096) {
            let end = self.0.len().min(begin + 4096);
            let count = self.number(begin + 8, 2) / 12;
            for index in 0..count {
                let at = begin + index * 12;
                let name_end =
                    if index + 1 < count { begin + self.number(at + 20, 2) } else { end };
                let name = &self.0[begin + self.number(at + 8, 2)..name_end];
                let name = name.split(|byte| *byte == 0).next().unwrap();
                found.push((String::from_utf8(name.to_vec()).unwrap(), self.number(at, 8)));
            }
        }
        assert!(found.is_sorted(), "Linux searches in sorted names");
        found
    }
}

fn hash(bytes: &[u8]) -> Digest {
    Digest(sha2::Sha256::digest(bytes).into())
}

#[test]
fn the_tree_is_what_umoci_unpacks_and_takes_no_longer() {
    let layout = layout();
    for tag in ["base", "nginx", "python"] {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let text = |name: &str| path(name).display().to_string();
        let image = format!("{}:{tag}", layout.display());
        let ours = convert(&layout, tag, &path("ours.erofs"));
        let mut theirs = run("umoci", &["unpack", "--image", &image, &text("bundle")]);
        let rootfs = format!("{}/rootfs", text("bundle"));
        theirs += run("mkfs.erofs", &[&text("theirs.erofs"), &rootfs]);
        assert!(ours <= theirs, "{tag}: {ours:?}, umoci and mkfs.erofs take {theirs:?}");

        run("fsck.erofs", &[&text("ours.erofs")]);
        let found = Erofs(fs::read(path("ours.erofs")).unwrap()).listing();
        let expected = unpacked(Path::new(&rootfs));
        assert!(1000 < expected.len(), "{tag} has {} entries", expected.len());
        let differs = |(name, text): &(&String, &String)| expected.get(*name) != Some(*text);
        let wrong: Vec<_> = found.iter().filter(differs).take(10).collect();
        let wanted: Vec<_> = wrong.iter().map(|(name, _)| expected.get(*name)).collect();
        assert!(wrong.is_empty(), "{tag}: {wrong:#?}\numoci: {wanted:#?}");
        let missing: Vec<_> =
            expected.keys().filter(|n| !found.contains_key(*n)).take(10).collect();
        assert!(missing.is_empty(), "{tag} lacks {missing:?}");
    }
}

/// An image that is all entries is refused before it has taken much of anything.
#[test]
fn a_million_entries_are_refused_in_bounds() {
    let layer = Layer {
        file: many_files(1_000_000),
        compression: Compression::None,
        diff_id: Digest([0; 32]),
    };
    let out = tempfile::NamedTempFile::new().unwrap();
    let before_kib = peak_kib();
    let made = build_root(vec![layer], out.reopen().unwrap(), Limits::default(), &|_| Ok(()));
    let refused = made.expect_err("a million entries").to_string();
    assert!(refused.contains("500000"), "{refused}");
    let (taken_kib, blocks) = (peak_kib() - before_kib, out.as_file().metadata().unwrap().blocks());
    assert!(taken_kib < 512 << 10, "{taken_kib} KiB of memory");
    assert!(blocks * 512 < 1 << 20, "{blocks} blocks of disk");
}
