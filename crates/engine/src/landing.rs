//! What an append brings about in this process once it has landed.
//!
//! Noted before the append is given away, acted upon by [`Engine::landed`]. All of it is a shortcut: whatever is lost
//! here (a crash, another server) stands in the tables, and the sweep finds it.

use std::sync::Arc;

use noetl_core::append::{Append, CommandChange, Due, DueChange, DueKind, Guard};
use noetl_core::event::{Event, Initialized, StopCause};
use noetl_core::execution::Input;
use noetl_core::execution::state::Execution;
use noetl_core::head::{CommandRow, CommandState, Head, Status};
use noetl_core::id::{CatalogId, ExecutionId, SessionId};
use noetl_core::result::Bound;
use noetl_core::time::Timestamp;
use noetl_core::work::{Assignment, ChildOutcome};
use serde_json::json;

use crate::desk::Promise;
use crate::engine::Engine;
use crate::mailbox::Letter;
use crate::metrics::{CancelCause, CancelResult};
use crate::transport::Attempt;

/// What an append brings about.
#[derive(Debug)]
pub(crate) struct Landing {
    execution_id: ExecutionId,
    at: Timestamp,
    events: u64,
    fold: Fold,
    ended: Option<Status>,
    quiesced: bool,
    /// How long after its cancel the proof came, in milliseconds.
    quiesced_after_ms: Option<u64>,
    due: Vec<Due>,
    settled: Vec<Attempt>,
    claimed: Vec<(SessionId, Assignment)>,
    pending: bool,
    /// How the execution ended, for the parent that waits for it.
    outcome: Option<Box<ChildOutcome>>,
    children: Vec<Landing>,
    /// What the append stops while the execution goes on, or that it was cancelled where it begins.
    stops: Vec<Event>,
    /// The slots of the commands that are claimed here.
    pub(crate) promise: Option<Promise>,
}

/// What the append means for the state at hand.
#[derive(Debug)]
pub(crate) enum Fold {
    /// This is the state after it.
    State(Box<Execution>),
    /// A claim written blind: it raises the version and nothing else.
    Blind,
    /// The state at hand is out of date.
    Drop,
}

/// What an assignment says of its execution.
#[derive(Debug, Clone)]
pub(crate) struct Whose {
    pub(crate) catalog_id: CatalogId,
    pub(crate) path: Arc<str>,
    pub(crate) version: i64,
}

impl Whose {
    pub(crate) fn of_head(head: &Head) -> Self {
        Whose { catalog_id: head.catalog_id, path: Arc::clone(&head.path), version: head.playbook_version }
    }

    pub(crate) fn of_init(init: &Initialized) -> Self {
        Whose { catalog_id: init.catalog_id, path: Arc::clone(&init.path), version: init.version }
    }

    /// Returns the command of `row` as its worker gets it.
    pub(crate) fn assignment(&self, row: &CommandRow) -> Assignment {
        Assignment {
            execution_id: row.execution_id,
            command_id: row.command_id,
            epoch: row.epoch,
            catalog_id: self.catalog_id,
            path: Arc::clone(&self.path),
            version: self.version,
            step: Arc::clone(&row.step),
            visit: row.visit,
            kind: Arc::clone(&row.kind),
            losses: row.losses,
            at_most_once: row.at_most_once,
            work: Arc::clone(&row.work),
        }
    }
}

fn attempt_of(row: &CommandRow) -> Attempt {
    Attempt { command_id: row.command_id, epoch: row.epoch }
}

/// Returns the claimed attempts whose rows an append takes away and puts back claimed.
fn rewritten(append: &Append) -> impl Iterator<Item = Attempt> {
    let taken = |attempt: Attempt| {
        append.commands.iter().any(|change| match change {
            CommandChange::Delete { command_id, epoch, expect } => {
                *expect == CommandState::Claimed && Attempt { command_id: *command_id, epoch: *epoch } == attempt
            }
            CommandChange::Insert(_) | CommandChange::Started { .. } | CommandChange::Withdraw { .. } => false,
        })
    };
    append.commands.iter().filter_map(move |change| match change {
        CommandChange::Insert(row) if row.state == CommandState::Claimed => {
            Some(attempt_of(row)).filter(|attempt| taken(*attempt))
        }
        CommandChange::Insert(_)
        | CommandChange::Delete { .. }
        | CommandChange::Started { .. }
        | CommandChange::Withdraw { .. } => None,
    })
}

