//! Tells the service manager that the daemon lives, for as long as it can be proved.

use tokio::time::MissedTickBehavior;

use crate::orchestrator::Orchestrator;

/// Signs of life in the time after which the service manager ends a process without one.
const SIGNS: u32 = 3;

/// Gives signs of life until it is dropped; returns at once where nobody waits for any (no
/// `WatchdogSec=`). A sign is given when all parts have answered, so that a daemon whose runtime, store or
/// device loops hang is ended and started again.
pub async fn run(orchestrator: Orchestrator) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let period = limit / SIGNS;
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match tokio::time::timeout(period, orchestrator.pulse()).await {
            Ok(Ok(())) => {
                // Its socket is gone with the service manager only.
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
            }
            Ok(Err(error)) => tracing::error!(%error, "no sign of life: a part is gone"),
            Err(_) => tracing::error!("no sign of life: a part does not answer"),
        }
    }
}
