//! A registry (OCI distribution specification 1.1): manifests and blobs, with the ways to log in
//! that registries use.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use hyper::{Response, StatusCode};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::artifact::download::{BODY_IDLE_TIMEOUT, Patience};
use crate::artifact::fetch::{DOCKER_HUB, FetchError, Fetcher, Named};
use crate::artifact::oci::ImageError;
use crate::artifact::oci::document::{
    DOCKER_INDEX, DOCKER_MANIFEST, DOCUMENT_LEN_MAX, OCI_INDEX, OCI_MANIFEST,
};
use crate::model::{Digest, ImageReference};

/// Tries for one document.
const TRIES_MAX: u32 = 4;
/// Bytes of the answer of a token server.
const TOKEN_LEN_MAX: usize = 1 << 20;
/// The longest wait that a registry can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// Who we are to a registry. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A name and a password, or a token that is used as one.
    Basic {
        /// Name.
        username: String,
        /// Password.
        password: String,
    },
    /// A bearer token.
    Bearer(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(hidden)")
    }
}

impl Credentials {
    fn header(&self) -> Option<HeaderValue> {
        let text = match self {
            Credentials::Basic { username, password } => {
                let both = format!("{username}:{password}");
                format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(both))
            }
            Credentials::Bearer(token) => format!("Bearer {token}"),
        };
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// One repository in a registry.
#[derive(Debug)]
pub struct Registry<'a> {
    fetcher: &'a Fetcher,
    base: String,
    repository: String,
    credentials: Option<Credentials>,
    authorization: Mutex<Option<HeaderValue>>,
}

