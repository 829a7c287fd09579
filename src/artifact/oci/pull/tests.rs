//! Pulls from a registry that behaves as badly as registries and networks do.

use std::collections::BTreeMap;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use sha2::{Digest as _, Sha256};

use super::*;
use crate::artifact::fetch::{FetchError, HostPolicy};

/// Heads of the requests that have come.
pub type Heads = Arc<Mutex<Vec<String>>>;

/// A server on the loopback that answers each request, alone on its connection, with what `answer`
/// makes of its head and of how often its path has been asked for before.
pub async fn serve(
    answer: impl Fn(&str, usize) -> Vec<u8> + Send + Sync + 'static,
) -> (String, Heads) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heads = Heads::default();
    let seen = Arc::clone(&heads);
    tokio::spawn(async move {
        let mut asked = BTreeMap::<String, usize>::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let path = head.split(' ').nth(1).unwrap().to_owned();
            let before = asked.entry(path).or_default();
            let bytes = answer(&head, *before);
            *before += 1;
            seen.lock().unwrap().push(head);
            let _ = stream.write_all(&bytes).await;
        }
    });
    (address, heads)
}

/// A whole answer.
pub fn reply(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// An image of one layer, in documents as a registry has them.
#[derive(Clone)]
struct Sample {
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

fn sample() -> Sample {
    let mut tar = tar::Builder::new(Vec::new());
    let data: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    let mut header = tar::Header::new_ustar();
    header.set_path("file").unwrap();
    header.set_mode(0o644);
    header.set_size(data.len() as u64);
    header.set_cksum();
    tar.append(&header, data.as_slice()).unwrap();
    let layer = tar.into_inner().unwrap();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"diff_ids":["{}"]}}}}"#,
        digest(&layer)
    );
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"{}","digest":"{}","size":{}}},
        "layers":[{{"mediaType":"{}","digest":"{}","size":{}}}]}}"#,
        super::super::OCI_CONFIG,
        digest(config.as_bytes()),
        config.len(),
        super::super::OCI_LAYER,
        digest(&layer),
        layer.len()
    );
    Sample { layer, config: config.into(), manifest: manifest.into() }
}

impl Sample {
    /// What a registry without faults answers.
    fn answer(&self, head: &str) -> Vec<u8> {
        let path = head.split(' ').nth(1).unwrap();
        if path == "/v2/a/b/manifests/latest" {
            return reply(
                "200 OK",
                "content-type: application/vnd.oci.image.manifest.v1+json\r\n",
                &self.manifest,
            );
        }
        let wanted = path.strip_prefix("/v2/a/b/blobs/").unwrap_or_default();
        let blobs = [&self.layer, &self.config];
        let Some(blob) = blobs.into_iter().find(|blob| digest(blob).to_string() == wanted) else {
            return reply("404 Not Found", "", b"");
        };
        let range = head.lines().find_map(|line| line.strip_prefix("range: bytes="));
        match range.map(|range| range.trim_end_matches('-').parse::<usize>().unwrap()) {
            Some(from) => reply("206 Partial Content", "", &blob[from..]),
            None => reply("200 OK", "", blob),
        }
    }

    fn is_layer(&self, head: &str) -> bool {
        head.contains(&digest(&self.layer).to_string())
    }
}

struct Puller {
    store: Arc<ImageStore>,
    fetcher: Fetcher,
    reference: ImageReference,
    progress: ProgressSender,
    _folder: tempfile::TempDir,
}

impl Puller {
    fn new(address: &str, others: &[&str]) -> Puller {
        let folder = tempfile::tempdir().unwrap();
        let store = ImageStore::open(folder.path().to_owned(), 1 << 30).unwrap();
        let plain_http = others.iter().chain([&address]).map(|host| (*host).to_owned()).collect();
        Puller {
            store: Arc::new(store),
            fetcher: Fetcher::new(HostPolicy { allowed: Vec::new(), plain_http }).unwrap(),
            reference: ImageReference::try_from(format!("{address}/a/b").as_str()).unwrap(),
            progress: ProgressSender::default(),
            _folder: folder,
        }
    }

    async fn pull(&self, credentials: Option<Credentials>) -> Result<Fetched, ImageError> {
        let (store, fetcher) = (&self.store, &self.fetcher);
        pull(store, fetcher, &self.reference, credentials, &self.progress).await
    }

    /// Blobs and parts in the store.
    fn count(&self, kind: Kind) -> usize {
        self.store.list().unwrap().iter().filter(|stored| stored.kind == kind).count()
    }
}

