//! Executions by the hundred thousand, written straight into the store: starting each would take longer than what is
//! measured.

use noetl_core::append::Append;
use noetl_core::id::{ExecutionId, IdSource};
use noetl_engine::Engine;

use crate::cli::bench::pattern::{self, Pattern};

/// Births in one transaction.
const BATCH: usize = 500;
/// A node that no server of a benchmark is.
const NODE: u16 = 0x3ff;

/// An execution that waits for a worker, to be copied.
pub(in super::super) struct Stock {
    pattern: Pattern,
    ids: IdSource,
}

impl Stock {
    /// Takes an execution with one pending command for the pattern.
    pub(in super::super) async fn of(engine: &Engine, execution_id: ExecutionId) -> Result<Stock, String> {
        let pattern = Pattern::of(&**engine.store(), execution_id).await?;
        Ok(Stock { pattern, ids: IdSource::new(NODE) })
    }

    /// Writes `count` copies below `parent`, or on their own; returns their ids.
    pub(in super::super) async fn write(
        &mut self,
        engine: &Engine,
        count: usize,
        parent: Option<ExecutionId>,
    ) -> Result<Vec<ExecutionId>, String> {
        let store = engine.store();
        let parent = match parent {
            Some(id) => Some(store.head(id).await.map_err(|error| error.to_string())?.ok_or("no such parent")?),
            None => None,
        };
        let mut written = Vec::with_capacity(count);
        while written.len() < count {
            let now = store.now().await.map_err(|error| error.to_string())?;
            let births =
                (0..BATCH.min(count - written.len())).map(|_| self.pattern.birth(&mut self.ids, parent.as_ref(), now));
            let batch = births.collect::<Result<Vec<Append>, String>>()?;
            written.extend(batch.iter().map(|append| append.execution_id));
            pattern::land(&**store, batch).await?;
        }
        Ok(written)
    }
}
