//! Cancelling: one execution, or one member of a cascade.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::append::{Append, CommandChange, Due, DueChange, DueKind, Guard, HeadChange, NewEvent};
use crate::control::cleanup;
use crate::event::{AttemptEnd, Cancelled, Ended, Escalated, Event, Recorded, error_value};
use crate::head::{CancelInfo, CommandRow, CommandState, Head, HeadView, Status};
use crate::id::{CancellationId, CommandId, EventId, ExecutionId, IdSource};
use crate::playbook::{CancelMode, Shield};
use crate::time::Timestamp;
use crate::tool::{ErrorKind, ToolError, kind};

/// Longest reason, in bytes.
pub const REASON_BYTES_MAX: usize = 4096;
/// Grace of an interrupt when neither request, step nor playbook names one, in milliseconds.
pub const GRACE_MS_DEFAULT: u64 = 10_000;

/// The [`Request::cancelled_by`] of a time limit (`executor.spec.timeout`).
pub const BY_TIMEOUT: &str = "timeout";

/// Who wants what, for one execution or a family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The execution that the request named; for a selection, the selected one that this is reached through.
    pub requested_execution_id: ExecutionId,
    /// The job that carries it out, when it takes more than one commit.
    pub job_id: Option<CancellationId>,
    /// Free text.
    pub reason: Option<String>,
    /// The authenticated identity, else `api`, `cli`, `timeout`, `parent`, `cleanup`, `concurrency`.
    pub cancelled_by: String,
    /// Self-declared.
    pub requested_by: Option<String>,
    /// Where the request came from.
    pub remote: Option<String>,
    /// Descendants too.
    pub cascade: bool,
    /// An explicit mode; else each execution's own, else [`Request::default_mode`].
    pub mode: Option<CancelMode>,
    /// The server's setting.
    pub default_mode: CancelMode,
    /// Grace of an interrupt, in milliseconds, when the request says.
    pub grace_ms: Option<u64>,
    /// `Idempotency-Key`.
    pub idempotency_key: Option<String>,
}

impl Request {
    /// Returns whether this is the time limit of `execution_id` itself: it fails, and only its descendants are cancelled.
    fn times_out(&self, execution_id: ExecutionId) -> bool {
        self.cancelled_by == BY_TIMEOUT && self.requested_execution_id == execution_id
    }
}

/// A command held by a worker at the decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// Which.
    pub command_id: CommandId,
    /// Whose.
    pub execution_id: ExecutionId,
    /// Step name.
    pub step: Arc<str>,
    /// Attempt.
    pub epoch: u32,
    /// The worker's name.
    pub worker: Option<Arc<str>>,
    /// Tool kind.
    pub tool: Arc<str>,
    /// Whether an interrupt can end it, as its kind declares.
    pub stoppable: bool,
}

/// What cancelling one execution means now.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// It is cancelled by this append.
    Cancelled {
        /// To be written.
        append: Box<Append>,
        /// What workers hold.
        in_flight: Vec<InFlight>,
        /// Nothing runs: the append holds the proof too.
        quiesced: bool,
        /// The mode that holds for this execution.
        mode: CancelMode,
    },
    /// It was cancelled before and has not quiesced; this append stops it harder.
    Escalated {
        /// To be written.
        append: Box<Append>,
        /// What workers hold.
        in_flight: Vec<InFlight>,
    },
    /// It is left alone, and what is below it; nothing is written.
    Spared(Shield),
    /// It had ended; nothing is written.
    AlreadyEnded,
    /// The same idempotency key cancelled it; nothing is written.
    Repeated {
        /// What workers still hold.
        in_flight: Vec<InFlight>,
    },
}

