//! A command given to a worker: what was said of it, and when it is said again.

use noetl_core::head::RunningTool;
use noetl_core::id::ExecutionId;
use noetl_core::playbook::CancelMode;
use noetl_core::work::Assignment;
use tokio::time::{Duration, Instant};

use super::Channel;

/// After how long something that a worker does not confirm is said again, in milliseconds.
pub(crate) const REPEAT_MS: u64 = 1_000;
/// The same for a command in the answer to a poll, when the next poll does not confirm it: the answer was lost, or the
/// worker takes it for something that is over. Not at once, or the two would keep each other busy.
pub(crate) const REPEAT_LOST_MS: u64 = 250;
/// The same for cancel orders, which are in a hurry.
pub(super) const REPEAT_CANCEL_MS: u64 = 250;

/// A command given to a worker.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) execution_id: ExecutionId,
    /// Kept until the worker has named it, to be sent again.
    pub(super) assignment: Option<Box<Assignment>>,
    pub(super) named: bool,
    pub(super) sent: Option<Sent>,
    pub(super) cancel: Option<Cancel>,
    /// The order that the worker says it has, and its grace if it says that too.
    pub(super) obeys: Option<(CancelMode, Option<u64>)>,
    /// What the tables say that its worker runs of it, as far as this server wrote it.
    pub(super) running: Option<RunningTool>,
    /// Its number among all that were given out.
    pub(super) given: u64,
}

/// When and on which way its worker was told of it last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) at: Instant,
    pub(super) by: Channel,
    /// Its worker has polled since, and not named it.
    pub(super) lost: bool,
}

impl Sent {
    pub(super) fn now(by: Channel) -> Self {
        Sent { at: Instant::now(), by, lost: false }
    }

    /// Returns when it is said again.
    pub(super) fn repeat(&self) -> Instant {
        self.at + Duration::from_millis(if self.lost { REPEAT_LOST_MS } else { REPEAT_MS })
    }
}

/// The order to end it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cancel {
    pub(super) mode: CancelMode,
    pub(super) grace_ms: u64,
    pub(super) sent: Option<Instant>,
}

impl Cancel {
    /// Returns whether a worker that obeys an order, and says with which grace, need not hear of this one.
    ///
    /// The race: what is being stopped with one grace is cancelled with a shorter one, at another server or just as the
    /// worker says what it obeys.
    pub(super) fn is_obeyed(&self, obeys: Option<(CancelMode, Option<u64>)>) -> bool {
        match (obeys, self.mode) {
            (None, _) | (Some((CancelMode::Finish, _)), CancelMode::Interrupt) => false,
            (Some((CancelMode::Finish | CancelMode::Interrupt, _)), CancelMode::Finish) => true,
            (Some((CancelMode::Interrupt, Some(grace_ms))), CancelMode::Interrupt) => grace_ms <= self.grace_ms,
            // It does not say: it has heard of this one when this server has told it.
            (Some((CancelMode::Interrupt, None)), CancelMode::Interrupt) => self.sent.is_some(),
        }
    }
}
