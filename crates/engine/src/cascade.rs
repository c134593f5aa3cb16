//! Cascades: a cancel that goes down a family, chunk by chunk.
//!
//! Recorded durably before the first member is fenced, so that any server finishes it after a crash. Each chunk fences
//! its members, then lists their children in a read that starts after the fences are held: nothing is born behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use noetl_core::append::Due;
use noetl_core::concurrency::BY_CONCURRENCY;
use noetl_core::control::cancel::{self as cancel_core, BY_TIMEOUT, InFlight};
use noetl_core::head::Head;
use noetl_core::id::{CancellationId, ExecutionId};
use noetl_core::playbook::CancelMode;
use noetl_store::{Cancellation, EventQuery, ListQuery, StoreError};
use tokio::time::{Duration, Instant};

use crate::cancel::{self, CancelAnswer, CancelError, CancelRequest, CancelStatus, Decided, Spared, What};
use crate::engine::Engine;
use crate::hold;
use crate::job::{self, Stepped, Walk};
use crate::stop::BY_PARENT;

/// Members of a family listed at a time.
const FAMILY_PAGE: u64 = 1000;
/// Members of a family looked at when nothing is written, at most.
pub(crate) const FAMILY_MAX: usize = 100_000;

/// Members whose running commands are listed when nothing is written, at most.
const IN_FLIGHT_LOOKED_AT: usize = 1_000;

/// The cascades and jobs that this process is driving.
#[derive(Debug, Default)]
pub(crate) struct Cascades {
    driving: Mutex<BTreeSet<CancellationId>>,
    /// Begun here and left, because whoever asked had to be answered or went away.
    left: Mutex<BTreeSet<CancellationId>>,
}

/// The right to drive one cascade or job in this process. Given up unfinished, the sweep goes on with it.
#[derive(Debug)]
pub(crate) struct Driving {
    cascades: Arc<Cascades>,
    id: CancellationId,
    pub(crate) done: bool,
}

impl Cascades {
    /// Begins to drive a cascade, unless somebody here is at it.
    pub(crate) fn drive(self: &Arc<Self>, id: CancellationId) -> Option<Driving> {
        hold(&self.left).remove(&id);
        let free = hold(&self.driving).insert(id);
        free.then(|| Driving { cascades: Arc::clone(self), id, done: false })
    }

    /// Returns whether somebody here is at it.
    pub(crate) fn drives(&self, id: CancellationId) -> bool {
        hold(&self.driving).contains(&id)
    }

    /// Returns the cascades that were left unfinished.
    pub(crate) fn left(&self) -> BTreeSet<CancellationId> {
        hold(&self.left).clone()
    }
}

impl Drop for Driving {
    fn drop(&mut self) {
        hold(&self.cascades.driving).remove(&self.id);
        if !self.done {
            hold(&self.cascades.left).insert(self.id);
        }
    }
}

