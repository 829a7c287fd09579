//! Images: from a registry or an archive to a guest that runs them.
//!
//! VOLANT_TEST_IMAGES is what tests/devvm/images.sh has made.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, named};
use crate::registry::{REGISTRY, Registry, daemon};

const POLL: Duration = Duration::from_millis(100);
const DEADLINE: Duration = Duration::from_secs(120);

fn images() -> PathBuf {
    named("VOLANT_TEST_IMAGES")
}

fn reference(image: &str) -> String {
    format!("{REGISTRY}/debian/{image}")
}

fn shell(daemon: &Daemon, vm: &str, line: &str) -> Output {
    daemon.ctl(&["vms", "exec", vm, "--", "sh", "-c", line])
}

fn ok(daemon: &Daemon, args: &[&str]) -> String {
    let out = daemon.ctl(args);
    assert!(out.status.success(), "{args:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

fn json(daemon: &Daemon, args: &[&str]) -> serde_json::Value {
    serde_json::from_str(&ok(daemon, &[args, &["-o", "json"]].concat())).unwrap()
}

/// Microseconds from create to the agent's answer.
fn ready_us(daemon: &Daemon, vm: &str) -> u64 {
    let vm = json(daemon, &["vms", "get", vm]);
    vm["boot"]["steps"].as_array().unwrap().last().unwrap()["at_us"].as_u64().unwrap()
}

/// Asks until the page is there: a workload needs a moment after its guest.
fn wait_for_page(url: &[&str], text: &str) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let page =
            Command::new("curl").args(["-sS", "--max-time", "20"]).args(url).output().unwrap();
        if String::from_utf8_lossy(&page.stdout).contains(text) {
            return;
        }
        assert!(Instant::now() < deadline, "{url:?}: {page:?}");
        std::thread::park_timeout(POLL);
    }
}

/// A pull that its client does not wait for can be looked at, and is there in the end.
fn operations(daemon: &Daemon) {
    let socket = daemon.socket().display().to_string();
    let body = serde_json::json!({ "reference": reference("nginx") }).to_string();
    let out = Command::new("curl")
        .args(["-sSi", "--max-time", "300", "--unix-socket", &socket, "-d", &body])
        .args(["-H", "content-type: application/json", "-H", "prefer: respond-async"])
        .arg("http://localhost/api/v1/images/pull")
        .output()
        .unwrap();
    let head = String::from_utf8(out.stdout).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 202") && head.contains("preference-applied"), "{head}");
    let place = head.split("location: /api/v1/operations/").nth(1).unwrap();
    let id = place.lines().next().unwrap().trim();
    let shown = json(daemon, &["operations", "get", id, "--wait"]);
    let job = &shown[0];
    assert_eq!((&job["kind"], &job["state"]), (&"image.pull".into(), &"succeeded".into()), "{job}");
    assert!(job["subject"].as_str().unwrap().contains("nginx"), "{job}");
    // What has ended stays as it is; what never was is not found.
    let ended = json(daemon, &["operations", "cancel", id]);
    assert_eq!(ended[0]["state"], "succeeded", "{ended}");
    assert_eq!(daemon.ctl(&["operations", "get", "999"]).status.code(), Some(3));
    let all = json(daemon, &["operations", "list"]);
    assert_eq!(all.as_array().unwrap().len(), 2, "with the pull of the VM's image: {all}");
}

