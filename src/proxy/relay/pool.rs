//! Connections to guests between two requests, for whichever client comes next.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::{Instant, sleep};

use crate::model::VmName;
use crate::proxy::guests::{IDLE_MAX, IDLE_TIMEOUT};
use crate::proxy::relay::connection::Guest;
use crate::proxy::relay::head::Target;

/// Connections by where they lead to, the youngest last. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Pool(Arc<Mutex<Idle>>);

#[derive(Debug, Default)]
struct Idle {
    places: HashMap<(VmName, u16), Vec<(Instant, Guest)>>,
    /// Whether a task looks after those that nobody takes.
    is_swept: bool,
}

impl Pool {
    /// A connection to `target` that is still there.
    pub async fn take(&self, target: &Target) -> Option<Guest> {
        loop {
            let (since, mut guest) = {
                let mut idle = self.lock();
                idle.places.get_mut(&(target.name.clone(), target.port))?.pop()?
            };
            if since.elapsed() < IDLE_TIMEOUT && guest.is_quiet().await {
                return Some(guest);
            }
        }
    }

    /// Keeps a connection that waits for its next request.
    pub fn keep(&self, guest: Guest) {
        let mut idle = self.lock();
        let place = idle.places.entry(guest.place()).or_default();
        if place.len() < IDLE_MAX {
            place.push((Instant::now(), guest));
        }
        if !idle.is_swept {
            idle.is_swept = true;
            tokio::spawn(self.clone().sweep());
        }
    }

    /// Ends what nobody takes, until there is nothing left.
    async fn sweep(self) {
        loop {
            sleep(IDLE_TIMEOUT).await;
            let mut idle = self.lock();
            idle.places.retain(|_, place| {
                place.retain(|(since, _)| since.elapsed() < IDLE_TIMEOUT);
                !place.is_empty()
            });
            if idle.places.is_empty() {
                idle.is_swept = false;
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn connections_are_kept_for_a_while_and_as_long_as_they_are_quiet() {
        let (pool, mut ends) = (Pool::default(), Vec::new());
        let name = VmName::try_from("one").unwrap();
        let target = Target { name, port: 80, prefix_len: 0, head_len: 0, is_last: false };
        let other = Target { port: 81, ..target.clone() };
        let mut keep = || {
            let (near, far) = duplex(16);
            ends.push(far);
            pool.keep(Guest::new(Box::new(near), &target));
        };
        for _ in 0..3 {
            keep();
        }
        assert!(pool.take(&other).await.is_none());
        assert!(pool.take(&target).await.is_some());
        ends[1].write_all(b"unasked").await.unwrap();
        ends.remove(0);
        assert!(pool.take(&target).await.is_none(), "one spoke, one left");

        let (near, _far) = duplex(16);
        pool.keep(Guest::new(Box::new(near), &target));
        tokio::time::advance(IDLE_TIMEOUT).await;
        assert!(pool.take(&target).await.is_none(), "it has waited for too long");

        let (near, _far) = duplex(16);
        pool.keep(Guest::new(Box::new(near), &target));
        assert!(pool.lock().is_swept);
        sleep(3 * IDLE_TIMEOUT).await;
        assert!(pool.lock().places.is_empty() && !pool.lock().is_swept);
        let kept: Vec<_> = (0..=IDLE_MAX).map(|_| duplex(16)).collect();
        for (near, _) in kept {
            pool.keep(Guest::new(Box::new(near), &target));
        }
        assert_eq!(pool.lock().places.values().map(Vec::len).sum::<usize>(), IDLE_MAX);
    }
}
