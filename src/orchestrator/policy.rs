//! What may be done to a VM in which state. Pure: no I/O, no clock.

use crate::model::{Expiry, VmState};
use crate::orchestrator::Error;

/// A change that a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Bring it up.
    Start,
    /// Bring it down.
    Stop,
    /// Down, then up.
    Restart,
    /// Remove it.
    Delete,
    /// Let its time be over then, or never.
    SetExpiry(Option<Expiry>),
}

/// The answer to an admitted change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// Do it.
    Do,
    /// It is so already.
    Nothing,
}

/// Decides.
///
/// # Errors
/// [`Error::State`].
pub fn admit(state: &VmState, change: Change) -> Result<Admit, Error> {
    let deny = |what| Err(Error::State { state: state.as_str(), what });
    match (state, change) {
        (VmState::Deleting, _) => deny("it is being deleted"),
        (_, Change::Delete | Change::SetExpiry(_)) => Ok(Admit::Do),
        (VmState::Stopped | VmState::Failed { .. }, Change::Start | Change::Restart) => {
            Ok(Admit::Do)
        }
        (VmState::Stopped | VmState::Failed { .. }, Change::Stop) => Ok(Admit::Nothing),
        (VmState::Running, Change::Start) => deny("it cannot be started"),
        (VmState::Running, Change::Stop | Change::Restart) => Ok(Admit::Do),
        (VmState::Starting, Change::Stop) => Ok(Admit::Do),
        (VmState::Starting, _) => deny("wait until it runs"),
        (VmState::Stopping, _) => deny("wait until it is stopped"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_answers_every_change() {
        let states = [
            VmState::Starting,
            VmState::Running,
            VmState::Stopping,
            VmState::Stopped,
            VmState::Failed { reason: String::new() },
            VmState::Deleting,
        ];
        let row = |change| {
            let word = |state| match admit(state, change) {
                Ok(Admit::Do) => 'd',
                Ok(Admit::Nothing) => '=',
                Err(_) => 'x',
            };
            states.iter().map(word).collect::<String>()
        };
        assert_eq!(row(Change::Start), "xxxddx");
        assert_eq!(row(Change::Stop), "ddx==x");
        assert_eq!(row(Change::Restart), "xdxddx");
        assert_eq!(row(Change::Delete), "dddddx");
        assert_eq!(row(Change::SetExpiry(None)), "dddddx");
    }
}
