//! The real clocks.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use noetl_core::time::Timestamp;
use noetl_engine::clock::Clock;
use rustix::time::{ClockId, clock_gettime};

/// The clocks of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealClock;

impl Clock for RealClock {
    fn now(&self) -> Timestamp {
        // Before 1970 there was no noetl.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn boottime_ms(&self) -> u64 {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
        seconds * 1000 + nanoseconds / 1_000_000
    }
}

/// Returns the wall clock.
pub fn now() -> Timestamp {
    RealClock.now()
}

/// Returns the real clocks, to be shared.
pub fn real() -> Arc<dyn Clock> {
    Arc::new(RealClock)
}
