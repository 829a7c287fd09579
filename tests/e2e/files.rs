//! Files and trees between the host and guests.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use crate::daemon::Daemon;

/// Files of the tree that is copied.
const FILES: usize = 5000;

fn ok(daemon: &Daemon, args: &[&str]) -> String {
    let out = daemon.ctl(args);
    assert!(out.status.success(), "{args:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

fn shell(daemon: &Daemon, line: &str) -> Output {
    daemon.ctl(&["vms", "exec", "one", "--", "sh", "-c", line])
}

fn created(memory: &str) -> Daemon {
    let daemon = Daemon::start();
    ok(&daemon, &["vms", "create", "one", "--memory", memory]);
    daemon
}

/// Mode, time, contents or link target of everything below `root`.
fn inventory(root: &Path) -> BTreeMap<PathBuf, (u32, i64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            let (time, data) = if metadata.is_dir() {
                pending.push(path.clone());
                (metadata.mtime(), Vec::new())
            } else if metadata.is_symlink() {
                let target = std::fs::read_link(&path).unwrap();
                (0, target.to_string_lossy().into_owned().into_bytes())
            } else {
                (metadata.mtime(), std::fs::read(&path).unwrap())
            };
            found
                .insert(path.strip_prefix(root).unwrap().to_owned(), (metadata.mode(), time, data));
        }
    }
    found
}

#[test]
fn a_tree_of_thousands_of_files_comes_back_the_same() {
    let daemon = created("256");
    let folder = tempfile::tempdir().unwrap();
    let (tree, back) = (folder.path().join("tree"), folder.path().join("back"));
    for index in 0..FILES {
        let below = tree.join(format!("{}/{}", index % 7, index % 50));
        std::fs::create_dir_all(&below).unwrap();
        let path = below.join(format!("file {index}"));
        std::fs::write(&path, vec![index.to_le_bytes()[0]; index % 900]).unwrap();
        let mode = [0o644, 0o600, 0o755, 0o4711][index % 4];
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    symlink("0/0", tree.join("relative")).unwrap();
    symlink("/no/such", tree.join("dangling")).unwrap();
    std::fs::hard_link(tree.join("0/0/file 0"), tree.join("again")).unwrap();
    let (tree_path, back_path) = (tree.to_str().unwrap(), back.to_str().unwrap());
    ok(&daemon, &["vms", "cp", tree_path, "one:/srv"]);
    let count = shell(&daemon, "find /srv -type f | wc -l");
    assert_eq!(String::from_utf8_lossy(&count.stdout).trim(), (FILES + 1).to_string());
    ok(&daemon, &["vms", "cp", "one:/srv", back_path]);
    let (before, after) = (inventory(&tree), inventory(&back));
    assert_eq!(before.len(), after.len());
    for (path, before) in &before {
        assert!(after[path] == *before, "{} has changed", path.display());
    }
    let ino = |path: &str| std::fs::metadata(back.join(path)).unwrap().ino();
    assert_eq!(ino("again"), ino("0/0/file 0"), "a hard link became a copy");
    // Into a folder that is there, and one file by itself.
    std::fs::create_dir(folder.path().join("into")).unwrap();
    let into = folder.path().join("into");
    ok(&daemon, &["vms", "cp", "one:/srv/again", into.to_str().unwrap()]);
    assert!(into.join("again").exists());
    let missing = daemon.ctl(&["vms", "cp", "one:/no/such", back_path]);
    assert_eq!(missing.status.code(), Some(3), "{missing:?}");
}

#[test]
fn large_files_stream_and_ranges_are_cut_out() {
    let daemon = created("256");
    let folder = tempfile::tempdir().unwrap();
    let large = folder.path().join("large");
    let data: Vec<u8> = (0..8_000_000u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&large, &data).unwrap();
    ok(&daemon, &["vms", "files", "stat", "one", "/"]);
    let before = daemon.private_kib();
    ok(&daemon, &["vms", "cp", large.to_str().unwrap(), "one:/tmp/large"]);
    let sum =
        |out: Output| String::from_utf8_lossy(&out.stdout).split(' ').next().map(str::to_owned);
    let here = std::process::Command::new("md5sum").arg(&large).output().unwrap();
    assert_eq!(sum(shell(&daemon, "md5sum /tmp/large")), sum(here));
    ok(&daemon, &["vms", "cp", "one:/tmp/large", folder.path().join("back").to_str().unwrap()]);
    assert!(std::fs::read(folder.path().join("back")).unwrap() == data, "it came back changed");
    assert!(shell(&daemon, "truncate -s 256M /tmp/sparse").status.success());
    let mut cat = daemon
        .command(&["vms", "files", "cat", "one", "/tmp/sparse"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let read = std::io::copy(&mut cat.stdout.take().unwrap(), &mut std::io::sink()).unwrap();
    assert!(cat.wait().unwrap().success() && read == 256 << 20, "{read} bytes");
    let grown = daemon.private_kib().saturating_sub(before);
    assert!(grown < 24 << 10, "the daemon has grown by {grown} KiB");
    let part = std::process::Command::new("curl")
        .args(["-s", "-H", &format!("Authorization: Bearer {}", daemon.token())])
        .args(["-r", "4-7", "http://127.0.0.1:17777/api/v1/vms/one/files/content?path=/tmp/large"])
        .output()
        .unwrap();
    assert_eq!(part.stdout, 1u32.to_le_bytes(), "{part:?}");
}

#[test]
fn files_are_changed_and_changes_are_told() {
    let daemon = created("96");
    ok(&daemon, &["vms", "files", "mkdir", "one", "/w/a", "-p", "--mode", "0700"]);
    let mut watch = daemon
        .command(&["vms", "files", "watch", "one", "/w", "-r"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().starts_with("started"));
    let change =
        "echo 1 > /w/a/f; chmod 600 /w/a/f; mkdir -p /w/b/c; mv /w/a/f /w/b/c/g; rm /w/b/c/g";
    assert!(shell(&daemon, change).status.success());
    let mut seen = Vec::new();
    for expected in [
        "create   /w/a/f",
        "write    /w/a/f",
        "chmod    /w/a/f",
        "create   /w/b",
        "rename   /w/a/f",
    ] {
        while !seen.iter().any(|line| line == expected) {
            seen.push(lines.next().unwrap());
        }
    }
    // `c` and `g` came to be before their folder was watched, or after: told once at least.
    while !seen.iter().any(|line| line == "remove   /w/b/c/g" || line == "create   /w/b/c") {
        seen.push(lines.next().unwrap());
    }
    watch.kill().unwrap();
    watch.wait().unwrap();
    let stat = ok(&daemon, &["vms", "files", "stat", "one", "/w/a", "-o", "json"]);
    let stat: serde_json::Value = serde_json::from_str(&stat).unwrap();
    assert_eq!((&stat["mode"], &stat["type"]), (&"0700".into(), &"directory".into()), "{stat}");
    ok(&daemon, &["vms", "files", "mv", "one", "/w/a", "/w/z"]);
    let list = ok(&daemon, &["vms", "files", "ls", "one", "/w", "-o", "json"]);
    assert!(list.contains("\"/w/z\"") && !list.contains("\"/w/a\""), "{list}");
    assert_eq!(daemon.ctl(&["vms", "files", "rm", "one", "/w"]).status.code(), Some(4));
    ok(&daemon, &["vms", "files", "rm", "one", "/w", "-r"]);
    let bad = daemon.ctl(&["vms", "files", "cat", "one", "/tmp/../etc/passwd"]);
    assert_eq!(bad.status.code(), Some(2), "{bad:?}");
}
