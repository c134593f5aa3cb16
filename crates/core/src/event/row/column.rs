//! The shapes of the JSON columns. Each is written and read by the same type, so the two cannot part.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::event::{AttemptEnd, CursorPlan, Ended, StopCause, Wait, Write};
use crate::execution::cleanup::CleanupOf;
use crate::execution::rerun::Kept;
use crate::id::{CancellationId, CommandId, ExecutionId, SessionId};
use crate::labels::Labels;
use crate::playbook::{CancelMode, Shield};
use crate::result::{Bound, StoredRef};
use crate::time::Timestamp;

/// The column `result`.
#[derive(Serialize, Deserialize)]
pub(super) struct ResultColumn {
    #[serde(default)]
    pub(super) status: Cow<'static, str>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<Arc<Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reference: Option<Arc<StoredRef>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<Arc<Value>>,
}

impl ResultColumn {
    pub(super) fn new(status: &'static str, bound: Option<&Bound>, error: Option<&Arc<Value>>) -> Self {
        let (data, reference) = match bound {
            None => (None, None),
            Some(Bound::Inline(data)) => (Some(Arc::clone(data)), None),
            Some(Bound::Stored(stored)) => (None, Some(Arc::clone(stored))),
        };
        ResultColumn { status: Cow::Borrowed(status), data, reference, error: error.map(Arc::clone) }
    }

    pub(super) fn bound(&self) -> Option<Bound> {
        match (&self.reference, &self.data) {
            (Some(stored), _) => Some(Bound::Stored(Arc::clone(stored))),
            (None, Some(data)) => Some(Bound::Inline(Arc::clone(data))),
            (None, None) => None,
        }
    }
}

/// The column `meta`, of every event.
#[derive(Default, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Meta {
    /// Left out for the first visit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) visit: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) session_id: Option<SessionId>,
    #[serde(default, with = "maybe_iso", skip_serializing_if = "Option::is_none")]
    pub(super) started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) late: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) hard: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) handled: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) fatal: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) again: bool,
}

impl Meta {
    pub(super) fn of_visit(visit: u32) -> Self {
        Meta { visit: Some(visit).filter(|visit| *visit != 1), ..Meta::default() }
    }
}

/// `context` of `playbook.initialized`.
#[derive(Serialize, Deserialize)]
pub(super) struct InitializedContext {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<Arc<str>>,
    #[serde(default = "one")]
    pub(super) version: i64,
    pub(super) entry: Arc<str>,
    #[serde(default)]
    pub(super) workload: Arc<Value>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) depth: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) parent_command_id: Option<CommandId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) return_step: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cancel_mode: Option<CancelMode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cancel_grace_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) shield: Option<Shield>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) concurrency_key: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub(super) labels: Labels,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) started_by: Option<Cow<'static, str>>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) strict: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rerun_of: Option<ExecutionId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) kept: Option<Kept>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cleanup: Option<CleanupOf>,
}

/// `context` of `command.issued`.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct IssuedContext {
    #[serde(default)]
    pub(super) input: Arc<Value>,
}

/// `context` of `step.skipped`, `step.exit`, `command.completed` and `command.failed`.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct ExitContext<'a> {
    #[serde(default, skip_serializing_if = "is_empty")]
    pub(super) ctx: Cow<'a, [Write]>,
    #[serde(default, skip_serializing_if = "is_empty")]
    pub(super) routed: Cow<'a, [Arc<str>]>,
}

/// `context` of `command.suspended`.
#[derive(Serialize, Deserialize)]
pub(super) struct SuspendedContext<'a> {
    pub(super) wait: WaitColumn,
    #[serde(default)]
    pub(super) continuation: Arc<Value>,
    #[serde(default, skip_serializing_if = "is_empty")]
    pub(super) ctx: Cow<'a, [Write]>,
}

/// What a suspended command waits for: `{"until": …}` or `{"child": {…}}`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum WaitColumn {
    Until(#[serde(with = "iso")] Timestamp),
    Child { execution_id: ExecutionId, path: Arc<str> },
}