#[test]
fn an_image_is_pulled_serves_and_keeps_what_is_written() {
    let _registry = Registry::start();
    let daemon = daemon();
    let nginx = reference("nginx");
    ok(&daemon, &["vms", "create", "web", "--image", &nginx, "--memory", "192"]);
    let vm = json(&daemon, &["vms", "get", "web"]);
    let address = vm["ip_address"].as_str().unwrap();
    wait_for_page(&[&format!("http://{address}/")], "Welcome to nginx");
    let socket = daemon.socket().display().to_string();
    let proxied = "http://localhost/api/v1/vms/web/proxy/80/";
    wait_for_page(&["--unix-socket", &socket, proxied], "Welcome to nginx");

    let out = shell(
        &daemon,
        "web",
        "echo $IMAGE; cat /etc/hostname; grep -c web /etc/hosts; stat -f -c %T /",
    );
    assert_eq!(String::from_utf8_lossy(&out.stdout), "nginx\nweb\n1\noverlayfs\n", "{out:?}");
    let out = shell(
        &daemon,
        "web",
        "mkdir /var/www/new && echo mine > /var/www/new/file && rm -r /opt/odd",
    );
    assert!(out.status.success(), "{out:?}");

    operations(&daemon);

    // A second VM of it: no conversion, nothing of the first one's.
    ok(&daemon, &["vms", "create", "two", "--image", &nginx, "--memory", "192"]);
    let out = shell(&daemon, "two", "ls /var/www/new; ls /opt/odd/file");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "/opt/odd/file\n", "{out:?}");
    ok(&daemon, &["vms", "create", "plain", "--memory", "192"]);
    let (image, plain) = (ready_us(&daemon, "two"), ready_us(&daemon, "plain"));
    // One start of each says little: tests/bench/images.rs holds the median to its target.
    println!("ready after {image} us, without an image after {plain} us");
    ok(&daemon, &["vms", "delete", "plain"]);

    ok(&daemon, &["vms", "restart", "web"]);
    let out = shell(&daemon, "web", "cat /var/www/new/file; ls -d /opt/odd");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "mine\n", "{out:?}");
    wait_for_page(&[&format!("http://{address}/")], "Welcome to nginx");

    let out = daemon.ctl(&["images", "rm", &nginx]);
    assert_eq!(out.status.code(), Some(4), "an image in use was removed: {out:?}");
    let overlays =
        || std::fs::read_dir(daemon.state_dir().join("images/overlays")).unwrap().count();
    assert_eq!(overlays(), 2);
    ok(&daemon, &["vms", "delete", "web"]);
    ok(&daemon, &["vms", "delete", "two"]);
    assert_eq!(overlays(), 0, "a disk outlives its VM");

    let listed = json(&daemon, &["images", "ls"]);
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    let would = json(&daemon, &["images", "prune", "--all", "--dry-run"]);
    assert!(would.as_array().unwrap().iter().any(|one| one["kind"] == "root"), "{would}");
    let freed = json(&daemon, &["images", "prune", "--all"]);
    assert_eq!(would, freed);
    assert_eq!(json(&daemon, &["images", "ls"]), serde_json::json!([]));
}

#[test]
fn the_guest_sees_the_tree_that_umoci_unpacks() {
    let _registry = Registry::start();
    let daemon = daemon();
    // Everything in one run: what the image's own program would write is not wanted here.
    let flags = ["--image", &reference("nginx"), "--ephemeral", "--memory", "192"];
    ok(&daemon, &[&["vms", "create", "one"], &flags[..], &["--", "sleep", "infinity"]].concat());
    let script = std::fs::read_to_string(images().join("list.sh")).unwrap();
    let out = shell(&daemon, "one", &format!("cd / && {script}"));
    assert!(out.status.success(), "{out:?}");
    let text = String::from_utf8_lossy(&out.stdout);
    // What the agent writes, and the folders' times that change with it.
    let ours = ["etc", "etc/hosts", "etc/hostname", "etc/resolv.conf"];
    let is_ours = |line: &&str| ours.contains(&line.split(' ').next().unwrap());
    let found: Vec<&str> = text.lines().filter(|line| !is_ours(line)).collect();
    let expected = std::fs::read_to_string(images().join("nginx.list")).unwrap();
    let expected: Vec<&str> = expected.lines().filter(|line| !is_ours(line)).collect();
    let wrong: Vec<_> = found.iter().filter(|line| !expected.contains(line)).take(10).collect();
    let lacks: Vec<_> = expected.iter().filter(|line| !found.contains(line)).take(10).collect();
    assert!(wrong.is_empty() && lacks.is_empty(), "{wrong:#?} in place of {lacks:#?}");
    assert!(3000 < found.len());

    // Kept in memory: gone with the machine.
    let out = shell(&daemon, "one", "echo x > /opt/new");
    assert!(out.status.success(), "{out:?}");
    ok(&daemon, &["vms", "restart", "one"]);
    assert!(!shell(&daemon, "one", "cat /opt/new").status.success());
}

