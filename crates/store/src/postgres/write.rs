//! One batch under its locks: the rows that guards look at, what lands on them, and the one statement that writes it.
//!
//! Appends of a batch see what those before them have made of the rows; what is written in the end is the outcome of
//! all that landed, each row once.

use std::collections::{BTreeMap, BTreeSet};

use deadpool_postgres::ClientWrapper;
use noetl_core::append::{Append, CommandChange, Due, DueChange, Guard, Verdict};
use noetl_core::event::SCHEMA_VERSION;
use noetl_core::event::row::{Columns, columns};
use noetl_core::head::{CommandRow, CommandState, Head, Holder};
use noetl_core::id::{CommandId, EventId, ExecutionId};
use noetl_core::time::Timestamp;
use serde::Serialize;
use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;

use super::document::Document;
use super::rows;
use super::types::Moment;
use crate::landing::{self, Check, Landing, Rows};
use crate::{StoreError, payload};

/// How many snapshots of an execution are kept.
const SNAPSHOTS_KEPT: usize = 2;

/// The key of a command row.
pub(super) type CommandKey = (ExecutionId, CommandId, u32);

/// The key of an obligation.
type DueKey = (ExecutionId, &'static str, i64);

/// An append that was looked through and written out, before any lock is taken.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) append: Append,
    texts: Texts,
    /// About how many bytes it takes.
    pub(super) bytes: usize,
}

/// The documents of an append.
#[derive(Debug)]
struct Texts {
    events: Vec<Columns<Document>>,
    results: Vec<String>,
    snapshot: Option<String>,
    children: Vec<Texts>,
}

/// Makes an append ready to be written.
pub(super) fn ready(mut append: Append) -> Result<Ready, StoreError> {
    let bytes = payload::scrub(&mut append)?;
    let texts = texts(&append);
    Ok(Ready { append, texts, bytes })
}

fn texts(append: &Append) -> Texts {
    Texts {
        events: append.events.iter().map(|new| columns(&new.event)).collect(),
        results: append.results.iter().map(|result| json(&result.data)).collect(),
        snapshot: append.snapshot.as_ref().map(json),
        children: append.children.iter().map(texts).collect(),
    }
}

/// Writes a value as JSON.
pub(super) fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| unreachable!("plain values are JSON: {error}"))
}

/// Returns a number as PostgreSQL keeps it.
pub(super) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Which rows a batch has to read, and which heads to lock.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Heads that are changed or must hold still: own ones and parents'.
    pub(super) lock: BTreeSet<ExecutionId>,
    /// Heads that must not exist.
    pub(super) births: BTreeSet<ExecutionId>,
    /// Commands that are changed.
    pub(super) commands: BTreeSet<CommandKey>,
}

impl Wanted {
    pub(super) fn add(&mut self, append: &Append) {
        let id = append.execution_id;
        match &append.guard {
            Guard::New(first) => {
                self.births.insert(id);
                self.lock.extend(first.parent_execution_id);
            }
            Guard::At(_) | Guard::Locked => {
                self.lock.insert(id);
            }
            Guard::Claim { command_id, epoch, .. } => {
                self.lock.insert(id);
                self.commands.insert((id, *command_id, *epoch));
            }
        }
        for change in &append.commands {
            let (command_id, epoch) = match change {
                CommandChange::Insert(row) => (row.command_id, row.epoch),
                CommandChange::Delete { command_id, epoch, .. } | CommandChange::Started { command_id, epoch } => {
                    (*command_id, *epoch)
                }
            };
            self.commands.insert((id, command_id, epoch));
        }
        append.children.iter().for_each(|child| self.add(child));
    }
}

/// What a batch makes of a command row.
#[derive(Debug)]
enum CommandAfter {
    Gone,
    /// The whole row.
    Whole(Box<CommandRow>),
    /// A row that stands in the table, with a holder.
    Claimed(Holder),
    /// A row that stands in the table; its tool has started.
    Started(CommandState),
}

/// What a batch makes of a head.
#[derive(Debug)]
struct HeadAfter {
    head: Head,
    born: bool,
}

/// An event on its way into the log.
#[derive(Debug)]
struct EventAfter<'a> {
    execution_id: ExecutionId,
    version: u64,
    event_id: EventId,
    root_execution_id: ExecutionId,
    catalog_id: i64,
    at: Timestamp,
    columns: &'a Columns<Document>,
}

