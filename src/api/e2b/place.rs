//! Users and paths as E2B's clients name them: a user by `Authorization: Basic` without a password, a
//! path relative to that user's home.

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::model::VmName;
use crate::orchestrator::{FileKind, Orchestrator};

/// Bytes of the guest's table of users that are looked at.
const PASSWD_LEN_MAX: usize = 256 * 1024;
/// Home of root, as whom things are done unless a client says otherwise.
const ROOT_HOME: &str = "/root";

/// The user that a request names.
pub fn user(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let decoded = STANDARD.decode(value.strip_prefix("Basic ")?).ok()?;
    let (user, _) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    (!user.is_empty()).then(|| user.to_owned())
}

/// The home of a user in a table of users, by name or number.
fn home_in(passwd: &str, user: &str) -> Option<String> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, _, _, home, ..] = fields[..] else { return None };
        ((name == user || uid == user) && home.starts_with('/')).then(|| home.to_owned())
    })
}

/// Where a user is at home, by the guest's own table; `/` where there is no such folder.
pub async fn home(orchestrator: &Orchestrator, vm: &VmName, user: Option<&str>) -> String {
    let home = match user.map(|user| user.split(':').next().unwrap_or(user)) {
        None | Some("root" | "0") => Some(ROOT_HOME.to_owned()),
        Some(user) => home_in(&passwd(orchestrator, vm).await, user),
    };
    let Some(home) = home else { return "/".to_owned() };
    match orchestrator.file_stat(vm, &home).await {
        Ok(info) if matches!(info.kind, FileKind::Directory | FileKind::Symlink) => home,
        _ => "/".to_owned(),
    }
}

async fn passwd(orchestrator: &Orchestrator, vm: &VmName) -> String {
    let mut text = Vec::new();
    if let Ok(mut download) = orchestrator.file_read(vm, "/etc/passwd", None).await {
        while let Ok(Some(bytes)) = download.next().await {
            if PASSWD_LEN_MAX < text.len() + bytes.len() {
                break;
            }
            text.extend_from_slice(&bytes);
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// A path without `.`, `..`, `//` and a slash at its end.
fn plain(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The absolute path that a client means.
pub async fn absolute(
    orchestrator: &Orchestrator,
    vm: &VmName,
    user: Option<&str>,
    path: &str,
) -> String {
    if path.starts_with('/') {
        return plain(path);
    }
    let rest = path.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let home = home(orchestrator, vm, user).await;
    plain(&format!("{home}/{}", rest.unwrap_or(path)))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn paths_are_made_plain() {
        let table = [
            ("/", "/"),
            ("/a//b/./c/", "/a/b/c"),
            ("/a/../b", "/b"),
            ("/../../etc", "/etc"),
            ("", "/"),
        ];
        for (path, expected) in table {
            assert_eq!(plain(path), expected, "{path}");
        }
    }

    #[test]
    fn users_have_homes() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/bash\nbad\n";
        assert_eq!(home_in(passwd, "user").as_deref(), Some("/home/user"));
        assert_eq!(home_in(passwd, "1000").as_deref(), Some("/home/user"));
        assert_eq!(home_in(passwd, "nobody"), None);
        let mut headers = HeaderMap::new();
        assert_eq!(user(&headers), None);
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Basic dXNlcjo="));
        assert_eq!(user(&headers).as_deref(), Some("user"));
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer dXNlcjo="));
        assert_eq!(user(&headers), None);
    }
}
