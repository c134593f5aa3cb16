//! Facts: what has happened to an execution, in the order in which it was written.
//!
//! Events are few and meaningful; each name that people's SQL looks for is a row. This file says what the facts are;
//! [`end`] says which of them end an execution and what may follow, [`row`] how a fact becomes a row of the table `event` and is read back.

pub mod end;
pub mod row;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::execution::cleanup::{CleanupOf, Prepared};
use crate::execution::rerun::Rerun;
use crate::id::{CancellationId, CatalogId, CommandId, EventId, ExecutionId, SessionId};
use crate::labels::Labels;
use crate::playbook::{CancelMode, Shield};
use crate::result::Bound;
use crate::time::Timestamp;

/// Version of the shapes below; stands in every row.
pub const SCHEMA_VERSION: u32 = 1;

/// A fact with its place in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// Whose log.
    pub execution_id: ExecutionId,
    /// Place in that log, from 1, without holes.
    pub version: u64,
    /// Unique over all logs.
    pub event_id: EventId,
    /// When it was decided, by the store's clock.
    pub at: Timestamp,
    /// The fact.
    pub event: Event,
}

/// A fact.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// `playbook.initialized`: the run exists. Always the first event.
    PlaybookInitialized(Box<Initialized>),
    /// `step.enter`: a visit of a step really starts.
    StepEnter {
        /// Step name.
        step: Arc<str>,
        /// Which visit of this step, from 1.
        visit: u32,
        /// Kind of its first tool.
        kind: Arc<str>,
    },
    /// `step.skipped`: admission said no; the arcs are followed all the same.
    StepSkipped {
        /// Step name.
        step: Arc<str>,
        /// The arcs taken, and what they set.
        exit: Exit,
    },
    /// `command.issued`: a piece of work exists.
    CommandIssued(Box<Issued>),
    /// `command.claimed`: a worker session holds it. Written blind, so it changes nothing that decisions read.
    CommandClaimed {
        /// Which.
        command_id: CommandId,
        /// Attempt.
        epoch: u32,
        /// Step name.
        step: Arc<str>,
        /// Holder.
        session_id: SessionId,
        /// The holder's name.
        worker_id: Arc<str>,
    },
    /// `command.started`: the tool began. Written at once for long tools, else with the report.
    CommandStarted {
        /// Which.
        command_id: CommandId,
        /// Attempt.
        epoch: u32,
        /// Step name.
        step: Arc<str>,
        /// The worker's name.
        worker_id: Arc<str>,
        /// When the worker started it.
        started_at: Timestamp,
        /// Recorded after the execution had ended.
        late: bool,
    },
    /// `call.done` or `call.error`: what the tool, or the pipeline, gave.
    CallDone(Box<Call>),
    /// `command.completed` or `command.failed`: the command is over.
    CommandDone(Box<CommandDone>),
    /// `command.suspended`: it waits for a time or a child and holds no worker.
    CommandSuspended(Box<Suspended>),
    /// `command.resumed`: what it waited for has come; it is pending again under the next epoch.
    CommandResumed {
        /// Which.
        command_id: CommandId,
        /// The new attempt.
        epoch: u32,
        /// Step name.
        step: Arc<str>,
        /// What the interpreter goes on with; `None` keeps what the suspension recorded.
        continuation: Option<Arc<Value>>,
    },
    /// `command.lost`: its worker fell silent or came back without it.
    CommandLost {
        /// Which.
        command_id: CommandId,
        /// The lost attempt.
        epoch: u32,
        /// Step name.
        step: Arc<str>,
        /// The session that held it.
        session_id: SessionId,
        /// Why it is given up.
        reason: String,
        /// It is pending again under `epoch + 1`.
        again: bool,
    },
    /// `command.released`: a draining worker handed it back; pending again under `epoch + 1`.
    CommandReleased {
        /// Which.
        command_id: CommandId,
        /// The attempt handed back.
        epoch: u32,
        /// Step name.
        step: Arc<str>,
    },
    /// `command.cancelled`: it will not run, or was stopped.
    CommandCancelled {
        /// Which.
        command_id: CommandId,
        /// Attempt.
        epoch: u32,
        /// Step name.
        step: Arc<str>,
        /// Why.
        reason: String,
        /// Reported by the worker that held it.
        worker_id: Option<Arc<str>>,
    },
    /// `command.stopping`: it is to end before its time, while the execution goes on.
    CommandStopping(Box<Stopping>),
    /// `command.forgotten`: a lost attempt whose session has not been heard of for `session_forget`.
    CommandForgotten {
        /// Which.
        command_id: CommandId,
        /// The lost attempt.
        epoch: u32,
        /// Step name.
        step: Arc<str>,
        /// What can be said of it.
        end: AttemptEnd,
    },
    /// `loop.started`: the collection is fixed.
    LoopStarted {
        /// Step name.
        step: Arc<str>,
        /// Which visit.
        visit: u32,
        /// The elements, in order.
        items: Bound,
        /// How many.
        total: u32,
        /// Most iterations in flight at once.
        max_in_flight: u32,
        /// How rows are claimed; there are no elements yet.
        cursor: Option<CursorPlan>,
    },
    /// `loop.claimed`: a cursor has claimed a frame of rows, which may be empty.
    LoopClaimed {
        /// Step name.
        step: Arc<str>,
        /// Which visit.
        visit: u32,
        /// The rows, in order.
        rows: Bound,
        /// Iterations of this frame.
        count: u32,
        /// As many rows as were asked for: there may be more.
        full: bool,
    },
    /// `loop.completing`: no further iteration begins, and the loop ends with the results there are.
    LoopCompleting(Box<Completing>),
    /// `loop.done`: every iteration has ended, or the loop was completed early.
    LoopDone {
        /// Step name.
        step: Arc<str>,
        /// Which visit.
        visit: u32,
        /// Iterations.
        total: u32,
        /// Of these, failed.
        failed: u32,
        /// Of these, not ended: the loop was completed early.
        left_out: u32,
        /// The loop's result: `{results, stats, status}`.
        result: Bound,
    },
    /// `step.cancelled`: an arc that fired has cancelled what a step had begun; nothing follows from it.
    StepCancelled(Box<StepCancelled>),
    /// `step.exit`: a visit is over; the arcs are chosen.
    StepExit(Box<StepExited>),
    /// `playbook.completed`: terminal.
    PlaybookCompleted {
        /// Catalog path.
        path: Arc<str>,
        /// What a parent gets: data of its `return_step`, of the final step, or of the last finished step.
        result: Bound,
    },
    /// `playbook.failed`: terminal.
    PlaybookFailed {
        /// Catalog path.
        path: Arc<str>,
        /// Why, as `{kind, code, message, …}`.
        error: Arc<Value>,
        /// The step that failed, if one did.
        step: Option<Arc<str>>,
    },
    /// `execution.cancelled`: terminal; the decision.
    ExecutionCancelled(Box<Cancelled>),
    /// `execution.cancel_escalated`: what still runs is stopped harder.
    ExecutionCancelEscalated(Box<Escalated>),
    /// `execution.paused`: nothing more begins until it is resumed.
    ExecutionPaused(Box<PauseOrder>),
    /// `execution.resumed`: it goes on.
    ExecutionResumed(Box<PauseOrder>),
    /// `cleanup.prepared`: what the cancelled execution leaves to its cleanup.
    CleanupPrepared(Box<Prepared>),
    /// `execution.quiesced`: the proof; nothing of this execution runs any more.
    ExecutionQuiesced {
        /// How each command that was in flight ended.
        commands: Vec<Ended>,
    },
}