/// A large result on its way into its table.
#[derive(Debug)]
struct ResultAfter<'a> {
    reference: &'a str,
    execution_id: ExecutionId,
    root_execution_id: ExecutionId,
    store: &'a str,
    bytes: u64,
    data: &'a str,
    at: Timestamp,
}

/// A batch under its locks.
#[derive(Debug, Default)]
pub(super) struct Stage<'a> {
    /// Heads as they stand in the table, read after the locks were held.
    heads: BTreeMap<ExecutionId, Head>,
    /// Those that are held.
    held: BTreeSet<ExecutionId>,
    /// Commands as they stand in the table.
    commands: BTreeMap<CommandKey, CommandState>,
    heads_after: BTreeMap<ExecutionId, HeadAfter>,
    commands_after: BTreeMap<CommandKey, CommandAfter>,
    /// `None`: met. With the top of the family.
    due_after: BTreeMap<DueKey, Option<(&'a Due, ExecutionId)>>,
    events: Vec<EventAfter<'a>>,
    results: Vec<ResultAfter<'a>>,
    snapshots: BTreeMap<(ExecutionId, u64), (ExecutionId, u32, &'a str)>,
}

impl Rows for Stage<'_> {
    fn head(&mut self, execution_id: ExecutionId) -> Result<Option<Head>, StoreError> {
        let after = self.heads_after.get(&execution_id).map(|after| &after.head);
        Ok(after.or_else(|| self.heads.get(&execution_id)).cloned())
    }

    fn command_state(
        &mut self,
        execution_id: ExecutionId,
        command_id: CommandId,
        epoch: u32,
    ) -> Result<Option<CommandState>, StoreError> {
        Ok(self.state(&(execution_id, command_id, epoch)))
    }
}

impl<'a> Stage<'a> {
    pub(super) fn new(
        heads: Vec<Head>,
        held: BTreeSet<ExecutionId>,
        commands: impl IntoIterator<Item = (CommandKey, CommandState)>,
    ) -> Self {
        Stage {
            heads: heads.into_iter().map(|head| (head.execution_id, head)).collect(),
            held,
            commands: commands.into_iter().collect(),
            ..Stage::default()
        }
    }

    fn state(&self, key: &CommandKey) -> Option<CommandState> {
        match self.commands_after.get(key) {
            Some(CommandAfter::Gone) => None,
            Some(CommandAfter::Whole(row)) => Some(row.state),
            Some(CommandAfter::Claimed(_)) => Some(CommandState::Claimed),
            Some(CommandAfter::Started(state)) => Some(*state),
            None => self.commands.get(key).copied(),
        }
    }

    /// Returns whether a head that the append needs is held by another transaction. A parent that is counts as busy,
    /// not as refused.
    fn is_busy(&self, append: &Append) -> bool {
        let busy = |id: &ExecutionId| {
            self.heads.contains_key(id) && !self.held.contains(id) && !self.heads_after.contains_key(id)
        };
        match &append.guard {
            Guard::New(first) => first.parent_execution_id.as_ref().is_some_and(busy),
            Guard::At(_) | Guard::Claim { .. } | Guard::Locked => busy(&append.execution_id),
        }
    }

    /// Says what becomes of an append, and takes note of what it writes.
    pub(super) fn append(&mut self, ready: &'a Ready, locked: bool) -> Result<Verdict, StoreError> {
        if self.is_busy(&ready.append) {
            return Ok(Verdict::Busy);
        }
        match landing::check(self, &ready.append, locked)? {
            Check::Stays(verdict) => Ok(verdict),
            Check::Lands(landing) => {
                self.unique(&ready.append)?;
                let version = landing.head.version;
                self.note(&ready.append, &ready.texts, *landing);
                Ok(Verdict::Landed { version })
            }
        }
    }

