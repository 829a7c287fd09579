//! `/v1/files`, `/v1/metrics`, `/v1/ports`, `/v1/time`: streams in, streams out.

use std::io::{self, ErrorKind, Read, Write};
use std::path::PathBuf;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::sync::mpsc;
use volant_protocol::{ClockTime, LIST_LEN_MAX, MoveRequest};

use super::{Answer, Refusal, body, json, unknown, wrong_method};
use crate::files::{self, FileError, Watch, WriteOptions};
use crate::observe;

/// Bytes of a file read at once.
const CHUNK_LEN: usize = 128 * 1024;
/// Chunks between the blocking pool and the connection.
const QUEUE_LEN: usize = 4;
const DEPTH_MAX: u32 = 64;

/// Answers whatever begins with `/v1/files`.
pub(super) async fn answer(request: Request<Incoming>) -> Result<Answer, Refusal> {
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    match (path.strip_prefix("/v1/files").unwrap_or_default(), method) {
        ("/content", Method::GET) => read(&request).await,
        ("/content", Method::PUT) => write(request).await,
        ("/stat", Method::GET) => {
            let path = Query::of(&request).path()?;
            Ok(json(StatusCode::OK, &blocking(move || files::stat(&path)).await?))
        }
        ("/list", Method::GET) => list(&request).await,
        ("/mkdir", Method::POST) => make_folder(&request).await,
        ("/move", Method::POST) => {
            let wanted: MoveRequest = body(request).await?;
            Ok(json(StatusCode::OK, &blocking(move || files::rename(&wanted)).await?))
        }
        ("", Method::DELETE) => {
            let query = Query::of(&request);
            let (path, recursive) = (query.path()?, query.flag("recursive")?);
            blocking(move || files::remove(&path, recursive)).await?;
            Ok(json(StatusCode::OK, &serde_json::json!({})))
        }
        ("/watch", Method::GET) => watch(&request).await,
        ("/tar", Method::GET) => pack(&request).await,
        ("/tar", Method::PUT) => unpack(request).await,
        ("" | "/content" | "/stat" | "/list" | "/mkdir" | "/move" | "/watch" | "/tar", _) => {
            Err(wrong_method(&request))
        }
        _ => Err(unknown(&request)),
    }
}

/// Answers `/v1/metrics`, `/v1/ports` and `/v1/time`.
pub(super) async fn observe(request: Request<Incoming>) -> Result<Answer, Refusal> {
    match (request.uri().path(), request.method()) {
        ("/v1/metrics", &Method::GET) => {
            Ok(json(StatusCode::OK, &blocking(|| Ok(observe::metrics())).await?))
        }
        ("/v1/ports", &Method::GET) => {
            Ok(json(StatusCode::OK, &blocking(|| Ok(observe::ports())).await?))
        }
        ("/v1/time", &Method::PUT) => {
            let time: ClockTime = body(request).await?;
            let before = observe::set_clock(time).map_err(|error| {
                Refusal(StatusCode::INTERNAL_SERVER_ERROR, "clock_failed", error.to_string())
            })?;
            Ok(json(StatusCode::OK, &before))
        }
        _ => Err(wrong_method(&request)),
    }
}

impl From<FileError> for Refusal {
    fn from(error: FileError) -> Refusal {
        let (path, error) = match error {
            FileError::Invalid(code, text) => {
                let status = match code {
                    "cross_device" | "not_a_file" => StatusCode::CONFLICT,
                    "watches_exhausted" => StatusCode::INSUFFICIENT_STORAGE,
                    _ => StatusCode::BAD_REQUEST,
                };
                return Refusal(status, code, text);
            }
            FileError::Kernel(path, error) => (path, error),
        };
        let (status, code) = match error.kind() {
            ErrorKind::NotFound => (StatusCode::NOT_FOUND, "file_not_found"),
            ErrorKind::AlreadyExists => (StatusCode::CONFLICT, "file_exists"),
            ErrorKind::NotADirectory => (StatusCode::CONFLICT, "not_a_directory"),
            ErrorKind::IsADirectory => (StatusCode::CONFLICT, "is_a_directory"),
            ErrorKind::DirectoryNotEmpty => (StatusCode::CONFLICT, "directory_not_empty"),
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                (StatusCode::FORBIDDEN, "file_forbidden")
            }
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                (StatusCode::INSUFFICIENT_STORAGE, "guest_disk_full")
            }
            ErrorKind::InvalidData => (StatusCode::BAD_REQUEST, "invalid_archive"),
            ErrorKind::InvalidInput | ErrorKind::InvalidFilename => {
                (StatusCode::BAD_REQUEST, "invalid_path")
            }
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "file_failed"),
        };
        Refusal(status, code, format!("{}: {error}", path.display()))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FileError> + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    let panicked = |_| {
        let text = "the agent failed".to_owned();
        Refusal(StatusCode::INTERNAL_SERVER_ERROR, "file_failed", text)
    };
    Ok(done.map_err(panicked)??)
}

