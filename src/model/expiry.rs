//! The end of a VM's time: when, and what follows.

use crate::model::InvalidSpec;

/// When a VM's time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// Milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// What follows.
    pub then: OnExpiry,
}

/// What follows the end of a VM's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExpiry {
    /// It is deleted with all that is its own.
    #[default]
    Delete,
    /// It is stopped; its record and disks stay, and its time is without end again.
    Stop,
}

impl OnExpiry {
    /// The word on the wire and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            OnExpiry::Delete => "delete",
            OnExpiry::Stop => "stop",
        }
    }

    /// What a word says.
    pub fn from_word(word: &str) -> Option<OnExpiry> {
        [OnExpiry::Delete, OnExpiry::Stop].into_iter().find(|then| then.as_str() == word)
    }
}

impl Expiry {
    /// The longest time that a VM may be given, in milliseconds: ten years.
    pub const TTL_MS_MAX: i64 = 10 * 365 * 24 * 3600 * 1000;

    /// `ttl_ms` after `now_ms`.
    ///
    /// # Errors
    /// It is less than a millisecond, or more than [`Expiry::TTL_MS_MAX`].
    pub fn after(now_ms: i64, ttl_ms: i64, then: OnExpiry) -> Result<Expiry, InvalidSpec> {
        if !(1..=Expiry::TTL_MS_MAX).contains(&ttl_ms) {
            let reason = format!("1 to {} milliseconds, not {ttl_ms}", Expiry::TTL_MS_MAX);
            return Err(InvalidSpec { field: "ttl_ms", reason });
        }
        Ok(Expiry { at_ms: now_ms.saturating_add(ttl_ms), then })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_bounded_and_its_end_has_a_word() {
        let end = |ttl_ms| Expiry::after(100, ttl_ms, OnExpiry::Stop).map(|expiry| expiry.at_ms);
        assert_eq!(end(1), Ok(101));
        assert!(end(0).is_err() && end(-1).is_err());
        assert!(end(Expiry::TTL_MS_MAX).is_ok() && end(Expiry::TTL_MS_MAX + 1).is_err());
        for then in [OnExpiry::Delete, OnExpiry::Stop] {
            assert_eq!(OnExpiry::from_word(then.as_str()), Some(then));
        }
        assert_eq!(OnExpiry::from_word("pause"), None);
    }
}