    /// Refuses a command whose key is taken. Under the lock of its head nobody else can take it meanwhile.
    fn unique(&self, append: &Append) -> Result<(), StoreError> {
        let mut after: BTreeMap<(CommandId, u32), bool> = BTreeMap::new();
        for change in &append.commands {
            match change {
                CommandChange::Insert(row) => {
                    let key = (append.execution_id, row.command_id, row.epoch);
                    let taken = after.insert((row.command_id, row.epoch), true);
                    if taken.unwrap_or_else(|| self.state(&key).is_some()) {
                        return Err(StoreError::BadData(format!(
                            "command {} exists already under epoch {}",
                            row.command_id, row.epoch
                        )));
                    }
                }
                CommandChange::Delete { command_id, epoch, .. } => {
                    after.insert((*command_id, *epoch), false);
                }
                CommandChange::Started { .. } => {}
            }
        }
        append.children.iter().try_for_each(|child| self.unique(child))
    }

    fn note(&mut self, append: &'a Append, texts: &'a Texts, landing: Landing) {
        let first = landing.first_version(append.events.len());
        let Landing { head, born, children } = landing;
        let (id, root) = (append.execution_id, head.root_execution_id);
        for ((version, new), columns) in (first..).zip(&append.events).zip(&texts.events) {
            self.events.push(EventAfter {
                execution_id: id,
                version,
                event_id: new.event_id,
                root_execution_id: root,
                catalog_id: head.catalog_id.0,
                at: append.at,
                columns,
            });
        }
        self.note_commands(append);
        for change in &append.due {
            match change {
                DueChange::Set(due) => {
                    let key = (due.execution_id, due.kind.as_str(), due.key);
                    self.due_after.insert(key, Some((due, root)));
                }
                DueChange::Clear { execution_id, kind, key } => {
                    self.due_after.insert((*execution_id, kind.as_str(), *key), None);
                }
            }
        }
        for (result, data) in append.results.iter().zip(&texts.results) {
            self.results.push(ResultAfter {
                reference: &result.reference,
                execution_id: result.execution_id,
                root_execution_id: root,
                store: &result.store,
                bytes: result.bytes,
                data,
                at: append.at,
            });
        }
        if let Some(state) = &texts.snapshot {
            self.snapshots.insert((id, head.version), (root, head.engine, state));
        }
        let born = born || self.heads_after.get(&id).is_some_and(|after| after.born);
        self.heads_after.insert(id, HeadAfter { head, born });
        for ((child, texts), landing) in append.children.iter().zip(&texts.children).zip(children) {
            self.note(child, texts, landing);
        }
    }

    fn note_commands(&mut self, append: &'a Append) {
        let id = append.execution_id;
        if let Guard::Claim { command_id, epoch, holder } = &append.guard {
            let claimed = match self.commands_after.remove(&(id, *command_id, *epoch)) {
                Some(CommandAfter::Whole(mut row)) => {
                    row.state = CommandState::Claimed;
                    row.holder = Some(holder.clone());
                    CommandAfter::Whole(row)
                }
                Some(CommandAfter::Gone | CommandAfter::Claimed(_) | CommandAfter::Started(_)) | None => {
                    CommandAfter::Claimed(holder.clone())
                }
            };
            self.commands_after.insert((id, *command_id, *epoch), claimed);
        }
        for change in &append.commands {
            match change {
                CommandChange::Insert(row) => {
                    let key = (id, row.command_id, row.epoch);
                    self.commands_after.insert(key, CommandAfter::Whole(row.clone()));
                }
                CommandChange::Delete { command_id, epoch, .. } => {
                    self.commands_after.insert((id, *command_id, *epoch), CommandAfter::Gone);
                }
                CommandChange::Started { command_id, epoch } => {
                    let key = (id, *command_id, *epoch);
                    let Some(state) = self.state(&key) else { continue };
                    let started = match self.commands_after.remove(&key) {
                        Some(CommandAfter::Whole(mut row)) => {
                            if let Some(holder) = &mut row.holder {
                                holder.started = true;
                            }
                            CommandAfter::Whole(row)
                        }
                        Some(CommandAfter::Claimed(holder)) => {
                            CommandAfter::Claimed(Holder { started: true, ..holder })
                        }
                        Some(CommandAfter::Gone | CommandAfter::Started(_)) | None => CommandAfter::Started(state),
                    };
                    self.commands_after.insert(key, started);
                }
            }
        }
    }

    /// Returns whether there is anything to write.
    pub(super) fn is_empty(&self) -> bool {
        self.heads_after.is_empty()
    }