impl Registry<'_> {
    /// The repository of `reference`.
    pub fn new<'a>(
        fetcher: &'a Fetcher,
        reference: &ImageReference,
        credentials: Option<Credentials>,
    ) -> Registry<'a> {
        let host = reference.registry();
        let scheme = if fetcher.policy().is_plain(host) { "http" } else { "https" };
        let host = if host == "docker.io" { DOCKER_HUB } else { host };
        let authorization = match &credentials {
            Some(bearer @ Credentials::Bearer(_)) => bearer.header(),
            _ => None,
        };
        Registry {
            fetcher,
            base: format!("{scheme}://{host}"),
            repository: reference.repository().to_owned(),
            credentials,
            authorization: Mutex::new(authorization),
        }
    }

    /// A manifest or index by tag or digest, and its media type. What is asked for by digest is
    /// checked against it.
    ///
    /// # Errors
    /// [`ImageError`].
    pub async fn manifest(&self, selector: &str) -> Result<(Vec<u8>, Option<String>), ImageError> {
        let mut headers = HeaderMap::new();
        for kind in [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST] {
            headers.append(ACCEPT, HeaderValue::from_static(kind));
        }
        let what = format!("{}:{selector}", self.repository);
        let path = format!("manifests/{selector}");
        let mut patience = Patience::of(TRIES_MAX);
        let answer = loop {
            match self.get(&path, headers.clone(), &what).await {
                Ok(answer) => break answer,
                Err(error) => patience.after(error).await?,
            }
        };
        let kind = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let kind = kind.map(|kind| kind.split(';').next().unwrap_or(kind).trim().to_owned());
        let bytes = body(answer, usize::try_from(DOCUMENT_LEN_MAX).unwrap_or(0)).await?.to_vec();
        if let Ok(expected) = Digest::try_from(selector) {
            let found = Digest(Sha256::digest(&bytes).into());
            if found != expected {
                return Err(ImageError::Digest {
                    what: "the manifest".to_owned(),
                    expected,
                    found,
                });
            }
        }
        Ok((bytes, kind))
    }

    /// A blob's bytes from `offset` on. A registry that does not do that begins at the begin (its
    /// status is 200 and not 206).
    ///
    /// # Errors
    /// [`ImageError`].
    pub async fn blob(
        &self,
        digest: Digest,
        offset: u64,
    ) -> Result<Response<Incoming>, ImageError> {
        let mut headers = HeaderMap::new();
        if 0 < offset
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={offset}-"))
        {
            headers.insert(RANGE, range);
        }
        self.get(&format!("blobs/{digest}"), headers, &digest.to_string()).await
    }

    async fn get(
        &self,
        path: &str,
        headers: HeaderMap,
        what: &str,
    ) -> Result<Response<Incoming>, ImageError> {
        let url = format!("{}/v2/{}/{path}", self.base, self.repository);
        let mut logged_in = false;
        loop {
            let mut headers = headers.clone();
            let authorization = self.lock().clone();
            headers.extend(authorization.map(|value| (AUTHORIZATION, value)));
            let answer = self.fetcher.get(&url, &headers, Named::ByClient).await?;
            match answer.status() {
                status if status.is_success() => return Ok(answer),
                StatusCode::UNAUTHORIZED if !logged_in => {
                    logged_in = true;
                    self.log_in(&answer).await?;
                }
                _ => return Err(self.failure(&answer, what)),
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<HeaderValue>> {
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failure(&self, answer: &Response<Incoming>, what: &str) -> ImageError {
        failure(&self.base, answer, what)
    }

    /// Answers the challenge of a 401 (RFC 6750; Docker's token specification).
    async fn log_in(&self, answer: &Response<Incoming>) -> Result<(), ImageError> {
        let unauthorized = || ImageError::Unauthorized(self.base.clone());
        let challenges = answer.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenges: Vec<_> = challenges.filter_map(|value| value.to_str().ok()).collect();
        let basic = self.credentials.as_ref().filter(|c| matches!(c, Credentials::Basic { .. }));
        let bearer = challenges.iter().find_map(|challenge| Challenge::parse(challenge));
        let value = match bearer {
            Some(challenge) => Some(self.token_patiently(&challenge, basic).await?),
            None => basic.and_then(Credentials::header),
        };
        *self.lock() = Some(value.ok_or_else(unauthorized)?);
        Ok(())
    }

    async fn token_patiently(
        &self,
        challenge: &Challenge,
        basic: Option<&Credentials>,
    ) -> Result<HeaderValue, ImageError> {
        let mut patience = Patience::of(TRIES_MAX);
        loop {
            match self.token(challenge, basic).await {
                Ok(token) => return Ok(token),
                Err(error) => patience.after(error).await?,
            }
        }
    }

    async fn token(
        &self,
        challenge: &Challenge,
        basic: Option<&Credentials>,
    ) -> Result<HeaderValue, ImageError> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let query = |text: &str| -> String { text.bytes().map(|b| format!("%{b:02X}")).collect() };
        let scope = format!("repository:{}:pull", self.repository);
        let scope = query(challenge.scope.as_deref().unwrap_or(&scope));
        let service = challenge.service.as_deref().map(|s| format!("service={}&", query(s)));
        let joint = if challenge.realm.contains('?') { '&' } else { '?' };
        let url = format!("{}{joint}{}scope={scope}", challenge.realm, service.unwrap_or_default());
        let mut headers = HeaderMap::new();
        let authorization = basic.and_then(Credentials::header);
        headers.extend(authorization.map(|value| (AUTHORIZATION, value)));
        let answer = self.fetcher.get(&url, &headers, Named::ByHost).await?;
        if !answer.status().is_success() {
            return Err(self.failure(&answer, "token"));
        }
        let unauthorized = || ImageError::Unauthorized(self.base.clone());
        let answer = body(answer, TOKEN_LEN_MAX).await?;
        let answer: Answer = serde_json::from_slice(&answer).map_err(|_| unauthorized())?;
        let token = answer.token.or(answer.access_token).ok_or_else(unauthorized)?;
        Credentials::Bearer(token).header().ok_or_else(unauthorized)
    }
}

/// What an answer that is no success says of `what`.
pub fn failure(host: &str, answer: &Response<Incoming>, what: &str) -> ImageError {
    let registry = host.to_owned();
    match answer.status() {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ImageError::Unauthorized(registry),
        StatusCode::NOT_FOUND | StatusCode::GONE => {
            ImageError::NotInRegistry { registry, what: what.to_owned() }
        }
        StatusCode::TOO_MANY_REQUESTS => {
            let seconds = answer.headers().get(RETRY_AFTER);
            let seconds = seconds.and_then(|value| value.to_str().ok()?.parse().ok());
            let retry_after = Duration::from_secs(seconds.unwrap_or(1)).min(RETRY_AFTER_MAX);
            ImageError::RateLimited { registry, retry_after }
        }
        status => ImageError::Registry { registry, status: status.as_u16() },
    }
}

/// `Bearer realm="...",service="...",scope="..."`.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    realm: String,
    service: Option<String>,
    scope: Option<String>,
}

impl Challenge {
    fn parse(text: &str) -> Option<Challenge> {
        let (scheme, mut rest) = text.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = (None, None, None);
        while let Some((key, after)) = rest.split_once("=\"") {
            let (value, after) = after.split_once('"')?;
            match key.trim_matches([',', ' ']) {
                "realm" => realm = Some(value.to_owned()),
                "service" => service = Some(value.to_owned()),
                "scope" => scope = Some(value.to_owned()),
                _ => {}
            }
            rest = after;
        }
        Some(Challenge { realm: realm?, service, scope })
    }
}

async fn body(answer: Response<Incoming>, len_max: usize) -> Result<Bytes, ImageError> {
    let collected = Limited::new(answer.into_body(), len_max).collect();
    let collected = tokio::time::timeout(BODY_IDLE_TIMEOUT, collected).await;
    let cut = |error: std::io::Error| {
        let host = "the registry".to_owned();
        ImageError::Fetch(FetchError::Network { step: "read the answer of", host, cause: error })
    };
    match collected {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(ImageError::invalid("a document of the registry is too large"))
        }
        Ok(Err(error)) => Err(cut(std::io::Error::other(error))),
        Err(_) => Err(cut(std::io::ErrorKind::TimedOut.into())),
    }
}

