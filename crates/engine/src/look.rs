//! Looking at executions, and waiting for them.

use std::sync::Arc;

use noetl_core::execution::state::Execution;
use noetl_core::head::{CommandRow, Head};
use noetl_core::id::ExecutionId;
use noetl_core::playbook::Playbook;
use noetl_core::result::Bound;
use noetl_store::StoreError;
use noetl_store::catalog::Resource;
use serde_json::Value;
use tokio::sync::watch;

use crate::engine::Engine;

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
        let _ = execution_id;
        unimplemented!()
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

    /// Returns a large result by its reference.
    pub async fn stored_result(&self, reference: &str) -> Result<Option<Arc<Value>>, StoreError> {
        self.store().result(reference).await
    }

    /// Waits until an execution is where `until` says, at most `timeout_ms`; returns its head as it then stands.
    pub async fn wait(
        &self,
        execution_id: ExecutionId,
        until: WaitFor,
        timeout_ms: u64,
    ) -> Result<Option<Head>, StoreError> {
        let _ = (execution_id, until, timeout_ms);
        unimplemented!()
    }

    /// Returns a receiver of the execution's version as this process sees it rise: a hint to read on.
    pub fn subscribe(&self, execution_id: ExecutionId) -> watch::Receiver<u64> {
        let _ = execution_id;
        unimplemented!()
    }
}
