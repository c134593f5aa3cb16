//! Settling: reports that no workflow decision will take, because the execution is terminal or the attempt is old.

use std::sync::Arc;

use crate::append::{Append, CommandChange, NewEvent};
use crate::control::cancel::locked;
use crate::control::{cleanup, lease};
use crate::event::{AttemptEnd, CommandDone, Ended, Event, error_value};
use crate::head::{CommandRow, CommandState, HeadView};
use crate::id::{EventId, IdSource};
use crate::playbook::Output;
use crate::result::{Bound, LargeResult, bind};
use crate::time::Timestamp;
use crate::tool::{REMOTE_MAY_HAVE_ACTED, Stopped};
use crate::work::{Done, Report, Reported};

/// Decides a report that is late: kept as evidence, of no effect on status, ctx or results.
///
/// | the attempt's row | the execution | what is written |
/// | --- | --- | --- |
/// | gone | any | nothing: a repeat, or something that was withdrawn before it ran |
/// | claimed | active | nothing here: the workflow decides it; only a hand-back is decided from the row alone |
/// | claimed | terminal | evidence, the row goes, and the proof when it was the last one |
/// | lost | any | the same: the silent worker has come back |
pub fn decide(view: &HeadView, report: &Report, worker_id: &str, now: Timestamp, ids: &mut IdSource) -> Option<Append> {
    let row = view
        .commands
        .iter()
        .find(|row| row.command_id == report.command_id && row.epoch == report.epoch && row.state.in_flight())?;
    if view.head.is_active() && row.state == CommandState::Claimed {
        return match report.outcome {
            Reported::Released => lease::release(view, row.command_id, row.epoch, now, ids),
            // The state that the caller decided on was behind the head: it reads the tail and decides again.
            Reported::Started { .. } | Reported::Done(_) | Reported::Suspended(_) | Reported::Cancelled { .. } => None,
        };
    }
    let worker_id: Arc<str> = worker_id.into();
    let mut append = locked(view, now);
    let mut emit = |event| append.events.push(NewEvent { event_id: EventId(ids.next(now)), event });
    let started = |started_at| Event::CommandStarted {
        command_id: row.command_id,
        epoch: row.epoch,
        step: Arc::clone(&row.step),
        worker_id: Arc::clone(&worker_id),
        started_at,
        late: true,
    };
    let known_started = row.holder.as_ref().is_some_and(|holder| holder.started);
    let end = match &report.outcome {
        Reported::Started { at } => {
            if known_started {
                return None;
            }
            emit(started(*at));
            let (command_id, epoch) = (row.command_id, row.epoch);
            append.commands.push(CommandChange::Started { command_id, epoch });
            return Some(append);
        }
        Reported::Done(done) => {
            if let Some(at) = done.started_at.filter(|_| !known_started) {
                emit(started(at));
            }
            let (result, large) = late_result(row, done, ids.next(now));
            append.results.extend(large);
            let event = late_done(row, done, result, &worker_id);
            append.events.push(NewEvent { event_id: EventId(ids.next(now)), event });
            match done.stopped {
                None => AttemptEnd::Finished,
                Some(stopped) => end_of(stopped),
            }
        }
        // It would go on later; on a terminal execution there is no later. What ran so far ran to its end.
        Reported::Suspended(_) => {
            emit(cancelled(row, "execution cancelled", &worker_id));
            AttemptEnd::Finished
        }
        Reported::Cancelled { started, stopped, remote_may_have_acted, .. } => {
            let unknown = if *remote_may_have_acted { REMOTE_MAY_HAVE_ACTED } else { "" };
            emit(cancelled(row, &format!("execution cancelled{unknown}"), &worker_id));
            match (stopped, started) {
                (Some(stopped), _) => end_of(*stopped),
                (None, true) => AttemptEnd::Finished,
                (None, false) => AttemptEnd::NeverStarted,
            }
        }
        Reported::Released => {
            emit(cancelled(row, "handed back by a draining worker", &worker_id));
            AttemptEnd::Stopped
        }
    };
    let pids = match &report.outcome {
        Reported::Cancelled { pids, .. } => pids.clone(),
        Reported::Started { .. } | Reported::Done(_) | Reported::Suspended(_) | Reported::Released => Vec::new(),
    };
    settle(view, row, end, pids, &mut append, now, ids);
    Some(append)
}

/// Takes an attempt off the books; the one that leaves a terminal execution with none brings the proof.
pub(super) fn settle(
    view: &HeadView,
    row: &CommandRow,
    end: AttemptEnd,
    pids: Vec<u32>,
    append: &mut Append,
    now: Timestamp,
    ids: &mut IdSource,
) {
    let (command_id, epoch, expect) = (row.command_id, row.epoch, row.state);
    append.commands.push(CommandChange::Delete { command_id, epoch, expect });
    append.head.ended.push(Ended { command_id, epoch, step: Arc::clone(&row.step), end, pids });
    quiesce(view, append, now, ids);
}

/// Adds the proof when `append` takes the last attempt off a terminal execution.
pub(super) fn quiesce(view: &HeadView, append: &mut Append, now: Timestamp, ids: &mut IdSource) {
    let left = i64::from(view.head.in_flight) + append.in_flight_delta();
    if view.head.is_active() || left > 0 || view.head.quiesced_at.is_some() {
        return;
    }
    let earlier = view.head.cancel.iter().flat_map(|cancel| &cancel.ended);
    let commands = earlier.chain(&append.head.ended).cloned().collect();
    append.events.push(NewEvent { event_id: EventId(ids.next(now)), event: Event::ExecutionQuiesced { commands } });
    append.head.quiesced = true;
    if let Some(cancel) = &view.head.cancel {
        cleanup::bear(&view.head, cancel, append, now, ids);
    }
}

/// What it gave is evidence as well, and what a cleanup may need to undo it.
fn late_result(row: &CommandRow, done: &Done, id: i64) -> (Bound, Option<LargeResult>) {
    let name = match row.iteration {
        Some(index) => format!("{}[{index}]", row.step),
        None => row.step.to_string(),
    };
    bind(row.execution_id, &name, id, done.data.clone(), &Output::default())
}

fn late_done(row: &CommandRow, done: &Done, result: Bound, worker_id: &Arc<str>) -> Event {
    Event::CommandDone(Box::new(CommandDone {
        command_id: row.command_id,
        epoch: row.epoch,
        step: Arc::clone(&row.step),
        visit: row.visit,
        iteration: row.iteration,
        error: done.error.as_ref().map(|error| Arc::new(error_value(error))),
        late_result: Some(result),
        ctx: Vec::new(),
        started_at: done.started_at,
        worker_id: Some(Arc::clone(worker_id)),
        duration_ms: Some(done.duration_ms),
        late: true,
    }))
}

fn cancelled(row: &CommandRow, reason: &str, worker_id: &Arc<str>) -> Event {
    Event::CommandCancelled {
        command_id: row.command_id,
        epoch: row.epoch,
        step: Arc::clone(&row.step),
        reason: reason.to_owned(),
        worker_id: Some(Arc::clone(worker_id)),
    }
}

fn end_of(stopped: Stopped) -> AttemptEnd {
    match stopped {
        Stopped::Stopped => AttemptEnd::Stopped,
        Stopped::Killed => AttemptEnd::Killed,
        Stopped::Unconfirmed => AttemptEnd::Unconfirmed,
    }
}
