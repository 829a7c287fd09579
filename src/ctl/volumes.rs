//! `volantd ctl volumes ...`.

use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::Method;
use hyper::body::Frame;
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;

use crate::cli::{VolumesCommand, WatchArgs};
use crate::ctl::client::{Client, Failure};
use crate::ctl::output::Printer;
use crate::ctl::{vms, watch};
use crate::wire::{CreateVolume, GrowVolume, VmVolume, VolumeView};

/// Bytes of a backup sent at once.
const CHUNK_LEN: usize = 256 * 1024;
const NO_BODY: Option<&()> = None;

/// Runs a verb.
///
/// # Errors
/// [`Failure`].
pub async fn run(client: &Client, command: VolumesCommand, out: &Printer) -> Result<u8, Failure> {
    match command {
        VolumesCommand::Create { name, size } => {
            let body = CreateVolume { name, size_mb: size };
            let made: VolumeView =
                client.json(Method::POST, "/api/v1/volumes", Some(&body)).await?;
            out.one(&made)?;
        }
        VolumesCommand::Ls(WatchArgs { watch }) => {
            let read = async || {
                client.json::<Vec<VolumeView>>(Method::GET, "/api/v1/volumes", NO_BODY).await
            };
            watch::list(watch, out, read).await?;
        }
        VolumesCommand::Inspect { name } => {
            let one: VolumeView = client.json(Method::GET, &path(&name, ""), NO_BODY).await?;
            out.one(&one)?;
        }
        VolumesCommand::Grow { name, size } => {
            let body = GrowVolume { size_mb: size };
            let grown: VolumeView =
                client.json(Method::POST, &path(&name, "/grow"), Some(&body)).await?;
            out.one(&grown)?;
        }
        VolumesCommand::Rm { name } => {
            client.send(Method::DELETE, &path(&name, ""), None, "*/*").await?;
        }
        VolumesCommand::Backup { name, file } => backup(client, &name, &file).await?,
        VolumesCommand::Restore { name, file } => {
            out.one(&restore(client, &name, &file).await?)?;
        }
    }
    Ok(0)
}

fn path(name: &str, rest: &str) -> String {
    format!("/api/v1/volumes/{}{rest}", vms::encoded(name))
}

/// `NAME:PATH[:ro]`.
///
/// # Errors
/// It is not of that form.
pub fn of_vm(text: &str) -> Result<VmVolume, Failure> {
    let (rest, readonly) = text.strip_suffix(":ro").map_or((text, false), |rest| (rest, true));
    let parts =
        rest.split_once(':').filter(|(name, path)| !name.is_empty() && path.starts_with('/'));
    let (name, path) = parts.ok_or_else(|| Failure {
        exit_code: 2,
        ..Failure::local(format!("{text:?} is no volume: write it as NAME:/PATH or NAME:/PATH:ro"))
    })?;
    Ok(VmVolume { name: name.to_owned(), path: path.to_owned(), readonly })
}

/// The file has its name only when the backup is whole.
async fn backup(client: &Client, name: &str, file: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::local(format!("{}: {error}", file.display()));
    if file.exists() {
        return Err(failed(std::io::ErrorKind::AlreadyExists.into()));
    }
    let mut partial = file.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let answer = client.send(Method::GET, &path(name, "/backup"), None, "*/*").await?;
    let mut out = tokio::fs::File::create(&partial).await.map_err(failed)?;
    let mut body = answer.into_body();
    let written = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Failure::local(format!("cut off: {error}")))?;
            let bytes = frame.data_ref().map_or(&[][..], |bytes| bytes);
            out.write_all(bytes).await.map_err(failed)?;
        }
        out.sync_all().await.map_err(failed)
    };
    let done = match written.await {
        Ok(()) => tokio::fs::rename(&partial, file).await.map_err(failed),
        Err(failure) => Err(failure),
    };
    if done.is_err() {
        // What is not whole is no backup.
        let _ = tokio::fs::remove_file(&partial).await;
    }
    done
}

async fn restore(client: &Client, name: &str, file: &Path) -> Result<VolumeView, Failure> {
    let failed = |error: std::io::Error| Failure::local(format!("{}: {error}", file.display()));
    let backup = tokio::fs::File::open(file).await.map_err(failed)?;
    let chunks = ReaderStream::with_capacity(backup, CHUNK_LEN);
    let body = StreamBody::new(chunks.map(|bytes| bytes.map(Frame::data))).boxed_unsync();
    let (path, kind) = (path(name, "/backup"), Some("application/zstd"));
    let answer = client.send_body(Method::PUT, &path, body, kind, "application/json").await?;
    let bytes = answer.into_body().collect().await;
    let bytes = bytes.map_err(|error| Failure::local(error.to_string()))?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| Failure::local(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_of_vms_are_read() {
        let read = |text: &str| of_vm(text).ok().map(|v| (v.name, v.path, v.readonly));
        let some =
            |name: &str, path: &str, readonly| Some((name.to_owned(), path.to_owned(), readonly));
        assert_eq!(read("data:/srv"), some("data", "/srv", false));
        assert_eq!(read("data:/srv:ro"), some("data", "/srv", true));
        assert_eq!(read("data:/a:b"), some("data", "/a:b", false));
        for bad in ["data", "data:srv", ":/srv", "data:ro", ""] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