impl Landing {
    /// Notes what `append` brings about.
    pub(crate) fn of(append: &Append, whose: &Whose, fold: Fold) -> Self {
        let mut landing = Landing {
            execution_id: append.execution_id,
            at: append.at,
            events: append.events.len() as u64,
            fold,
            ended: append.head.status.filter(|status| status.is_terminal()),
            quiesced: append.head.quiesced,
            quiesced_after_ms: None,
            due: Vec::new(),
            settled: Vec::new(),
            claimed: Vec::new(),
            pending: false,
            outcome: None,
            children: append.children.iter().map(Landing::of_child).collect(),
            stops: append.events.iter().map(|new| &new.event).filter(|event| is_stop(event, append)).cloned().collect(),
            promise: None,
        };
        for change in &append.due {
            match change {
                DueChange::Set(due) => landing.due.push(due.clone()),
                DueChange::Clear { .. } | DueChange::Tick(_) | DueChange::Enter(_) => {}
            }
        }
        // Written anew in the same state: neither settled nor handed out.
        let rewritten: Vec<Attempt> = rewritten(append).collect();
        for change in &append.commands {
            match change {
                CommandChange::Insert(row) => match (row.state, &row.holder) {
                    (CommandState::Pending, _) => landing.pending = true,
                    (CommandState::Claimed, Some(_)) if rewritten.contains(&attempt_of(row)) => {}
                    (CommandState::Claimed, Some(holder)) => {
                        landing.claimed.push((holder.session_id, whose.assignment(row)));
                    }
                    (CommandState::Claimed, None)
                    | (CommandState::Paused | CommandState::Suspended | CommandState::Lost, _) => {}
                },
                CommandChange::Delete { command_id, epoch, expect } => match expect {
                    CommandState::Claimed | CommandState::Lost => {
                        let attempt = Attempt { command_id: *command_id, epoch: *epoch };
                        if !rewritten.contains(&attempt) {
                            landing.settled.push(attempt);
                        }
                    }
                    // In nobody's hands; under the same epoch it may still come into somebody's.
                    CommandState::Pending | CommandState::Paused | CommandState::Suspended => {}
                },
                CommandChange::Started { .. } | CommandChange::Withdraw { .. } => {}
            }
        }
        // Whoever leaves no obligation for it has nobody who waits.
        if landing.due.iter().any(|due| due.kind == DueKind::ChildDone) {
            let outcome = append.events.iter().find_map(|new| child_outcome(append.execution_id, &new.event));
            landing.outcome = outcome.map(Box::new);
        }
        landing
    }

    fn of_child(append: &Append) -> Self {
        let whose = match &append.guard {
            Guard::New(head) => Whose::of_head(head),
            // The store refuses such a child; nothing of it will land.
            Guard::At(_) | Guard::Claim { .. } | Guard::Locked => {
                Whose { catalog_id: CatalogId(0), path: "".into(), version: 0 }
            }
        };
        let fold = match append.events.as_slice() {
            [only] => match &only.event {
                Event::PlaybookInitialized(init) => {
                    let init = Arc::new((**init).clone());
                    Fold::State(Box::new(Execution::begin(append.execution_id, init, append.at)))
                }
                _ => Fold::Drop,
            },
            _ => Fold::Drop,
        };
        Landing::of(append, &whose, fold)
    }

    /// Notes what a control append brings about: the state at hand does not see it.
    pub(crate) fn of_control(append: &Append, head: &Head) -> Self {
        let mut landing = Landing::of(append, &Whose::of_head(head), Fold::Drop);
        if append.head.quiesced {
            let since = if head.is_active() { append.at } else { head.ended_at.unwrap_or(append.at) };
            landing.quiesced_after_ms = Some(append.at.since_ms(since));
        }
        landing
    }

