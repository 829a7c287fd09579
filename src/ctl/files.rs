//! `vms files ...`: one function for each verb.

use hyper::Method;

use crate::cli::FilesCommand;
use crate::ctl::client::{Client, Failure, print};
use crate::ctl::output::Printer;
use crate::ctl::vms::path;
use crate::wire::{FileEventView, FileListView, FileView, MoveBody};

const NO_BODY: Option<&()> = None;

/// Path and query of a call on files.
pub fn target(name: &str, route: &str, pairs: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(format!("/files{route}?"));
    path(name, &query.extend_pairs(pairs).finish())
}

/// Runs a verb.
///
/// # Errors
/// [`Failure`].
pub async fn run(client: &Client, command: FilesCommand, out: &Printer) -> Result<u8, Failure> {
    match command {
        FilesCommand::Ls { name, path, depth } => {
            let depth = depth.to_string();
            let target = target(&name, "/list", &[("path", &path), ("depth", &depth)]);
            list(&client.json(Method::GET, &target, NO_BODY).await?, out)?;
        }
        FilesCommand::Stat { name, path } => out.one(&stat(client, &name, &path).await?)?,
        FilesCommand::Cat { name, path } => cat(client, &name, &path, out).await?,
        FilesCommand::Rm { name, path, recursive } => {
            let recursive = recursive.to_string();
            let pairs = [("path", path.as_str()), ("recursive", &recursive)];
            client.send(Method::DELETE, &target(&name, "", &pairs), None, "*/*").await?;
        }
        FilesCommand::Mkdir { name, path, parents, mode } => {
            let parents = parents.to_string();
            let mut pairs = vec![("path", path.as_str()), ("parents", &parents)];
            pairs.extend(mode.as_deref().map(|mode| ("mode", mode)));
            client.send(Method::POST, &target(&name, "/mkdir", &pairs), None, "*/*").await?;
        }
        FilesCommand::Mv { name, from, to, force } => {
            let body = MoveBody { from, to, replace: force };
            let target = path(&name, "/files/move");
            let _: FileView = client.json(Method::POST, &target, Some(&body)).await?;
        }
        FilesCommand::Watch { name, path, recursive } => {
            let recursive = recursive.to_string();
            let pairs = [("path", path.as_str()), ("recursive", &recursive)];
            return client
                .events(&target(&name, "/watch", &pairs), |_, data| event(out, data))
                .await;
        }
    }
    Ok(0)
}

/// Looks at a path.
///
/// # Errors
/// [`Failure`].
pub async fn stat(client: &Client, name: &str, path: &str) -> Result<FileView, Failure> {
    client.json(Method::GET, &target(name, "/stat", &[("path", path)]), NO_BODY).await
}

fn list(list: &FileListView, out: &Printer) -> Result<(), Failure> {
    if !out.is_table() {
        return out.value(list);
    }
    out.list(&list.entries)?;
    if list.truncated {
        out.talk(b"there is more than is shown\n");
    }
    Ok(())
}

async fn cat(client: &Client, name: &str, path: &str, out: &Printer) -> Result<(), Failure> {
    let target = target(name, "/content", &[("path", path)]);
    print(client.send(Method::GET, &target, None, "*/*").await?.into_body(), out).await
}

fn event(out: &Printer, data: &str) -> Result<(), Failure> {
    match serde_json::from_str::<FileEventView>(data) {
        Ok(event) if out.is_table() => out.line(&format!("{:<8} {}", event.kind, event.path)),
        _ => out.line(data),
    }
}
