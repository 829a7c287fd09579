//! The browser plugin of docs/examples, as it stands: Chromium in a guest takes minutes in emulation.
//!
//! `VOLANT_TEST_BROWSER` is the image that tests/devvm/browser-image.sh has made.

use std::path::Path;
use std::time::Instant;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::daemon::{Daemon, named};
use crate::outside::{Outside, SERVER};

/// A red block on green, further down than a window reaches, and two links.
const PAGE: &str = "<!doctype html><title>Red on green</title><style>\
    body { margin: 0; height: 1500px; background: #0f0 }\
    div { position: absolute; left: 200px; top: 100px; width: 400px; height: 300px; background: #f00 }\
    </style><div></div><a href=/one>One</a> <a href=/two>Two</a>";
const GREEN: [u8; 3] = [0, 255, 0];
const RED: [u8; 3] = [255, 0, 0];

fn ok(daemon: &Daemon, args: &[&str]) -> Vec<u8> {
    let out = daemon.ctl(args);
    let log = || daemon.ctl(&["vms", "logs", "demo", "--tail", "100"]);
    assert!(out.status.success(), "{args:?}: {out:?}; its log: {:?}", log());
    out.stdout
}

/// What an action answers that does something.
fn action(daemon: &Daemon, action: &str, payload: &Value) -> Value {
    let payload = payload.to_string();
    let args = ["vms", "action", "demo", "browser", action, "--payload", &payload];
    serde_json::from_slice(&ok(daemon, &args)).unwrap()
}

/// Status and code of what an action refuses.
fn refusal(daemon: &Daemon, action: &str, payload: &Value) -> (u16, String) {
    let path = format!("/api/v1/vms/demo/actions/browser/{action}");
    let answer = daemon.client().post(&path, payload);
    (answer.status.as_u16(), answer.json()["code"].as_str().unwrap().to_owned())
}

/// A picture's width and height, and the color of each pixel.
struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Picture {
    fn decoded(png: &[u8]) -> Picture {
        let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
        let side = |length: u32| usize::try_from(length).unwrap();
        Picture { width: side(info.width), height: side(info.height), pixels }
    }

    fn at(&self, x: usize, y: usize) -> [u8; 3] {
        let at = 3 * (y * self.width + x);
        self.pixels[at..at + 3].try_into().unwrap()
    }

    /// The block is where the page says, to the pixel, and the ground around it.
    fn shows_the_page(&self) {
        for (x, y) in [(200, 100), (599, 100), (200, 399), (599, 399), (400, 250)] {
            assert_eq!(self.at(x, y), RED, "at {x}, {y}");
        }
        let right = self.width - 1;
        for (x, y) in [(199, 100), (600, 100), (200, 99), (200, 400), (right, 0), (right, 600)] {
            assert_eq!(self.at(x, y), GREEN, "at {x}, {y}");
        }
    }
}

/// A session of DevTools by the daemon.
struct Session(WebSocketStream<UnixStream>);

impl Session {
    async fn open(daemon: &Daemon, path: &str) -> Session {
        let stream = UnixStream::connect(daemon.socket()).await.unwrap();
        let url = format!("ws://localhost/api/v1/vms/demo/devtools{path}");
        Session(client_async(url, stream).await.unwrap().0)
    }

    /// The result of a call; events are passed over.
    async fn call(&mut self, method: &str, params: &Value) -> Value {
        let call = json!({ "id": 1, "method": method, "params": params });
        self.0.send(Message::text(call.to_string())).await.unwrap();
        loop {
            let message = self.0.next().await.unwrap().unwrap().into_text().unwrap();
            let message: Value = serde_json::from_str(&message).unwrap();
            if message["id"] == 1 {
                return message["result"].clone();
            }
        }
    }
}

/// Sessions with the browser itself, and with the page that the actions have.
async fn devtools(daemon: &Daemon, targets: &Value) {
    let mut browser = Session::open(daemon, "").await;
    let version = browser.call("Browser.getVersion", &json!({})).await;
    assert!(version["product"].as_str().unwrap().contains("Chrome/"), "{version}");
    let [target] = &targets.as_array().unwrap()[..] else { panic!("one page: {targets}") };
    let path = format!("/devtools/page/{}", target["id"].as_str().unwrap());
    let mut page = Session::open(daemon, &path).await;
    let title = json!({ "expression": "document.title", "returnByValue": true });
    let title = page.call("Runtime.evaluate", &title).await;
    assert_eq!(title["result"]["value"], "Red on green", "{title}");
    let picture = page.call("Page.captureScreenshot", &json!({ "format": "png" })).await;
    assert!(picture["data"].as_str().unwrap().starts_with("iVBORw0KGgo"), "no PNG");
}

/// Processes of Chromium: `user seccomp-mode kind` of each.
fn processes(daemon: &Daemon) -> String {
    let line = "for p in /proc/[0-9]*; do read -r name <$p/comm || continue
        case $name in chromium*) set -- $(sed -n 's/^Uid:\\t\\([0-9]*\\).*/\\1/p; s/^Seccomp:\\t//p' $p/status)
        echo $* $(tr '\\0' ' ' <$p/cmdline | sed -n 's/.*--type=\\([a-z]*\\).*/\\1/p');; esac; done";
    String::from_utf8(ok(daemon, &["vms", "exec", "demo", "--", "sh", "-c", line])).unwrap()
}

