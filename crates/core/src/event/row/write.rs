//! From facts to rows.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::column::{
    CancelContext, CompletingContext, ExitContext, FailedContext, ForgottenContext, InitializedContext, IssuedContext,
    LoopContext, Meta, PauseContext, QuiescedContext, ReasonContext, ResultColumn, ResumedContext,
    StepCancelledContext, StoppingContext, SuspendedContext,
};
use super::{EventRow, RowContext, status, wire_name};
use crate::event::{Event, Exit, Recorded, SCHEMA_VERSION};
use crate::id::{CommandId, ExecutionId};
use crate::result::Bound;

/// Longest text in the column `error`, in bytes; the whole error stands in `result`.
const ERROR_TEXT_BYTES_MAX: usize = 1024;

/// JSON on its way into a column.
pub trait WriteJson: Sized {
    /// Writes `value`.
    fn write<T: Serialize>(value: &T) -> Self;
}

impl WriteJson for Value {
    fn write<T: Serialize>(value: &T) -> Self {
        serde_json::to_value(value).unwrap_or_else(|error| unreachable!("columns are plain JSON: {error}"))
    }
}

impl WriteJson for String {
    fn write<T: Serialize>(value: &T) -> Self {
        serde_json::to_string(value).unwrap_or_else(|error| unreachable!("columns are plain JSON: {error}"))
    }
}

/// The part of a row that the event alone decides; written as text, it is ready for a database.
#[derive(Debug, Clone, PartialEq)]
pub struct Columns<J> {
    /// See [`EventRow::parent_execution_id`].
    pub parent_execution_id: Option<ExecutionId>,
    /// See [`wire_name`].
    pub event_type: &'static str,
    /// See [`EventRow::node_name`]; `node_id` is the same.
    pub node_name: Option<Arc<str>>,
    /// See [`EventRow::node_type`].
    pub node_type: Option<Arc<str>>,
    /// See [`status`].
    pub status: &'static str,
    /// See [`EventRow::context`].
    pub context: Option<J>,
    /// See [`EventRow::result`].
    pub result: Option<J>,
    /// See [`EventRow::meta`].
    pub meta: Option<J>,
    /// See [`EventRow::error`].
    pub error: Option<String>,
    /// See [`EventRow::worker_id`].
    pub worker_id: Option<Arc<str>>,
    /// See [`EventRow::command_id`].
    pub command_id: Option<CommandId>,
    /// See [`EventRow::attempt`].
    pub attempt: Option<u32>,
    /// See [`EventRow::iteration`].
    pub iteration: Option<u32>,
    /// See [`EventRow::duration`].
    pub duration: Option<f64>,
}

/// Returns the row of a recorded fact.
pub fn to_row(recorded: &Recorded, context: &RowContext) -> EventRow {
    let columns = columns::<Value>(&recorded.event);
    EventRow {
        execution_id: recorded.execution_id,
        version: recorded.version,
        event_id: recorded.event_id,
        parent_execution_id: columns.parent_execution_id,
        root_execution_id: context.root_execution_id,
        catalog_id: context.catalog_id,
        event_type: Cow::Borrowed(columns.event_type),
        node_id: columns.node_name.clone(),
        node_name: columns.node_name,
        node_type: columns.node_type,
        status: Cow::Borrowed(columns.status),
        context: columns.context,
        result: columns.result,
        meta: columns.meta,
        error: columns.error,
        worker_id: columns.worker_id,
        command_id: columns.command_id,
        attempt: columns.attempt,
        iteration: columns.iteration,
        duration: columns.duration,
        created_at: recorded.at,
        schema_version: SCHEMA_VERSION,
    }
}

