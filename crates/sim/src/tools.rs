//! Tools that take a while, sometimes fail, and remember when they ran.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use noetl_core::id::{CommandId, ExecutionId};
use noetl_core::tool::{ErrorKind, Stopped, ToolCall, ToolError, ToolOutcome};
use noetl_engine::worker::{CommandSecrets, Stop, Tools};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::chance::Chance;

/// Every tool that ever started, seen from outside the engine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Witness(Arc<Mutex<Vec<Start>>>);

/// One start of one tool.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pub(crate) execution_id: ExecutionId,
    pub(crate) command_id: CommandId,
    pub(crate) at: Instant,
}

impl Witness {
    pub(crate) fn starts(&self) -> MutexGuard<'_, Vec<Start>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tools of one worker. When the worker dies, they die with it: their futures are dropped.
#[derive(Debug)]
pub(crate) struct SimTools {
    chance: Chance,
    witness: Witness,
    attempts: Mutex<BTreeMap<CommandId, u32>>,
    claims: Mutex<BTreeMap<ExecutionId, u32>>,
}

/// Claims of one execution at one worker that find rows; those after them find none.
const CLAIMS_MAX: u32 = 4;

impl SimTools {
    pub(crate) fn new(chance: Chance, witness: Witness) -> Self {
        SimTools { chance, witness, attempts: Mutex::default(), claims: Mutex::default() }
    }
}

#[async_trait]
impl Tools for SimTools {
    async fn run(&self, _slot: usize, call: ToolCall, mut stop: Stop, _secrets: &Arc<CommandSecrets>) -> ToolOutcome {
        let start = Start { execution_id: call.execution_id, command_id: call.command_id, at: Instant::now() };
        self.witness.starts().push(start);
        let tries = {
            let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
            let tries = attempts.entry(call.command_id).or_default();
            *tries += 1;
            *tries
        };
        // Most work is short; some takes longer than a lease, so that a silent worker is really replaced.
        let ms =
            if self.chance.per_mille(30) { self.chance.between(2_000, 15_000) } else { self.chance.between(0, 400) };
        let stopped = tokio::select! {
            biased;
            order = stop.ordered() => Some(order),
            () = tokio::time::sleep(Duration::from_millis(ms)) => None,
        };
        if let Some(order) = stopped {
            let polite = self.chance.per_mille(700);
            if !polite {
                // A later order may leave less time, never more.
                let mut order = order;
                let began = Instant::now();
                loop {
                    tokio::select! {
                        biased;
                        shorter = stop.changed_from(order) => order = shorter,
                        () = tokio::time::sleep_until(began + Duration::from_millis(order.grace_ms)) => break,
                    }
                }
            }
            let error = ToolError::soft(ErrorKind::Cancelled, "STOPPED", "stopped on request");
            let mut outcome = ToolOutcome::failed(error, Value::Null);
            outcome.stopped = Some(if polite { Stopped::Stopped } else { Stopped::Killed });
            return outcome;
        }
        if self.chance.per_mille(100) {
            return ToolOutcome::failed(
                ToolError::soft(ErrorKind::Code, "EXIT_1", "it failed"),
                json!({"exit_code": 1}),
            );
        }
        if self.chance.per_mille(15) {
            return ToolOutcome::failed(ToolError::hard(ErrorKind::Connection, "GONE", "it is not there"), Value::Null);
        }
        if &*call.kind == "postgres" {
            return ToolOutcome::ok(self.rows(call.execution_id));
        }
        ToolOutcome::ok(json!({ "step": &*call.step, "tries": tries }))
    }
}

impl SimTools {
    /// What a claim gives: some rows for a while, then none.
    fn rows(&self, execution_id: ExecutionId) -> Value {
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let claims = claims.entry(execution_id).or_default();
        *claims += 1;
        let count = if *claims > CLAIMS_MAX { 0 } else { self.chance.below(4) };
        json!({ "rows": (0..count).collect::<Vec<_>>(), "row_count": count })
    }
}
