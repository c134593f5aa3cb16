//! From rows to facts.

use std::borrow::Cow;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::column::{
    CancelContext, CompletingContext, ExitContext, FailedContext, ForgottenContext, InitializedContext, IssuedContext,
    LoopContext, Meta, PauseContext, QuiescedContext, ReasonContext, ResultColumn, ResumedContext,
    StepCancelledContext, StoppingContext, SuspendedContext,
};
use super::{EventRow, canonical_name};
use crate::event::{
    Call, Cancelled, CommandDone, Completing, Escalated, Event, Exit, Initialized, Issued, Parent, PauseOrder,
    Recorded, SCHEMA_VERSION, StepCancelled, StepExited, Stopping, Suspended,
};
use crate::execution::cleanup::Prepared;
use crate::execution::rerun::Rerun;
use crate::id::{CommandId, ExecutionId, SessionId};
use crate::playbook::CancelMode;
use crate::result::Bound;

/// Who is written down for a cancellation whose row does not say.
const CANCELLED_BY_UNSAID: &str = "api";

/// Why a row is no fact.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {version} of execution {execution_id} (`{event_type}`) cannot be read: {what}")]
pub struct RowError {
    /// Whose log.
    pub execution_id: ExecutionId,
    /// Which event of it.
    pub version: u64,
    /// What the row calls itself.
    pub event_type: String,
    /// What is wrong.
    pub what: String,
}

/// JSON on its way out of a column.
pub trait ReadJson {
    /// Reads it as a `T`.
    fn read<T: DeserializeOwned>(self) -> Result<T, serde_json::Error>;
}

impl ReadJson for Value {
    fn read<T: DeserializeOwned>(self) -> Result<T, serde_json::Error> {
        serde_json::from_value(self)
    }
}

impl ReadJson for &str {
    fn read<T: DeserializeOwned>(self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self)
    }
}

impl ReadJson for String {
    fn read<T: DeserializeOwned>(self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self)
    }
}

/// Reads a row, whichever version or generation wrote it.
pub fn from_row<J: ReadJson>(row: EventRow<J>) -> Result<Recorded, RowError> {
    let (execution_id, version, event_id, at) = (row.execution_id, row.version, row.event_id, row.created_at);
    let event_type = row.event_type.clone();
    match event(row) {
        Ok(event) => Ok(Recorded { execution_id, version, event_id, at, event }),
        Err(what) => Err(RowError { execution_id, version, event_type: event_type.into_owned(), what }),
    }
}

