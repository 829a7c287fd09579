//! Disks: raw files of the host that outlive the machine.

use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::daemon::Daemon;

const DISK_LEN: u64 = 8 << 20;

fn make_disk(path: &Path) -> String {
    std::fs::File::create(path).unwrap().set_len(DISK_LEN).unwrap();
    path.display().to_string()
}

fn shell(daemon: &Daemon, vm: &str, line: &str) -> std::process::Output {
    daemon.ctl(&["vms", "exec", vm, "--", "sh", "-c", line])
}

#[test]
fn what_a_guest_writes_is_there_after_a_restart() {
    let daemon = Daemon::start();
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let (first_path, second_path) = (make_disk(&first), make_disk(&second));
    std::fs::write(&second, vec![0xab; 4 << 20]).unwrap();
    let readonly = format!("{second_path}:ro");
    let flags = ["--memory", "64", "--disk", first_path.as_str(), "--disk", readonly.as_str()];
    let out = daemon.ctl(&[&["vms", "create", "one"], &flags[..]].concat());
    assert!(out.status.success(), "{out:?}");

    // 4 MiB in large requests, and one sector in the middle of it, flushed.
    let write = "cat /dev/vdb > /dev/vda && echo -n volant | dd of=/dev/vda bs=512 seek=100 conv=notrunc,fsync";
    let out = shell(&daemon, "one", &format!("{write} && sync && cat /sys/block/vda/serial"));
    assert_eq!(out.stdout, b"disk-0", "{out:?}");
    let mut start = [0; 6];
    std::fs::File::open(&first).unwrap().read_exact_at(&mut start, 51_200).unwrap();
    assert_eq!(&start, b"volant", "the host's file has not what the guest has flushed");
    let out = shell(&daemon, "one", "dd if=/dev/zero of=/dev/vdb bs=512 count=1 conv=fsync");
    assert!(!out.status.success(), "a read-only disk was written to: {out:?}");

    // One writer: another VM is refused while this one runs, and may have it afterwards.
    let out = daemon.ctl(&["vms", "create", "two", "--memory", "64", "--disk", &first_path]);
    assert!(
        !out.status.success() && String::from_utf8_lossy(&out.stderr).contains("in use"),
        "{out:?}"
    );
    assert!(daemon.ctl(&["vms", "restart", "one"]).status.success());
    let read = "dd if=/dev/vda bs=512 skip=100 count=1 2>/dev/null | head -c 6; md5sum < /dev/vdb";
    let out = shell(&daemon, "one", read);
    assert!(out.stdout.starts_with(b"volant"), "{out:?}");
    assert!(daemon.ctl(&["vms", "stop", "one"]).status.success());
    let out = daemon.ctl(&["vms", "start", "two"]);
    assert!(out.status.success(), "{out:?}");
    assert!(daemon.ctl(&["vms", "delete", "two"]).status.success());
    assert!(first.exists(), "deleting a VM does not delete the host's files");
}

#[test]
fn what_cannot_be_a_disk_is_refused_by_name() {
    let daemon = Daemon::start();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    std::fs::write(path("empty"), "").unwrap();
    let table = [
        (path("missing"), "does not exist"),
        (path(""), "is a directory"),
        (path("socket"), "is a socket"),
        (path("empty"), "is empty"),
        ("/dev/null".to_owned(), "is a character device"),
        ("relative".to_owned(), "is not an absolute path"),
    ];
    for (disk, text) in table {
        let out = daemon.ctl(&["vms", "create", "bad", "--disk", &disk]);
        assert_eq!(out.status.code(), Some(2), "{disk}: {out:?}");
        assert!(String::from_utf8_lossy(&out.stderr).contains(text), "{disk}: {out:?}");
    }
    assert_eq!(daemon.ctl(&["vms", "list", "-o", "json"]).stdout, b"[]\n");
}
