//! `volantd ctl` as a program: its help, its completions, its forms of output, and what it says when
//! something is wrong. Where a daemon is needed, one answers that knows a few paths only, as an older
//! one would.
#![expect(clippy::unwrap_used, reason = "a step that fails is the test's failure")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use volantd::cli;

const PROGRAM: &str = env!("CARGO_BIN_EXE_volantd");

/// What a daemon that is not ours to build answers: path, status, body.
type Answers = &'static [(&'static str, u16, &'static str)];

const INFO: &str = r#"{"status":"ok","version":"0.0.1","vms":{"running":1}}"#;
const VMS: &str = r#"[{"id":1,"name":"web","status":"running","ready":true,"runtime":"default",
    "ip_address":"192.168.127.2","mac_address":"02:76:c0:a8:7f:02","vsock_cid":3,"cpu_cores":2,
    "memory_mb":512,"kernel_cmdline":"","console":true,"boot_from":"initramfs",
    "created_at":"2026-11-25T09:59:37Z","updated_at":"2026-11-25T09:59:37Z","labels":{"tier":"front"},
    "boot":{"exits":0,"steps":[]}}]"#;
const NO_VM: &str = r#"{"type":"urn:volant:problem:vm_not_found","title":"Not Found","status":404,
    "detail":"there is no VM \"wbe\"","code":"vm_not_found","error":"there is no VM \"wbe\""}"#;
const NO_ROUTE: &str = r#"{"type":"urn:volant:problem:route_not_found","title":"Not Found","status":404,
    "detail":"there is nothing here","code":"route_not_found","error":"there is nothing here"}"#;
const NO_FIELD: &str = r#"{"type":"urn:volant:problem:invalid_body","title":"Unprocessable","status":422,
    "detail":"unknown field `ttl_ms`","code":"invalid_body","error":"unknown field `ttl_ms`"}"#;
const ANSWERS: Answers = &[
    ("GET /api/v1/system/info", 200, INFO),
    ("GET /api/v1/vms", 200, VMS),
    ("GET /api/v1/vms/web", 200, VMS_ONE),
    ("GET /api/v1/vms/wbe", 404, NO_VM),
    ("POST /api/v1/vms?wait=true&until=ready&timeout_ms=120000", 422, NO_FIELD),
    ("GET /api/v1/plugins", 200, r#"{"plugins":["nginx"],"items":[]}"#),
];
const VMS_ONE: &str = r#"{"id":1,"name":"web","status":"running","ready":true,"runtime":"default",
    "ip_address":"192.168.127.2","mac_address":"02:76:c0:a8:7f:02","vsock_cid":3,"cpu_cores":2,
    "memory_mb":512,"kernel_cmdline":"","console":true,"boot_from":"initramfs",
    "created_at":"2026-11-25T09:59:37Z","updated_at":"2026-11-25T09:59:37Z",
    "boot":{"exits":0,"steps":[]}}"#;

/// A folder with a socket on which answers are given until the test ends.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        let serve = move || listener.incoming().for_each(|stream| answer(&mut stream.unwrap()));
        std::thread::Builder::new().name("daemon".to_owned()).spawn(serve).unwrap();
        Place { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn host(&self) -> String {
        format!("unix://{}", self.path("socket").display())
    }

    fn command(&self, program: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(words).env_clear().env("XDG_CONFIG_HOME", self.path("config"));
        command.env("VOLANT_HOST", self.host()).stdin(Stdio::null());
        command
    }

    fn ctl(&self, words: &[&str]) -> Output {
        self.command(Path::new(PROGRAM), &[&["ctl"], words].concat()).output().unwrap()
    }
}

