//! A file of a gibibyte, into a guest and back.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

use crate::daemon::Daemon;
use crate::examples::ok;

const FILE_MIB: u32 = 1024;
/// What the daemon may grow by, whatever a file's size.
const GROWTH_KIB_MAX: u64 = 24 << 10;

/// A file in which no two pages are alike.
fn write(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    for mib in 0..FILE_MIB {
        let numbers = (mib << 18)..((mib + 1) << 18);
        let data: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
        file.write_all(&data).unwrap();
    }
}

fn sum(out: &Output) -> String {
    assert!(out.status.success(), "{out:?}");
    String::from_utf8_lossy(&out.stdout).split(' ').next().unwrap().to_owned()
}

#[test]
fn a_file_of_a_gibibyte_costs_no_memory() {
    let daemon = Daemon::start();
    ok(&daemon, &["vms", "create", "one", "--memory", "2560"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large");
    let (here, inside) = (path.to_str().unwrap(), "one:/tmp/large");
    write(&path);
    let wanted = sum(&Command::new("md5sum").arg(&path).output().unwrap());
    ok(&daemon, &["vms", "files", "stat", "one", "/"]);
    let before = daemon.private_kib();
    ok(&daemon, &["vms", "cp", here, inside]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(sum(&daemon.ctl(&["vms", "exec", "one", "--", "md5sum", "/tmp/large"])), wanted);
    ok(&daemon, &["vms", "cp", inside, here]);
    assert_eq!(sum(&Command::new("md5sum").arg(&path).output().unwrap()), wanted);
    let after = daemon.private_kib();
    println!("{FILE_MIB} MiB each way: {before} KiB of the daemon became {after} KiB");
    assert!(after < before + GROWTH_KIB_MAX, "{before} KiB became {after} KiB");
}
