//! Jobs: walks over a family or a selection, chunk by chunk, that any server can go on with.
//!
//! A walk reads nothing but its row: whoever takes it over goes on where it stopped. What it has still to visit stands on
//! its front (a family, listed ids) or below its cursor (what a selection finds); the front comes first.

use std::cmp::Reverse;
use std::sync::{Arc, Mutex};

use noetl_core::control::cancel::Request;
use noetl_core::control::selection::{self, Selection};
use noetl_core::head::{Head, Status};
use noetl_core::id::{CancellationId, ExecutionId};
use noetl_core::playbook::CancelMode;
use noetl_core::time::Timestamp;
use noetl_store::{Cancellation, DRIVE_CLAIM_MS, FamilyAction, ListQuery, LockedView, Pick, StoreError, Visit};
use tokio::time::{Duration, Instant};

use crate::cancel::{self, CancelRequest, Decided, What};
use crate::cascade::Driving;
use crate::engine::Engine;
use crate::hold;
use crate::landing::Landing;
use crate::pause::Change;

/// Heads in one transaction at most.
pub(crate) const CHUNK_MAX: usize = 500;
/// Heads in the first transaction.
const CHUNK_FIRST: usize = 128;
/// Heads in one transaction at least, without a rate: below it the commit is what takes the time.
const CHUNK_MIN: usize = 64;
/// How long one transaction should take: other work waits for it.
const CHUNK_TIME: Duration = Duration::from_millis(25);
/// Transactions per second under a rate. A pause is never longer than a second, and so well within
/// [`DRIVE_CLAIM_MS`].
const PACED_STEPS: usize = 10;

/// Returns the row of a job that has done nothing yet and that is driven from now on.
pub(crate) fn empty(cancellation_id: CancellationId, cancelled_by: &str, now: Timestamp) -> Cancellation {
    Cancellation {
        cancellation_id,
        action: FamilyAction::Cancel,
        requested_execution_id: None,
        selection: None,
        cascade: false,
        reason: None,
        cancelled_by: cancelled_by.to_owned(),
        requested_by: None,
        remote: None,
        mode: None,
        grace_ms: None,
        idempotency_key: None,
        rate: None,
        selected: None,
        cursor: None,
        cancelled: 0,
        visited: 0,
        spared: 0,
        created_at: now,
        claimed_until: Some(now.plus_ms(DRIVE_CLAIM_MS)),
        stopped_at: None,
        stopped_by: None,
        done_at: None,
    }
}

/// Returns the same, with what a request says.
pub(crate) fn recorded(cancellation_id: CancellationId, request: &CancelRequest, now: Timestamp) -> Cancellation {
    Cancellation {
        reason: request.reason.clone(),
        requested_by: request.requested_by.clone(),
        remote: request.remote.clone(),
        mode: request.mode,
        grace_ms: request.grace_ms,
        idempotency_key: request.idempotency_key.clone(),
        ..empty(cancellation_id, &request.cancelled_by, now)
    }
}

/// A walk over a family or a selection.
pub(crate) struct Walk {
    id: CancellationId,
    request: Arc<Request>,
    selection: Option<Arc<Selection>>,
    /// Something may stand on the front.
    front: bool,
    cursor: Option<ExecutionId>,
    size: usize,
    pace: Pace,
}

/// What one step brought about.
#[derive(Debug, Default)]
pub(crate) struct Stepped {
    pub(crate) decided: Vec<Decided>,
    /// Selected ones that had ended or moved on, and descendants that are shielded.
    pub(crate) spared: Vec<ExecutionId>,
    /// Nothing is left.
    pub(crate) done: bool,
}

