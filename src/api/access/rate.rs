//! How often a token may ask: a bucket for each that refills with time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Buckets kept; beyond, full ones are forgotten (they would be new again anyway).
const BUCKETS_MAX: usize = 4096;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

/// Requests per second for each principal, with a burst of two seconds' worth.
#[derive(Debug)]
pub struct RateLimit {
    per_second: f64,
    buckets: Mutex<HashMap<String, Bucket>>,
}

impl RateLimit {
    /// A limit; 0 is none.
    pub fn new(per_second: u32) -> RateLimit {
        RateLimit { per_second: f64::from(per_second), buckets: Mutex::default() }
    }

    /// Takes one request of `principal`'s.
    ///
    /// # Errors
    /// Whole seconds after which there is one again.
    pub fn admit(&self, principal: &str) -> Result<(), u32> {
        self.admit_at(principal, Instant::now())
    }

    fn admit_at(&self, principal: &str, now: Instant) -> Result<(), u32> {
        if self.per_second <= 0.0 {
            return Ok(());
        }
        let burst = 2.0 * self.per_second;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if BUCKETS_MAX <= buckets.len() && !buckets.contains_key(principal) {
            buckets.retain(|_, bucket| {
                bucket.tokens + now.duration_since(bucket.at).as_secs_f64() * self.per_second
                    < burst
            });
        }
        let full = Bucket { tokens: burst, at: now };
        let bucket = buckets.entry(principal.to_owned()).or_insert(full);
        let gained = now.duration_since(bucket.at).as_secs_f64() * self.per_second;
        bucket.tokens = (bucket.tokens + gained).min(burst);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            // Less than one is missing, and at least one comes each second.
            return Err(1);
        }
        bucket.tokens -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_then_the_rate_and_each_for_itself() {
        let limit = RateLimit::new(5);
        let start = Instant::now();
        let passed = (0..20).filter(|_| limit.admit_at("a", start).is_ok()).count();
        assert_eq!(passed, 10);
        assert!(limit.admit_at("b", start).is_ok());
        assert_eq!(limit.admit_at("a", start), Err(1));
        let later = start + Duration::from_secs(1);
        let passed = (0..20).filter(|_| limit.admit_at("a", later).is_ok()).count();
        assert_eq!(passed, 5);
        let unlimited = RateLimit::new(0);
        assert!((0..1000).all(|_| unlimited.admit_at("a", start).is_ok()));
    }
}
