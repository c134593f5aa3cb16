//! The pipeline interpreter: what a step's body does next. Pure and resumable; worker and server run the same one.

use std::sync::Arc;

use crate::expr::Library;
use crate::id::{CommandId, ExecutionId};
use crate::playbook::{Playbook, Step};
use crate::time::Timestamp;
use crate::tool::{ToolCall, ToolOutcome};
use crate::work::{Done, Pause, Work};

/// Task executions of one pipeline at most.
pub const TASK_EXECUTIONS_MAX: u64 = 1_000_000;
/// Longest wait that a worker sits out with its slot, in milliseconds; longer ones suspend the command.
pub const WAIT_IN_PLACE_MS_MAX: u64 = 2_000;

/// Where a pipeline runs, and what it may read there.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The playbook.
    pub playbook: &'a Playbook,
    /// The step.
    pub step: &'a Step,
    /// The run.
    pub execution_id: ExecutionId,
    /// The command.
    pub command_id: CommandId,
    /// Large results at hand.
    pub library: &'a Arc<Library>,
    /// What time it is.
    pub now: Timestamp,
    /// On a worker; else on the server, which runs only `noop` and `playbook`.
    pub on_worker: bool,
}

/// What comes next.
#[derive(Debug)]
pub enum Next {
    /// Run this tool, then say [`Pipeline::outcome`].
    Call(Box<ToolCall>),
    /// Wait so many milliseconds here, then ask again.
    Wait {
        /// How many.
        ms: u64,
    },
    /// Report this and free the slot; the pipeline goes on elsewhere, later.
    Pause(Box<Pause>),
    /// It is over.
    Done(Box<Done>),
    /// Load these results into the library, then ask again.
    Needs(Vec<String>),
    /// The execution is cancelled and the next thing would be a new start (retry, jump back, wait): stop here.
    Stop,
}

/// A pipeline under way.
#[derive(Debug)]
pub struct Pipeline {
    _work: Arc<Work>,
}

impl Pipeline {
    /// Begins the step's body, or goes on where a suspended one stopped.
    pub fn new(_step: &Step, work: Arc<Work>) -> Self {
        Pipeline { _work: work }
    }

    /// Says what comes next.
    pub fn next(&mut self, _place: &Place<'_>) -> Next {
        unimplemented!()
    }

    /// Takes the outcome of the tool that [`Next::Call`] named, and how long it took.
    pub fn outcome(&mut self, _outcome: ToolOutcome, _duration_ms: u64) {
        unimplemented!()
    }

    /// The execution was cancelled with mode `finish`: the tasks after the running one still run, once forward.
    pub fn finish_only(&mut self) {
        unimplemented!()
    }
}