#[tokio::test]
async fn a_download_goes_on_where_it_was_cut() {
    let image = sample();
    let half = image.layer.len() / 2;
    let served = image.clone();
    let (address, heads) = serve(move |head, before| {
        let mut answer = served.answer(head);
        if served.is_layer(head) && before == 0 {
            answer.truncate(answer.len() - served.layer.len() + half);
        }
        answer
    })
    .await;
    let puller = Puller::new(&address, &[]);
    let fetched = puller.pull(None).await.unwrap();
    let range = format!("range: bytes={half}-");
    assert!(heads.lock().unwrap().last().unwrap().contains(&range), "{:?}", heads.lock().unwrap());
    assert_eq!((puller.count(Kind::Blob), puller.count(Kind::Partial)), (3, 0));
    let limits = Limits::default();
    let len = ensure_root(&puller.store, &fetched, limits, &puller.progress).await.unwrap();
    assert_eq!(puller.store.len_of(Kind::Root, fetched.root().unwrap()), Some(len));
}

#[tokio::test]
async fn a_pull_after_a_failed_one_keeps_what_has_come() {
    let image = sample();
    let half = image.layer.len() / 2;
    let served = image.clone();
    let (address, _) = serve(move |head, before| {
        let mut answer = served.answer(head);
        // Half of it, and then nothing at all: longer than anyone tries.
        if served.is_layer(head) && before < 6 {
            answer.truncate(if before == 0 { answer.len() - half } else { 0 });
        }
        answer
    })
    .await;
    let puller = Puller::new(&address, &[]);
    let error = puller.pull(None).await.unwrap_err();
    assert!(matches!(error, ImageError::Fetch(FetchError::Network { .. })), "{error:?}");
    assert_eq!((puller.count(Kind::Blob), puller.count(Kind::Partial)), (2, 1));
    puller.pull(None).await.unwrap();
    let resumed = puller.progress.subscribe().borrow().bytes_resumed;
    assert_eq!(resumed, (image.layer.len() - half) as u64);
    assert_eq!((puller.count(Kind::Blob), puller.count(Kind::Partial)), (3, 0));
}

#[tokio::test]
async fn a_pull_ends_when_it_is_told_to_and_spoils_nothing() {
    let image = sample();
    let served = image.clone();
    let told = Arc::new(Mutex::new(ProgressSender::default()));
    let ending = Arc::clone(&told);
    let (address, _) = serve(move |head, before| {
        let mut answer = served.answer(head);
        if served.is_layer(head) && before == 0 {
            ending.lock().unwrap().cancel();
            answer.truncate(answer.len() - served.layer.len() / 2);
        }
        answer
    })
    .await;
    let mut puller = Puller::new(&address, &[]);
    *told.lock().unwrap() = puller.progress.clone();
    let cancelled = puller.pull(None).await.unwrap_err();
    assert!(matches!(cancelled, ImageError::Cancelled), "{cancelled:?}");
    puller.progress = ProgressSender::default();
    let fetched = puller.pull(None).await.unwrap();
    assert_eq!((puller.count(Kind::Blob), puller.count(Kind::Partial)), (3, 0));

    let making = ProgressSender::default();
    making.cancel();
    let limits = Limits::default();
    let cancelled = ensure_root(&puller.store, &fetched, limits, &making).await.unwrap_err();
    assert!(matches!(cancelled, ImageError::Cancelled), "{cancelled:?}");
    assert_eq!(puller.count(Kind::Root), 0);
    let made = ensure_root(&puller.store, &fetched, limits, &puller.progress).await;
    made.unwrap();
}

#[tokio::test]
async fn a_registry_without_ranges_is_asked_from_the_begin() {
    let image = sample();
    let (address, _) = serve(move |head, before| {
        let whole: String = head
            .lines()
            .filter(|line| !line.starts_with("range:"))
            .map(|l| format!("{l}\r\n"))
            .collect();
        let mut answer = image.answer(&whole);
        if image.is_layer(head) && before == 0 {
            answer.truncate(answer.len() / 3);
        }
        answer
    })
    .await;
    let puller = Puller::new(&address, &[]);
    puller.pull(None).await.unwrap();
    assert_eq!((puller.count(Kind::Blob), puller.count(Kind::Partial)), (3, 0));
}

