//! Proof of life: what a change of a VM needs is asked to answer.

use crate::orchestrator::{Error, Orchestrator};

impl Orchestrator {
    /// Returns once the store's thread and all device loops have answered. One that hangs makes this
    /// hang: give it a deadline. A driver that has ended concerns its own VM; none that is left concerns
    /// all.
    ///
    /// # Errors
    /// A part is gone.
    pub async fn pulse(&self) -> Result<(), Error> {
        self.shared.store.answer().await?;
        let hypervisor = self.shared.hypervisor.clone();
        let loops = tokio::task::spawn_blocking(move || hypervisor.pulse());
        if !loops.await.is_ok_and(|answered| answered.is_ok()) {
            return Err(Error::Internal("a device loop is gone"));
        }
        let handles = self.shared.handles();
        let gone = handles.iter().filter(|handle| handle.commands.is_closed()).count();
        if 0 < gone {
            tracing::error!(gone, "drivers have ended while their VMs are there");
        }
        match 0 < gone && gone == handles.len() {
            true => Err(Error::Internal("every driver has ended")),
            false => Ok(()),
        }
    }
}
