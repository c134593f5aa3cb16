//! Interpreting pipelines for workers that only run tools: a worker in any language needs no templates and no policies.
//!
//! Nothing is kept here between two requests, and nothing is written: the worker holds the command, keeps what the
//! pipeline remembers while a tool runs, and reports what comes out in the end like every other worker.

use std::sync::Arc;

use noetl_core::execution::Needs;
use noetl_core::head::{CommandState, HeadView};
use noetl_core::id::{CommandId, ExecutionId, SessionId};
use noetl_core::pipeline::{Next, Pipeline, Place};
use noetl_core::playbook::CancelMode;
use noetl_core::tool::{ToolCall, ToolOutcome};
use noetl_core::work::{Reported, Work};
use noetl_store::StoreError;
use serde::Deserialize;
use serde_json::Value;

use crate::catalog::Stock;
use crate::engine::Engine;
use crate::transport::ClaimError;

/// How often a pipeline may ask for results before its next tool.
const NEEDS_MAX: u32 = 64;

/// A worker without an interpreter asks what its command does next.
#[derive(Debug, Clone, PartialEq)]
pub struct Advance {
    /// Who.
    pub session_id: SessionId,
    /// Whose.
    pub execution_id: ExecutionId,
    /// Which command it holds.
    pub command_id: CommandId,
    /// Attempt.
    pub epoch: u32,
    /// What the last call came to; none before the first.
    pub outcome: Option<ToolOutcome>,
    /// What came with the last call.
    pub continuation: Option<Value>,
}

/// What a command does next.
#[derive(Debug)]
pub enum Advanced {
    /// Run this tool, then ask again with its outcome.
    Call {
        /// Which, with everything rendered.
        call: Box<ToolCall>,
        /// To be sent along with the outcome.
        continuation: Value,
    },
    /// Wait so long, then ask again.
    Wait {
        /// In milliseconds.
        ms: u64,
        /// To be sent along.
        continuation: Value,
    },
    /// Report this.
    Report(Reported),
}

impl Engine {
    /// Says what a command that a worker holds does next.
    pub async fn advance(&self, asked: Advance) -> Result<Advanced, ClaimError> {
        let Advance { session_id, execution_id, command_id, epoch, outcome, continuation } = asked;
        // Asking is a sign of life.
        self.session(session_id).await?.ok_or(ClaimError::UnknownSession(session_id))?;
        let not_held = || ClaimError::NotHeld { id: command_id.0, epoch };
        let view = self.store.view(execution_id).await?.ok_or_else(not_held)?;
        let held = view.commands.iter().find(|row| {
            let holder = row.holder.as_ref().map(|holder| holder.session_id);
            let claimed = row.state == CommandState::Claimed && holder == Some(session_id);
            row.command_id == command_id && row.epoch == epoch && claimed
        });
        let row = held.ok_or_else(not_held)?;
        let playbook = self.compiled(view.head.catalog_id).await?;
        let unreadable = |what: &str| StoreError::Corrupt(format!("command {command_id}: {what}"));
        let step = playbook.find(&row.step).map(|ix| playbook.step(ix)).ok_or_else(|| unreadable("no such step"))?;
        let work = Work::deserialize(&*row.work).map_err(|error| unreadable(&error.to_string()))?;
        let work = Arc::new(work);
        let mut pipeline = match &continuation {
            None => Pipeline::new(step, work),
            Some(continuation) => Pipeline::take_over(work, continuation).ok_or(ClaimError::Continuation)?,
        };
        let cancelled = Reported::Cancelled {
            started: outcome.is_some() || continuation.is_some(),
            stopped: outcome.as_ref().and_then(|outcome| outcome.stopped),
            pids: Vec::new(),
            remote_may_have_acted: outcome.as_ref().is_some_and(ToolOutcome::remote_may_have_acted),
        };
        // The same rule as in a worker's own slot: what has begun may end, once forward, unless it is to be stopped.
        let ended = !view.head.is_active();
        let last = ended && (step.spec.cancel_between_tasks || continuation.is_none() || is_interrupt(&view));
        if last && (outcome.is_none() || is_interrupt(&view)) {
            return Ok(Advanced::Report(cancelled));
        }
        if ended {
            pipeline.finish_only();
        }
        if let Some(outcome) = outcome {
            pipeline.outcome(outcome);
        }
        let mut stock = Stock::default();
        for _ in 0..NEEDS_MAX {
            let place = Place {
                playbook: &playbook,
                step,
                execution_id,
                command_id,
                library: &stock.library,
                now: self.now().await?,
                on_worker: true,
            };
            return Ok(match pipeline.next(&place) {
                Next::Needs(results) => {
                    self.fetch(Needs { results, ..Needs::default() }, &mut stock).await?;
                    continue;
                }
                Next::Done(done) => Advanced::Report(Reported::Done(done)),
                Next::Call(_) | Next::Wait { .. } | Next::Pause(_) | Next::Stop if last => Advanced::Report(cancelled),
                Next::Stop => Advanced::Report(cancelled),
                Next::Pause(pause) => Advanced::Report(Reported::Suspended(pause)),
                Next::Wait { ms } => Advanced::Wait { ms, continuation: pipeline.hand_over() },
                Next::Call(call) => Advanced::Call { call, continuation: pipeline.hand_over() },
            });
        }
        Err(unreadable("its pipeline asks for ever more").into())
    }
}

fn is_interrupt(view: &HeadView) -> bool {
    view.head.cancel.as_ref().is_some_and(|cancel| cancel.mode == CancelMode::Interrupt)
}