/// Decides a cancel of the execution under `view`.
///
/// | the execution is | the request | answer |
/// | --- | --- | --- |
/// | running | any | cancelled by this append; quiesced too when nothing is in flight |
/// | running | its own time limit | the same, but failed with an error of kind `timeout`: people alert on FAILED |
/// | cancelled, not quiesced | `mode: interrupt` where the present mode is `finish`, or a shorter grace | escalated |
/// | cancelled, not quiesced | the same idempotency key | repeated: the first answer again |
/// | running, and shielded by its parent's task | one that named an ancestor | spared |
/// | ended | any other | already ended; nothing is written, ever |
pub fn decide(view: &HeadView, request: &Request, now: Timestamp, ids: &mut IdSource) -> Answer {
    if let Some(shield) = view.head.shield.filter(|_| view.head.is_shielded_from(request.requested_execution_id)) {
        // Nothing of the request is about it, ended or not.
        return if view.head.is_active() { Answer::Spared(shield) } else { Answer::AlreadyEnded };
    }
    match view.head.status {
        Status::Running => cancel(view, request, now, ids),
        Status::Cancelled => again(view, request, now, ids),
        Status::Completed | Status::Failed => Answer::AlreadyEnded,
    }
}

fn cancel(view: &HeadView, request: &Request, now: Timestamp, ids: &mut IdSource) -> Answer {
    let head = &view.head;
    let mode = request.mode.or(head.cancel_mode).unwrap_or(request.default_mode);
    let grace_ms = request.grace_ms.or(head.cancel_grace_ms).unwrap_or(GRACE_MS_DEFAULT);
    let in_flight = in_flight(view);
    // A lost attempt is silent for its whole lease already: it is listed, and nothing more can be learnt of it.
    let quiesced = view.commands.iter().all(|row| row.state != CommandState::Claimed);
    let mut ended = Vec::new();
    let mut append = locked(view, now);
    let cleanup = if request.times_out(head.execution_id) { None } else { cleanup::wanted(head, now, ids) };
    let mut emit = |event| append.events.push(NewEvent { event_id: EventId(ids.next(now)), event });
    let (status, error) = if request.times_out(head.execution_id) {
        let error = Arc::new(timed_out(request));
        emit(Event::PlaybookFailed { path: Arc::clone(&head.path), error: Arc::clone(&error), step: None });
        (Status::Failed, Some(error))
    } else {
        emit(Event::ExecutionCancelled(Box::new(Cancelled {
            reason: request.reason.clone(),
            cancelled_by: request.cancelled_by.clone(),
            requested_by: request.requested_by.clone(),
            remote: request.remote.clone(),
            cascade: request.cascade,
            mode,
            grace_ms,
            root_execution_id: head.root_execution_id,
            requested_execution_id: request.requested_execution_id,
            job_id: request.job_id,
            in_flight: in_flight.iter().map(|held| held.command_id).collect(),
            cleanup,
        })));
        (Status::Cancelled, None)
    };
    let mut commands = Vec::new();
    let mut due = Vec::new();
    for row in &view.commands {
        match row.state {
            // Runs nowhere, so it is over now: cancelled in the decision's own append. A claim that raced with this
            // decision either stands here as claimed, or finds its row gone.
            CommandState::Pending | CommandState::Paused | CommandState::Suspended => {
                emit(Event::CommandCancelled {
                    command_id: row.command_id,
                    epoch: row.epoch,
                    step: Arc::clone(&row.step),
                    reason: "execution cancelled".to_owned(),
                    worker_id: None,
                });
                let (command_id, epoch, expect) = (row.command_id, row.epoch, row.state);
                commands.push(CommandChange::Delete { command_id, epoch, expect });
                if row.state == CommandState::Suspended {
                    let clear = |kind, key| DueChange::Clear { execution_id: head.execution_id, kind, key };
                    due.push(clear(DueKind::Timer, command_id.0));
                    due.extend(row.awaited_child().map(|child| clear(DueKind::ChildDone, child.0)));
                }
            }
            CommandState::Lost => {
                let (command_id, epoch, expect) = (row.command_id, row.epoch, row.state);
                commands.push(CommandChange::Delete { command_id, epoch, expect });
                let (step, end) = (Arc::clone(&row.step), AttemptEnd::Unreachable);
                ended.push(Ended { command_id, epoch, step, end, pids: Vec::new() });
            }
            CommandState::Claimed => {}
        }
    }
    if quiesced {
        emit(Event::ExecutionQuiesced { commands: ended.clone() });
    }
    due.push(DueChange::Clear { execution_id: head.execution_id, kind: DueKind::Continue, key: 0 });
    due.extend(child_done(view, request, now));
    append.commands = commands;
    append.due = due;
    append.head = HeadChange {
        status: Some(status),
        quiesced,
        runnable: Some(false),
        error,
        cancel: Some(CancelInfo {
            reason: request.reason.clone(),
            cancelled_by: request.cancelled_by.clone(),
            requested_by: request.requested_by.clone(),
            remote: request.remote.clone(),
            mode,
            grace_ms,
            since: now,
            requested_execution_id: request.requested_execution_id,
            job_id: request.job_id,
            idempotency_key: request.idempotency_key.clone(),
            cascade: request.cascade,
            cleanup,
            ended,
        }),
        ..HeadChange::default()
    };
    if let Some(cancel) = append.head.cancel.clone().filter(|_| quiesced) {
        cleanup::bear(head, &cancel, &mut append, now, ids);
    }
    Answer::Cancelled { append: Box::new(append), in_flight, quiesced, mode }
}

