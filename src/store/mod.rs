//! SQLite: the truth that survives the daemon. One thread owns the connection; every change is one
//! transaction on it, so that changes have an order and a caller's hang-up cannot split one.

mod access;
mod events;
mod exposures;
mod images;
pub mod inspect;
mod migrate;
mod plugin_artifacts;
mod plugins;
mod repeats;
mod vm_access;
mod vms;
mod volumes;

use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};

use rusqlite::{Connection, Transaction};
use tokio::sync::oneshot;

pub use plugins::{PluginRow, PluginVersionRow};
pub use vm_access::SECRET_LEN;

/// Calls that wait for the store's thread; one more makes its caller wait.
const QUEUE_LEN: usize = 256;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A failure of the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("{step}")]
    Sqlite {
        /// The attempted step.
        step: &'static str,
        /// SQLite's answer.
        #[source]
        source: rusqlite::Error,
    },
    /// A VM of that name exists.
    #[error("a VM of that name exists")]
    NameTaken,
    /// Every address of the subnet is leased.
    #[error("every address of the subnet is leased")]
    NoAddress,
    /// There is no such plugin or version, or it is disabled.
    #[error("there is no such plugin, or it is disabled")]
    NoPlugin,
    /// The plugin has as many artifacts as are kept.
    #[error("the plugin has as many artifacts as are kept")]
    TooManyArtifacts,
    /// That version has another manifest.
    #[error("that version has another manifest")]
    PluginVersionTaken,
    /// A VM is made of the plugin.
    #[error("VM {vm:?} is made of the plugin")]
    PluginInUse {
        /// One such VM.
        vm: String,
    },
    /// There is no such volume.
    #[error("there is no volume {0:?}")]
    NoVolume(String),
    /// A volume of that name exists.
    #[error("a volume of that name exists")]
    VolumeTaken,
    /// VMs have the volume.
    #[error("volume {volume:?} is attached to VM {vm:?}")]
    VolumeInUse {
        /// The volume.
        volume: String,
        /// One such VM.
        vm: String,
    },
    /// The database was written by a newer version.
    #[error("the database has version {0}, newer than this program knows")]
    Newer(i64),
    /// A row that this program did not write.
    #[error("the database holds a value that makes no sense: {0}")]
    Corrupt(String),
    /// The store is closed, or its thread could not be started.
    #[error("the store is closed")]
    Closed,
}

fn sqlite(step: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError {
    move |source| StoreError::Sqlite { step, source }
}

/// Handle on the database. Cheap to clone; the thread ends with the last one.
#[derive(Clone, Debug)]
pub struct Store {
    jobs: SyncSender<Job>,
}

impl Store {
    /// Opens or creates the database and migrates it. Blocks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        let mut connection = Connection::open(path).map_err(sqlite("open the database"))?;
        migrate::prepare(&mut connection)?;
        let (jobs, queue) = sync_channel::<Job>(QUEUE_LEN);
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                for job in queue {
                    job(&mut connection);
                }
            })
            .map_err(|_| StoreError::Closed)?;
        Ok(Store { jobs })
    }

    /// Returns once the store's thread has come to it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn answer(&self) -> Result<(), StoreError> {
        self.transact(|_| Ok(())).await
    }

    /// Runs `work` in one transaction on the store's thread; committed if it succeeds, even when
    /// the caller has stopped waiting.
    async fn transact<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let outcome = connection
                .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
                .map_err(sqlite("begin a transaction"))
                .and_then(|transaction| {
                    let value = work(&transaction)?;
                    transaction.commit().map_err(sqlite("commit"))?;
                    Ok(value)
                });
            // The caller may be gone; the change stands.
            let _ = reply.send(outcome);
        });
        let jobs = self.jobs.clone();
        if let Err(full) = jobs.try_send(job) {
            let job = match full {
                std::sync::mpsc::TrySendError::Full(job) => job,
                std::sync::mpsc::TrySendError::Disconnected(_) => return Err(StoreError::Closed),
            };
            let sent = tokio::task::spawn_blocking(move || jobs.send(job)).await;
            sent.map_err(|_| StoreError::Closed)?.map_err(|_| StoreError::Closed)?;
        }
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

#[cfg(test)]
mod tests;
