use std::sync::Mutex;

use super::*;
use crate::artifact::fetch::{FetchError, HostPolicy};
use crate::artifact::oci::{reply, serve};
use crate::model::MediumRole;

struct Place {
    store: Arc<ImageStore>,
    sources: Sources,
    progress: ProgressSender,
    folder: tempfile::TempDir,
}

impl Place {
    fn new(host: &str, bytes_max: u64) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let store = ImageStore::open(folder.path().join("store"), bytes_max).unwrap();
        let files = folder.path().join("files");
        std::fs::create_dir(&files).unwrap();
        let policy = HostPolicy { allowed: Vec::new(), plain_http: vec![host.to_owned()] };
        let folders = Folders { named: vec![files], own: store.folders() };
        let sources =
            Sources { fetcher: Fetcher::new(policy).unwrap(), folders: Arc::new(folders) };
        Place { store: Arc::new(store), sources, progress: ProgressSender::default(), folder }
    }

    async fn bring(&self, medium: &Medium) -> Result<(Kind, Digest, u64), ImageError> {
        bring(&self.store, &self.sources, medium, &self.progress).await
    }

    fn names(&self) -> Vec<Kind> {
        self.store.list().unwrap().iter().map(|stored| stored.kind).collect()
    }
}

fn medium(source: &str, digest: Option<Digest>) -> Medium {
    let (role, format) = (MediumRole::Disk(0), MediumFormat::Raw);
    Medium { role, source: source.to_owned(), digest, format }
}

fn file() -> Vec<u8> {
    (0..200_000u32).flat_map(u32::to_le_bytes).collect()
}

fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// Answers ranges, as servers of files do.
fn answer(head: &str, body: &[u8]) -> Vec<u8> {
    let range = head.lines().find_map(|line| line.strip_prefix("range: bytes="));
    match range.map(|range| range.trim_end_matches('-').parse::<usize>().unwrap()) {
        Some(from) if from < body.len() => reply("206 Partial Content", "", &body[from..]),
        Some(_) => reply("416 Range Not Satisfiable", "", b""),
        None => reply("200 OK", "", body),
    }
}

#[tokio::test]
async fn a_download_goes_on_is_shared_and_is_brought_once() {
    let (body, half) = (file(), 300_000);
    let wanted = digest(&body);
    let (host, heads) = serve(move |head, before| {
        let mut bytes = answer(head, &body);
        if before == 0 {
            bytes.truncate(half);
        }
        bytes
    })
    .await;
    let place = Place::new(&host, 1 << 30);
    let medium = medium(&format!("http://{host}/disk"), Some(wanted));
    let (first, second) = tokio::join!(place.bring(&medium), place.bring(&medium));
    assert_eq!(first.unwrap(), (Kind::Artifact, wanted, 800_000));
    assert_eq!(second.unwrap().1, wanted);
    let seen = heads.lock().unwrap().clone();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert!(seen[1].contains("range: bytes="), "{seen:?}");
    place.bring(&medium).await.unwrap();
    assert_eq!(heads.lock().unwrap().len(), 2);
    assert_eq!(place.names(), [Kind::Artifact]);
    assert_eq!(place.progress.subscribe().borrow().bytes_total, 800_000);
}

#[tokio::test]
async fn what_an_earlier_daemon_has_brought_is_kept() {
    let body = file();
    let (wanted, whole) = (digest(&body), body.clone());
    let (host, _) = serve(move |head, _| answer(head, &body)).await;
    for have in [0, 500_000, whole.len()] {
        let place = Place::new(&host, 1 << 30);
        std::fs::write(place.store.path(Kind::Partial, wanted), &whole[..have]).unwrap();
        let medium = medium(&format!("http://{host}/disk"), Some(wanted));
        assert_eq!(place.bring(&medium).await.unwrap().1, wanted);
        assert_eq!(place.progress.subscribe().borrow().bytes_resumed, have as u64);
        assert_eq!(place.names(), [Kind::Artifact]);
    }
}