/// The error of an execution that took too long.
fn timed_out(request: &Request) -> Value {
    let message = request.reason.clone().unwrap_or_else(|| "it took too long".to_owned());
    error_value(&ToolError::hard(ErrorKind::Timeout, "EXECUTION_TIMEOUT", message))
}

/// Returns the grace with which a further request stops a cancelled execution harder; `None` when it does not.
///
/// | the execution | the request | it |
/// | --- | --- | --- |
/// | finishes what runs | `mode: interrupt` | escalates |
/// | is interrupted | `mode: interrupt` with a shorter grace | escalates |
/// | is interrupted | `mode: interrupt` with the same grace or a longer one | changes nothing: an interrupt is only tightened |
/// | is cancelled and not quiesced | `finish`, or no mode | changes nothing |
/// | has quiesced, or ended otherwise | any | changes nothing: nothing of it runs, or nobody cancelled it |
pub fn escalates(head: &Head, mode: Option<CancelMode>, grace_ms: Option<u64>) -> Option<u64> {
    let present = head.cancel.as_ref()?;
    let grace_ms = grace_ms.or(head.cancel_grace_ms).unwrap_or(GRACE_MS_DEFAULT);
    let harder =
        mode == Some(CancelMode::Interrupt) && (present.mode == CancelMode::Finish || grace_ms < present.grace_ms);
    (head.status == Status::Cancelled && head.quiesced_at.is_none() && harder).then_some(grace_ms)
}

/// A cancelled execution is cancelled again: who, why and when are never rewritten.
fn again(view: &HeadView, request: &Request, now: Timestamp, ids: &mut IdSource) -> Answer {
    let Some(present) = &view.head.cancel else { return Answer::AlreadyEnded };
    if request.idempotency_key.is_some() && request.idempotency_key == present.idempotency_key {
        return Answer::Repeated { in_flight: in_flight(view) };
    }
    let Some(grace_ms) = escalates(&view.head, request.mode, request.grace_ms) else { return Answer::AlreadyEnded };
    let mut append = locked(view, now);
    append.events.push(NewEvent {
        event_id: EventId(ids.next(now)),
        event: Event::ExecutionCancelEscalated(Box::new(Escalated {
            reason: request.reason.clone(),
            cancelled_by: request.cancelled_by.clone(),
            requested_by: request.requested_by.clone(),
            mode: CancelMode::Interrupt,
            grace_ms,
        })),
    });
    append.head.cancel = Some(CancelInfo { mode: CancelMode::Interrupt, grace_ms, since: now, ..present.clone() });
    Answer::Escalated { append: Box::new(append), in_flight: in_flight(view) }
}

