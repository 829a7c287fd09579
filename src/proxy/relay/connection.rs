//! A client's connection, and the one to the guest that its requests go to.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::SystemTime;

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::Method;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::uri::Scheme;
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use crate::agent::StreamObject;
use crate::model::VmName;
use crate::proxy::HOST;
use crate::proxy::forward::{bad, random, too_late};
use crate::proxy::guests::HEAD_LEN_MAX;
use crate::proxy::headers::{self, Origin};
use crate::proxy::relay::REQUEST_TIMEOUT;
use crate::proxy::relay::head::{
    Answer, Found, Target, put_field, put_fields, put_request, put_status, read_request,
    take_answer,
};

/// Bytes of a request's head; a longer one goes the other way.
const REQUEST_LEN_MAX: usize = 8 * 1024;
/// Bytes of further requests that a client may send while one is answered.
const AHEAD_LEN_MAX: usize = 64 * 1024;
/// Bytes that are asked for at a time: of heads, and of bodies.
const READ_LEN: usize = 4 * 1024;
const BODY_READ_LEN: usize = 64 * 1024;
/// Bytes of a problem that is answered with.
const PROBLEM_LEN_MAX: usize = 64 * 1024;

/// A connection, whatever carries it.
pub type Stream = Box<dyn StreamObject>;
/// The id that a request was given, as its answer tells it.
pub type Id = (HeaderName, HeaderValue);

/// What comes next of a client.
#[derive(Debug)]
pub enum Next {
    /// A plain request, read into [`Connection::request`].
    Plain(Target),
    /// Something else, or what may become it.
    Other,
    /// Nothing any more.
    End,
}

/// Why there is no answer, or no whole one.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// The client is gone, or what it has got cannot be completed.
    Client,
    /// The guest has ended the connection without a byte of an answer.
    Silent,
    /// The guest's answer is none.
    Guest(&'static str),
    /// The guest has not answered in time.
    Late,
}

/// A connection to a guest that waits for a request.
pub struct Guest {
    name: VmName,
    port: u16,
    stream: Stream,
    received: BytesMut,
    /// Whether it has answered before.
    is_reused: bool,
}

impl Guest {
    /// Over `stream`.
    pub fn new(stream: Stream, target: &Target) -> Guest {
        let (name, port) = (target.name.clone(), target.port);
        Guest { name, port, stream, received: BytesMut::new(), is_reused: false }
    }

    /// Whether it leads to `target`.
    pub fn is_at(&self, target: &Target) -> bool {
        self.name == target.name && self.port == target.port
    }

    /// Where it leads to.
    pub fn place(&self) -> (VmName, u16) {
        (self.name.clone(), self.port)
    }

    /// Whether it is still there, and has not spoken unasked.
    pub async fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        poll_fn(|cx| {
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut ReadBuf::new(&mut byte));
            Poll::Ready(read.is_pending())
        })
        .await
    }
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A client's connection.
pub struct Connection {
    client: Stream,
    /// What the client has sent and nobody has answered.
    pub received: BytesMut,
    /// What is to be written next.
    out: BytesMut,
    /// The request that was read last.
    pub request: Request,
    origin: Origin,
    /// Where the last one went.
    pub guest: Option<Guest>,
}

impl Connection {
    /// Over `client`; `template` has the connection's extensions.
    pub fn new(client: Stream, template: Request) -> Connection {
        let origin = Origin {
            client: headers::client(template.extensions().get()),
            tls: template.extensions().get::<Scheme>() == Some(&Scheme::HTTPS),
            host: HOST.to_owned(),
            prefix: String::new(),
        };
        let (received, out) = (BytesMut::new(), BytesMut::new());
        Connection { client, received, out, request: template, origin, guest: None }
    }

    /// The client's stream, and what it has sent and nobody has answered.
    pub fn into_parts(self) -> (Stream, Bytes) {
        (self.client, self.received.freeze())
    }

    /// Says that nothing comes any more.
    pub async fn close(mut self) {
        // A client that does not want to hear it is left as it is.
        let _ = timeout(REQUEST_TIMEOUT, self.client.shutdown()).await;
    }

    /// Reads until it is clear what comes next.
    pub async fn next(&mut self) -> Next {
        loop {
            if !self.received.is_empty() {
                match read_request(&self.received, &mut self.request) {
                    Found::Plain(target) if target.head_len <= REQUEST_LEN_MAX => {
                        return Next::Plain(target);
                    }
                    Found::Part if self.received.len() < REQUEST_LEN_MAX => {}
                    _ => return Next::Other,
                }
            }
            self.received.reserve(READ_LEN);
            if let Ok(0) | Err(_) = self.client.read_buf(&mut self.received).await {
                return Next::End;
            }
        }
    }

