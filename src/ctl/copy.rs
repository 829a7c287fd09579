//! `vms cp`: files and trees between this machine and a VM, as streams.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::Method;
use hyper::body::{Frame, Incoming};
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;

use crate::cli::CpArgs;
use crate::ctl::client::{Body, Client, Failure};
use crate::ctl::files::{stat, target};

/// Bytes of one chunk.
const CHUNK_LEN: usize = 128 * 1024;
/// Chunks between the file system's thread and the connection.
const QUEUE_LEN: usize = 4;

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Side {
    /// `VM:/PATH`.
    Vm(String, String),
    /// A path of this machine.
    Here(PathBuf),
    /// A tar stream on stdin or stdout.
    Stream,
}

impl Side {
    fn parse(text: &str) -> Side {
        match text.split_once(':') {
            _ if text == "-" => Side::Stream,
            Some((name, path)) if !name.is_empty() && !name.contains(['/', '.']) => {
                Side::Vm(name.to_owned(), path.to_owned())
            }
            _ => Side::Here(text.into()),
        }
    }
}

/// Copies.
///
/// # Errors
/// [`Failure`]; what had arrived stays.
pub async fn run(client: &Client, args: &CpArgs) -> Result<(), Failure> {
    match (Side::parse(&args.from), Side::parse(&args.to)) {
        (Side::Vm(name, path), Side::Here(to)) => download(client, &name, &path, &to).await,
        (Side::Vm(name, path), Side::Stream) => {
            let mut reader = tar_of(client, &name, &path).await?;
            blocking(move || io::copy(&mut reader, &mut io::stdout().lock()).map(drop)).await
        }
        (Side::Here(from), Side::Vm(name, path)) => upload(client, &from, &name, &path).await,
        (Side::Stream, Side::Vm(name, path)) => {
            let chunks = ReaderStream::with_capacity(tokio::io::stdin(), CHUNK_LEN);
            let body = StreamBody::new(futures_util::StreamExt::map(chunks, |chunk| {
                chunk.map(Frame::data)
            }));
            put(client, &target(&name, "/tar", &[("path", &path)]), body.boxed_unsync()).await
        }
        _ => {
            let text = "one side must be VM:/PATH, the other a path of this machine or -";
            Err(Failure { exit_code: 2, ..Failure::local(text) })
        }
    }
}

fn local(path: &Path, error: &io::Error) -> Failure {
    Failure::local(format!("{}: {error}", path.display()))
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<(), Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    let outcome = done.map_err(|error| Failure::local(error.to_string()))?;
    outcome.map_err(|error| Failure::of_writing(&error))
}

/// The daemon's answer, read by a thread.
struct BodyReader {
    runtime: tokio::runtime::Handle,
    body: Incoming,
    rest: Bytes,
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.runtime.block_on(self.body.frame()) {
                Some(Ok(frame)) => self.rest = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => {
                    let text = format!("the stream was cut off: {error}");
                    return Err(io::Error::new(ErrorKind::UnexpectedEof, text));
                }
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.rest.len());
        self.rest.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

async fn tar_of(client: &Client, name: &str, path: &str) -> Result<BodyReader, Failure> {
    let target = target(name, "/tar", &[("path", path)]);
    let answer = client.send(Method::GET, &target, None, "application/x-tar").await?;
    let (runtime, body) = (tokio::runtime::Handle::current(), answer.into_body());
    Ok(BodyReader { runtime, body, rest: Bytes::new() })
}

async fn download(client: &Client, name: &str, path: &str, to: &Path) -> Result<(), Failure> {
    let file = stat(client, name, path).await?;
    // A name of the guest's choice is one part of a path here, nothing else.
    let is_part = !file.name.contains('/') && !matches!(file.name.as_str(), "" | "." | "..");
    let to = if to.is_dir() && is_part { to.join(&file.name) } else { to.to_owned() };
    let mut reader = tar_of(client, name, path).await?;
    blocking(move || {
        if file.kind == "directory" {
            volant_archive::unpack_tree(&mut reader, &to)?;
        } else {
            volant_archive::unpack_one(&mut reader, &to)?;
        }
        // The padding after the archive's end; a stream that is cut off shows itself here.
        io::copy(&mut reader, &mut io::sink()).map(drop)
    })
    .await
}

async fn upload(client: &Client, from: &Path, name: &str, path: &str) -> Result<(), Failure> {
    let from = from.canonicalize().map_err(|error| local(from, &error))?;
    let metadata = from.metadata().map_err(|error| local(&from, &error))?;
    let there = match stat(client, name, path).await {
        Ok(there) => there.kind == "directory",
        Err(failure) if failure.exit_code == 3 && failure.is("file_not_found") => false,
        Err(failure) => return Err(failure),
    };
    let file_name = from.file_name().map(|name| name.to_string_lossy().into_owned());
    let path = match file_name {
        Some(file_name) if there => format!("{}/{file_name}", path.trim_end_matches('/')),
        _ => path.to_owned(),
    };
    if metadata.is_dir() {
        let target = target(name, "/tar", &[("path", &path)]);
        return put(client, &target, packed(from)).await;
    }
    let mode = format!("{:o}", metadata.permissions().mode() & 0o7777);
    let modified = metadata.mtime() * 1000 + metadata.mtime_nsec() / 1_000_000;
    let modified = modified.to_string();
    let pairs = [("path", path.as_str()), ("mode", &mode), ("modified_unix_ms", &modified)];
    let file = tokio::fs::File::open(&from).await.map_err(|error| local(&from, &error))?;
    let chunks = ReaderStream::with_capacity(file, CHUNK_LEN);
    let frames = futures_util::StreamExt::map(chunks, |chunk| chunk.map(Frame::data));
    put(client, &target(name, "/content", &pairs), StreamBody::new(frames).boxed_unsync()).await
}

async fn put(client: &Client, target: &str, body: Body) -> Result<(), Failure> {
    let kind = "application/octet-stream";
    client.send_body(Method::PUT, target, body, Some(kind), "*/*").await.map(drop)
}

/// The thread's end of a body that is sent.
struct ChunkWriter(mpsc::Sender<io::Result<Bytes>>);

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let chunk = Bytes::copy_from_slice(bytes);
        let gone = |_| io::Error::from(ErrorKind::BrokenPipe);
        self.0.blocking_send(Ok(chunk)).map_err(gone)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn packed(from: PathBuf) -> Body {
    let (sender, receiver) = mpsc::channel(QUEUE_LEN);
    tokio::task::spawn_blocking(move || {
        let writer = io::BufWriter::with_capacity(CHUNK_LEN, ChunkWriter(sender.clone()));
        if let Err(error) = volant_archive::pack(&from, writer) {
            // Cuts the stream off, so that it is not taken for whole.
            let _ = sender.blocking_send(Err(error));
        }
    });
    let frames = stream::unfold(receiver, |mut receiver: mpsc::Receiver<_>| async move {
        Some((receiver.recv().await?.map(Frame::data), receiver))
    });
    StreamBody::new(frames).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_told_apart() {
        let vm = |name: &str, path: &str| Side::Vm(name.to_owned(), path.to_owned());
        assert_eq!(Side::parse("one:/etc"), vm("one", "/etc"));
        assert_eq!(Side::parse("./a:b"), Side::Here("./a:b".into()));
        assert_eq!(Side::parse("/a:b"), Side::Here("/a:b".into()));
        assert_eq!(Side::parse("file"), Side::Here("file".into()));
        assert_eq!(Side::parse("-"), Side::Stream);
    }
}
