//! Stopping one command while its execution goes on: a step's time limit, or somebody's wish.
//!
//! The command row alone knows whether a worker holds it, so this is decided under the lock. What the end of the
//! command means (an error that policies and arcs may handle) is the workflow's to decide, with the playbook at hand:
//! a command that runs nowhere is left to its next decision, one that a worker holds to the worker's report.

use std::sync::Arc;

use crate::append::{Append, CommandChange, Due, DueChange, DueKind, NewEvent};
use crate::control::cancel::locked;
use crate::event::{Event, StopCause, Stopping};
use crate::head::{CommandRow, CommandState, HeadView, StopWish};
use crate::id::{CommandId, EventId, IdSource};
use crate::time::Timestamp;

/// How long after an order to stop it is given again, in milliseconds: the first may have been lost with a server.
pub const ORDER_AGAIN_MS: u64 = 1_000;

/// Who stops what an arc or an early completion has withdrawn.
const BY_WITHDRAWAL: &str = "playbook";

/// What stopping a command means now.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// It ran nowhere and is over; the workflow is told.
    Withdrawn(Box<Append>),
    /// A worker holds it and is to be told.
    Ordered {
        /// To be written.
        append: Box<Append>,
        /// What the worker holds.
        row: Box<CommandRow>,
    },
    /// It is over already: only what was owed to it is cleared.
    Over(Box<Append>),
    /// The execution has ended; nothing is written.
    Ended,
}

/// Decides that `command_id` is to stop. Without a wish it was ordered before, and is looked at again.
///
/// | its row is | what is written |
/// | --- | --- |
/// | claimed | `command.stopping` with the first wish; the order is repeated until the worker reports |
/// | pending, set aside, or waits | `command.stopping`, the row goes, and the workflow goes on with the error |
/// | lost for good, or gone | nothing: its end is decided already |
pub fn decide(
    view: &HeadView,
    command_id: CommandId,
    wish: Option<&StopWish>,
    now: Timestamp,
    ids: &mut IdSource,
) -> Answer {
    if !view.head.is_active() {
        return Answer::Ended;
    }
    let mut append = locked(view, now);
    let execution_id = view.head.execution_id;
    let clear = |kind| DueChange::Clear { execution_id, kind, key: command_id.0 };
    append.due.push(clear(DueKind::StepTimeout));
    let row = view.commands.iter().find(|row| row.command_id == command_id && row.state != CommandState::Lost);
    let Some(row) = row else {
        append.due.push(clear(DueKind::GraceEnd));
        return Answer::Over(Box::new(append));
    };
    let due = |kind, at| DueChange::Set(Due { execution_id, kind, key: command_id.0, at, command: None });
    let mut say = |held, append: &mut Append| {
        let event = stopping(row, row.epoch, wish, held);
        append.events.push(NewEvent { event_id: EventId(ids.next(now)), event });
    };
    match row.state {
        CommandState::Claimed => {
            if let Some(wish) = wish {
                say(true, &mut append);
                // Written down where the loss of its worker is decided, so that no further attempt begins.
                let (epoch, expect) = (row.epoch, row.state);
                append.commands.push(CommandChange::Delete { command_id, epoch, expect });
                let ordered = CommandRow {
                    // The first wish is the one that counts.
                    stopping: row.stopping.clone().or_else(|| Some(Arc::new(wish.clone()))),
                    ..row.clone()
                };
                append.commands.push(CommandChange::Insert(Box::new(ordered)));
            }
            append.due.push(due(DueKind::GraceEnd, now.plus_ms(ORDER_AGAIN_MS)));
            Answer::Ordered { append: Box::new(append), row: Box::new(row.clone()) }
        }
        CommandState::Pending | CommandState::Paused | CommandState::Suspended | CommandState::Lost => {
            say(false, &mut append);
            append.commands.push(CommandChange::Delete { command_id, epoch: row.epoch, expect: row.state });
            append.due.push(clear(DueKind::GraceEnd));
            append.due.extend(row.awaited_child().map(|child| {
                let (kind, key) = (DueKind::ChildDone, child.0);
                DueChange::Clear { execution_id, kind, key }
            }));
            append.due.push(due(DueKind::Timer, now));
            Answer::Withdrawn(Box::new(append))
        }
    }
}

/// Decides the end of an attempt whose worker is gone, or gave it back, when it had been ordered to stop: it runs no
/// further, and the workflow is told. `epoch` is that of the attempt that would have followed.
pub(super) fn settle(row: &CommandRow, epoch: u32, append: &mut Append, now: Timestamp, ids: &mut IdSource) {
    append.events.push(NewEvent { event_id: EventId(ids.next(now)), event: stopping(row, epoch, None, false) });
    let (execution_id, key) = (row.execution_id, row.command_id.0);
    for kind in [DueKind::StepTimeout, DueKind::GraceEnd] {
        append.due.push(DueChange::Clear { execution_id, kind, key });
    }
    append.due.push(DueChange::Set(Due { execution_id, kind: DueKind::Timer, key, at: now, command: None }));
}

/// Without a wish it was ordered before, and the row keeps the first one; or it was withdrawn, and nobody waits for it.
fn stopping(row: &CommandRow, epoch: u32, wish: Option<&StopWish>, held: bool) -> Event {
    let wish = wish.or(row.stopping.as_deref()).cloned().unwrap_or_else(|| StopWish {
        cause: StopCause::Cancelled,
        reason: "nobody waits for it any more".to_owned(),
        by: BY_WITHDRAWAL.to_owned(),
    });
    let StopWish { cause, reason, by } = wish;
    let (command_id, step) = (row.command_id, Arc::clone(&row.step));
    Event::CommandStopping(Box::new(Stopping { command_id, epoch, step, cause, reason, by, held }))
}
