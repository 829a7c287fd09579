//! What one VM can be asked, and how it is looked at: its OpenAPI document, its log and its console
//! over WebSockets.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::client::Client;
use crate::daemon::Daemon;

/// A web server that describes itself: in its own words, by YAML, below another path.
const SERVER: &str = r#"mkdir -p /www/cgi-bin/v1 && cat >/www/api.yaml <<END
openapi: 3.1.0
info: { title: web, version: "1" }
servers: [{ url: "http://localhost:8080/cgi-bin/v1" }]
paths:
  /echo/{word}:
    post: { operationId: echo, summary: Says it back. }
  /hello:
    get: { operationId: hello }
END
printf '#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n"\necho "$REQUEST_METHOD $PATH_INFO $QUERY_STRING $(cat)"\n' \
    >/www/cgi-bin/v1/echo
chmod 755 /www/cgi-bin/v1/echo && cp /www/cgi-bin/v1/echo /www/cgi-bin/v1/hello
echo serving; echo complaining >&2; printf unfinished; exec httpd -f -p 8080 -h /www"#;

type Socket = WebSocketStream<UnixStream>;

async fn connect(daemon: &Daemon, path: &str) -> Socket {
    let stream = UnixStream::connect(daemon.socket()).await.unwrap();
    client_async(format!("ws://localhost{path}"), stream).await.unwrap().0
}

async fn next(socket: &mut Socket) -> Message {
    let message = tokio::time::timeout(Duration::from_secs(120), socket.next()).await;
    message.expect("no message came").unwrap().unwrap()
}

/// What comes in binary messages until this is in it; text messages on the way are returned too.
async fn until(socket: &mut Socket, end: &str) -> Vec<String> {
    let (mut seen, mut told) = (String::new(), Vec::new());
    while !seen.contains(end) {
        match next(socket).await {
            Message::Binary(bytes) => seen.push_str(&String::from_utf8_lossy(&bytes)),
            Message::Text(text) => told.push(text.to_string()),
            Message::Close(frame) => panic!("closed with {frame:?} after {seen:?}"),
            _ => {}
        }
    }
    told
}

