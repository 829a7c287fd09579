//! Files of running VMs, and what else their agents tell. Paths are the guest's, absolute.

use std::time::{SystemTime, UNIX_EPOCH};

use volant_protocol::{
    ClockTime, FileInfo, FileList, GuestMetrics, ListeningPort, MoveRequest, capability,
};

use crate::agent::{Download, FileWatch, Payload, WriteOptions, files, observe};
use crate::model::VmName;
use crate::orchestrator::processes::in_time;
use crate::orchestrator::{Error, Orchestrator};

impl Orchestrator {
    async fn file_agent(&self, name: &VmName) -> Result<super::machine::GuestStream, Error> {
        self.capable(name, capability::FILES)?;
        self.agent(name).await
    }

    /// Refuses what the guest's agent cannot do, before it is asked.
    fn capable(&self, name: &VmName, wanted: &'static str) -> Result<(), Error> {
        let info = self.agent_info(name)?;
        if info.capabilities.iter().any(|capability| capability == wanted) {
            return Ok(());
        }
        Err(Error::AgentLacks(wanted))
    }

    /// Reads a regular file as a stream, or the part that `range` (HTTP's `Range`) names.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn file_read(
        &self,
        name: &VmName,
        path: &str,
        range: Option<&str>,
    ) -> Result<Download, Error> {
        in_time(files::read(self.file_agent(name).await?, path, range)).await
    }

    /// Writes a regular file from a stream. No deadline but the caller's.
    ///
    /// # Errors
    /// [`Error`]; what had arrived stays.
    pub async fn file_write(
        &self,
        name: &VmName,
        path: &str,
        options: &WriteOptions,
        body: Payload,
    ) -> Result<FileInfo, Error> {
        Ok(files::write(self.file_agent(name).await?, path, options, body).await?)
    }

    /// Looks at a path; a symbolic link is not followed.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn file_stat(&self, name: &VmName, path: &str) -> Result<FileInfo, Error> {
        in_time(files::stat(self.file_agent(name).await?, path)).await
    }

    /// Lists a folder, `depth` levels deep (1 is itself alone, at most 64); at most `limit` entries,
    /// and never more than 10,000.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn file_list(
        &self,
        name: &VmName,
        path: &str,
        depth: u32,
        limit: usize,
    ) -> Result<FileList, Error> {
        in_time(files::list(self.file_agent(name).await?, path, depth, limit)).await
    }

    /// Makes a folder; with `parents` also those above it, and one that is there is fine.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn file_make_folder(
        &self,
        name: &VmName,
        path: &str,
        parents: bool,
        mode: Option<u32>,
        user: Option<&str>,
    ) -> Result<FileInfo, Error> {
        let agent = self.file_agent(name).await?;
        in_time(files::make_folder(agent, path, parents, mode, user)).await
    }

    /// Moves or renames within one file system.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn file_move(&self, name: &VmName, wanted: &MoveRequest) -> Result<FileInfo, Error> {
        in_time(files::rename(self.file_agent(name).await?, wanted)).await
    }

    /// Removes a file, an empty folder, or with `recursive` a folder and all that is in it. No
    /// deadline but the caller's: a tree may be large.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn file_remove(
        &self,
        name: &VmName,
        path: &str,
        recursive: bool,
    ) -> Result<(), Error> {
        Ok(files::remove(self.file_agent(name).await?, path, recursive).await?)
    }

    /// Begins to watch a path, and if `recursive` all below it.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn file_watch(
        &self,
        name: &VmName,
        path: &str,
        recursive: bool,
    ) -> Result<FileWatch, Error> {
        in_time(files::watch(self.file_agent(name).await?, path, recursive)).await
    }

    /// A folder's contents, or one file, as a tar stream.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn file_pack(&self, name: &VmName, path: &str) -> Result<Download, Error> {
        in_time(files::pack(self.file_agent(name).await?, path)).await
    }

    /// Unpacks a tar stream into a folder, which is made if it is not there. No deadline but the
    /// caller's.
    ///
    /// # Errors
    /// [`Error`]; what was unpacked stays.
    pub async fn file_unpack(
        &self,
        name: &VmName,
        path: &str,
        body: Payload,
    ) -> Result<FileInfo, Error> {
        Ok(files::unpack(self.file_agent(name).await?, path, body).await?)
    }

    /// The guest's own counters.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn guest_metrics(&self, name: &VmName) -> Result<GuestMetrics, Error> {
        self.capable(name, capability::OBSERVE)?;
        in_time(observe::metrics(self.agent(name).await?)).await
    }

    /// What listens in the guest, by port.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn guest_ports(&self, name: &VmName) -> Result<Vec<ListeningPort>, Error> {
        self.capable(name, capability::OBSERVE)?;
        in_time(observe::ports(self.agent(name).await?)).await
    }

    /// Sets the guest's clock to the host's; how far it was ahead, in nanoseconds.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn sync_time(&self, name: &VmName) -> Result<i128, Error> {
        self.capable(name, capability::OBSERVE)?;
        let agent = self.agent(name).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_time_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let before = in_time(observe::set_clock(agent, ClockTime { unix_time_ns })).await?;
        Ok(i128::from(before.unix_time_ns) - i128::from(unix_time_ns))
    }
}
