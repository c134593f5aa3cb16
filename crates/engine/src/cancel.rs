//! Cancelling executions, alone or with their descendants.
//!
//! The decision is one append under the lock of the head; a family is decided member by member by a [`cascade`]. What
//! is done here afterwards (telling workers and parents) only makes it sooner.
//!
//! [`cascade`]: crate::cascade

use std::sync::{Arc, Mutex};

use noetl_core::append::Append;
use noetl_core::control::cancel::{self, Answer, InFlight, Request};
use noetl_core::head::{CancelInfo, CommandRow, CommandState, Head, HeadView, Status};
use noetl_core::id::{CancellationId, ExecutionId, IdSource};
use noetl_core::playbook::{CancelMode, Shield};
use noetl_core::time::Timestamp;
use noetl_store::StoreError;
use serde::{Deserialize, Serialize};
use tokio::time::{Duration, Instant};

use crate::cascade::FAMILY_MAX;
use crate::engine::Engine;
use crate::hold;
use crate::landing::Landing;
use crate::look::WaitFor;
use crate::metrics::{CancelCause, CancelResult};
use crate::transport::Attempt;

/// Who wants what cancelled.
#[derive(Debug, Clone)]
pub struct CancelRequest {
    /// Which.
    pub execution_id: ExecutionId,
    /// Free text.
    pub reason: Option<String>,
    /// Descendants too, at any depth.
    pub cascade: bool,
    /// How what runs is treated; `None` = each execution's own way.
    pub mode: Option<CancelMode>,
    /// Between the polite stop and the kill, in milliseconds.
    pub grace_ms: Option<u64>,
    /// How long to wait until everything cancelled has quiesced, in milliseconds.
    pub wait_ms: u64,
    /// Wait for the ends of the cleanups, too.
    pub wait_for_cleanup: bool,
    /// Only say what would be cancelled.
    pub dry_run: bool,
    /// The authenticated identity, else `api`, `cli`, …
    pub cancelled_by: String,
    /// Self-declared.
    pub requested_by: Option<String>,
    /// Where the request came from.
    pub remote: Option<String>,
    /// A repeat with the same key gets the first answer.
    pub idempotency_key: Option<String>,
}

/// What became of a request to cancel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CancelAnswer {
    /// Done, or only looked.
    pub status: CancelStatus,
    /// The execution that the request named.
    pub execution_id: ExecutionId,
    /// What this request cancelled, the named one first if it is among them.
    pub cancelled_executions: Vec<ExecutionId>,
    /// What a request without `dry_run` would cancel now.
    pub would_cancel: Vec<ExecutionId>,
    /// Something was cancelled before, and what still runs of it is now stopped harder.
    pub escalated: bool,
    /// Which executions those are.
    #[serde(default)]
    pub escalated_executions: Vec<ExecutionId>,
    /// What a request without `dry_run` would stop harder now.
    #[serde(default)]
    pub would_escalate: Vec<ExecutionId>,
    /// The request's reason.
    pub reason: Option<String>,
    /// The mode that holds for the named execution.
    pub mode: CancelMode,
    /// What workers held at the decision.
    pub in_flight: Vec<InFlight>,
    /// Descendants that run on because `cascade` was not asked.
    pub active_descendants: u64,
    /// Descendants that were left alone with all that is below them, because they are shielded.
    #[serde(default)]
    pub spared: Vec<Spared>,
    /// Nothing of what was cancelled runs any more, and what is waited for has ended.
    pub quiesced: bool,
    /// The execution that cleans up after the named one; it begins when that has quiesced.
    #[serde(default)]
    pub cleanup: Option<ExecutionId>,
    /// Every cleanup has ended; known only when it was waited for.
    #[serde(default)]
    pub cleaned_up: bool,
    /// Everything asked for has been decided.
    pub complete: bool,
    /// The cascade, to be asked about later.
    pub job_id: Option<CancellationId>,
    /// One sentence for people.
    pub message: String,
}

/// A descendant that a cascade left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spared {
    /// Which.
    pub execution_id: ExecutionId,
    /// What its parent's task says: `abandon`, or `wait`.
    pub policy: Shield,
}

/// Kinds of answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelStatus {
    /// It was decided.
    Cancelled,
    /// Nothing was changed.
    DryRun,
}

