//! Tables `tokens` and `audit`: who may call, and who has changed what.

use rusqlite::{OptionalExtension, Row, params};

use crate::model::{AuditEntry, Scope, Token};
use crate::store::{Store, StoreError, sqlite};

/// SHA-256 of a token's secret.
pub type TokenHash = [u8; 32];

/// Entries of the audit log kept.
pub const AUDIT_MAX: i64 = 100_000;

impl Store {
    /// All tokens with the hashes of their secrets.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_tokens(&self) -> Result<Vec<(TokenHash, Token)>, StoreError> {
        self.transact(|tx| {
            let step = || sqlite("read tokens");
            let mut statement = tx
                .prepare(
                    "SELECT id, name, scope, created_at_ms, expires_at_ms, hash, labels FROM tokens \
                     ORDER BY id",
                )
                .map_err(step())?;
            let rows = statement.query_map([], |row| Ok(token(row))).map_err(step())?;
            rows.map(|row| row.map_err(step())?).collect()
        })
        .await
    }

    /// Stores a token; its id is chosen here.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`].
    pub async fn create_token(&self, hash: TokenHash, new: Token) -> Result<Token, StoreError> {
        self.transact(move |tx| {
            let step = || sqlite("store a token");
            let known = tx
                .query_row("SELECT 1 FROM tokens WHERE name = ?1", [&new.name], |_| Ok(()))
                .optional()
                .map_err(step())?;
            if known.is_some() {
                return Err(StoreError::NameTaken);
            }
            tx.execute(
                "INSERT INTO tokens (name, hash, scope, created_at_ms, expires_at_ms, labels) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    new.name,
                    hash,
                    new.scope.as_str(),
                    new.created_at_ms,
                    new.expires_at_ms.unwrap_or(0),
                    serde_json::to_string(&new.labels).unwrap_or_default()
                ],
            )
            .map_err(step())?;
            Ok(Token { id: tx.last_insert_rowid(), ..new })
        })
        .await
    }

    /// Removes a token; false if there is none of that name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_token(&self, name: String) -> Result<bool, StoreError> {
        self.transact(move |tx| {
            let removed = tx.execute("DELETE FROM tokens WHERE name = ?1", [name]);
            Ok(removed.map_err(sqlite("delete a token"))? == 1)
        })
        .await
    }

    /// Appends to the audit log and drops the oldest.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn append_audit(&self, entry: AuditEntry) -> Result<(), StoreError> {
        self.transact(move |tx| {
            tx.execute(
                "INSERT INTO audit (at_ms, principal, peer, operation, target, status, request_id) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    entry.at_ms,
                    entry.principal,
                    entry.peer,
                    entry.operation,
                    entry.target,
                    entry.status,
                    entry.request_id
                ],
            )
            .map_err(sqlite("store an audit entry"))?;
            let oldest = tx.last_insert_rowid() - AUDIT_MAX;
            let dropped = tx.execute("DELETE FROM audit WHERE id <= ?1", [oldest]);
            dropped.map(drop).map_err(sqlite("drop old audit entries"))
        })
        .await
    }

    /// Entries of the audit log before `before`, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn audit_before(
        &self,
        before: i64,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        self.transact(move |tx| {
            let step = || sqlite("read the audit log");
            let mut statement = tx
                .prepare(
                    "SELECT id, at_ms, principal, peer, operation, target, status, request_id \
                     FROM audit WHERE id < ?1 ORDER BY id DESC LIMIT ?2",
                )
                .map_err(step())?;
            let rows = statement.query_map(params![before, limit], audit).map_err(step())?;
            rows.collect::<Result<_, _>>().map_err(step())
        })
        .await
    }
}

fn token(row: &Row<'_>) -> Result<(TokenHash, Token), StoreError> {
    let step = || sqlite("read a token");
    let scope: String = row.get(2).map_err(step())?;
    let expires_at_ms: i64 = row.get(4).map_err(step())?;
    let labels: String = row.get(6).map_err(step())?;
    let token = Token {
        id: row.get(0).map_err(step())?,
        name: row.get(1).map_err(step())?,
        scope: Scope::from_word(&scope)
            .ok_or_else(|| StoreError::Corrupt("scope of a token".to_owned()))?,
        // What cannot be read must not become a token without limits.
        labels: serde_json::from_str(&labels)
            .map_err(|_| StoreError::Corrupt("labels of a token".to_owned()))?,
        created_at_ms: row.get(3).map_err(step())?,
        expires_at_ms: (expires_at_ms != 0).then_some(expires_at_ms),
    };
    Ok((row.get(5).map_err(step())?, token))
}

fn audit(row: &Row<'_>) -> rusqlite::Result<AuditEntry> {
    Ok(AuditEntry {
        id: row.get(0)?,
        at_ms: row.get(1)?,
        principal: row.get(2)?,
        peer: row.get(3)?,
        operation: row.get(4)?,
        target: row.get(5)?,
        status: row.get(6)?,
        request_id: row.get(7)?,
    })
}
