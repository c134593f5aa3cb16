//! Cleaning up after a cancelled execution: what is run, and in which order.
//!
//! An execution of its own, so that it has its own status, log and cancel, and no cascade reaches it: it has no parent.
//! It is born by the append that proves the cancelled one quiet, so there is exactly one, and nothing of the cancelled
//! one runs beside it. Born from the head alone, it asks for what the cancelled one leaves with its first decision;
//! that log can not change any more.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::event::{LateResult, error_value};
use crate::execution::rerun::Kept;
use crate::execution::state::{Execution, StepState, Token};
use crate::head::{CancelInfo, Head};
use crate::id::ExecutionId;
use crate::playbook::Playbook;
use crate::result::{Bound, stored_value};
use crate::tool::{ErrorKind, ToolError};

/// How long a cleanup may take when the playbook does not say, in milliseconds (`executor.spec.cleanup_timeout`).
pub const CLEANUP_MS_DEFAULT: u64 = 600_000;
/// The name under which a cleanup's templates find who cancelled what, and why.
pub const NAME: &str = "cancellation";

/// What a head knows of the cleanup that its end would bring. From the playbook, at its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanupPlan {
    /// `executor.spec.on_cancel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_cancel: Option<Arc<str>>,
    /// A step names another one in its `spec.compensate`.
    #[serde(default)]
    pub compensates: bool,
    /// How long it may take, in milliseconds.
    pub timeout_ms: u64,
}

impl CleanupPlan {
    /// Returns what `playbook` wants; `None` when it wants nothing.
    pub fn of(playbook: &Playbook) -> Option<Self> {
        let on_cancel = playbook.executor.on_cancel.map(|ix| Arc::clone(&playbook.step(ix).name));
        let compensates = playbook.steps.iter().any(|step| step.spec.compensate.is_some());
        let timeout_ms = playbook.executor.cleanup_timeout_ms.unwrap_or(CLEANUP_MS_DEFAULT);
        (on_cancel.is_some() || compensates).then_some(CleanupPlan { on_cancel, compensates, timeout_ms })
    }

    /// Returns whether the end of the execution under `head` leaves anything to do. What has entered no step has
    /// nothing to be compensated.
    pub fn wants(&self, head: &Head) -> bool {
        self.on_cancel.is_some() || self.compensates && head.steps_entered > 0
    }
}

/// What a cleanup begins with: whose it is, and how that one was cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanupOf {
    /// The cancelled execution.
    pub execution_id: ExecutionId,
    /// Who cancelled it.
    pub cancelled_by: String,
    /// Self-declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<String>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long it may take, in milliseconds.
    pub timeout_ms: u64,
}

impl CleanupOf {
    /// Returns what a cleanup after the execution under `head` begins with.
    pub fn new(head: &Head, cancel: &CancelInfo, plan: &CleanupPlan) -> Self {
        CleanupOf {
            execution_id: head.execution_id,
            cancelled_by: cancel.cancelled_by.clone(),
            requested_by: cancel.requested_by.clone(),
            reason: cancel.reason.clone(),
            timeout_ms: plan.timeout_ms,
        }
    }

    /// Returns what templates see as `cancellation`.
    pub fn value(&self, late: &[LateResult]) -> Value {
        let mut map = Map::new();
        map.insert("execution_id".into(), self.execution_id.to_string().into());
        map.insert("cancelled_by".into(), self.cancelled_by.clone().into());
        map.insert("requested_by".into(), self.requested_by.clone().into());
        map.insert("reason".into(), self.reason.clone().into());
        map.insert("late".into(), late.iter().map(late_value).collect());
        Value::Object(map)
    }
}

fn late_value(late: &LateResult) -> Value {
    let data = match &late.result {
        Bound::Inline(data) => (**data).clone(),
        Bound::Stored(stored) => stored_value(stored),
    };
    serde_json::json!({
        "step": &*late.step,
        "iteration": late.iteration,
        "status": if late.error.is_some() { "error" } else { "ok" },
        "result": data,
        "error": late.error.as_deref(),
    })
}

/// `cleanup.prepared`: what the cancelled execution leaves to its cleanup.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Prepared {
    /// What it was started with.
    pub workload: Arc<Value>,
    /// Variables, results of steps that had finished (late ones too), and in `tokens` what is run, in order: the next
    /// one begins when the one before and all that followed it are over.
    pub kept: Kept,
    /// What commands gave after the decision.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub late: Vec<LateResult>,
}

impl Prepared {
    /// Returns what `origin`, which has been cancelled and has quiesced, leaves.
    ///
    /// What is run: of each step that did well, last finished first, the step that compensates it; then the step that
    /// `on_cancel` names. A step whose command came to its end after the decision did well too, and last.
    pub fn of(origin: &Execution, playbook: &Playbook) -> Self {
        let mut steps: BTreeMap<Arc<str>, StepState> = origin.steps.clone();
        let mut order: Vec<(u64, Arc<str>)> = steps
            .iter()
            .filter(|(_, state)| state.finished > 0 && state.error.is_none())
            .map(|(name, state)| (state.finished, Arc::clone(name)))
            .collect();
        let looped = |name: &str| playbook.find(name).is_none_or(|ix| playbook.step(ix).looping.is_some());
        for (place, late) in (1..).zip(origin.late.iter().filter(|late| !looped(&late.step))) {
            let state = steps.entry(Arc::clone(&late.step)).or_default();
            state.result = Some(late.result.clone());
            state.error.clone_from(&late.error);
            order.retain(|(_, name)| *name != late.step);
            if late.error.is_none() {
                order.push((origin.exits + place, Arc::clone(&late.step)));
            }
        }
        order.sort_by(|a, b| b.cmp(a));
        let mut tokens: Vec<Token> = Vec::new();
        for (_, name) in order {
            let compensate = playbook.find(&name).and_then(|ix| playbook.step(ix).spec.compensate);
            tokens.extend(compensate.map(|ix| Token { step: Arc::clone(&playbook.step(ix).name), from: Some(name) }));
        }
        let last_finished = origin.last_finished.clone();
        let on_cancel = playbook.executor.on_cancel.map(|ix| Arc::clone(&playbook.step(ix).name));
        tokens.extend(on_cancel.map(|step| Token { step, from: last_finished.clone() }));
        Prepared {
            workload: Arc::clone(&origin.init.workload),
            kept: Kept { ctx: Arc::clone(&origin.ctx), steps, tokens, last_finished },
            late: origin.late.clone(),
        }
    }
}

/// The error of a cleanup whose cancelled execution has been removed.
pub fn gone(of: &CleanupOf) -> Value {
    let message = format!("execution {} has been removed: nothing is known of what it leaves", of.execution_id);
    error_value(&ToolError::hard(ErrorKind::NotFound, "CLEANUP_ORIGIN", message))
}