    /// Writes what the guest gets of the request.
    pub fn prepare(&mut self, target: &Target) {
        let (request, out) = (&self.request, &mut self.out);
        let path = request.uri().path_and_query().map_or("", |path| path.as_str());
        let (before, path) = path.split_at(target.prefix_len.min(path.len()));
        if self.origin.prefix != before {
            before.clone_into(&mut self.origin.prefix);
        }
        out.clear();
        put_request(out, request.method(), path);
        headers::for_guest(request.headers(), &self.origin, false, random, |name, value| {
            put_field(out, name.as_str(), value);
        });
        out.put_slice(b"\r\n");
    }

    /// Whether the guest has answered on this connection before.
    pub fn is_reused(&self) -> bool {
        self.guest.as_ref().is_some_and(|guest| guest.is_reused)
    }

    /// Sends the request that was prepared, and waits for the head of its answer, which is what is to be written
    /// next, without the guest's idea of the field `own`.
    pub async fn ask(&mut self, own: &HeaderName) -> Result<Answer, Failure> {
        let guest = self.guest.as_mut().ok_or(Failure::Silent)?;
        guest.stream.write_all(&self.out).await.map_err(|_| Failure::Silent)?;
        guest.stream.flush().await.map_err(|_| Failure::Silent)?;
        let mut is_silent = true;
        loop {
            let method = self.request.method();
            match take_answer(&mut guest.received, method, own, &mut self.out) {
                Ok(Some(answer)) if answer.status.is_informational() => continue,
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) if guest.received.len() < HEAD_LEN_MAX => {}
                Ok(None) => return Err(Failure::Guest("its answer's head is too long")),
                Err(text) => return Err(Failure::Guest(text)),
            }
            match more(guest, &mut self.client, &mut self.received, READ_LEN).await? {
                Ok(1..) => is_silent = false,
                _ if is_silent => return Err(Failure::Silent),
                _ => return Err(Failure::Guest("it ended the connection in its answer's head")),
            }
        }
    }

    /// Gives the client the answer, or says why there is none.
    pub async fn answer(
        &mut self,
        asked: Result<Answer, Failure>,
        id: Id,
        is_last: bool,
    ) -> Result<(), Failure> {
        let problem = match asked {
            Ok(answer) => return self.deliver(answer, id, is_last).await,
            Err(Failure::Client) => return Err(Failure::Client),
            Err(Failure::Silent) => bad(&"it ended the connection without an answer"),
            Err(Failure::Guest(text)) => bad(&text),
            Err(Failure::Late) => too_late(),
        };
        self.refuse(problem, id, is_last).await
    }

    /// Gives the client an answer, whose head has been written but for its end.
    async fn deliver(&mut self, answer: Answer, id: Id, is_last: bool) -> Result<(), Failure> {
        self.put_end(answer.has_date, &id, is_last);
        let mut body = answer.body;
        let Some(guest) = &mut self.guest else { return Err(Failure::Silent) };
        loop {
            let is_whole = body.take(&mut guest.received, &mut self.out).map_err(Failure::Guest)?;
            write(&mut self.client, &mut self.out).await?;
            if is_whole {
                break;
            }
            match more(guest, &mut self.client, &mut self.received, BODY_READ_LEN).await? {
                Ok(1..) => {}
                Ok(0) if body.end(&mut self.out) => {
                    write(&mut self.client, &mut self.out).await?;
                    break;
                }
                // What was cut off must not be taken for whole.
                _ => return Err(Failure::Client),
            }
        }
        guest.is_reused = true;
        if !answer.stays || !guest.received.is_empty() {
            self.guest = None;
        } else if BODY_READ_LEN <= guest.received.capacity() {
            guest.received = BytesMut::new();
        }
        if BODY_READ_LEN <= self.out.capacity() {
            self.out = BytesMut::new();
        }
        Ok(())
    }

    /// Gives the client a problem as its answer.
    async fn refuse(&mut self, problem: Response, id: Id, is_last: bool) -> Result<(), Failure> {
        self.guest = None;
        let (mut parts, body) = problem.into_parts();
        let body = to_bytes(body, PROBLEM_LEN_MAX).await.map_err(|_| Failure::Client)?;
        self.out.clear();
        let reason = parts.status.canonical_reason().unwrap_or_default();
        put_status(&mut self.out, parts.status, reason);
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        put_fields(&mut self.out, &parts.headers);
        self.put_end(false, &id, is_last);
        if self.request.method() != Method::HEAD {
            self.out.put_slice(&body);
        }
        write(&mut self.client, &mut self.out).await
    }

    /// Writes what every head ends with.
    fn put_end(&mut self, has_date: bool, (name, id): &Id, is_last: bool) {
        put_field(&mut self.out, name.as_str(), id.as_bytes());
        if is_last {
            put_field(&mut self.out, header::CONNECTION.as_str(), b"close");
        }
        if !has_date {
            // RFC 9110, 6.6.1.
            let now = httpdate::fmt_http_date(SystemTime::now());
            put_field(&mut self.out, header::DATE.as_str(), now.as_bytes());
        }
        self.out.put_slice(b"\r\n");
    }
}

