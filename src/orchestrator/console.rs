//! Serial consoles: many look on, one types.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::agent::process;
use crate::model::VmName;
use crate::orchestrator::processes::in_time;
use crate::orchestrator::{Console, Error, Orchestrator, TerminalSize};

/// Nobody sits there.
const FREE: u64 = 0;

/// The one place from which a VM's console is typed on.
#[derive(Debug, Default)]
pub struct Seat {
    /// Number of the viewer who types.
    taken_by: AtomicU64,
    /// Viewers so far.
    viewers: AtomicU64,
}

/// Somebody who looks on a console, and may type while the seat is theirs.
#[derive(Debug)]
pub struct Viewer {
    seat: Arc<Seat>,
    number: u64,
}

impl Viewer {
    fn new(seat: Arc<Seat>) -> Viewer {
        // ORDER: a number of one's own; nothing else depends on it.
        let number = seat.viewers.fetch_add(1, Ordering::Relaxed) + 1;
        Viewer { seat, number }
    }

    /// Whether what this viewer types counts: a free seat becomes theirs.
    pub fn sits(&self) -> bool {
        // ORDER: whose input counts when two sit down at once is decided by the exchange alone.
        let taken = self.seat.taken_by.compare_exchange(
            FREE,
            self.number,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        taken.is_ok() || taken == Err(self.number)
    }

    /// Takes the seat from whoever has it.
    pub fn take(&self) {
        // ORDER: as above.
        self.seat.taken_by.store(self.number, Ordering::Relaxed);
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        // ORDER: as above. A seat that somebody else has taken stays theirs.
        let _ = self.seat.taken_by.compare_exchange(
            self.number,
            FREE,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }
}

impl Orchestrator {
    /// The serial console of a VM: of its live machine, or of its last one since the daemon started.
    ///
    /// # Errors
    /// Conflict when it has none.
    pub fn console(&self, name: &VmName) -> Result<Arc<dyn Console>, Error> {
        let handle = self.find(name)?;
        let console = handle.parts().console.clone();
        let state = handle.vm.borrow().state.as_str();
        console.ok_or(Error::State { state, what: "it has not been started by this daemon" })
    }

    /// One more who looks on a VM's console.
    ///
    /// # Errors
    /// As [`Orchestrator::console`].
    pub fn watch_console(&self, name: &VmName) -> Result<(Arc<dyn Console>, Viewer), Error> {
        let console = self.console(name)?;
        Ok((console, Viewer::new(Arc::clone(&self.find(name)?.console_seat))))
    }

    /// Tells the guest the size of the terminal on its serial line.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn resize_console(&self, name: &VmName, size: TerminalSize) -> Result<(), Error> {
        in_time(process::resize_console(self.agent(name).await?, size)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_types_until_he_leaves_or_is_relieved() {
        let seat = Arc::new(Seat::default());
        let viewer = || Viewer::new(Arc::clone(&seat));
        let (one, two, three) = (viewer(), viewer(), viewer());
        assert!(one.sits() && one.sits() && !two.sits());
        two.take();
        assert!(two.sits() && !one.sits());
        drop(one);
        assert!(two.sits() && !three.sits(), "the seat was given up for another");
        drop(two);
        assert!(three.sits());
    }
}
