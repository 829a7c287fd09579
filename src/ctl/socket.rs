//! A WebSocket to the daemon.

use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::ctl::client::{Client, Failure, Stream};

/// A connected socket.
pub type Socket = WebSocketStream<Box<dyn Stream>>;

/// Connects to `path`; the daemon's refusal becomes a failure.
///
/// # Errors
/// [`Failure`].
pub async fn connect(
    client: &Client,
    path: &str,
    protocol: Option<&'static str>,
) -> Result<(Socket, Response), Failure> {
    let local = |error: &dyn std::fmt::Display| Failure::local(error.to_string());
    let (url, token) = client.websocket(path);
    let mut request = url.into_client_request().map_err(|error| local(&error))?;
    if let Some(token) = token {
        let value = HeaderValue::from_str(&token).map_err(|error| local(&error))?;
        request.headers_mut().insert("authorization", value);
    }
    if let Some(protocol) = protocol {
        let value = HeaderValue::from_static(protocol);
        request.headers_mut().insert("sec-websocket-protocol", value);
    }
    let stream = client.dial().await?;
    client_async(request, stream).await.map_err(|error| match error {
        tungstenite::Error::Http(response) => {
            let status = response.status();
            let problem = response.body().as_deref().map(serde_json::from_slice);
            match problem {
                Some(Ok(problem)) => Failure::of_problem(problem),
                _ => Failure::local(format!("the daemon answered {status}")),
            }
        }
        other => local(&other),
    })
}

/// Bytes as a binary message of one channel.
pub fn channel(number: u8, bytes: &[u8]) -> Message {
    Message::Binary([&[number][..], bytes].concat().into())
}
