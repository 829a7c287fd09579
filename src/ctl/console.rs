//! `vms console`: the terminal on the guest's serial line.

use std::io::Write;

use futures_util::{SinkExt, StreamExt};
use hyper::Method;
use tokio::signal::unix::{SignalKind, signal};
use tokio_tungstenite::tungstenite::Message;

use crate::cli::ConsoleArgs;
use crate::ctl::client::{Client, Failure};
use crate::ctl::socket;
use crate::ctl::terminal::{self, DetachKeys, KEYS_LEN_MIN, Keyboard, Raw};
use crate::ctl::vms::path;
use crate::wire::TerminalView;

/// Attaches until the keys that detach, end of input, or the machine's end.
///
/// # Errors
/// [`Failure`].
#[expect(clippy::print_stderr, reason = "tells the keys that detach, and who types")]
pub async fn attach(client: &Client, args: &ConsoleArgs) -> Result<u8, Failure> {
    let local = |error: &dyn std::fmt::Display| Failure::local(error.to_string());
    let mut keys = DetachKeys::parse(&args.detach_keys).ok_or_else(|| {
        let text = "--detach-keys: letters, or ctrl-LETTER, with commas between them";
        Failure { exit_code: 2, ..Failure::local(text) }
    })?;
    let name = args.name.as_str();
    let input = match (args.view, args.take) {
        (true, _) => "none",
        (_, true) => "take",
        _ => "share",
    };
    let target = path(name, &format!("/console?input={input}"));
    let (socket, _) = socket::connect(client, &target, None).await?;
    let (mut sink, mut output) = socket.split();
    eprintln!("attached to {name}; {} detaches", args.detach_keys);
    if !args.view {
        // A guest that is not up yet has no size to be told.
        let _ = tell_size(client, name).await;
    }
    let mut resized = signal(SignalKind::window_change()).map_err(|error| local(&error))?;
    let _raw = Raw::enter();
    let mut stdin = Keyboard::open().map_err(|error| local(&error))?;
    let mut buffer = [0u8; KEYS_LEN_MIN];
    loop {
        tokio::select! {
            read = stdin.read(&mut buffer) => {
                let count = read.map_err(|error| local(&error))?;
                let (typed, detached) = keys.push(&buffer[..count]);
                if !typed.is_empty() && !args.view {
                    let typed = Message::Binary(typed.into());
                    sink.send(typed).await.map_err(|error| local(&error))?;
                }
                if count == 0 || detached {
                    return Ok(0);
                }
            }
            _ = resized.recv(), if !args.view => {
                // A size that cannot be told is not worth the session.
                let _ = tell_size(client, name).await;
            }
            message = output.next() => match message {
                Some(Ok(Message::Binary(bytes))) => {
                    let mut stdout = std::io::stdout().lock();
                    let written = stdout.write_all(&bytes).and_then(|()| stdout.flush());
                    written.map_err(|error| local(&error))?;
                }
                Some(Ok(Message::Close(_))) | None => return Ok(0),
                Some(Ok(Message::Text(_))) => {
                    eprintln!("\r\nsomebody else types; --take takes the console over\r");
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(local(&error)),
            },
        }
    }
}

/// Tells the guest how large this terminal is, if it is one.
async fn tell_size(client: &Client, name: &str) -> Result<(), Failure> {
    let Some((cols, rows)) = terminal::size() else { return Ok(()) };
    let body = serde_json::to_vec(&TerminalView { cols, rows })
        .map_err(|error| Failure::local(error.to_string()))?;
    let target = path(name, "/console/resize");
    client.send(Method::POST, &target, Some(body), "*/*").await.map(drop)
}
