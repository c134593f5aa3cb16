//! One batch under its locks: the rows that guards look at, and what lands on them.
//!
//! Appends of a batch see what those before them have made of the rows; what is written in the end is the outcome of
//! all that landed, each row once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use noetl_core::append::{Append, CommandChange, Due, DueChange, Guard, Verdict};
use noetl_core::concurrency::KeyHolder;
use noetl_core::event::row::{Columns, columns};
use noetl_core::head::{CommandRow, CommandState, Head, Holder};
use noetl_core::id::{CommandId, EventId, ExecutionId, ScheduleId};
use noetl_core::time::Timestamp;
use serde::Serialize;

use super::columns::Outcome;
use super::document::Document;
use super::node::Numbers;
use super::schedule::TickAfter;
use crate::landing::{self, Check, Landing, Rows};
use crate::{StoreError, payload};

/// How many snapshots of an execution are kept.
const SNAPSHOTS_KEPT: usize = 2;

/// The key of a command row.
pub(super) type CommandKey = (ExecutionId, CommandId, u32);

/// The key of an obligation.
pub(super) type DueKey = (ExecutionId, &'static str, i64);

/// An append that was looked through and written out, before any lock is taken.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) append: Append,
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
pub(super) fn ready(mut append: Append, numbers: &Numbers) -> Result<Ready, StoreError> {
    numbers.check(&append)?;
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
    /// Schedules whose ticks start something.
    pub(super) ticks: BTreeSet<ScheduleId>,
    /// Concurrency keys that starts take.
    pub(super) keys: BTreeSet<Arc<str>>,
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
                CommandChange::Delete { command_id, epoch, .. }
                | CommandChange::Started { command_id, epoch }
                | CommandChange::Withdraw { command_id, epoch } => (*command_id, *epoch),
            };
            self.commands.insert((id, command_id, epoch));
        }
        self.ticks.extend(landing::ticks(append).map(|tick| tick.schedule_id));
        self.keys.extend(append.admission().map(|admission| Arc::clone(&admission.key)));
        append.children.iter().for_each(|child| self.add(child));
    }
}

/// What a batch makes of a command row.
#[derive(Debug)]
enum CommandAfter {
    Gone,
    /// The whole row.
    Whole(Box<CommandRow>),
    /// A row that stands in the table, with a holder; and whether it is withdrawn.
    Claimed(Holder, bool),
    /// A row that stands in the table; its tool has started.
    Started(CommandState),
    /// A row that stands in the table and is withdrawn; and whether its tool has started.
    Withdrawn(CommandState, bool),
}

/// What a batch makes of a head.
#[derive(Debug)]
struct HeadAfter {
    head: Head,
    born: bool,
}

/// An event on its way into the log.
#[derive(Debug)]
pub(super) struct EventAfter<'a> {
    pub(super) execution_id: ExecutionId,
    pub(super) version: u64,
    pub(super) event_id: EventId,
    pub(super) root_execution_id: ExecutionId,
    pub(super) catalog_id: i64,
    pub(super) at: Timestamp,
    pub(super) columns: &'a Columns<Document>,
}