/// Returns what the event alone decides about its row.
pub fn columns<J: WriteJson>(event: &Event) -> Columns<J> {
    let row = Columns {
        parent_execution_id: None,
        event_type: wire_name(event),
        node_name: None,
        node_type: None,
        status: status(event),
        context: None,
        result: None,
        meta: None,
        error: None,
        worker_id: None,
        command_id: None,
        attempt: None,
        iteration: None,
        duration: None,
    };
    match event {
        Event::PlaybookInitialized(init) => Columns {
            parent_execution_id: init.parent.as_ref().map(|parent| parent.execution_id),
            node_name: Some(Arc::clone(&init.path)),
            node_type: Some("playbook".into()),
            context: Some(J::write(&InitializedContext {
                path: Some(Arc::clone(&init.path)),
                version: init.version,
                entry: Arc::clone(&init.entry),
                workload: Arc::clone(&init.workload),
                depth: init.depth,
                parent_command_id: init.parent.as_ref().and_then(|parent| parent.command_id),
                return_step: init.parent.as_ref().and_then(|parent| parent.return_step.clone()),
                cancel_mode: init.cancel_mode,
                cancel_grace_ms: init.cancel_grace_ms,
                shield: init.shield,
                concurrency_key: init.concurrency_key.clone(),
                labels: init.labels.clone(),
                started_by: init.started_by.clone().map(Cow::Owned),
                strict: init.strict,
                rerun_of: init.rerun.as_ref().map(|rerun| rerun.of),
                kept: init.rerun.as_ref().and_then(|rerun| rerun.kept.clone()),
                cleanup: init.cleanup.as_deref().cloned(),
            })),
            ..row
        },
        Event::StepEnter { step, visit, kind } => Columns {
            node_name: Some(Arc::clone(step)),
            node_type: Some(Arc::clone(kind)),
            meta: meta(&Meta::of_visit(*visit)),
            ..row
        },
        Event::StepSkipped { step, exit } => {
            Columns { node_name: Some(Arc::clone(step)), context: exit_context(exit), ..row }
        }
        Event::CommandIssued(issued) => Columns {
            node_name: Some(Arc::clone(&issued.step)),
            node_type: Some(Arc::clone(&issued.kind)),
            context: Some(J::write(&IssuedContext { input: Arc::clone(&issued.input) })),
            meta: meta(&Meta::of_visit(issued.visit)),
            command_id: Some(issued.command_id),
            attempt: Some(1),
            iteration: issued.iteration,
            ..row
        },
        Event::CommandClaimed { command_id, epoch, step, session_id, worker_id } => Columns {
            node_name: Some(Arc::clone(step)),
            meta: meta(&Meta { session_id: Some(*session_id), ..Meta::default() }),
            worker_id: Some(Arc::clone(worker_id)),
            command_id: Some(*command_id),
            attempt: Some(*epoch),
            ..row
        },
        Event::CommandStarted { command_id, epoch, step, worker_id, started_at, late } => Columns {
            node_name: Some(Arc::clone(step)),
            meta: meta(&Meta { started_at: Some(*started_at), late: *late, ..Meta::default() }),
            worker_id: Some(Arc::clone(worker_id)),
            command_id: Some(*command_id),
            attempt: Some(*epoch),
            ..row
        },
        Event::CallDone(call) => Columns {
            node_name: Some(Arc::clone(&call.step)),
            context: writes_context(&call.ctx),
            result: result(row.status, Some(&call.result), call.error.as_ref()),
            meta: meta(&Meta { hard: call.hard, handled: call.handled, ..Meta::of_visit(call.visit) }),
            error: call.error.as_deref().map(error_text),
            command_id: call.command_id,
            attempt: Some(call.epoch),
            iteration: call.iteration,
            ..row
        },
        Event::CommandDone(done) => Columns {
            node_name: Some(Arc::clone(&done.step)),
            context: writes_context(&done.ctx),
            result: result(row.status, done.late_result.as_ref(), done.error.as_ref()),
            meta: meta(&Meta { started_at: done.started_at, late: done.late, ..Meta::of_visit(done.visit) }),
            error: done.error.as_deref().map(error_text),
            worker_id: done.worker_id.clone(),
            command_id: Some(done.command_id),
            attempt: Some(done.epoch),
            iteration: done.iteration,
            // Exact below 2^53 ms.
            duration: done.duration_ms.map(|ms| ms as f64),
            ..row
        },
        Event::CommandSuspended(suspended) => Columns {
            node_name: Some(Arc::clone(&suspended.step)),
            context: Some(J::write(&SuspendedContext {
                wait: (&suspended.wait).into(),
                continuation: Arc::clone(&suspended.continuation),
                ctx: Cow::Borrowed(&suspended.ctx),
            })),
            command_id: Some(suspended.command_id),
            attempt: Some(suspended.epoch),
            ..row
        },
        Event::CommandResumed { command_id, epoch, step, continuation } => Columns {
            node_name: Some(Arc::clone(step)),
            context: continuation
                .as_ref()
                .map(|continuation| J::write(&ResumedContext { continuation: Some(Arc::clone(continuation)) })),
            command_id: Some(*command_id),
            attempt: Some(*epoch),
            ..row
        },
        Event::CommandLost { command_id, epoch, step, session_id, reason, again } => Columns {
            node_name: Some(Arc::clone(step)),
            context: Some(J::write(&ReasonContext { reason: Cow::Borrowed(reason) })),
            meta: meta(&Meta { session_id: Some(*session_id), again: *again, ..Meta::default() }),
            command_id: Some(*command_id),
            attempt: Some(*epoch),
            ..row
        },
        Event::CommandReleased { command_id, epoch, step } => {
            Columns { node_name: Some(Arc::clone(step)), command_id: Some(*command_id), attempt: Some(*epoch), ..row }
        }
        Event::CommandCancelled { command_id, epoch, step, reason, worker_id } => Columns {
            node_name: Some(Arc::clone(step)),
            context: Some(J::write(&ReasonContext { reason: Cow::Borrowed(reason) })),
            worker_id: worker_id.clone(),
            command_id: Some(*command_id),
            attempt: Some(*epoch),
            ..row
        },
        Event::CommandStopping(stopping) => Columns {
            node_name: Some(Arc::clone(&stopping.step)),
            context: Some(J::write(&StoppingContext {
                cause: stopping.cause,
                reason: Cow::Borrowed(&stopping.reason),
                cancelled_by: Cow::Borrowed(&stopping.by),
                held: stopping.held,
            })),
            command_id: Some(stopping.command_id),
            attempt: Some(stopping.epoch),
            ..row
        },
        Event::CommandForgotten { command_id, epoch, step, end } => Columns {
            node_name: Some(Arc::clone(step)),
            context: Some(J::write(&ForgottenContext { end: *end })),
            command_id: Some(*command_id),
            attempt: Some(*epoch),
            ..row
        },
        Event::LoopStarted { step, visit, items, total, max_in_flight, cursor } => Columns {
            node_name: Some(Arc::clone(step)),
            context: Some(J::write(&LoopContext {
                total: *total,
                max_in_flight: Some(*max_in_flight),
                cursor: *cursor,
                ..LoopContext::default()
            })),
            result: result(row.status, Some(items), None),
            meta: meta(&Meta::of_visit(*visit)),
            ..row
        },
        Event::LoopClaimed { step, visit, rows, count, full } => Columns {
            node_name: Some(Arc::clone(step)),
            context: Some(J::write(&LoopContext { total: *count, full: *full, ..LoopContext::default() })),
            result: result(row.status, Some(rows), None),
            meta: meta(&Meta::of_visit(*visit)),
            ..row
        },
        Event::LoopCompleting(completing) => Columns {
            node_name: Some(Arc::clone(&completing.step)),
            context: Some(J::write(&CompletingContext {
                mode: completing.mode,
                completed_by: Cow::Borrowed(&completing.by),
                reason: completing.reason.as_deref().map(Cow::Borrowed),
                commands: Cow::Borrowed(&completing.commands),
            })),
            meta: meta(&Meta::of_visit(completing.visit)),
            ..row
        },
        Event::StepCancelled(cancelled) => Columns {
            node_name: Some(Arc::clone(&cancelled.step)),
            context: Some(J::write(&StepCancelledContext {
                by_step: Arc::clone(&cancelled.by),
                visits: Cow::Borrowed(&cancelled.visits),
                arrivals: cancelled.arrivals,
                commands: Cow::Borrowed(&cancelled.commands),
            })),
            ..row
        },
        Event::LoopDone { step, visit, total, failed, left_out, result: bound } => Columns {
            node_name: Some(Arc::clone(step)),
            context: Some(J::write(&LoopContext {
                total: *total,
                failed: Some(*failed),
                left_out: *left_out,
                ..LoopContext::default()
            })),
            result: result(row.status, Some(bound), None),
            meta: meta(&Meta::of_visit(*visit)),
            ..row
        },
        Event::StepExit(exited) => Columns {
            node_name: Some(Arc::clone(&exited.step)),
            context: exit_context(&exited.exit),
            result: result(row.status, exited.result.as_ref(), exited.error.as_ref()),
            meta: meta(&Meta { fatal: exited.fatal, handled: exited.handled, ..Meta::of_visit(exited.visit) }),
            error: exited.error.as_deref().map(error_text),
            ..row
        },
        Event::PlaybookCompleted { path, result: bound } => Columns {
            node_name: Some(Arc::clone(path)),
            node_type: Some("playbook".into()),
            result: result(row.status, Some(bound), None),
            ..row
        },
        Event::PlaybookFailed { path, error, step } => Columns {
            node_name: Some(Arc::clone(path)),
            node_type: Some("playbook".into()),
            context: step.as_ref().map(|step| J::write(&FailedContext { step: Some(Arc::clone(step)) })),
            result: result(row.status, None, Some(error)),
            error: Some(error_text(error)),
            ..row
        },
        Event::ExecutionCancelled(cancelled) => Columns {
            node_name: Some("cancel".into()),
            context: Some(J::write(&CancelContext {
                reason: cancelled.reason.as_deref().map(Cow::Borrowed),
                cancelled_by: Some(Cow::Borrowed(&cancelled.cancelled_by)),
                requested_by: cancelled.requested_by.as_deref().map(Cow::Borrowed),
                remote: cancelled.remote.as_deref().map(Cow::Borrowed),
                cascade: Some(cancelled.cascade),
                mode: Some(cancelled.mode),
                grace_ms: Some(cancelled.grace_ms),
                root_execution_id: Some(cancelled.root_execution_id),
                requested_execution_id: Some(cancelled.requested_execution_id),
                job_id: cancelled.job_id,
                in_flight: Cow::Borrowed(&cancelled.in_flight),
                cleanup: cancelled.cleanup,
            })),
            ..row
        },
        Event::ExecutionCancelEscalated(escalated) => Columns {
            node_name: Some("cancel".into()),
            context: Some(J::write(&CancelContext {
                reason: escalated.reason.as_deref().map(Cow::Borrowed),
                cancelled_by: Some(Cow::Borrowed(&escalated.cancelled_by)),
                requested_by: escalated.requested_by.as_deref().map(Cow::Borrowed),
                mode: Some(escalated.mode),
                grace_ms: Some(escalated.grace_ms),
                ..CancelContext::default()
            })),
            ..row
        },
        Event::ExecutionPaused(order) | Event::ExecutionResumed(order) => {
            let by = Some(Cow::Borrowed(order.by.as_str()));
            let (paused_by, resumed_by) =
                if matches!(event, Event::ExecutionPaused(_)) { (by, None) } else { (None, by) };
            Columns {
                node_name: Some("pause".into()),
                context: Some(J::write(&PauseContext {
                    reason: order.reason.as_deref().map(Cow::Borrowed),
                    paused_by,
                    resumed_by,
                    requested_by: order.requested_by.as_deref().map(Cow::Borrowed),
                    cascade: order.cascade,
                    requested_execution_id: Some(order.requested_execution_id),
                })),
                ..row
            }
        }
        Event::CleanupPrepared(prepared) => {
            Columns { node_name: Some("cleanup".into()), context: Some(J::write(&**prepared)), ..row }
        }
        Event::ExecutionQuiesced { commands } => Columns {
            node_name: Some("cancel".into()),
            context: Some(J::write(&QuiescedContext { commands: Cow::Borrowed(commands) })),
            ..row
        },
    }
}

