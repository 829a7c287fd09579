//! Hostile and odd layers, made by hand.

use std::io::{Read, Write};

use flate2::Compression as Level;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::*;
use crate::artifact::tree::{Node, Tree};

/// A tar under construction.
struct Tar(Builder<Vec<u8>>);

impl Tar {
    fn new() -> Tar {
        Tar(Builder::new(Vec::new()))
    }

    /// An entry whose name and link are written as they are, however bad.
    fn raw(mut self, kind: EntryType, name: &str, link: &str, data: &[u8]) -> Tar {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(data.len() as u64);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..name.len()].copy_from_slice(name.as_bytes());
        gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    fn file(self, name: &str, data: &[u8]) -> Tar {
        self.raw(EntryType::Regular, name, "", data)
    }

    fn pax(mut self, records: &[(&str, &[u8])]) -> Tar {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

fn file_of(bytes: &[u8]) -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    file
}

fn plain(tar: &[u8]) -> Layer {
    Layer { file: file_of(tar), compression: Compression::None, diff_id: sha256(tar) }
}

fn small() -> Limits {
    Limits { inodes_max: 1000, bytes_max: 1 << 20, xattr_bytes_max: 1000, bomb_bytes_min: 1 << 30 }
}

/// Converts; what is refused is told.
fn convert(layers: Vec<Layer>, limits: Limits) -> Result<Vec<u8>, String> {
    let out = tempfile::tempfile().unwrap();
    let image = out.try_clone().unwrap();
    build_root(layers, out, limits, &|_| Ok(())).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    std::io::Seek::rewind(&mut (&image)).unwrap();
    (&image).read_to_end(&mut bytes).unwrap();
    Ok(bytes)
}

fn refusal(layer: &[u8]) -> String {
    convert(vec![plain(layer)], small()).expect_err("a refusal")
}

/// The tree of layers, without an image around it.
fn tree(layers: &[Vec<u8>]) -> Tree {
    let data = crate::artifact::erofs::DataArea::new(tempfile::tempfile().unwrap());
    let mut target = layer::Target::new(data, small());
    for layer in layers {
        target.apply(&mut layer.as_slice()).unwrap();
    }
    target.tree
}

fn find<'a>(tree: &'a Tree, path: &str) -> Option<&'a crate::artifact::tree::Inode> {
    let mut id = crate::artifact::tree::ROOT;
    for part in path.split('/') {
        let Node::Folder(folder) = &tree.inode(id).node else { return None };
        id = folder.entries.get(part.as_bytes())?.inode;
    }
    Some(tree.inode(id))
}

#[test]
fn entries_that_leave_the_image_are_refused_by_name() {
    let link = |tar: Tar, target| tar.raw(EntryType::Symlink, "out", target, b"");
    let table = [
        (Tar::new().file("../evil", b"x"), "'..'"),
        (Tar::new().file("a/../../evil", b"x"), "'..'"),
        (Tar::new().file("/etc/passwd", b"x"), "absolute"),
        (link(Tar::new(), "../../etc").file("out/passwd", b"x"), "out of the image"),
        (Tar::new().raw(EntryType::Link, "a", "../../etc/passwd", b""), "'..'"),
        (Tar::new().raw(EntryType::Link, "a", "/etc/passwd", b""), "absolute"),
        (Tar::new().raw(EntryType::Link, "a", "missing", b""), "does not exist"),
        (link(Tar::new(), "../..").raw(EntryType::Link, "a", "out/etc/passwd", b""), "out of"),
        (Tar::new().file("../.wh.etc", b""), "'..'"),
        (Tar::new().file("../../.wh..wh..opq", b""), "'..'"),
        (Tar::new().raw(EntryType::new(b'Z'), "a", "", b""), "kind"),
        (Tar::new().raw(EntryType::Symlink, "a", "", b""), "link to nothing"),
        (Tar::new().file("a", b"x").file("a/b", b"x"), "not a folder"),
        (Tar::new().file("./", b"x").file(".", b"x"), "root folder"),
    ];
    for (tar, text) in table {
        let refusal = refusal(&tar.bytes());
        assert!(refusal.contains(text) && refusal.contains("layer 1"), "{text}: {refusal}");
    }
}

