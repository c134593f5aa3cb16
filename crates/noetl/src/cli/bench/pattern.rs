//! Copies of an execution that the engine has run: the same facts under ids of their own, written by the store's own
//! append. What `noetl verify` finds in order of the pattern is in order of its copies.

use std::collections::BTreeMap;

use noetl_core::append::{Append, CommandChange, Due, DueChange, DueKind, Guard, HeadChange, NewEvent, Verdict};
use noetl_core::event::{Event, Parent};
use noetl_core::head::{CommandRow, CommandState, Head};
use noetl_core::id::{CommandId, EventId, ExecutionId, IdSource};
use noetl_core::time::Timestamp;
use noetl_store::{EventQuery, Store};

/// Most events of a pattern.
const EVENTS_MAX: u64 = 1_000;

/// An execution, to be copied.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    head: Head,
    commands: Vec<CommandRow>,
    events: Vec<Event>,
    /// How long after its start its time limit is, in milliseconds.
    pub(super) timeout_ms: Option<u64>,
}

impl Pattern {
    /// Takes an execution for the pattern. No worker may hold anything of it: what is held belongs to one life of one
    /// worker.
    pub(super) async fn of(store: &dyn Store, execution_id: ExecutionId) -> Result<Pattern, String> {
        let view = store.view(execution_id).await.map_err(|error| error.to_string())?.ok_or("the pattern is gone")?;
        if view.head.in_flight > 0 || view.head.runnable {
            return Err(format!("execution {execution_id} moves, and can not be copied"));
        }
        if view.commands.iter().any(|row| row.state != CommandState::Pending) {
            return Err(format!("execution {execution_id} waits for more than a worker, and can not be copied"));
        }
        let query = EventQuery { execution_id: Some(execution_id), limit: EVENTS_MAX, ..EventQuery::default() };
        let (events, count) = store.events(query).await.map_err(|error| error.to_string())?;
        if count > EVENTS_MAX {
            return Err(format!("execution {execution_id} has {count} events, more than {EVENTS_MAX}"));
        }
        let events = events.into_iter().map(|recorded| recorded.event).collect();
        Ok(Pattern { head: view.head, commands: view.commands, events, timeout_ms: None })
    }

    /// Has the copies stand for the same playbook in another catalog.
    pub(super) fn of_playbook(mut self, catalog_id: noetl_core::id::CatalogId) -> Pattern {
        self.head.catalog_id = catalog_id;
        self
    }

    /// Returns the one append that writes a copy, as of `at`.
    pub(super) fn birth(&self, ids: &mut IdSource, parent: Option<&Head>, at: Timestamp) -> Result<Append, String> {
        let execution_id = ExecutionId(ids.next(at));
        let renamed: BTreeMap<CommandId, CommandId> =
            self.command_ids().map(|id| (id, CommandId(ids.next(at)))).collect();
        let first = Head {
            execution_id,
            parent_execution_id: parent.map(|parent| parent.execution_id),
            root_execution_id: parent.map_or(execution_id, |parent| parent.root_execution_id),
            depth: parent.map_or(0, |parent| parent.depth + 1),
            status: noetl_core::head::Status::Running,
            version: 0,
            decided: 0,
            started_at: at,
            updated_at: at,
            ended_at: None,
            quiesced_at: None,
            current_step: None,
            steps_entered: 0,
            commands_issued: 0,
            failed_steps: Vec::new(),
            error: None,
            cancel: None,
            ..self.head.clone()
        };
        let copy = Copy { first: &first, renamed: &renamed, at };
        let events = self
            .events
            .iter()
            .map(|event| Ok(NewEvent { event_id: EventId(ids.next(at)), event: copy.event(event.clone())? }));
        let events = events.collect::<Result<Vec<_>, String>>()?;
        let rows = self.commands.iter().map(|row| {
            let command_id = copy.command(row.command_id)?;
            let root_execution_id = first.root_execution_id;
            Ok(CommandChange::Insert(Box::new(CommandRow {
                execution_id,
                command_id,
                root_execution_id,
                since: at,
                ..row.clone()
            })))
        });
        let commands = rows.collect::<Result<Vec<_>, String>>()?;
        let due = self.timeout_ms.filter(|_| self.head.is_active()).map(|timeout_ms| {
            DueChange::Set(Due {
                execution_id,
                kind: DueKind::Timeout,
                key: 0,
                at: at.plus_ms(timeout_ms),
                command: None,
            })
        });
        let cancel = self.head.cancel.clone().map(|cancel| noetl_core::head::CancelInfo {
            since: at,
            requested_execution_id: execution_id,
            ..cancel
        });
        let head = HeadChange {
            status: (!self.head.is_active()).then_some(self.head.status),
            quiesced: self.head.quiesced_at.is_some(),
            current_step: self.head.current_step.clone(),
            steps_entered: self.head.steps_entered,
            commands_issued: self.head.commands_issued,
            failed_steps: self.head.failed_steps.clone(),
            error: self.head.error.clone(),
            cancel,
            ..HeadChange::default()
        };
        Ok(Append {
            execution_id,
            guard: Guard::New(Box::new(first)),
            at,
            events,
            head,
            commands,
            due: due.into_iter().collect(),
            children: Vec::new(),
            results: Vec::new(),
            snapshot: None,
        })
    }

