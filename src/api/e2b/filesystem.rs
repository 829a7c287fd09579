//! `filesystem.Filesystem`: files and folders of the guest. What is done is done as root, and what is
//! made belongs to the user that the request names.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::api::e2b::{E2b, Guest, connect, place};
use crate::api::error::Refusal;
use crate::api::view::rfc3339;
use crate::model::Kind;
use crate::orchestrator::{FileInfo, FileKind, LIST_LEN_MAX, MoveRequest};
use crate::wire::envd::{Entry, EntryAnswer, EntryList, ListDir, MoveEntry, PathRequest};

/// Levels of a listing.
const DEPTH_MAX: u32 = 64;

type Answer = Result<Json<EntryAnswer>, Refusal>;

impl E2b {
    /// The absolute path that a client means.
    pub(super) async fn path(&self, guest: &Guest, path: &str) -> String {
        place::absolute(&self.orchestrator, &guest.name, guest.user.as_deref(), path).await
    }
}

fn entry(info: FileInfo) -> Entry {
    let (kind, letter) = match info.kind {
        FileKind::File => ("FILE_TYPE_FILE", '-'),
        FileKind::Directory => ("FILE_TYPE_DIRECTORY", 'd'),
        FileKind::Symlink => ("FILE_TYPE_SYMLINK", 'l'),
        FileKind::Fifo => ("FILE_TYPE_UNSPECIFIED", 'p'),
        FileKind::Socket => ("FILE_TYPE_UNSPECIFIED", 's'),
        FileKind::Device => ("FILE_TYPE_UNSPECIFIED", 'c'),
    };
    Entry {
        name: info.name,
        kind,
        path: info.path,
        size: info.size.to_string(),
        mode: info.mode,
        permissions: permissions(letter, info.mode),
        owner: info.user,
        group: info.group,
        modified_time: rfc3339(info.modified_unix_ms),
        symlink_target: info.link_target,
    }
}

/// A mode as `ls` writes it.
fn permissions(kind: char, mode: u32) -> String {
    let bit = |shift: u32, letter| if mode >> shift & 1 == 1 { letter } else { '-' };
    let bits = (0..9).rev().zip("rwxrwxrwx".chars()).map(|(shift, letter)| bit(shift, letter));
    std::iter::once(kind).chain(bits).collect()
}

/// `Stat`.
///
/// # Errors
/// A problem.
pub async fn stat(State(e2b): State<E2b>, guest: Guest, headers: HeaderMap, body: Bytes) -> Answer {
    let PathRequest { path } = connect::message(&headers, &body)?;
    let path = e2b.path(&guest, &path).await;
    let info = e2b.orchestrator.file_stat(&guest.name, &path).await?;
    Ok(Json(EntryAnswer { entry: entry(info) }))
}

/// `ListDir`: what is below a folder, not itself.
///
/// # Errors
/// A problem, also where there is more than a listing may have.
pub async fn list(
    State(e2b): State<E2b>,
    guest: Guest,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<EntryList>, Refusal> {
    let ListDir { path, depth } = connect::message(&headers, &body)?;
    let path = e2b.path(&guest, &path).await;
    let depth = depth.clamp(1, DEPTH_MAX);
    let list = e2b.orchestrator.file_list(&guest.name, &path, depth, LIST_LEN_MAX).await?;
    if list.truncated {
        let text = format!("there are more than {LIST_LEN_MAX} entries; list fewer levels");
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "answer_too_large", text));
    }
    Ok(Json(EntryList { entries: list.entries.into_iter().map(entry).collect() }))
}

/// `MakeDir`, with the folders above it.
///
/// # Errors
/// A problem; `already_exists` where something is there.
pub async fn make_folder(
    State(e2b): State<E2b>,
    guest: Guest,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let PathRequest { path } = connect::message(&headers, &body)?;
    let path = e2b.path(&guest, &path).await;
    let (orchestrator, user) = (&e2b.orchestrator, guest.user.as_deref());
    match orchestrator.file_stat(&guest.name, &path).await {
        Ok(_) => {
            let text = format!("{path} is there already");
            return Err(Refusal::new(StatusCode::CONFLICT, "file_exists", text));
        }
        Err(error) if error.kind() == Kind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let made = orchestrator.file_make_folder(&guest.name, &path, true, None, user).await?;
    Ok(Json(EntryAnswer { entry: entry(made) }))
}

/// `Move`, over what is there; folders above the new place are made.
///
/// # Errors
/// A problem.
pub async fn rename(
    State(e2b): State<E2b>,
    guest: Guest,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let MoveEntry { source, destination } = connect::message(&headers, &body)?;
    let from = e2b.path(&guest, &source).await;
    let to = e2b.path(&guest, &destination).await;
    let (orchestrator, user) = (&e2b.orchestrator, guest.user.as_deref());
    orchestrator.file_stat(&guest.name, &from).await?;
    let above = to.rsplit_once('/').map_or("/", |(above, _)| above);
    if !above.is_empty() {
        orchestrator.file_make_folder(&guest.name, above, true, None, user).await?;
    }
    let wanted = MoveRequest { from, to, replace: true };
    let moved = orchestrator.file_move(&guest.name, &wanted).await?;
    Ok(Json(EntryAnswer { entry: entry(moved) }))
}

/// `Remove`, with all that is in it. What is not there is removed already.
///
/// # Errors
/// A problem.
pub async fn remove(
    State(e2b): State<E2b>,
    guest: Guest,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    let PathRequest { path } = connect::message(&headers, &body)?;
    let path = e2b.path(&guest, &path).await;
    match e2b.orchestrator.file_remove(&guest.name, &path, true).await {
        Ok(()) => {}
        Err(error) if error.code() == "file_not_found" => {}
        Err(error) => return Err(error.into()),
    }
    Ok(Json(json!({})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_written_as_by_ls() {
        assert_eq!(permissions('-', 0o644), "-rw-r--r--");
        assert_eq!(permissions('d', 0o1755), "drwxr-xr-x");
        assert_eq!(permissions('l', 0o777), "lrwxrwxrwx");
        assert_eq!(permissions('-', 0), "----------");
    }
}