fn event<J: ReadJson>(mut row: EventRow<J>) -> Result<Event, String> {
    if row.schema_version > SCHEMA_VERSION {
        return Err(format!("it has version {}, this program knows up to {SCHEMA_VERSION}", row.schema_version));
    }
    let meta: Meta = match row.meta.take() {
        Some(json) => json.read().map_err(|error| format!("meta: {error}"))?,
        None => Meta::default(),
    };
    let visit = meta.visit.unwrap_or(1);
    let epoch = row.attempt.unwrap_or(1);
    let event_type = row.event_type.clone();
    match canonical_name(&event_type) {
        "playbook.initialized" => initialized(row),
        "step.enter" => Ok(Event::StepEnter { step: node(&row)?, visit, kind: kind(&row) }),
        "step.skipped" => Ok(Event::StepSkipped { step: node(&row)?, exit: exit(&mut row)? }),
        "command.issued" => Ok(Event::CommandIssued(Box::new(Issued {
            command_id: command(&row)?,
            step: node(&row)?,
            visit,
            iteration: row.iteration,
            kind: kind(&row),
            input: context::<_, IssuedContext>(&mut row)?.input,
        }))),
        "command.claimed" => Ok(Event::CommandClaimed {
            command_id: command(&row)?,
            epoch,
            step: node(&row)?,
            session_id: session(&meta)?,
            worker_id: worker(&row)?,
        }),
        "command.started" => Ok(Event::CommandStarted {
            command_id: command(&row)?,
            epoch,
            step: node(&row)?,
            worker_id: worker(&row)?,
            started_at: meta.started_at.unwrap_or(row.created_at),
            late: meta.late,
        }),
        "call.done" | "call.error" => {
            let result = result(&mut row)?;
            Ok(Event::CallDone(Box::new(Call {
                command_id: row.command_id,
                epoch,
                step: node(&row)?,
                visit,
                iteration: row.iteration,
                result: result.bound().unwrap_or_else(Bound::null),
                error: result.error,
                hard: meta.hard,
                handled: meta.handled,
                ctx: exit(&mut row)?.ctx,
            })))
        }
        "command.completed" | "command.failed" => {
            let result = result(&mut row)?;
            Ok(Event::CommandDone(Box::new(CommandDone {
                command_id: command(&row)?,
                epoch,
                step: node(&row)?,
                visit,
                iteration: row.iteration,
                late_result: result.bound(),
                error: result.error,
                ctx: exit(&mut row)?.ctx,
                started_at: meta.started_at,
                worker_id: row.worker_id,
                duration_ms: row.duration.map(|ms| ms as u64),
                late: meta.late,
            })))
        }
        "command.suspended" => {
            let context = required::<_, SuspendedContext<'_>>(&mut row)?;
            Ok(Event::CommandSuspended(Box::new(Suspended {
                command_id: command(&row)?,
                epoch,
                step: node(&row)?,
                wait: context.wait.into(),
                continuation: context.continuation,
                ctx: context.ctx.into_owned(),
            })))
        }
        "command.resumed" => Ok(Event::CommandResumed {
            command_id: command(&row)?,
            epoch,
            step: node(&row)?,
            continuation: context::<_, ResumedContext>(&mut row)?.continuation,
        }),
        "command.lost" => Ok(Event::CommandLost {
            command_id: command(&row)?,
            epoch,
            step: node(&row)?,
            session_id: session(&meta)?,
            reason: context::<_, ReasonContext<'_>>(&mut row)?.reason.into_owned(),
            again: meta.again,
        }),
        "command.released" => Ok(Event::CommandReleased { command_id: command(&row)?, epoch, step: node(&row)? }),
        "command.cancelled" => Ok(Event::CommandCancelled {
            command_id: command(&row)?,
            epoch,
            step: node(&row)?,
            reason: context::<_, ReasonContext<'_>>(&mut row)?.reason.into_owned(),
            worker_id: row.worker_id,
        }),
        "command.stopping" => {
            let (command_id, step) = (command(&row)?, node(&row)?);
            let StoppingContext { cause, reason, cancelled_by, held } = required(&mut row)?;
            let (reason, by) = (reason.into_owned(), cancelled_by.into_owned());
            Ok(Event::CommandStopping(Box::new(Stopping { command_id, epoch, step, cause, reason, by, held })))
        }
        "command.forgotten" => Ok(Event::CommandForgotten {
            command_id: command(&row)?,
            epoch,
            step: node(&row)?,
            end: required::<_, ForgottenContext>(&mut row)?.end,
        }),
        "loop.started" => {
            let context = context::<_, LoopContext>(&mut row)?;
            Ok(Event::LoopStarted {
                step: node(&row)?,
                visit,
                items: result(&mut row)?.bound().unwrap_or_else(Bound::null),
                total: context.total,
                max_in_flight: context.max_in_flight.unwrap_or(1),
                cursor: context.cursor,
            })
        }
        "loop.claimed" => {
            let context = context::<_, LoopContext>(&mut row)?;
            Ok(Event::LoopClaimed {
                step: node(&row)?,
                visit,
                rows: result(&mut row)?.bound().unwrap_or_else(Bound::null),
                count: context.total,
                full: context.full,
            })
        }
        "loop.done" => {
            let context = context::<_, LoopContext>(&mut row)?;
            Ok(Event::LoopDone {
                step: node(&row)?,
                visit,
                total: context.total,
                failed: context.failed.unwrap_or(0),
                left_out: context.left_out,
                result: result(&mut row)?.bound().unwrap_or_else(Bound::null),
            })
        }
        "loop.completing" => {
            let step = node(&row)?;
            let CompletingContext { mode, completed_by, reason, commands } = required(&mut row)?;
            let (by, reason) = (completed_by.into_owned(), reason.map(Cow::into_owned));
            let commands = commands.into_owned();
            Ok(Event::LoopCompleting(Box::new(Completing { step, visit, mode, by, reason, commands })))
        }
        "step.cancelled" => {
            let step = node(&row)?;
            let StepCancelledContext { by_step: by, visits, arrivals, commands } = required(&mut row)?;
            let (visits, commands) = (visits.into_owned(), commands.into_owned());
            Ok(Event::StepCancelled(Box::new(StepCancelled { step, by, visits, arrivals, commands })))
        }
        "step.exit" => {
            let result = result(&mut row)?;
            Ok(Event::StepExit(Box::new(StepExited {
                step: node(&row)?,
                visit,
                result: result.bound(),
                error: result.error,
                fatal: meta.fatal,
                handled: meta.handled,
                exit: exit(&mut row)?,
            })))
        }
        "playbook.completed" => Ok(Event::PlaybookCompleted {
            path: node(&row)?,
            result: result(&mut row)?.bound().unwrap_or_else(Bound::null),
        }),
        "playbook.failed" => Ok(Event::PlaybookFailed {
            path: node(&row)?,
            error: match result(&mut row)?.error {
                Some(error) => error,
                None => Arc::new(row.error.as_deref().map_or(Value::Null, Value::from)),
            },
            step: context::<_, FailedContext>(&mut row)?.step,
        }),
        "execution.cancelled" => cancelled(row),
        "execution.cancel_escalated" => {
            let context = context::<_, CancelContext<'_>>(&mut row)?;
            Ok(Event::ExecutionCancelEscalated(Box::new(Escalated {
                reason: context.reason.map(Cow::into_owned),
                cancelled_by: context.cancelled_by.map_or_else(|| CANCELLED_BY_UNSAID.into(), Cow::into_owned),
                requested_by: context.requested_by.map(Cow::into_owned),
                mode: context.mode.unwrap_or(CancelMode::Interrupt),
                grace_ms: context.grace_ms.unwrap_or(0),
            })))
        }
        "execution.paused" => Ok(Event::ExecutionPaused(Box::new(pause_order(row)?))),
        "execution.resumed" => Ok(Event::ExecutionResumed(Box::new(pause_order(row)?))),
        "cleanup.prepared" => Ok(Event::CleanupPrepared(Box::new(required::<_, Prepared>(&mut row)?))),
        "execution.quiesced" => Ok(Event::ExecutionQuiesced {
            commands: context::<_, QuiescedContext<'_>>(&mut row)?.commands.into_owned(),
        }),
        _ => Err("no such event type".into()),
    }
}

