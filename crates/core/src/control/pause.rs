//! Pausing: an execution that begins nothing until somebody resumes it.
//!
//! Decided on the head and the command rows under the lock, like a cancel. What may be claimed is set aside in the
//! decision's own append, so a claim that races with it either stands as claimed, and is let finish, or finds nothing
//! to claim. What runs is not touched: its report is decided, up to the next thing that would begin.

use serde::{Deserialize, Serialize};

use crate::append::{Append, CommandChange, Due, DueChange, DueKind, NewEvent};
use crate::control::cancel::{InFlight, in_flight, locked};
use crate::event::{Event, PauseOrder};
use crate::head::{CommandRow, CommandState, HeadView, PauseInfo};
use crate::id::{EventId, ExecutionId, IdSource};
use crate::time::Timestamp;

/// Who wants an execution, or a family, to wait or to go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The execution that the request named.
    pub requested_execution_id: ExecutionId,
    /// Free text.
    pub reason: Option<String>,
    /// The authenticated identity, else `api`, `cli`.
    pub by: String,
    /// Self-declared.
    pub requested_by: Option<String>,
    /// Descendants too.
    pub cascade: bool,
}

/// What a request to pause or to resume means now.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// It waits, or goes on, by this append.
    Changed {
        /// To be written.
        append: Box<Append>,
        /// What workers hold; it runs to its end either way.
        in_flight: Vec<InFlight>,
    },
    /// It was so before; nothing is written, and who paused it and why stay as they are.
    Already {
        /// What workers hold.
        in_flight: Vec<InFlight>,
    },
    /// It has ended; nothing is written.
    Ended,
}

/// Decides that the execution under `view` waits.
///
/// | the execution | answer |
/// | --- | --- |
/// | runs | paused by this append: what is pending is set aside, what workers hold goes on |
/// | is paused | already: the first request stands |
/// | has ended | ended |
pub fn pause(view: &HeadView, request: &Request, now: Timestamp, ids: &mut IdSource) -> Answer {
    if !view.head.is_active() {
        return Answer::Ended;
    }
    let in_flight = in_flight(view);
    if view.head.pause.is_some() {
        return Answer::Already { in_flight };
    }
    let mut append = locked(view, now);
    let event = Event::ExecutionPaused(Box::new(order(request)));
    append.events.push(NewEvent { event_id: EventId(ids.next(now)), event });
    for row in &view.commands {
        if row.state == CommandState::Pending {
            append.commands.extend(moved(row, CommandState::Paused));
        }
    }
    append.head.pause = Some(Some(PauseInfo {
        reason: request.reason.clone(),
        paused_by: request.by.clone(),
        requested_by: request.requested_by.clone(),
        since: now,
        requested_execution_id: request.requested_execution_id,
    }));
    Answer::Changed { append: Box::new(append), in_flight }
}

/// Decides that the execution under `view` goes on: what was set aside may be claimed, and the workflow is told to
/// look at what arrived in the meantime. Moments that have passed are found in the tables, where they waited.
pub fn resume(view: &HeadView, request: &Request, now: Timestamp, ids: &mut IdSource) -> Answer {
    if !view.head.is_active() {
        return Answer::Ended;
    }
    let in_flight = in_flight(view);
    if view.head.pause.is_none() {
        return Answer::Already { in_flight };
    }
    let mut append = locked(view, now);
    let event = Event::ExecutionResumed(Box::new(order(request)));
    append.events.push(NewEvent { event_id: EventId(ids.next(now)), event });
    for row in &view.commands {
        if row.state == CommandState::Paused {
            append.commands.extend(moved(row, CommandState::Pending));
        }
    }
    append.head.pause = Some(None);
    append.head.runnable = Some(true);
    let execution_id = view.head.execution_id;
    append.due.push(DueChange::Set(Due { execution_id, kind: DueKind::Continue, key: 0, at: now, command: None }));
    Answer::Changed { append: Box::new(append), in_flight }
}

fn order(request: &Request) -> PauseOrder {
    PauseOrder {
        reason: request.reason.clone(),
        by: request.by.clone(),
        requested_by: request.requested_by.clone(),
        cascade: request.cascade,
        requested_execution_id: request.requested_execution_id,
    }
}

/// The same attempt in another state.
fn moved(row: &CommandRow, state: CommandState) -> [CommandChange; 2] {
    let (command_id, epoch, expect) = (row.command_id, row.epoch, row.state);
    let after = CommandRow { state, ..row.clone() };
    [CommandChange::Delete { command_id, epoch, expect }, CommandChange::Insert(Box::new(after))]
}
