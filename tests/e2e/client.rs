//! An HTTP client for what `ctl` cannot do: many requests at once, raw streams, broken requests.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::handshake;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

/// Speaks to the daemon's Unix socket, a connection for each request. The runtime runs in the
/// caller's thread, so that several requests are at once only where a test says so.
pub(crate) struct Client {
    pub(crate) runtime: Runtime,
    socket: PathBuf,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A stream to a TCP port of a guest.
pub(crate) type Raw = TokioIo<hyper::upgrade::Upgraded>;

impl Client {
    pub(crate) fn new(socket: &Path) -> Client {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Client { runtime, socket: socket.to_owned() }
    }

    /// Sends a request whose answer may never end.
    pub(crate) async fn open(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async move {
            // The test that closes it, or the daemon, knows why.
            let _ = connection.with_upgrades().await;
        });
        sender.send_request(request).await.unwrap()
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Answer {
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        let request = request.header("content-type", "application/json");
        let response = self.open(request.body(Full::new(body.into())).unwrap()).await;
        let status = response.status();
        Answer { status, body: response.into_body().collect().await.unwrap().to_bytes() }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.runtime.block_on(self.send(Method::GET, path, Bytes::new()))
    }

    pub(crate) fn post(&self, path: &str, body: &serde_json::Value) -> Answer {
        self.runtime.block_on(self.send(Method::POST, path, body.to_string()))
    }

    /// Runs a shell line in a guest; its standard output.
    pub(crate) async fn shell(&self, vm: &str, line: &str) -> String {
        let body = serde_json::json!({ "command": line }).to_string();
        let answer = self.send(Method::POST, &format!("/api/v1/vms/{vm}/exec"), body).await;
        let view = answer.json();
        assert_eq!(view["exit_code"], 0, "{line}: {view}");
        view["stdout"].as_str().unwrap().to_owned()
    }

    /// A raw stream to a port on the guest's loopback.
    pub(crate) async fn tcp(&self, vm: &str, port: u16) -> Raw {
        let request = Request::builder()
            .uri(format!("/api/v1/vms/{vm}/agent/v1/tcp/{port}"))
            .header("host", "localhost")
            .header("connection", "upgrade")
            .header("upgrade", "tcp");
        let response = self.open(request.body(Full::default()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS, "{response:?}");
        TokioIo::new(hyper::upgrade::on(response).await.unwrap())
    }
}
