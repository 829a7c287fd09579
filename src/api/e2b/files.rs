//! `/files`: contents of files, in and out, never whole in memory.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::write::GzDecoder;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use multer::{Constraints, Multipart, SizeLimit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::VecDeque;
use std::io::{self, Write};

use crate::api::body::unless_still;
use crate::api::e2b::{E2b, Guest};
use crate::api::error::Refusal;
use crate::orchestrator::{Payload, WriteOptions};
use crate::wire::envd::WrittenFile;

/// Files of one upload.
const FILES_MAX: usize = 4096;
/// Bytes that are decompressed at once: what comes of them is at most a thousand times as much.
const PACKED_LEN: usize = 4096;
/// Name of the parts that are files.
const PART: &str = "file";

/// Query of both.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct FileQuery {
    /// In the guest; of a home if it is not absolute.
    path: Option<String>,
    /// As whom.
    username: Option<String>,
}

fn invalid(text: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "invalid_body", text)
}

type Chunks = BoxStream<'static, io::Result<Bytes>>;

/// `GET /files?path=&username=`.
///
/// # Errors
/// A problem.
pub async fn read(
    State(e2b): State<E2b>,
    mut guest: Guest,
    query: Result<Query<FileQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let Query(FileQuery { path, username }) = query?;
    guest.user = username.or(guest.user);
    let path = e2b.path(&guest, path.as_deref().unwrap_or_default()).await;
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let download = e2b.orchestrator.file_read(&guest.name, &path, range).await?;
    let (len, range) = (download.content_length(), download.range().map(HeaderValue::from_str));
    let mut response = Body::from_stream(download.into_stream()).into_response();
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.extend(len.map(|len| (header::CONTENT_LENGTH, HeaderValue::from(len))));
    if let Some(Ok(range)) = range {
        headers.insert(header::CONTENT_RANGE, range);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// `POST /files?path=&username=`: the body as it is, or a form with a part for each file.
///
/// # Errors
/// A problem; what was written stays.
pub async fn write(
    State(e2b): State<E2b>,
    mut guest: Guest,
    query: Result<Query<FileQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Vec<WrittenFile>>, Refusal> {
    let Query(FileQuery { path, username }) = query?;
    guest.user = username.or(guest.user);
    let chunks = contents(&headers, body)?;
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default();
    if kind.starts_with("multipart/form-data") {
        return form(&e2b, &guest, path, kind, chunks).await;
    }
    if !kind.starts_with("application/octet-stream") {
        let text = format!("a file comes as bytes or as a form, not as {kind:?}");
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Refusal::new(status, "unsupported_media_type", text));
    }
    let path = path.ok_or_else(|| invalid("the query names no path"))?;
    Ok(Json(vec![keep(&e2b, &guest, &path, chunks).await?]))
}

async fn form(
    e2b: &E2b,
    guest: &Guest,
    path: Option<String>,
    kind: &str,
    chunks: Chunks,
) -> Result<Json<Vec<WrittenFile>>, Refusal> {
    let broken = |error: multer::Error| invalid(error.to_string());
    let boundary = multer::parse_boundary(kind).map_err(broken)?;
    // Parts are streams: only what is between them is held.
    let limits = Constraints::new().size_limit(SizeLimit::new());
    let mut parts = Multipart::with_constraints(chunks, boundary, limits);
    let mut written = Vec::new();
    while let Some(part) = parts.next_field().await.map_err(broken)? {
        if part.name() != Some(PART) {
            continue;
        }
        if FILES_MAX <= written.len() {
            return Err(invalid(format!("at most {FILES_MAX} files at once")));
        }
        let path = match (&path, part.file_name()) {
            (Some(_), _) if !written.is_empty() => {
                return Err(invalid("a path in the query is for one file"));
            }
            (Some(path), _) => path.clone(),
            (None, Some(name)) => name.to_owned(),
            (None, None) => return Err(invalid("a part has no file name")),
        };
        let chunks = part.map(|chunk| chunk.map_err(io::Error::other)).boxed();
        written.push(keep(e2b, guest, &path, chunks).await?);
    }
    if written.is_empty() {
        return Err(invalid("the form has no part named `file`"));
    }
    Ok(Json(written))
}

async fn keep(
    e2b: &E2b,
    guest: &Guest,
    path: &str,
    chunks: Chunks,
) -> Result<WrittenFile, Refusal> {
    let path = e2b.path(guest, path).await;
    let options =
        WriteOptions { user: guest.user.clone(), parents: true, ..WriteOptions::default() };
    let body: Payload = StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))).boxed_unsync();
    let info = e2b.orchestrator.file_write(&guest.name, &path, &options, body).await?;
    Ok(WrittenFile { path: info.path, name: info.name, kind: "file" })
}

/// A request's body, decompressed.
fn contents(headers: &HeaderMap, body: Body) -> Result<Chunks, Refusal> {
    let chunks = unless_still(body).into_data_stream();
    let chunks = chunks.map(|chunk| chunk.map_err(io::Error::other)).boxed();
    match headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(chunks),
        Some(b"gzip") => Ok(unpacked(chunks).boxed()),
        Some(_) => {
            let text = "gzip is the only encoding that is taken";
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            Err(Refusal::new(status, "unsupported_media_type", text))
        }
    }
}

/// Where decompressing is.
struct Unpacking {
    chunks: Chunks,
    waiting: VecDeque<Bytes>,
    decoder: Option<GzDecoder<Vec<u8>>>,
}

/// What a stream holds that gzip has packed. A stream that is cut off is an error.
fn unpacked(chunks: Chunks) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let decoder = Some(GzDecoder::new(Vec::new()));
    let state = Unpacking { chunks, waiting: VecDeque::new(), decoder };
    futures_util::stream::unfold(state, |mut state| async move {
        let bytes = state.next().await.transpose()?;
        if bytes.is_err() {
            state.decoder = None;
        }
        Some((bytes, state))
    })
}

impl Unpacking {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let Some(decoder) = &mut self.decoder else { return Ok(None) };
            if let Some(mut packed) = self.waiting.pop_front() {
                let now = packed.split_to(packed.len().min(PACKED_LEN));
                if !packed.is_empty() {
                    self.waiting.push_front(packed);
                }
                decoder.write_all(&now)?;
            } else if let Some(chunk) = self.chunks.next().await {
                self.waiting.push_back(chunk?);
                continue;
            } else {
                let last = self.decoder.take().map(GzDecoder::finish).transpose()?;
                return Ok(last.filter(|last| !last.is_empty()).map(Bytes::from));
            }
            let ready = std::mem::take(decoder.get_mut());
            if !ready.is_empty() {
                return Ok(Some(ready.into()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    async fn all(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let pieces: Vec<_> =
            bytes.chunks(7).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let mut whole = Vec::new();
        let mut chunks = unpacked(futures_util::stream::iter(pieces).boxed()).boxed();
        while let Some(chunk) = chunks.next().await {
            whole.extend_from_slice(&chunk?);
        }
        Ok(whole)
    }

    #[tokio::test]
    async fn what_was_packed_is_unpacked() {
        let text: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        assert_eq!(all(packed(&text)).await.unwrap(), text);
        assert_eq!(all(packed(b"")).await.unwrap(), b"");
        let mut cut = packed(&text);
        cut.truncate(1000);
        assert!(all(cut).await.is_err(), "a stream that is cut off");
        assert!(all(b"not packed at all".to_vec()).await.is_err());
    }
}