fn ok(daemon: &Daemon, args: &[&str]) -> String {
    let out = daemon.ctl(args);
    assert!(out.status.success(), "{args:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

fn created() -> Daemon {
    let daemon = Daemon::start();
    let manifest = json!({
        "schema_version": "1",
        "name": "web",
        "version": "1.0.0",
        "initramfs": { "url": "builtin:default" },
        "resources": { "cpu_cores": 1, "memory_mb": 96 },
        "workload": {
            "type": "http",
            "base_url": "http://127.0.0.1:8080",
            "entrypoint": ["/bin/sh", "-c", SERVER],
        },
        "health": { "http": { "path": "/api.yaml" }, "start_period_ms": 60000 },
        "actions": { "hello": {
            "description": "Greets.", "method": "POST", "path": "/cgi-bin/v1/hello",
        } },
        "openapi": "/api.yaml",
    });
    let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
    std::fs::write(file.path(), manifest.to_string()).unwrap();
    ok(&daemon, &["plugins", "install", "--manifest", file.path().to_str().unwrap()]);
    ok(&daemon, &["vms", "create", "one", "--plugin", "web"]);
    daemon
}

fn operations(daemon: &Daemon) {
    let listed = ok(daemon, &["vms", "operations", "one", "-o", "json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let prefix = "/api/v1/vms/one/proxy/8080/cgi-bin/v1";
    let of = |operation: &str, method: &str, path: &str, summary: &str| json!({ "operation": operation, "method": method, "path": path, "summary": summary });
    let expected = json!([
        of("hello", "POST", "/api/v1/vms/one/actions/web/hello", "Greets."),
        of("echo", "POST", &format!("{prefix}/echo/{{word}}"), "Says it back."),
        of("workload.hello", "GET", &format!("{prefix}/hello"), ""),
    ]);
    assert_eq!(listed, expected);
    let call = |rest: &[&str]| ok(daemon, &[&["vms", "call", "one"], rest].concat());
    let said = call(&["echo", "--param", "word=a b", "--query", "q=1", "-p", "{\"x\":1}"]);
    assert_eq!(said, "POST /a b q=1 {\"x\":1}\n");
    assert_eq!(call(&["hello"]), "POST   \n");
    assert_eq!(call(&["workload.hello"]), "GET   \n");
    assert_eq!(call(&[&format!("GET:{prefix}/hello")]), "GET   \n");
    let out = daemon.ctl(&["vms", "call", "one", "echo"]);
    assert_eq!(out.status.code(), Some(2), "a parameter is missing: {out:?}");
    assert_eq!(daemon.ctl(&["vms", "call", "one", "nothing"]).status.code(), Some(3));
}

async fn log(daemon: &Daemon) {
    let mut socket = connect(daemon, "/ws/v1/vms/one/logs").await;
    let mut lines = Vec::new();
    while lines.len() < 3 {
        let Message::Text(text) = next(&mut socket).await else { continue };
        let line: Value = serde_json::from_str(&text).unwrap();
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
        assert_eq!(line["name"], "one");
        let text = |member: &str| line[member].as_str().unwrap().to_owned();
        lines.push((text("stream"), text("line"), line["partial"] == true));
    }
    lines.sort();
    let line = |stream: &str, line: &str, partial| (stream.to_owned(), line.to_owned(), partial);
    let expected = [
        line("stderr", "complaining", false),
        line("stdout", "serving", false),
        line("stdout", "unfinished", true),
    ];
    assert_eq!(lines, expected);
}

async fn console(daemon: &Daemon, client: &Client) {
    let path = "/api/v1/vms/one/console";
    let (mut one, mut two) = (connect(daemon, path).await, connect(daemon, path).await);
    one.send(Message::binary(b"echo first-$((1 + 1))\n".as_slice())).await.unwrap();
    until(&mut one, "first-2").await;
    until(&mut two, "first-2").await;
    // The second looks on; what it types is dropped, and it is told.
    two.send(Message::binary(b"echo second-$((1 + 1))\n".as_slice())).await.unwrap();
    let told = loop {
        // The shell's prompt may come between.
        if let Message::Text(told) = next(&mut two).await {
            break told;
        }
    };
    assert!(told.contains("console_taken"), "{told}");
    let mut third = connect(daemon, &format!("{path}?input=take")).await;
    third.send(Message::binary(b"echo third-$((1 + 1))\n".as_slice())).await.unwrap();
    until(&mut two, "third-2").await;
    one.send(Message::binary(b"echo lost\n".as_slice())).await.unwrap();
    let told = until(&mut one, "third-2").await;
    assert!(told.is_empty() || told[0].contains("console_taken"), "{told:?}");
    let mut viewer = connect(daemon, &format!("{path}?input=none")).await;
    until(&mut viewer, "third-2").await;

    // The size is told beside the line.
    let size = json!({ "cols": 91, "rows": 27 }).to_string();
    let resized = client.send(hyper::Method::POST, &format!("{path}/resize"), size).await;
    assert_eq!(resized.status, 204, "{resized:?}");
    third.send(Message::binary(b"stty size\n".as_slice())).await.unwrap();
    until(&mut viewer, "27 91").await;
    // Whoever types leaves, and the next one may.
    third.close(None).await.unwrap();
    daemon
        .wait_async("the seat to be free", async || {
            two.send(Message::binary(b"echo seat-$((1 + 1))\n".as_slice())).await.unwrap();
            let seen = tokio::time::timeout(Duration::from_secs(2), until(&mut viewer, "seat-2"));
            seen.await.is_ok()
        })
        .await;
    let Message::Binary(all) = next(&mut connect(daemon, path).await).await else {
        panic!("no scrollback")
    };
    let all = String::from_utf8_lossy(&all).into_owned();
    assert!(all.contains("first-2") && all.contains("third-2"), "{all}");
    assert!(!all.contains("second-") && !all.contains("lost"), "{all}");
}

#[test]
fn a_vm_is_described_called_and_looked_at() {
    let daemon = created();
    operations(&daemon);
    let client = daemon.client();
    client.runtime.block_on(log(&daemon));
    client.runtime.block_on(console(&daemon, &client));
}