#[test]
fn what_is_too_much_is_refused() {
    let many = (0..1100).fold(Tar::new(), |tar, index| tar.file(&format!("f{index}"), b""));
    assert!(refusal(&many.bytes()).contains("1000 entries"));
    let deep = "d/".repeat(40);
    let many = (0..40).fold(Tar::new(), |tar, index| tar.file(&format!("{index}/{deep}f"), b""));
    assert!(refusal(&many.bytes()).contains("1000 entries"), "folders that are implied count");
    let big = Tar::new().file("a", &vec![1; 600 << 10]).file("b", &vec![1; 600 << 10]);
    assert!(refusal(&big.bytes()).contains("GiB of files"));
    let xattr = vec![7; 600];
    let xattrs = |tar: Tar| tar.pax(&[("SCHILY.xattr.user.a", &xattr)]);
    let much = xattrs(xattrs(Tar::new()).file("a", b"")).file("b", b"");
    assert!(refusal(&much.bytes()).contains("bytes of extended attributes"));
    let long = vec![7; 66_000];
    let long = Tar::new().pax(&[("SCHILY.xattr.user.a", &long)]).file("a", b"");
    assert!(refusal(&long.bytes()).contains("attribute is too long"));
    let endless = vec![b'a'; 2 << 20];
    let endless = Tar::new().raw(EntryType::GNULongName, "x", "", &endless).file("a", b"");
    assert!(refusal(&endless.bytes()).contains("extended header is too long"));
}

#[test]
fn sparse_files_keep_their_holes_and_their_limits() {
    let map = b"2\n0\n5\n600000\n5\n";
    let mut data = map.to_vec();
    data.resize(512, 0);
    data.extend(b"hellothere");
    let sparse = |len: &'static str| {
        Tar::new().pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"real"),
            ("GNU.sparse.realsize", len.as_bytes()),
        ])
    };
    let layer = sparse("700000").file("GNUSparseFile.0/real", &data).bytes();
    assert!(find(&tree(std::slice::from_ref(&layer)), "real").is_some());
    let image = convert(vec![plain(&layer)], small()).unwrap();
    assert_eq!(&image[4096..4101], b"hello");
    assert_eq!(&image[4096 + 600_000..4096 + 600_005], b"there");
    let terabyte = sparse("1099511627776").file("x", &data).bytes();
    assert!(refusal(&terabyte).contains("GiB of files"));
    let short = sparse("600000").file("x", &data).bytes();
    assert!(refusal(&short).contains("makes no sense"));
    let mut map = b"2\n600000\n5\n0\n5\n".to_vec();
    map.resize(512 + 10, 0);
    assert!(refusal(&sparse("700000").file("x", &map).bytes()).contains("makes no sense"));
    let bomb = sparse("700000").file("x", format!("{}\n", u64::MAX).as_bytes()).bytes();
    assert!(refusal(&bomb).contains("too many holes"));
}

#[test]
fn a_terabyte_fits_where_it_is_allowed_and_takes_no_space() {
    let map = b"1\n1099511627770\n5\n";
    let mut data = map.to_vec();
    data.resize(512, 0);
    data.extend(b"hello");
    let layer = Tar::new()
        .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"1099511627776")])
        .file("big", &data)
        .bytes();
    let out = tempfile::tempfile().unwrap();
    let kept = out.try_clone().unwrap();
    let limits = Limits { bytes_max: 2 << 40, ..small() };
    build_root(vec![plain(&layer)], out, limits, &|_| Ok(())).unwrap();
    let used = std::os::unix::fs::MetadataExt::blocks(&kept.metadata().unwrap()) * 512;
    assert!(used < 1 << 20, "{used} bytes on disk");
}