/// Decides what its parent wants of a shielded child that it does not wait for any more: nothing, it runs on.
pub fn left_alone(view: &HeadView, now: Timestamp) -> Append {
    let mut append = locked(view, now);
    let (execution_id, kind) = (view.head.execution_id, DueKind::CancelChild);
    append.due.push(DueChange::Clear { execution_id, kind, key: 0 });
    append
}

/// Returns what workers hold, lost attempts included: they may still run.
pub fn in_flight(view: &HeadView) -> Vec<InFlight> {
    view.commands
        .iter()
        .filter(|row| row.state.in_flight())
        .map(|row| InFlight {
            command_id: row.command_id,
            execution_id: row.execution_id,
            step: Arc::clone(&row.step),
            epoch: row.epoch,
            worker: row.holder.as_ref().map(|holder| Arc::clone(&holder.worker_id)),
            tool: Arc::clone(&row.kind),
            stoppable: kind::stoppable(&row.kind),
        })
        .collect()
}

/// Returns the same from the log of an execution that was cancelled: what workers held at that moment.
pub fn in_flight_of(log: &[Recorded]) -> Vec<InFlight> {
    let cancelled = log.iter().find_map(|recorded| {
        let Event::ExecutionCancelled(cancelled) = &recorded.event else { return None };
        Some((recorded.execution_id, cancelled))
    });
    let Some((execution_id, cancelled)) = cancelled else { return Vec::new() };
    let held = |command_id: &CommandId| {
        let claim = log.iter().rev().find_map(|recorded| {
            let Event::CommandClaimed { command_id: claimed, epoch, step, worker_id, .. } = &recorded.event else {
                return None;
            };
            (claimed == command_id).then(|| (*epoch, Arc::clone(step), Arc::clone(worker_id)))
        });
        let tool = log.iter().find_map(|recorded| {
            let Event::CommandIssued(issued) = &recorded.event else { return None };
            (issued.command_id == *command_id).then(|| Arc::clone(&issued.kind))
        });
        let ((epoch, step, worker), tool) = claim.zip(tool)?;
        let stoppable = kind::stoppable(&tool);
        Some(InFlight { command_id: *command_id, execution_id, step, epoch, worker: Some(worker), tool, stoppable })
    };
    cancelled.in_flight.iter().filter_map(held).collect()
}

/// Returns the grace of an interrupt for one command: what the request named, else its step's own, else its
/// execution's.
pub fn grace_ms(head: &Head, row: &CommandRow) -> u64 {
    grace_ms_under(head.cancel.as_ref(), head, row)
}

/// The same while the cancel is being decided, when the head does not know of it yet.
pub fn grace_ms_under(cancel: Option<&CancelInfo>, head: &Head, row: &CommandRow) -> u64 {
    let of_execution = head.cancel_grace_ms.unwrap_or(GRACE_MS_DEFAULT);
    match cancel {
        Some(cancel) if cancel.grace_ms != of_execution => cancel.grace_ms,
        Some(_) | None => row.grace_ms.unwrap_or(of_execution),
    }
}

/// Tells a waiting parent, in the terminal append and without locking the parent.
///
/// Not where the request came down through the parent: a walk looks for children only under a fence, so the parent
/// has ended for good and waits for nobody.
fn child_done(view: &HeadView, request: &Request, now: Timestamp) -> Option<DueChange> {
    let head = &view.head;
    if request.requested_execution_id != head.execution_id {
        return None;
    }
    Some(DueChange::Set(Due {
        execution_id: head.parent_execution_id?,
        kind: DueKind::ChildDone,
        key: head.execution_id.0,
        at: now,
        command: Some(head.parent_command_id?),
    }))
}

/// Returns an empty append under the lock of `view`'s head.
pub(super) fn locked(view: &HeadView, now: Timestamp) -> Append {
    Append {
        execution_id: view.head.execution_id,
        guard: Guard::Locked,
        at: now,
        events: Vec::new(),
        head: HeadChange::default(),
        commands: Vec::new(),
        due: Vec::new(),
        children: Vec::new(),
        results: Vec::new(),
        snapshot: None,
    }
}