#[test]
fn an_archive_runs_as_its_configuration_says() {
    let daemon = daemon();
    let archive = images().join("python.tar").display().to_string();
    ok(&daemon, &["images", "import", &archive]);
    let listed = json(&daemon, &["images", "ls"]);
    assert_eq!(listed[0]["reference"], "docker.io/debian/python:saved");
    ok(&daemon, &["vms", "create", "py", "--image", "debian/python:saved", "--memory", "192"]);
    let vm = json(&daemon, &["vms", "get", "py"]);
    let address = vm["ip_address"].as_str().unwrap();
    wait_for_page(&[&format!("http://{address}:8000/")], "Directory listing for /");
    let script = "for p in /proc/[0-9]*; do if grep -aq http.serve[r] $p/cmdline; then \
        readlink $p/cwd; stat -c %U $p; fi; done; ls -d /data";
    let out = shell(&daemon, "py", script);
    assert_eq!(String::from_utf8_lossy(&out.stdout), "/srv\nwww-data\n/data\n", "{out:?}");
}

#[test]
fn a_crash_on_the_way_leaves_nothing_half_made() {
    let _registry = Registry::start();
    let mut daemon = daemon();
    let base = reference("base");
    let half_made = |daemon: &Daemon| {
        let images = daemon.state_dir().join("images");
        let count = |folder: &str| std::fs::read_dir(images.join(folder)).unwrap().count();
        (count("store/tmp"), count("store/roots"), count("overlays"))
    };
    // A disk too small for the download, then for what is made of it: told, and the next pull goes on.
    let store = daemon.state_dir().join("images/store");
    let mount = |options: &str| {
        let flags = ["-t", "tmpfs", "-o", options, "tmpfs"];
        let status = Command::new("mount").args(flags).arg(&store).status().unwrap();
        assert!(status.success(), "{status}");
    };
    let names = |folder: &str| std::fs::read_dir(store.join(folder)).unwrap().count();
    daemon.kill();
    mount("size=16m");
    daemon.restart();
    let full = |daemon: &Daemon| {
        let out = daemon.ctl(&["images", "pull", &base]);
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && text.contains("is full"), "{out:?}");
        assert_eq!(half_made(daemon), (0, 0, 0));
    };
    full(&daemon);
    assert_eq!(names("partial"), 1);
    mount("remount,size=80m");
    full(&daemon);
    assert_eq!(names("partial"), 0);
    mount("remount,size=1g");

    daemon.restart_to_crash_at("image.converted");
    assert!(!daemon.ctl(&["images", "pull", &base]).status.success());
    daemon.restart_after_crash();
    assert_eq!(half_made(&daemon), (0, 0, 0));
    daemon.restart_to_crash_at("overlay.made");
    let flags = ["--image", &base, "--memory", "96"];
    assert!(!daemon.ctl(&[&["vms", "create", "one"], &flags[..]].concat()).status.success());
    daemon.restart_after_crash();
    assert_eq!(half_made(&daemon), (0, 1, 0));
    ok(&daemon, &["vms", "start", "one"]);
    daemon.restart_to_crash_at("delete.overlay");
    let _ = daemon.ctl(&["vms", "delete", "one"]);
    daemon.restart_after_crash();
    assert_eq!(half_made(&daemon), (0, 1, 0));
    assert_eq!(json(&daemon, &["vms", "list"]), serde_json::json!([]));
    let status = Command::new("umount").arg("--lazy").arg(&store).status().unwrap();
    assert!(status.success(), "{status}");
}
