//! `volantd ctl build`: packs what a Volantfile names, has it built, and keeps the result.
//!
//! The archive says nothing of this machine: names in order, no times, no owners but those that the
//! Volantfile gives. The same Volantfile and files make the same bytes, wherever they lie.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::Method;
use hyper::body::Frame;
use serde::Serialize;
use serde_json::Value;
use tar::{EntryType, Header};
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;

use crate::cli::BuildArgs;
use crate::ctl::client::{Client, Failure};
use crate::ctl::output::{Listed, Printer};
use crate::plugin::{DOCUMENT_LEN_MAX, FileDetails, volantfile};
use crate::wire::{BuiltView, PluginView};

/// Bytes sent at once.
const CHUNK_LEN: usize = 256 * 1024;

/// Builds.
///
/// # Errors
/// [`Failure`].
pub async fn run(client: &Client, args: &BuildArgs, out: &Printer) -> Result<u8, Failure> {
    let source = match args.source.is_dir() {
        true => args.source.join("Volantfile"),
        false => args.source.clone(),
    };
    let packed = tokio::task::spawn_blocking(move || pack(&source)).await;
    let packed = packed.map_err(|error| Failure::local(error.to_string()))??;
    let chunks = ReaderStream::with_capacity(tokio::fs::File::from_std(packed), CHUNK_LEN);
    let body = StreamBody::new(chunks.map(|bytes| bytes.map(Frame::data))).boxed_unsync();
    let kind = Some("application/x-tar");
    let answer =
        client.send_body(Method::POST, "/api/v1/builds", body, kind, "application/json").await?;
    let bytes = answer.into_body().collect().await;
    let bytes = bytes.map_err(|error| Failure::local(error.to_string()))?.to_bytes();
    let mut built: BuiltView =
        serde_json::from_slice(&bytes).map_err(|error| Failure::local(error.to_string()))?;
    let manifest = keep(client, &mut built, &args.output_dir).await?;
    if args.install {
        let path = "/api/v1/plugins";
        let _: PluginView = client.json(Method::POST, path, Some(&built.manifest)).await?;
    }
    out.one(&Kept { manifest_path: manifest.display().to_string(), built })?;
    Ok(0)
}

/// What was built, and where its manifest is now.
#[derive(Debug, Serialize)]
struct Kept {
    manifest_path: String,
    #[serde(flatten)]
    built: BuiltView,
}

impl Listed for Kept {
    const HEADER: &'static [&'static str] = &["MANIFEST", "DIGEST", "BYTES"];

    fn name(&self) -> String {
        self.manifest_path.clone()
    }

    fn cells(&self) -> Vec<String> {
        vec![self.manifest_path.clone(), self.built.digest.clone(), self.built.bytes.to_string()]
    }
}

/// Writes artifact and manifest into `folder`, and the artifact's place into the manifest.
async fn keep(client: &Client, built: &mut BuiltView, folder: &Path) -> Result<PathBuf, Failure> {
    let failed =
        |path: &Path, error: io::Error| Failure::local(format!("{}: {error}", path.display()));
    let folder = fs::create_dir_all(folder).and_then(|()| fs::canonicalize(folder));
    let folder = folder.map_err(|error| failed(Path::new("the output folder"), error))?;
    let medium =
        ["initramfs", "rootfs"].into_iter().find(|field| built.manifest.get(field).is_some());
    let pointer = format!("/{}/url", medium.unwrap_or_default());
    let Some(Value::String(url)) = built.manifest.pointer_mut(&pointer) else {
        return Err(Failure::local("the daemon's manifest names no artifact"));
    };
    // A name of the daemon's choice is one part of a path here, nothing else.
    let name = url.rsplit('/').next().unwrap_or_default().to_owned();
    let path = folder.join(&name);
    *url = format!("file://{}", path.display());
    let digest = crate::ctl::vms::encoded(&built.digest);
    let answer =
        client.send(Method::GET, &format!("/api/v1/artifacts/{digest}"), None, "*/*").await?;
    let mut out = tokio::fs::File::create(&path).await.map_err(|error| failed(&path, error))?;
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::local(format!("cut off: {error}")))?;
        let bytes = frame.data_ref().map_or(&[][..], |bytes| bytes);
        out.write_all(bytes).await.map_err(|error| failed(&path, error))?;
    }
    out.flush().await.map_err(|error| failed(&path, error))?;
    let manifest = path.with_extension("manifest.json");
    let text = format!("{:#}\n", built.manifest);
    fs::write(&manifest, text).map_err(|error| failed(&manifest, error))?;
    Ok(manifest)
}

