//! Cancelling many executions at once, by what they have in common.
//!
//! What matches is found by a plain read and looked at again under the lock of its head: whatever has moved on in
//! between is spared. One request decides at most [`MATCHED_MAX`]; it answers when all of them are decided.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use noetl_core::head::{CommandState, Head, HeadView, Status};
use noetl_core::id::ExecutionId;
use noetl_core::time::Timestamp;
use noetl_store::{ListQuery, StoreError};

use crate::cancel::{CancelError, CancelRequest};
use crate::engine::Engine;

/// Most executions that one request may match.
pub const MATCHED_MAX: u64 = 10_000;
/// Executions listed at a time.
const PAGE: u64 = 1_000;
/// Cancels under way at the same time: the store writes them together.
const AT_ONCE: usize = 32;

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
    /// Nobody works on it and it waits for nothing: no worker holds a command of it, and no timer and no active child
    /// will wake it.
    pub stuck: bool,
}

/// A request to cancel whatever matches.
#[derive(Debug, Clone)]
pub struct BulkRequest {
    /// What to cancel.
    pub filter: Filter,
    /// How each is cancelled; `execution_id` is replaced.
    pub how: CancelRequest,
    /// Refuse if more match.
    pub max: u64,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BulkAnswer {
    /// What matched, newest first.
    pub matched: Vec<ExecutionId>,
    /// What was cancelled, descendants included when the request cascades.
    pub cancelled: Vec<ExecutionId>,
    /// What matched at first and had moved on, or ended, when it was looked at under the lock.
    pub spared: Vec<ExecutionId>,
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
    /// Cancels whatever matches. With `how.dry_run` it only says what does.
    pub async fn cancel_matching(&self, request: &BulkRequest) -> Result<BulkAnswer, BulkError> {
        let now = self.store.now().await?;
        let wanted = Arc::new(Wanted::of(&request.filter, now));
        let matched = self.matching(&request.filter, &wanted, request.max.min(MATCHED_MAX)).await?;
        let mut answer = BulkAnswer { matched, ..BulkAnswer::default() };
        if request.how.dry_run {
            return Ok(answer);
        }
        let cancels = stream::iter(answer.matched.clone()).map(|execution_id| {
            let order = CancelRequest { execution_id, idempotency_key: None, ..request.how.clone() };
            let wanted = Arc::clone(&wanted);
            async move { (execution_id, self.cancel_if(order, wanted).await) }
        });
        let mut cancels = cancels.buffered(AT_ONCE);
        while let Some((execution_id, outcome)) = cancels.next().await {
            match outcome {
                Ok(mut cancelled) if !cancelled.is_empty() => answer.cancelled.append(&mut cancelled),
                // Removed, ended or moved on in between.
                Ok(_) | Err(CancelError::Unknown(_) | CancelError::AlreadyEnded { .. }) => {
                    answer.spared.push(execution_id);
                }
                Err(CancelError::Store(error)) => return Err(error.into()),
            }
        }
        Ok(answer)
    }

    /// Cancels one that still is what was wanted; returns what it cancelled.
    async fn cancel_if(&self, order: CancelRequest, wanted: Arc<Wanted>) -> Result<Vec<ExecutionId>, CancelError> {
        if order.cascade {
            // A cascade fences its members one by one: its top is looked at right before.
            let Some(view) = self.store.view(order.execution_id).await? else { return Ok(Vec::new()) };
            if !wanted.holds(&view) {
                return Ok(Vec::new());
            }
            return Ok(self.cancel_family(&order).await?.cancelled_executions);
        }
        let answer = self.cancel_one_if(&order, move |view| wanted.holds(view)).await?;
        Ok(answer.map(|answer| answer.cancelled_executions).unwrap_or_default())
    }

    async fn matching(&self, filter: &Filter, wanted: &Wanted, max: u64) -> Result<Vec<ExecutionId>, BulkError> {
        let mut matched = Vec::new();
        let mut before = None;
        loop {
            let query = ListQuery {
                status: vec![Status::Running],
                path: filter.path.clone(),
                parent: filter.parent,
                started_before: wanted.started_before,
                idle_since: wanted.idle_since,
                before,
                limit: PAGE,
                ..ListQuery::default()
            };
            let page = self.store.executions(query).await?;
            let Some(last) = page.last() else { return Ok(matched) };
            before = Some(last.execution_id);
            for head in &page {
                if filter.stuck && !self.is_stuck(head).await? {
                    continue;
                }
                matched.push(head.execution_id);
                if matched.len() as u64 > max {
                    return Err(BulkError::TooMany { max });
                }
            }
        }
    }

    /// Returns whether nothing will ever move it on by itself.
    async fn is_stuck(&self, head: &Head) -> Result<bool, StoreError> {
        if head.in_flight > 0 {
            return Ok(false);
        }
        let Some(view) = self.store.view(head.execution_id).await? else { return Ok(false) };
        if !waits_for_nothing(&view) {
            return Ok(false);
        }
        let children = ListQuery {
            parent: Some(head.execution_id),
            status: vec![Status::Running],
            limit: 1,
            ..ListQuery::default()
        };
        Ok(self.store.executions(children).await?.is_empty())
    }
}

/// The filter as times, for looking again under the lock.
#[derive(Debug)]
struct Wanted {
    started_before: Option<Timestamp>,
    idle_since: Option<Timestamp>,
    stuck: bool,
}

impl Wanted {
    fn of(filter: &Filter, now: Timestamp) -> Self {
        let ago = |ms: u64| Timestamp(now.0.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX)));
        Wanted {
            started_before: filter.older_than_ms.map(ago),
            idle_since: filter.idle_for_ms.map(ago),
            stuck: filter.stuck,
        }
    }

    fn holds(&self, view: &HeadView) -> bool {
        let head = &view.head;
        head.is_active()
            && self.started_before.is_none_or(|before| head.started_at < before)
            && self.idle_since.is_none_or(|since| head.updated_at <= since)
            && (!self.stuck || waits_for_nothing(view))
    }
}

/// No worker holds a command of it, none waits for a time or a child, and nobody has paused it.
fn waits_for_nothing(view: &HeadView) -> bool {
    view.head.pause.is_none()
        && view.commands.iter().all(|row| match row.state {
            CommandState::Pending | CommandState::Lost => true,
            CommandState::Paused | CommandState::Claimed | CommandState::Suspended => false,
        })
}
