//! Executions at hand: states folded from logs, each as of its last landed append.
//!
//! Nothing here needs to be right: a decision on a state that is out of date does not land.

use std::sync::{Arc, Mutex};

use noetl_core::execution::state::Execution;
use noetl_core::id::ExecutionId;

use crate::hold;
use crate::lru::Lru;

/// Ended executions that are remembered as such.
const ENDED_MAX: u64 = 100_000;

/// The states at hand.
#[derive(Debug)]
pub(crate) struct Executions {
    states: Mutex<Lru<ExecutionId, Arc<Execution>>>,
    ended: Mutex<Lru<ExecutionId, ()>>,
}

impl Executions {
    pub(crate) fn new(count_max: usize) -> Self {
        Executions { states: Mutex::new(Lru::new(count_max as u64)), ended: Mutex::new(Lru::new(ENDED_MAX)) }
    }

    pub(crate) fn get(&self, execution_id: ExecutionId) -> Option<Arc<Execution>> {
        hold(&self.states).get(&execution_id).map(|state| Arc::clone(state))
    }

    /// Returns whether the state of an execution that has not ended is at hand.
    pub(crate) fn has_active(&self, execution_id: ExecutionId) -> bool {
        hold(&self.states).peek(&execution_id).is_some_and(|state| !state.status.is_terminal())
    }

    /// Keeps a state, unless a later one is here.
    pub(crate) fn put(&self, state: Arc<Execution>) {
        let mut states = hold(&self.states);
        if states.peek(&state.execution_id).is_none_or(|known| known.version <= state.version) {
            states.put(state.execution_id, state);
        }
    }

    /// A claim of `events` events landed at `version`. It changes nothing that a decision reads, so the state only
    /// learns the number, and only if it has seen all before.
    pub(crate) fn raise(&self, execution_id: ExecutionId, events: u64, version: u64) {
        if let Some(state) = hold(&self.states).get(&execution_id)
            && state.version + events == version
        {
            Arc::make_mut(state).version = version;
        }
    }

    /// Forgets a state that is out of date.
    pub(crate) fn forget(&self, execution_id: ExecutionId) {
        hold(&self.states).remove(&execution_id);
    }

    /// Remembers that an execution is over; its state is of no more use.
    pub(crate) fn end(&self, execution_id: ExecutionId) {
        hold(&self.ended).put(execution_id, ());
        self.forget(execution_id);
    }

    /// Returns whether an execution is known to be over.
    pub(crate) fn has_ended(&self, execution_id: ExecutionId) -> bool {
        hold(&self.ended).contains(&execution_id)
    }
}
