//! How work on a connection is stopped, and how it is known that it has stopped.

use std::time::Duration;

use noetl_core::tool::{Stopped, ToolError};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::connection;
use super::connection::{Link, Notice};
use super::error::Trouble;
use crate::failure::Failure;
use crate::output::LogSink;
use crate::stop::Brake;

/// Between two cancel requests for the same statement.
///
/// Race: a request that arrives before the backend has begun with the statement is forgotten, so one is not enough.
const CANCEL_REPEAT: Duration = Duration::from_millis(100);

/// How long a terminated backend may take to close its connection, and one that was asked to end a statement to be done
/// with it.
const TERMINATE_WAIT: Duration = Duration::from_secs(5);

/// How far a stop had to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Force {
    /// Nobody asked.
    None,
    /// The statement was asked to end.
    Cancelled,
    /// The backend was told to end.
    Terminated,
}

/// What came of work on a connection.
#[derive(Debug)]
pub(crate) struct Worked<T> {
    /// `None` if it was given up: the backend does not answer.
    pub(crate) result: Option<Result<T, Trouble>>,
    pub(crate) force: Force,
    pub(crate) backend_pid: i32,
}

/// Does `work` on a connection, which `brake` may end sooner, and passes on what the server remarks meanwhile.
pub(crate) async fn under_brake<T>(
    link: &Link,
    notices: &mut mpsc::Receiver<Notice>,
    brake: &mut Brake,
    log: &dyn LogSink,
    work: impl Future<Output = Result<T, Trouble>>,
) -> Worked<T> {
    braked(link, notices, brake, log, work, None).await
}

/// The same for work that goes on with a statement: it ends at once if an order was heard before.
///
/// Race: the order may have come while work on another connection was under way, and nobody else would end this one.
pub(crate) async fn under_standing_brake<T>(
    link: &Link,
    notices: &mut mpsc::Receiver<Notice>,
    brake: &mut Brake,
    log: &dyn LogSink,
    work: impl Future<Output = Result<T, Trouble>>,
) -> Worked<T> {
    let standing = brake.until();
    braked(link, notices, brake, log, work, standing).await
}

/// Ends the statement of `work`, which nobody wants any more, and waits until its backend is done with it; returns how
/// that went. It has until the end of the grace if the tool is to stop, else [`TERMINATE_WAIT`].
pub(crate) async fn end_statement<T>(
    link: &Link,
    notices: &mut mpsc::Receiver<Notice>,
    brake: &mut Brake,
    log: &dyn LogSink,
    work: impl Future<Output = Result<T, Trouble>>,
) -> Stopped {
    let kill_at = brake.until().unwrap_or_else(|| Instant::now() + TERMINATE_WAIT);
    let Worked { result, force, .. } = braked(link, notices, brake, log, work, Some(kill_at)).await;
    match (result, force) {
        (None, _) => Stopped::Unconfirmed,
        // The connection broke: whether the backend ended with it is not known.
        (Some(Err(trouble)), _) if trouble.is_closed() && !trouble.is_stop() => Stopped::Unconfirmed,
        (Some(Ok(_) | Err(_)), Force::None | Force::Cancelled) => Stopped::Stopped,
        (Some(Ok(_) | Err(_)), Force::Terminated) => Stopped::Killed,
    }
}

/// Ends the transaction of a connection whose last statement is over, as if it had not been.
pub(crate) async fn roll_back(link: &Link) -> Stopped {
    if link.is_busy() {
        // A statement on it was given up: nothing more is learnt by waiting once more.
        return Stopped::Unconfirmed;
    }
    link.set_busy(true);
    match tokio::time::timeout(TERMINATE_WAIT, link.client().batch_execute("ROLLBACK")).await {
        Ok(Ok(())) => {
            link.set_busy(false);
            Stopped::Stopped
        }
        // A backend that has ended holds no transaction; one that can not be reached ends its own, some time.
        Ok(Err(_)) if link.client().is_closed() => Stopped::Stopped,
        Ok(Err(_)) | Err(_) => Stopped::Unconfirmed,
    }
}