impl Engine {
    pub(crate) async fn cancel_family(&self, request: &CancelRequest) -> Result<CancelAnswer, CancelError> {
        let Some(head) = self.store.head(request.execution_id).await? else {
            return Err(CancelError::Unknown(request.execution_id));
        };
        let now = self.now().await?;
        let id = CancellationId(self.next_id(now));
        // Before the first fence: a crash right after it must leave somebody who knows that there is more to do.
        let cancellation = Cancellation {
            requested_execution_id: Some(request.execution_id),
            cascade: true,
            ..job::recorded(id, request, now)
        };
        self.store.open_cancellation(cancellation.clone()).await?;
        let Some(mut driving) = self.cascades.drive(id) else {
            return Err(StoreError::Unavailable(format!("cascade {id} is driven twice")).into());
        };
        let deadline = Instant::now() + Duration::from_millis(self.options.cascade_answer_ms);
        let mut walk = Walk::new(&cancellation, self.options.default_cancel_mode);
        let mut decided = Vec::new();
        let mut unquiesced = Vec::new();
        loop {
            let Stepped { decided: chunk, done, .. } = walk.step(self).await?;
            let stood = chunk.iter().filter_map(|one| one.stood.as_deref().filter(|_| one.what == What::AlreadyEnded));
            unquiesced.extend(stood.filter_map(cancel::unquiesced));
            decided.extend(
                chunk
                    .into_iter()
                    .filter(|one| one.what != What::AlreadyEnded || one.execution_id == request.execution_id),
            );
            if done {
                driving.done = true;
                break;
            }
            if Instant::now() >= deadline {
                break;
            }
            tokio::task::yield_now().await;
        }
        let complete = driving.done;
        drop(driving);
        self.add_decided_elsewhere(&cancellation, &head, &mut decided).await?;
        let touched = decided.iter().any(|one| match one.what {
            What::Cancelled { .. } | What::Escalated => true,
            What::AlreadyEnded | What::Spared(_) => false,
        });
        if complete && !touched {
            // As it stood under the lock: before the walk it may still have run, and another request was faster.
            let named = decided.into_iter().find(|one| one.execution_id == request.execution_id);
            let head = match named.and_then(|one| one.stood) {
                Some(head) => head,
                // Another server has walked there.
                None => Box::new(self.store.head(request.execution_id).await?.unwrap_or(head)),
            };
            return Err(CancelError::AlreadyEnded { head, unquiesced });
        }
        let mut answer = cancel::answer(request, decided);
        answer.complete = complete;
        answer.job_id = Some(id);
        if !complete {
            answer.quiesced = false;
            answer.message = format!("{} so far; job {id} goes on", answer.message);
        }
        Ok(answer)
    }

    /// Adds what other servers decided for a cascade that this one began: its sweep was slow, and another one took it
    /// over. The answer is the request's, whoever carried it out, and so it is read from the rows.
    async fn add_decided_elsewhere(
        &self,
        cascade: &Cancellation,
        named: &Head,
        decided: &mut Vec<Decided>,
    ) -> Result<(), StoreError> {
        let id = cascade.cancellation_id;
        let here = decided.iter().filter(|one| one.wrote()).count() as u64;
        match self.store.cancellation(id).await? {
            Some(row) if row.cancelled > here => {}
            Some(_) | None => return Ok(()),
        }
        let known: BTreeSet<ExecutionId> =
            decided.iter().filter(|one| one.wrote()).map(|one| one.execution_id).collect();
        let mut found = Vec::new();
        let mut before = None;
        while found.len() < FAMILY_MAX {
            let root = Some(named.root_execution_id);
            let query = ListQuery { root, job: Some(id), before, limit: FAMILY_PAGE, ..ListQuery::default() };
            let page = self.store.executions(query).await?;
            let Some(last) = page.last() else { break };
            before = Some(last.execution_id);
            found.extend(page.into_iter().filter(|head| !known.contains(&head.execution_id)));
        }
        for head in found {
            let held = self.held_at_the_end(&head).await?;
            decided.retain(|one| one.wrote() || one.execution_id != head.execution_id);
            decided.extend(Decided::elsewhere(&head, held));
        }
        // The named one comes first in the answer.
        decided.sort_by_key(|one| one.execution_id != cascade.requested_execution_id.unwrap_or(named.execution_id));
        Ok(())
    }

    /// Returns what workers held of an execution when it was cancelled, from its log.
    async fn held_at_the_end(&self, head: &Head) -> Result<Vec<InFlight>, StoreError> {
        let held_something = head.in_flight > 0 || head.cancel.as_ref().is_some_and(|cancel| !cancel.ended.is_empty());
        if !held_something {
            return Ok(Vec::new());
        }
        let query = EventQuery { execution_id: Some(head.execution_id), limit: u64::MAX, ..EventQuery::default() };
        let (log, _) = self.store.events(query).await?;
        Ok(cancel_core::in_flight_of(&log))
    }

