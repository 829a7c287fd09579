//! Processes in guests, with real clients: `ctl`, a terminal, and the kubernetes package.

use std::process::{Command, Output};

use crate::daemon::Daemon;

/// Sends stdin and prints what came back and the exit code; by the foreign client alone.
const WS_CLIENT: &str = r#"
import sys
from kubernetes.client import Configuration
from kubernetes.stream.ws_client import WSClient
url, token = sys.argv[1:]
query = "command=sh&command=-c&command=cat%3B%20echo%20err%20%3E%262%3B%20exit%203"
client = WSClient(Configuration(), url + "?stdin=true&stdout=true&stderr=true&" + query,
                  {"authorization": "Bearer " + token}, capture_all=True)
client.write_stdin("hello from a foreign client\n")
client.close_channel(0)
client.run_forever(timeout=60)
print(client.subprotocol, client.read_stdout(), client.read_stderr(), client.returncode)
"#;

fn ok(daemon: &Daemon, args: &[&str]) -> String {
    let out = daemon.ctl(args);
    assert!(out.status.success(), "{args:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

fn shell(daemon: &Daemon, line: &str) -> Output {
    daemon.ctl(&["vms", "exec", "one", "--", "sh", "-c", line])
}

fn created() -> Daemon {
    let daemon = Daemon::start();
    ok(&daemon, &["vms", "create", "one", "--memory", "96"]);
    daemon
}

#[test]
fn a_process_outlives_the_client_that_started_it() {
    let daemon = created();
    let line = "echo begins; until [ -e /tmp/go ]; do sleep 0.1; done; echo ends; exit 5";
    let id = ok(&daemon, &["vms", "exec", "-d", "one", "--tag", "job", "--", "sh", "-c", line]);
    let id = id.trim();
    let listed = ok(&daemon, &["vms", "ps", "one", "-o", "json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(
        (&listed[0]["tag"], &listed[0]["status"]),
        (&"job".into(), &"running".into()),
        "{listed}"
    );
    assert!(shell(&daemon, "touch /tmp/go").status.success());
    let out = daemon.ctl(&["vms", "wait", "one", id]);
    assert_eq!(out.status.code(), Some(5), "{out:?}");
    let out = daemon.ctl(&["vms", "attach", "one", id, "--no-stdin"]);
    assert_eq!((out.status.code(), &out.stdout[..]), (Some(5), &b"begins\nends\n"[..]), "{out:?}");
    let out = daemon.ctl(&["vms", "attach", "one", id, "--no-stdin", "--from", "7"]);
    assert_eq!(out.stdout, b"ends\n", "{out:?}");

    let stuck =
        ok(&daemon, &["vms", "exec", "-d", "one", "--", "sh", "-c", "sleep 999 & sleep 998"]);
    ok(&daemon, &["vms", "kill", "one", stuck.trim(), "--signal", "KILL"]);
    let out = daemon.ctl(&["vms", "wait", "one", stuck.trim(), "--timeout", "30"]);
    assert_eq!(out.status.code(), Some(137), "{out:?}");
    assert!(!shell(&daemon, "pidof sleep").status.success(), "what it had started lives on");
    let out = daemon.ctl(&["vms", "exec", "one", "--idle-timeout", "1", "--", "sleep", "997"]);
    assert_eq!(out.status.code(), Some(124), "{out:?}");
    assert_eq!(daemon.ctl(&["vms", "attach", "one", "4711"]).status.code(), Some(3));
}

#[test]
fn an_unmodified_kubernetes_client_runs_a_command() {
    let daemon = created();
    let python = std::env::var("VOLANT_TEST_PYTHON").expect("VOLANT_TEST_PYTHON is not set");
    let out = Command::new(python)
        .args(["-c", WS_CLIENT, "ws://127.0.0.1:17777/api/v1/vms/one/exec", &daemon.token()])
        .output()
        .unwrap();
    let expected = "v5.channel.k8s.io hello from a foreign client\n err\n 3\n";
    assert_eq!(String::from_utf8_lossy(&out.stdout), expected, "{out:?}");
}

/// `ctl` in a terminal of tmux's, which is ended with it.
struct Tmux<'a>(&'a Daemon);

impl Tmux<'_> {
    fn run(&self, args: &[&str]) -> Output {
        Command::new("tmux")
            .args(["-L", "volant-e2e", "-f", "/dev/null"])
            .args(args)
            .output()
            .unwrap()
    }

    fn type_keys(&self, keys: &[&str]) {
        let out = self.run(&[&["send-keys", "-t", "one"], keys].concat());
        assert!(out.status.success(), "{out:?}");
    }

    fn wait_for(&self, text: &str) {
        self.0.wait(&format!("{text:?} on the terminal"), || {
            let screen = self.run(&["capture-pane", "-p", "-t", "one"]);
            String::from_utf8_lossy(&screen.stdout).contains(text)
        });
    }
}

impl Drop for Tmux<'_> {
    fn drop(&mut self) {
        self.run(&["kill-server"]);
    }
}

#[test]
fn an_editor_runs_on_a_terminal_and_survives_a_detach() {
    let daemon = created();
    let tmux = Tmux(&daemon);
    let ctl = daemon.command(&[]);
    let program = ctl.get_program().to_string_lossy().into_owned();
    let host = daemon.host();
    let line = format!(
        "VOLANT_HOST={host} {program} ctl vms exec -it one -- sh -c 'echo $TERM; exec sh'; \
         echo exit=$?; exec sh"
    );
    let out = tmux.run(&["new-session", "-d", "-s", "one", "-x", "100", "-y", "30", &line]);
    assert!(out.status.success(), "{out:?}");
    tmux.wait_for("xterm-256color");
    tmux.type_keys(&["stty size", "Enter"]);
    tmux.wait_for("30 100");
    tmux.run(&["resize-window", "-t", "one", "-x", "90", "-y", "25"]);
    daemon.wait("the new size in the guest", || {
        tmux.type_keys(&["stty size", "Enter"]);
        let screen = tmux.run(&["capture-pane", "-p", "-t", "one"]);
        String::from_utf8_lossy(&screen.stdout).contains("25 90")
    });
    tmux.type_keys(&["vi /tmp/note", "Enter"]);
    tmux.wait_for("/tmp/note");
    tmux.type_keys(&["i", "written in an editor", "Escape"]);
    tmux.wait_for("written in an editor");
    tmux.type_keys(&["C-p", "C-q"]);
    tmux.wait_for("detached");
    tmux.wait_for("exit=0");
    let listed = ok(&daemon, &["vms", "ps", "one", "-o", "json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["status"], "running", "{listed}");
    let id = listed[0]["id"].to_string();
    tmux.type_keys(&[&format!("VOLANT_HOST={host} {program} ctl vms attach one {id}"), "Enter"]);
    tmux.wait_for("written in an editor");
    tmux.type_keys(&[":wq", "Enter"]);
    tmux.type_keys(&["exit 6", "Enter"]);
    let out = daemon.ctl(&["vms", "wait", "one", &id, "--timeout", "60"]);
    assert_eq!(out.status.code(), Some(6), "{out:?}");
    let out = shell(&daemon, "cat /tmp/note");
    assert_eq!(out.stdout, b"written in an editor\n", "{out:?}");
}
