//! The host's side of the guest agent: HTTP/1.1 over a stream that somebody else has made.
//!
//! The agent is as hostile as its guest: heads and bodies are bounded, nothing it says is trusted
//! further than its type. Deadlines are the caller's.

mod exec;
mod frames;
mod workload;

use std::io;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::AbortOnDropHandle;
use volant_protocol::{AgentInfo, BODY_LEN_MAX, GuestConfig, ShutdownRequest, TCP_UPGRADE};

pub use exec::{Exec, ExecInput, ExecOutput, ExecSender, exec};
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
        /// The agent's words, truncated and printable.
        message: String,
    },
}

/// One HTTP connection to the agent; dropping it closes the stream.
#[derive(Debug)]
struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
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
        body: Vec<u8>,
        upgrade: Option<&str>,
    ) -> Result<Response<Incoming>, AgentError> {
        let mut request = Request::builder().method(method).uri(path).header("host", "agent");
        if let Some(token) = upgrade {
            request = request.header("connection", "upgrade").header("upgrade", token);
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| AgentError::Protocol(error.to_string()))?;
        self.sender.send_request(request).await.map_err(broken)
    }
}

fn broken(error: hyper::Error) -> AgentError {
    if error.is_parse() || error.is_parse_too_large() {
        return AgentError::Protocol("what is not HTTP".to_owned());
    }
    AgentError::Io(io::Error::other(error))
}

async fn bounded(response: Response<Incoming>) -> Result<Bytes, AgentError> {
    let body = Limited::new(response.into_body(), BODY_LEN_MAX).collect().await;
    let body = body.map_err(|error| AgentError::Io(io::Error::other(error)))?;
    Ok(body.to_bytes())
}

/// A non-success answer as an error, its text made harmless.
async fn refusal(response: Response<Incoming>) -> AgentError {
    let status = response.status().as_u16();
    let body = match bounded(response).await {
        Ok(body) => body,
        Err(error) => return error,
    };
    let parsed: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
    let text = parsed.as_ref().and_then(|value| value.get("message")?.as_str());
    let text = text.unwrap_or("without a reason");
    AgentError::Refused { status, message: printable(text) }
}

/// A guest's text as it may be shown: one line, bounded.
fn printable(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(MESSAGE_LEN_MAX).collect()
}

fn encode(value: &impl serde::Serialize) -> Result<Vec<u8>, AgentError> {
    serde_json::to_vec(value).map_err(|error| AgentError::Protocol(error.to_string()))
}

/// `PUT /v1/config` on the connection that the agent has dialled.
///
/// # Errors
/// [`AgentError`].
pub async fn configure(stream: impl Stream, config: &GuestConfig) -> Result<AgentInfo, AgentError> {
    let mut connection = Connection::open(stream).await?;
    let answer = connection.send(Method::PUT, "/v1/config", encode(config)?, None).await?;
    if answer.status() != StatusCode::OK {
        return Err(refusal(answer).await);
    }
    serde_json::from_slice(&bounded(answer).await?)
        .map_err(|error| AgentError::Protocol(format!("no agent info: {error}")))
}

/// `POST /v1/shutdown`.
///
/// # Errors
/// [`AgentError`].
pub async fn shutdown(stream: impl Stream, request: &ShutdownRequest) -> Result<(), AgentError> {
    let mut connection = Connection::open(stream).await?;
    let answer = connection.send(Method::POST, "/v1/shutdown", encode(request)?, None).await?;
    if answer.status().is_success() { Ok(()) } else { Err(refusal(answer).await) }
}

/// `GET /v1/tcp/{port}` with Upgrade: the raw stream to a TCP port on the guest's loopback.
///
/// # Errors
/// [`AgentError::Refused`] with status 502 when nothing listens there.
pub async fn tcp(stream: impl Stream, port: u16) -> Result<Box<dyn StreamObject>, AgentError> {
    let (upgraded, driver) =
        upgrade(stream, Method::GET, &format!("/v1/tcp/{port}"), Vec::new(), TCP_UPGRADE).await?;
    drop(driver);
    Ok(Box::new(upgraded))
}

type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

/// Sends a request that must be answered by 101, and returns the raw stream.
async fn upgrade(
    stream: impl Stream,
    method: Method,
    path: &str,
    body: Vec<u8>,
    token: &str,
) -> Result<(Upgraded, Connection), AgentError> {
    let mut connection = Connection::open(stream).await?;
    let answer = connection.send(method, path, body, Some(token)).await?;
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
