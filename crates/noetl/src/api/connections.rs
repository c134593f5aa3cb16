//! How many connections there are, as `/metrics` shows it. Whoever listens counts them.

use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted about the connections of one node.
#[derive(Debug, Default)]
pub struct Connections {
    open: AtomicU64,
    evicted: AtomicU64,
}

impl Connections {
    /// One more is served.
    pub fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// One less is served.
    pub fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// One that waited for its client was closed to make room for another.
    pub fn one_evicted(&self) {
        self.evicted.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many are served.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Returns how many were closed to make room for others.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }
}
