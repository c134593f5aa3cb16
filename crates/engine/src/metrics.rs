//! What the engine counts: plain numbers, read by whoever shows them.

use std::sync::atomic::{AtomicU64, Ordering};

use noetl_core::playbook::CancelMode;

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

/// A number that rises and falls.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets the number.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Returns the number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why something was cancelled, as far as a label may say: names of people are no labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelCause {
    /// Somebody asked.
    Request,
    /// A time limit.
    Timeout,
    /// Its parent's step was stopped.
    Parent,
    /// A cleanup of what is stuck.
    Cleanup,
    /// Another run that may not go on beside it.
    Concurrency,
}

impl CancelCause {
    const ALL: [CancelCause; 5] = [
        CancelCause::Request,
        CancelCause::Timeout,
        CancelCause::Parent,
        CancelCause::Cleanup,
        CancelCause::Concurrency,
    ];

    /// Returns the cause that `cancelled_by` stands for.
    pub fn of(cancelled_by: &str) -> Self {
        let known = CancelCause::ALL.into_iter().find(|cause| cause.as_str() == cancelled_by);
        known.unwrap_or(CancelCause::Request)
    }

    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            CancelCause::Request => "request",
            CancelCause::Timeout => "timeout",
            CancelCause::Parent => "parent",
            CancelCause::Cleanup => "cleanup",
            CancelCause::Concurrency => "concurrency",
        }
    }
}

/// What a request to cancel came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelResult {
    /// It was cancelled.
    Cancelled,
    /// It is stopped harder.
    Escalated,
    /// It had ended.
    AlreadyEnded,
}

impl CancelResult {
    const ALL: [CancelResult; 3] = [CancelResult::Cancelled, CancelResult::Escalated, CancelResult::AlreadyEnded];

    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            CancelResult::Cancelled => "cancelled",
            CancelResult::Escalated => "escalated",
            CancelResult::AlreadyEnded => "already_ended",
        }
    }
}

const MODES: [CancelMode; 2] = [CancelMode::Finish, CancelMode::Interrupt];

/// Counters of cancels by mode, cause and result.
#[derive(Debug, Default)]
pub struct Cancels([[[Counter; CancelResult::ALL.len()]; CancelCause::ALL.len()]; MODES.len()]);

impl Cancels {
    pub(crate) fn add_one(&self, mode: CancelMode, cause: CancelCause, result: CancelResult) {
        self.0[mode as usize][cause as usize][result as usize].add_one();
    }

    /// Returns every combination with its count.
    pub fn each(&self) -> impl Iterator<Item = (CancelMode, CancelCause, CancelResult, u64)> + '_ {
        MODES.into_iter().flat_map(move |mode| {
            CancelCause::ALL.into_iter().flat_map(move |cause| {
                CancelResult::ALL.into_iter().map(move |result| {
                    (mode, cause, result, self.0[mode as usize][cause as usize][result as usize].get())
                })
            })
        })
    }
}

/// Upper bounds of the buckets of a [`Histogram`]; a last one takes the rest.
pub const BUCKETS: [u64; 14] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 60_000];

/// How often a quantity fell where.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS.len() + 1],
    sum: AtomicU64,
    max: AtomicU64,
}

impl Histogram {
    /// Notes one observation.
    pub fn note(&self, value: u64) {
        self.max.fetch_max(value, Ordering::Relaxed);
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

    /// Returns the largest observation.
    pub fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
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
    /// What requests to cancel came to, execution by execution.
    pub cancels: Cancels,
    /// Milliseconds from the decision of a cancel to the proof that nothing runs.
    pub cancel_quiesce_ms: Histogram,
    /// Executions that have ended while something of them still runs, at the last sweep.
    pub unquiesced: Gauge,
    /// For how many milliseconds the oldest of them has ended.
    pub oldest_unquiesced_ms: Gauge,
    /// Cascades with something left to visit, at the last sweep.
    pub open_cascades: Gauge,
    /// Jobs over a selection with something left to visit.
    pub open_selections: Gauge,
    /// Cancel orders sent to workers.
    pub cancel_orders: Counter,
    /// Errors of the store.
    pub store_errors: Counter,
}
