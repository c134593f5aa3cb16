//! What the engine counts: plain numbers, read by whoever shows them.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn add_one(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Returns the number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the buckets of a [`Histogram`]; a last one takes the rest.
pub const BUCKETS: [u64; 14] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 60_000];

/// How often a quantity fell where.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS.len() + 1],
    sum: AtomicU64,
}

impl Histogram {
    /// Notes one observation.
    pub fn note(&self, value: u64) {
        let bucket = BUCKETS.partition_point(|bound| *bound < value);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Returns the observations per bucket, not cumulated.
    pub fn buckets(&self) -> [u64; BUCKETS.len() + 1] {
        std::array::from_fn(|bucket| self.buckets[bucket].load(Ordering::Relaxed))
    }

    /// Returns the sum of all observations.
    pub fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }

    /// Returns how many observations there were.
    pub fn count(&self) -> u64 {
        self.buckets().iter().sum()
    }
}

/// The engine's numbers since it began.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Executions started.
    pub started: Counter,
    /// Executions that completed.
    pub completed: Counter,
    /// Executions that failed.
    pub failed: Counter,
    /// Executions cancelled.
    pub cancelled: Counter,
    /// Events written.
    pub events: Counter,
    /// Appends that landed.
    pub appends: Counter,
    /// Transactions of appends.
    pub batches: Counter,
    /// Appends per transaction.
    pub batch_size: Histogram,
    /// Milliseconds a transaction took.
    pub commit_ms: Histogram,
    /// Appends that lost a race and were decided again.
    pub conflicts: Counter,
    /// Decisions made under the lock after too many conflicts, or because they needed it.
    pub locked: Counter,
    /// Inputs decided.
    pub inputs: Counter,
    /// Executions read from the store because they were not at hand.
    pub loads: Counter,
    /// Commands handed out together with what issued them.
    pub claimed_with_issue: Counter,
    /// Commands handed out by an append of their own.
    pub claimed_apart: Counter,
    /// Claims that somebody else won.
    pub claims_lost: Counter,
    /// Reports taken.
    pub reports: Counter,
    /// Reports that came too late to count.
    pub reports_late: Counter,
    /// Attempts lost with their worker.
    pub lost: Counter,
    /// Milliseconds from the decision of a cancel to the proof that nothing runs.
    pub quiesce_ms: Histogram,
    /// Cancel orders sent to workers.
    pub cancel_orders: Counter,
    /// Errors of the store.
    pub store_errors: Counter,
}
