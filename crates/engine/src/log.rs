//! What tools print, on its way to the store and to those who follow it.

use noetl_core::id::ExecutionId;
use noetl_core::log::LogLine;
use noetl_store::StoreError;
use tokio::sync::watch;

use crate::engine::Engine;

impl Engine {
    /// Keeps lines that tools printed, and tells those who follow.
    pub async fn keep_log(&self, lines: Vec<LogLine>) -> Result<(), StoreError> {
        let mut executions: Vec<ExecutionId> = lines.iter().map(|line| line.execution_id).collect();
        executions.sort_unstable();
        executions.dedup();
        self.store.keep_log(lines).await?;
        for execution_id in executions {
            self.watches.printed(execution_id);
        }
        Ok(())
    }

    /// Returns a receiver that changes when lines of an execution have been kept in this process, and when the
    /// execution ends or quiesces.
    pub fn subscribe_log(&self, execution_id: ExecutionId) -> watch::Receiver<u64> {
        self.watches.log(execution_id)
    }
}
