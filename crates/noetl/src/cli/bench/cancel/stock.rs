//! Executions by the hundred thousand, written straight into the store: starting each would take longer than what is
//! measured.

use std::sync::Arc;

use noetl_core::append::{Append, CommandChange, Guard, HeadChange, NewEvent, Verdict};
use noetl_core::event::{Event, Parent};
use noetl_core::head::{CommandRow, Head};
use noetl_core::id::{CommandId, EventId, ExecutionId, IdSource};
use noetl_core::time::Timestamp;
use noetl_engine::Engine;
use noetl_store::EventQuery;

/// Births in one transaction.
const BATCH: usize = 500;
/// A node that no server of a benchmark is.
const NODE: u16 = 0x3ff;

/// An execution that waits for a worker, to be copied.
pub(in super::super) struct Stock {
    head: Head,
    row: CommandRow,
    events: Vec<Event>,
    ids: IdSource,
}

impl Stock {
    /// Takes an execution with one pending command for the pattern.
    pub(in super::super) async fn of(engine: &Engine, execution_id: ExecutionId) -> Result<Stock, String> {
        let view = engine.store().view(execution_id).await.map_err(|error| error.to_string())?;
        let view = view.ok_or("the pattern is gone")?;
        let query = EventQuery { execution_id: Some(execution_id), limit: 100, ..EventQuery::default() };
        let (events, _) = engine.store().events(query).await.map_err(|error| error.to_string())?;
        let [row] = &view.commands[..] else { return Err(format!("{} commands wait", view.commands.len())) };
        let events = events.into_iter().map(|recorded| recorded.event).collect();
        Ok(Stock { row: row.clone(), head: view.head, events, ids: IdSource::new(NODE) })
    }

    /// Writes `count` copies below `parent`, or on their own; returns their ids.
    pub(in super::super) async fn write(
        &mut self,
        engine: &Engine,
        count: usize,
        parent: Option<ExecutionId>,
    ) -> Result<Vec<ExecutionId>, String> {
        let store = engine.store();
        let parent = match parent {
            Some(id) => Some(store.head(id).await.map_err(|error| error.to_string())?.ok_or("no such parent")?),
            None => None,
        };
        let mut written = Vec::with_capacity(count);
        while written.len() < count {
            let now = store.now().await.map_err(|error| error.to_string())?;
            let batch: Vec<Append> =
                (0..BATCH.min(count - written.len())).map(|_| self.birth(parent.as_ref(), now)).collect();
            written.extend(batch.iter().map(|append| append.execution_id));
            for verdict in store.append(batch).await {
                match verdict {
                    Ok(Verdict::Landed { .. }) => {}
                    other => return Err(format!("a copy was not written: {other:?}")),
                }
            }
        }
        Ok(written)
    }

    fn birth(&mut self, parent: Option<&Head>, now: Timestamp) -> Append {
        let execution_id = ExecutionId(self.ids.next(now));
        let command_id = CommandId(self.ids.next(now));
        let root_execution_id = parent.map_or(execution_id, |parent| parent.root_execution_id);
        let depth = parent.map_or(0, |parent| parent.depth + 1);
        let first = Head {
            execution_id,
            parent_execution_id: parent.map(|parent| parent.execution_id),
            root_execution_id,
            depth,
            version: 0,
            decided: 0,
            in_flight: 0,
            runnable: false,
            started_at: now,
            updated_at: now,
            current_step: None,
            steps_entered: 0,
            commands_issued: 0,
            ..self.head.clone()
        };
        let events = self.events.iter().map(|event| {
            let mut event = event.clone();
            if let Event::PlaybookInitialized(initialized) = &mut event {
                let parent = parent.map(|parent| parent.execution_id);
                initialized.parent =
                    parent.map(|execution_id| Parent { execution_id, command_id: None, return_step: None });
                initialized.root_execution_id = root_execution_id;
                initialized.depth = depth;
            }
            if let Event::CommandIssued(issued) = &mut event {
                issued.command_id = command_id;
            }
            NewEvent { event_id: EventId(self.ids.next(now)), event }
        });
        let events = events.collect();
        let row = CommandRow { execution_id, command_id, root_execution_id, since: now, ..self.row.clone() };
        Append {
            execution_id,
            guard: Guard::New(Box::new(first)),
            at: now,
            events,
            head: HeadChange {
                current_step: self.head.current_step.as_ref().map(Arc::clone),
                steps_entered: self.head.steps_entered,
                commands_issued: self.head.commands_issued,
                ..HeadChange::default()
            },
            commands: vec![CommandChange::Insert(Box::new(row))],
            due: Vec::new(),
            children: Vec::new(),
            results: Vec::new(),
            snapshot: None,
        }
    }
}
