//! `/api/v1/vms/{name}/files`: contents and tar streams pass through, never whole in memory.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::error::Refusal;
use crate::api::view::rfc3339;
use crate::model::VmName;
use crate::orchestrator::{
    Download, FileEvent, FileEventKind, FileInfo, FileKind, LIST_LEN_MAX, MoveRequest,
    Orchestrator, WriteOptions,
};
use crate::wire::{FileEventView, FileListView, FileView, MoveBody};

type Answer = Result<Json<FileView>, Refusal>;
type QueryOf<T> = Result<Query<T>, QueryRejection>;

fn view(info: FileInfo) -> FileView {
    let kind = match info.kind {
        FileKind::File => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symlink",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
        FileKind::Device => "device",
    };
    FileView {
        name: info.name,
        path: info.path,
        kind: kind.to_owned(),
        size: info.size,
        mode: format!("{:04o}", info.mode),
        uid: info.uid,
        gid: info.gid,
        user: info.user,
        group: info.group,
        modified_at: rfc3339(info.modified_unix_ms),
        link_target: info.link_target,
    }
}

fn mode(text: Option<String>) -> Result<Option<u32>, Refusal> {
    let Some(text) = text else { return Ok(None) };
    let octal = text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let mode = octal.then(|| u32::from_str_radix(&text, 8).ok()).flatten();
    let mode = mode.filter(|mode| *mode <= 0o7777);
    let refuse =
        || Refusal::new(StatusCode::BAD_REQUEST, "invalid_query", "mode is octal, up to 7777");
    mode.map(Some).ok_or_else(refuse)
}

fn payload(body: Body) -> crate::orchestrator::Payload {
    body.map_err(std::io::Error::other).boxed_unsync()
}

/// Query of a path alone.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PathQuery {
    #[schemars(regex(pattern = "^/[^\\x00]*$"))]
    path: String,
}

fn stream(download: Download, kind: &'static str) -> Response {
    let (len, range) = (download.content_length(), download.range().map(HeaderValue::from_str));
    let mut response = Body::from_stream(download.into_stream()).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.extend(len.map(|len| (header::CONTENT_LENGTH, HeaderValue::from(len))));
    if let Some(Ok(range)) = range {
        headers.insert(header::CONTENT_RANGE, range);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}

/// `GET .../files/content?path=`: the file's bytes, or the part that `Range` names.
///
/// # Errors
/// A problem.
pub async fn read(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
    query: QueryOf<PathQuery>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let name = VmName::try_from(name.as_str())?;
    let Query(PathQuery { path }) = query?;
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let download = orchestrator.file_read(&name, &path, range).await?;
    let mut response = stream(download, "application/octet-stream");
    response.headers_mut().insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    Ok(response)
}

/// Query of a write.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WriteQuery {
    #[schemars(regex(pattern = "^/[^\\x00]*$"))]
    path: String,
    #[schemars(regex(pattern = "^0?[0-7]{1,4}$"))]
    mode: Option<String>,
    user: Option<String>,
    #[serde(default)]
    parents: bool,
    #[serde(default)]
    append: bool,
    modified_unix_ms: Option<i64>,
}

/// `PUT .../files/content?path=`: the body becomes the file's contents.
///
/// # Errors
/// A problem; what had arrived stays.
pub async fn write(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
    query: QueryOf<WriteQuery>,
    body: Body,
) -> Answer {
    let name = VmName::try_from(name.as_str())?;
    let Query(query) = query?;
    let options = WriteOptions {
        mode: mode(query.mode)?,
        user: query.user,
        parents: query.parents,
        append: query.append,
        modified_unix_ms: query.modified_unix_ms,
    };
    let written = orchestrator.file_write(&name, &query.path, &options, payload(body)).await?;
    Ok(Json(view(written)))
}

/// `GET .../files/stat?path=`.
///
/// # Errors
/// A problem.
pub async fn stat(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
    query: QueryOf<PathQuery>,
) -> Answer {
    let name = VmName::try_from(name.as_str())?;
    let Query(PathQuery { path }) = query?;
    Ok(Json(view(orchestrator.file_stat(&name, &path).await?)))
}

/// Query of a listing.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    #[schemars(regex(pattern = "^/[^\\x00]*$"))]
    path: String,
    depth: Option<u32>,
    limit: Option<usize>,
}