/// Chromium runs as a user of its own, what shows pages in its sandbox; and another one takes the
/// place of one that is killed.
fn process_life(daemon: &Daemon, url: &str) {
    let before = processes(daemon);
    assert!(before.lines().all(|line| !line.starts_with("0 ")), "as root:\n{before}");
    let renderers: Vec<&str> = before.lines().filter(|line| line.ends_with("renderer")).collect();
    let filtered = |line: &&str| line.split(' ').nth(1) == Some("2");
    assert!(!renderers.is_empty() && renderers.iter().all(filtered), "no sandbox:\n{before}");
    let kill = "for p in /proc/[0-9]*; do read -r name <$p/comm || continue
        case $name in chromium*) kill -9 ${p#/proc/};; esac; done";
    ok(daemon, &["vms", "exec", "demo", "--", "sh", "-c", kill]);
    daemon.wait("another Chromium", || {
        daemon.client().get("/api/v1/vms/demo/proxy/8080/health").status == 200
    });
    assert_eq!(action(daemon, "navigate", &json!({ "url": url }))["title"], "Red on green");
}

#[test]
fn a_browser_in_a_guest_shows_a_page() {
    let began = Instant::now();
    let step = |what: &str| println!("{:4} s  {what}", began.elapsed().as_secs());
    let daemon = Daemon::start();
    let _outside = Outside::serving(PAGE);
    let url = format!("http://{SERVER}:8000/");
    ok(&daemon, &["images", "import", &named("VOLANT_TEST_BROWSER").display().to_string()]);
    step("the image is here");
    // As the quick start of the original has it, from the example's folder.
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples/browser");
    let install = ["plugins", "install", "browser", "--manifest", "./manifests/browser.json"];
    let installed = daemon.command(&install).current_dir(example).output().unwrap();
    assert!(installed.status.success(), "{installed:?}");
    // Its processes would give each other up after 15 s.
    let flags = ["--env", "CHROMIUM_FLAGS=--ipc-connection-timeout=600"];
    let patience = ["--env", "TIMEOUT_MS=280000", "--timeout", "600"];
    let create = ["vms", "create", "demo", "--plugin", "browser"];
    ok(&daemon, &[&create[..], &flags, &patience].concat());
    step("Chromium answers");

    let there = action(&daemon, "navigate", &json!({ "url": url }));
    assert_eq!(there, json!({ "url": url, "title": "Red on green", "status": 200 }));
    step("navigate");
    let picture =
        Picture::decoded(&ok(&daemon, &["vms", "action", "demo", "browser", "screenshot"]));
    assert_eq!((picture.width, picture.height), (1280, 720));
    picture.shows_the_page();
    step("screenshot");
    let whole = ["--payload", "{\"full_page\": true, \"width\": 800, \"height\": 700}"];
    let whole = [&["plugins", "action", "browser", "screenshot"], &whole[..]].concat();
    let picture = Picture::decoded(&ok(&daemon, &whole));
    assert_eq!((picture.width, picture.height), (800, 1500));
    picture.shows_the_page();
    assert_eq!(picture.at(799, 1499), GREEN);
    step("screenshot of the whole page");

    let links = action(&daemon, "scrape", &json!({ "selector": "a" }));
    assert_eq!(links, json!({ "url": url, "count": 2, "items": ["One", "Two"] }));
    let links = action(&daemon, "scrape", &json!({ "selector": "a", "attribute": "href" }));
    assert_eq!(links["items"], json!(["/one", "/two"]));
    let script = "await fetch(location.href).then(page => page.status)";
    let value = action(&daemon, "evaluate", &json!({ "expression": script }));
    assert_eq!(value, json!({ "value": 200, "type": "number" }));
    step("scrape, evaluate");
    let refused = |name, payload| refusal(&daemon, name, &payload);
    let told = |status, code: &str| (status, code.to_owned());
    let file = json!({ "url": "file:///etc/passwd" });
    assert_eq!(refused("navigate", file), told(400, "invalid_url"));
    assert_eq!(refused("scrape", json!({ "selector": "a[" })), told(422, "invalid_selector"));
    assert_eq!(refused("evaluate", json!({ "expression": "no.way" })), told(422, "exception"));
    let endless = json!({ "expression": "for (;;);", "timeout_ms": 1000 });
    assert_eq!(refused("evaluate", endless), told(504, "timeout"));

    let client = daemon.client();
    let targets = client.get("/api/v1/vms/demo/devtools/json/list").json();
    client.runtime.block_on(devtools(&daemon, &targets));
    step("DevTools");
    let memory = "sed -n '/^MemTotal\\|^MemAvailable/p' /proc/meminfo";
    println!("{}", client.runtime.block_on(client.shell("demo", memory)));
    process_life(&daemon, &url);
    step("another Chromium");
    // Nobody is there: nothing listens on the port.
    let nobody = json!({ "url": format!("http://{SERVER}:8001/") });
    assert_eq!(refused("navigate", nobody), told(502, "navigation_failed"));
}
