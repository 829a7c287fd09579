//! Bearer tokens and the audit log. Tokens are held in memory, so that a request's authentication
//! reads no disk; the store has them first and last.

use std::collections::{BTreeMap, HashMap};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::model::{AuditEntry, InvalidSpec, Repeat, Scope, Token, VmName};
use crate::orchestrator::{Error, Orchestrator, now_ms};
use crate::store::{Store, StoreError};

/// Bytes of randomness in a secret.
const SECRET_LEN: usize = 32;
/// Begins every secret, so that scanners of leaked secrets can tell them.
const SECRET_PREFIX: &str = "vlt_";
/// Milliseconds of the longest life.
const LIFE_MS_MAX: i64 = 10 * 365 * 24 * 3600 * 1000;

type Hash = [u8; 32];

/// All tokens by the hash of their secret.
#[derive(Debug, Default)]
pub struct Tokens(RwLock<HashMap<Hash, Held>>);

/// A token, and what is cancelled when it is revoked.
#[derive(Debug)]
struct Held {
    token: Token,
    revoked: CancellationToken,
}

impl From<Token> for Held {
    fn from(token: Token) -> Held {
        Held { token, revoked: CancellationToken::new() }
    }
}

impl Tokens {
    /// Reads them from the store, and forgets keys of changes that a crash has cut off.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn load(store: &Store) -> Result<Tokens, StoreError> {
        store.forget_unfinished().await?;
        let tokens = store.list_tokens().await?;
        let held = tokens.into_iter().map(|(hash, token)| (hash, Held::from(token)));
        Ok(Tokens(RwLock::new(held.collect())))
    }
}

impl Orchestrator {
    /// Makes a token and returns it with its secret, which is kept nowhere.
    ///
    /// # Errors
    /// [`Error::TokenTaken`], or a limit.
    pub async fn create_token(
        &self,
        name: &str,
        scope: Scope,
        labels: BTreeMap<String, String>,
        life_ms: Option<i64>,
    ) -> Result<(Token, String), Error> {
        let refuse = |field, reason: String| Err(InvalidSpec { field, reason }.into());
        // The same alphabet as VMs have: it is part of a path.
        if let Err(error) = VmName::try_from(name) {
            return refuse("name", error.to_string());
        }
        if life_ms.is_some_and(|life_ms| !(1..=LIFE_MS_MAX).contains(&life_ms)) {
            return refuse("expires_in_seconds", "1 second to 10 years".to_owned());
        }
        if Token::LABELS_MAX < labels.len() {
            return refuse("labels", format!("at most {}", Token::LABELS_MAX));
        }
        let count = self.shared.tokens.0.read().unwrap_or_else(PoisonError::into_inner).len();
        if Token::COUNT_MAX <= count {
            return refuse("name", format!("there are {count} tokens; revoke some first"));
        }
        let mut bytes = [0u8; SECRET_LEN];
        rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())
            .map_err(|_| Error::Internal("the kernel gives no randomness"))?;
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let secret = format!("{SECRET_PREFIX}{digits}");
        let created_at_ms = now_ms();
        let new = Token {
            id: 0,
            name: name.to_owned(),
            scope,
            labels,
            created_at_ms,
            expires_at_ms: life_ms.map(|life_ms| created_at_ms + life_ms),
        };
        let hash = hash(&secret);
        let stored = self.shared.store.create_token(hash, new).await;
        let token = stored.map_err(|error| match error {
            StoreError::NameTaken => Error::TokenTaken(name.to_owned()),
            other => other.into(),
        })?;
        let mut tokens = self.shared.tokens.0.write().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(hash, Held::from(token.clone()));
        Ok((token, secret))
    }

    /// All tokens by name.
    pub fn tokens(&self) -> Vec<Token> {
        let tokens = self.shared.tokens.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut tokens: Vec<_> = tokens.values().map(|held| held.token.clone()).collect();
        tokens.sort_by(|a, b| a.name.cmp(&b.name));
        tokens
    }

    /// Ends a token: it opens nothing from now on, and what it has opened is cut.
    ///
    /// # Errors
    /// [`Error::TokenNotFound`].
    pub async fn revoke_token(&self, name: &str) -> Result<(), Error> {
        // Out of memory first: a failing disk must not keep it open.
        let stays = |_: &Hash, held: &mut Held| {
            let stays = held.token.name != name;
            if !stays {
                held.revoked.cancel();
            }
            stays
        };
        self.shared.tokens.0.write().unwrap_or_else(PoisonError::into_inner).retain(stays);
        if self.shared.store.delete_token(name.to_owned()).await? {
            Ok(())
        } else {
            Err(Error::TokenNotFound(name.to_owned()))
        }
    }

    /// The token of that secret, unless its time is over, and what returns when it is revoked or its
    /// time is over. The secret's hash is looked up, so that the time it takes tells nothing of the
    /// secrets there are.
    pub fn authenticate(
        &self,
        secret: &str,
    ) -> Option<(Token, impl Future<Output = ()> + Send + use<>)> {
        let tokens = self.shared.tokens.0.read().unwrap_or_else(PoisonError::into_inner);
        let now = now_ms();
        let held = tokens.get(&hash(secret)).filter(|held| !held.token.is_expired(now))?;
        let left_ms =
            held.token.expires_at_ms.map(|at_ms| at_ms.saturating_sub(now).unsigned_abs());
        let revoked = held.revoked.clone();
        let over = async move {
            let time = async {
                match left_ms {
                    Some(left_ms) => tokio::time::sleep(Duration::from_millis(left_ms)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = revoked.cancelled() => {}
                () = time => {}
            }
        };
        Some((held.token.clone(), over))
    }

    /// Appends to the audit log.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn audit(&self, entry: AuditEntry) -> Result<(), Error> {
        Ok(self.shared.store.append_audit(entry).await?)
    }

    /// Id of the latest event; 0 before the first.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn last_event_id(&self) -> Result<i64, Error> {
        Ok(self.shared.store.last_event_id().await?)
    }

    /// Entries of the audit log before the entry `before`, newest first.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn audit_before(&self, before: i64, limit: u32) -> Result<Vec<AuditEntry>, Error> {
        Ok(self.shared.store.audit_before(before, limit).await?)
    }
}

impl Orchestrator {
    /// Notes that a change with a key begins, unless it has begun before.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn begin_once(
        &self,
        owner: &str,
        key: &str,
        fingerprint: [u8; 32],
    ) -> Result<Repeat, Error> {
        let (owner, key) = (owner.to_owned(), key.to_owned());
        Ok(self.shared.store.begin_once(owner, key, fingerprint, now_ms()).await?)
    }

    /// Keeps the answer to a change with a key. A store that fails makes the next one the first.
    pub async fn finish_once(
        &self,
        owner: &str,
        key: &str,
        status: u16,
        kind: &str,
        body: Vec<u8>,
    ) {
        let names = (owner.to_owned(), key.to_owned());
        let kept = self.shared.store.finish_once(names.0, names.1, status, kind.to_owned(), body);
        if let Err(error) = kept.await {
            tracing::error!(%error, "an answer to a request with a key is not kept");
        }
    }

    /// Forgets a change with a key.
    pub async fn forget_once(&self, owner: &str, key: &str) {
        let forgotten = self.shared.store.forget_once(owner.to_owned(), key.to_owned());
        if let Err(error) = forgotten.await {
            tracing::error!(%error, "a request's key is not forgotten");
        }
    }
}

fn hash(secret: &str) -> Hash {
    Sha256::digest(secret.as_bytes()).into()
}