/// Why nothing was cancelled.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// 404.
    #[error("Execution {0} not found")]
    Unknown(ExecutionId),
    /// 409. The head says when, and for a cancelled one who and why.
    #[error("Execution {} is already {}", head.execution_id, head.status.as_str())]
    AlreadyEnded {
        /// As it stands.
        head: Box<Head>,
        /// What of it, and with `cascade` below it, has ended and has something running still.
        unquiesced: Vec<ExecutionId>,
    },
    /// 503 or 507.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CancelError {
    /// Returns the refusal of a request that is about this execution alone.
    pub fn of_ended(head: Box<Head>) -> Self {
        let unquiesced = unquiesced(&head).into_iter().collect();
        CancelError::AlreadyEnded { head, unquiesced }
    }

    /// Returns the status of an execution that had ended.
    pub fn ended(&self) -> Option<Status> {
        match self {
            CancelError::AlreadyEnded { head, .. } => Some(head.status),
            CancelError::Unknown(_) | CancelError::Store(_) => None,
        }
    }
}

/// What a request made of one execution.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) execution_id: ExecutionId,
    pub(crate) what: What,
    pub(crate) in_flight: Vec<InFlight>,
    /// As it stood under the lock, when this decision wrote nothing.
    pub(crate) stood: Option<Box<Head>>,
    /// What this decision wrote down of it; `None` when it wrote nothing.
    cancel: Option<CancelInfo>,
    /// What is told to workers.
    orders: Vec<(Attempt, CancelMode, u64)>,
}

impl Decided {
    /// Returns what another server decided for the same request, as the rows tell it.
    pub(crate) fn elsewhere(head: &Head, in_flight: Vec<InFlight>) -> Option<Self> {
        let cancel = head.cancel.clone()?;
        let what = What::Cancelled { mode: cancel.mode, quiesced: head.quiesced_at.is_some() };
        let execution_id = head.execution_id;
        Some(Decided { execution_id, what, in_flight, stood: None, cancel: Some(cancel), orders: Vec::new() })
    }

    /// Returns whether this decision wrote something.
    pub(crate) fn wrote(&self) -> bool {
        self.cancel.is_some()
    }

    /// One line for each decision.
    fn log(&self) {
        let Decided { execution_id: execution, what, in_flight, cancel, .. } = self;
        let Some(cancel) = cancel else { return };
        let in_flight = in_flight.len();
        let (by, reason) = (cancel.cancelled_by.as_str(), cancel.reason.as_deref().unwrap_or_default());
        let (mode, named) = (cancel.mode, cancel.requested_execution_id);
        match what {
            What::Cancelled { quiesced, .. } => {
                tracing::info!(%execution, by, reason, ?mode, %named, in_flight, quiesced, "execution cancelled");
            }
            What::Escalated => {
                tracing::info!(%execution, by, reason, ?mode, in_flight, "cancelled execution is stopped harder");
            }
            What::AlreadyEnded | What::Spared(_) => {}
        }
    }
}

/// Kinds of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// This request cancelled it, or an earlier one with the same key did.
    Cancelled {
        /// The mode that holds for it.
        mode: CancelMode,
        /// Nothing of it runs.
        quiesced: bool,
    },
    /// It is stopped harder.
    Escalated,
    /// It is shielded, and runs on.
    Spared(Shield),
    /// It had ended.
    AlreadyEnded,
}

/// Decides a request for one execution, and notes what to tell to whom.
pub(crate) fn decide(
    view: &HeadView,
    request: &Request,
    now: Timestamp,
    ids: &mut IdSource,
) -> (Decided, Option<Append>) {
    let execution_id = view.head.execution_id;
    let wrote = |what, in_flight, append: &Append| {
        let cancel = append.head.cancel.clone();
        let order = |row: &CommandRow| {
            let attempt = Attempt { command_id: row.command_id, epoch: row.epoch };
            let mode = cancel.as_ref().map_or(CancelMode::Finish, |cancel| cancel.mode);
            (attempt, mode, cancel::grace_ms_under(cancel.as_ref(), &view.head, row))
        };
        let claimed = view.commands.iter().filter(|row| row.state == CommandState::Claimed);
        let orders = claimed.map(order).collect();
        Decided { execution_id, what, in_flight, stood: None, cancel, orders }
    };
    let stays = |what, in_flight| {
        let stood = Some(Box::new(view.head.clone()));
        Decided { execution_id, what, in_flight, stood, cancel: None, orders: Vec::new() }
    };
    match cancel::decide(view, request, now, ids) {
        Answer::Cancelled { append, in_flight, quiesced, mode } => {
            (wrote(What::Cancelled { mode, quiesced }, in_flight, &append), Some(*append))
        }
        Answer::Escalated { append, in_flight } => {
            let mut harder = wrote(What::Escalated, in_flight, &append);
            if let Some(cancel) = &mut harder.cancel {
                // The head keeps who cancelled it and why; this decision was made by this request.
                cancel.cancelled_by.clone_from(&request.cancelled_by);
                cancel.reason.clone_from(&request.reason);
            }
            (harder, Some(*append))
        }
        Answer::Spared(shield) => (stays(What::Spared(shield), Vec::new()), None),
        Answer::AlreadyEnded => (stays(What::AlreadyEnded, Vec::new()), None),
        // The first answer was lost on its way; this is the same one again.
        Answer::Repeated { in_flight } => {
            let mode = view.head.cancel.as_ref().map_or(request.default_mode, |cancel| cancel.mode);
            let quiesced = view.head.quiesced_at.is_some();
            (stays(What::Cancelled { mode, quiesced }, in_flight), None)
        }
    }
}

