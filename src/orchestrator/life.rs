//! A VM's time: its end is stored with the VM, and kept by its driver, over restarts of the daemon too.
//! A start that is under way is finished first.

use std::future::pending;
use std::time::{Duration, Instant};

use crate::model::{EventKind, Expiry, OnExpiry, Vm, VmName};
use crate::orchestrator::driver::{Command, Driver};
use crate::orchestrator::policy::Change;
use crate::orchestrator::{Error, Orchestrator, Wait, chain, command, now_ms};

/// The clock is looked at this often at least: it may be set while a VM waits.
const LOOK_MAX: Duration = Duration::from_secs(30);
/// Pause before what the end asks for is tried again.
const RETRY: Duration = Duration::from_secs(30);
/// How long storing a new end may take.
const STORE_TIMEOUT: Duration = Duration::from_secs(30);

/// Returns at the end of a VM's time, with what follows. Cancel-safe.
pub async fn is_over(expiry: Option<Expiry>, not_before: Option<Instant>) -> OnExpiry {
    let Some(Expiry { at_ms, then }) = expiry else { return pending().await };
    loop {
        let left_ms = u64::try_from(at_ms.saturating_sub(now_ms())).unwrap_or(0);
        if left_ms == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(left_ms).min(LOOK_MAX)).await;
    }
    if let Some(not_before) = not_before {
        tokio::time::sleep_until(not_before.into()).await;
    }
    then
}

impl Driver {
    /// Tells that the VM's time is over, and returns the change that follows.
    pub(super) async fn expired(&mut self, then: OnExpiry) -> Option<Command> {
        self.expire_after = Instant::now().checked_add(RETRY);
        let id = self.vm.borrow().id;
        let message = format!("the VM's time is over: {}", then.as_str());
        let now = now_ms();
        match self.shared.store.append_event(id, EventKind::Expired, message, now).await {
            Ok(event) => event.into_iter().for_each(|event| self.shared.publish(event)),
            Err(error) => tracing::error!(vm = %id, error = chain(&error), "event not stored"),
        }
        let change = match then {
            OnExpiry::Delete => Change::Delete,
            OnExpiry::Stop => {
                // First: a VM that is started again must not be stopped by an end that is past.
                if let Err(error) = self.store_expiry(None).await {
                    tracing::error!(vm = %id, error = chain(&error), "a VM's end is not stored");
                    return None;
                }
                Change::Stop
            }
        };
        // Nobody waits for it.
        let (command, _) = command(change);
        Some(command)
    }

    /// Stores another end, and publishes it.
    pub(super) async fn change_expiry(&mut self, command: Command, expiry: Option<Expiry>) {
        match self.store_expiry(expiry).await {
            Ok(()) => self.finish(command),
            Err(error) => command.refuse(error),
        }
    }

    async fn store_expiry(&mut self, expiry: Option<Expiry>) -> Result<(), Error> {
        let id = self.vm.borrow().id;
        let stored = self.shared.store.set_expiry(id, expiry, now_ms()).await?;
        let stored = stored.ok_or(Error::Internal("the VM's row is gone"))?;
        self.vm.send_modify(|vm| {
            (vm.expiry, vm.updated_at_ms) = (stored.expiry, stored.updated_at_ms);
        });
        Ok(())
    }
}

impl Orchestrator {
    /// The end of a time that begins now.
    ///
    /// # Errors
    /// It is too short or too long.
    pub fn expiry_in(&self, ttl_ms: i64, then: OnExpiry) -> Result<Expiry, Error> {
        Ok(Expiry::after(now_ms(), ttl_ms, then)?)
    }

    /// Lets a VM's time be over then, or never.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn set_expiry(&self, name: &VmName, expiry: Option<Expiry>) -> Result<Vm, Error> {
        self.change(name, Change::SetExpiry(expiry), Wait::Done(STORE_TIMEOUT)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_time_ends_when_it_should_and_not_before_a_pause() {
        let soon = Expiry { at_ms: now_ms() + 30, then: OnExpiry::Stop };
        let began = Instant::now();
        assert_eq!(is_over(Some(soon), None).await, OnExpiry::Stop);
        assert!(now_ms() >= soon.at_ms);
        let later = began + Duration::from_millis(80);
        assert_eq!(is_over(Some(soon), Some(later)).await, OnExpiry::Stop);
        assert!(Instant::now() >= later);
        let never = tokio::time::timeout(Duration::from_millis(20), is_over(None, None));
        assert!(never.await.is_err());
    }
}