/// A large result on its way into its table.
#[derive(Debug)]
pub(super) struct ResultAfter<'a> {
    pub(super) reference: &'a str,
    pub(super) execution_id: ExecutionId,
    pub(super) root_execution_id: ExecutionId,
    pub(super) store: &'a str,
    pub(super) bytes: u64,
    pub(super) data: &'a str,
    pub(super) at: Timestamp,
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
    /// The ticks that schedules wait for, as they stand in the table.
    ticks: BTreeMap<ScheduleId, Option<Timestamp>>,
    /// Who has the concurrency keys that are held.
    keys: BTreeMap<Arc<str>, Vec<KeyHolder>>,
    ticks_after: BTreeMap<ScheduleId, TickAfter<'a>>,
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

    fn waits_for(&mut self, schedule_id: ScheduleId) -> Result<Option<Timestamp>, StoreError> {
        match self.ticks_after.get(&schedule_id) {
            Some(after) => Ok(after.tick.next),
            None => Ok(self.ticks.get(&schedule_id).copied().flatten()),
        }
    }

    fn key_holders(&mut self, key: &str) -> Result<Vec<KeyHolder>, StoreError> {
        let changed = |id: &ExecutionId| self.heads_after.get(id).map(|after| &after.head);
        // What this batch has made of those that had it, and who got it in this batch.
        let known = self.keys.get(key).into_iter().flatten();
        let mut holders: Vec<KeyHolder> =
            known.filter(|holder| changed(&holder.execution_id).is_none()).cloned().collect();
        let after = self.heads_after.values().map(|after| &after.head);
        let after = after.filter(|head| head.concurrency_key.as_deref() == Some(key) && head.quiesced_at.is_none());
        holders.extend(after.map(|head| KeyHolder {
            execution_id: head.execution_id,
            active: head.is_active(),
            started_at: head.started_at,
        }));
        Ok(holders)
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

    /// Returns the stage with the ticks that schedules wait for.
    pub(super) fn waiting_for(self, ticks: Vec<(ScheduleId, Option<Timestamp>)>) -> Self {
        Stage { ticks: ticks.into_iter().collect(), ..self }
    }

    /// Returns the stage with the holders of the concurrency keys that are held.
    pub(super) fn with_keys(self, keys: BTreeMap<Arc<str>, Vec<KeyHolder>>) -> Self {
        Stage { keys, ..self }
    }

    /// Returns the last tick of each schedule that goes on.
    pub(super) fn ticks(&self) -> impl Iterator<Item = &TickAfter<'a>> {
        self.ticks_after.values()
    }

    fn state(&self, key: &CommandKey) -> Option<CommandState> {
        match self.commands_after.get(key) {
            Some(CommandAfter::Gone) => None,
            Some(CommandAfter::Whole(row)) => Some(row.state),
            Some(CommandAfter::Claimed(..)) => Some(CommandState::Claimed),
            Some(CommandAfter::Started(state) | CommandAfter::Withdrawn(state, _)) => Some(*state),
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
                CommandChange::Started { .. } | CommandChange::Withdraw { .. } => {}
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
                // The head says that it has the key.
                DueChange::Enter(_) => {}
                DueChange::Tick(tick) => {
                    self.ticks_after.insert(tick.schedule_id, TickAfter { tick, started: id, at: append.at });
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
                Some(
                    CommandAfter::Gone
                    | CommandAfter::Claimed(..)
                    | CommandAfter::Started(_)
                    | CommandAfter::Withdrawn(..),
                )
                | None => CommandAfter::Claimed(holder.clone(), false),
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
                        Some(CommandAfter::Claimed(holder, withdrawn)) => {
                            CommandAfter::Claimed(Holder { started: true, ..holder }, withdrawn)
                        }
                        Some(CommandAfter::Withdrawn(state, _)) => CommandAfter::Withdrawn(state, true),
                        Some(CommandAfter::Gone | CommandAfter::Started(_)) | None => CommandAfter::Started(state),
                    };
                    self.commands_after.insert(key, started);
                }
                CommandChange::Withdraw { command_id, epoch } => {
                    let key = (id, *command_id, *epoch);
                    let Some(state) = self.state(&key) else { continue };
                    let state = if state == CommandState::Pending { CommandState::Suspended } else { state };
                    let withdrawn = match self.commands_after.remove(&key) {
                        Some(CommandAfter::Whole(mut row)) => {
                            (row.state, row.at_most_once) = (state, true);
                            CommandAfter::Whole(row)
                        }
                        Some(CommandAfter::Claimed(holder, _)) => CommandAfter::Claimed(holder, true),
                        Some(CommandAfter::Started(_) | CommandAfter::Withdrawn(_, true)) => {
                            CommandAfter::Withdrawn(state, true)
                        }
                        Some(CommandAfter::Gone | CommandAfter::Withdrawn(_, false)) | None => {
                            CommandAfter::Withdrawn(state, false)
                        }
                    };
                    self.commands_after.insert(key, withdrawn);
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
            CommandAfter::Gone | CommandAfter::Claimed(..) | CommandAfter::Started(_) | CommandAfter::Withdrawn(..) => {
                false
            }
        };
        self.commands_after.values().any(waits)
            || self.heads_after.values().any(|after| !after.head.is_active() && after.head.quiesced_at.is_none())
            || self.due_after.values().flatten().any(|(due, _)| due.command.is_some())
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
                CommandAfter::Claimed(holder, withdrawn) => outcome.claims.add(*key, holder, *withdrawn),
                CommandAfter::Started(_) => outcome.started.add(*key),
                CommandAfter::Withdrawn(_, started) => outcome.withdrawn.add(*key, *started),
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
