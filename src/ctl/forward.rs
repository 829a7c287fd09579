//! `ctl port-forward`: ports of this machine lead to TCP ports of a VM, for as long as it runs.

use std::net::SocketAddr;

use futures_util::future::select_all;
use futures_util::stream::{FuturesUnordered, SplitSink, SplitStream};
use futures_util::{FutureExt, SinkExt, StreamExt};
use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use crate::cli::PortForwardArgs;
use crate::ctl::client::{Client, Failure};
use crate::ctl::output::Printer;
use crate::ctl::socket::{self, Socket};
use crate::ctl::vms::path;
use crate::wire::VmView;

/// Bytes sent at once.
const CHUNK_LEN: usize = 16 * 1024;
/// Connections at once; a further one waits.
const CONNECTIONS_MAX: usize = 256;

/// `[LOCAL:]REMOTE`; without LOCAL the same port here.
fn parse(text: &str) -> Result<(u16, u16), Failure> {
    let (local, remote) = text.split_once(':').unwrap_or((text, text));
    let ports = local.parse().and_then(|local| Ok((local, remote.parse::<u16>()?)));
    match ports {
        Ok((local, remote)) if remote != 0 => Ok((local, remote)),
        _ => {
            let text = format!("{text:?} is not like 8080:80, or 80");
            Err(Failure { exit_code: 2, ..Failure::local(text) })
        }
    }
}

/// Listens, and carries connections until it is ended.
///
/// # Errors
/// A port cannot be listened on, or there is no such VM.
pub async fn run(client: &Client, args: &PortForwardArgs, out: &Printer) -> Result<u8, Failure> {
    let ports = args.ports.iter().map(|text| parse(text)).collect::<Result<Vec<_>, _>>()?;
    let none: Option<&()> = None;
    let _: VmView = client.json(Method::GET, &path(&args.name, ""), none).await?;
    let mut listeners = Vec::new();
    for (local, remote) in ports {
        let place = SocketAddr::from((args.address, local));
        let failed = |error: std::io::Error| Failure::local(format!("{place}: {error}"));
        let listener = TcpListener::bind(place).await.map_err(failed)?;
        let place = listener.local_addr().map_err(failed)?;
        out.line(&format!("{place} -> {}:{remote}", args.name))?;
        listeners.push((listener, remote));
    }
    let mut connections = FuturesUnordered::new();
    loop {
        let accepting = listeners.iter().map(|(listener, remote)| {
            listener.accept().map(move |accepted| (accepted, *remote)).boxed()
        });
        tokio::select! {
            (accepted, ..) = select_all(accepting), if connections.len() < CONNECTIONS_MAX => {
                // One that is gone before it is accepted.
                let (Ok((stream, _)), remote) = accepted else { continue };
                connections.push(carry(client, &args.name, remote, stream));
            }
            Some(ended) = connections.next() => {
                if let Err(failure) = ended {
                    let failure: Failure = failure;
                    out.talk(format!("error: {}\n", failure.message).as_bytes());
                }
            }
            _ = tokio::signal::ctrl_c() => return Ok(0),
        }
    }
}

async fn carry(client: &Client, name: &str, port: u16, stream: TcpStream) -> Result<(), Failure> {
    let target = path(name, &format!("/tunnel/{port}"));
    let (socket, _) = socket::connect(client, &target, None).await?;
    let (sink, source) = socket.split();
    let (near, far) = stream.into_split();
    // Whoever breaks it off, the other side is hung up on: nothing is left to be told.
    let _ = tokio::try_join!(up(near, sink), down(source, far));
    Ok(())
}

/// The end of one direction; what it ended with is of no use to anyone.
struct Broken;

async fn up(mut near: OwnedReadHalf, mut sink: SplitSink<Socket, Message>) -> Result<(), Broken> {
    let mut buffer = vec![0; CHUNK_LEN];
    loop {
        let count = near.read(&mut buffer).await.map_err(|_| Broken)?;
        let bytes = buffer[..count].to_vec();
        sink.send(Message::Binary(bytes.into())).await.map_err(|_| Broken)?;
        if count == 0 {
            return Ok(());
        }
    }
}

async fn down(mut source: SplitStream<Socket>, mut far: OwnedWriteHalf) -> Result<(), Broken> {
    while let Some(Ok(message)) = source.next().await {
        match message {
            Message::Binary(bytes) if bytes.is_empty() => {
                return far.shutdown().await.map_err(|_| Broken);
            }
            Message::Binary(bytes) => far.write_all(&bytes).await.map_err(|_| Broken)?,
            Message::Close(_) => break,
            _ => {}
        }
    }
    Err(Broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read() {
        assert_eq!(parse("8080:80").unwrap(), (8080, 80));
        assert_eq!(parse("5432").unwrap(), (5432, 5432));
        assert_eq!(parse("0:5432").unwrap(), (0, 5432));
        for wrong in ["", "a:1", "1:", "1:0", "1:2:3", "70000"] {
            assert_eq!(parse(wrong).unwrap_err().exit_code, 2, "{wrong}");
        }
    }
}
