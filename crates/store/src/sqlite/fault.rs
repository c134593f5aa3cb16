//! Where a test may make the writer fail.

use std::fmt;
use std::sync::Arc;

use noetl_core::id::ExecutionId;

use crate::StoreError;

/// A place in the writer where something can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultPoint {
    /// Before a transaction begins.
    Begin,
    /// Before an append of this execution is written.
    Append(ExecutionId),
    /// Before the commit.
    Commit,
    /// After the commit, before the answers leave.
    Answer,
}

/// Decides whether the writer fails at a point. Nothing fails by default.
#[derive(Clone, Default)]
pub struct Fault(Option<Strike>);

type Strike = Arc<dyn Fn(FaultPoint) -> Option<StoreError> + Send + Sync>;

impl Fault {
    /// Returns a fault that asks `strike` at every point.
    pub fn new(strike: impl Fn(FaultPoint) -> Option<StoreError> + Send + Sync + 'static) -> Self {
        Fault(Some(Arc::new(strike)))
    }

    pub(super) fn strike(&self, point: FaultPoint) -> Result<(), StoreError> {
        match self.0.as_ref().and_then(|strike| strike(point)) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Fault(set)" } else { "Fault(none)" })
    }
}