fn meta<J: WriteJson>(meta: &Meta) -> Option<J> {
    (*meta != Meta::default()).then(|| J::write(meta))
}

fn result<J: WriteJson>(status: &'static str, bound: Option<&Bound>, error: Option<&Arc<Value>>) -> Option<J> {
    (bound.is_some() || error.is_some()).then(|| J::write(&ResultColumn::new(status, bound, error)))
}

fn exit_context<J: WriteJson>(exit: &Exit) -> Option<J> {
    let says = !exit.ctx.is_empty() || !exit.routed.is_empty();
    says.then(|| J::write(&ExitContext { ctx: Cow::Borrowed(&exit.ctx), routed: Cow::Borrowed(&exit.routed) }))
}

fn writes_context<J: WriteJson>(ctx: &[crate::event::Write]) -> Option<J> {
    (!ctx.is_empty()).then(|| J::write(&ExitContext { ctx: Cow::Borrowed(ctx), routed: Cow::default() }))
}

/// Returns the sentence in an error, for people who read the column `error`.
fn error_text(error: &Value) -> String {
    let text = match error.get("message").unwrap_or(error) {
        Value::String(text) => Cow::Borrowed(text.as_str()),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Cow::Owned(other.to_string())
        }
    };
    text[..text.floor_char_boundary(ERROR_TEXT_BYTES_MAX)].to_owned()
}
