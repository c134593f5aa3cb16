//! What time it is: a parameter here as in the core, only given as something that can be asked again.

use std::sync::Mutex;

use noetl_core::time::Timestamp;
use tokio::time::Instant;

use crate::hold;

/// The clocks of the machine that a worker runs on.
pub trait Clock: Send + Sync + 'static {
    /// Returns the wall clock: for times that people read, never for decisions.
    fn now(&self) -> Timestamp;

    /// Returns milliseconds that never go back and go on while the machine is suspended (`CLOCK_BOOTTIME`).
    ///
    /// A worker measures its lease by it: a clock that stands still in suspend would let a tool run on after the
    /// server has given its command to somebody else.
    fn boottime_ms(&self) -> u64;
}

/// The store's clock, read now and then and carried on in between; it never goes back.
///
/// Decisions outside the store's lock are stamped with it. What depends on the exact time (leases, what is due) is
/// compared in the store.
#[derive(Debug)]
pub(crate) struct StoreClock(Mutex<Reading>);

#[derive(Debug)]
struct Reading {
    base: Timestamp,
    at: Instant,
    last: Timestamp,
}

impl StoreClock {
    pub(crate) fn new() -> Self {
        StoreClock(Mutex::new(Reading { base: Timestamp(0), at: Instant::now(), last: Timestamp(0) }))
    }

    /// Notes what the store's clock says now.
    pub(crate) fn note(&self, now: Timestamp) {
        let mut reading = hold(&self.0);
        (reading.base, reading.at) = (now, Instant::now());
    }

    /// Returns the store's time, or `None` when it was never read.
    pub(crate) fn now(&self) -> Option<Timestamp> {
        let mut reading = hold(&self.0);
        if reading.base == Timestamp(0) {
            return None;
        }
        let since = u64::try_from(reading.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        reading.last = reading.last.max(reading.base.plus_ms(since));
        Some(reading.last)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_carried_on_clock_follows_the_store_but_never_back() {
        let clock = StoreClock::new();
        assert_eq!(clock.now(), None);
        clock.note(Timestamp(1_000));
        tokio::time::advance(Duration::from_millis(300)).await;
        assert_eq!(clock.now(), Some(Timestamp(1_300)));
        clock.note(Timestamp(1_100));
        assert_eq!(clock.now(), Some(Timestamp(1_300)));
        clock.note(Timestamp(2_000));
        assert_eq!(clock.now(), Some(Timestamp(2_000)));
    }
}
