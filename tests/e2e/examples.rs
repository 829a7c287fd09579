//! The reference plugins of docs/examples, as they stand but for the name of the registry. Those of images are in
//! tests/stress/plugins.rs.

use std::path::{Path, PathBuf};

use crate::daemon::Daemon;
use crate::registry::REGISTRY;

pub(crate) fn ok(daemon: &Daemon, args: &[&str]) -> String {
    let out = daemon.ctl(args);
    assert!(out.status.success(), "{args:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

/// A copy of an example that names the test's registry.
pub(crate) fn example(name: &str, folder: &Path) -> PathBuf {
    let copy = folder.join(name);
    std::fs::create_dir(&copy).unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples").join(name);
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let text = std::fs::read_to_string(entry.path()).unwrap();
        let text = text.replace("registry.example", REGISTRY);
        std::fs::write(copy.join(entry.file_name()), text).unwrap();
    }
    copy
}

pub(crate) fn install(daemon: &Daemon, name: &str, folder: &Path) {
    let manifest = example(name, folder).join("manifest.yaml").display().to_string();
    ok(daemon, &["plugins", "install", name, "--manifest", &manifest]);
}

/// What the workers say of two steps.
pub(crate) fn two_steps() -> String {
    let event = |step| format!("event: progress\ndata: {{\"step\": {step}, \"of\": 2}}\n\n");
    event(1) + &event(2)
}

#[test]
fn reference_plugins_without_an_image_do_what_they_say() {
    let daemon = Daemon::start();
    let folder = tempfile::tempdir().unwrap();
    for name in ["http-appliance", "worker"] {
        install(&daemon, name, folder.path());
    }
    let greeting = ["--env", "GREETING=hi"];
    ok(
        &daemon,
        &[&["vms", "create", "page", "--plugin", "http-appliance"], &greeting[..]].concat(),
    );
    ok(&daemon, &["vms", "create", "w0", "--plugin", "worker", "--env", "STEPS=2"]);
    assert_eq!(ok(&daemon, &["vms", "action", "page", "http-appliance", "page"]), "hi\n");
    let payload = ["--payload", "\"1234\""];
    let out = ok(&daemon, &[&["vms", "action", "w0", "worker", "count"], &payload[..]].concat());
    assert_eq!(out, "{\"vm\": \"w0\", \"bytes\": 6}\n");
    assert_eq!(ok(&daemon, &["plugins", "action", "worker", "progress"]), two_steps());
    assert_eq!(ok(&daemon, &["vms", "logs", "w0"]), "worker ready, 2 steps\n");
}
