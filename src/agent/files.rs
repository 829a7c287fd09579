//! Files of the guest. Contents are streams both ways, never whole in memory.

use std::io;

use bytes::{Bytes, BytesMut};
use futures_util::Stream as BytesStream;
use http_body_util::BodyExt;
use hyper::header::{self, HeaderName};
use hyper::{Method, StatusCode};
use volant_protocol::{FileEvent, FileInfo, FileList, LIST_BYTES_MAX, MoveRequest};

use crate::agent::{
    AgentError, Answer, Payload, Stream, json, parse, parse_up_to, request, request_with,
};

/// Bytes of one event: two paths' worth of JSON.
const EVENT_LEN_MAX: usize = 64 * 1024;

/// How a file is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Permission bits; those of a new file are 0644 without them.
    pub mode: Option<u32>,
    /// Owner of a new file and of the folders made for it: `name`, `uid` or `uid:gid`.
    pub user: Option<String>,
    /// Whether folders on the way are made.
    pub parents: bool,
    /// Whether bytes are added at the end.
    pub append: bool,
    /// Time of the last change, in milliseconds since the Unix epoch; now if absent.
    pub modified_unix_ms: Option<i64>,
}

/// A stream of bytes from the guest.
#[derive(Debug)]
pub struct Download {
    answer: Answer,
}

impl Download {
    /// Bytes that will come, if it is known.
    pub fn content_length(&self) -> Option<u64> {
        let value = self.answer.response.headers().get(header::CONTENT_LENGTH)?;
        value.to_str().ok()?.parse().ok()
    }

    /// `Content-Range` when only a part was asked for.
    pub fn range(&self) -> Option<&str> {
        let partial = self.answer.response.status() == StatusCode::PARTIAL_CONTENT;
        let value = self.answer.response.headers().get(header::CONTENT_RANGE);
        value.filter(|_| partial)?.to_str().ok()
    }

