//! The deadlines of a connection. Setting one is done for every request, so that it must not cost a timer of its
//! own: what the runtime has to be told of wakes it by a system call.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// How often is looked whether the deadline has passed; no limit is shorter.
const TICK: Duration = Duration::from_secs(15);

/// One deadline after the other.
#[derive(Debug)]
pub struct Timer {
    deadline: Instant,
    /// Ends at the deadline or before.
    sleep: Pin<Box<Sleep>>,
}

impl Timer {
    /// With a deadline in [`TICK`].
    pub fn new() -> Timer {
        Timer { deadline: Instant::now() + TICK, sleep: Box::pin(sleep(TICK)) }
    }

    /// Sets the deadline anew, `limit` from now on; it is never shorter than [`TICK`].
    pub fn set(&mut self, limit: Duration) {
        self.deadline = Instant::now() + limit.max(TICK);
    }

    /// Returns once the deadline has passed.
    pub async fn passed(&mut self) {
        loop {
            self.sleep.as_mut().await;
            let now = Instant::now();
            if self.deadline <= now {
                return;
            }
            self.sleep.as_mut().reset(self.deadline.min(now + TICK));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn deadlines_pass_when_they_were_set_to() {
        let began = Instant::now();
        let mut timer = Timer::new();
        timer.set(4 * TICK);
        timer.passed().await;
        assert_eq!(began.elapsed(), 4 * TICK);
        timer.set(TICK);
        timer.passed().await;
        assert_eq!(began.elapsed(), 5 * TICK);
        for _ in 0..10 {
            timer.set(TICK);
            let early = tokio::time::timeout(TICK / 3, timer.passed()).await;
            assert!(early.is_err(), "at {:?}", began.elapsed());
        }
        timer.passed().await;
        assert_eq!(began.elapsed(), 5 * TICK + 10 * (TICK / 3) + TICK - TICK / 3);
    }
}