/// The Volantfile and everything that it names, as one archive without a name.
fn pack(source: &Path) -> Result<File, Failure> {
    let failed = |path: &Path, error: io::Error| Failure {
        exit_code: 2,
        ..Failure::local(format!("{}: {error}", path.display()))
    };
    let text = crate::ctl::source::read(&source.to_string_lossy(), DOCUMENT_LEN_MAX)?;
    let file = volantfile(&text).map_err(|error| Failure {
        exit_code: 2,
        ..Failure::local(format!("{}: {error}", source.display()))
    })?;
    let temporary = std::env::temp_dir();
    let flags =
        rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    let out = rustix::fs::open(&temporary, flags, rustix::fs::Mode::from_raw_mode(0o600));
    let out = File::from(out.map_err(|error| failed(&temporary, error.into()))?);
    let mut tar = tar::Builder::new(out);
    let packed = put(&mut tar, b"Volantfile", EntryType::Regular, 0o644, (0, 0), &text);
    packed.map_err(|error| failed(source, error))?;
    let base = source.parent().unwrap_or(Path::new(""));
    for (path, from) in &file.files {
        let details = from.details();
        let from = base.join(&details.source);
        let packed = tree(&mut tar, Path::new(path.trim_start_matches('/')), &from, &details);
        packed.map_err(|error| failed(&from, error))?;
    }
    let mut out = tar.into_inner().map_err(|error| failed(source, error))?;
    io::Seek::rewind(&mut out).map_err(|error| failed(source, error))?;
    Ok(out)
}

/// A file, link or folder with everything in it, in the order of names.
fn tree<W: Write>(
    tar: &mut tar::Builder<W>,
    path: &Path,
    from: &Path,
    details: &FileDetails,
) -> io::Result<()> {
    let owner = (details.uid, details.gid);
    let name = path.as_os_str().as_bytes();
    let meta = fs::symlink_metadata(from)?;
    if meta.is_symlink() {
        let target = fs::read_link(from)?;
        return put(tar, name, EntryType::Symlink, 0o777, owner, target.as_os_str().as_bytes());
    }
    if meta.is_dir() {
        put(tar, name, EntryType::Directory, 0o755, owner, b"")?;
        let entries = fs::read_dir(from)?.map(|entry| Ok(entry?.file_name()));
        let mut names = entries.collect::<io::Result<Vec<_>>>()?;
        names.sort();
        return names
            .iter()
            .try_for_each(|name| tree(tar, &path.join(name), &from.join(name), details));
    }
    if !meta.is_file() {
        return Err(io::Error::other("neither file, folder nor link"));
    }
    let can_run = meta.permissions().mode() & 0o111 != 0;
    let mode = details.mode().unwrap_or(if can_run { 0o755 } else { 0o644 });
    put(tar, name, EntryType::Regular, mode, owner, &fs::read(from)?)
}

/// One entry; what is longer than a header has room for is put before it, as PAX has it.
fn put<W: Write>(
    tar: &mut tar::Builder<W>,
    name: &[u8],
    kind: EntryType,
    mode: u32,
    (uid, gid): (u64, u64),
    data: &[u8],
) -> io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(uid);
    header.set_gid(gid);
    header.set_mtime(0);
    let as_path = |bytes: &[u8]| PathBuf::from(std::ffi::OsStr::from_bytes(bytes));
    let mut long = Vec::new();
    if header.set_path(as_path(name)).is_err() {
        long.push(("path", name));
    }
    let mut contents = data;
    if kind == EntryType::Symlink {
        if header.set_link_name(as_path(data)).is_err() {
            long.push(("linkpath", data));
        }
        contents = b"";
    }
    if !long.is_empty() {
        tar.append_pax_extensions(long)?;
    }
    header.set_size(contents.len() as u64);
    header.set_cksum();
    tar.append(&header, contents)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_same_files_make_the_same_archive_wherever_they_lie() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let long = "a".repeat(150);
        let archives = folders.map(|folder| {
            let path = |name: &str| folder.path().join(name);
            fs::write(
                path("Volantfile"),
                "strategy = 'initramfs'\n[files]\n'/srv' = 'tree'\n'/bin/app' = { source = 'app', \
                 mode = '4750', uid = 7 }\n[manifest]\nname = 'x'\n",
            )
            .unwrap();
            fs::create_dir_all(path("tree/inner")).unwrap();
            for name in ["tree/b", "tree/a", "tree/inner/c", "app", &format!("tree/{long}")] {
                fs::write(path(name), name).unwrap();
            }
            std::os::unix::fs::symlink("a", path("tree/link")).unwrap();
            fs::set_permissions(path("tree/b"), fs::Permissions::from_mode(0o700)).unwrap();
            let mut bytes = Vec::new();
            pack(&path("Volantfile")).unwrap().read_to_end(&mut bytes).unwrap();
            bytes
        });
        assert_eq!(archives[0], archives[1]);
        let mut archive = tar::Archive::new(archives[0].as_slice());
        let listed: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                let path = entry.path().unwrap().display().to_string();
                format!("{path} {:o} {}", header.mode().unwrap(), header.uid().unwrap())
            })
            .collect();
        let expected = [
            "Volantfile 644 0".to_owned(),
            "bin/app 4750 7".to_owned(),
            "srv 755 0".to_owned(),
            "srv/a 644 0".to_owned(),
            format!("srv/{long} 644 0"),
            "srv/b 755 0".to_owned(),
            "srv/inner 755 0".to_owned(),
            "srv/inner/c 644 0".to_owned(),
            "srv/link 777 0".to_owned(),
        ];
        assert_eq!(listed, expected);
    }
}