    /// The next bytes; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// The stream was cut off.
    pub async fn next(&mut self) -> Result<Option<Bytes>, AgentError> {
        while let Some(frame) = self.answer.response.frame().await {
            let frame = frame.map_err(|error| AgentError::Io(io::Error::other(error)))?;
            if let Ok(bytes) = frame.into_data() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// The same as a stream; dropping it tells the guest to stop.
    pub fn into_stream(self) -> impl BytesStream<Item = Result<Bytes, AgentError>> + Send {
        futures_util::stream::unfold(Some(self), |this| async move {
            let mut this = this?;
            match this.next().await {
                Ok(bytes) => Some((Ok(bytes?), Some(this))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }
}

fn target(route: &str, pairs: &[(&str, Option<&str>)]) -> String {
    let mut query = form_urlencoded::Serializer::new(format!("/v1/files{route}?"));
    for (key, value) in pairs {
        if let Some(value) = value {
            query.append_pair(key, value);
        }
    }
    query.finish()
}

fn word(flag: bool) -> Option<&'static str> {
    flag.then_some("true")
}

/// Reads a regular file, or the part that `range` (HTTP's `Range`) names.
///
/// # Errors
/// [`AgentError::Refused`] when there is no such file.
pub async fn read(
    stream: impl Stream,
    path: &str,
    range: Option<&str>,
) -> Result<Download, AgentError> {
    let target = target("/content", &[("path", Some(path))]);
    let header: Option<(HeaderName, &str)> = range.map(|range| (header::RANGE, range));
    let answer = request_with(stream, Method::GET, &target, Payload::default(), header).await?;
    Ok(Download { answer })
}

/// Writes a regular file from a stream.
///
/// # Errors
/// [`AgentError`]; what had arrived stays.
pub async fn write(
    stream: impl Stream,
    path: &str,
    options: &WriteOptions,
    body: Payload,
) -> Result<FileInfo, AgentError> {
    let mode = options.mode.map(|mode| format!("{mode:o}"));
    let time = options.modified_unix_ms.map(|time| time.to_string());
    let pairs = [
        ("path", Some(path)),
        ("mode", mode.as_deref()),
        ("user", options.user.as_deref()),
        ("parents", word(options.parents)),
        ("append", word(options.append)),
        ("modified_unix_ms", time.as_deref()),
    ];
    parse(request(stream, Method::PUT, &target("/content", &pairs), body).await?).await
}

/// Looks at a path; a symbolic link is not followed.
///
/// # Errors
/// [`AgentError::Refused`] when there is nothing.
pub async fn stat(stream: impl Stream, path: &str) -> Result<FileInfo, AgentError> {
    let target = target("/stat", &[("path", Some(path))]);
    parse(request(stream, Method::GET, &target, Payload::default()).await?).await
}

/// Lists a folder, `depth` levels deep; at most `limit` entries.
///
/// # Errors
/// [`AgentError::Refused`] when it is none.
pub async fn list(
    stream: impl Stream,
    path: &str,
    depth: u32,
    limit: usize,
) -> Result<FileList, AgentError> {
    let (depth, limit) = (depth.to_string(), limit.to_string());
    let pairs = [("path", Some(path)), ("depth", Some(&*depth)), ("limit", Some(&*limit))];
    let answer = request(stream, Method::GET, &target("/list", &pairs), Payload::default()).await?;
    parse_up_to(answer, LIST_BYTES_MAX).await
}

/// Makes a folder; with `parents` also those above it, and one that is there is fine.
///
/// # Errors
/// [`AgentError`].
pub async fn make_folder(
    stream: impl Stream,
    path: &str,
    parents: bool,
    mode: Option<u32>,
    user: Option<&str>,
) -> Result<FileInfo, AgentError> {
    let mode = mode.map(|mode| format!("{mode:o}"));
    let pairs = [
        ("path", Some(path)),
        ("parents", word(parents)),
        ("mode", mode.as_deref()),
        ("user", user),
    ];
    parse(request(stream, Method::POST, &target("/mkdir", &pairs), Payload::default()).await?).await
}

/// Moves or renames.
///
/// # Errors
/// [`AgentError`].
pub async fn rename(stream: impl Stream, wanted: &MoveRequest) -> Result<FileInfo, AgentError> {
    parse(request(stream, Method::POST, "/v1/files/move", json(wanted)?).await?).await
}

/// Removes a file or a folder.
///
/// # Errors
/// [`AgentError`].
pub async fn remove(stream: impl Stream, path: &str, recursive: bool) -> Result<(), AgentError> {
    let target = target("", &[("path", Some(path)), ("recursive", word(recursive))]);
    request(stream, Method::DELETE, &target, Payload::default()).await.map(drop)
}

/// A folder's contents, or a file, as a tar stream.
///
/// # Errors
/// [`AgentError::Refused`] when there is nothing.
pub async fn pack(stream: impl Stream, path: &str) -> Result<Download, AgentError> {
    let target = target("/tar", &[("path", Some(path))]);
    let answer = request(stream, Method::GET, &target, Payload::default()).await?;
    Ok(Download { answer })
}

/// Unpacks a tar stream into a folder, which is made if it is not there.
///
/// # Errors
/// [`AgentError`]; what was unpacked stays.
pub async fn unpack(
    stream: impl Stream,
    path: &str,
    body: Payload,
) -> Result<FileInfo, AgentError> {
    let target = target("/tar", &[("path", Some(path))]);
    parse(request(stream, Method::PUT, &target, body).await?).await
}

/// Changes below a path, from now on.
#[derive(Debug)]
pub struct FileWatch {
    download: Download,
    buffer: BytesMut,
}

/// Begins to watch a path, and if `recursive` all below it. The first event says that the watch is
/// in place.
///
/// # Errors
/// [`AgentError::Refused`] when there is nothing.
pub async fn watch(
    stream: impl Stream,
    path: &str,
    recursive: bool,
) -> Result<FileWatch, AgentError> {
    let target = target("/watch", &[("path", Some(path)), ("recursive", word(recursive))]);
    let answer = request(stream, Method::GET, &target, Payload::default()).await?;
    Ok(FileWatch { download: Download { answer }, buffer: BytesMut::new() })
}

impl FileWatch {
    /// The next event; `None` when the guest ends it. Cancel-safe.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn next(&mut self) -> Result<Option<FileEvent>, AgentError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                let event = serde_json::from_slice(&line);
                return event.map(Some).map_err(|error| AgentError::Protocol(error.to_string()));
            }
            if EVENT_LEN_MAX < self.buffer.len() {
                return Err(AgentError::Protocol("an event without an end".to_owned()));
            }
            match self.download.next().await? {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None => return Ok(None),
            }
        }
    }
}