    /// Returns an event by which the transaction is known again, after its answer was lost.
    pub(super) fn witness(&self) -> Option<(ExecutionId, EventId)> {
        self.events.first().map(|event| (event.execution_id, event.event_id))
    }

    /// Returns whether other servers should look again: something waits to be claimed, or ended while it runs on.
    pub(super) fn concerns_others(&self) -> bool {
        let waits = |after: &CommandAfter| match after {
            CommandAfter::Whole(row) => row.state == CommandState::Pending,
            CommandAfter::Gone | CommandAfter::Claimed(_) | CommandAfter::Started(_) => false,
        };
        self.commands_after.values().any(waits)
            || self.heads_after.values().any(|after| !after.head.is_active() && after.head.quiesced_at.is_none())
            || self.due_after.values().flatten().any(|(due, _)| due.child.is_some())
    }

    /// Returns everything as columns of one statement.
    pub(super) fn outcome(&self) -> Outcome<'_> {
        let mut outcome = Outcome::default();
        for HeadAfter { head, born } in self.heads_after.values() {
            if *born { outcome.births.add(head) } else { outcome.changes.add(head) }
        }
        for event in &self.events {
            outcome.events.add(event);
        }
        for (key, after) in &self.commands_after {
            match after {
                CommandAfter::Gone => outcome.settled.add(*key),
                CommandAfter::Whole(row) => outcome.commands.add(row),
                CommandAfter::Claimed(holder) => outcome.claims.add(*key, holder),
                CommandAfter::Started(_) => outcome.started.add(*key),
            }
        }
        for (key, after) in &self.due_after {
            match after {
                Some((due, root)) => outcome.due.add(due, *root),
                None => outcome.met.add(*key),
            }
        }
        for result in &self.results {
            outcome.results.add(result);
        }
        // Ordered by version within an execution, so the newest come first from the end.
        let mut kept: BTreeMap<ExecutionId, usize> = BTreeMap::new();
        for ((id, version), (root, engine, state)) in self.snapshots.iter().rev() {
            let kept = kept.entry(*id).or_default();
            if *kept < SNAPSHOTS_KEPT {
                *kept += 1;
                outcome.snapshots.add(*id, *version, *root, *engine, state);
            }
        }
        for (id, kept) in kept {
            outcome.surplus.add(id, SNAPSHOTS_KEPT - kept);
        }
        outcome
    }
}

/// Defines columns that become the parameters of one part of the statement.
macro_rules! columns {
    ($name:ident { $($column:ident: $rust:ty = $sql:literal),* $(,)? }) => {
        #[derive(Default)]
        struct $name<'a> {
            $($column: Vec<$rust>,)*
            _of: std::marker::PhantomData<&'a ()>,
        }

        impl<'a> $name<'a> {
            const COLUMNS: &'static [(&'static str, &'static str)] = &[$((stringify!($column), $sql),)*];

            fn part(&self) -> Part<'_> {
                let values: Vec<&(dyn ToSql + Sync)> = vec![$(&self.$column,)*];
                Part { columns: Self::COLUMNS, values, rows: columns!(@first self $($column)*) }
            }
        }
    };
    (@first $self:ident $first:ident $($rest:ident)*) => { $self.$first.len() };
}

/// Columns with their values.
struct Part<'a> {
    columns: &'static [(&'static str, &'static str)],
    values: Vec<&'a (dyn ToSql + Sync)>,
    rows: usize,
}

columns!(HeadColumns {
    execution_id: i64 = "bigint",
    catalog_id: i64 = "bigint",
    path: &'a str = "text",
    playbook_version: i64 = "bigint",
    parent_execution_id: Option<i64> = "bigint",
    parent_command_id: Option<i64> = "bigint",
    root_execution_id: i64 = "bigint",
    depth: i64 = "bigint",
    status: &'static str = "text",
    version: i64 = "bigint",
    decided: i64 = "bigint",
    in_flight: i64 = "bigint",
    runnable: bool = "boolean",
    engine: i64 = "bigint",
    cancel_mode: Option<&'static str> = "text",
    cancel_grace_ms: Option<i64> = "bigint",
    started_at: Moment = "timestamptz",
    updated_at: Moment = "timestamptz",
    ended_at: Option<Moment> = "timestamptz",
    quiesced_at: Option<Moment> = "timestamptz",
    current_step: Option<&'a str> = "text",
    steps_entered: i64 = "bigint",
    commands_issued: i64 = "bigint",
    failed_steps: Option<String> = "json",
    error_detail: Option<String> = "json",
    cancel: Option<String> = "json",
});