/// `playbook.initialized`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Initialized {
    /// The playbook version that this execution keeps.
    pub catalog_id: CatalogId,
    /// Catalog path.
    pub path: Arc<str>,
    /// Catalog version.
    pub version: i64,
    /// The step it begins with.
    pub entry: Arc<str>,
    /// Who started it, when an execution did.
    pub parent: Option<Parent>,
    /// Top of the family; itself without a parent.
    pub root_execution_id: ExecutionId,
    /// 0 without a parent.
    pub depth: u32,
    /// Defaults, rendered, with the payload over them.
    pub workload: Arc<Value>,
    /// How a cancel treats what runs, when the request does not say.
    pub cancel_mode: Option<CancelMode>,
    /// Grace of an interrupt, when the request does not say, in milliseconds.
    pub cancel_grace_ms: Option<u64>,
    /// What a cancel that comes down from an ancestor does to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shield: Option<Shield>,
    /// The concurrency key that it has until nothing of it runs any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_key: Option<Arc<str>>,
    /// What people find it by.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Identity of who started it.
    pub started_by: Option<String>,
    /// Fails the run on every error that nothing handled, whatever the playbook says.
    #[serde(default)]
    pub strict: bool,
    /// The execution that it runs again, and what it has from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun: Option<Box<Rerun>>,
    /// The cancelled execution that it cleans up after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleanup: Option<Box<CleanupOf>>,
}

/// The upward edge of a child.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parent {
    /// The parent.
    pub execution_id: ExecutionId,
    /// The parent's waiting command; `None` for a child started by API.
    pub command_id: Option<CommandId>,
    /// The step whose data the parent wants.
    pub return_step: Option<Arc<str>>,
}