/// A query, decoded.
struct Query(Vec<(String, String)>);

impl Query {
    fn of(request: &Request<Incoming>) -> Query {
        let query = request.uri().query().unwrap_or_default();
        Query(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    fn path(&self) -> Result<PathBuf, Refusal> {
        Ok(files::checked(self.get("path").unwrap_or_default())?)
    }

    fn flag(&self, key: &str) -> Result<bool, Refusal> {
        Ok(self.number::<bool>(key)?.unwrap_or(false))
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>, Refusal> {
        let invalid = |_| {
            let text = format!("{key} has no value that makes sense");
            Refusal(StatusCode::BAD_REQUEST, "invalid_query", text)
        };
        self.get(key).map(|text| text.parse().map_err(invalid)).transpose()
    }

    /// Permission bits, in octal.
    fn mode(&self) -> Result<Option<u32>, Refusal> {
        let Some(text) = self.get("mode") else { return Ok(None) };
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
        let refuse = || {
            let text = "mode is octal, up to 7777".to_owned();
            Refusal(StatusCode::BAD_REQUEST, "invalid_query", text)
        };
        mode.map(Some).ok_or_else(refuse)
    }
}

async fn list(request: &Request<Incoming>) -> Result<Answer, Refusal> {
    let query = Query::of(request);
    let path = query.path()?;
    let depth = query.number("depth")?.unwrap_or(1u32).clamp(1, DEPTH_MAX);
    let limit = query.number("limit")?.unwrap_or(LIST_LEN_MAX);
    Ok(json(StatusCode::OK, &blocking(move || files::list(&path, depth, limit)).await?))
}

async fn make_folder(request: &Request<Incoming>) -> Result<Answer, Refusal> {
    let query = Query::of(request);
    let (path, parents) = (query.path()?, query.flag("parents")?);
    let mode = query.mode()?.unwrap_or(0o755);
    let user = query.get("user").map(str::to_owned);
    let made = blocking(move || {
        let user = user.as_deref().map(files::user).transpose()?;
        files::make_folder(&path, parents, mode, user.as_ref())
    });
    Ok(json(StatusCode::CREATED, &made.await?))
}

/// First and last byte of a range that can be served; none for one that is passed over.
fn range(request: &Request<Incoming>, len: u64) -> Result<Option<(u64, u64)>, Refusal> {
    let wanted = request.headers().get(header::RANGE).and_then(|value| value.to_str().ok());
    let wanted = wanted.and_then(|wanted| wanted.strip_prefix("bytes="));
    // Several ranges, and other units, may be passed over (RFC 9110, 14.2).
    let Some((first, last)) = wanted.and_then(|wanted| wanted.split_once('-')) else {
        return Ok(None);
    };
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => (first, last.min(len.saturating_sub(1))),
        (Ok(first), Err(_)) if last.is_empty() => (first, len.saturating_sub(1)),
        (Err(_), Ok(count)) if first.is_empty() => {
            (len.saturating_sub(count), len.saturating_sub(1))
        }
        _ => return Ok(None),
    };
    if len <= range.0 || range.1 < range.0 || last == "0" && first.is_empty() {
        let text = format!("the file has {len} bytes");
        return Err(Refusal(StatusCode::RANGE_NOT_SATISFIABLE, "invalid_range", text));
    }
    Ok(Some(range))
}

async fn read(request: &Request<Incoming>) -> Result<Answer, Refusal> {
    let path = Query::of(request).path()?;
    let opened = path.clone();
    let (file, len) = blocking(move || files::open(&opened)).await?;
    let mut file = tokio::fs::File::from_std(file);
    // Files of /proc have no length.
    let range = if len == 0 { None } else { range(request, len)? };
    let (first, count) = match range {
        Some((first, last)) => (first, last - first + 1),
        None if len == 0 => (0, u64::MAX),
        None => (0, len),
    };
    let failed = |error| Refusal::from(files::at(&path)(error));
    if first != 0 {
        file.seek(io::SeekFrom::Start(first)).await.map_err(failed)?;
    }
    let frames = stream::unfold((file, count), move |(mut file, left)| async move {
        if left == 0 {
            return None;
        }
        let len = usize::try_from(left).unwrap_or(CHUNK_LEN).min(CHUNK_LEN);
        let mut chunk = BytesMut::with_capacity(len);
        let mut limited = (&mut file).take(len as u64);
        match limited.read_buf(&mut chunk).await {
            // A file that has become shorter ends too early, which HTTP tells the reader.
            Ok(0) => None,
            Ok(read) => Some((Ok(Frame::data(chunk.freeze())), (file, left - read as u64))),
            Err(error) => Some((Err(error), (file, 0))),
        }
    });
    let mut answer = Answer::new(StreamBody::new(frames).boxed_unsync());
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if len != 0 {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(count));
    }
    if let Some((first, last)) = range {
        let value = HeaderValue::from_str(&format!("bytes {first}-{last}/{len}"));
        headers.extend(value.ok().map(|value| (header::CONTENT_RANGE, value)));
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(answer)
}

fn cut_off(error: &dyn std::fmt::Display) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, "invalid_body", format!("the body was cut off: {error}"))
}