impl Engine {
    /// Cancels an execution, and with `cascade` its descendants. What it answers is durable.
    pub async fn cancel(&self, request: CancelRequest) -> Result<CancelAnswer, CancelError> {
        if request.dry_run {
            return self.would_cancel(&request).await;
        }
        let key = request.idempotency_key.as_ref().map(|key| format!("cancel/{}/{key}", request.execution_id));
        self.once(key, self.cancel_now(&request)).await
    }

    async fn cancel_now(&self, request: &CancelRequest) -> Result<CancelAnswer, CancelError> {
        let asked = Instant::now();
        let decided = if request.cascade { self.cancel_family(request).await } else { self.cancel_one(request).await };
        if let Err(CancelError::AlreadyEnded { head, .. }) = &decided {
            let mode = request.mode.or(head.cancel_mode).unwrap_or(self.options.default_cancel_mode);
            let cause = CancelCause::of(&request.cancelled_by);
            self.metrics.cancels.add_one(mode, cause, CancelResult::AlreadyEnded);
        }
        let mut answer = decided?;
        if request.wait_ms > 0 && answer.complete && !answer.quiesced {
            answer.quiesced = self.wait_all_quiesced(&answer, asked, request.wait_ms).await?;
        }
        if request.wait_for_cleanup && answer.quiesced {
            answer.cleaned_up = self.wait_all_cleaned_up(&answer, asked, request.wait_ms).await?;
        }
        Ok(answer)
    }

    async fn cancel_one(&self, request: &CancelRequest) -> Result<CancelAnswer, CancelError> {
        let asked = self.request(request);
        let seen: Arc<Mutex<Option<Decided>>> = Arc::default();
        let out = Arc::clone(&seen);
        self.under_lock_with(request.execution_id, None, move |locked, ids| {
            let (decided, append) = decide(&locked.view, &asked, locked.now, ids);
            *hold(&out) = Some(decided);
            let append = append?;
            let landing = Landing::of_control(&append, &locked.view.head);
            Some((append, landing))
        })
        .await?
        .wrote()?;
        let Some(decided) = hold(&seen).take() else { return Err(CancelError::Unknown(request.execution_id)) };
        self.tell_workers(&decided);
        if let Decided { what: What::AlreadyEnded, stood: Some(head), .. } = decided {
            return Err(CancelError::of_ended(head));
        }
        let mut answer = answer(request, vec![decided]);
        answer.active_descendants = self.store.active_below(request.execution_id, FAMILY_MAX as u64).await?;
        Ok(answer)
    }

    /// Returns the request as the core reads it.
    pub(crate) fn request(&self, request: &CancelRequest) -> Request {
        Request {
            requested_execution_id: request.execution_id,
            job_id: None,
            reason: request.reason.clone(),
            cancelled_by: request.cancelled_by.clone(),
            requested_by: request.requested_by.clone(),
            remote: request.remote.clone(),
            cascade: request.cascade,
            mode: request.mode,
            default_mode: self.options.default_cancel_mode,
            grace_ms: request.grace_ms,
            idempotency_key: request.idempotency_key.clone(),
        }
    }

