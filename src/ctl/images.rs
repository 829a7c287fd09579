//! `volantd ctl images ...`.

use std::path::Path;

use futures_util::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::Method;
use hyper::body::Frame;
use indicatif::{HumanBytes, ProgressBar};
use serde::de::DeserializeOwned;
use tokio_util::io::ReaderStream;

use crate::cli::{ImagesCommand, PullArgs, WatchArgs};
use crate::ctl::client::{Body, Client, Failure, whole};
use crate::ctl::output::Printer;
use crate::ctl::{vms, watch};
use crate::wire::{
    ImageDetailsView, ImageProgress, ImageView, Problem, PruneImages, PrunedView, PullImage,
    RegistryAuth,
};

/// Bytes of an archive sent at once.
const CHUNK_LEN: usize = 256 * 1024;
const NO_BODY: Option<&()> = None;

/// Runs a verb.
///
/// # Errors
/// [`Failure`].
pub async fn run(client: &Client, command: ImagesCommand, out: &Printer) -> Result<u8, Failure> {
    match command {
        ImagesCommand::Pull(args) => {
            out.one(&pull(client, &request(args)?, out).await?)?;
        }
        ImagesCommand::Import { file, name } => {
            out.list(&import(client, &file, name.as_deref(), out).await?)?;
        }
        ImagesCommand::Ls(WatchArgs { watch }) => {
            let read = async || {
                client.json::<Vec<ImageView>>(Method::GET, "/api/v1/images", NO_BODY).await
            };
            watch::list(watch, out, read).await?;
        }
        ImagesCommand::Inspect { name } => {
            let details: ImageDetailsView = client.json(Method::GET, &path(&name), NO_BODY).await?;
            out.value(&details)?;
        }
        ImagesCommand::Rm { name } => {
            client.send(Method::DELETE, &path(&name), None, "*/*").await?;
        }
        ImagesCommand::Prune { all, dry_run } => {
            let body = PruneImages { all, dry_run };
            let pruned: Vec<PrunedView> =
                client.json(Method::POST, "/api/v1/images/prune", Some(&body)).await?;
            print_pruned(out, &pruned, dry_run)?;
        }
    }
    Ok(0)
}

fn path(name: &str) -> String {
    format!("/api/v1/images/{}", vms::encoded(name))
}

fn request(args: PullArgs) -> Result<PullImage, Failure> {
    let password = match &args.password_file {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|e| Failure::local(format!("{}: {e}", path.display())))?;
            Some(text.trim_end_matches(['\r', '\n']).to_owned())
        }
        None => None,
    };
    let auth = match args.username {
        Some(username) => Some(RegistryAuth { username: Some(username), password, token: None }),
        None => {
            password.map(|token| RegistryAuth { token: Some(token), ..RegistryAuth::default() })
        }
    };
    Ok(PullImage { reference: args.reference, auth, if_missing: false })
}

/// Pulls, and shows on a terminal how far it is.
///
/// # Errors
/// [`Failure`].
pub async fn pull(
    client: &Client,
    request: &PullImage,
    out: &Printer,
) -> Result<ImageView, Failure> {
    let body = serde_json::to_vec(request).map_err(|error| Failure::local(error.to_string()))?;
    follow(client, "/api/v1/images/pull", whole(body), "application/json", out).await
}

async fn import(
    client: &Client,
    file: &Path,
    name: Option<&str>,
    out: &Printer,
) -> Result<Vec<ImageView>, Failure> {
    let failed = |error: std::io::Error| Failure::local(format!("{}: {error}", file.display()));
    let archive = tokio::fs::File::open(file).await.map_err(failed)?;
    if archive.metadata().await.map_err(failed)?.is_dir() {
        let text = "is a folder: pack it first, for example with tar -C FOLDER -cf FILE .";
        return Err(Failure {
            exit_code: 2,
            ..Failure::local(format!("{} {text}", file.display()))
        });
    }
    let chunks = ReaderStream::with_capacity(archive, CHUNK_LEN);
    let body = StreamBody::new(chunks.map(|bytes| bytes.map(Frame::data))).boxed_unsync();
    let query = name.map_or(String::new(), |name| format!("?reference={}", vms::encoded(name)));
    let path = format!("/api/v1/images/import{query}");
    follow(client, &path, body, "application/octet-stream", out).await
}

/// Sends a request that is answered by events: progress, and at the end a result or a problem.
///
/// # Errors
/// [`Failure`].
pub async fn follow<T: DeserializeOwned>(
    client: &Client,
    path: &str,
    body: Body,
    kind: &str,
    out: &Printer,
) -> Result<T, Failure> {
    let bar = out.bar();
    let mut outcome = None;
    let lost = |error: serde_json::Error| Failure::local(format!("the daemon's answer: {error}"));
    let each = |kind: &str, data: &str| {
        match kind {
            "progress" => show(&bar, &serde_json::from_str(data).map_err(lost)?),
            "done" => outcome = Some(serde_json::from_str(data).map_err(lost)?),
            _ => {
                let problem: Problem = serde_json::from_str(data).map_err(lost)?;
                return Err(Failure::of_problem(problem));
            }
        }
        Ok(())
    };
    let sent = client.send_body(Method::POST, path, body, Some(kind), "text/event-stream").await;
    let followed = match sent {
        Ok(answer) => Client::follow(answer, each).await,
        Err(failure) => Err(failure),
    };
    bar.finish_and_clear();
    followed?;
    outcome.ok_or_else(|| Failure::local("the daemon hung up"))
}

fn show(bar: &ProgressBar, progress: &ImageProgress) {
    bar.set_message(progress.phase.clone());
    bar.set_length(progress.bytes_total);
    bar.set_position(progress.bytes_done);
}

fn print_pruned(out: &Printer, pruned: &[PrunedView], dry_run: bool) -> Result<(), Failure> {
    out.list(pruned)?;
    if out.is_table() {
        let bytes = HumanBytes(pruned.iter().map(|one| one.bytes).sum());
        out.line(&format!("{} {bytes}", if dry_run { "would free" } else { "freed" }))?;
    }
    Ok(())
}