impl<'a> HeadColumns<'a> {
    fn add(&mut self, head: &'a Head) {
        self.execution_id.push(head.execution_id.0);
        self.catalog_id.push(head.catalog_id.0);
        self.path.push(&head.path);
        self.playbook_version.push(head.playbook_version);
        self.parent_execution_id.push(head.parent_execution_id.map(|id| id.0));
        self.parent_command_id.push(head.parent_command_id.map(|id| id.0));
        self.root_execution_id.push(head.root_execution_id.0);
        self.depth.push(head.depth.into());
        self.status.push(head.status.as_str());
        self.version.push(integer(head.version));
        self.decided.push(integer(head.decided));
        self.in_flight.push(head.in_flight.into());
        self.runnable.push(head.runnable);
        self.engine.push(head.engine.into());
        self.cancel_mode.push(head.cancel_mode.map(rows::mode_word));
        self.cancel_grace_ms.push(head.cancel_grace_ms.map(integer));
        self.started_at.push(Moment(head.started_at));
        self.updated_at.push(Moment(head.updated_at));
        self.ended_at.push(head.ended_at.map(Moment));
        self.quiesced_at.push(head.quiesced_at.map(Moment));
        self.current_step.push(head.current_step.as_deref());
        self.steps_entered.push(integer(head.steps_entered));
        self.commands_issued.push(integer(head.commands_issued));
        self.failed_steps.push((!head.failed_steps.is_empty()).then(|| json(&head.failed_steps)));
        self.error_detail.push(head.error.as_ref().map(json));
        self.cancel.push(head.cancel.as_ref().map(json));
    }
}

columns!(EventColumns {
    execution_id: i64 = "bigint",
    version: i64 = "bigint",
    event_id: i64 = "bigint",
    parent_execution_id: Option<i64> = "bigint",
    root_execution_id: i64 = "bigint",
    catalog_id: i64 = "bigint",
    event_type: &'static str = "text",
    node_name: Option<&'a str> = "text",
    node_type: Option<&'a str> = "text",
    status: &'static str = "text",
    context: Option<&'a str> = "jsonb",
    result: Option<&'a str> = "jsonb",
    meta: Option<&'a str> = "jsonb",
    error: Option<&'a str> = "text",
    worker_id: Option<&'a str> = "text",
    command_id: Option<i64> = "bigint",
    attempt: Option<i64> = "bigint",
    iteration: Option<i64> = "bigint",
    duration: Option<f64> = "double precision",
    created_at: Moment = "timestamptz",
    schema_version: i32 = "integer",
    key_order: Option<String> = "text",
});

impl<'a> EventColumns<'a> {
    fn add(&mut self, event: &EventAfter<'a>) {
        let row = event.columns;
        self.execution_id.push(event.execution_id.0);
        self.version.push(integer(event.version));
        self.event_id.push(event.event_id.0);
        self.parent_execution_id.push(row.parent_execution_id.map(|id| id.0));
        self.root_execution_id.push(event.root_execution_id.0);
        self.catalog_id.push(event.catalog_id);
        self.event_type.push(row.event_type);
        self.node_name.push(row.node_name.as_deref());
        self.node_type.push(row.node_type.as_deref());
        self.status.push(row.status);
        self.context.push(row.context.as_ref().map(|document| document.text.as_str()));
        self.result.push(row.result.as_ref().map(|document| document.text.as_str()));
        self.meta.push(row.meta.as_ref().map(|document| document.text.as_str()));
        self.error.push(row.error.as_deref());
        self.worker_id.push(row.worker_id.as_deref());
        self.command_id.push(row.command_id.map(|id| id.0));
        self.attempt.push(row.attempt.map(i64::from));
        self.iteration.push(row.iteration.map(i64::from));
        self.duration.push(row.duration);
        self.created_at.push(Moment(event.at));
        self.schema_version.push(i32::try_from(SCHEMA_VERSION).unwrap_or(i32::MAX));
        let order = |document: &'a Option<Document>| document.as_ref().and_then(|document| document.order.as_deref());
        self.key_order.push(match (order(&row.context), order(&row.result)) {
            (None, None) => None,
            (context, result) => Some(format!("{}|{}", context.unwrap_or(""), result.unwrap_or(""))),
        });
    }
}

