//! A pipeline between two processes while one of its tools runs: for workers that have no interpreter of their own.
//!
//! Such a worker runs the tool and nothing else. The server says what comes next, and gives it what the pipeline
//! remembers to keep for as long as the tool takes, so that no server has to.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Pipeline;
use super::state::State;
use crate::event::Write;
use crate::time::Timestamp;
use crate::tool::Stopped;
use crate::work::Work;

/// All of a pipeline that its work does not say.
#[derive(Debug, Serialize, Deserialize)]
struct Baton {
    state: State,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ctx: Vec<Write>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stopped: Option<Stopped>,
}

impl Pipeline {
    /// Returns what another process needs to go on, between [`Next::Call`](super::Next::Call) and its outcome.
    pub fn hand_over(self) -> Value {
        let Pipeline { state, ctx, started_at, stopped, .. } = self;
        serde_json::to_value(Baton { state, ctx, started_at, stopped }).unwrap_or(Value::Null)
    }

    /// Goes on with what was handed over; `None` when it is nothing of the kind.
    pub fn take_over(work: Arc<Work>, handed_over: &Value) -> Option<Self> {
        let Baton { state, ctx, started_at, stopped } = Baton::deserialize(handed_over).ok()?;
        Some(Pipeline { work, state, outcome: None, ctx, ending: None, finishing: false, started_at, stopped })
    }
}
