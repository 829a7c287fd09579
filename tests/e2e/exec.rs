//! Processes in a guest: their bytes, their end, and each on its own.

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request};

use crate::daemon::Daemon;

/// Numbers that make a little more than 10 MiB with what is between them.
const NUMBERS: u32 = 150_000;
const EXECS_AT_ONCE: usize = 50;

/// What is between two numbers of a stream. Long lines, because a guest spends its time on the numbers.
fn between(sign: &str) -> String {
    format!(" {}\n", sign.repeat(70))
}

fn numbers(sign: &str) -> String {
    let all: Vec<String> = (1..=NUMBERS).map(|number| number.to_string()).collect();
    let text = all.join(&between(sign)) + "\n";
    assert!(10 << 20 < text.len());
    text
}

#[test]
fn ten_mebibytes_of_each_stream_arrive_whole_and_apart() {
    let daemon = Daemon::start();
    daemon.create("one", &[]);
    let seq = |sign| format!("seq -s '{}' 1 {NUMBERS}", between(sign));
    let line = format!("{} >&2 & {}; wait", seq("e"), seq("o"));
    let out = daemon.ctl(&["vms", "exec", "one", "--", "sh", "-c", &line]);
    assert!(out.status.success(), "{:?}", out.status);
    assert!(out.stdout == numbers("o").as_bytes(), "stdout: {} bytes", out.stdout.len());
    assert!(out.stderr == numbers("e").as_bytes(), "stderr: {} bytes", out.stderr.len());
}

#[test]
fn a_deadline_kills_the_whole_tree_and_nothing_else() {
    let daemon = Daemon::start();
    daemon.create("one", &[]);
    let other = daemon.ctl(&["vms", "exec", "one", "--", "sh", "-c", "sleep 8765 >&- 2>&- &"]);
    assert!(other.status.success(), "{other:?}");
    // A session of its own, a child of init, a group of its own: none of them escapes.
    let line = "setsid sleep 4321 & (sleep 4321 &) ; set -m; sleep 4321 & sleep 4321";
    let out = daemon.ctl(&["vms", "exec", "one", "--timeout", "2", "--", "sh", "-c", line]);
    assert_eq!(out.status.code(), Some(124), "{out:?}");
    let left = daemon.ctl(&["vms", "exec", "one", "--", "ps", "-o", "args"]);
    let left = String::from_utf8(left.stdout).unwrap();
    assert!(!left.contains("sleep 4321"), "{left}");
    assert!(left.contains("sleep 8765"), "{left}");
}

#[test]
fn a_client_that_goes_away_disturbs_nobody() {
    let daemon = Daemon::start();
    daemon.create("one", &[]);
    let client = daemon.client();
    let exec = |line: &str| {
        let body = serde_json::json!({ "command": line }).to_string();
        Request::post("/api/v1/vms/one/exec")
            .header("host", "localhost")
            .header("content-type", "application/json")
            .header("accept", "text/event-stream")
            .body(Full::new(Bytes::from(body)))
            .unwrap()
    };
    client.runtime.block_on(async {
        let other = client.shell("one", "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 1; done");
        let leaver = async {
            let mut stream = client.open(exec("exec yes volant-endless")).await;
            let first = stream.body_mut().frame().await;
            assert!(first.is_some_and(|frame| frame.is_ok()), "no output came");
        };
        let (other, ()) = tokio::join!(other, leaver);
        assert_eq!(other, "1\n2\n3\n4\n5\n6\n7\n8\n");
    });
    // What nobody listens to is ended, so that it does not run for ever.
    daemon.wait("the process of the client that went away to end", || {
        let left = client.runtime.block_on(client.shell("one", "ps -o args"));
        !left.contains("volant-endless\n")
    });
    assert_eq!(client.get("/api/v1/vms/one").json()["status"], "running");
}

#[test]
fn fifty_processes_at_once_in_one_guest() {
    let daemon = Daemon::start();
    daemon.create("one", &[]);
    let client = daemon.client();
    client.runtime.block_on(client.shell("one", "mkdir /tmp/all && mkfifo /tmp/gate"));
    // Each waits for a byte of the gate, and the last one gives them when all are there: they really are at once.
    // A pipe that is opened for both directions does not wait to be opened.
    let line = |number: usize| {
        format!("exec 3<>/tmp/gate; : > /tmp/all/{number}; read -r line <&3; echo {number}")
    };
    let open = format!(
        "exec 3<>/tmp/gate; until [ $(ls /tmp/all | wc -l) = {EXECS_AT_ONCE} ]; do sleep 0.2; done; \
         yes '' | head -n {EXECS_AT_ONCE} >&3"
    );
    let lines: Vec<_> = (0..EXECS_AT_ONCE).map(line).chain([open]).collect();
    let outputs =
        client.runtime.block_on(join_all(lines.iter().map(|line| client.shell("one", line))));
    let (opened, outputs) = outputs.split_last().unwrap();
    assert_eq!(opened, "");
    for (number, output) in outputs.iter().enumerate() {
        assert_eq!(output, &format!("{number}\n"));
    }
}

#[test]
fn an_exec_that_makes_no_sense_is_refused() {
    let daemon = Daemon::start();
    daemon.create("one", &[]);
    let client = daemon.client();
    let path = "/api/v1/vms/one/exec";
    let refused = |body: serde_json::Value, status: u16| {
        let answer = client.post(path, &body);
        assert_eq!(answer.status, status, "{body}: {answer:?}");
    };
    refused(serde_json::json!({}), 422);
    refused(serde_json::json!({ "argv": ["true"], "command": "true" }), 422);
    refused(serde_json::json!({ "command": "true", "stdin_base64": "%" }), 422);
    refused(serde_json::json!({ "command": "true", "unknown": 1 }), 422);
    let get = client.runtime.block_on(client.send(Method::GET, path, Bytes::new()));
    assert_eq!(get.status, 426, "a WebSocket is needed");
    let nowhere = client.post("/api/v1/vms/nobody/exec", &serde_json::json!({ "command": "true" }));
    assert_eq!((nowhere.status.as_u16(), &nowhere.json()["code"]), (404, &"vm_not_found".into()));
}