columns!(CommandColumns {
    execution_id: i64 = "bigint",
    command_id: i64 = "bigint",
    epoch: i64 = "bigint",
    root_execution_id: i64 = "bigint",
    state: &'static str = "text",
    step: &'a str = "text",
    visit: i64 = "bigint",
    iteration: Option<i64> = "bigint",
    kind: &'a str = "text",
    pool: &'a str = "text",
    priority: i32 = "integer",
    enters: bool = "boolean",
    at_most_once: bool = "boolean",
    losses: i64 = "bigint",
    losses_max: i64 = "bigint",
    grace_ms: Option<i64> = "bigint",
    wait: Option<String> = "json",
    issued_at: Moment = "timestamptz",
    session_id: Option<i64> = "bigint",
    worker_id: Option<&'a str> = "text",
    claimed_at: Option<Moment> = "timestamptz",
    started: bool = "boolean",
    work: String = "json",
});

impl<'a> CommandColumns<'a> {
    fn add(&mut self, row: &'a CommandRow) {
        let holder = row.holder.as_ref();
        self.execution_id.push(row.execution_id.0);
        self.command_id.push(row.command_id.0);
        self.epoch.push(row.epoch.into());
        self.root_execution_id.push(row.root_execution_id.0);
        self.state.push(row.state.as_str());
        self.step.push(&row.step);
        self.visit.push(row.visit.into());
        self.iteration.push(row.iteration.map(i64::from));
        self.kind.push(&row.kind);
        self.pool.push(&row.pool);
        self.priority.push(row.priority);
        self.enters.push(row.enters);
        self.at_most_once.push(row.at_most_once);
        self.losses.push(row.losses.into());
        self.losses_max.push(row.losses_max.into());
        self.grace_ms.push(row.grace_ms.map(integer));
        self.wait.push(row.wait.as_ref().map(json));
        self.issued_at.push(Moment(row.since));
        self.session_id.push(holder.map(|holder| holder.session_id.0));
        self.worker_id.push(holder.map(|holder| holder.worker_id.as_ref()));
        self.claimed_at.push(holder.map(|holder| Moment(holder.claimed_at)));
        self.started.push(holder.is_some_and(|holder| holder.started));
        self.work.push(json(&row.work));
    }
}

columns!(ClaimColumns {
    execution_id: i64 = "bigint",
    command_id: i64 = "bigint",
    epoch: i64 = "bigint",
    session_id: i64 = "bigint",
    worker_id: &'a str = "text",
    claimed_at: Moment = "timestamptz",
    started: bool = "boolean",
});

impl<'a> ClaimColumns<'a> {
    fn add(&mut self, (execution_id, command_id, epoch): CommandKey, holder: &'a Holder) {
        self.execution_id.push(execution_id.0);
        self.command_id.push(command_id.0);
        self.epoch.push(epoch.into());
        self.session_id.push(holder.session_id.0);
        self.worker_id.push(&holder.worker_id);
        self.claimed_at.push(Moment(holder.claimed_at));
        self.started.push(holder.started);
    }
}

columns!(CommandKeys { execution_id: i64 = "bigint", command_id: i64 = "bigint", epoch: i64 = "bigint" });

impl CommandKeys<'_> {
    fn add(&mut self, (execution_id, command_id, epoch): CommandKey) {
        self.execution_id.push(execution_id.0);
        self.command_id.push(command_id.0);
        self.epoch.push(epoch.into());
    }
}

columns!(DueColumns {
    execution_id: i64 = "bigint",
    kind: &'static str = "text",
    key: i64 = "bigint",
    at: Moment = "timestamptz",
    child_execution_id: Option<i64> = "bigint",
    root_execution_id: i64 = "bigint",
});

impl DueColumns<'_> {
    fn add(&mut self, due: &Due, root: ExecutionId) {
        self.execution_id.push(due.execution_id.0);
        self.kind.push(due.kind.as_str());
        self.key.push(due.key);
        self.at.push(Moment(due.at));
        self.child_execution_id.push(due.child.map(|id| id.0));
        self.root_execution_id.push(root.0);
    }
}