    /// Returns the commands that were ever issued.
    fn command_ids(&self) -> impl Iterator<Item = CommandId> {
        self.events.iter().filter_map(|event| {
            let Event::CommandIssued(issued) = event else { return None };
            Some(issued.command_id)
        })
    }
}

/// Writes appends that have to land.
pub(super) async fn land(store: &dyn Store, batch: Vec<Append>) -> Result<(), String> {
    for verdict in store.append(batch).await {
        match verdict {
            Ok(Verdict::Landed { .. }) => {}
            other => return Err(format!("a copy was not written: {other:?}")),
        }
    }
    Ok(())
}

/// One copy in the making.
struct Copy<'a> {
    first: &'a Head,
    renamed: &'a BTreeMap<CommandId, CommandId>,
    at: Timestamp,
}

impl Copy<'_> {
    fn command(&self, id: CommandId) -> Result<CommandId, String> {
        self.renamed.get(&id).copied().ok_or_else(|| format!("command {id} was never issued"))
    }

    /// Returns the fact with the ids and the time of the copy.
    fn event(&self, mut event: Event) -> Result<Event, String> {
        match &mut event {
            Event::PlaybookInitialized(init) => {
                init.catalog_id = self.first.catalog_id;
                let parent = self.first.parent_execution_id;
                init.parent = parent.map(|execution_id| Parent { execution_id, command_id: None, return_step: None });
                init.root_execution_id = self.first.root_execution_id;
                init.depth = self.first.depth;
            }
            Event::CommandIssued(issued) => issued.command_id = self.command(issued.command_id)?,
            Event::CommandClaimed { command_id, .. } | Event::CommandCancelled { command_id, .. } => {
                *command_id = self.command(*command_id)?;
            }
            Event::CommandStarted { command_id, started_at, .. } => {
                *command_id = self.command(*command_id)?;
                *started_at = self.at;
            }
            Event::CallDone(call) => call.command_id = call.command_id.map(|id| self.command(id)).transpose()?,
            Event::CommandDone(done) => {
                done.command_id = self.command(done.command_id)?;
                done.started_at = done.started_at.map(|_| self.at);
            }
            Event::ExecutionCancelled(cancelled) => {
                cancelled.root_execution_id = self.first.root_execution_id;
                cancelled.requested_execution_id = self.first.execution_id;
            }
            Event::StepEnter { .. }
            | Event::StepSkipped { .. }
            | Event::StepExit(_)
            | Event::PlaybookCompleted { .. }
            | Event::PlaybookFailed { .. } => {}
            Event::ExecutionQuiesced { commands } if commands.is_empty() => {}
            Event::ExecutionQuiesced { .. }
            | Event::CommandSuspended(_)
            | Event::CommandResumed { .. }
            | Event::CommandLost { .. }
            | Event::CommandReleased { .. }
            | Event::CommandStopping(_)
            | Event::CommandForgotten { .. }
            | Event::LoopStarted { .. }
            | Event::LoopClaimed { .. }
            | Event::LoopCompleting(_)
            | Event::LoopDone { .. }
            | Event::StepCancelled(_)
            | Event::ExecutionCancelEscalated(_)
            | Event::ExecutionPaused(_)
            | Event::ExecutionResumed(_)
            | Event::CleanupPrepared(_) => {
                return Err(format!("{} is not copied", noetl_core::event::row::wire_name(&event)));
            }
        }
        Ok(event)
    }
}
