//! The host's side of the guest agent: HTTP/1.1 over a stream that somebody else has made.
//!
//! The agent is as hostile as its guest: heads and bodies are bounded, nothing it says is trusted
//! further than its type. Deadlines are the caller's.

/// Files of the guest.
pub mod files;
mod frames;
/// What the guest looks like from inside.
pub mod observe;
/// Processes in the guest.
pub mod process;
mod workload;

use std::io;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{self, HeaderName};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::AbortOnDropHandle;
use volant_protocol::{
    AgentInfo, BODY_LEN_MAX, GuestConfig, PROTOCOL_VERSION, ShutdownRequest, TCP_UPGRADE,
};

pub use files::{Download, FileWatch, WriteOptions};
pub use process::{AttachOptions, Attachment, InputSender, ProcessInput, ProcessOutput};
pub use workload::{WorkloadOutput, WorkloadStream, workload};

/// Bytes of an answer's head: the agent's own are a tenth.
const HEAD_LEN_MAX: usize = 16 * 1024;
/// Characters of a guest's text that are passed on.
const MESSAGE_LEN_MAX: usize = 512;

/// Any stream to a guest.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// An owned stream of any make.
pub trait StreamObject: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> StreamObject for T {}

/// The agent did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The connection broke.
    #[error("the connection to the agent broke")]
    Io(#[source] io::Error),
    /// The agent's answer is not HTTP or not what the protocol says.
    #[error("the agent answered {0}")]
    Protocol(String),
    /// The agent refused the request.
    #[error("the agent refused: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The agent's word for it.
        code: String,
        /// The agent's sentence, truncated and printable.
        message: String,
    },
    /// Nothing came back within the time given.
    #[error("the agent did not answer in time")]
    Silent,
}

/// The body of a request to the agent, streamed.
pub type Payload = UnsyncBoxBody<Bytes, io::Error>;

/// One HTTP connection to the agent; dropping it closes the stream.
#[derive(Debug)]
struct Connection {
    sender: http1::SendRequest<Payload>,
    _driver: AbortOnDropHandle<()>,
}

