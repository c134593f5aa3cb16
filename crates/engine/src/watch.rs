//! Watches: who wants to hear of an execution's progress, and the alarm for the next timer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use noetl_core::id::ExecutionId;
use tokio::sync::{Notify, watch};
use tokio::time::{Duration, Instant};

use crate::hold;

/// Executions that somebody follows.
#[derive(Debug, Default)]
pub(crate) struct Watches(Mutex<BTreeMap<ExecutionId, Watched>>);

#[derive(Debug)]
struct Watched {
    version: watch::Sender<u64>,
    /// Counts the ends and proofs: what most who wait are waiting for.
    milestones: watch::Sender<u64>,
    /// Counts what was printed, and the milestones.
    log: watch::Sender<u64>,
}

impl Watches {
    /// Returns a receiver of the version.
    pub(crate) fn version(&self, execution_id: ExecutionId) -> watch::Receiver<u64> {
        self.watched(execution_id, |watched| watched.version.subscribe())
    }

    /// Returns a receiver that changes when the execution ends or quiesces.
    pub(crate) fn milestones(&self, execution_id: ExecutionId) -> watch::Receiver<u64> {
        self.watched(execution_id, |watched| watched.milestones.subscribe())
    }

    /// Returns a receiver that changes when something was printed, and with the milestones.
    pub(crate) fn log(&self, execution_id: ExecutionId) -> watch::Receiver<u64> {
        self.watched(execution_id, |watched| watched.log.subscribe())
    }

    /// Tells those who read what is printed.
    pub(crate) fn printed(&self, execution_id: ExecutionId) {
        if let Some(watched) = hold(&self.0).get(&execution_id) {
            watched.log.send_modify(|count| *count += 1);
        }
    }

    /// Tells those who watch.
    pub(crate) fn tick(&self, execution_id: ExecutionId, version: u64, milestone: bool) {
        let mut all = hold(&self.0);
        let Some(watched) = all.get(&execution_id) else { return };
        if watched.is_idle() {
            all.remove(&execution_id);
            return;
        }
        watched.version.send_if_modified(|known| {
            let news = *known < version;
            *known = version.max(*known);
            news
        });
        if milestone {
            watched.milestones.send_modify(|count| *count += 1);
            watched.log.send_modify(|count| *count += 1);
        }
    }

    fn watched<T>(&self, execution_id: ExecutionId, subscribe: impl FnOnce(&Watched) -> T) -> T {
        let mut all = hold(&self.0);
        if all.len() >= WATCHES_BEFORE_CLEANING && !all.contains_key(&execution_id) {
            all.retain(|_, watched| !watched.is_idle());
        }
        let fresh =
            || Watched { version: watch::channel(0).0, milestones: watch::channel(0).0, log: watch::channel(0).0 };
        subscribe(all.entry(execution_id).or_insert_with(fresh))
    }
}

/// Entries that nobody watches any more are removed when there are so many.
const WATCHES_BEFORE_CLEANING: usize = 1024;

impl Watched {
    fn is_idle(&self) -> bool {
        self.version.is_closed() && self.milestones.is_closed() && self.log.is_closed()
    }
}

/// The moments at which obligations come due, as far as this process has written them: only the earliest count.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    at: Mutex<BTreeSet<Instant>>,
    earlier: Notify,
}

/// Moments kept; a later one is found by the regular sweep.
const ALARMS_MAX: usize = 1024;

impl Alarms {
    /// Sets an alarm in `ms` milliseconds.
    pub(crate) fn set_in(&self, ms: u64) {
        let Some(at) = Instant::now().checked_add(Duration::from_millis(ms)) else { return };
        let mut alarms = hold(&self.at);
        let first = alarms.first().is_none_or(|first| at < *first);
        alarms.insert(at);
        if alarms.len() > ALARMS_MAX {
            alarms.pop_last();
        }
        drop(alarms);
        if first {
            self.earlier.notify_one();
        }
    }

    /// Waits for the next alarm, at most until `limit`; alarms that have gone off are forgotten.
    pub(crate) async fn next(&self, limit: Instant) {
        loop {
            let at = {
                let mut alarms = hold(&self.at);
                let now = Instant::now();
                let gone_off = alarms.first().is_some_and(|first| *first <= now);
                if gone_off {
                    *alarms = alarms.split_off(&now);
                    alarms.remove(&now);
                    return;
                }
                alarms.first().map_or(limit, |first| limit.min(*first))
            };
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(at) => {
                    if Instant::now() >= limit {
                        return;
                    }
                }
                () = self.earlier.notified() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn alarms_ring_at_the_earliest_moment_even_if_it_is_set_last() {
        let alarms = Alarms::default();
        let began = Instant::now();
        let limit = began + Duration::from_millis(1_000);
        alarms.set_in(50);
        alarms.set_in(20);
        alarms.next(limit).await;
        assert_eq!(began.elapsed().as_millis(), 20);
        alarms.next(limit).await;
        assert_eq!(began.elapsed().as_millis(), 50);
        alarms.next(limit).await;
        assert_eq!(Instant::now(), limit);
    }

    #[tokio::test]
    async fn watchers_hear_of_versions_and_of_the_end() {
        let watches = Watches::default();
        let id = ExecutionId(1);
        let mut version = watches.version(id);
        let mut end = watches.milestones(id);
        watches.tick(id, 3, false);
        assert!(version.has_changed().unwrap() && !end.has_changed().unwrap());
        assert_eq!(*version.borrow_and_update(), 3);
        watches.tick(id, 5, true);
        end.changed().await.unwrap();
        drop((version, end));
        watches.tick(id, 6, false);
        assert!(hold(&watches.0).is_empty());
    }
}
