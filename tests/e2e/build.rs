//! Building: from a Volantfile to a plugin that runs.

use std::path::Path;

use serde_json::Value;

use crate::daemon::Daemon;

fn ok(daemon: &Daemon, args: &[&str]) -> String {
    let out = daemon.ctl(args);
    assert!(out.status.success(), "{args:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

const SCRIPT: &str = "#!/bin/sh\necho \"$GREETING from $(cat /etc/app.conf)\" >/www/index.html\n\
    exec httpd -f -p 8080 -h /www\n";

fn project(folder: &Path) {
    std::fs::create_dir_all(folder.join("etc")).unwrap();
    std::fs::create_dir_all(folder.join("www")).unwrap();
    std::fs::write(folder.join("run.sh"), SCRIPT).unwrap();
    std::fs::write(folder.join("etc/app.conf"), "its file\n").unwrap();
    std::fs::write(folder.join("www/about"), "built\n").unwrap();
    let text = "version = '1'\nstrategy = 'initramfs'\n[files]\n\
        '/usr/bin/app' = { source = 'run.sh', mode = '0755' }\n'/etc/app.conf' = 'etc/app.conf'\n\
        '/www' = 'www'\n[manifest]\nname = 'app'\nversion = '1.0'\n\
        resources = { cpu_cores = 1, memory_mb = 96 }\nenv = { GREETING = 'hello' }\n\
        [manifest.workload]\ntype = 'http'\nbase_url = 'http://127.0.0.1:8080'\n\
        entrypoint = ['/usr/bin/app']\n[manifest.health]\nhttp = { path = '/about' }\n\
        interval_ms = 300\n";
    std::fs::write(folder.join("Volantfile"), text).unwrap();
}

#[test]
fn a_volantfile_becomes_the_same_plugin_wherever_it_lies() {
    let daemon = Daemon::start();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut digests = Vec::new();
    for name in ["one", "another"] {
        project(&path(name));
        let (source, out) = (path(name).display().to_string(), path("out").display().to_string());
        let text = ok(&daemon, &["build", &source, "-d", &out, "-o", "json"]);
        let built: Value = serde_json::from_str(&text).unwrap();
        digests.push(built["digest"].as_str().unwrap().to_owned());
    }
    assert_eq!(digests[0], digests[1]);
    let manifest = path("out/app-1.0.manifest.json");
    let sum =
        std::process::Command::new("sha256sum").arg(path("out/app-1.0.cpio")).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    assert_eq!(format!("sha256:{}", &sum[..64]), digests[0], "what was written is what was built");
    std::fs::write(path("one/etc/app.conf"), "another file\n").unwrap();
    let (source, out) = (path("one").display().to_string(), path("other").display().to_string());
    let text = ok(&daemon, &["build", &source, "-d", &out, "-o", "json"]);
    assert!(!text.contains(&digests[0]), "another input is another artifact");

    // From the manifest that was written, after the daemon has forgotten what it has built.
    ok(&daemon, &["images", "prune"]);
    ok(&daemon, &["plugins", "install", "--manifest", manifest.to_str().unwrap()]);
    ok(&daemon, &["vms", "create", "one", "--plugin", "app"]);
    let page = ok(&daemon, &["vms", "exec", "one", "--", "wget", "-qO-", "127.0.0.1:8080"]);
    assert_eq!(page, "hello from its file\n");
    ok(&daemon, &["vms", "delete", "one"]);
    ok(&daemon, &["plugins", "remove", "app"]);
    let source = path("another").display().to_string();
    ok(&daemon, &["build", &source, "-d", &out, "--install"]);
    ok(&daemon, &["vms", "create", "two", "--plugin", "app"]);
}
