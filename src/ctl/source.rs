//! What a command line names as a source of bytes: a file, a URL, or stdin. Read with the rights of
//! whoever types, never by the daemon.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::ctl::client::{Failure, Stream};
use crate::ctl::tls;

/// How long a server may take for all of a document.
const FETCH_TIMEOUT: Duration = Duration::from_secs(60);

fn failed(source: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure { exit_code: 2, ..Failure::local(format!("{source}: {error}")) }
}

/// Reads a file, `-` for stdin, at most `len_max` bytes.
///
/// # Errors
/// [`Failure`].
pub fn read(source: &str, len_max: usize) -> Result<Vec<u8>, Failure> {
    let limit = len_max as u64 + 1;
    let mut bytes = Vec::new();
    let read = match source {
        "-" => std::io::stdin().lock().take(limit).read_to_end(&mut bytes),
        path => std::fs::File::open(Path::new(path))
            .and_then(|file| file.take(limit).read_to_end(&mut bytes)),
    };
    read.map_err(|error| failed(source, &error))?;
    if len_max < bytes.len() {
        return Err(failed(source, &format!("longer than {len_max} bytes")));
    }
    Ok(bytes)
}

/// Whether `source` is a URL.
pub fn is_url(source: &str) -> bool {
    source.starts_with("http://") || source.starts_with("https://")
}

/// Fetches a URL, at most `len_max` bytes.
///
/// # Errors
/// [`Failure`].
pub async fn fetch(url: &str, len_max: usize) -> Result<Vec<u8>, Failure> {
    let fetched = tokio::time::timeout(FETCH_TIMEOUT, get(url, len_max)).await;
    fetched.unwrap_or_else(|_| Err(failed(url, &"no answer in time")))
}

async fn get(url: &str, len_max: usize) -> Result<Vec<u8>, Failure> {
    let uri: Uri = url.parse().map_err(|error| failed(url, &error))?;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let stream: std::io::Result<Box<dyn Stream>> = match uri.scheme_str() {
        Some("https") => tls::connect(authority).await.map(|stream| Box::new(stream) as _),
        _ => {
            let place = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(80));
            TcpStream::connect(place).await.map(|stream| Box::new(stream) as _)
        }
    };
    let stream = TokioIo::new(stream.map_err(|error| failed(url, &error))?);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(stream).await.map_err(|error| failed(url, &error))?;
    // Ends with the command.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    let request = Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header("host", authority)
        .header("user-agent", "volantd")
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(url, &error))?;
    let answer = sender.send_request(request).await.map_err(|error| failed(url, &error))?;
    if !answer.status().is_success() {
        return Err(failed(url, &answer.status()));
    }
    let body = Limited::new(answer.into_body(), len_max).collect().await;
    Ok(body.map_err(|error| failed(url, &error))?.to_bytes().to_vec())
}