impl Walk {
    pub(crate) fn new(job: &Cancellation, default_mode: CancelMode) -> Self {
        let listed = job.selection.as_ref().is_some_and(|selection| !selection.ids.is_empty());
        Walk {
            id: job.cancellation_id,
            request: Arc::new(Request {
                // Of a selection each one is requested by itself.
                requested_execution_id: job.requested_execution_id.unwrap_or(ExecutionId(0)),
                job_id: Some(job.cancellation_id),
                reason: job.reason.clone(),
                cancelled_by: job.cancelled_by.clone(),
                requested_by: job.requested_by.clone(),
                remote: job.remote.clone(),
                cascade: job.cascade,
                mode: job.mode,
                default_mode,
                grace_ms: job.grace_ms,
                idempotency_key: job.idempotency_key.clone(),
            }),
            selection: job.selection.clone().map(Arc::new),
            front: job.requested_execution_id.is_some() || listed || job.visited > 0,
            cursor: job.cursor,
            size: CHUNK_FIRST,
            pace: Pace { rate: job.rate, began: Instant::now(), visited: 0 },
        }
    }

    /// Decides the next chunk.
    pub(crate) async fn step(&mut self, engine: &Engine) -> Result<Stepped, StoreError> {
        let size = self.pace.size(self.size);
        let pick = match (self.front, self.cursor) {
            (true, _) | (false, None) => Pick::Front(size),
            (false, Some(from)) => self.page(engine, from, size).await?,
        };
        let found = matches!(pick, Pick::Page { .. });
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let decide = {
            let (seen, request, ids) = (Arc::clone(&seen), Arc::clone(&self.request), Arc::clone(&engine.ids));
            let selection = self.selection.clone();
            Box::new(move |locked: &LockedView, through: ExecutionId| {
                hold(&seen).visit(locked, through, &request, selection.as_deref(), &mut hold(&ids))
            })
        };
        let began = Instant::now();
        let chunk = engine.store.cancel_chunk(self.id, pick, decide).await?;
        let took = began.elapsed();
        self.size = if took > CHUNK_TIME { self.size / 2 } else { self.size * 2 }.clamp(CHUNK_MIN, CHUNK_MAX);
        self.pace.visited += chunk.visited.len() as u64;
        self.front = chunk.front;
        self.cursor = chunk.cursor;
        let Seen { mut decided, mut spared } = std::mem::take(&mut *hold(&seen));
        if found {
            // Newest first, as they were found; a store visits them in the order in which it locks them.
            decided.sort_by_key(|(one, _)| Reverse(one.execution_id));
            spared.sort_by_key(|id| Reverse(*id));
        }
        let mut stepped = Stepped { decided: Vec::with_capacity(decided.len()), spared, done: chunk.done };
        for (one, landing) in decided {
            if let Some((landing, version)) = landing {
                engine.landed(landing, version);
            }
            engine.tell_workers(&one);
            stepped.decided.push(one);
        }
        Ok(stepped)
    }

    /// Looks for the next that match.
    async fn page(&self, engine: &Engine, from: ExecutionId, size: usize) -> Result<Pick, StoreError> {
        let Some(selection) = &self.selection else { return Ok(Pick::Front(size)) };
        let query = ListQuery { before: Some(from), limit: size as u64, ..query_of(selection) };
        let (ids, to) = engine.page_of(selection, query).await?;
        Ok(Pick::Page { ids, from, to })
    }

    /// Lets others have a turn, and keeps to the rate.
    pub(crate) async fn pause(&self) {
        match self.pace.next() {
            Some(at) => tokio::time::sleep_until(at).await,
            None => tokio::task::yield_now().await,
        }
    }

    /// Returns when the next step may be taken, under a rate.
    pub(crate) fn next_step(&self) -> Option<Instant> {
        self.pace.next()
    }
}

/// What a step's decisions were, in order.
#[derive(Default)]
struct Seen {
    decided: Vec<(Decided, Option<(Landing, u64)>)>,
    spared: Vec<ExecutionId>,
}