#[tokio::test]
async fn what_is_not_what_it_is_called_is_refused() {
    let image = sample();
    let other = image.clone();
    let (address, _) = serve(move |head, _| {
        let mut answer = other.answer(head);
        if other.is_layer(head) {
            *answer.last_mut().unwrap() ^= 1;
        }
        answer
    })
    .await;
    let puller = Puller::new(&address, &[]);
    let error = puller.pull(None).await.unwrap_err();
    assert!(matches!(error, ImageError::Digest { .. }), "{error:?}");
    assert_eq!((puller.count(Kind::Blob), puller.count(Kind::Partial)), (2, 0));

    let longer = image.clone();
    let (address, _) = serve(move |head, _| match longer.is_layer(head) {
        true => reply("200 OK", "", &[longer.layer.as_slice(), b"more"].concat()),
        false => longer.answer(head),
    })
    .await;
    let error = Puller::new(&address, &[]).pull(None).await.unwrap_err();
    assert!(error.to_string().contains("longer than it was announced"), "{error:?}");

    let pinned = format!("{address}/a/b@{}", digest(b"another"));
    let mut puller = Puller::new(&address, &[]);
    puller.reference = ImageReference::try_from(pinned.as_str()).unwrap();
    assert!(matches!(puller.pull(None).await, Err(ImageError::NotInRegistry { .. })));

    let (address, _) =
        serve(|_, _| reply("200 OK", "content-type: text/html\r\n", b"{\"schemaVersion\":2}"))
            .await;
    let error = Puller::new(&address, &[]).pull(None).await.unwrap_err();
    assert!(matches!(error, ImageError::MediaType(_)), "{error:?}");
}

#[tokio::test]
async fn refusals_of_a_registry_have_names() {
    type Check = fn(&ImageError) -> bool;
    let table: [(&str, Check); 6] = [
        ("401 Unauthorized", |e| matches!(e, ImageError::Unauthorized(_))),
        ("403 Forbidden", |e| matches!(e, ImageError::Unauthorized(_))),
        ("404 Not Found", |e| matches!(e, ImageError::NotInRegistry { .. })),
        (
            "429 Too Many Requests",
            |e| matches!(e, ImageError::RateLimited { retry_after, .. } if retry_after.is_zero()),
        ),
        ("500 Internal Server Error", |e| matches!(e, ImageError::Registry { status: 500, .. })),
        ("503 Service Unavailable", |e| matches!(e, ImageError::Registry { status: 503, .. })),
    ];
    for (status, check) in table {
        let (address, _) = serve(move |_, _| reply(status, "retry-after: 0\r\n", b"{}")).await;
        let error = Puller::new(&address, &[]).pull(None).await.unwrap_err();
        assert!(check(&error), "{status}: {error:?}");
    }
}

#[tokio::test]
async fn a_token_is_fetched_and_not_shown_to_others() {
    let image = sample();
    let cdn = image.clone();
    let (cdn_address, cdn_heads) = serve(move |head, _| {
        let path = head.split(' ').nth(1).unwrap().replace("/cdn/", "/v2/a/b/blobs/");
        cdn.answer(&format!("GET {path} HTTP/1.1\r\n"))
    })
    .await;
    let target = cdn_address.clone();
    let (address, heads) = serve(move |head, _| {
        let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
        if head.starts_with("GET /token?") {
            let known = head.contains("authorization: Basic bWU6c2VjcmV0");
            assert!(known && head.contains("service=%72&scope="), "{head}");
            return reply("200 OK", "", br#"{"token":"the-token"}"#);
        }
        if !head.contains("authorization: Bearer the-token") {
            let challenge =
                format!("www-authenticate: Bearer realm=\"http://{host}/token\",service=\"r\"\r\n");
            return reply("401 Unauthorized", &challenge, b"");
        }
        match head.split("/blobs/").nth(1) {
            Some(rest) => {
                let digest = rest.split(' ').next().unwrap();
                reply(
                    "307 Temporary Redirect",
                    &format!("location: http://{target}/cdn/{digest}\r\n"),
                    b"",
                )
            }
            None => image.answer(head),
        }
    })
    .await;
    let puller = Puller::new(&address, &[&cdn_address]);
    let (username, password) = ("me".to_owned(), "secret".to_owned());
    puller.pull(Some(Credentials::Basic { username, password })).await.unwrap();
    let seen = cdn_heads.lock().unwrap().concat();
    assert!(seen.contains("GET /cdn/sha256:") && !seen.contains("authorization"), "{seen}");
    let tokens = heads.lock().unwrap().iter().filter(|head| head.contains("/token?")).count();
    assert_eq!(tokens, 1, "a token serves the whole pull");
}

#[tokio::test]
async fn who_comes_second_waits_for_the_first() {
    let image = sample();
    let served = image.clone();
    let (address, heads) = serve(move |head, _| served.answer(head)).await;
    let puller = Puller::new(&address, &[]);
    let both = tokio::join!(puller.pull(None), puller.pull(None));
    let (first, second) = (both.0.unwrap(), both.1.unwrap());
    let limits = Limits::default();
    let (store, progress) = (&puller.store, &puller.progress);
    let roots = tokio::join!(
        ensure_root(store, &first, limits, progress),
        ensure_root(store, &second, limits, progress)
    );
    assert_eq!(roots.0.unwrap(), roots.1.unwrap());
    let layers = heads.lock().unwrap().iter().filter(|head| image.is_layer(head)).count();
    assert_eq!((layers, puller.count(Kind::Blob), puller.count(Kind::Root)), (1, 3, 1));
}