impl From<&Wait> for WaitColumn {
    fn from(wait: &Wait) -> Self {
        match wait {
            Wait::Until(at) => WaitColumn::Until(*at),
            Wait::Child { execution_id, path } => {
                WaitColumn::Child { execution_id: *execution_id, path: Arc::clone(path) }
            }
        }
    }
}

impl From<WaitColumn> for Wait {
    fn from(wait: WaitColumn) -> Self {
        match wait {
            WaitColumn::Until(at) => Wait::Until(at),
            WaitColumn::Child { execution_id, path } => Wait::Child { execution_id, path },
        }
    }
}

/// `context` of `command.resumed`.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct ResumedContext {
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub(super) continuation: Option<Arc<Value>>,
}

/// `context` of `command.lost` and `command.cancelled`.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct ReasonContext<'a> {
    #[serde(default)]
    pub(super) reason: Cow<'a, str>,
}

/// `context` of `command.stopping`.
#[derive(Serialize, Deserialize)]
pub(super) struct StoppingContext<'a> {
    pub(super) cause: StopCause,
    #[serde(default)]
    pub(super) reason: Cow<'a, str>,
    #[serde(default)]
    pub(super) cancelled_by: Cow<'a, str>,
    #[serde(default)]
    pub(super) held: bool,
}

/// `context` of `command.forgotten`.
#[derive(Serialize, Deserialize)]
pub(super) struct ForgottenContext {
    pub(super) end: AttemptEnd,
}

/// `context` of `loop.started`, `loop.claimed` (whose `total` is the frame's) and `loop.done`.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct LoopContext {
    #[serde(default)]
    pub(super) total: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) max_in_flight: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) failed: Option<u32>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) left_out: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cursor: Option<CursorPlan>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) full: bool,
}

/// `context` of `loop.completing`.
#[derive(Serialize, Deserialize)]
pub(super) struct CompletingContext<'a> {
    pub(super) mode: CancelMode,
    #[serde(default)]
    pub(super) completed_by: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "is_empty")]
    pub(super) commands: Cow<'a, [CommandId]>,
}

/// `context` of `step.cancelled`.
#[derive(Serialize, Deserialize)]
pub(super) struct StepCancelledContext<'a> {
    pub(super) by_step: Arc<str>,
    #[serde(default, skip_serializing_if = "is_empty")]
    pub(super) visits: Cow<'a, [u32]>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) arrivals: u32,
    #[serde(default, skip_serializing_if = "is_empty")]
    pub(super) commands: Cow<'a, [CommandId]>,
}

/// `context` of `playbook.failed`.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct FailedContext {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) step: Option<Arc<str>>,
}

/// `context` of `execution.cancelled` and `execution.cancel_escalated`.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct CancelContext<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cancelled_by: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) requested_by: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) remote: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cascade: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mode: Option<CancelMode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) grace_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) root_execution_id: Option<ExecutionId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) requested_execution_id: Option<ExecutionId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) job_id: Option<CancellationId>,
    #[serde(default, skip_serializing_if = "is_empty")]
    pub(super) in_flight: Cow<'a, [CommandId]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cleanup: Option<ExecutionId>,
}

/// `context` of `execution.paused` and `execution.resumed`.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct PauseContext<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) paused_by: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) resumed_by: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) requested_by: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(super) cascade: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) requested_execution_id: Option<ExecutionId>,
}

/// `context` of `execution.quiesced`.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct QuiescedContext<'a> {
    #[serde(default)]
    pub(super) commands: Cow<'a, [Ended]>,
}

fn one() -> i64 {
    1
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

fn is_empty<T>(list: &[T]) -> bool {
    list.is_empty()
}

/// Tells `null` from a member that is not there.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Arc<Value>>, D::Error> {
    Arc::<Value>::deserialize(deserializer).map(Some)
}

mod iso {
    use super::{Deserialize, Deserializer, Serializer, Timestamp};

    pub(super) fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&at.to_iso())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        Timestamp::from_iso(&text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not a time")))
    }
}

mod maybe_iso {
    use super::{Deserializer, Serializer, Timestamp, iso};

    pub(super) fn serialize<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => iso::serialize(at, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        iso::deserialize(deserializer).map(Some)
    }
}