impl Connection {
    async fn open(stream: impl Stream) -> Result<Connection, AgentError> {
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(HEAD_LEN_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let driver = tokio::spawn(async move {
            // Its error reaches the request that it ends.
            let _ = driver.with_upgrades().await;
        });
        Ok(Connection { sender, _driver: AbortOnDropHandle::new(driver) })
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Payload,
        headers: &[(HeaderName, &str)],
    ) -> Result<Response<Incoming>, AgentError> {
        let mut request = Request::builder().method(method).uri(path).header("host", "agent");
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let request =
            request.body(body).map_err(|error| AgentError::Protocol(error.to_string()))?;
        self.sender.send_request(request).await.map_err(broken)
    }
}

fn broken(error: hyper::Error) -> AgentError {
    if error.is_parse() || error.is_parse_too_large() {
        return AgentError::Protocol("what is not HTTP".to_owned());
    }
    AgentError::Io(io::Error::other(error))
}

async fn bounded(response: Response<Incoming>, len_max: usize) -> Result<Bytes, AgentError> {
    let body = Limited::new(response.into_body(), len_max).collect().await;
    let body = body.map_err(|error| AgentError::Io(io::Error::other(error)))?;
    Ok(body.to_bytes())
}

/// A non-success answer as an error, its text made harmless.
async fn refusal(response: Response<Incoming>) -> AgentError {
    let status = response.status().as_u16();
    let body = match bounded(response, BODY_LEN_MAX).await {
        Ok(body) => body,
        Err(error) => return error,
    };
    let parsed: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
    let part = |name| parsed.as_ref().and_then(|value| value.get(name)?.as_str());
    AgentError::Refused {
        status,
        code: printable(part("code").unwrap_or_default()),
        message: printable(part("message").unwrap_or("without a reason")),
    }
}

/// A guest's text as it may be shown: one line, bounded.
fn printable(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(MESSAGE_LEN_MAX).collect()
}

/// `value` as the body of a request.
fn json(value: &impl serde::Serialize) -> Result<Payload, AgentError> {
    let text = serde_json::to_vec(value);
    let text = text.map_err(|error| AgentError::Protocol(error.to_string()))?;
    Ok(Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync())
}

/// An answer whose connection lives as long as it is read.
#[derive(Debug)]
struct Answer {
    response: Response<Incoming>,
    _connection: Connection,
}

/// Sends one request; an answer that is no success becomes an error.
async fn request(
    stream: impl Stream,
    method: Method,
    path: &str,
    body: Payload,
) -> Result<Answer, AgentError> {
    request_with(stream, method, path, body, None).await
}

/// The same, with one header more.
async fn request_with(
    stream: impl Stream,
    method: Method,
    path: &str,
    body: Payload,
    header: Option<(HeaderName, &str)>,
) -> Result<Answer, AgentError> {
    let mut connection = Connection::open(stream).await?;
    let headers: Vec<_> = header.into_iter().collect();
    let response = connection.send(method, path, body, &headers).await?;
    if !response.status().is_success() {
        return Err(refusal(response).await);
    }
    Ok(Answer { response, _connection: connection })
}

/// The JSON of a small answer.
async fn parse<T: serde::de::DeserializeOwned>(answer: Answer) -> Result<T, AgentError> {
    parse_up_to(answer, BODY_LEN_MAX).await
}

/// The JSON of an answer of at most `len_max` bytes.
async fn parse_up_to<T: serde::de::DeserializeOwned>(
    answer: Answer,
    len_max: usize,
) -> Result<T, AgentError> {
    let body = bounded(answer.response, len_max).await?;
    serde_json::from_slice(&body)
        .map_err(|error| AgentError::Protocol(format!("unexpected JSON: {error}")))
}

/// `PUT /v1/config` on the connection that the agent has dialled.
///
/// # Errors
/// [`AgentError`].
pub async fn configure(stream: impl Stream, config: &GuestConfig) -> Result<AgentInfo, AgentError> {
    let answer = request(stream, Method::PUT, "/v1/config", json(config)?).await?;
    let info: AgentInfo = parse(answer).await?;
    if info.protocol_version != PROTOCOL_VERSION {
        let theirs = info.protocol_version;
        return Err(AgentError::Protocol(format!(
            "in protocol version {theirs}, this daemon speaks {PROTOCOL_VERSION}"
        )));
    }
    Ok(info)
}

/// `POST /v1/shutdown`.
///
/// # Errors
/// [`AgentError`].
pub async fn shutdown(stream: impl Stream, body: &ShutdownRequest) -> Result<(), AgentError> {
    request(stream, Method::POST, "/v1/shutdown", json(body)?).await.map(drop)
}

/// `GET /v1/tcp/{port}` with Upgrade: the raw stream to a TCP port on the guest's loopback.
///
/// # Errors
/// [`AgentError::Refused`] with status 502 when nothing listens there.
pub async fn tcp(stream: impl Stream, port: u16) -> Result<Box<dyn StreamObject>, AgentError> {
    let (upgraded, driver) =
        upgrade(stream, Method::GET, &format!("/v1/tcp/{port}"), Payload::default(), TCP_UPGRADE)
            .await?;
    drop(driver);
    Ok(Box::new(upgraded))
}

type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

/// Sends a request that must be answered by 101, and returns the raw stream.
async fn upgrade(
    stream: impl Stream,
    method: Method,
    path: &str,
    body: Payload,
    token: &str,
) -> Result<(Upgraded, Connection), AgentError> {
    let mut connection = Connection::open(stream).await?;
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, token)];
    let answer = connection.send(method, path, body, &headers).await?;
    match answer.status() {
        StatusCode::SWITCHING_PROTOCOLS => {}
        status if status.is_success() => {
            return Err(AgentError::Protocol(format!("{status} where 101 was due")));
        }
        _ => return Err(refusal(answer).await),
    }
    let upgraded = hyper::upgrade::on(answer).await.map_err(broken)?;
    Ok((TokioIo::new(upgraded), connection))
}

#[cfg(test)]
mod tests;
