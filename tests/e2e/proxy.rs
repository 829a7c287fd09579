//! The proxy to guests, with raw sockets on one side and small servers in the guest on the other.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, PROXY, named};

const API: &str = "127.0.0.1:17777";
const BASE: &str = "/api/v1/vms/one/proxy";

/// Answers each request with what it was asked, by `nc -e`.
const ECHO: &str = r#"#!/bin/sh
head=
while read -r line; do
    line=$(printf %s "$line" | tr -d '\r')
    [ -n "$line" ] || break
    case $line in [Cc]ontent-[Ll]ength:*) length=${line#*: } ;; esac
    head="$head$line
"
done
[ -z "$length" ] || head="${head}sum: $(head -c "$length" | md5sum)
"
printf 'HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nX-Kept: 1\r\nContent-Length: %d\r\n\r\n%s' \
    ${#head} "$head"
"#;

struct Guest(Daemon);

impl Guest {
    fn new() -> Guest {
        let daemon = Daemon::start();
        let out = daemon.ctl(&["vms", "create", "one", "--memory", "192"]);
        assert!(out.status.success(), "{out:?}");
        Guest(daemon)
    }

    fn shell(&self, line: &str) -> Output {
        let out = self.0.ctl(&["vms", "exec", "one", "--", "sh", "-c", line]);
        assert!(out.status.success(), "{line}: {out:?}");
        out
    }

    /// Serves `script` on a port.
    fn serve(&self, port: u16, script: &str) {
        let mut put = self.0.command(&["vms", "exec", "-i", "one", "--", "sh", "-c"]);
        let file = format!("/srv-{port}");
        put.arg(format!("cat > {file}; chmod 755 {file}"));
        let mut put = put.stdin(std::process::Stdio::piped()).spawn().unwrap();
        put.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(put.wait().unwrap().success());
        let line = format!("nc -ll -p {port} -e {file} >/dev/null 2>&1 & sleep 0.5");
        self.shell(&line);
    }

    /// Sends bytes as they are; the socket.
    fn send(&self, text: &str) -> TcpStream {
        let mut socket = TcpStream::connect(API).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let text = text.replace("TOKEN", &self.0.token());
        socket.write_all(text.as_bytes()).unwrap();
        socket
    }

    /// Everything that comes back until the daemon closes.
    fn ask(&self, text: &str) -> String {
        let mut answer = Vec::new();
        // A reset after the answer is an end, too.
        let _ = self.send(text).read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn get(&self, path: &str, headers: &str) -> String {
        self.ask(&format!(
            "GET {path} HTTP/1.1\r\nHost: {API}\r\nAuthorization: Bearer TOKEN\r\n\
             Connection: close\r\n{headers}\r\n"
        ))
    }
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

fn curl(arguments: &[&str]) -> (String, String) {
    let out = Command::new("curl")
        .args(["-sS", "--max-time", "300", "-w", "\n%{http_code}"])
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let (body, code) = text.rsplit_once('\n').unwrap_or(("", ""));
    assert!(!code.is_empty(), "{out:?}");
    (body.to_owned(), code.to_owned())
}

#[test]
fn one_connection_takes_the_short_way_and_then_the_long_one() {
    let guest = Guest::new();
    guest.serve(8080, ECHO);
    let request = |line: &str, rest: &str| {
        let (method, path) = line.split_once(' ').unwrap();
        let fields = format!("Host: {API}\r\nAuthorization: Bearer TOKEN\r\n{rest}");
        format!("{method} {BASE}/8080/{path} HTTP/1.1\r\n{fields}")
    };
    let mut kept = guest.send(&request("GET before", "\r\n"));
    let mut seen = String::new();
    let mut until = |kept: &mut TcpStream, end: &str| {
        while !seen.to_ascii_lowercase().contains(end) {
            let mut piece = [0; 4096];
            let count = kept.read(&mut piece).unwrap();
            assert_ne!(count, 0, "{seen}");
            seen += &String::from_utf8_lossy(&piece[..count]);
        }
    };
    until(&mut kept, "get /before");

    let all = guest.ask(
        &[
            request("GET 1", "\r\n"),
            request("HEAD 2", "\r\n"),
            request("GET 3", "\r\n"),
            request("POST 4", "If-Match: \"its\"\r\nContent-Length: 5\r\n\r\nhello"),
            request("GET 5", "\r\n"),
            request("GET 6", "Connection: close\r\n\r\n"),
        ]
        .concat(),
    );
    let asked: Vec<_> = all.lines().filter(|line| line.ends_with(" HTTP/1.1")).collect();
    let wanted = ["GET /1", "GET /3", "POST /4", "GET /5", "GET /6"];
    assert_eq!(asked, wanted.map(|line| format!("{line} HTTP/1.1")), "{all}");
    assert_eq!(all.matches("HTTP/1.1 200 OK").count(), 6, "{all}");

    // Who is not let in does not even knock.
    guest.serve(8081, "#!/bin/sh\necho came >/tmp/came\n");
    let stranger = format!("GET {BASE}/8081/ HTTP/1.1\r\nHost: {API}\r\nConnection: close\r\n");
    for token in ["", "Authorization: Bearer wrong\r\n"] {
        assert_eq!(status(&guest.ask(&format!("{stranger}{token}\r\n"))), "401");
    }
    guest.shell("! test -e /tmp/came");

    // What is kept is not another machine's.
    assert!(guest.0.ctl(&["vms", "restart", "one"]).status.success());
    guest.serve(8080, ECHO);
    kept.write_all(request("GET after", "\r\n").replace("TOKEN", &guest.0.token()).as_bytes())
        .unwrap();
    until(&mut kept, "get /after");
}

#[test]
fn the_guest_and_the_client_see_what_is_theirs() {
    let guest = Guest::new();
    guest.serve(8080, ECHO);
    let trace = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";
    let hop = "Connection: X-Mine\r\nX-Mine: 1\r\nTE: trailers\r\nX-Forwarded-For: 10.0.0.1\r\n";
    let seen = guest.get(&format!("{BASE}/8080/a/b?c=/d"), &format!("{trace}{hop}"));
    assert_eq!(status(&seen), "200", "{seen}");
    let (head, body) = seen.split_once("\r\n\r\n").unwrap();
    let (head, body) = (head.to_ascii_lowercase(), body.to_ascii_lowercase());
    assert!(body.starts_with("get /a/b?c=/d http/1.1\n"), "{body}");
    for line in [
        "host: localhost",
        "x-forwarded-for: 10.0.0.1, 127.0.0.1",
        "x-forwarded-host: 127.0.0.1:17777",
        "x-forwarded-proto: http",
        "x-forwarded-prefix: /api/v1/vms/one/proxy/8080",
        "te: trailers",
        trace.trim(),
    ] {
        assert!(body.contains(&format!("{line}\n")), "{line} is not in {body}");
    }
    for gone in ["authorization", "x-mine", "volant"] {
        assert!(!body.contains(gone), "{gone} is in {body}");
    }
    assert!(head.contains("x-kept: 1") && !head.contains("x-hop"), "{head}");

    // Expect is answered once the guest is there, and not where nothing listens.
    let post = |port: u16| {
        let path = format!("{BASE}/{port}/");
        let mut socket = guest.send(&format!(
            "POST {path} HTTP/1.1\r\nHost: {API}\r\nAuthorization: Bearer TOKEN\r\n\
             Connection: close\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        ));
        let mut first = [0; 12];
        socket.read_exact(&mut first).unwrap();
        if &first == b"HTTP/1.1 100" {
            socket.write_all(b"hello").unwrap();
        }
        let mut rest = String::new();
        let _ = socket.read_to_string(&mut rest);
        (String::from_utf8_lossy(&first).into_owned(), rest)
    };
    let (first, rest) = post(8080);
    assert!(
        first.ends_with("100") && rest.contains("sum: 5d41402abc4b2a76b9719d911017c592"),
        "{rest}"
    );
    let (first, rest) = post(9);
    assert!(first.ends_with("502") && rest.contains("port_closed"), "{first}{rest}");
    let head = guest.ask(&format!(
        "HEAD {BASE}/8080/ HTTP/1.1\r\nHost: {API}\r\nAuthorization: Bearer TOKEN\r\n\
         Connection: close\r\n\r\n"
    ));
    assert!(status(&head) == "200" && head.ends_with("\r\n\r\n"), "{head}");
    let token = format!("Authorization: Bearer {}", guest.0.token());
    let url = format!("http://{API}{BASE}/8080/h2");
    let (body, code) = curl(&["--http2-prior-knowledge", "-H", &token, &url]);
    assert!(code == "200" && body.starts_with("GET /h2 HTTP/1.1\n"), "{code} {body}");
    assert!(body.to_ascii_lowercase().contains("x-forwarded-host: 127.0.0.1:17777\n"), "{body}");
}

#[test]
fn bodies_stream_both_ways_and_events_are_not_held_back() {
    let guest = Guest::new();
    guest.serve(8080, ECHO);
    let event = "#!/bin/sh\nprintf 'HTTP/1.1 200 OK\\r\\nContent-Type: text/event-stream\\r\\n\\r\\n'\n\
                 for i in 1 2 3 4 5; do printf 'data: %s\\n\\n' $i; sleep 1; done\n";
    guest.serve(8081, event);
    guest.shell("mkdir /www && truncate -s 64M /www/big && httpd -p 8082 -h /www");
    let before = guest.0.private_kib();
    let token = format!("Authorization: Bearer {}", guest.0.token());
    let folder = tempfile::tempdir().unwrap();
    let (down, up) = (folder.path().join("down"), folder.path().join("up"));
    let url = |port: u16, path: &str| format!("http://{API}{BASE}/{port}/{path}");
    let (_, code) = curl(&["-H", &token, "-o", down.to_str().unwrap(), &url(8082, "big")]);
    assert_eq!((code.as_str(), std::fs::metadata(&down).unwrap().len()), ("200", 64 << 20));
    let (part, code) = curl(&["-H", &token, "-r", "10-13", &url(8082, "big")]);
    assert_eq!((part.as_str(), code.as_str()), ("\0\0\0\0", "206"));
    std::fs::write(&up, vec![7; 16 << 20]).unwrap();
    let file = format!("@{}", up.display());
    let (body, code) =
        curl(&["-H", &token, "-H", "Expect:", "--data-binary", &file, &url(8080, "up")]);
    let sum = Command::new("md5sum").arg(&up).output().unwrap().stdout;
    let sum = String::from_utf8_lossy(&sum[..32]).into_owned();
    assert!(code == "200" && body.contains(&sum), "{code} {body}");
    let grown = guest.0.private_kib().saturating_sub(before);
    assert!(grown < 16 << 10, "the daemon has grown by {grown} KiB");

    let mut socket = guest.send(&format!(
        "GET {BASE}/8081/ HTTP/1.1\r\nHost: {API}\r\nAuthorization: Bearer TOKEN\r\n\r\n"
    ));
    let (mut seen, mut arrived) = (String::new(), Vec::new());
    let mut buffer = [0; 4096];
    while arrived.len() < 5 {
        let count = socket.read(&mut buffer).unwrap();
        assert_ne!(count, 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        arrived.resize(seen.matches("data:").count(), Instant::now());
    }
    // Held back, they would come together.
    let apart = arrived.windows(2).filter(|pair| Duration::from_millis(500) < pair[1] - pair[0]);
    assert_eq!(apart.count(), 4, "{arrived:?}");
}

#[test]
fn whoever_goes_away_is_missed_by_the_other() {
    let guest = Guest::new();
    let endless = "#!/bin/sh\nprintf 'HTTP/1.1 200 OK\\r\\n\\r\\n'\nexec yes volant-endless\n";
    guest.serve(8080, endless);
    let silent = "#!/bin/sh\ncat >/dev/null\necho gone >> /tmp/hung-up\n";
    guest.serve(8081, silent);
    let get = |port: u16| {
        let head = format!("GET {BASE}/{port}/ HTTP/1.1\r\nHost: {API}\r\n");
        guest.send(&format!("{head}Authorization: Bearer TOKEN\r\n\r\n"))
    };
    let mut reading = get(8080);
    reading.read_exact(&mut [0; 1 << 16]).unwrap();
    drop(reading);
    let ended = |what: &str, line: &str| {
        guest.0.wait(what, || {
            guest.0.ctl(&["vms", "exec", "one", "--", "sh", "-c", line]).status.success()
        });
    };
    ended("the guest to miss its reader", "! pidof yes");
    let waiting = get(8081);
    std::thread::park_timeout(Duration::from_millis(500));
    drop(waiting);
    ended("the guest to miss who waited", "grep gone /tmp/hung-up");

    let mut reading = get(8080);
    reading.read_exact(&mut [0; 1 << 16]).unwrap();
    guest.0.ctl(&["vms", "exec", "one", "--", "sh", "-c", "echo c > /proc/sysrq-trigger"]);
    let mut rest = Vec::new();
    // Cut off or reset, but not ended as if it were whole.
    let _ = reading.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"), "the answer seems whole");
    guest.0.wait_for_status("one", "failed");
    let gone = guest.get(&format!("{BASE}/8080/"), "");
    assert_eq!(status(&gone), "409", "{gone}");
    assert!(guest.0.ctl(&["vms", "start", "one", "--wait=false"]).status.success());
    let waited = guest.get("/api/v1/vms/one/agent/v1/health", "");
    assert!(status(&waited) == "200" && waited.contains("protocol_version"), "{waited}");
}

#[test]
fn what_is_ambiguous_or_endless_is_refused() {
    let guest = Guest::new();
    guest.serve(8080, ECHO);
    let inner = "POST /api/v1/vms/one/stop HTTP/1.1\r\nHost: 127.0.0.1:17777\r\n\
                 Authorization: Bearer TOKEN\r\nContent-Length: 0\r\n\r\n";
    let token = guest.0.token();
    let inner_len = inner.replace("TOKEN", &token).len();
    let attack = |framing: &str, body: &str| {
        guest.ask(&format!(
            "POST {BASE}/8080/ HTTP/1.1\r\nHost: {API}\r\nAuthorization: Bearer TOKEN\r\n\
             {framing}\r\n{body}"
        ))
    };
    let chunked = "Transfer-Encoding: chunked\r\n";
    let all = format!("0\r\n\r\n{inner}");
    let whole = inner_len + 5;
    for (framing, body) in [
        (format!("Content-Length: {whole}\r\n{chunked}"), all.as_str()),
        (format!("{chunked}Content-Length: {whole}\r\n"), all.as_str()),
        (format!("Content-Length: 0\r\nContent-Length: {inner_len}\r\n"), inner),
        ("Content-Length: 0, 5\r\n".to_owned(), inner),
        ("Content-Length: +0\r\n".to_owned(), inner),
        ("Transfer-Encoding: chunked, identity\r\n".to_owned(), all.as_str()),
        ("Transfer-Encoding: xchunked\r\n".to_owned(), all.as_str()),
        ("Transfer-Encoding : chunked\r\n".to_owned(), all.as_str()),
        (chunked.to_owned(), "zz\r\n\r\n"),
        (chunked.to_owned(), "5;\r\nhelloXX0\r\n\r\n"),
        ("X: a\r\n b: c\r\nContent-Length: 0\r\n".to_owned(), inner),
    ] {
        let answer = attack(&framing, body);
        let answers = answer.matches("HTTP/1.1 ").count() - answer.matches("HTTP/1.1 100").count();
        // The guest's answer quotes its own request line.
        let quoted = answer.matches("POST / HTTP/1.1").count();
        assert!(answers - quoted <= 1, "{framing:?} was answered twice:\n{answer}");
    }
    let vm = guest.0.ctl(&["vms", "get", "one", "-o", "json"]);
    let vm: serde_json::Value = serde_json::from_slice(&vm.stdout).unwrap();
    assert_eq!(vm["status"], "running", "a request was smuggled");

    let bomb: String = (0..300).map(|index| format!("X-{index}: 1\r\n")).collect();
    assert_eq!(status(&guest.get(&format!("{BASE}/8080/"), &bomb)), "431");
    let long = format!("X: {}\r\n", "y".repeat(100_000));
    assert_eq!(status(&guest.get(&format!("{BASE}/8080/"), &long)), "431");
}

#[test]
fn a_guest_that_answers_nonsense_is_named() {
    let guest = Guest::new();
    let answer = |port: u16, script: &str| guest.serve(port, &format!("#!/bin/sh\n{script}\n"));
    answer(8081, "exec cat /dev/urandom");
    answer(8082, "printf 'HTTP/1.1 200 OK\\r\\n'; while :; do printf 'X-A: 1\\r\\n' || exit; done");
    answer(8083, "printf 'HTTP/1.1 200 OK\\r\\nX: '; exec tr '\\0' y < /dev/zero");
    answer(
        8084,
        "printf 'HTTP/1.1 200 OK\\r\\nContent-Length: 1\\r\\nContent-Length: 2\\r\\n\\r\\nab'",
    );
    answer(
        8085,
        "printf 'HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: x\\r\\nConnection: upgrade\\r\\n\\r\\n'",
    );
    answer(8086, "exit");
    for port in 8081..=8086 {
        let seen = guest.get(&format!("{BASE}/{port}/"), "");
        assert!(status(&seen) == "502" && seen.contains("bad_guest_answer"), "{port}: {seen}");
    }
    answer(8087, "exec sleep 1000");
    let began = Instant::now();
    let seen = guest.get(&format!("{BASE}/8087/"), "Volant-Timeout-Ms: 1500\r\n");
    assert!(status(&seen) == "504" && seen.contains("guest_timeout"), "{seen}");
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(guest.shell("echo here").stdout, b"here\n");
}

/// Connections that idle clients hold open.
const CROWD: usize = 5000;
/// What they may cost the daemon.
const CROWD_KIB_MAX: u64 = 64 << 10;

#[test]
fn a_crowd_and_a_slow_client_hold_up_nobody() {
    let limit = rustix::process::Rlimit { current: Some(20_000), maximum: Some(20_000) };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    let guest = Guest::new();
    guest.serve(8080, ECHO);
    // A head that comes a byte at a time is cut off, however long it goes on.
    let began = Instant::now();
    let mut slow = guest.send(&format!("GET {BASE}/8080/ HTTP/1.1\r\nHost: {API}\r\nX: "));
    slow.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let ended = loop {
        let sent = slow.write_all(b"y");
        match slow.read(&mut [0; 512]) {
            Ok(0) => break Instant::now(),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && sent.is_ok() => {
                assert!(began.elapsed() < Duration::from_secs(120), "a slow client is served");
            }
            Ok(_) => {}
            Err(_) => break Instant::now(),
        }
    };
    assert!(Duration::from_secs(10) < ended - began, "it was cut off at once");

    let before = guest.0.private_kib();
    let crowd: Vec<TcpStream> = (0..CROWD).map(|_| TcpStream::connect(API).unwrap()).collect();
    // The operator and the guests notice nothing; who comes by TCP waits his turn.
    assert_eq!(guest.shell("echo here").stdout, b"here\n");
    assert!(guest.0.ctl(&["vms", "create", "two", "--memory", "64"]).status.success());
    let seen = guest.get(&format!("{BASE}/8080/"), "");
    assert_eq!(status(&seen), "200", "{seen}");
    let grown = guest.0.private_kib().saturating_sub(before);
    println!("{CROWD} idle connections: {grown} KiB");
    assert!(grown < CROWD_KIB_MAX, "{grown} KiB");
    drop(crowd);
}

#[test]
fn an_agent_that_is_stuck_is_named_and_its_vm_can_be_ended() {
    let guest = Guest::new();
    guest.serve(8080, ECHO);
    guest.shell("mkdir /www && echo here >/www/index.html && httpd -p 127.0.0.1:8081 -h /www");
    assert_eq!(status(&guest.get("/api/v1/vms/one/agent/v1/health", "")), "200");
    let seen = guest.get(&format!("{BASE}/8081/"), "");
    assert_eq!(status(&seen), "200", "a server on the guest's loopback alone: {seen}");
    // Frozen by its own guest: it takes connections and answers none.
    guest.shell(
        "mkdir -p /tmp/groups && mount -t cgroup2 none /tmp/groups && mkdir /tmp/groups/stuck && \
         { { sleep 1; echo 1 > /tmp/groups/stuck/cgroup.procs; \
         echo 1 > /tmp/groups/stuck/cgroup.freeze; } >/dev/null 2>&1 & }",
    );
    guest.0.wait("the agent to be stuck", || {
        let path = "/api/v1/vms/one/agent/v1/health";
        let seen = guest.get(path, "Volant-Timeout-Ms: 3000\r\n");
        status(&seen) == "504" && seen.contains("guest_timeout")
    });
    // A port that the guest's own kernel opens does not need it; any other one does.
    assert_eq!(status(&guest.get(&format!("{BASE}/8080/"), "")), "200");
    let seen = guest.get(&format!("{BASE}/8082/"), "Volant-Timeout-Ms: 3000\r\n");
    assert!(status(&seen) == "504" && seen.contains("guest_timeout"), "{seen}");
    assert!(guest.0.ctl(&["vms", "create", "two", "--memory", "64"]).status.success());
    let out = guest.0.ctl(&["vms", "stop", "one"]);
    assert!(out.status.success(), "{out:?}");
    assert!(guest.0.ctl(&["vms", "start", "one"]).status.success());
    assert_eq!(guest.shell("echo again").stdout, b"again\n");
}

#[test]
fn an_upgraded_connection_carries_whatever_is_sent() {
    let guest = Guest::new();
    let echo = "#!/bin/sh\nwhile read -r line; do case $line in ?) break ;; esac; done\n\
                printf 'HTTP/1.1 101 Switching Protocols\\r\\nConnection: upgrade\\r\\nUpgrade: echo\\r\\n\\r\\n'\n\
                exec cat\n";
    guest.serve(8080, echo);
    let mut socket = guest.send(&format!(
        "GET {BASE}/8080/ HTTP/1.1\r\nHost: {API}\r\nAuthorization: Bearer TOKEN\r\n\
         Connection: Upgrade\r\nUpgrade: echo\r\n\r\n"
    ));
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert_eq!(status(&String::from_utf8_lossy(&head)), "101");
    let data: Vec<u8> = (0..4u32 << 20).flat_map(u32::to_le_bytes).collect();
    let (mut writer, sent) = (socket.try_clone().unwrap(), data.clone());
    let writing = std::thread::Builder::new().spawn(move || writer.write_all(&sent)).unwrap();
    let mut back = vec![0; data.len()];
    socket.read_exact(&mut back).unwrap();
    writing.join().unwrap().unwrap();
    assert!(back == data, "16 MiB came back changed");
}

#[test]
fn host_names_open_for_tokens_and_signed_addresses() {
    let guest = Guest::new();
    guest.serve(8080, ECHO);
    let port = PROXY.rsplit_once(':').unwrap().1;
    let url = format!("http://8080-one.volant.localhost:{port}/x?y=1");
    assert_eq!(curl(&[&url]).1, "401");
    let ctl = |arguments: &[&str]| {
        let out = guest.0.ctl(&[&["vms"], arguments].concat());
        assert!(out.status.success(), "{arguments:?}: {out:?}");
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    };
    let token = format!("volant-token: {}", ctl(&["access", "one"]));
    let (body, code) = curl(&["-H", &token, "-H", "Authorization: Bearer own", &url]);
    assert!(code == "200" && body.starts_with("GET /x?y=1 HTTP/1.1\n"), "{code} {body}");
    let lower = body.to_ascii_lowercase();
    assert!(lower.contains(&format!("host: 8080-one.volant.localhost:{port}\n")), "{body}");
    assert!(!lower.contains("volant-token"), "{body}");
    assert_eq!(curl(&["-H", &token, &url.replace("-one", "-two")]).1, "401");
    assert_eq!(curl(&["-H", &token, &url.replace("8080-one", "one")]).1, "404");
    assert_eq!(curl(&["-H", "volant-token: x", &url]).1, "401");
    // The same token opens the VM's ports in the API, and nothing else.
    let bearer = format!("Authorization: Bearer {}", ctl(&["access", "one"]));
    assert_eq!(curl(&["-H", &bearer, &format!("http://{API}{BASE}/8080/")]).1, "200");
    assert_eq!(curl(&["-H", &bearer, &format!("http://{API}/api/v1/vms")]).1, "401");

    let signed = ctl(&["url", "one", "8080", "--path", "/page", "--expires", "600"]);
    let folder = tempfile::tempdir().unwrap();
    let jar = folder.path().join("jar").display().to_string();
    let (body, code) = curl(&["-c", &jar, "-b", "mine=1", &signed]);
    assert!(code == "200" && body.starts_with("GET /page HTTP/1.1\n"), "{code} {body}");
    let (body, code) = curl(&["-b", &jar, &url]);
    assert!(code == "200" && !body.contains("volant-access"), "{code} {body}");
    assert_eq!(curl(&[&signed.replace("8080-", "8081-")]).1, "401", "another port");
    assert_eq!(curl(&[&signed.replace("volant-expires=", "volant-expires=9")]).1, "401");
    assert_eq!(curl(&[&ctl(&["url", "one", "8080", "--expires", "0"])]).1, "401", "expired");
    ctl(&["access", "one", "--renew"]);
    assert_eq!(curl(&[&signed]).1, "401", "the secret it was signed with is gone");
    assert_eq!(curl(&["-H", &token, &url]).1, "401");
}

#[test]
fn an_agent_that_answers_garbage_is_named_and_its_vm_can_be_ended() {
    let guest = Guest::new();
    let client = guest.0.client();
    let exec =
        |line: &str| client.post("/api/v1/vms/one/exec", &serde_json::json!({ "command": line }));
    // What its answers begin with is written over, in the first part of its file, which is where its memory begins.
    let (volary, begin) = (std::fs::read(named("VOLARY")).unwrap(), b"HTTP/1.1 ");
    let places = volary.windows(begin.len()).enumerate().filter(|(_, part)| part == begin);
    let places: Vec<String> = places.map(|(at, _)| at.to_string()).collect();
    exec(&format!(
        "set -- $(grep -m 1 /init /proc/1/maps); for at in {}; do printf JUNK | \
         dd of=/proc/1/mem bs=1 seek=$((0x${{1%-*}} + at)) conv=notrunc; done",
        places.join(" ")
    ));
    let seen = guest.get("/api/v1/vms/one/agent/v1/health", "");
    assert!(status(&seen) == "502" && seen.contains("bad_guest_answer"), "{seen}");
    let seen = exec("true");
    let told = (seen.status.as_u16(), &seen.json()["code"]);
    assert_eq!(told, (503, &"agent_unreachable".into()), "{seen:?}");
    assert!(guest.0.ctl(&["vms", "create", "two", "--memory", "64"]).status.success());
    assert!(guest.0.ctl(&["vms", "stop", "one"]).status.success());
    assert!(guest.0.ctl(&["vms", "start", "one"]).status.success());
    assert_eq!(guest.shell("echo again").stdout, b"again\n");
}

#[test]
fn an_agent_that_is_killed_ends_its_vm_and_says_so() {
    let guest = Guest::new();
    let client = guest.0.client();
    // No signal kills a first process; what it runs can be written over.
    let kill = "set -- $(grep -m 1 r-xp /proc/1/maps); from=0x${1%-*} to=0x${1#*-}; \
                exec dd if=/dev/zero of=/proc/1/mem bs=4096 seek=$((from / 4096)) \
                count=$(((to - from) / 4096)) conv=notrunc";
    let seen = client.post("/api/v1/vms/one/exec", &serde_json::json!({ "command": kill }));
    assert!(500 <= seen.status.as_u16(), "{seen:?}");
    assert!(!seen.json()["code"].as_str().unwrap().is_empty(), "{seen:?}");
    guest.0.wait_for_status("one", "failed");
    let vm = client.get("/api/v1/vms/one").json();
    assert!(vm["reason"].as_str().unwrap().contains("crashed"), "{vm}");
    let seen = client.post("/api/v1/vms/one/exec", &serde_json::json!({ "command": "true" }));
    assert_eq!((seen.status.as_u16(), &seen.json()["code"]), (409, &"vm_state".into()));
    assert!(guest.0.ctl(&["vms", "start", "one"]).status.success());
    assert_eq!(guest.shell("echo again").stdout, b"again\n");
}