#[test]
fn broken_streams_are_refused() {
    let layer = Tar::new().file("a", &[7; 5000]).bytes();
    let whole = sha256(&layer);
    let cut = |len: usize| Layer { diff_id: whole, ..plain(&layer[..len]) };
    let reason = |layer| convert(vec![layer], small()).expect_err("a refusal");
    assert!(reason(cut(300)).contains("middle of a header"));
    assert!(reason(cut(3000)).contains("middle of \"a\""));
    let mut flipped = layer.clone();
    flipped[600] ^= 1;
    assert!(reason(Layer { diff_id: whole, ..plain(&flipped) }).contains("has the digest"));
    flipped[0] ^= 1;
    assert!(reason(plain(&flipped)).contains("checksum"));
    let mut packed = GzEncoder::new(Vec::new(), Level::fast());
    packed.write_all(&layer).unwrap();
    let packed = packed.finish().unwrap();
    let gzip = |bytes: &[u8]| Layer {
        file: file_of(bytes),
        compression: Compression::Gzip,
        diff_id: whole,
    };
    convert(vec![gzip(&packed)], small()).unwrap();
    let truncated = reason(gzip(&packed[..packed.len() - 20]));
    assert!(truncated.contains("layer 1"), "{truncated}");
    assert!(reason(gzip(&layer)).contains("layer 1"), "not gzip at all");
    let zstd = |bytes: Vec<u8>| Layer {
        file: file_of(&bytes),
        compression: Compression::Zstd,
        diff_id: whole,
    };
    let two_frames =
        [&layer[..1000], &layer[1000..]].map(|part| zstd::encode_all(part, 1).unwrap());
    convert(vec![zstd(two_frames.concat())], small()).unwrap();
    assert!(reason(zstd(two_frames[0].clone())).contains("middle of"));
}

#[test]
fn a_full_disk_has_a_name() {
    let layer = Tar::new().file("a", &[7; 5000]).bytes();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let refused = build_root(vec![plain(&layer)], full, small(), &|_| Ok(()));
    assert!(matches!(refused, Err(ImageError::DiskFull)), "{refused:?}");
}

#[test]
fn bombs_are_stopped_by_their_size() {
    // Zeros as one file: far below the limit of bytes, far above what it is packed to.
    let size = 24u64 << 20;
    let mut header = Header::new_ustar();
    header.set_path("zeros").unwrap();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    for compression in [Compression::Gzip, Compression::Zstd] {
        let mut layer = header.as_bytes().chain(std::io::repeat(0).take(size));
        let mut file = tempfile::tempfile().unwrap();
        if compression == Compression::Zstd {
            zstd::stream::copy_encode(&mut layer, &mut file, 1).unwrap();
        } else {
            let mut packed = GzEncoder::new(&mut file, Level::best());
            std::io::copy(&mut layer, &mut packed).unwrap();
            packed.finish().unwrap();
        }
        assert!(file.metadata().unwrap().len() < 64 << 10);
        std::io::Seek::rewind(&mut file).unwrap();
        let layer = Layer { file, compression, diff_id: Digest([0; 32]) };
        let limits = Limits { bytes_max: 64 << 30, bomb_bytes_min: 16 << 20, ..small() };
        let refusal = convert(vec![layer], limits).expect_err("a refusal");
        assert!(refusal.contains("bomb"), "{compression:?}: {refusal}");
    }
}

