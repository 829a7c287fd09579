//! One request at a time over the Unix socket or TCP.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::ctl::context;
use crate::ctl::output::Printer;
use crate::ctl::tls;
use crate::wire::Problem;

const SOCKET_DEFAULT: &str = "/run/volant/volant.sock";
const TCP_DEFAULT: &str = "127.0.0.1:7777";
const TOKEN_OF_ROOT: &str = "/var/lib/volant/token";
/// Exit code of a program that writes where nobody reads, as a shell has it: 128 + SIGPIPE.
const NOBODY_READS: u8 = 141;

/// Why a command did not do what it should.
#[derive(Debug)]
pub struct Failure {
    /// For stderr.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// docs/cli.md lists them.
    pub exit_code: u8,
    /// The daemon's stable word, if it is its refusal.
    pub code: String,
}

impl Failure {
    /// A failure on this side.
    pub fn local(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), hint: None, exit_code: 1, code: String::new() }
    }

    /// What was to be written is not. Where nobody reads any more, nothing is said, as is usual at the
    /// head of a pipe.
    pub fn of_writing(error: &std::io::Error) -> Failure {
        match error.kind() {
            ErrorKind::BrokenPipe => {
                Failure { exit_code: NOBODY_READS, ..Failure::local(String::new()) }
            }
            _ => Failure::local(error.to_string()),
        }
    }

    fn unreachable(place: &str, error: &dyn std::fmt::Display) -> Failure {
        Failure {
            message: format!("no daemon answers at {place}: {error}"),
            hint: Some("start it with `volantd serve`, or name it with --host".to_owned()),
            exit_code: 6,
            code: String::new(),
        }
    }

    /// Whether it is the daemon's refusal of this code.
    pub fn is(&self, code: &str) -> bool {
        self.code == code
    }

    /// The daemon's refusal.
    pub fn of_problem(problem: Problem) -> Failure {
        let exit_code = exit_code_of(problem.status);
        Failure { message: problem.detail, hint: problem.hint, exit_code, code: problem.code }
    }
}

/// The exit code for an HTTP status that is no success.
pub fn exit_code_of(status: u16) -> u8 {
    match status {
        400 | 422 => 2,
        401 | 403 => 5,
        404 => 3,
        409 | 412 => 4,
        504 => 7,
        _ => 1,
    }
}

/// The body of a request.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A body that is there as a whole.
pub fn whole(bytes: Vec<u8>) -> Body {
    Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed_unsync()
}

/// Prints an answer's body as it comes.
///
/// # Errors
/// The daemon hangs up, or nobody reads.
pub async fn print(mut body: Incoming, out: &Printer) -> Result<(), Failure> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::local(format!("cut off: {error}")))?;
        out.write(frame.data_ref().map_or(&[][..], |bytes| bytes))?;
    }
    Ok(())
}

/// A stream to the daemon.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

#[derive(Debug)]
enum Place {
    Unix(PathBuf),
    Tcp(String),
    Tls(String),
}

impl Place {
    fn parse(host: &str) -> Option<Place> {
        let (scheme, rest) = host.split_once("://")?;
        let address = rest.trim_end_matches('/').to_owned();
        match scheme {
            "unix" => Some(Place::Unix(rest.into())),
            "http" => Some(Place::Tcp(address)),
            "https" => Some(Place::Tls(address)),
            _ => None,
        }
    }
}

fn place(host: &str) -> Result<Place, Failure> {
    let wrong = || {
        let text = format!("{host:?} is no daemon's place");
        let hint = "unix:///path, http://host:port or https://host:port".to_owned();
        Failure { exit_code: 2, hint: Some(hint), ..Failure::local(text) }
    };
    Place::parse(host).ok_or_else(wrong)
}

/// Where the daemon is and what opens it.
#[derive(Debug)]
pub struct Client {
    place: Place,
    token: Option<String>,
}

impl Client {
    /// From `--host` and `--token-file`, else the Unix socket if it is there, else TCP with the
    /// token of the user or of root.
    ///
    /// # Errors
    /// `host` is no place, or the token file cannot be read.
    pub fn new(host: Option<&str>, token_file: Option<&Path>) -> Result<Client, Failure> {
        let place = match host {
            Some(host) => place(host)?,
            None if std::os::unix::net::UnixStream::connect(SOCKET_DEFAULT).is_ok() => {
                Place::Unix(SOCKET_DEFAULT.into())
            }
            None => Place::Tcp(TCP_DEFAULT.to_owned()),
        };
        let token = match token_file {
            Some(path) => Some(std::fs::read_to_string(path).map_err(|error| Failure {
                exit_code: 5,
                ..Failure::local(format!("{}: {error}", path.display()))
            })?),
            None => default_tokens().iter().find_map(|path| std::fs::read_to_string(path).ok()),
        };
        Ok(Client { place, token: token.map(|token| token.trim().to_owned()) })
    }

    /// From a place and the token that opens it.
    ///
    /// # Errors
    /// `host` is no place.
    pub fn with_token(host: &str, token: &str) -> Result<Client, Failure> {
        Ok(Client { place: place(host)?, token: Some(token.to_owned()) })
    }

    /// How the daemon is named in messages and in the Host header.
    fn name(&self) -> &str {
        match &self.place {
            Place::Unix(_) => "localhost",
            Place::Tcp(address) | Place::Tls(address) => address,
        }
    }

