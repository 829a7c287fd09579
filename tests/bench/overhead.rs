//! What the proxy costs: the same nginx in a guest, asked over the bridge, through the proxy, and
//! through nginx as a proxy on the host. VOLANT_BENCH_NGINX and VOLANT_BENCH_WRK name programs.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::daemon::{Daemon, named};
use crate::servers;
use crate::table::{Row, Series, Unit, publish};

/// Turns that each way gets. They are many, because one differs from the next by a third in the devvm, and what is to
/// be told apart is a few percent.
const ROUNDS: usize = 24;
const SECONDS: &str = "3";
const NGINX: &str = "127.0.0.1:18090";
/// Direct requests for one through the proxy: half of them must arrive.
const OF_DIRECT_MAX: f64 = 2.0;

/// nginx as a proxy; ended when dropped.
struct NginxProxy {
    server: Child,
    _folder: tempfile::TempDir,
}

impl NginxProxy {
    fn start(guest: &str) -> NginxProxy {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("{kind}_temp_path {here}/{kind}; "))
            .collect();
        let config = format!(
            "daemon off; user root; worker_processes 1; pid {here}/pid; error_log {here}/error;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; {temporary}\n\
             upstream guest {{ server {guest}:80; keepalive 64; }}\n\
             server {{ listen {NGINX}; location / {{ proxy_pass http://guest; \
             proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}\n"
        );
        let path = folder.path().join("nginx.conf");
        std::fs::write(&path, config).unwrap();
        let server = Command::new(named("VOLANT_BENCH_NGINX"))
            .args(["-p".as_ref(), folder.path(), "-c".as_ref(), path.as_path()])
            .args(["-e".as_ref(), folder.path().join("error").as_path()])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        NginxProxy { server, _folder: folder }
    }
}

impl Drop for NginxProxy {
    fn drop(&mut self) {
        // Its worker ends with it, as it notices at its next event.
        let _ = Command::new("kill").arg(self.server.id().to_string()).status();
        let _ = self.server.wait();
    }
}

/// Milliseconds of wrk's words: `1.23ms`, `45.60us`, `1.02s`.
fn milliseconds(text: &str) -> f64 {
    let scale = [("us", 1e-3), ("ms", 1.0), ("s", 1e3)];
    let (number, scale) = scale
        .iter()
        .find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, scale)))
        .unwrap_or_else(|| panic!("{text:?} is no time"));
    number.parse::<f64>().unwrap() * scale
}

/// Requests per second and p99 in milliseconds.
fn load(url: &str, token: &str, connections: &str, seconds: &str) -> (f64, f64) {
    let bearer = format!("Authorization: Bearer {token}");
    let wrk = std::env::var("VOLANT_BENCH_WRK").unwrap_or_else(|_| "wrk".to_owned());
    let out = Command::new(wrk)
        .args(["-t", "1", "-c", connections, "-d", seconds, "--latency", "-H", &bearer, url])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success() && !text.contains("Non-2xx"), "{url}: {out:?}");
    let after = |word: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(word));
        let line = line.unwrap_or_else(|| panic!("no {word} in {text}"));
        line.split_whitespace().last().unwrap().to_owned()
    };
    (after("Requests/sec:").parse().unwrap(), milliseconds(&after("99%")))
}

fn is_up(url: &str) -> bool {
    let got =
        Command::new("curl").args(["-sf", "-o", "/dev/null", "--max-time", "5", url]).status();
    got.is_ok_and(|status| status.success())
}

#[test]
fn overhead_of_the_proxy() {
    assert!(Path::new(&named("VOLANT_BENCH_NGINX")).exists());
    // Without a limit on requests: it is not what is measured.
    let daemon = Daemon::start_with("requests_per_second_max = 0\n");
    servers::serve(&daemon, "320");
    let out = daemon.ctl(&["vms", "get", "real", "-o", "json"]);
    let vm: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let guest = vm["ip_address"].as_str().unwrap();
    let _nginx = NginxProxy::start(guest);
    let ways = [
        ("direct, over the bridge", format!("http://{guest}/")),
        ("through volantd", "http://127.0.0.1:17777/api/v1/vms/real/proxy/80/".to_owned()),
        ("through nginx on the host", format!("http://{NGINX}/")),
    ];
    let token = daemon.token();
    daemon.wait("nginx on the host", || is_up(&ways[2].1));
    for (_, url) in &ways {
        load(url, &token, "4", "2");
    }
    let mut rows = Vec::new();
    for connections in ["1", "64"] {
        let mut measured: [(Series, Series); 3] = Default::default();
        for round in 0..ROUNDS {
            // Each way follows each other one as often.
            for way in (0..ways.len()).map(|turn| (round + turn * (1 + round % 2)) % ways.len()) {
                let (per_second, p99_ms) = load(&ways[way].1, &token, connections, SECONDS);
                measured[way].0.push(per_second);
                measured[way].1.push(p99_ms);
            }
        }
        // Of each turn by itself: what is slow for a while is slow for both.
        let rates = [0, 2].map(|other: usize| measured[other].0.by(&measured[1].0));
        let p99s = [0, 2].map(|other: usize| measured[1].1.by(&measured[other].1));
        for ((name, _), (rate, p99)) in ways.iter().zip(measured) {
            rows.push(Row::new(
                &format!("{connections} conn., requests/s {name}"),
                Unit::Count,
                rate,
            ));
            rows.push(Row::new(&format!("{connections} conn., p99 {name}"), Unit::Ms, p99));
        }
        let limits = [("direct", OF_DIRECT_MAX), ("nginx", 1.0)];
        for ((name, limit), (rate, p99)) in limits.into_iter().zip(rates.into_iter().zip(p99s)) {
            let name_of_rate = format!("{connections} conn., {name} / through volantd");
            rows.push(Row::new(&name_of_rate, Unit::Ratio, rate).at_most(limit));
            let name_of_p99 = format!("{connections} conn., p99 through volantd / {name}");
            rows.push(Row::new(&name_of_p99, Unit::Ratio, p99).at_most(limit));
        }
    }
    publish("overhead", &rows);
    let missed: Vec<_> = rows.iter().filter(|row| row.is_missed()).map(|row| &row.name).collect();
    assert!(missed.is_empty(), "short of the target: {missed:?}");
}