#[test]
fn attributes_and_kinds_arrive() {
    let mut device = Header::new_ustar();
    device.set_path("dev/x").unwrap();
    device.set_entry_type(EntryType::Char);
    device.set_mode(0o620);
    device.set_uid(1000);
    device.set_gid(5);
    device.set_mtime(1_700_000_000);
    device.set_device_major(4).unwrap();
    device.set_device_minor(300).unwrap();
    device.set_size(0);
    device.set_cksum();
    let mut tar = Tar::new().pax(&[
        ("path", "ü/long".as_bytes()),
        ("uid", b"3000000000"),
        ("mtime", b"-1.25"),
        ("SCHILY.xattr.user.note", b"a\nb=\0c"),
        ("SCHILY.xattr.security.capability", b"\x01\0\0\x02"),
        ("SCHILY.xattr.com.apple.quarantine", b"x"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
    ]);
    tar = tar.file("short", b"data").raw(EntryType::Fifo, "pipe", "", b"");
    tar.0.append(&device, &b""[..]).unwrap();
    let tree = tree(&[tar.bytes()]);
    let file = find(&tree, "ü/long").unwrap();
    assert_eq!(
        (file.meta.uid, file.meta.mtime_s, file.meta.mtime_ns),
        (3_000_000_000, -2, 750_000_000)
    );
    let names: Vec<_> = file.meta.xattrs.iter().map(|(name, _)| name.as_slice()).collect();
    assert_eq!(names, [&b"security.capability"[..], b"user.note"]);
    assert_eq!(file.meta.xattrs[1].1, b"a\nb=\0c");
    let device = find(&tree, "dev/x").unwrap();
    assert_eq!(device.node, Node::CharDevice(4, 300));
    assert_eq!((device.meta.mode, device.meta.uid, device.meta.gid), (0o620, 1000, 5));
    assert_eq!(find(&tree, "pipe").unwrap().node, Node::Fifo);
}

#[test]
fn the_same_layers_make_the_same_bytes() {
    let layers = || {
        let lower = Tar::new().file("a/b", &[1; 9000]).file("a/c", b"gone").bytes();
        let upper = Tar::new().file("a/.wh.c", b"").file("z", &[0; 70_000]).bytes();
        vec![plain(&lower), plain(&upper)]
    };
    let first = convert(layers(), small()).unwrap();
    assert_eq!(first, convert(layers(), small()).unwrap());
    assert_eq!(first.len() % 4096, 0);
}

#[test]
fn documents_are_checked() {
    let digest = Digest([0xab; 32]);
    let manifest = |config: &str, layer: &str, digest: &str| {
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"{config}","digest":"{digest}","size":2}},
            "layers":[{{"mediaType":"{layer}","digest":"{digest}","size":3}}]}}"#
        )
    };
    let good = manifest(OCI_CONFIG, OCI_LAYER, &digest.to_string());
    assert!(matches!(Document::parse(good.as_bytes(), None), Ok(Document::Manifest(_))));
    let refused = |text: &str, kind: Option<&str>| {
        Document::parse(text.as_bytes(), kind).expect_err("a refusal").to_string()
    };
    let table = [
        (manifest("text/plain", OCI_LAYER, &digest.to_string()), "is no image configuration"),
        (manifest(OCI_CONFIG, "application/zip", &digest.to_string()), "is no layer"),
        (manifest(OCI_CONFIG, OCI_LAYER, "sha512:00"), "begins with sha256"),
        (manifest(OCI_CONFIG, OCI_LAYER, "sha256:../../etc/passwd"), "64 digits"),
        (r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(), "schema version 1"),
        ("<html>".to_owned(), "makes no sense"),
        (" ".repeat(5 << 20), "too large"),
    ];
    for (text, reason) in table {
        let refusal = refused(&text, None);
        assert!(refusal.contains(reason), "{reason}: {refusal}");
    }
    assert!(refused(&good, Some("application/vnd.oci.artifact+json")).contains("is no image"));
    let config = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},
        "config":{"Env":null,"Cmd":["a"],"ExposedPorts":{"80/tcp":{}},"Volumes":null,
        "Healthcheck":{"Test":["CMD","x"],"Interval":5}}}"#;
    let parsed = ImageConfig::parse(config.as_bytes()).unwrap().config;
    assert_eq!(
        (parsed.cmd, parsed.exposed_ports),
        (vec!["a".to_owned()], vec!["80/tcp".to_owned()])
    );
    assert_eq!(parsed.healthcheck.unwrap().interval, 5);
    let arm = config.replace("amd64", "arm64");
    assert!(ImageConfig::parse(arm.as_bytes()).unwrap_err().to_string().contains("arm64"));
}
