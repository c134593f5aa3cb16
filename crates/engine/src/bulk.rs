//! Cancelling many executions at once, by what they have in common or by their ids.
//!
//! Such a request is a [job](crate::job), recorded before the first of them is cancelled. What matches is found by a
//! plain read and looked at again under the lock of its head: whatever has moved on in between is spared. The request is
//! answered when everything is decided, or after the time it allows; then the job goes on without it.

use std::collections::BTreeSet;

use noetl_core::control::selection::Selection;
use noetl_core::id::{CancellationId, ExecutionId};
use noetl_core::labels::Labels;
use noetl_core::time::Timestamp;
use noetl_store::{Cancellation, JobQuery, ListQuery, StoreError};
use serde::{Deserialize, Serialize};
use tokio::time::{Duration, Instant};

use crate::cancel::{CancelRequest, What};
use crate::engine::Engine;
use crate::job::{self, Stepped, Walk};

/// Most executions that one request may match.
pub const MATCHED_MAX: u64 = 10_000_000;
/// Most ids that one request may name.
pub const IDS_MAX: usize = 10_000;
/// Most executions that an answer lists; it always counts them all.
pub const LISTED_MAX: usize = 10_000;
/// Executions looked at together, to find what is stuck.
const PAGE: u64 = 1_000;

/// What executions have in common. All conditions hold together; only running ones match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Catalog path; `*` matches anything.
    pub path: Option<String>,
    /// Started so long ago, in milliseconds.
    pub older_than_ms: Option<u64>,
    /// No event for so long, in milliseconds.
    pub idle_for_ms: Option<u64>,
    /// Direct children of this one.
    pub parent: Option<ExecutionId>,
    /// They have these labels.
    pub labels: Labels,
    /// Nobody works on it and it waits for nothing: no worker holds a command of it, and no timer and no active child
    /// will wake it.
    pub stuck: bool,
}

impl Filter {
    /// Returns whether a condition leaves anything out that runs. A path of stars and a time of zero do not.
    pub fn leaves_out(&self) -> bool {
        let Filter { path, older_than_ms, idle_for_ms, parent, labels, stuck } = self;
        path.as_ref().is_some_and(|path| path.chars().any(|c| c != '*'))
            || older_than_ms.is_some_and(|ms| ms > 0)
            || idle_for_ms.is_some_and(|ms| ms > 0)
            || parent.is_some()
            || !labels.is_empty()
            || *stuck
    }
}

/// Which executions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selected {
    /// Whatever runs and matches.
    Matching(Filter),
    /// These.
    Listed(Vec<ExecutionId>),
}

/// A request to cancel many.
#[derive(Debug, Clone)]
pub struct BulkRequest {
    /// What to cancel.
    pub selected: Selected,
    /// How each is cancelled; `execution_id` is replaced.
    pub how: CancelRequest,
    /// Refuse if more match.
    pub max: u64,
    /// Most executions visited per second.
    pub rate: Option<u32>,
    /// How long the request may hang until everything is decided, in milliseconds.
    pub answer_ms: u64,
}

/// What became of it. Lists hold at most [`LISTED_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BulkAnswer {
    /// How many matched.
    pub matched_count: u64,
    /// What matched, newest first; only when nothing was to be changed.
    pub matched: Vec<ExecutionId>,
    /// How many were cancelled so far, descendants included.
    pub cancelled_count: u64,
    /// What was cancelled so far, descendants included when the request cascades.
    pub cancelled: Vec<ExecutionId>,
    /// What was cancelled before, and is stopped harder.
    pub escalated: Vec<ExecutionId>,
    /// What matched at first and had moved on, or ended, when it was looked at under the lock; and what is shielded
    /// below something that was selected.
    pub spared: Vec<ExecutionId>,
    /// What was named and does not exist.
    pub unknown: Vec<ExecutionId>,
    /// Everything is decided.
    pub complete: bool,
    /// The job; `None` when nothing matched, or nothing was to be changed.
    pub job_id: Option<CancellationId>,
}

/// Why nothing was cancelled.
#[derive(Debug, thiserror::Error)]
pub enum BulkError {
    /// 409.
    #[error("more than {max} executions match; narrow the filter, or raise `max`")]
    TooMany {
        /// The limit.
        max: u64,
    },
    /// 503 or 507.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Engine {
    /// Cancels whatever is selected. With `how.dry_run` it only says what is.
    pub async fn cancel_matching(&self, request: &BulkRequest) -> Result<BulkAnswer, BulkError> {
        let key = request.how.idempotency_key.as_ref().map(|key| format!("cancel/{key}"));
        self.once(key.filter(|_| !request.how.dry_run), self.cancel_selected(request)).await
    }

