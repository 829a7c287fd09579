//! What a driver answers to a command, for whoever has given it.

use tokio::sync::oneshot;

use crate::model::Vm;
use crate::orchestrator::driver::Command;
use crate::orchestrator::policy::Change;
use crate::orchestrator::{Error, Wait};

/// The driver has ended, with its VM or by a fault, before it answered.
pub const DRIVER_GONE: &str = "the VM's driver is gone";

/// The caller's end of a [`Command`].
pub struct Answers {
    accepted: oneshot::Receiver<Result<Vm, Error>>,
    done: oneshot::Receiver<Result<Vm, Error>>,
}

/// A command for a driver, and its answers.
pub fn command(change: Change) -> (Command, Answers) {
    let (accepted, was_accepted) = oneshot::channel();
    let (done, is_done) = oneshot::channel();
    let answers = Answers { accepted: was_accepted, done: is_done };
    (Command { change, accepted, done }, answers)
}

impl Answers {
    /// The VM as it is once the change is accepted, or done.
    ///
    /// # Errors
    /// The driver's, [`DRIVER_GONE`], or [`Error::WaitTimeout`].
    pub async fn wait(self, wait: Wait) -> Result<Vm, Error> {
        let both = async {
            let vm = self.accepted.await.map_err(|_| Error::Internal(DRIVER_GONE))??;
            match wait {
                Wait::Accepted => Ok(vm),
                Wait::Done(_) => self.done.await.map_err(|_| Error::Internal(DRIVER_GONE))?,
            }
        };
        match wait {
            Wait::Accepted => both.await,
            Wait::Done(limit) => {
                tokio::time::timeout(limit, both).await.unwrap_or(Err(Error::WaitTimeout))
            }
        }
    }
}
