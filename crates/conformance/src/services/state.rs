//! What the server remembers between requests.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::probe::Probe;

/// Width of every sliding window.
const WINDOW: Duration = Duration::from_secs(1);

/// Shared by all requests. Held only between two awaits: a delay must never hold up another request.
pub(super) type Services = Arc<Mutex<Memory>>;

/// All counters, windows and stored objects.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Requests per page of the flaky collection.
    pub(super) flaky: BTreeMap<i64, u64>,
    /// Of the rate-limited collection.
    pub(super) limited: Window,
    /// Of the patient records.
    pub(super) records: Window,
    /// Of the data of patients.
    pub(super) patients: Window,
    /// Who is inside at the same time.
    pub(super) probe: Probe,
    /// Uploads by bucket, in order of arrival.
    pub(super) objects: BTreeMap<String, Vec<Value>>,
}

impl Memory {
    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        let mut fresh = Memory::default();
        // A request that waits inside the probe belongs to the time before: it must not leave a room it never entered.
        fresh.probe.begin_after(&self.probe);
        *self = fresh;
    }
}

/// Returns the memory, whatever became of its last user.
pub(super) fn locked(services: &Services) -> MutexGuard<'_, Memory> {
    services.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The requests accepted within the last second.
#[derive(Debug, Default)]
pub(super) struct Window {
    accepted: VecDeque<Instant>,
}

impl Window {
    /// Accepts a request and returns how many there are with it, or refuses it with how many there are.
    pub(super) fn accept(&mut self, now: Instant, limit: i64) -> Result<usize, usize> {
        while self.accepted.front().is_some_and(|&oldest| now.duration_since(oldest) > WINDOW) {
            self.accepted.pop_front();
        }
        let waiting = self.accepted.len();
        if i64::try_from(waiting).is_ok_and(|waiting| waiting < limit) {
            self.accepted.push_back(now);
            return Ok(waiting + 1);
        }
        Err(waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_slides_and_does_not_count_what_it_refused() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut window = Window::default();
        assert_eq!(window.accept(at(0), 2), Ok(1));
        assert_eq!(window.accept(at(600), 2), Ok(2));
        assert_eq!(window.accept(at(900), 2), Err(2));
        assert_eq!(window.accept(at(1_001), 2), Ok(2));
        assert_eq!(window.accept(at(1_500), 2), Err(2));
        assert_eq!(window.accept(at(1_601), 2), Ok(2));
        assert_eq!(window.accept(at(9_000), 0), Err(0));
    }
}