    /// Adds the slots that its claims use.
    pub(crate) fn with(mut self, promise: Promise) -> Self {
        self.promise = Some(promise);
        self
    }

    /// Adds a command that the append claims by its guard.
    pub(crate) fn claiming(mut self, session_id: SessionId, assignment: Assignment) -> Self {
        self.claimed.push((session_id, assignment));
        self
    }
}

/// Returns whether an event is a decision to stop something that nobody else says in the log: a cancel under the lock
/// has a line of its own, with what workers held.
fn is_stop(event: &Event, append: &Append) -> bool {
    let at_birth = matches!(append.guard, Guard::New(_));
    matches!(event, Event::CommandStopping(_) | Event::LoopCompleting(_) | Event::StepCancelled(_))
        || at_birth && matches!(event, Event::ExecutionCancelled(_))
}

/// Returns how an execution ended, as its parent is told; `None` for an event that ends nothing.
pub(crate) fn child_outcome(execution_id: ExecutionId, event: &Event) -> Option<ChildOutcome> {
    let status = event.ends_as()?;
    let (mut result, mut error) = (Bound::null(), None);
    if let Event::PlaybookCompleted { result: given, .. } = event {
        result = given.clone();
    }
    if let Event::PlaybookFailed { error: why, .. } = event {
        error = Some(Arc::clone(why));
    }
    if let Event::ExecutionCancelled(cancelled) = event {
        let by = &cancelled.cancelled_by;
        let message = match &cancelled.reason {
            Some(reason) => format!("cancelled by {by}: {reason}"),
            None => format!("cancelled by {by}"),
        };
        error = Some(Arc::new(json!({
            "kind": "cancelled",
            "code": "CANCELLED",
            "message": message,
            "cancelled_by": by,
            "reason": cancelled.reason,
        })));
    }
    Some(ChildOutcome { execution_id, status, result, error })
}

impl Engine {
    /// Acts upon an append that has landed at `version`.
    pub(crate) fn landed(&self, landing: Landing, version: u64) {
        let Landing {
            execution_id,
            at,
            events,
            fold,
            ended,
            quiesced,
            quiesced_after_ms,
            due,
            settled,
            claimed,
            pending,
            outcome,
            children,
            stops,
            promise,
        } = landing;
        self.metrics.appends.add_one();
        self.metrics.events.add(events);
        match (ended, fold) {
            (None, Fold::State(mut execution)) => {
                self.metrics.claimed_with_issue.add(claimed.len() as u64);
                (execution.version, execution.decided) = (version, version);
                self.executions.put(Arc::new(*execution));
            }
            (None, Fold::Blind) => self.executions.raise(execution_id, events, version),
            (None, Fold::Drop) => self.executions.forget(execution_id),
            (Some(status), _) => {
                // Nothing is decided on a terminal execution but under the lock of its head.
                self.executions.end(execution_id);
                match status {
                    Status::Running => {}
                    Status::Completed => self.metrics.completed.add_one(),
                    Status::Failed => self.metrics.failed.add_one(),
                    Status::Cancelled => self.metrics.cancelled.add_one(),
                }
            }
        }
        if let Some(after_ms) = quiesced_after_ms {
            self.metrics.cancel_quiesce_ms.note(after_ms);
            tracing::info!(execution = %execution_id, after_ms, "execution quiesced: nothing of it runs any more");
        }
        for event in &stops {
            self.say_stop(execution_id, event);
        }
        for attempt in settled {
            self.desk.settled(attempt);
        }
        // Hands first, then the promise goes: the slot is never free in between.
        for (session_id, assignment) in claimed {
            self.desk.give(session_id, assignment);
        }
        drop(promise);
        if pending {
            self.desk.expect_work(execution_id);
        }
        for due in &due {
            self.hint(due, at, outcome.as_deref());
        }
        self.watches.tick(execution_id, version, ended.is_some() || quiesced);
        for child in children {
            let version = child.events;
            self.landed(child, version);
        }
    }

