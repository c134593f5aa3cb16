//! A draft: an execution on which inputs are decided one after the other, to be written as one append.

use crate::append::Append;
use crate::execution::state::Execution;
use crate::execution::{Env, Input, Refusal, Start};

/// Inputs decided but not yet written.
#[derive(Debug)]
pub struct Draft {
    execution: Execution,
}

impl Draft {
    /// Begins a draft on the state that was read; the caller keeps that state until the append has landed.
    pub fn new(execution: Execution) -> Self {
        Draft { execution }
    }

    /// Decides one input. After [`Refusal::Needs`] or [`Refusal::NeedsLock`] the draft is spoiled; after the others
    /// it is as before.
    pub fn decide(&mut self, _input: &Input, _env: &mut Env<'_>) -> Result<(), Refusal> {
        unimplemented!()
    }

    /// Returns whether nothing is to be written.
    pub fn is_empty(&self) -> bool {
        unimplemented!()
    }

    /// Returns whether the execution wants to go on without any input (the budget of one decision was used up).
    pub fn is_runnable(&self) -> bool {
        unimplemented!()
    }

    /// Ends the draft: the state after it, and what to write. The guard is `At`; under the lock the caller replaces
    /// it by `Locked`. After landing, set the state's `version` and `decided` to the landed version.
    pub fn finish(self) -> (Execution, Append) {
        unimplemented!()
    }
}

/// Decides the start of an execution, and advances it as far as one decision may.
pub fn start(_start: &Start, _env: &mut Env<'_>) -> Result<(Execution, Append), StartRefusal> {
    unimplemented!()
}

/// Why an execution can not be started.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum StartRefusal {
    /// Something must be at hand first.
    #[error("something must be loaded first")]
    Needs(crate::execution::Needs),
    /// A workload default can not be rendered.
    #[error("workload.{name}: {message}")]
    Workload {
        /// Which.
        name: String,
        /// Why.
        message: String,
    },
    /// The family would become too deep.
    #[error("the family is {depth} levels deep already (limits.max_depth)")]
    TooDeep {
        /// How deep the parent is.
        depth: u32,
    },
}