/// Writes `out` to a client.
async fn write(client: &mut Stream, out: &mut BytesMut) -> Result<(), Failure> {
    if !out.is_empty() {
        client.write_all(out).await.map_err(|_| Failure::Client)?;
        client.flush().await.map_err(|_| Failure::Client)?;
        out.clear();
    }
    Ok(())
}

/// Waits for more of a guest: how many bytes, none at its end, or how the connection broke. A client that leaves
/// meanwhile is missed at once.
async fn more(
    guest: &mut Guest,
    client: &mut Stream,
    ahead: &mut BytesMut,
    len: usize,
) -> Result<io::Result<usize>, Failure> {
    guest.received.reserve(len);
    loop {
        ahead.reserve(READ_LEN);
        tokio::select! {
            biased;
            read = guest.stream.read_buf(&mut guest.received) => return Ok(read),
            read = client.read_buf(ahead) => match read {
                Ok(1..) if ahead.len() <= AHEAD_LEN_MAX => {}
                _ => return Err(Failure::Client),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body as NoBody;
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    const REQUEST: &[u8] = b"GET /api/v1/vms/one/proxy/80/x HTTP/1.1\r\nHost: h\r\n\r\n";

    /// A connection with its client's and its guest's end.
    async fn connected() -> (Connection, DuplexStream, DuplexStream) {
        let (client, near) = duplex(1024 * 1024);
        let (far, guest) = duplex(1024 * 1024);
        let mut connection = Connection::new(Box::new(near), Request::new(NoBody::empty()));
        let name = VmName::try_from("one").unwrap();
        let target = Target { name, port: 80, prefix_len: 24, head_len: 0, is_last: false };
        connection.guest = Some(Guest::new(Box::new(far), &target));
        (connection, client, guest)
    }

    fn id() -> Id {
        (HeaderName::from_static("x-request-id"), HeaderValue::from_static("7"))
    }

    /// Has one request answered with what the guest `sends`; the client's view, if it is whole.
    async fn answered(sends: &[u8]) -> (Result<(), Failure>, String, Connection, DuplexStream) {
        let (mut connection, mut client, mut guest) = connected().await;
        client.write_all(REQUEST).await.unwrap();
        let Next::Plain(target) = connection.next().await else { panic!("no plain request") };
        connection.prepare(&target);
        guest.write_all(sends).await.unwrap();
        guest.shutdown().await.unwrap();
        let outcome = match connection.ask(&id().0).await {
            Ok(answer) => connection.deliver(answer, id(), false).await,
            Err(failure) => Err(failure),
        };
        let mut seen = BytesMut::new();
        while let Some(Ok(1..)) = futures_util::FutureExt::now_or_never(client.read_buf(&mut seen))
        {
        }
        (outcome, String::from_utf8(seen.to_vec()).unwrap(), connection, guest)
    }

    #[tokio::test]
    async fn an_answer_is_passed_back_and_the_guest_asked_again() {
        let sends = b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nKeep-Alive: 1\r\nDate: now\r\nContent-Length: 2\r\n\r\nab";
        let (outcome, seen, connection, mut guest) = answered(sends).await;
        assert_eq!(outcome, Ok(()));
        let wanted =
            "HTTP/1.1 200 OK\r\nDate: now\r\ncontent-length: 2\r\nx-request-id: 7\r\n\r\nab";
        assert_eq!(seen, wanted);
        assert!(connection.is_reused());
        let mut asked = BytesMut::with_capacity(READ_LEN);
        guest.read_buf(&mut asked).await.unwrap();
        assert!(asked.starts_with(b"GET /x HTTP/1.1\r\n"), "{asked:?}");
        assert!(asked.ends_with(b"\r\n\r\n"), "{asked:?}");
    }

    #[tokio::test]
    async fn a_guest_that_says_more_than_its_answer_is_not_asked_again() {
        for sends in [
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 200 OK\r\n\r\n".as_slice(),
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab",
            b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab",
        ] {
            let (outcome, seen, connection, _) = answered(sends).await;
            assert_eq!(outcome, Ok(()));
            assert!(seen.ends_with("\r\n\r\nab"), "{seen}");
            assert!(connection.guest.is_none());
        }
    }

    #[tokio::test]
    async fn what_has_no_length_arrives_in_chunks() {
        let (outcome, seen, connection, _) = answered(b"HTTP/1.1 200 OK\r\n\r\nabc").await;
        assert_eq!(outcome, Ok(()));
        assert!(seen.contains("transfer-encoding: chunked\r\n") && seen.contains("\r\ndate: "));
        assert!(seen.ends_with("\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), "{seen}");
        assert!(connection.guest.is_none());
    }

    #[tokio::test]
    async fn an_answer_that_is_none_or_not_whole_is_told() {
        let told = async |sends: &[u8]| answered(sends).await.0.unwrap_err();
        assert_eq!(told(b"").await, Failure::Silent);
        for bad in
            [b"HTTP/1.1 200".as_slice(), b"HTTP/1.1 100 Continue\r\n\r\n", b"garbage\r\n\r\n"]
        {
            assert!(matches!(told(bad).await, Failure::Guest(_)), "{bad:?}");
        }
        let endless = [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &[b'x'; HEAD_LEN_MAX]].concat();
        assert!(matches!(told(&endless).await, Failure::Guest(_)));
        let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab";
        assert_eq!(told(cut).await, Failure::Client);
        let chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
        assert_eq!(told(chunks).await, Failure::Client);
    }

    #[tokio::test]
    async fn an_answer_without_a_length_that_breaks_off_is_not_whole() {
        let (mut connection, mut client, _guest) = connected().await;
        let pieces = [
            Ok(Bytes::from_static(b"HTTP/1.1 200 OK\r\n\r\nab")),
            Err(io::Error::from(io::ErrorKind::ConnectionReset)),
        ];
        let broken = tokio_util::io::StreamReader::new(futures_util::stream::iter(pieces));
        let broken = tokio::io::join(broken, tokio::io::sink());
        connection.guest.as_mut().unwrap().stream = Box::new(broken);
        let answer = connection.ask(&id().0).await.unwrap();
        assert_eq!(connection.deliver(answer, id(), false).await, Err(Failure::Client));
        drop(connection);
        let mut seen = String::new();
        client.read_to_string(&mut seen).await.unwrap();
        assert!(seen.ends_with("\r\n\r\n2\r\nab\r\n"), "{seen}");
    }

    #[tokio::test]
    async fn a_client_that_leaves_or_floods_is_not_waited_for() {
        let (mut connection, client, _guest) = connected().await;
        drop(client);
        assert!(matches!(connection.ask(&id().0).await, Err(Failure::Client)));
        let (mut connection, mut client, _guest) = connected().await;
        client.write_all(&[b'x'; AHEAD_LEN_MAX + 1]).await.unwrap();
        assert!(matches!(connection.ask(&id().0).await, Err(Failure::Client)));
    }

    #[tokio::test]
    async fn what_is_not_served_is_given_back() {
        let (mut connection, mut client, _guest) = connected().await;
        client.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
        assert!(matches!(connection.next().await, Next::Other));
        assert_eq!(connection.into_parts().1, b"GET /healthz HTTP/1.1\r\n"[..]);
        let (mut connection, mut client, _guest) = connected().await;
        client.write_all(&REQUEST[..40]).await.unwrap();
        client.write_all(&[b'x'; REQUEST_LEN_MAX]).await.unwrap();
        assert!(matches!(connection.next().await, Next::Other), "a head that becomes long");
        let (mut connection, mut client, _guest) = connected().await;
        let field = format!("X: {}\r\n\r\n", "x".repeat(REQUEST_LEN_MAX));
        client.write_all(&REQUEST[..REQUEST.len() - 2]).await.unwrap();
        client.write_all(field.as_bytes()).await.unwrap();
        connection.received.reserve(2 * REQUEST_LEN_MAX);
        assert!(matches!(connection.next().await, Next::Other), "a long one that is whole");
        let (mut connection, client, _guest) = connected().await;
        drop(client);
        assert!(matches!(connection.next().await, Next::End));
    }

    #[tokio::test]
    async fn a_problem_is_an_answer() {
        let (mut connection, mut client, _guest) = connected().await;
        let problem = crate::proxy::forward::bad(&"no");
        connection.refuse(problem, id(), true).await.unwrap();
        drop(connection);
        let mut seen = String::new();
        client.read_to_string(&mut seen).await.unwrap();
        assert!(seen.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{seen}");
        let (head, body) = seen.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{seen}");
        assert!(head.contains("connection: close") && body.contains("bad_guest_answer"), "{seen}");
    }
}