    /// One line for each decision that stops something.
    fn say_stop(&self, execution: ExecutionId, event: &Event) {
        if let Event::CommandStopping(stopping) = event {
            let (command, step, by, reason) = (stopping.command_id, &*stopping.step, &*stopping.by, &*stopping.reason);
            let held = stopping.held;
            match stopping.cause {
                StopCause::Cancelled => tracing::info!(%execution, %command, step, by, reason, held, "step is stopped"),
                StopCause::Timeout => {
                    tracing::info!(%execution, %command, step, by, reason, held, "step took too long and is stopped");
                }
            }
        }
        if let Event::LoopCompleting(completing) = event {
            let (step, visit, mode, by) = (&*completing.step, completing.visit, completing.mode, &*completing.by);
            let (reason, withdrawn) = (completing.reason.as_deref().unwrap_or_default(), completing.commands.len());
            tracing::info!(%execution, step, visit, ?mode, by, reason, withdrawn, "loop is completed early");
        }
        if let Event::StepCancelled(cancelled) = event {
            let (step, by, withdrawn) = (&*cancelled.step, &*cancelled.by, cancelled.commands.len());
            tracing::info!(%execution, step, by, withdrawn, "step is cancelled by an arc");
        }
        if let Event::ExecutionCancelled(cancelled) = event {
            let (by, reason) = (&*cancelled.cancelled_by, cancelled.reason.as_deref().unwrap_or_default());
            let mode = cancelled.mode;
            self.metrics.cancels.add_one(mode, CancelCause::of(by), CancelResult::Cancelled);
            tracing::info!(%execution, by, reason, ?mode, "execution cancelled where it begins");
        }
    }

    /// Brings an obligation forward that was just written: the sweep would find it as well, later.
    fn hint(&self, due: &Due, now: Timestamp, outcome: Option<&ChildOutcome>) {
        match due.kind {
            DueKind::Continue => {
                self.mailboxes.post(due.execution_id, Letter::of(Input::Continue));
            }
            DueKind::ChildDone => {
                if let (Some(outcome), Some(command_id)) = (outcome, due.command) {
                    let input = Input::ChildEnded(command_id, Box::new(outcome.clone()));
                    self.mailboxes.post(due.execution_id, Letter::of(input));
                }
            }
            DueKind::Timer
            | DueKind::GraceEnd
            | DueKind::Timeout
            | DueKind::StepTimeout
            | DueKind::CancelChild
            | DueKind::Displaced => {
                // One more, so that the store's clock has passed it whatever was rounded on the way.
                self.alarms.set_in(due.at.since_ms(now) + 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use noetl_core::append::HeadChange;
    use noetl_core::id::CommandId;

    use super::*;

    /// What a row of this state was deleted for, as far as it says something of an attempt.
    fn settled(expect: CommandState) -> Vec<Attempt> {
        let append = Append {
            execution_id: ExecutionId(1),
            guard: Guard::Locked,
            at: Timestamp(1_768_900_080_123),
            events: Vec::new(),
            head: HeadChange::default(),
            commands: vec![CommandChange::Delete { command_id: CommandId(2), epoch: 1, expect }],
            due: Vec::new(),
            children: Vec::new(),
            results: Vec::new(),
            snapshot: None,
        };
        let whose = Whose { catalog_id: CatalogId(3), path: "path".into(), version: 1 };
        Landing::of(&append, &whose, Fold::Drop).settled
    }

    /// A command that is paused before anybody has it, and resumed, is claimed under the epoch that it had.
    #[test]
    fn only_what_somebody_had_is_settled() {
        let attempt = Attempt { command_id: CommandId(2), epoch: 1 };
        assert_eq!(settled(CommandState::Claimed), [attempt]);
        assert_eq!(settled(CommandState::Lost), [attempt]);
        assert_eq!(settled(CommandState::Pending), []);
        assert_eq!(settled(CommandState::Paused), []);
        assert_eq!(settled(CommandState::Suspended), []);
    }
}
