//! Table `repeats`: changes that were asked for with a key, and how they were answered.

use rusqlite::{OptionalExtension, params};

use crate::model::Repeat;
use crate::store::{Store, StoreError, sqlite};

/// Milliseconds that an answer is kept.
const KEEP_MS: i64 = 24 * 3600 * 1000;
/// Answers kept; the oldest make room.
const REPEATS_MAX: i64 = 10_000;

impl Store {
    /// Notes that a change begins, unless it has begun before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin_once(
        &self,
        owner: String,
        key: String,
        fingerprint: [u8; 32],
        now_ms: i64,
    ) -> Result<Repeat, StoreError> {
        self.transact(move |tx| {
            let step = || sqlite("look for an idempotency key");
            tx.execute("DELETE FROM repeats WHERE at_ms < ?1", [now_ms - KEEP_MS])
                .map_err(step())?;
            let known = tx
                .query_row(
                    "SELECT fingerprint, status, kind, body FROM repeats \
                     WHERE owner = ?1 AND key = ?2",
                    params![owner, key],
                    |row| {
                        let fingerprint: [u8; 32] = row.get(0)?;
                        Ok((fingerprint, row.get::<_, u16>(1)?, row.get(2)?, row.get(3)?))
                    },
                )
                .optional()
                .map_err(step())?;
            if let Some((known, status, kind, body)) = known {
                return Ok(match (known == fingerprint, status) {
                    (false, _) => Repeat::Different,
                    (true, 0) => Repeat::Running,
                    (true, status) => Repeat::Done { status, kind, body },
                });
            }
            tx.execute(
                "INSERT INTO repeats (owner, key, fingerprint, at_ms) VALUES (?1, ?2, ?3, ?4)",
                params![owner, key, fingerprint, now_ms],
            )
            .map_err(step())?;
            tx.execute(
                "DELETE FROM repeats WHERE status <> 0 AND (owner, key) IN \
                 (SELECT owner, key FROM repeats ORDER BY at_ms DESC LIMIT -1 OFFSET ?1)",
                [REPEATS_MAX],
            )
            .map_err(step())?;
            Ok(Repeat::First)
        })
        .await
    }

    /// Keeps the answer.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn finish_once(
        &self,
        owner: String,
        key: String,
        status: u16,
        kind: String,
        body: Vec<u8>,
    ) -> Result<(), StoreError> {
        self.transact(move |tx| {
            let kept = tx.execute(
                "UPDATE repeats SET status = ?3, kind = ?4, body = ?5 WHERE owner = ?1 AND key = ?2",
                params![owner, key, status, kind, body],
            );
            kept.map(drop).map_err(sqlite("keep an answer"))
        })
        .await
    }

    /// Forgets a change: the next one with its key is the first again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_once(&self, owner: String, key: String) -> Result<(), StoreError> {
        self.transact(move |tx| {
            let gone =
                tx.execute("DELETE FROM repeats WHERE owner = ?1 AND key = ?2", [owner, key]);
            gone.map(drop).map_err(sqlite("forget an idempotency key"))
        })
        .await
    }

    /// Forgets the changes that a crash has left under way: nobody answers them any more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_unfinished(&self) -> Result<(), StoreError> {
        self.transact(|tx| {
            let gone = tx.execute("DELETE FROM repeats WHERE status = 0", []);
            gone.map(drop).map_err(sqlite("forget what a crash has left"))
        })
        .await
    }
}
