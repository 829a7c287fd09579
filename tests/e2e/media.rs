//! What VMs are made of beside images: files by address and checksum, from servers and folders.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::daemon::{Daemon, named};

const HOST: &str = "127.0.0.1:15001";

fn ok(daemon: &Daemon, args: &[&str]) -> String {
    let out = daemon.ctl(args);
    assert!(out.status.success(), "{args:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

fn refused(out: &Output, code: i32, words: &str) {
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(code) && text.contains(words), "{words}: {out:?}");
}

fn guest(daemon: &Daemon, vm: &str, line: &str) -> String {
    ok(daemon, &["vms", "exec", vm, "--", "sh", "-c", line])
}

fn sha256(bytes: &[u8]) -> String {
    let mut child = std::process::Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let out = child.wait_with_output().unwrap().stdout;
    format!("sha256:{}", &String::from_utf8(out).unwrap()[..64])
}

/// Serves files by name until the test ends; the first answer breaks off in the middle.
fn serve(files: Vec<(&'static str, Vec<u8>)>) -> Arc<AtomicUsize> {
    let listener = TcpListener::bind(HOST).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let answer = move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let path = head.split(' ').nth(1).unwrap();
            let found = files.iter().find(|(name, _)| path == format!("/{name}"));
            let Some((_, body)) = found else {
                let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
                continue;
            };
            let range = head.lines().find_map(|line| line.strip_prefix("range: bytes="));
            let from = range.map_or(0, |range| range.trim_end_matches('-').parse().unwrap());
            let status = if from == 0 { "200 OK" } else { "206 Partial Content" };
            let rest = &body[from..];
            let len = rest.len();
            let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {len}\r\n\r\n");
            let first = count.fetch_add(1, Ordering::SeqCst) == 0;
            let _ = stream.write_all(if first { &rest[..len / 2] } else { rest });
        }
    };
    drop(std::thread::Builder::new().spawn(answer).unwrap());
    asked
}

fn install(daemon: &Daemon, manifest: &Value) -> Output {
    let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
    std::fs::write(file.path(), manifest.to_string()).unwrap();
    daemon.ctl(&["plugins", "install", "--manifest", file.path().to_str().unwrap()])
}

#[test]
fn a_plugin_by_address_and_checksum_just_runs() {
    let folder = tempfile::tempdir().unwrap();
    let allowed = folder.path().join("allowed");
    std::fs::create_dir(&allowed).unwrap();
    let daemon = Daemon::start_with(&format!(
        "[artifacts]\nplain_http_hosts = [\"{HOST}\"]\nfolders = [\"{}\"]\n",
        allowed.display()
    ));
    let images = daemon.state_dir().join("images");
    let initramfs = std::fs::read_dir(&images).unwrap().flatten().map(|entry| entry.path());
    let initramfs = initramfs.filter(|path| path.extension().is_some_and(|end| end == "cpio"));
    let initramfs = std::fs::read(initramfs.last().unwrap()).unwrap();
    let mut disk = vec![0; 1 << 20];
    disk[..5].copy_from_slice(b"hello");
    let (initramfs_sum, disk_sum) = (sha256(&initramfs), sha256(&disk));
    let asked = serve(vec![("initramfs", initramfs), ("disk", disk)]);
    let mut manifest = json!({
        "name": "remote", "version": "1",
        "initramfs": { "url": format!("http://{HOST}/initramfs"), "checksum": initramfs_sum },
        "resources": { "cpu_cores": 1, "memory_mb": 96 },
        "workload": { "entrypoint": ["sleep", "100000"] },
        "disks": [{ "name": "d", "source": format!("http://{HOST}/disk"), "checksum": disk_sum }],
        "cloud_init": { "user_data": { "content": "#cloud-config\n" } }
    });
    assert!(install(&daemon, &manifest).status.success());
    let meta_data = folder.path().join("meta-data");
    std::fs::write(&meta_data, "instance-id: own\n").unwrap();
    let flags = ["--plugin", "remote", "--meta-data", meta_data.to_str().unwrap()];
    ok(&daemon, &[&["vms", "create", "one"], &flags[..]].concat());
    assert_eq!(asked.load(Ordering::SeqCst), 3, "one download went on where it was cut");
    ok(&daemon, &["vms", "create", "two", "--plugin", "remote"]);
    assert_eq!(asked.load(Ordering::SeqCst), 3, "what is here is not brought again");

    // Each writes to a copy of its own, which stays over a stop.
    let line = "dd if=/dev/vda bs=5 count=1 2>/dev/null; printf mine! | dd of=/dev/vda conv=fsync 2>/dev/null";
    assert_eq!(guest(&daemon, "one", line), "hello");
    ok(&daemon, &["vms", "restart", "one"]);
    let read = "dd if=/dev/vda bs=5 count=1 2>/dev/null";
    assert_eq!(guest(&daemon, "one", read), "mine!");
    assert_eq!(guest(&daemon, "two", read), "hello");

    // The last disk is the seed: the request's documents, the manifest's, and what is said otherwise.
    let line =
        "mount -t vfat -o ro /dev/vdb /mnt && cd /mnt && cat user-data meta-data; ls | wc -l";
    assert_eq!(guest(&daemon, "one", line), "#cloud-config\ninstance-id: own\n2\n");
    let expected = "#cloud-config\ninstance-id: volant-2\nlocal-hostname: two\n2\n";
    assert_eq!(guest(&daemon, "two", line), expected);

    // Kept as long as somebody needs it.
    let listed: Value =
        serde_json::from_str(&ok(&daemon, &["artifacts", "ls", "-o", "json"])).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
    let prune = ["images", "prune", "--all", "-o", "json"];
    assert_eq!(ok(&daemon, &prune), "[]\n");
    ok(&daemon, &["vms", "delete", "one"]);
    ok(&daemon, &["vms", "delete", "two"]);
    assert_eq!(std::fs::read_dir(images.join("overlays")).unwrap().count(), 0);
    ok(&daemon, &["plugins", "remove", "remote"]);
    let would = ok(&daemon, &["images", "prune", "--dry-run", "-o", "json"]);
    assert_eq!(would.matches("\"artifact\"").count(), 2, "{would}");
    assert_eq!(ok(&daemon, &["images", "prune", "-o", "json"]), would);

    // Refused by name, and nothing is left.
    manifest["disks"] = json!([{ "name": "d", "source": format!("http://{HOST}/disk"),
        "checksum": sha256(b"other") }]);
    assert!(install(&daemon, &manifest).status.success());
    refused(&daemon.ctl(&["vms", "create", "x", "--plugin", "remote"]), 2, "has the digest");
    let mut next = |version: &str, disk: Value| {
        (manifest["version"], manifest["disks"]) = (json!(version), json!([disk]));
        assert!(install(&daemon, &manifest).status.success());
        daemon.ctl(&["vms", "create", "x", "--plugin", "remote"])
    };
    let source = |url: &str| json!({ "name": "d", "source": url, "checksum": disk_sum });
    let missing = format!("http://{HOST}/none");
    refused(&next("2", source(&missing)), 3, "has no");
    refused(&next("3", source("https://other.example/disk")), 2, "not among");
    refused(&next("4", source("http://127.0.0.1:1/disk")), 2, "without TLS");
    refused(&next("5", source("/etc/passwd")), 2, "none of the folders");
    let plain = |url: &str| json!({ "name": "d", "source": url });
    refused(&next("6", plain("/etc/passwd")), 2, "none of the folders");
    refused(&next("7", plain(&format!("http://{HOST}/disk"))), 2, "--insecure");
    ok(&daemon, &["vms", "create", "x", "--plugin", "remote", "--insecure", "--no-start"]);
    ok(&daemon, &["vms", "delete", "x"]);
    let secret = daemon.state_dir().join("token").display().to_string();
    for path in [secret.as_str(), "/etc/shadow", "/nonexistent"] {
        for flag in ["--disk", "--kernel", "--initramfs"] {
            refused(&daemon.ctl(&["vms", "create", "y", flag, path]), 2, "none of the folders");
        }
    }
    let link = allowed.join("link");
    std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
    refused(&daemon.ctl(&["vms", "create", "y", "--disk", link.to_str().unwrap()]), 2, "none of");
    assert_eq!(ok(&daemon, &["vms", "list", "-o", "json"]), "[]\n");
}