async fn braked<T>(
    link: &Link,
    notices: &mut mpsc::Receiver<Notice>,
    brake: &mut Brake,
    log: &dyn LogSink,
    work: impl Future<Output = Result<T, Trouble>>,
    standing: Option<Instant>,
) -> Worked<T> {
    let mut work = std::pin::pin!(work);
    let mut kill_at = standing;
    let mut force = if kill_at.is_some() { Force::Cancelled } else { Force::None };
    let mut next_cancel = kill_at.map(|_| Instant::now());
    let mut give_up_at = None;
    link.set_busy(true);
    let mut result = loop {
        tokio::select! {
            biased;
            result = &mut work => break Some(result),
            grace_ms = brake.next() => {
                let now = Instant::now();
                let until = now.checked_add(Duration::from_millis(grace_ms)).unwrap_or(now + Duration::from_secs(86_400));
                kill_at = Some(kill_at.map_or(until, |standing| standing.min(until)));
                next_cancel = next_cancel.or(Some(now));
                force = force.max(Force::Cancelled);
            }
            () = at(next_cancel) => {
                link.request_cancel();
                next_cancel = Some(Instant::now() + CANCEL_REPEAT);
            }
            () = at(kill_at), if give_up_at.is_none() => {
                connection::terminate(link.target().clone(), link.pid());
                force = Force::Terminated;
                give_up_at = Some(Instant::now() + TERMINATE_WAIT);
            }
            () = at(give_up_at) => break None,
            Some(notice) = notices.recv() => notice.tell(log),
        }
    };
    // Race: a backend says that a statement is cancelled, or that it is terminated, before it is done with it. It is
    // when it answers to something else, or has closed the connection.
    if matches!(&result, Some(Err(trouble)) if trouble.is_stop()) {
        let over = async {
            match force {
                Force::None => {}
                // Another request may still come and hit this; then that is the answer.
                Force::Cancelled => drop(link.client().batch_execute("").await),
                Force::Terminated => {
                    while let Some(notice) = notices.recv().await {
                        notice.tell(log);
                    }
                }
            }
        };
        if tokio::time::timeout(TERMINATE_WAIT, over).await.is_err() {
            result = None;
        }
    }
    // If this future is dropped before, it stays busy.
    link.set_busy(result.is_none());
    Worked { result, force, backend_pid: link.pid() }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}

impl<T> Worked<T> {
    /// Returns the result, or the failure that it or the stop means.
    pub(crate) fn settle(self, brake: &Brake, error: impl FnOnce(Trouble) -> ToolError) -> Result<T, Failure> {
        let Worked { result, force, backend_pid } = self;
        let Some(cause) = brake.cause().filter(|_| force > Force::None) else {
            return match result {
                Some(Ok(value)) => Ok(value),
                Some(Err(trouble)) => Err(error(trouble).into()),
                // Nothing is given up unless somebody wanted it to stop.
                None => Err(super::config_error("the statement was given up").into()),
            };
        };
        let stopped = match &result {
            // It had ended before the order came through: then the order changed nothing.
            Some(Ok(_)) => None,
            Some(Err(trouble)) if trouble.is_stop() => Some(match force {
                Force::None | Force::Cancelled => Stopped::Stopped,
                Force::Terminated => Stopped::Killed,
            }),
            // The connection broke: whether the backend ended with it is not known.
            Some(Err(trouble)) if trouble.is_closed() => Some(Stopped::Unconfirmed),
            Some(Err(_)) => None,
            None => Some(Stopped::Unconfirmed),
        };
        match (result, stopped) {
            (Some(Ok(value)), _) => Ok(value),
            (Some(Err(trouble)), None) => Err(error(trouble).into()),
            (_, Some(Stopped::Unconfirmed) | None) => {
                let error = cause.error().with("backend_pid", backend_pid);
                Err(Failure::stopped(error, Stopped::Unconfirmed))
            }
            (_, Some(stopped)) => Err(Failure::stopped(cause.error(), stopped)),
        }
    }
}