fn initialized<J: ReadJson>(mut row: EventRow<J>) -> Result<Event, String> {
    let context = required::<_, InitializedContext>(&mut row)?;
    Ok(Event::PlaybookInitialized(Box::new(Initialized {
        catalog_id: row.catalog_id,
        path: match context.path {
            Some(path) => path,
            None => node(&row)?,
        },
        version: context.version,
        entry: context.entry,
        parent: row.parent_execution_id.map(|execution_id| Parent {
            execution_id,
            command_id: context.parent_command_id,
            return_step: context.return_step,
        }),
        root_execution_id: row.root_execution_id,
        depth: context.depth,
        workload: context.workload,
        cancel_mode: context.cancel_mode,
        cancel_grace_ms: context.cancel_grace_ms,
        shield: context.shield,
        concurrency_key: context.concurrency_key,
        labels: context.labels,
        started_by: context.started_by.map(Cow::into_owned),
        strict: context.strict,
        rerun: context.rerun_of.map(|of| Box::new(Rerun { of, kept: context.kept })),
        cleanup: context.cleanup.map(Box::new),
    })))
}

fn cancelled<J: ReadJson>(mut row: EventRow<J>) -> Result<Event, String> {
    let context = context::<_, CancelContext<'_>>(&mut row)?;
    Ok(Event::ExecutionCancelled(Box::new(Cancelled {
        reason: context.reason.map(Cow::into_owned),
        cancelled_by: context.cancelled_by.map_or_else(|| CANCELLED_BY_UNSAID.into(), Cow::into_owned),
        requested_by: context.requested_by.map(Cow::into_owned),
        remote: context.remote.map(Cow::into_owned),
        cascade: context.cascade.unwrap_or(false),
        mode: context.mode.unwrap_or(CancelMode::Finish),
        grace_ms: context.grace_ms.unwrap_or(0),
        root_execution_id: context.root_execution_id.unwrap_or(row.root_execution_id),
        requested_execution_id: context.requested_execution_id.unwrap_or(row.execution_id),
        job_id: context.job_id,
        in_flight: context.in_flight.into_owned(),
        cleanup: context.cleanup,
    })))
}

