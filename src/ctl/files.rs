//! `vms files ...`: one function for each verb.
#![expect(clippy::print_stdout, reason = "the output of commands")]
use comfy_table::Table;
use hyper::Method;

use crate::cli::{FilesCommand, Output};
use crate::ctl::client::{Client, Failure, print};
use crate::ctl::output;
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
pub async fn run(client: &Client, command: FilesCommand, form: Output) -> Result<u8, Failure> {
    match command {
        FilesCommand::Ls { name, path, depth } => {
            let depth = depth.to_string();
            let target = target(&name, "/list", &[("path", &path), ("depth", &depth)]);
            list(&client.json(Method::GET, &target, NO_BODY).await?, form)?;
        }
        FilesCommand::Stat { name, path } => show(form, &stat(client, &name, &path).await?)?,
        FilesCommand::Cat { name, path } => cat(client, &name, &path).await?,
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
            return client.events(&target(&name, "/watch", &pairs), event(form)).await;
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

fn row(file: &FileView) -> [String; 6] {
    let name = match &file.link_target {
        Some(target) => format!("{} -> {target}", file.path),
        None => file.path.clone(),
    };
    let (mode, user, group) = (file.mode.clone(), file.user.clone(), file.group.clone());
    [mode, user, group, file.size.to_string(), file.modified_at.clone(), name]
}

fn table() -> Table {
    let mut table = Table::new();
    table.set_header(["MODE", "USER", "GROUP", "SIZE", "MODIFIED", "PATH"]);
    table
}

fn show(form: Output, file: &FileView) -> Result<(), Failure> {
    if form != Output::Table {
        return output::value(form, file);
    }
    let mut table = table();
    table.add_row(row(file));
    println!("{table}");
    Ok(())
}

#[expect(clippy::print_stderr, reason = "that something is missing")]
fn list(list: &FileListView, form: Output) -> Result<(), Failure> {
    if form != Output::Table {
        return output::value(form, list);
    }
    let mut table = table();
    table.add_rows(list.entries.iter().map(row));
    println!("{table}");
    if list.truncated {
        eprintln!("there is more than is shown");
    }
    Ok(())
}

async fn cat(client: &Client, name: &str, path: &str) -> Result<(), Failure> {
    let target = target(name, "/content", &[("path", path)]);
    print(client.send(Method::GET, &target, None, "*/*").await?.into_body()).await
}

fn event(form: Output) -> impl FnMut(&str, &str) -> Result<(), Failure> {
    move |_, data| {
        match (form, serde_json::from_str::<FileEventView>(data)) {
            (Output::Table, Ok(event)) => println!("{:<8} {}", event.kind, event.path),
            _ => println!("{data}"),
        }
        Ok(())
    }
}