async fn write(request: Request<Incoming>) -> Result<Answer, Refusal> {
    let query = Query::of(&request);
    let path = query.path()?;
    let user = query.get("user").map(str::to_owned);
    let mut options = WriteOptions {
        mode: query.mode()?,
        owner: None,
        parents: query.flag("parents")?,
        append: query.flag("append")?,
        modified_unix_ms: query.number("modified_unix_ms")?,
    };
    let opened = path.clone();
    let (file, options) = blocking(move || {
        options.owner = user.as_deref().map(files::user).transpose()?;
        Ok((files::create(&opened, &options)?, options))
    })
    .await?;
    let mut file = tokio::fs::File::from_std(file);
    let failed = |error| Refusal::from(files::at(&path)(error));
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        if let Ok(bytes) = frame.map_err(|error| cut_off(&error))?.into_data() {
            file.write_all(&bytes).await.map_err(failed)?;
        }
    }
    file.flush().await.map_err(failed)?;
    let file = file.into_std().await;
    let info = blocking(move || files::finish(&file, &path, &options)).await?;
    Ok(json(StatusCode::OK, &info))
}

/// Events as JSON, one a line, for as long as the client listens.
async fn watch(request: &Request<Incoming>) -> Result<Answer, Refusal> {
    let query = Query::of(request);
    let (path, recursive) = (query.path()?, query.flag("recursive")?);
    let watched = path.clone();
    // Built on the blocking pool, but registered with the runtime it will be awaited on.
    let watch = blocking(move || Watch::new(&watched, recursive)).await?;
    let started = watch.started();
    let lines = stream::unfold((watch, Some(started)), |(mut watch, first)| async move {
        let events = match first {
            Some(first) => vec![first],
            None => match watch.next().await {
                Ok(events) => events,
                Err(error) => return Some((Err(error), (watch, None))),
            },
        };
        let mut text = Vec::new();
        for event in &events {
            serde_json::to_writer(&mut text, event).ok()?;
            text.push(b'\n');
        }
        Some((Ok(Frame::data(Bytes::from(text))), (watch, None)))
    });
    let mut answer = Answer::new(StreamBody::new(lines).boxed_unsync());
    let kind = HeaderValue::from_static("application/x-ndjson");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(answer)
}

/// The blocking pool's end of a body that is sent.
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

async fn pack(request: &Request<Incoming>) -> Result<Answer, Refusal> {
    let path = Query::of(request).path()?;
    let looked_at = path.clone();
    blocking(move || files::stat(&looked_at)).await?;
    let (sender, receiver) = mpsc::channel(QUEUE_LEN);
    tokio::task::spawn_blocking(move || {
        let writer = io::BufWriter::with_capacity(CHUNK_LEN, ChunkWriter(sender.clone()));
        if let Err(error) = volant_archive::pack(&path, writer) {
            // Cuts the stream off, so that it is not taken for whole.
            let _ = sender.blocking_send(Err(error));
        }
    });
    let frames = stream::unfold(receiver, |mut receiver| async move {
        Some((receiver.recv().await?.map(Frame::data), receiver))
    });
    let mut answer = Answer::new(StreamBody::new(frames).boxed_unsync());
    let kind = HeaderValue::from_static("application/x-tar");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(answer)
}

/// The blocking pool's end of a body that arrives.
struct ChunkReader {
    chunks: mpsc::Receiver<Result<Bytes, String>>,
    rest: Bytes,
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.chunks.blocking_recv() {
                Some(Ok(chunk)) => self.rest = chunk,
                Some(Err(text)) => return Err(io::Error::new(ErrorKind::InvalidData, text)),
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.rest.len());
        self.rest.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

async fn unpack(request: Request<Incoming>) -> Result<Answer, Refusal> {
    let path = Query::of(&request).path()?;
    let (sender, chunks) = mpsc::channel(QUEUE_LEN);
    let unpacked = tokio::task::spawn_blocking(move || {
        let mut reader = ChunkReader { chunks, rest: Bytes::new() };
        volant_archive::unpack_tree(&mut reader, &path).map_err(files::at(&path))?;
        // The padding after the archive's end.
        io::copy(&mut reader, &mut io::sink()).map_err(files::at(&path))?;
        files::stat(&path)
    });
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        let chunk = match frame {
            Ok(frame) => match frame.into_data() {
                Ok(bytes) => Ok(bytes),
                Err(_) => continue,
            },
            Err(error) => Err(format!("the body was cut off: {error}")),
        };
        let broken = chunk.is_err();
        // The other end stops reading when it has failed, and says why below.
        if sender.send(chunk).await.is_err() || broken {
            break;
        }
    }
    drop(sender);
    let panicked = |error: tokio::task::JoinError| cut_off(&error);
    let info = unpacked.await.map_err(panicked)??;
    Ok(json(StatusCode::OK, &info))
}