fn answer(stream: &mut (impl Read + Write)) {
    let mut head = String::new();
    let mut reader = BufReader::new(&mut *stream);
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).unwrap(), 0, "the request's head ends: {head}");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).unwrap();
    let asked = head.rsplit_once(" HTTP/1.1").unwrap().0.to_owned();
    let known = ANSWERS.iter().find(|(path, ..)| *path == asked);
    let (status, text) = known.map_or((404, NO_ROUTE), |(_, status, text)| (*status, *text));
    let head = format!("HTTP/1.1 {status} Status\r\ncontent-length: {}\r\n", text.len());
    // A client that has gone does not read the answer.
    let _ = write!(stream, "{head}connection: close\r\n\r\n{text}");
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What is said on stderr, with the exit code.
fn refusal(output: &Output) -> (i32, String) {
    (output.status.code().unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

fn golden(path: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("VOLANT_UPDATE_GOLDENS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = text.lines().zip(expected.lines()).find(|(now, then)| now != then);
    assert!(
        text == expected,
        "{} is stale from {differs:?} on; VOLANT_UPDATE_GOLDENS=1 writes it anew",
        path.display()
    );
}

#[test]
fn the_reference_is_what_the_help_says() {
    golden("docs/cli-reference.md", &cli::reference(cli::command()));
}

#[test]
fn each_command_has_a_man_page() {
    let place = Place::new();
    let folder = place.path("man");
    let made = place.command(Path::new(PROGRAM), &["man", folder.to_str().unwrap()]);
    stdout(&{ made }.output().unwrap());
    let page = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    assert!(page("volantd.1").contains(".TH volantd 1"));
    assert!(page("volantd-ctl-port-forward.1").contains("web 8081:80"));
    golden("tests/golden/volantd-ctl-vms-create.1", &page("volantd-ctl-vms-create.1"));
}

#[test]
fn a_shell_completes_verbs_and_names() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let words = ["completions", shell];
        let script = place.command(Path::new(PROGRAM), &words).output().unwrap();
        let script = stdout(&script);
        assert!(script.contains("volantd") && script.contains("volar"), "{script}");
        golden(&format!("tests/golden/completions.{shell}"), &script);
    }
    let complete = |words: &[&str]| {
        let all = [&["--", "volantd", "ctl"], words].concat();
        let mut asked = place.command(Path::new(PROGRAM), &all);
        let index = (words.len() + 1).to_string();
        asked.env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", index);
        asked.env("_CLAP_IFS", "\n").env("_CLAP_COMPLETE_COMP_TYPE", "9");
        let text = stdout(&asked.output().unwrap());
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete(&["vms", "sta"]), ["start"]);
    assert_eq!(complete(&["vms", "stop", "w"]), ["web"]);
    assert_eq!(complete(&["plugins", "show", ""])[0], "nginx");
    assert_eq!(complete(&["vms", "create", "--plugin", "ng"]), ["nginx"]);
}

#[test]
fn lists_come_in_every_form() {
    let place = Place::new();
    let list = |more: &[&str]| stdout(&place.ctl(&[&["vms", "list"], more].concat()));
    let table = list(&[]);
    let words: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(words[..4], ["web", "running", "-", "192.168.127.2"]);
    assert!(!table.contains('\u{1b}'), "no colors in a pipe: {table:?}");
    assert!(list(&["-o", "wide"]).contains("02:76:c0:a8:7f:02") && !table.contains("02:76"));
    assert_eq!(list(&["-q"]), "web\n");
    assert_eq!(list(&["-o", "name"]), "web\n");
    assert_eq!(list(&["--template", "{{ name }}: {{ labels.tier }}"]), "web: front\n");
    assert!(list(&["-o", "json"]).starts_with("[\n"));
    assert!(list(&["-o", "yaml"]).contains("name: web"));
    let wrong = place.ctl(&["vms", "list", "--template", "{{ name"]);
    assert!(matches!(refusal(&wrong), (2, text) if text.contains("hint: for example")));
}

#[test]
fn wrong_input_gets_a_hint() {
    let place = Place::new();
    let (code, text) = refusal(&place.ctl(&["vms", "strat", "web"]));
    assert!(code == 2 && text.contains("'start'"), "{text}");
    let (code, text) = refusal(&place.ctl(&["vms", "get", "wbe"]));
    assert!(code == 3 && text.contains("hint: did you mean web?"), "{text}");
    let (code, text) = refusal(&place.ctl(&["--context", "lab", "info"]));
    assert!(code == 3 && text.contains("hint: `volantd ctl context list`"), "{text}");
    let (code, text) = refusal(&place.ctl(&["--host", "nowhere", "info"]));
    assert!(code == 2 && text.contains("hint: unix:///path"), "{text}");
    let (code, text) = refusal(&place.ctl(&["port-forward", "web", "a:b"]));
    assert!(code == 2 && text.contains("is not like 8080:80"), "{text}");
}

#[test]
fn a_daemon_that_is_old_or_not_there_is_told() {
    let place = Place::new();
    let (code, text) = refusal(&place.ctl(&["images", "ls"]));
    assert_eq!(code, 3);
    assert!(
        text.contains("there is nothing here") && text.contains("the daemon is 0.0.1"),
        "{text}"
    );
    let (code, text) = refusal(&place.ctl(&["vms", "create", "x", "--ttl", "1h"]));
    assert_eq!(code, 2);
    assert!(text.contains("unknown field") && text.contains("the daemon is 0.0.1"), "{text}");
    let (code, text) = refusal(&place.ctl(&["--host", "unix:///nowhere/socket", "info"]));
    assert_eq!(code, 6);
    assert!(text.contains("no daemon answers at /nowhere/socket"), "{text}");
    assert!(text.contains("hint: start it with `volantd serve`"), "{text}");
}

#[test]
fn nobody_who_reads_and_no_terminal_are_no_surprises() {
    let place = Place::new();
    let mut child = place.command(Path::new(PROGRAM), &["ctl", "vms", "list"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let (code, text) = refusal(&child.wait_with_output().unwrap());
    assert_eq!((code, text.as_str()), (141, ""));
    let (code, text) = refusal(&place.ctl(&[]));
    assert!(code == 2 && text.contains("needs a terminal") && text.contains("hint:"), "{text}");
}

#[test]
fn contexts_name_daemons() {
    let place = Place::new();
    let host = place.host();
    let without = |words: &[&str]| {
        let mut command = place.command(Path::new(PROGRAM), &[&["ctl"], words].concat());
        command.env_remove("VOLANT_HOST").output().unwrap()
    };
    stdout(&without(&["context", "add", "lab", "--host", &host]));
    stdout(&without(&[
        "context",
        "add",
        "far",
        "--host",
        "http://192.0.2.1:1",
        "--token-file",
        "t",
    ]));
    let mode = place.path("config/volant/contexts.toml").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(stdout(&without(&["--context", "lab", "vms", "list", "-q"])), "web\n");
    stdout(&without(&["context", "use", "lab"]));
    assert_eq!(stdout(&without(&["vms", "list", "-q"])), "web\n");
    let list = stdout(&without(&["context", "list"]));
    assert!(list.lines().any(|line| line.starts_with("*  ") && line.contains("lab")), "{list}");
    let (code, text) = refusal(&without(&["context", "use", "lba"]));
    assert!(code == 3 && text.contains("did you mean lab?"), "{text}");
    stdout(&without(&["context", "remove", "lab"]));
    assert_eq!(stdout(&without(&["context", "list", "-q"])), "far\n");
    let mut by_variable = place.command(Path::new(PROGRAM), &["ctl", "vms", "list", "-q"]);
    stdout(&without(&["context", "add", "lab", "--host", &host]));
    by_variable.env_remove("VOLANT_HOST").env("VOLANT_CONTEXT", "lab");
    assert_eq!(stdout(&by_variable.output().unwrap()), "web\n");
}

#[test]
fn volar_is_ctl_and_any_request_can_be_sent() {
    let place = Place::new();
    let link = place.path("volar");
    std::os::unix::fs::symlink(PROGRAM, &link).unwrap();
    let list = place.command(&link, &["vms", "list", "-q"]).output().unwrap();
    assert_eq!(stdout(&list), "web\n");
    let config = place.command(&link, &["config", "show"]).output().unwrap();
    assert!(stdout(&config).contains("state_dir"));
    assert_eq!(stdout(&place.ctl(&["api", "get", "system/info"])), INFO);
    assert_eq!(stdout(&place.ctl(&["api", "GET", "/api/v1/system/info"])), INFO);
    let unknown = place.ctl(&["api", "GET", "nothing"]);
    assert_eq!(unknown.status.code(), Some(3));
    assert_eq!(String::from_utf8_lossy(&unknown.stdout), NO_ROUTE);
}
