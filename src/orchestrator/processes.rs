//! Processes in running VMs. Ids are the guest's own and end with its machine.

use std::future::Future;
use std::time::Duration;

use crate::agent::{AgentError, AttachOptions, Attachment, Payload, process};
use crate::model::VmName;
use crate::orchestrator::{Error, Orchestrator, ProcessInfo, ProcessRequest, TerminalSize};

/// How long the agent may take to answer a call that does not wait for anything.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(120);

/// Gives an agent's answer its deadline.
pub async fn in_time<T>(call: impl Future<Output = Result<T, AgentError>>) -> Result<T, Error> {
    let answered = tokio::time::timeout(CALL_TIMEOUT, call).await;
    Ok(answered.unwrap_or(Err(AgentError::Silent))?)
}

impl Orchestrator {
    /// Starts a process and attaches to it. It is killed when the attachment is dropped, unless the
    /// request or [`Orchestrator::process_keep`] says that it is kept.
    ///
    /// # Errors
    /// [`Error`]. A program that cannot be started is none: its status says so.
    pub async fn exec(&self, name: &VmName, request: &ProcessRequest) -> Result<Attachment, Error> {
        in_time(process::exec(self.agent(name).await?, request)).await
    }

    /// Starts a process that needs no connection.
    ///
    /// # Errors
    /// [`Error`], also when it cannot be started.
    pub async fn process_start(
        &self,
        name: &VmName,
        request: &ProcessRequest,
    ) -> Result<ProcessInfo, Error> {
        in_time(process::start(self.agent(name).await?, request)).await
    }

    /// Processes that run, and the last of those that have ended, oldest first.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn process_list(&self, name: &VmName) -> Result<Vec<ProcessInfo>, Error> {
        in_time(process::list(self.agent(name).await?)).await
    }

    /// One process.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn process_get(&self, name: &VmName, id: u32) -> Result<ProcessInfo, Error> {
        in_time(process::get(self.agent(name).await?, id)).await
    }

    /// Attaches to a process. Dropping the attachment changes nothing for the process.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn process_attach(
        &self,
        name: &VmName,
        id: u32,
        options: AttachOptions,
    ) -> Result<Attachment, Error> {
        in_time(process::attach(self.agent(name).await?, id, options)).await
    }

    /// Writes a stream to the stdin of a process, as fast as it reads, and closes it if `end`. No
    /// deadline but the caller's: the process may read when it likes.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn process_write(
        &self,
        name: &VmName,
        id: u32,
        body: Payload,
        end: bool,
    ) -> Result<(), Error> {
        Ok(process::write(self.agent(name).await?, id, body, end).await?)
    }

    /// Sends a signal to a process group; SIGKILL to all that the process has started. Works also
    /// when stdin is stuck.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn process_signal(&self, name: &VmName, id: u32, signal: u8) -> Result<(), Error> {
        in_time(process::signal(self.agent(name).await?, id, signal)).await
    }

    /// Changes the size of a process's terminal.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn process_resize(
        &self,
        name: &VmName,
        id: u32,
        size: TerminalSize,
    ) -> Result<(), Error> {
        in_time(process::resize(self.agent(name).await?, id, size)).await
    }

    /// Lets a process outlive the attachment that has started it.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn process_keep(&self, name: &VmName, id: u32) -> Result<ProcessInfo, Error> {
        in_time(process::keep(self.agent(name).await?, id)).await
    }

    /// Waits for the end of a process; no status in the answer means that the time is over and it
    /// still runs.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn process_wait(
        &self,
        name: &VmName,
        id: u32,
        limit: Duration,
    ) -> Result<ProcessInfo, Error> {
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let waiting = process::wait(self.agent(name).await?, id, limit_ms);
        let answered = tokio::time::timeout(limit.saturating_add(CALL_TIMEOUT), waiting).await;
        Ok(answered.unwrap_or(Err(AgentError::Silent))?)
    }

    /// Kills a process if it runs, and forgets it.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn process_remove(&self, name: &VmName, id: u32) -> Result<ProcessInfo, Error> {
        in_time(process::remove(self.agent(name).await?, id)).await
    }
}