    /// Pushes cancel orders over the open polls of workers that speak to this server. Others hear of it from the
    /// server they speak to, which sweeps for it.
    pub(crate) fn tell_workers(&self, decided: &Decided) {
        decided.log();
        if let Some(cancel) = &decided.cancel {
            let result = match decided.what {
                What::Cancelled { .. } => CancelResult::Cancelled,
                What::Escalated => CancelResult::Escalated,
                What::AlreadyEnded => CancelResult::AlreadyEnded,
                // It runs on: nothing to count, and nobody to tell.
                What::Spared(_) => return,
            };
            self.metrics.cancels.add_one(cancel.mode, CancelCause::of(&cancel.cancelled_by), result);
        }
        for (attempt, mode, grace_ms) in &decided.orders {
            if self.desk.cancel(*attempt, *mode, *grace_ms) {
                self.metrics.cancel_orders.add_one();
            }
        }
    }

    async fn wait_all_quiesced(&self, answer: &CancelAnswer, asked: Instant, wait_ms: u64) -> Result<bool, StoreError> {
        let deadline = asked + Duration::from_millis(wait_ms);
        let waited = answer.spared.iter().filter(|spared| spared.policy == Shield::Wait);
        let waited = waited.map(|spared| &spared.execution_id);
        for execution_id in answer.cancelled_executions.iter().chain(&answer.escalated_executions).chain(waited) {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            let head = self.wait(*execution_id, WaitFor::Quiesced, left).await?;
            if head.is_none_or(|head| !WaitFor::Quiesced.reached(&head)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Engine {
    /// Waits for the ends of the cleanups of what was cancelled; `false` when the time is over before.
    async fn wait_all_cleaned_up(
        &self,
        answer: &CancelAnswer,
        asked: Instant,
        wait_ms: u64,
    ) -> Result<bool, StoreError> {
        let deadline = asked + Duration::from_millis(wait_ms);
        for execution_id in &answer.cancelled_executions {
            let head = self.store.head(*execution_id).await?;
            let Some(cleanup) = head.and_then(|head| head.cancel).and_then(|cancel| cancel.cleanup) else { continue };
            let left = deadline.saturating_duration_since(Instant::now());
            let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            let head = self.wait(cleanup, WaitFor::Quiesced, left).await?;
            if head.is_none_or(|head| !WaitFor::Quiesced.reached(&head)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Returns the answer to a request that decided all this.
pub(crate) fn answer(request: &CancelRequest, decided: Vec<Decided>) -> CancelAnswer {
    let mut answer = CancelAnswer {
        status: CancelStatus::Cancelled,
        execution_id: request.execution_id,
        cancelled_executions: Vec::new(),
        would_cancel: Vec::new(),
        escalated: false,
        escalated_executions: Vec::new(),
        would_escalate: Vec::new(),
        reason: request.reason.clone(),
        mode: request.mode.unwrap_or(CancelMode::Finish),
        in_flight: Vec::new(),
        active_descendants: 0,
        spared: Vec::new(),
        cleanup: None,
        cleaned_up: false,
        quiesced: true,
        complete: true,
        job_id: None,
        message: String::new(),
    };
    for one in decided {
        let named = one.execution_id == request.execution_id;
        let before = one.stood.as_ref().and_then(|head| head.cancel.as_ref());
        if named {
            answer.cleanup = one.cancel.as_ref().or(before).and_then(|cancel| cancel.cleanup);
        }
        match one.what {
            What::Cancelled { mode, quiesced } => {
                answer.cancelled_executions.push(one.execution_id);
                answer.quiesced &= quiesced;
                if named {
                    answer.mode = mode;
                }
            }
            What::Escalated => {
                answer.quiesced = false;
                answer.escalated = true;
                answer.escalated_executions.push(one.execution_id);
            }
            What::Spared(policy) => {
                answer.spared.push(Spared { execution_id: one.execution_id, policy });
                answer.quiesced &= policy == Shield::Abandon;
            }
            What::AlreadyEnded => {
                if named && let Some(cancel) = before {
                    answer.mode = cancel.mode;
                }
            }
        }
        answer.in_flight.extend(one.in_flight);
    }
    if answer.escalated {
        // Only an explicit interrupt escalates, and that holds for all.
        answer.mode = CancelMode::Interrupt;
    }
    answer.message = match (answer.cancelled_executions.len(), answer.escalated_executions.len()) {
        (count, 0) => format!("Cancelled {count} execution(s)"),
        (0, _) => format!("Escalated to interrupt: {} command(s) still in flight", answer.in_flight.len()),
        (count, harder) => format!("Cancelled {count} execution(s), escalated {harder} to interrupt"),
    };
    answer
}

/// Returns the execution when it has ended and something of it still runs.
pub(crate) fn unquiesced(head: &Head) -> Option<ExecutionId> {
    (!head.is_active() && head.quiesced_at.is_none()).then_some(head.execution_id)
}