/// How a cursor loop claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorPlan {
    /// Most frames under way at once (`max_in_flight`).
    pub claimers: u32,
    /// Rows that a claim is asked for (`frame.max_rows`).
    pub max_rows: u32,
    /// Iterations of one frame at once (`frame.row_concurrency`).
    pub row_concurrency: u32,
    /// One iteration gets all rows of a frame (`frame.process: frame`).
    pub by_frame: bool,
}

/// `command.issued`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Issued {
    /// Which.
    pub command_id: CommandId,
    /// Step name.
    pub step: Arc<str>,
    /// Which visit of the step.
    pub visit: u32,
    /// Which iteration of a loop, from 0.
    pub iteration: Option<u32>,
    /// Kind of the first tool.
    pub kind: Arc<str>,
    /// The step's arguments, rendered, as far as they are known before the work begins.
    pub input: Arc<Value>,
}

/// `call.done` or `call.error`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Which command; `None` when the server did it itself.
    pub command_id: Option<CommandId>,
    /// Attempt.
    pub epoch: u32,
    /// Step name.
    pub step: Arc<str>,
    /// Which visit.
    pub visit: u32,
    /// Which iteration of a loop, from 0.
    pub iteration: Option<u32>,
    /// What later templates see under the step's name.
    pub result: Bound,
    /// `None` = it worked.
    pub error: Option<Arc<Value>>,
    /// The error fails the run unless an arc catches it.
    pub hard: bool,
    /// A policy of the playbook chose this outcome, so it counts as handled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub handled: bool,
    /// `ctx.` writes, when no command carries them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ctx: Vec<Write>,
}

/// `command.completed` or `command.failed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommandDone {
    /// Which.
    pub command_id: CommandId,
    /// Attempt.
    pub epoch: u32,
    /// Step name.
    pub step: Arc<str>,
    /// Which visit.
    pub visit: u32,
    /// Which iteration of a loop, from 0.
    pub iteration: Option<u32>,
    /// `None` = `command.completed`.
    pub error: Option<Arc<Value>>,
    /// What a late one gave: evidence, and what its cleanup sees. Else `call.done` holds the result.
    pub late_result: Option<Bound>,
    /// `ctx.` writes of the pipeline, in order.
    pub ctx: Vec<Write>,
    /// When the worker started it.
    pub started_at: Option<Timestamp>,
    /// The worker's name.
    pub worker_id: Option<Arc<str>>,
    /// How long the work took, in milliseconds.
    pub duration_ms: Option<u64>,
    /// Recorded after the execution had ended: evidence, of no effect.
    pub late: bool,
}

/// What a command gave after its execution had been cancelled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LateResult {
    /// Step name.
    pub step: Arc<str>,
    /// Which iteration of a loop, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iteration: Option<u32>,
    /// What.
    pub result: Bound,
    /// It failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Arc<Value>>,
}

/// One write to `ctx`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Write {
    /// Path below `ctx`.
    pub path: Vec<Arc<str>>,
    /// The value.
    pub value: Value,
}

/// `command.suspended`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Suspended {
    /// Which.
    pub command_id: CommandId,
    /// The attempt that ended; it waits under `epoch + 1`.
    pub epoch: u32,
    /// Step name.
    pub step: Arc<str>,
    /// What for.
    pub wait: Wait,
    /// Where the interpreter goes on.
    pub continuation: Arc<Value>,
    /// `ctx.` writes so far.
    pub ctx: Vec<Write>,
}

/// What a suspended command waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// A moment.
    Until(Timestamp),
    /// The end of a child execution.
    Child {
        /// Which.
        execution_id: ExecutionId,
        /// Its catalog path.
        path: Arc<str>,
    },
}

/// The arcs taken from a step and what was set on the way.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Exit {
    /// Step `set` and arc `set`, in order, evaluated.
    pub ctx: Vec<Write>,
    /// Targets of the arcs that fired.
    pub routed: Vec<Arc<str>>,
}

/// `step.exit`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepExited {
    /// Step name.
    pub step: Arc<str>,
    /// Which visit.
    pub visit: u32,
    /// The step's result, when no `call.done` carried it.
    pub result: Option<Bound>,
    /// The step failed.
    pub error: Option<Arc<Value>>,
    /// Nothing handled the error, and it fails the run.
    pub fatal: bool,
    /// A rule or an arc handled the error.
    #[serde(default)]
    pub handled: bool,
    /// Arcs and writes.
    pub exit: Exit,
}

