//! `vms console`: the terminal on the guest's serial line. Ctrl-] detaches.

use std::io::Write;

use futures_util::{SinkExt, StreamExt};
use tokio::io::AsyncReadExt;
use tokio_tungstenite::tungstenite::Message;

use crate::ctl::client::{Client, Failure};
use crate::ctl::socket;
use crate::ctl::terminal::Raw;
use crate::ctl::vms::path;

/// Ctrl-].
const DETACH: u8 = 0x1d;

/// Attaches until Ctrl-], end of input, or the machine's end.
///
/// # Errors
/// [`Failure`].
#[expect(clippy::print_stderr, reason = "tells the detach key")]
pub async fn attach(client: &Client, name: &str) -> Result<u8, Failure> {
    let local = |error: &dyn std::fmt::Display| Failure::local(error.to_string());
    let target = path(name, "/console");
    let (socket, _) = socket::connect(client, &target, None).await?;
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
