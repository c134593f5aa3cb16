//! The store's clock: the database's own, read with every batch and carried on in between.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use noetl_core::time::Timestamp;

use crate::Clock;

/// Where the time comes from. It never goes back.
pub(super) struct StoreClock {
    /// Set in tests; `None` = the database.
    manual: Option<Clock>,
    started: Instant,
    /// What the database's clock was ahead of `started` when it was read last, in milliseconds.
    ahead: AtomicI64,
    latest: AtomicI64,
}

impl fmt::Debug for StoreClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreClock").field("manual", &self.manual.is_some()).finish_non_exhaustive()
    }
}

impl StoreClock {
    pub(super) fn new(manual: Option<Clock>) -> Self {
        StoreClock { manual, started: Instant::now(), ahead: AtomicI64::new(0), latest: AtomicI64::new(i64::MIN) }
    }

    /// Returns the time, as far as it is known without asking.
    pub(super) fn now(&self) -> Timestamp {
        let now = match &self.manual {
            Some(clock) => clock().0,
            None => self.ahead.load(Ordering::Relaxed) + self.elapsed_ms(),
        };
        Timestamp(self.latest.fetch_max(now, Ordering::Relaxed).max(now))
    }

    /// Takes note of what the database's clock shows; returns the time.
    pub(super) fn heard(&self, database: Timestamp) -> Timestamp {
        self.ahead.store(database.0 - self.elapsed_ms(), Ordering::Relaxed);
        self.now()
    }

    fn elapsed_ms(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_databases_clock_is_followed_and_never_back() {
        let clock = StoreClock::new(None);
        let first = clock.heard(Timestamp(1_768_900_080_123));
        assert!(first.since_ms(Timestamp(1_768_900_080_123)) < 60_000);
        // A database that was set back: time stands still until it has caught up.
        assert_eq!(clock.heard(Timestamp(1_000)), first);
        assert!(clock.now() >= first);
        assert_eq!(clock.heard(Timestamp(first.0 + 60_000)).0 - first.0, 60_000);
    }
}