columns!(DueKeys {
    execution_id: i64 = "bigint",
    kind: &'static str = "text",
    key: i64 = "bigint",
});

impl DueKeys<'_> {
    fn add(&mut self, (execution_id, kind, key): DueKey) {
        self.execution_id.push(execution_id.0);
        self.kind.push(kind);
        self.key.push(key);
    }
}

columns!(ResultColumns {
    reference: &'a str = "text",
    execution_id: i64 = "bigint",
    root_execution_id: i64 = "bigint",
    store: &'a str = "text",
    bytes: i64 = "bigint",
    data: &'a str = "json",
    created_at: Moment = "timestamptz",
});

impl<'a> ResultColumns<'a> {
    fn add(&mut self, result: &ResultAfter<'a>) {
        self.reference.push(result.reference);
        self.execution_id.push(result.execution_id.0);
        self.root_execution_id.push(result.root_execution_id.0);
        self.store.push(result.store);
        self.bytes.push(integer(result.bytes));
        self.data.push(result.data);
        self.created_at.push(Moment(result.at));
    }
}

columns!(SnapshotColumns {
    execution_id: i64 = "bigint",
    version: i64 = "bigint",
    root_execution_id: i64 = "bigint",
    engine: i64 = "bigint",
    state: &'a str = "json",
});

impl<'a> SnapshotColumns<'a> {
    fn add(&mut self, id: ExecutionId, version: u64, root: ExecutionId, engine: u32, state: &'a str) {
        self.execution_id.push(id.0);
        self.version.push(integer(version));
        self.root_execution_id.push(root.0);
        self.engine.push(engine.into());
        self.state.push(state);
    }
}

columns!(SurplusColumns { execution_id: i64 = "bigint", kept: i64 = "bigint" });

impl SurplusColumns<'_> {
    fn add(&mut self, id: ExecutionId, kept: usize) {
        self.execution_id.push(id.0);
        self.kept.push(integer(kept as u64));
    }
}

/// Everything that one transaction writes.
#[derive(Default)]
pub(super) struct Outcome<'a> {
    births: HeadColumns<'a>,
    changes: HeadColumns<'a>,
    events: EventColumns<'a>,
    settled: CommandKeys<'a>,
    commands: CommandColumns<'a>,
    claims: ClaimColumns<'a>,
    started: CommandKeys<'a>,
    met: DueKeys<'a>,
    due: DueColumns<'a>,
    results: ResultColumns<'a>,
    surplus: SurplusColumns<'a>,
    snapshots: SnapshotColumns<'a>,
}

/// What a change of a head sets; the rest stands from its birth.
const CHANGED: &[&str] = &[
    "version",
    "decided",
    "in_flight",
    "runnable",
    "updated_at",
    "current_step",
    "steps_entered",
    "commands_issued",
    "status",
    "ended_at",
    "quiesced_at",
    "failed_steps",
    "error_detail",
    "cancel",
];

/// What an attempt written anew under its key sets.
const REWRITTEN: &[&str] = &[
    "root_execution_id",
    "state",
    "step",
    "visit",
    "iteration",
    "kind",
    "pool",
    "priority",
    "enters",
    "at_most_once",
    "losses",
    "losses_max",
    "grace_ms",
    "wait",
    "issued_at",
    "session_id",
    "worker_id",
    "claimed_at",
    "started",
    "work",
];

/// The statement in the making: a `WITH` of the parts that have rows.
#[derive(Default)]
struct Statements<'a> {
    parts: Vec<String>,
    values: Vec<&'a (dyn ToSql + Sync)>,
}