#[tokio::test]
async fn refusals_have_names_and_leave_nothing() {
    type Check = fn(&ImageError) -> bool;
    let table: [(&str, Check); 5] = [
        ("401 Unauthorized", |e| matches!(e, ImageError::Unauthorized(_))),
        ("404 Not Found", |e| matches!(e, ImageError::NotInRegistry { .. })),
        ("416 Range Not Satisfiable", |e| matches!(e, ImageError::Registry { status: 416, .. })),
        ("200 OK", |e| matches!(e, ImageError::Digest { .. })),
        ("301 Moved Permanently", |e| {
            matches!(
                e,
                ImageError::Fetch(FetchError::PrivateAddress { .. } | FetchError::PlainHttp(_))
            )
        }),
    ];
    for (status, check) in table {
        let headers = "location: http://127.0.0.1:1/secret\r\n";
        let (host, _) = serve(move |_, _| reply(status, headers, b"other")).await;
        let place = Place::new(&host, 1 << 30);
        let wanted = medium(&format!("http://{host}/disk"), Some(digest(b"this")));
        let error = place.bring(&wanted).await.unwrap_err();
        assert!(check(&error), "{status}: {error:?}");
        let left: Vec<_> =
            place.store.list().unwrap().into_iter().filter(|s| 0 < s.bytes).collect();
        assert!(left.is_empty(), "{status}: {left:?}");
    }
    let (host, _) = serve(|_, _| reply("200 OK", "", &[1; 100_000])).await;
    let place = Place::new(&host, 50_000);
    let error = place.bring(&medium(&format!("http://{host}/disk"), None)).await.unwrap_err();
    assert!(matches!(error, ImageError::StoreFull { .. }), "{error:?}");
    for (source, text) in [
        ("http://other.example/x", "without TLS"),
        ("https://other.example/x", "not among"),
        ("https://127.0.0.1/x", "not among"),
    ] {
        let error = place.bring(&medium(source, None)).await.unwrap_err().to_string();
        assert!(error.contains(text), "{source}: {error}");
    }
}

#[tokio::test]
async fn servers_are_asked_again_when_that_may_help() {
    let times = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&times);
    let (host, _) = serve(move |_, before| {
        *seen.lock().unwrap() += 1;
        match before {
            0 => reply("429 Too Many Requests", "retry-after: 0\r\n", b""),
            1 => reply("503 Service Unavailable", "", b""),
            _ => reply("200 OK", "", b"here"),
        }
    })
    .await;
    let place = Place::new(&host, 1 << 30);
    let got = place.bring(&medium(&format!("http://{host}/x"), Some(digest(b"here")))).await;
    assert_eq!((got.unwrap().2, *times.lock().unwrap()), (4, 3));
}

#[tokio::test]
async fn files_of_the_host_are_copied_from_the_folders_that_may_be_named() {
    let place = Place::new("none", 1 << 30);
    let inside = place.folder.path().join("files/disk");
    std::fs::write(&inside, "one").unwrap();
    let path = inside.to_str().unwrap();
    let wrong = place.bring(&medium(path, Some(digest(b"two")))).await.unwrap_err();
    assert!(matches!(wrong, ImageError::Digest { .. }), "{wrong:?}");
    let (kind, found, _) = place.bring(&medium(path, Some(digest(b"one")))).await.unwrap();
    // What was checked does not change any more.
    std::fs::write(&inside, "two").unwrap();
    assert_eq!(std::fs::read(place.store.path(kind, found)).unwrap(), b"one");
    for outside in ["/etc/passwd", "/nonexistent/file"] {
        let error = place.bring(&medium(outside, None)).await.unwrap_err().to_string();
        assert!(error.contains("none of the folders"), "{outside}: {error}");
    }
    let folder = place.folder.path().join("files");
    let error = place.bring(&medium(folder.to_str().unwrap(), None)).await.unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
}

#[tokio::test]
async fn a_packed_disk_is_unpacked_once_and_within_the_cap() {
    for (bytes_max, fits) in [(1 << 30, true), (350_000, false)] {
        let place = Place::new("none", bytes_max);
        let path = place.folder.path().join("files/disk");
        let mut packed = qcow2::tests::disk(false, |_| {});
        std::io::Seek::rewind(&mut packed).unwrap();
        std::io::copy(&mut packed, &mut std::fs::File::create(&path).unwrap()).unwrap();
        let plain = medium(path.to_str().unwrap(), None);
        let wanted = Medium { format: MediumFormat::Qcow2, ..plain };
        let brought = place.bring(&wanted).await;
        if !fits {
            assert!(matches!(brought, Err(ImageError::StoreFull { .. })), "{brought:?}");
            assert_eq!(place.names(), [Kind::Artifact]);
            continue;
        }
        let (kind, digest, len) = brought.unwrap();
        assert_eq!((kind, len), (Kind::Disk, 4 * 65536));
        let made = std::fs::metadata(place.store.path(kind, digest)).unwrap().modified().unwrap();
        place.bring(&wanted).await.unwrap();
        let again = std::fs::metadata(place.store.path(kind, digest)).unwrap().modified().unwrap();
        assert_eq!((made, place.names()), (again, vec![Kind::Artifact, Kind::Disk]));
    }
}