/// `GET .../files/list?path=&depth=&limit=`.
///
/// # Errors
/// A problem.
pub async fn list(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
    query: QueryOf<ListQuery>,
) -> Result<Json<FileListView>, Refusal> {
    let name = VmName::try_from(name.as_str())?;
    let Query(ListQuery { path, depth, limit }) = query?;
    let (depth, limit) = (depth.unwrap_or(1), limit.unwrap_or(LIST_LEN_MAX));
    let list = orchestrator.file_list(&name, &path, depth, limit).await?;
    let entries = list.entries.into_iter().map(view).collect();
    Ok(Json(FileListView { entries, truncated: list.truncated }))
}

/// Query of mkdir.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FolderQuery {
    #[schemars(regex(pattern = "^/[^\\x00]*$"))]
    path: String,
    #[serde(default)]
    parents: bool,
    #[schemars(regex(pattern = "^0?[0-7]{1,4}$"))]
    mode: Option<String>,
    user: Option<String>,
}

/// `POST .../files/mkdir?path=`.
///
/// # Errors
/// A problem.
pub async fn make_folder(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
    query: QueryOf<FolderQuery>,
) -> Result<impl IntoResponse, Refusal> {
    let name = VmName::try_from(name.as_str())?;
    let Query(FolderQuery { path, parents, mode: text, user }) = query?;
    let (mode, user) = (mode(text)?, user.as_deref());
    let made = orchestrator.file_make_folder(&name, &path, parents, mode, user).await?;
    Ok((StatusCode::CREATED, Json(view(made))))
}

/// `POST .../files/move`.
///
/// # Errors
/// A problem.
pub async fn rename(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
    body: Result<Json<MoveBody>, JsonRejection>,
) -> Answer {
    let name = VmName::try_from(name.as_str())?;
    let Json(MoveBody { from, to, replace }) = body?;
    let moved = orchestrator.file_move(&name, &MoveRequest { from, to, replace }).await?;
    Ok(Json(view(moved)))
}

/// Query of a removal or a watch.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TreeQuery {
    #[schemars(regex(pattern = "^/[^\\x00]*$"))]
    path: String,
    #[serde(default)]
    recursive: bool,
}

/// `DELETE .../files?path=&recursive=`.
///
/// # Errors
/// A problem.
pub async fn remove(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
    query: QueryOf<TreeQuery>,
) -> Result<StatusCode, Refusal> {
    let name = VmName::try_from(name.as_str())?;
    let Query(TreeQuery { path, recursive }) = query?;
    orchestrator.file_remove(&name, &path, recursive).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET .../files/watch?path=&recursive=`: server-sent events. `started` comes first; a client that
/// is too slow gets `overflow`, since the guest's kernel drops events then.
///
/// # Errors
/// A problem.
pub async fn watch(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
    query: QueryOf<TreeQuery>,
) -> Result<impl IntoResponse, Refusal> {
    let name = VmName::try_from(name.as_str())?;
    let Query(TreeQuery { path, recursive }) = query?;
    let watch = orchestrator.file_watch(&name, &path, recursive).await?;
    let events = futures_util::stream::unfold(watch, |mut watch| async move {
        // The end of the guest is the end of the stream.
        let event = watch.next().await.ok()??;
        Some((event_of(event), watch))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

fn event_of(FileEvent { kind, path }: FileEvent) -> Result<Event, axum::Error> {
    let word = match kind {
        FileEventKind::Started => "started",
        FileEventKind::Create => "create",
        FileEventKind::Write => "write",
        FileEventKind::Remove => "remove",
        FileEventKind::Rename => "rename",
        FileEventKind::Chmod => "chmod",
        FileEventKind::Overflow => "overflow",
    };
    Event::default().event(word).json_data(FileEventView { kind: word.to_owned(), path })
}

/// `GET .../files/tar?path=`: a folder's contents, or one file.
///
/// # Errors
/// A problem.
pub async fn pack(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
    query: QueryOf<PathQuery>,
) -> Result<Response, Refusal> {
    let name = VmName::try_from(name.as_str())?;
    let Query(PathQuery { path }) = query?;
    Ok(stream(orchestrator.file_pack(&name, &path).await?, "application/x-tar"))
}

/// `PUT .../files/tar?path=`: unpacked into that folder, which is made if it is not there.
///
/// # Errors
/// A problem; what was unpacked stays.
pub async fn unpack(
    State(orchestrator): State<Orchestrator>,
    Path(name): Path<String>,
    query: QueryOf<PathQuery>,
    body: Body,
) -> Answer {
    let name = VmName::try_from(name.as_str())?;
    let Query(PathQuery { path }) = query?;
    Ok(Json(view(orchestrator.file_unpack(&name, &path, payload(body)).await?)))
}
