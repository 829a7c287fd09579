//! The web console: a page and its parts, built from `web/` into `dist/` and kept in the program.
//!
//! They hold nothing secret and need no token; what the page asks the API needs one.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, OnceLock};

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Extension, Router};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use include_dir::{Dir, include_dir};
use sha2::{Digest, Sha256};

use crate::api::error::{self, Refusal};

/// Where the page is.
const HOME: &str = "/ui/";
/// The file that is the page.
const PAGE: &str = "index.html";
/// What the page may do. Its scripts are files of ours; the terminal writes its own style elements.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);
/// Names of files that hold a hash of what is in them never mean anything else.
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const ASK_AGAIN: HeaderValue = HeaderValue::from_static("no-cache");
/// Letters of the hash in a file's name, after its last `-`.
const HASH_LEN: usize = 8;

static BUILT: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/src/api/ui/dist");

/// One file, as it is sent.
struct File {
    kind: HeaderValue,
    tag: HeaderValue,
    cache: HeaderValue,
    plain: Bytes,
    /// Made when it is first asked for.
    packed: OnceLock<Bytes>,
}

/// All files by name.
#[derive(Clone)]
struct Files(Arc<BTreeMap<String, File>>);

impl Files {
    fn open() -> Files {
        let named = BUILT.files().filter_map(|built| {
            let name = built.path().to_str()?;
            Some((name.to_owned(), File::new(name, built.contents())?))
        });
        Files(Arc::new(named.collect()))
    }
}

impl File {
    /// None for a file of a kind that no page has.
    fn new(name: &str, contents: &'static [u8]) -> Option<File> {
        let (stem, extension) = name.rsplit_once('.')?;
        let kind = match extension {
            "html" => "text/html; charset=utf-8",
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "svg" => "image/svg+xml",
            _ => return None,
        };
        let digits: String =
            Sha256::digest(contents)[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        let is_hashed = stem.rsplit_once('-').is_some_and(|(_, hash)| hash.len() == HASH_LEN);
        Some(File {
            kind: HeaderValue::from_static(kind),
            tag: HeaderValue::from_str(&format!("\"{digits}\"")).ok()?,
            cache: if is_hashed { FOR_EVER } else { ASK_AGAIN },
            plain: Bytes::from_static(contents),
            packed: OnceLock::new(),
        })
    }

    fn packed(&self) -> Bytes {
        let pack = || {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            // Into memory, which does not fail.
            let _ = encoder.write_all(&self.plain);
            Bytes::from(encoder.finish().unwrap_or_default())
        };
        self.packed.get_or_init(pack).clone()
    }

    fn answer(&self, asked: &HeaderMap) -> Response {
        let text = |name| asked.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let known = text(header::IF_NONE_MATCH).unwrap_or_default();
        let is_known = known.split(',').any(|tag| tag.trim().trim_start_matches("W/") == self.tag);
        let mut response = if is_known {
            StatusCode::NOT_MODIFIED.into_response()
        } else if takes_gzip(text(header::ACCEPT_ENCODING).unwrap_or_default()) {
            let encoding = [(header::CONTENT_ENCODING, "gzip")];
            (encoding, self.packed()).into_response()
        } else {
            self.plain.clone().into_response()
        };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, self.kind.clone());
        headers.insert(header::ETAG, self.tag.clone());
        headers.insert(header::CACHE_CONTROL, self.cache.clone());
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        guarded(response)
    }
}

/// RFC 9110, 12.5.3; a weight of nought is a no.
fn takes_gzip(accepted: &str) -> bool {
    accepted.split(',').any(|item| {
        let mut parts = item.split(';').map(str::trim);
        parts.next() == Some("gzip") && !parts.any(|part| part.trim_end_matches(['0', '.']) == "q=")
    })
}

/// Headers that keep a page to itself.
fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

/// The console's routes.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(root))
        .route("/ui", get(home))
        .route("/ui/", get(page))
        .route("/ui/{file}", get(file))
        .layer(Extension(Files::open()))
}

/// `GET /`: people are led to the console; programs find nothing here.
async fn root(headers: HeaderMap, uri: Uri) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if accepted.is_some_and(|accepted| accepted.contains("text/html")) {
        return home().await.into_response();
    }
    error::not_found(uri).await.into_response()
}

/// `GET /ui`.
async fn home() -> Response {
    guarded(Redirect::temporary(HOME).into_response())
}

/// `GET /ui/`.
async fn page(files: Extension<Files>, headers: HeaderMap) -> Response {
    file(files, Path(PAGE.to_owned()), headers).await
}

/// `GET /ui/{file}`.
async fn file(
    Extension(files): Extension<Files>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response {
    if let Some(file) = files.0.get(&name) {
        return file.answer(&headers);
    }
    let text = format!("the console has no file {name}");
    Refusal::new(StatusCode::NOT_FOUND, "route_not_found", text).into_response()
}

#[cfg(test)]
mod tests;
