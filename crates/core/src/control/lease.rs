//! Leases: attempts whose worker fell silent, came back without them, or handed them back.

use std::sync::Arc;

use crate::append::{Append, CommandChange, Due, DueChange, DueKind, NewEvent};
use crate::control::cancel::locked;
use crate::control::{settle, stop};
use crate::event::{AttemptEnd, Event};
use crate::head::{CommandRow, CommandState, HeadView};
use crate::id::{CommandId, EventId, IdSource, SessionId};
use crate::time::Timestamp;

/// Decides that `session_id` is gone: every attempt it holds here is lost.
///
/// An active execution's command becomes pending again under the next epoch, or (too many losses, `at_most_once`)
/// is left to the workflow, which fails its step. One that had been ordered to stop is not tried again: it ends here, with
/// the error that the order wants. The lost attempt stays on the books, because it may still run, until
/// its worker reports it or the session is forgotten. On a terminal execution nothing is tried again: the certificate
/// says `unreachable`, which claims nothing about processes, only that nothing they report will count.
pub fn lose(view: &HeadView, session_id: SessionId, now: Timestamp, ids: &mut IdSource) -> Option<Append> {
    let mut append = locked(view, now);
    for row in held(view, session_id, CommandState::Claimed) {
        let stops = view.head.is_active() && row.stopping.is_some();
        let again = view.head.is_active() && !row.at_most_once && (stops || row.losses < row.losses_max);
        append.events.push(NewEvent {
            event_id: EventId(ids.next(now)),
            event: Event::CommandLost {
                command_id: row.command_id,
                epoch: row.epoch,
                step: Arc::clone(&row.step),
                session_id,
                reason: "its worker fell silent".to_owned(),
                again,
            },
        });
        let (command_id, epoch) = (row.command_id, row.epoch);
        if !view.head.is_active() {
            settle::settle(view, row, AttemptEnd::Unreachable, Vec::new(), &mut append, now, ids);
            continue;
        }
        append.commands.push(CommandChange::Delete { command_id, epoch, expect: CommandState::Claimed });
        append.commands.push(CommandChange::Insert(Box::new(CommandRow { state: CommandState::Lost, ..row.clone() })));
        if stops {
            // It had been ordered to stop: the attempt that would follow ends before it begins. (None would follow one
            // that is tried once, or that was withdrawn: then this one ends.)
            stop::settle(row, row.epoch + u32::from(again), &mut append, now, ids);
        } else if again {
            let next = CommandRow { losses: row.losses + 1, ..pending(view, row, now) };
            append.commands.push(CommandChange::Insert(Box::new(next)));
        } else {
            append.due.push(DueChange::Set(Due {
                execution_id: row.execution_id,
                kind: DueKind::Timer,
                key: command_id.0,
                at: now,
                command: None,
            }));
        }
    }
    (!append.events.is_empty()).then_some(append)
}

/// Decides that a draining worker hands a command back; not counted as a loss. One that had been ordered to stop ends
/// here instead.
pub fn release(
    view: &HeadView,
    command_id: CommandId,
    epoch: u32,
    now: Timestamp,
    ids: &mut IdSource,
) -> Option<Append> {
    let row = view
        .commands
        .iter()
        .find(|row| row.command_id == command_id && row.epoch == epoch && row.state == CommandState::Claimed)?;
    let mut append = locked(view, now);
    let step = Arc::clone(&row.step);
    append
        .events
        .push(NewEvent { event_id: EventId(ids.next(now)), event: Event::CommandReleased { command_id, epoch, step } });
    append.commands.push(CommandChange::Delete { command_id, epoch, expect: CommandState::Claimed });
    if row.stopping.is_some() {
        stop::settle(row, epoch + 1, &mut append, now, ids);
    } else {
        append.commands.push(CommandChange::Insert(Box::new(pending(view, row, now))));
    }
    Some(append)
}

/// Decides that the lost attempts of `session_id` are given up for good (`session_forget`).
pub fn forget(view: &HeadView, session_id: SessionId, now: Timestamp, ids: &mut IdSource) -> Option<Append> {
    let mut append = locked(view, now);
    for row in held(view, session_id, CommandState::Lost) {
        take_off(view, row, AttemptEnd::Unreachable, &mut append, now, ids);
    }
    (!append.events.is_empty()).then_some(append)
}

/// Decides that a worker's tools are known to be gone: the same worker came back under a new session, and its
/// supervisors ended what the old one ran before it could.
pub fn confirm_gone(view: &HeadView, session_id: SessionId, now: Timestamp, ids: &mut IdSource) -> Option<Append> {
    let mut append = locked(view, now);
    for row in held(view, session_id, CommandState::Lost) {
        take_off(view, row, AttemptEnd::Killed, &mut append, now, ids);
    }
    (!append.events.is_empty()).then_some(append)
}

fn take_off(
    view: &HeadView,
    row: &CommandRow,
    end: AttemptEnd,
    append: &mut Append,
    now: Timestamp,
    ids: &mut IdSource,
) {
    append.events.push(NewEvent {
        event_id: EventId(ids.next(now)),
        event: Event::CommandForgotten {
            command_id: row.command_id,
            epoch: row.epoch,
            step: Arc::clone(&row.step),
            end,
        },
    });
    settle::settle(view, row, end, Vec::new(), append, now, ids);
}

fn held(view: &HeadView, session_id: SessionId, state: CommandState) -> impl Iterator<Item = &CommandRow> {
    view.commands.iter().filter(move |row| {
        row.state == state && row.holder.as_ref().is_some_and(|holder| holder.session_id == session_id)
    })
}

/// Returns the next attempt of a command, free to be claimed unless its execution is paused.
fn pending(view: &HeadView, row: &CommandRow, now: Timestamp) -> CommandRow {
    CommandRow {
        state: if view.head.pause.is_some() { CommandState::Paused } else { CommandState::Pending },
        epoch: row.epoch + 1,
        holder: None,
        running: None,
        enters: false,
        since: now,
        ..row.clone()
    }
}