impl<'a> Statements<'a> {
    /// Adds a part, when it has rows. In its text `{rows}` stands for the rows, `{names}` for the columns, and
    /// `{values}` for what is to be inserted.
    fn add(&mut self, part: Part<'a>, sql: &str) {
        if part.rows == 0 {
            return;
        }
        let (mut unnest, mut names, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for ((name, ty), value) in part.columns.iter().zip(part.values) {
            self.values.push(value);
            // Documents travel as text: that is how they were written.
            let wire = if ty.starts_with("json") { "text" } else { ty };
            unnest.push(format!("${}::{wire}[]", self.values.len()));
            names.push(*name);
            values.push(if ty.starts_with("json") { format!("{name}::{ty}") } else { (*name).to_owned() });
        }
        let names = names.join(", ");
        let rows = format!("unnest({}) AS n ({names})", unnest.join(", "));
        let sql = sql.replace("{rows}", &rows).replace("{names}", &names).replace("{values}", &values.join(", "));
        self.parts.push(format!("w{} AS ({sql})", self.parts.len()));
    }

    fn insert(&mut self, part: Part<'a>, table: &str, conflict: &str) {
        self.add(
            part,
            &format!("INSERT INTO noetl.{table} ({{names}}) SELECT {{values}} FROM {{rows}} {conflict} RETURNING 1"),
        );
    }

    fn text(&self) -> String {
        format!("WITH {} SELECT 1", self.parts.join(", "))
    }
}

fn set(names: &[&str], from: &str) -> String {
    let one = |name: &&str| {
        let json = ["failed_steps", "error_detail", "cancel"].contains(name) && from == "n";
        format!("{name} = {from}.{name}{}", if json { "::json" } else { "" })
    };
    names.iter().map(one).collect::<Vec<_>>().join(", ")
}

const COMMAND_KEY: &str =
    "c.execution_id = n.execution_id AND c.command_id = n.command_id AND c.epoch = n.epoch RETURNING 1";

impl Outcome<'_> {
    fn statements(&self) -> Statements<'_> {
        let mut all = Statements::default();
        // Heads first, by id; then commands: the order of locks everywhere.
        all.add(
            self.changes.part(),
            &format!(
                "UPDATE noetl.execution x SET {} FROM {{rows}} WHERE x.execution_id = n.execution_id RETURNING 1",
                set(CHANGED, "n")
            ),
        );
        all.insert(self.births.part(), "execution", "");
        all.add(self.settled.part(), &format!("DELETE FROM noetl.command c USING {{rows}} WHERE {COMMAND_KEY}"));
        all.insert(
            self.commands.part(),
            "command",
            &format!("ON CONFLICT (execution_id, command_id, epoch) DO UPDATE SET {}", set(REWRITTEN, "excluded")),
        );
        all.add(
            self.claims.part(),
            &format!(
                "UPDATE noetl.command c SET state = 'claimed', session_id = n.session_id, worker_id = n.worker_id, \
                 claimed_at = n.claimed_at, started = n.started FROM {{rows}} WHERE {COMMAND_KEY}"
            ),
        );
        all.add(
            self.started.part(),
            &format!("UPDATE noetl.command c SET started = true FROM {{rows}} WHERE {COMMAND_KEY}"),
        );
        all.insert(self.events.part(), "event", "");
        all.add(
            self.met.part(),
            "DELETE FROM noetl.due d USING {rows} \
             WHERE d.execution_id = n.execution_id AND d.kind = n.kind AND d.key = n.key RETURNING 1",
        );
        all.insert(
            self.due.part(),
            "due",
            "ON CONFLICT (execution_id, kind, key) DO UPDATE SET at = excluded.at, \
             child_execution_id = excluded.child_execution_id, root_execution_id = excluded.root_execution_id",
        );
        // A name is given once: written again, it is the same result.
        all.insert(self.results.part(), "result", "ON CONFLICT (reference) DO NOTHING");
        all.add(
            self.surplus.part(),
            "DELETE FROM noetl.snapshot s USING {rows} WHERE s.execution_id = n.execution_id AND s.version NOT IN \
             (SELECT k.version FROM noetl.snapshot k WHERE k.execution_id = n.execution_id \
              ORDER BY k.version DESC LIMIT n.kept) RETURNING 1",
        );
        all.insert(
            self.snapshots.part(),
            "snapshot",
            "ON CONFLICT (execution_id, version) DO UPDATE SET engine = excluded.engine, state = excluded.state",
        );
        all
    }

    /// Prepares the statement, before the transaction that needs it goes on.
    pub(super) async fn prepare<'s>(
        &'s self,
        client: &ClientWrapper,
    ) -> Result<(Statement, Vec<&'s (dyn ToSql + Sync)>), tokio_postgres::Error> {
        let statements = self.statements();
        let statement = client.prepare_cached(&statements.text()).await?;
        Ok((statement, statements.values))
    }
}
