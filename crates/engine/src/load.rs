//! Folding executions from the store.

use std::sync::Arc;

use noetl_core::event::Recorded;
use noetl_core::execution::state::{Execution, FoldError};
use noetl_core::head::Head;
use noetl_core::id::ExecutionId;
use noetl_store::{EventQuery, StoreError};

use crate::engine::Engine;

/// Events read behind a state at hand; with more than so many a snapshot is the better beginning.
const TAIL_MAX: u64 = 512;
/// Events read at a time when a whole log is folded.
const PAGE: u64 = 2048;

impl Engine {
    /// Returns the state of an execution, folded from its newest snapshot, and keeps it at hand.
    pub(crate) async fn load(&self, execution_id: ExecutionId) -> Result<Option<Arc<Execution>>, StoreError> {
        self.metrics.loads.add_one();
        let Some(loaded) = self.store.load(execution_id).await? else { return Ok(None) };
        if !self.can_decide(&loaded.head) {
            // While servers are upgraded one by one: a newer one goes on with it.
            return Err(StoreError::Closed(format!(
                "execution {execution_id} needs engine {}, this server has {}",
                loaded.head.engine, self.options.version
            )));
        }
        let snapshot = loaded.snapshot.as_ref().map(|(version, state)| (*version, &**state));
        let folded = match Execution::fold(snapshot, &loaded.tail) {
            Ok(folded) => folded,
            // Another version wrote it: the log says everything as well.
            Err(FoldError::Snapshot(error)) => {
                tracing::info!(%execution_id, %error, "a snapshot can not be read; folding the whole log");
                let log = self.log(execution_id, 0, loaded.head.version).await?;
                Execution::fold(None, &log).map_err(|error| broken(execution_id, &error))?
            }
            Err(error @ (FoldError::NoBeginning | FoldError::Hole { .. })) => return Err(broken(execution_id, &error)),
        };
        self.keep(folded, &loaded.head).map(Some)
    }

    /// Returns whether this server knows how to go on with an execution; a newer one may have begun it.
    pub(crate) fn can_decide(&self, head: &Head) -> bool {
        head.engine <= self.options.version
    }

    /// Brings a state up to date with the store.
    pub(crate) async fn refresh(&self, state: Arc<Execution>) -> Result<Option<Arc<Execution>>, StoreError> {
        let execution_id = state.execution_id;
        // The head first: events that come in between are left for the next time.
        let Some(head) = self.store.head(execution_id).await? else { return Ok(None) };
        let behind = head.version.saturating_sub(state.version);
        if head.version < state.version || behind > TAIL_MAX {
            return self.load(execution_id).await;
        }
        let mut state = Arc::unwrap_or_clone(state);
        if behind > 0 {
            for recorded in self.log(execution_id, state.version, head.version).await? {
                state.follow(&recorded).map_err(|error| broken(execution_id, &error))?;
            }
        }
        self.keep(state, &head).map(Some)
    }

    fn keep(&self, mut state: Execution, head: &Head) -> Result<Arc<Execution>, StoreError> {
        if state.version != head.version {
            return Err(StoreError::Corrupt(format!(
                "execution {}: the log ends at version {}, the head says {}",
                head.execution_id, state.version, head.version
            )));
        }
        state.decided = head.decided;
        let state = Arc::new(state);
        self.executions.put(Arc::clone(&state));
        Ok(state)
    }

    /// Returns the events after one version up to another.
    pub(crate) async fn log(
        &self,
        execution_id: ExecutionId,
        mut after: u64,
        until: u64,
    ) -> Result<Vec<Recorded>, StoreError> {
        let mut log: Vec<Recorded> = Vec::new();
        while after < until {
            let query = EventQuery {
                execution_id: Some(execution_id),
                after_version: Some(after),
                limit: PAGE.min(until - after),
                ..EventQuery::default()
            };
            let (events, _) = self.store.events(query).await?;
            let Some(last) = events.last() else { break };
            after = last.version;
            log.extend(events);
        }
        Ok(log)
    }
}

fn broken(execution_id: ExecutionId, error: &FoldError) -> StoreError {
    StoreError::Corrupt(format!("execution {execution_id}: {error}"))
}
