//! The wish that a running tool end, from whoever may have it.

use std::time::Duration;

use noetl_core::tool::{ErrorKind, StopOrder, ToolError};
use tokio::sync::watch;
use tokio::time::Instant;

/// Returns the two ends of one tool's stop line.
pub fn stop_line() -> (StopHandle, StopSignal) {
    let (sender, receiver) = watch::channel(None);
    (StopHandle(sender), StopSignal(receiver))
}

/// Orders a running tool to stop. Dropping it orders nothing.
#[derive(Debug)]
pub struct StopHandle(watch::Sender<Option<StopOrder>>);

impl StopHandle {
    /// Orders the tool to stop; a repeat can only make it sooner.
    pub fn order(&self, order: StopOrder) {
        self.0.send_modify(|standing| {
            // The listener sees only the latest value: a later, longer grace must not hide a shorter one.
            let grace_ms = standing.map_or(order.grace_ms, |standing| standing.grace_ms.min(order.grace_ms));
            *standing = Some(StopOrder { grace_ms });
        });
    }
}

/// Hears whether a tool is to stop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StopSignal(watch::Receiver<Option<StopOrder>>);

impl StopSignal {
    /// Returns a signal that never comes.
    pub fn never() -> Self {
        stop_line().1
    }

    /// Returns the order that stands, if there is one.
    pub fn current(&self) -> Option<StopOrder> {
        *self.0.borrow()
    }

    /// Waits for an order that was not heard yet. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> StopOrder {
        loop {
            if self.0.changed().await.is_err() {
                // Nobody can order any more.
                std::future::pending::<()>().await;
            }
            if let Some(order) = *self.0.borrow_and_update() {
                return order;
            }
        }
    }
}

/// Why a tool is ended before it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Somebody ordered it.
    Ordered,
    /// Its time was over.
    TimedOut {
        /// The limit.
        timeout_ms: u64,
    },
}

impl Cause {
    /// Returns the error of a tool that was ended before it was done.
    pub(crate) fn error(self) -> ToolError {
        match self {
            Cause::Ordered => ToolError::soft(ErrorKind::Cancelled, "CANCELLED", "stopped on request"),
            Cause::TimedOut { timeout_ms } => {
                let message = format!("it did not end within its limit of {timeout_ms} ms");
                ToolError::soft(ErrorKind::Timeout, "TIMEOUT", message).retryable()
            }
        }
    }
}

/// Watches for what ends one tool early: an order, or its time limit.
#[derive(Debug)]
pub(crate) struct Brake {
    signal: StopSignal,
    limit: Option<(Instant, u64)>,
    timeout_grace: Duration,
    cause: Option<Cause>,
    /// When the grace ends, once it has begun.
    until: Option<Instant>,
}

impl Brake {
    /// Starts to watch; the time limit counts from now.
    pub(crate) fn new(mut signal: StopSignal, timeout_ms: Option<u64>, timeout_grace: Duration) -> Self {
        // An order that stood before counts as not heard yet.
        signal.0.mark_changed();
        let limit = timeout_ms.and_then(|limit_ms| {
            // A limit beyond what the clock can count is none.
            Instant::now().checked_add(Duration::from_millis(limit_ms)).map(|at| (at, limit_ms))
        });
        Brake { signal, limit, timeout_grace, cause: None, until: None }
    }

    /// Waits until the tool is to end, or to end sooner than it was told; returns the grace.
    pub(crate) async fn next(&mut self) -> u64 {
        let timeout = async {
            match self.limit {
                Some((at, limit_ms)) => {
                    tokio::time::sleep_until(at).await;
                    limit_ms
                }
                None => std::future::pending().await,
            }
        };
        let grace_ms = tokio::select! {
            order = self.signal.next() => {
                self.cause.get_or_insert(Cause::Ordered);
                order.grace_ms
            }
            timeout_ms = timeout => {
                self.limit = None;
                self.cause.get_or_insert(Cause::TimedOut { timeout_ms });
                u64::try_from(self.timeout_grace.as_millis()).unwrap_or(u64::MAX)
            }
        };
        let until = Instant::now().checked_add(Duration::from_millis(grace_ms));
        self.until = [self.until, until].into_iter().flatten().min();
        grace_ms
    }

    /// Returns when the grace ends, if the tool is to end: what a tool begins afterwards must end at once.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Returns why the tool was told to end; the first reason counts.
    pub(crate) fn cause(&self) -> Option<Cause> {
        self.cause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_order_given_before_anybody_listened_is_heard_once() {
        let (handle, signal) = stop_line();
        handle.order(StopOrder { grace_ms: 7 });
        let mut brake = Brake::new(signal, None, Duration::ZERO);
        assert_eq!(brake.next().await, 7);
        assert_eq!(brake.cause(), Some(Cause::Ordered));
        handle.order(StopOrder { grace_ms: 0 });
        assert_eq!(brake.next().await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_reason_counts_and_a_dropped_handle_is_no_order() {
        let (handle, signal) = stop_line();
        drop(handle);
        let mut brake = Brake::new(signal, Some(50), Duration::from_millis(9));
        assert_eq!(brake.next().await, 9);
        assert_eq!(brake.cause(), Some(Cause::TimedOut { timeout_ms: 50 }));
    }
}
