//! A VM's workload log for readers: what is there, then what comes while the machine lives.

use std::io;

use tokio::sync::watch;

use crate::logs::{self, Entry, Reader, Start};
use crate::model::VmName;
use crate::orchestrator::{Error, Orchestrator};

/// A place in a VM's log.
#[derive(Debug)]
pub struct WorkloadLog {
    reader: Option<Reader>,
    /// Told of each growth; none when nothing more will be waited for.
    grown: Option<watch::Receiver<()>>,
}

impl Orchestrator {
    /// The log of a VM's workload from `start` on. With `follow` it goes on as long as the machine
    /// lives.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn workload_log(
        &self,
        name: &VmName,
        start: Start,
        follow: bool,
    ) -> Result<WorkloadLog, Error> {
        let handle = self.find(name)?;
        let grown = if follow { handle.parts().log.clone() } else { None };
        let folder = logs::folder(&self.shared.config.logs, handle.vm.borrow().id);
        let opened = tokio::task::spawn_blocking(move || Reader::open(folder, start));
        let opened = opened.await.map_err(|_| Error::Internal("reading a log panicked"))?;
        Ok(WorkloadLog { reader: Some(opened.map_err(Error::Log)?), grown })
    }
}

impl WorkloadLog {
    /// The next entries, never none; `None` at the end.
    ///
    /// # Errors
    /// The host's.
    pub async fn next(&mut self) -> io::Result<Option<Vec<Entry>>> {
        loop {
            let Some(mut reader) = self.reader.take() else { return Ok(None) };
            if let Some(grown) = &mut self.grown {
                // What grows from here on is told again.
                grown.mark_unchanged();
            }
            let read = tokio::task::spawn_blocking(move || {
                let entries = reader.read();
                (reader, entries)
            });
            let (reader, entries) = read.await.map_err(io::Error::other)?;
            self.reader = Some(reader);
            let entries = entries?;
            if !entries.is_empty() {
                return Ok(Some(entries));
            }
            let Some(grown) = &mut self.grown else { return Ok(None) };
            if grown.changed().await.is_err() {
                // The writer has gone: what it wrote last is read, then it is over.
                self.grown = None;
            }
        }
    }
}