    /// Begins what the time limit of an execution brings about: it fails, its descendants are cancelled, what runs is
    /// interrupted. `None` when it has ended.
    ///
    pub(crate) async fn time_out(&self, due: &Due) -> Result<Option<(Cancellation, Driving)>, StoreError> {
        let Some(head) = self.store.head(due.execution_id).await?.filter(Head::is_active) else { return Ok(None) };
        // The obligation is deleted when the execution has ended, which the cascade sees to.
        let begun = |known: &Cancellation| {
            known.requested_execution_id == Some(due.execution_id) && known.cancelled_by == BY_TIMEOUT
        };
        if self.store.open_cancellations().await?.iter().any(begun) {
            return Ok(None);
        }
        let limit_ms = due.at.since_ms(head.started_at);
        let key = if head.cleanup_of.is_some() { "cleanup_timeout" } else { "timeout" };
        let reason = format!("it took longer than {} s (executor.spec.{key})", limit_ms as f64 / 1000.0);
        self.begin_cascade(due.execution_id, reason, BY_TIMEOUT).await
    }

    /// Begins to cancel a child that nobody waits for any more, with its descendants. `None` when it has ended, or when
    /// that has begun.
    pub(crate) async fn cancel_left_child(&self, due: &Due) -> Result<Option<(Cancellation, Driving)>, StoreError> {
        let Some(head) = self.store.head(due.execution_id).await?.filter(Head::is_active) else { return Ok(None) };
        if head.shield.is_some() {
            self.under_lock(due.execution_id, None, |locked, _| {
                Some(cancel_core::left_alone(&locked.view, locked.now))
            })
            .await?;
            return Ok(None);
        }
        // As with a time limit: the obligation is deleted when the child has ended.
        let begun = |known: &Cancellation| {
            known.requested_execution_id == Some(due.execution_id) && known.cancelled_by == BY_PARENT
        };
        if self.store.open_cancellations().await?.iter().any(begun) {
            return Ok(None);
        }
        let parent = head.parent_execution_id.map_or_else(String::new, |parent| format!(" {parent}"));
        let reason = format!("its parent{parent} does not wait for it any more");
        self.begin_cascade(due.execution_id, reason, BY_PARENT).await
    }

    /// Begins the end of an execution whose place another one has taken. `None` when it has ended.
    pub(crate) async fn displace(&self, due: &Due) -> Result<Option<(Cancellation, Driving)>, StoreError> {
        let Some(head) = self.store.head(due.execution_id).await?.filter(Head::is_active) else { return Ok(None) };
        // The obligation is deleted when the execution has ended, which the cascade sees to.
        let begun = |known: &Cancellation| {
            known.requested_execution_id == Some(due.execution_id) && known.cancelled_by == BY_CONCURRENCY
        };
        if self.store.open_cancellations().await?.iter().any(begun) {
            return Ok(None);
        }
        let reason = match &head.concurrency_key {
            Some(key) => format!("execution {} has taken its concurrency key `{key}`", due.key),
            None => format!("execution {} has taken its place", due.key),
        };
        self.begin_cascade(due.execution_id, reason, BY_CONCURRENCY).await
    }

    /// Records a cascade that interrupts. Whoever drops what it returns leaves it to the sweep.
    pub(crate) async fn begin_cascade(
        &self,
        requested_execution_id: ExecutionId,
        reason: String,
        cancelled_by: &str,
    ) -> Result<Option<(Cancellation, Driving)>, StoreError> {
        let now = self.now().await?;
        let cancellation = Cancellation {
            requested_execution_id: Some(requested_execution_id),
            cascade: true,
            reason: Some(reason),
            mode: Some(CancelMode::Interrupt),
            ..job::empty(CancellationId(self.next_id(now)), cancelled_by, now)
        };
        self.store.open_cancellation(cancellation.clone()).await?;
        let driving = self.cascades.drive(cancellation.cancellation_id);
        Ok(driving.map(|driving| (cancellation, driving)))
    }

