//! Streams into running guests, for the proxy.

use std::time::Duration;

use crate::agent::{self, AgentError, StreamObject};
use crate::model::{VmName, VmState};
use crate::orchestrator::{Error, Orchestrator};

impl Orchestrator {
    /// Waits for a VM that is starting, at most `limit`.
    ///
    /// # Errors
    /// Conflict when it does not run and is not on its way; [`Error::WaitTimeout`].
    pub async fn wait_running(&self, name: &VmName, limit: Duration) -> Result<(), Error> {
        let mut vm = self.find(name)?.vm.clone();
        let settled = vm.wait_for(|vm| vm.state != VmState::Starting);
        let settled = tokio::time::timeout(limit, settled).await;
        let settled = settled.map_err(|_| Error::WaitTimeout)?;
        let state = settled.map_err(|_| Error::NotFound(name.to_string()))?.state.clone();
        match state {
            VmState::Running => Ok(()),
            state => Err(Error::State { state: state.as_str(), what: "it is not running" }),
        }
    }

    /// A stream to the agent's HTTP server.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn agent_stream(&self, name: &VmName) -> Result<Box<dyn StreamObject>, Error> {
        Ok(Box::new(self.agent(name).await?))
    }

    /// A stream to a TCP port on the guest's loopback.
    ///
    /// # Errors
    /// [`Error::PortClosed`] when nothing listens there.
    pub async fn tcp_stream(
        &self,
        name: &VmName,
        port: u16,
    ) -> Result<Box<dyn StreamObject>, Error> {
        agent::tcp(self.agent(name).await?, port).await.map_err(|error| match error {
            AgentError::Refused { status: 502, .. } => Error::PortClosed(port),
            other => other.into(),
        })
    }
}