impl Seen {
    fn visit(
        &mut self,
        locked: &LockedView,
        through: ExecutionId,
        request: &Request,
        selection: Option<&Selection>,
        ids: &mut noetl_core::id::IdSource,
    ) -> Visit {
        let execution_id = locked.view.head.execution_id;
        // A descendant of what was selected need not match; what was selected must still.
        let selected = selection.filter(|_| through == execution_id);
        if selected.is_some_and(|selection| selection.ids.is_empty() && !selection.holds(&locked.view)) {
            self.spared.push(execution_id);
            return Visit { append: None, walks_on: false };
        }
        let one = Request { requested_execution_id: through, ..request.clone() };
        let (decided, append) = cancel::decide(&locked.view, &one, locked.now, ids);
        let landing = append.as_ref().map(|append| {
            let version = locked.view.head.version + append.events.len() as u64;
            (Landing::of_control(append, &locked.view.head), version)
        });
        let spared = match decided.what {
            What::Spared(_) => true,
            What::AlreadyEnded => selected.is_some(),
            What::Cancelled { .. } | What::Escalated => false,
        };
        if spared {
            self.spared.push(execution_id);
        }
        self.decided.push((decided, landing));
        // A listed one that has ended may have descendants that run on. Below what is shielded nobody is asked for,
        // whether it still runs or not.
        Visit { append, walks_on: request.cascade && !locked.view.head.is_shielded_from(through) }
    }
}

/// How fast a job may be.
struct Pace {
    rate: Option<u32>,
    began: Instant,
    visited: u64,
}

impl Pace {
    fn size(&self, size: usize) -> usize {
        match self.rate {
            Some(rate) => size.min((rate as usize / PACED_STEPS).max(1)),
            None => size,
        }
    }

    fn next(&self) -> Option<Instant> {
        let rate = u64::from(self.rate?.max(1));
        Some(self.began + Duration::from_millis(self.visited.saturating_mul(1_000) / rate))
    }
}

/// Returns the query that finds what a selection matches.
pub(crate) fn query_of(selection: &Selection) -> ListQuery {
    ListQuery {
        status: vec![Status::Running],
        path: selection.path.clone(),
        parent: selection.parent,
        labels: selection.labels.clone(),
        started_before: selection.started_before,
        idle_since: selection.idle_since,
        ..ListQuery::default()
    }
}

impl Engine {
    /// Goes on with a cascade or job that somebody left or lost, to its end.
    pub(crate) async fn finish_job(&self, job: &Cancellation, mut driving: Driving) -> Result<(), StoreError> {
        match job.action {
            FamilyAction::Cancel => {}
            FamilyAction::Pause => return self.finish_pausing(job, Change::Pause, driving).await,
            FamilyAction::Resume => return self.finish_pausing(job, Change::Resume, driving).await,
        }
        let mut walk = Walk::new(job, self.options.default_cancel_mode);
        while !walk.step(self).await?.done {
            walk.pause().await;
        }
        driving.done = true;
        tracing::info!(job = %job.cancellation_id, "nothing is left to cancel");
        Ok(())
    }

    /// Returns what matches on one page, and where the next one begins.
    pub(crate) async fn page_of(
        &self,
        selection: &Selection,
        query: ListQuery,
    ) -> Result<(Vec<ExecutionId>, Option<ExecutionId>), StoreError> {
        let limit = query.limit;
        if !selection.stuck {
            let ids = self.store.execution_ids(query).await?;
            let to = ids.last().copied().filter(|_| ids.len() as u64 >= limit);
            return Ok((ids, to));
        }
        let heads = self.store.executions(query).await?;
        let to = heads.last().map(|head| head.execution_id).filter(|_| heads.len() as u64 >= limit);
        let mut ids = Vec::new();
        for head in heads {
            if self.is_stuck(&head).await? {
                ids.push(head.execution_id);
            }
        }
        Ok((ids, to))
    }

    /// Returns whether nothing will ever move it on by itself.
    async fn is_stuck(&self, head: &Head) -> Result<bool, StoreError> {
        if head.in_flight > 0 {
            return Ok(false);
        }
        let Some(view) = self.store.view(head.execution_id).await? else { return Ok(false) };
        if !selection::waits_for_nothing(&view) {
            return Ok(false);
        }
        let children = ListQuery {
            parent: Some(head.execution_id),
            status: vec![Status::Running],
            limit: 1,
            ..ListQuery::default()
        };
        Ok(self.store.execution_ids(children).await?.is_empty())
    }
}