fn pause_order<J: ReadJson>(mut row: EventRow<J>) -> Result<PauseOrder, String> {
    let context = context::<_, PauseContext<'_>>(&mut row)?;
    let by = context.paused_by.or(context.resumed_by);
    Ok(PauseOrder {
        reason: context.reason.map(Cow::into_owned),
        by: by.map_or_else(|| CANCELLED_BY_UNSAID.into(), Cow::into_owned),
        requested_by: context.requested_by.map(Cow::into_owned),
        cascade: context.cascade,
        requested_execution_id: context.requested_execution_id.unwrap_or(row.execution_id),
    })
}

fn context<J: ReadJson, T: DeserializeOwned + Default>(row: &mut EventRow<J>) -> Result<T, String> {
    match row.context.take() {
        Some(json) => json.read().map_err(|error| format!("context: {error}")),
        None => Ok(T::default()),
    }
}

fn required<J: ReadJson, T: DeserializeOwned>(row: &mut EventRow<J>) -> Result<T, String> {
    let json = row.context.take().ok_or("it has no context")?;
    json.read().map_err(|error| format!("context: {error}"))
}

fn result<J: ReadJson>(row: &mut EventRow<J>) -> Result<ResultColumn, String> {
    match row.result.take() {
        Some(json) => json.read().map_err(|error| format!("result: {error}")),
        None => Ok(ResultColumn::new("", None, None)),
    }
}

fn exit<J: ReadJson>(row: &mut EventRow<J>) -> Result<Exit, String> {
    let context = context::<_, ExitContext<'_>>(row)?;
    Ok(Exit { ctx: context.ctx.into_owned(), routed: context.routed.into_owned() })
}

fn node<J>(row: &EventRow<J>) -> Result<Arc<str>, String> {
    row.node_name.clone().ok_or_else(|| "it has no node_name".to_owned())
}

fn kind<J>(row: &EventRow<J>) -> Arc<str> {
    row.node_type.clone().unwrap_or_else(|| "".into())
}

fn command<J>(row: &EventRow<J>) -> Result<CommandId, String> {
    row.command_id.ok_or_else(|| "it has no command_id".to_owned())
}

fn worker<J>(row: &EventRow<J>) -> Result<Arc<str>, String> {
    row.worker_id.clone().ok_or_else(|| "it has no worker_id".to_owned())
}

fn session(meta: &Meta) -> Result<SessionId, String> {
    meta.session_id.ok_or_else(|| "it has no meta.session_id".to_owned())
}
