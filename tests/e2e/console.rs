//! The serial console over WebSocket: what came before, a shell, and the machine's end.

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::client::Client;
use crate::daemon::Daemon;

const URL: &str = "ws://localhost/api/v1/vms/one/console";

async fn attach(daemon: &Daemon) -> WebSocketStream<UnixStream> {
    let stream = UnixStream::connect(daemon.socket()).await.unwrap();
    client_async(URL, stream).await.unwrap().0
}

/// What comes until it ends so, or until the daemon closes.
async fn until<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    end: &str,
) -> String {
    let mut seen = String::new();
    while !seen.contains(end) {
        match socket.next().await {
            Some(Ok(Message::Binary(bytes))) => seen.push_str(&String::from_utf8_lossy(&bytes)),
            Some(Ok(Message::Close(frame))) => panic!("closed with {frame:?} after {seen:?}"),
            Some(Ok(_)) => {}
            other => panic!("{other:?} after {seen:?}"),
        }
    }
    seen
}

/// A console that was opened with a token is cut when that is revoked.
async fn ends_with_its_token(client: &Client) {
    let body = r#"{"name": "short", "scope": "operate"}"#;
    let made = client.send(hyper::Method::POST, "/api/v1/tokens", body).await.json();
    let mut request = URL.into_client_request().unwrap();
    let bearer = format!("Bearer {}", made["secret"].as_str().unwrap());
    request.headers_mut().insert("authorization", bearer.parse().unwrap());
    let stream = TcpStream::connect("127.0.0.1:17777").await.unwrap();
    let mut socket = client_async(request, stream).await.unwrap().0;
    until(&mut socket, "volant-42").await;
    client.send(hyper::Method::DELETE, "/api/v1/tokens/short", "").await;
    while socket.next().await.is_some_and(|message| message.is_ok()) {}
}

#[test]
fn a_console_replays_types_and_closes_with_its_machine() {
    let daemon = Daemon::start();
    daemon.create("one", &[]);
    let client = daemon.client();
    client.runtime.block_on(async {
        let mut first = attach(&daemon).await;
        first.send(Message::text("echo volant-$((20 + 22))\n")).await.unwrap();
        until(&mut first, "volant-42").await;
        // Another viewer sees what came before it, and what is typed by the first.
        let mut second = attach(&daemon).await;
        until(&mut second, "volant-42").await;
        first.send(Message::binary(b"echo to-both-$((1 + 1))\n".as_slice())).await.unwrap();
        until(&mut second, "to-both-2").await;
        ends_with_its_token(&client).await;
        client.send(hyper::Method::POST, "/api/v1/vms/one/stop", "").await;
        loop {
            match second.next().await {
                Some(Ok(Message::Close(Some(frame)))) => {
                    assert_eq!(frame.reason.as_str(), "the machine has ended");
                    break;
                }
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    });
    // Its last output is still there to be read.
    let out = daemon.ctl(&["vms", "logs", "one", "--tail", "200"]);
    assert!(String::from_utf8_lossy(&out.stdout).contains("volant-42"), "{out:?}");
}