    async fn cancel_selected(&self, request: &BulkRequest) -> Result<BulkAnswer, BulkError> {
        let asked = Instant::now();
        let now = self.store.now().await?;
        let id = CancellationId(self.next_id(now));
        // Whatever is born after this moment has a higher id: nothing that was not counted can come to match.
        let horizon = ExecutionId(id.0);
        let selection = selection(&request.selected, now);
        let (matched_count, matched) = self.count(&selection, horizon, request).await?;
        let mut answer = BulkAnswer { matched_count, complete: true, ..BulkAnswer::default() };
        if request.how.dry_run {
            answer.matched = matched;
            return Ok(answer);
        }
        if matched_count == 0 {
            return Ok(answer);
        }
        let mut missing: BTreeSet<ExecutionId> = selection.ids.iter().copied().collect();
        let job = Cancellation {
            cascade: request.how.cascade,
            rate: request.rate,
            selected: Some(matched_count),
            cursor: missing.is_empty().then_some(horizon),
            selection: Some(selection),
            ..job::recorded(id, &request.how, now)
        };
        self.store.open_cancellation(job.clone()).await?;
        tracing::info!(job = %id, by = job.cancelled_by, selected = matched_count, "many executions are cancelled");
        let Some(mut driving) = self.cascades.drive(id) else {
            return Err(StoreError::Unavailable(format!("job {id} is driven twice")).into());
        };
        answer.job_id = Some(id);
        answer.complete = false;
        let deadline = asked + Duration::from_millis(request.answer_ms);
        let mut walk = Walk::new(&job, self.options.default_cancel_mode);
        let mut wrote = 0;
        // The next step is taken here, or by the sweep once nobody drives it here.
        while Instant::now() < deadline && walk.next_step().is_none_or(|at| at < deadline) {
            walk.pause().await;
            let stepped = walk.step(self).await?;
            answer.complete = stepped.done;
            wrote += stepped.decided.iter().filter(|one| one.wrote()).count() as u64;
            stepped.decided.iter().for_each(|one| {
                missing.remove(&one.execution_id);
            });
            stepped.spared.iter().for_each(|id| {
                missing.remove(id);
            });
            answer.note(stepped);
            if answer.complete {
                break;
            }
        }
        driving.done = answer.complete;
        drop(driving);
        self.add_elsewhere(id, wrote, &mut answer).await?;
        if answer.complete {
            for id in missing {
                // One that another server has visited is not unknown.
                if self.store.head(id).await?.is_none() {
                    answer.unknown.push(id);
                }
            }
        }
        Ok(answer)
    }

    /// Adds what other servers cancelled for a job that this one began and was slow with: the answer is the request's,
    /// whoever carried it out.
    async fn add_elsewhere(&self, id: CancellationId, wrote: u64, answer: &mut BulkAnswer) -> Result<(), StoreError> {
        match self.store.cancellation(id).await? {
            Some(row) if row.cancelled > wrote => {}
            Some(_) | None => return Ok(()),
        }
        let all = ListQuery { job: Some(id), limit: LISTED_MAX as u64, ..ListQuery::default() };
        let count = ListQuery { limit: MATCHED_MAX, ..all.clone() };
        answer.cancelled_count = self.store.count_executions(count).await?;
        answer.cancelled = self.store.execution_ids(all).await?;
        Ok(())
    }

    /// Counts what matches, and names some.
    async fn count(
        &self,
        selection: &Selection,
        horizon: ExecutionId,
        request: &BulkRequest,
    ) -> Result<(u64, Vec<ExecutionId>), BulkError> {
        let max = request.max;
        let mut found = selection.ids.clone();
        let mut count = found.len() as u64;
        if found.is_empty() && !selection.stuck {
            let query = ListQuery { before: Some(horizon), ..job::query_of(selection) };
            let counted = ListQuery { limit: max.saturating_add(1), ..query.clone() };
            count = self.store.count_executions(counted).await?;
            if request.how.dry_run && count <= max {
                found = self.store.execution_ids(ListQuery { limit: LISTED_MAX as u64, ..query }).await?;
            }
        } else if found.is_empty() {
            let mut next = Some(horizon);
            while let Some(before) = next.filter(|_| count <= max) {
                let query = ListQuery { before: Some(before), limit: PAGE, ..job::query_of(selection) };
                let (ids, to) = self.page_of(selection, query).await?;
                count += ids.len() as u64;
                found.extend(ids);
                found.truncate(LISTED_MAX);
                next = to;
            }
        }
        if count > max { Err(BulkError::TooMany { max }) } else { Ok((count, found)) }
    }

    /// Returns cascades and jobs, newest first.
    pub async fn jobs(&self, query: JobQuery) -> Result<Vec<Cancellation>, StoreError> {
        self.store.cancellations(query).await
    }

    /// Returns one cascade or job, and how many of those it has cancelled still run.
    pub async fn job(&self, id: CancellationId) -> Result<Option<(Cancellation, u64)>, StoreError> {
        let Some(job) = self.store.cancellation(id).await? else { return Ok(None) };
        let query = ListQuery { unquiesced: true, job: Some(id), limit: MATCHED_MAX, ..ListQuery::default() };
        Ok(Some((job, self.store.count_executions(query).await?)))
    }

    /// Lets a job select nothing more; `None` when there is none.
    pub async fn stop_job(&self, id: CancellationId, by: &str) -> Result<Option<Cancellation>, StoreError> {
        self.store.stop_cancellation(id, by).await
    }
}

impl BulkAnswer {
    fn note(&mut self, stepped: Stepped) {
        for one in stepped.decided {
            let list = match one.what {
                What::Cancelled { .. } => {
                    self.cancelled_count += 1;
                    &mut self.cancelled
                }
                What::Escalated => &mut self.escalated,
                What::AlreadyEnded | What::Spared(_) => continue,
            };
            if list.len() < LISTED_MAX {
                list.push(one.execution_id);
            }
        }
        let left = LISTED_MAX.saturating_sub(self.spared.len());
        self.spared.extend(stepped.spared.into_iter().take(left));
    }
}

/// The request with its lengths of time as moments, so that it can be asked again later.
fn selection(selected: &Selected, now: Timestamp) -> Selection {
    let ago = |ms: u64| Timestamp(now.0.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX)));
    match selected {
        Selected::Matching(filter) => Selection {
            ids: Vec::new(),
            path: filter.path.clone(),
            parent: filter.parent,
            labels: filter.labels.clone(),
            started_before: filter.older_than_ms.map(ago),
            idle_since: filter.idle_for_ms.map(ago),
            stuck: filter.stuck,
        },
        Selected::Listed(ids) => {
            let mut ids = ids.clone();
            ids.sort_unstable();
            ids.dedup();
            Selection { ids, ..Selection::default() }
        }
    }
}