/// VOLANT_TEST_DISKS is what tests/devvm/disks.sh has made.
fn disk(name: &str) -> String {
    named("VOLANT_TEST_DISKS").join(name).display().to_string()
}

#[test]
fn a_disk_without_an_agent_has_a_console_and_a_network() {
    let mut daemon = Daemon::start();
    let path = disk("plain.qcow2");
    let manifest = json!({
        "name": "plain", "version": "1", "agent": false,
        "rootfs": {
            "url": path, "checksum": sha256(&std::fs::read(&path).unwrap()), "format": "qcow2"
        },
        "resources": { "cpu_cores": 1, "memory_mb": 96 }
    });
    assert!(install(&daemon, &manifest).status.success());
    // Killed with the disk unpacked, then with the VM's copy made: neither has a name, and it goes on.
    let images = daemon.state_dir().join("images");
    let made = || {
        let count = |folder: &str| std::fs::read_dir(images.join(folder)).unwrap().count();
        (count("store/tmp"), count("store/artifacts"), count("store/disks"), count("overlays"))
    };
    let create = ["vms", "create", "one", "--plugin", "plain"];
    for (point, left) in [("artifact.unpacked", (0, 1, 0, 0)), ("disk.copied", (0, 1, 1, 0))] {
        daemon.restart_to_crash_at(point);
        assert!(!daemon.ctl(&create).status.success());
        daemon.restart_after_crash();
        assert_eq!(made(), left, "{point}");
    }
    ok(&daemon, &["vms", "start", "one"]);
    assert_eq!(made(), (0, 1, 1, 1));
    let vm: Value =
        serde_json::from_str(&ok(&daemon, &["vms", "get", "one", "-o", "json"])).unwrap();
    assert_eq!(
        (&vm["boot_from"], &vm["status"]),
        (&json!("disk-without-agent"), &json!("running"))
    );
    daemon.wait("its console", || ok(&daemon, &["vms", "logs", "one"]).contains("no agent here: "));
    let log = ok(&daemon, &["vms", "logs", "one"]);
    assert!(log.contains("root=/dev/vda2"), "the second partition: {log}");
    let address = format!("http://{}/", vm["ip_address"].as_str().unwrap());
    daemon.wait("its page", || {
        let page = std::process::Command::new("curl").args(["-s", &address]).output().unwrap();
        page.stdout == b"served without an agent\n"
    });
    refused(&daemon.ctl(&["vms", "exec", "one", "--", "true"]), 4, "no agent");
    let answer = daemon.client().get("/api/v1/vms/one/files/list?path=/");
    assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (409, &json!("vm_without_agent")));
    let flags = ["--boot-from", "disk-without-agent", "--disk", &path, "--volume", "a:/b"];
    refused(&daemon.ctl(&[&["vms", "create", "two"], &flags[..]].concat()), 2, "nobody would");
    ok(&daemon, &["vms", "stop", "one"]);
    ok(&daemon, &["vms", "delete", "one"]);
}
