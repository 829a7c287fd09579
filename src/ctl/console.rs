//! `vms console`: the terminal on the guest's serial line. Ctrl-] detaches.

use std::io::{IsTerminal, Write};

use futures_util::{SinkExt, StreamExt};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::io::AsyncReadExt;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::ctl::client::{Client, Failure};

/// Ctrl-].
const DETACH: u8 = 0x1d;

/// Puts the terminal into raw mode until dropped.
struct Raw(Option<Termios>);

impl Raw {
    fn enter() -> Raw {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Raw(None);
        }
        let Ok(before) = tcgetattr(&stdin) else { return Raw(None) };
        let mut raw = before.clone();
        raw.make_raw();
        let set = tcsetattr(&stdin, OptionalActions::Now, &raw);
        Raw(set.is_ok().then_some(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // Nothing more can be done for a terminal that refuses its own old settings.
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Attaches until Ctrl-], end of input, or the machine's end.
///
/// # Errors
/// [`Failure`].
#[expect(clippy::print_stderr, reason = "tells the detach key")]
pub async fn attach(client: &Client, name: &str) -> Result<u8, Failure> {
    let local = |error: &dyn std::fmt::Display| Failure::local(error.to_string());
    let (url, token) = client.websocket(&format!("/api/v1/vms/{name}/console"));
    let mut request = url.into_client_request().map_err(|error| local(&error))?;
    if let Some(token) = token {
        let value = HeaderValue::from_str(&token).map_err(|error| local(&error))?;
        request.headers_mut().insert("authorization", value);
    }
    let stream = client.dial().await?;
    let (socket, _) = client_async(request, stream).await.map_err(|error| local(&error))?;
    let (mut sink, mut output) = socket.split();
    eprintln!("attached to {name}; Ctrl-] detaches");
    let _raw = Raw::enter();
    let mut stdin = tokio::io::stdin();
    let mut buffer = [0u8; 4096];
    loop {
        tokio::select! {
            read = stdin.read(&mut buffer) => {
                let count = read.map_err(|error| local(&error))?;
                if count == 0 || buffer[..count].contains(&DETACH) {
                    return Ok(0);
                }
                let typed = Message::Binary(buffer[..count].to_vec().into());
                sink.send(typed).await.map_err(|error| local(&error))?;
            }
            message = output.next() => match message {
                Some(Ok(Message::Binary(bytes))) => {
                    let mut stdout = std::io::stdout().lock();
                    let written = stdout.write_all(&bytes).and_then(|()| stdout.flush());
                    written.map_err(|error| local(&error))?;
                }
                Some(Ok(Message::Close(_))) | None => return Ok(0),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(local(&error)),
            },
        }
    }
}