/// `execution.cancelled`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cancelled {
    /// Free text.
    pub reason: Option<String>,
    /// The authenticated identity, else `api`, `cli`, `timeout`, `parent`, `cleanup`, `concurrency`.
    pub cancelled_by: String,
    /// Self-declared.
    pub requested_by: Option<String>,
    /// Where the request came from.
    pub remote: Option<String>,
    /// The request asked for descendants too.
    pub cascade: bool,
    /// How what runs is treated.
    pub mode: CancelMode,
    /// Grace of an interrupt, in milliseconds.
    pub grace_ms: u64,
    /// Top of this execution's family.
    pub root_execution_id: ExecutionId,
    /// The execution that the request named; for a selection, the selected one that this was reached through.
    pub requested_execution_id: ExecutionId,
    /// The job that carried it out, when it took more than one commit.
    pub job_id: Option<CancellationId>,
    /// The commands held by workers at this moment.
    pub in_flight: Vec<CommandId>,
    /// The execution that will clean up after it, once nothing of it runs any more.
    pub cleanup: Option<ExecutionId>,
}

/// `execution.cancel_escalated`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Escalated {
    /// Free text.
    pub reason: Option<String>,
    /// Who.
    pub cancelled_by: String,
    /// Self-declared.
    pub requested_by: Option<String>,
    /// The new mode.
    pub mode: CancelMode,
    /// The new grace, in milliseconds.
    pub grace_ms: u64,
}

/// `execution.paused` and `execution.resumed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PauseOrder {
    /// Free text.
    pub reason: Option<String>,
    /// The authenticated identity, else `api`, `cli`.
    pub by: String,
    /// Self-declared.
    pub requested_by: Option<String>,
    /// The request asked for descendants too.
    pub cascade: bool,
    /// The execution that the request named.
    pub requested_execution_id: ExecutionId,
}

/// One line of the certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// Which.
    pub command_id: CommandId,
    /// Attempt.
    pub epoch: u32,
    /// Step name.
    pub step: Arc<str>,
    /// How.
    pub end: AttemptEnd,
    /// Processes that could not be confirmed gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pids: Vec<u32>,
}

/// What `command.stopping` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopping {
    /// Which.
    pub command_id: CommandId,
    /// Attempt.
    pub epoch: u32,
    /// Step name.
    pub step: Arc<str>,
    /// Why, as its step's error will say.
    pub cause: StopCause,
    /// Free text.
    pub reason: String,
    /// The authenticated identity, else `api`, `cli`, `timeout`.
    pub by: String,
    /// A worker holds it and is told to stop it; else it ran nowhere and is over.
    pub held: bool,
}

/// What `loop.completing` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completing {
    /// Step name.
    pub step: Arc<str>,
    /// Which visit.
    pub visit: u32,
    /// What becomes of the iterations that run: `interrupt` withdraws them, `finish` lets them end.
    pub mode: CancelMode,
    /// The authenticated identity, else `api`, `cli`; `complete_when` when the playbook says so.
    pub by: String,
    /// Free text.
    pub reason: Option<String>,
    /// The commands that are withdrawn: nothing they report counts any more.
    pub commands: Vec<CommandId>,
}

/// What `step.cancelled` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepCancelled {
    /// Step name.
    pub step: Arc<str>,
    /// The step whose arc cancels it.
    pub by: Arc<str>,
    /// The visits that are over.
    pub visits: Vec<u32>,
    /// Arrivals that were waiting and are gone.
    pub arrivals: u32,
    /// The commands that are withdrawn: nothing they report counts any more.
    pub commands: Vec<CommandId>,
}

/// Why a command is ended while its execution goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopCause {
    /// Somebody wants it.
    Cancelled,
    /// Its step's time limit passed.
    Timeout,
}

/// How an attempt that was in flight at the end came to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptEnd {
    /// It ran to its own end.
    Finished,
    /// It ended after the polite signal.
    Stopped,
    /// It was killed.
    Killed,
    /// The worker held it but never started it.
    NeverStarted,
    /// A process could not be confirmed gone.
    Unconfirmed,
    /// Its worker fell silent; nothing it reports will count.
    Unreachable,
}

/// Turns a tool error into what expressions read under `error`.
pub fn error_value(error: &crate::tool::ToolError) -> Value {
    let mut map = Map::new();
    map.insert("kind".into(), error.kind.as_str().into());
    map.insert("code".into(), error.code.clone().into());
    map.insert("message".into(), error.message.clone().into());
    map.insert("retryable".into(), error.retryable.into());
    for (key, value) in &error.details {
        map.entry(key.clone()).or_insert_with(|| value.clone());
    }
    Value::Object(map)
}
