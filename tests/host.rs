//! The daemon's refusal on this very machine, where its KVM is the kind that cannot run Linux.

use std::path::Path;
use std::process::Command;

/// PVM without SVM or VMX: `/dev/kvm` is there and of no use. On any other machine there is nothing
/// to see; the sentence itself is also held by the unit test of `doctor/tests.rs`.
#[test]
fn a_pvm_host_is_recognized() {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let hardware = flags.split_whitespace().any(|flag| flag == "svm" || flag == "vmx");
    if hardware || !Path::new("/sys/module/kvm_pvm").exists() || !Path::new("/dev/kvm").exists() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_volantd"))
        .args(["serve", "--state-dir"])
        .arg(folder.path().join("state"))
        .output()
        .unwrap();
    let text = String::from_utf8(out.stderr).unwrap();
    assert!(
        !out.status.success() && text.contains("is PVM, which cannot run Linux guests"),
        "{text}"
    );
}
