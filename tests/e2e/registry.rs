//! A registry of images for one test, and a daemon that pulls from it.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, named};

pub(crate) const REGISTRY: &str = "127.0.0.1:15000";
const POLL: Duration = Duration::from_millis(100);
const DEADLINE: Duration = Duration::from_secs(120);

/// Debian's docker-registry with the images that were pushed to it; gone at the end.
pub(crate) struct Registry {
    server: Child,
    _folder: tempfile::TempDir,
}

impl Registry {
    pub(crate) fn start() -> Registry {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.yml");
        let text = format!(
            "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: {} }}, maintenance: {{ \
             readonly: {{ enabled: true }} }} }}\nhttp: {{ addr: {REGISTRY} }}\n",
            named("VOLANT_TEST_IMAGES").join("registry").display()
        );
        std::fs::write(&config, text).unwrap();
        let server = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + DEADLINE;
        while std::net::TcpStream::connect(REGISTRY).is_err() {
            assert!(Instant::now() < deadline, "the registry does not answer");
            std::thread::park_timeout(POLL);
        }
        Registry { server, _folder: folder }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

pub(crate) fn daemon() -> Daemon {
    Daemon::start_with(&format!("[images]\nplain_http_hosts = [\"{REGISTRY}\"]\n"))
}