/// Docker's file of credentials (`config.json`): those for `registry`.
pub fn credentials_in(file: &str, registry: &str) -> Option<Credentials> {
    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        auths: std::collections::BTreeMap<String, Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        auth: Option<String>,
        username: Option<String>,
        password: Option<String>,
        registrytoken: Option<String>,
    }
    let file: File = serde_json::from_str(file).ok()?;
    let names = match registry {
        "docker.io" => vec!["docker.io", "https://index.docker.io/v1/", "index.docker.io"],
        other => vec![other],
    };
    let with_scheme = format!("https://{registry}");
    let names = names.into_iter().chain([with_scheme.as_str()]);
    let entry = names.filter_map(|name| file.auths.get(name)).next()?;
    if let Some(token) = &entry.registrytoken {
        return Some(Credentials::Bearer(token.clone()));
    }
    let (username, password) = match &entry.auth {
        Some(auth) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(auth).ok()?;
            let text = String::from_utf8(bytes).ok()?;
            let (name, password) = text.split_once(':')?;
            (name.to_owned(), password.to_owned())
        }
        None => (entry.username.clone()?, entry.password.clone()?),
    };
    Some(Credentials::Basic { username, password })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_understood() {
        let text = r#"Bearer realm="https://auth.example/token",service="r.example",scope="a,b""#;
        let challenge = Challenge::parse(text).unwrap();
        assert_eq!(challenge.realm, "https://auth.example/token");
        assert_eq!(
            (challenge.service.as_deref(), challenge.scope.as_deref()),
            (Some("r.example"), Some("a,b"))
        );
        for wrong in ["Basic realm=\"x\"", "Bearer", "Bearer service=\"x\"", "Bearer realm=\"x"] {
            assert_eq!(Challenge::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn credentials_come_from_dockers_file_and_are_not_shown() {
        let file = r#"{"auths":{"r.example:5000":{"auth":"bWU6c2VjcmV0OjE="},
            "https://index.docker.io/v1/":{"username":"u","password":"p"},
            "t.example":{"registrytoken":"tok"}}}"#;
        let mine = credentials_in(file, "r.example:5000").unwrap();
        let Credentials::Basic { username, password } = &mine else { panic!("not basic") };
        assert_eq!((username.as_str(), password.as_str()), ("me", "secret:1"));
        assert!(!format!("{mine:?}").contains("secret"));
        assert!(format!("{:?}", mine.header().unwrap()).contains("Sensitive"));
        assert!(credentials_in(file, "docker.io").is_some());
        assert_eq!(credentials_in(file, "t.example"), Some(Credentials::Bearer("tok".to_owned())));
        assert_eq!(credentials_in(file, "other.example"), None);
        assert_eq!(credentials_in("nonsense", "r.example"), None);
    }
}