    /// Says what a request would cancel now.
    pub(crate) async fn would_cancel(&self, request: &CancelRequest) -> Result<CancelAnswer, CancelError> {
        let Some(head) = self.store.head(request.execution_id).await? else {
            return Err(CancelError::Unknown(request.execution_id));
        };
        let mut descendants = self.descendants(&head).await?;
        let spared = match request.cascade {
            true => spare(&mut descendants),
            false => Vec::new(),
        };
        let running = descendants.iter().filter(|head| head.is_active()).map(|head| head.execution_id);
        let mut would_cancel: Vec<ExecutionId> = Vec::new();
        let family = || std::iter::once(&head).chain(descendants.iter().filter(|_| request.cascade));
        let harder = |head: &Head| cancel_core::escalates(head, request.mode, request.grace_ms).is_some();
        let would_escalate: Vec<ExecutionId> =
            family().filter(|head| harder(head)).map(|head| head.execution_id).collect();
        let mut active_descendants = 0;
        if head.is_active() {
            would_cancel.push(head.execution_id);
        }
        if request.cascade {
            would_cancel.extend(running);
        } else {
            active_descendants = running.count() as u64;
        }
        if would_cancel.is_empty() && would_escalate.is_empty() {
            let unquiesced = family().filter_map(cancel::unquiesced).collect();
            return Err(CancelError::AlreadyEnded { head: Box::new(head), unquiesced });
        }
        let mut in_flight = Vec::new();
        let touched = family().filter(|head| head.is_active() || harder(head));
        for member in touched.filter(|head| head.in_flight > 0).take(IN_FLIGHT_LOOKED_AT) {
            let view = self.store.view(member.execution_id).await?;
            in_flight.extend(view.iter().flat_map(cancel_core::in_flight));
        }
        let message = match (would_cancel.len(), would_escalate.len()) {
            (count, 0) => format!("Would cancel {count} execution(s)"),
            (0, harder) => format!("Would escalate {harder} execution(s) to interrupt"),
            (count, harder) => format!("Would cancel {count} execution(s), escalate {harder} to interrupt"),
        };
        let own = request.mode.or(head.cancel_mode).unwrap_or(self.options.default_cancel_mode);
        Ok(CancelAnswer {
            status: CancelStatus::DryRun,
            execution_id: request.execution_id,
            cancelled_executions: Vec::new(),
            escalated: false,
            cleanup: None,
            cleaned_up: false,
            reason: request.reason.clone(),
            mode: own,
            in_flight,
            active_descendants,
            spared,
            quiesced: false,
            complete: true,
            job_id: None,
            message,
            would_cancel,
            escalated_executions: Vec::new(),
            would_escalate,
        })
    }

    /// Returns the descendants of an execution, nearest first, at most [`FAMILY_MAX`].
    async fn descendants(&self, top: &Head) -> Result<Vec<Head>, StoreError> {
        let mut children: BTreeMap<ExecutionId, Vec<Head>> = BTreeMap::new();
        let mut before = None;
        let mut count = 0;
        loop {
            let query =
                ListQuery { root: Some(top.root_execution_id), before, limit: FAMILY_PAGE, ..ListQuery::default() };
            let page = self.store.executions(query).await?;
            let Some(last) = page.last() else { break };
            before = Some(last.execution_id);
            count += page.len();
            for head in page {
                if let Some(parent) = head.parent_execution_id {
                    children.entry(parent).or_default().push(head);
                }
            }
            if count >= FAMILY_MAX {
                break;
            }
        }
        let mut found = children.remove(&top.execution_id).unwrap_or_default();
        let mut at = 0;
        while let Some(head) = found.get(at) {
            let below = children.remove(&head.execution_id).unwrap_or_default();
            found.extend(below);
            at += 1;
        }
        Ok(found)
    }
}

/// Takes what is shielded out of a family, with all that is below it; returns those that run. Parents come first.
fn spare(descendants: &mut Vec<Head>) -> Vec<Spared> {
    let mut spared = Vec::new();
    let mut out = BTreeSet::new();
    descendants.retain(|head| {
        let below = head.parent_execution_id.is_some_and(|parent| out.contains(&parent));
        if let Some(policy) = head.shield.filter(|_| !below && head.is_active()) {
            spared.push(Spared { execution_id: head.execution_id, policy });
        }
        let leave = below || head.shield.is_some();
        if leave {
            out.insert(head.execution_id);
        }
        !leave
    });
    spared
}
