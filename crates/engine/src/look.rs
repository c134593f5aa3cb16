//! Looking at executions, and waiting for them.

use std::sync::Arc;

use noetl_core::execution::state::Execution;
use noetl_core::head::{CommandRow, Head};
use noetl_core::id::ExecutionId;
use noetl_core::playbook::Playbook;
use noetl_core::result::Bound;
use noetl_store::catalog::Resource;
use noetl_store::{ListQuery, StoreError};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep_until};

use crate::engine::Engine;

/// How soon something that waits looks again although nobody told it to, in milliseconds: another server may have
/// done what it waits for.
const LOOK_AGAIN_MS: u64 = 50;
/// The same for what this server decides for: most likely it will be told.
const LOOK_AGAIN_AT_HAND_MS: u64 = 200;
/// The longest such pause.
const LOOK_AGAIN_MS_MAX: u64 = 1_000;
/// Executions that have not quiesced yet, looked through for a cleanup that is not there yet, at most.
const UNQUIESCED_LOOKED_AT_MAX: u64 = 10_000;

/// Everything about one execution.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// Its head.
    pub head: Head,
    /// Its state, folded from the log.
    pub execution: Arc<Execution>,
    /// The catalog entry it keeps.
    pub resource: Option<Arc<Resource>>,
    /// What that means, unless it can not be compiled any more.
    pub playbook: Option<Arc<Playbook>>,
    /// Its live commands.
    pub commands: Vec<CommandRow>,
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitFor {
    /// It is over.
    Terminal,
    /// It is over and nothing of it runs any more.
    Quiesced,
}

impl WaitFor {
    /// Returns whether `head` is there.
    pub fn reached(self, head: &Head) -> bool {
        match self {
            WaitFor::Terminal => head.status.is_terminal(),
            WaitFor::Quiesced => head.quiesced_at.is_some(),
        }
    }
}

impl Engine {
    /// Returns everything about an execution.
    pub async fn inspect(&self, execution_id: ExecutionId) -> Result<Option<Inspection>, StoreError> {
        let Some(view) = self.store.view(execution_id).await? else { return Ok(None) };
        let state = match self.executions.get(execution_id).filter(|state| state.version == view.head.version) {
            Some(state) => Some(state),
            None => self.load(execution_id).await?,
        };
        let Some(execution) = state else { return Ok(None) };
        let entry = self.entry(view.head.catalog_id).await?;
        Ok(Some(Inspection {
            head: view.head,
            execution,
            resource: entry.as_ref().map(|entry| Arc::clone(&entry.resource)),
            playbook: entry.and_then(|entry| entry.playbook.as_ref().ok().cloned()),
            commands: view.commands,
        }))
    }

    /// Returns the data of a result, loading a stored one.
    pub async fn result(&self, bound: &Bound) -> Result<Arc<Value>, StoreError> {
        match bound {
            Bound::Inline(data) => Ok(Arc::clone(data)),
            Bound::Stored(stored) => match self.stored_result(&stored.reference).await? {
                Some(data) => Ok(data),
                None => Err(StoreError::Corrupt(format!("there is no result {}", stored.reference))),
            },
        }
    }

    /// Waits until an execution is where `until` says, at most `timeout_ms`; returns its head as it then stands. A cleanup
    /// that has been announced and is not there yet is waited for, too.
    pub async fn wait(
        &self,
        execution_id: ExecutionId,
        until: WaitFor,
        timeout_ms: u64,
    ) -> Result<Option<Head>, StoreError> {
        let deadline = Instant::now().checked_add(Duration::from_millis(timeout_ms));
        let mut milestones = self.watches.milestones(execution_id);
        let mut pause = LOOK_AGAIN_MS;
        // Whoever ends it here forgets its state before it tells: what is at hand now has not ended here, or we are
        // told. What another server has done by now is found by the next look.
        let mut at_hand = timeout_ms > 0;
        loop {
            milestones.mark_unchanged();
            at_hand = at_hand && self.executions.has_active(execution_id);
            if !at_hand {
                let head = self.store.head(execution_id).await?;
                if head.is_none() && self.cleans_up_after(execution_id).await?.is_none() {
                    return Ok(None);
                }
                let is_over = deadline.is_some_and(|deadline| deadline <= Instant::now());
                if is_over || head.as_ref().is_some_and(|head| until.reached(head)) {
                    return Ok(head);
                }
            }
            let again = if std::mem::take(&mut at_hand) {
                LOOK_AGAIN_AT_HAND_MS
            } else {
                let now = pause;
                pause = (pause * 2).min(LOOK_AGAIN_MS_MAX);
                now
            };
            let again = Instant::now() + Duration::from_millis(again);
            tokio::select! {
                biased;
                Ok(()) = milestones.changed() => {}
                () = sleep_until(deadline.map_or(again, |deadline| deadline.min(again))) => {}
            }
        }
    }

    /// Returns the execution after which one that is not there yet will clean up: a cancel names its cleanup before the
    /// proof gives birth to it. Not for one of so many that nobody can look through them all.
    pub async fn cleans_up_after(&self, execution_id: ExecutionId) -> Result<Option<ExecutionId>, StoreError> {
        let query = ListQuery { unquiesced: true, limit: UNQUIESCED_LOOKED_AT_MAX, ..ListQuery::default() };
        let named = |head: &Head| head.cancel.as_ref().is_some_and(|cancel| cancel.cleanup == Some(execution_id));
        let found = self.store.executions(query).await?.into_iter().find(named);
        // The proof may have come in between.
        Ok(match found {
            Some(head) => Some(head.execution_id),
            None => self.store.head(execution_id).await?.and_then(|born| born.cleanup_of),
        })
    }

    /// Returns a receiver of the execution's version as this process sees it rise: a hint to read on.
    pub fn subscribe(&self, execution_id: ExecutionId) -> watch::Receiver<u64> {
        self.watches.version(execution_id)
    }
}