    /// Where the daemon is, as `--host` has it.
    pub fn place(&self) -> String {
        match &self.place {
            Place::Unix(path) => format!("unix://{}", path.display()),
            Place::Tcp(address) => format!("http://{address}"),
            Place::Tls(address) => format!("https://{address}"),
        }
    }

    /// A new stream to the daemon.
    ///
    /// # Errors
    /// Nobody answers.
    pub async fn dial(&self) -> Result<Box<dyn Stream>, Failure> {
        let dialled: std::io::Result<Box<dyn Stream>> = match &self.place {
            Place::Unix(path) => UnixStream::connect(path).await.map(|s| Box::new(s) as _),
            Place::Tcp(address) => TcpStream::connect(address).await.map(|s| Box::new(s) as _),
            Place::Tls(address) => tls::connect(address).await.map(|s| Box::new(s) as _),
        };
        let place = match &self.place {
            Place::Unix(path) => path.display().to_string(),
            Place::Tcp(address) | Place::Tls(address) => address.clone(),
        };
        dialled.map_err(|error| Failure::unreachable(&place, &error))
    }

    /// The URL of `path` for a WebSocket, and the Authorization header's value.
    pub fn websocket(&self, path: &str) -> (String, Option<String>) {
        let token = self.token.as_ref().map(|token| format!("Bearer {token}"));
        (format!("ws://{}{path}", self.name()), token)
    }

    /// Sends a request; an answer that is a problem becomes a failure.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        accept: &str,
    ) -> Result<Response<Incoming>, Failure> {
        let kind = body.is_some().then_some("application/json");
        self.send_body(method, path, whole(body.unwrap_or_default()), kind, accept).await
    }

    /// The same with any body, streamed.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn send_body(
        &self,
        method: Method,
        path: &str,
        body: Body,
        kind: Option<&str>,
        accept: &str,
    ) -> Result<Response<Incoming>, Failure> {
        let answer = self.exchange(method, path, body, kind, accept).await?;
        if answer.status().is_success() { Ok(answer) } else { Err(Client::refusal(answer).await) }
    }

    /// What an answer that is no success says.
    pub async fn refusal(answer: Response<Incoming>) -> Failure {
        let status = answer.status();
        let body = match answer.into_body().collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return Failure::local(format!("the daemon hung up: {error}")),
        };
        match serde_json::from_slice(&body) {
            Ok(problem) => Failure::of_problem(problem),
            Err(_) => Failure::local(format!("the daemon answered {status}")),
        }
    }

    /// Sends a request and returns whatever is answered.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Body,
        kind: Option<&str>,
        accept: &str,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::builder().method(method).uri(path).header("accept", accept);
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        self.send_request(request, body).await
    }

    /// Sends a request as it is, with our token, and returns whatever is answered.
    ///
    /// # Errors
    /// Nobody answers, or the request is none.
    pub async fn send_request(
        &self,
        mut request: hyper::http::request::Builder,
        body: Body,
    ) -> Result<Response<Incoming>, Failure> {
        let stream = TokioIo::new(self.dial().await?);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(stream).await.map_err(|error| lost(&error))?;
        // Lives as long as the answer is read; the runtime ends with the command.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        request = request.header("host", self.name());
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request
            .body(body)
            .map_err(|error| Failure { exit_code: 2, ..Failure::local(error.to_string()) })?;
        sender.send_request(request).await.map_err(|error| lost(&error))
    }

    /// Sends a request and parses the answer.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl serde::Serialize>,
    ) -> Result<T, Failure> {
        let body = body.map(serde_json::to_vec).transpose();
        let body = body.map_err(|error| Failure::local(error.to_string()))?;
        let answer = self.send(method, path, body, "application/json").await?;
        let bytes = answer.into_body().collect().await;
        let bytes = bytes.map_err(|error| Failure::local(error.to_string()))?.to_bytes();
        serde_json::from_slice(&bytes).map_err(|error| {
            Failure::local(format!("the daemon's answer is not understood: {error}"))
        })
    }

    /// Follows server-sent events until the stream ends or `each` has had enough.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn events(
        &self,
        path: &str,
        each: impl FnMut(&str, &str) -> Result<(), Failure>,
    ) -> Result<u8, Failure> {
        let answer = self.send(Method::GET, path, None, "text/event-stream").await?;
        Client::follow(answer, each).await
    }

    /// Follows an answer of server-sent events.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn follow(
        answer: Response<Incoming>,
        mut each: impl FnMut(&str, &str) -> Result<(), Failure>,
    ) -> Result<u8, Failure> {
        let mut parser = super::sse::SseParser::default();
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Failure::local(error.to_string()))?;
            for (kind, data) in parser.push(frame.data_ref().map_or(&[][..], |bytes| bytes)) {
                each(&kind, &data)?;
            }
        }
        Ok(0)
    }
}

fn lost(error: &hyper::Error) -> Failure {
    Failure::local(format!("the daemon hung up: {error}"))
}

fn default_tokens() -> Vec<PathBuf> {
    let of_user = context::folder().map(|folder| folder.join("token"));
    of_user.into_iter().chain([PathBuf::from(TOKEN_OF_ROOT)]).collect()
}
