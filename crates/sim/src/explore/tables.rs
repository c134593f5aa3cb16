//! The tables of the small world: what is durable. What lands is decided by the stores' own [`landing`].

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use noetl_core::append::{Append, CommandChange, Due, DueChange, DueKind, Guard, Verdict};
use noetl_core::concurrency::KeyHolder;
use noetl_core::event::{Event, Recorded, row};
use noetl_core::execution::state::Execution;
use noetl_core::head::{CommandRow, CommandState, Head, HeadView};
use noetl_core::id::{CommandId, ExecutionId, ScheduleId, SessionId};
use noetl_core::properties::Member;
use noetl_core::time::Timestamp;
use noetl_store::StoreError;
use noetl_store::landing::{self, Check, Landing, Rows};
use serde_json::Value;

/// Key of an obligation.
pub(super) type DueKey = (ExecutionId, DueKind, i64);

/// Everything durable. A clone is cheap: what did not change is shared.
#[derive(Clone, Default)]
pub(super) struct Tables {
    pub(super) seats: BTreeMap<ExecutionId, Arc<Seat>>,
    pub(super) due: BTreeMap<DueKey, Due>,
    pub(super) cascades: Vec<Cascade>,
}

/// One execution.
#[derive(Clone)]
pub(super) struct Seat {
    pub(super) member: Member,
    /// What the log folds to, kept up with it.
    pub(super) execution: Execution,
    /// Says whether two seats are the same, times and ids aside.
    digest: u64,
}

/// A cancellation of a family that is under way, or through.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Cascade {
    pub(super) requested: ExecutionId,
    /// Who wants it.
    pub(super) by: &'static str,
    /// Still to be visited.
    pub(super) front: BTreeSet<ExecutionId>,
    /// (A mistake only.) Their children have been listed already.
    pub(super) listed: BTreeSet<ExecutionId>,
}

impl Cascade {
    /// Written before the first fence: whoever comes after a crash knows that there is more to do.
    pub(super) fn begin(requested: ExecutionId, by: &'static str) -> Self {
        Cascade { requested, by, front: [requested].into(), listed: BTreeSet::new() }
    }

    /// Returns whether it still has to visit somebody.
    pub(super) fn is_open(&self) -> bool {
        !(self.front.is_empty() && self.listed.is_empty())
    }
}

impl Rows for &Tables {
    fn head(&mut self, execution_id: ExecutionId) -> Result<Option<Head>, StoreError> {
        Ok(self.seats.get(&execution_id).map(|seat| seat.member.head.clone()))
    }

    fn command_state(
        &mut self,
        execution_id: ExecutionId,
        command_id: CommandId,
        epoch: u32,
    ) -> Result<Option<CommandState>, StoreError> {
        Ok(self.row(execution_id, command_id, epoch).map(|row| row.state))
    }

    fn waits_for(&mut self, _schedule_id: ScheduleId) -> Result<Option<Timestamp>, StoreError> {
        Ok(None)
    }

    fn key_holders(&mut self, _key: &str) -> Result<Vec<KeyHolder>, StoreError> {
        Ok(Vec::new())
    }
}

impl Tables {
    pub(super) fn row(&self, execution_id: ExecutionId, command_id: CommandId, epoch: u32) -> Option<&CommandRow> {
        let rows = &self.seats.get(&execution_id)?.member.commands;
        rows.iter().find(|row| row.command_id == command_id && row.epoch == epoch)
    }

    /// Returns every live command, of all executions.
    pub(super) fn rows(&self) -> impl Iterator<Item = &CommandRow> {
        self.seats.values().flat_map(|seat| &seat.member.commands)
    }

    /// Returns executions with commands that `session` holds in `state`.
    pub(super) fn held(&self, session: SessionId, state: CommandState) -> BTreeSet<ExecutionId> {
        let held = self
            .rows()
            .filter(|row| row.state == state && row.holder.as_ref().is_some_and(|holder| holder.session_id == session));
        held.map(|row| row.execution_id).collect()
    }

    /// Returns whether `by` has such a cascade under way.
    pub(super) fn is_begun(&self, requested: ExecutionId, by: &str) -> bool {
        self.cascades.iter().any(|cascade| cascade.is_open() && cascade.requested == requested && cascade.by == by)
    }

    pub(super) fn view(&self, execution_id: ExecutionId) -> Option<HeadView> {
        let member = &self.seats.get(&execution_id)?.member;
        Some(HeadView { head: member.head.clone(), commands: member.commands.clone() })
    }

    /// Lands an append if the guards say so.
    pub(super) fn land(&mut self, append: Append) -> Result<Verdict, String> {
        let locked = append.guard == Guard::Locked;
        match landing::check(&mut &*self, &append, locked).map_err(|error| error.to_string())? {
            Check::Stays(verdict) => Ok(verdict),
            Check::Lands(landing) => {
                let version = landing.head.version;
                self.write(append, *landing)?;
                Ok(Verdict::Landed { version })
            }
        }
    }

    /// Writes an append, whatever any guard says: what a store without guards would do.
    pub(super) fn force(&mut self, append: Append) -> Result<(), String> {
        let head = match &append.guard {
            Guard::New(first) => Some((**first).clone()),
            Guard::At(_) | Guard::Claim { .. } | Guard::Locked => {
                self.seats.get(&append.execution_id).map(|seat| seat.member.head.clone())
            }
        };
        let Some(mut head) = head else { return Ok(()) };
        head.land(&append);
        let children = append.children.iter().map(|child| {
            let Guard::New(first) = &child.guard else { return Err("a child is new".to_owned()) };
            let mut head = (**first).clone();
            head.land(child);
            Ok(Landing { head, born: true, children: Vec::new() })
        });
        let children = children.collect::<Result<_, _>>()?;
        self.write(append, Landing { head, born: false, children })
    }

    fn write(&mut self, append: Append, landing: Landing) -> Result<(), String> {
        let id = append.execution_id;
        if let Guard::New(_) = &append.guard {
            let Some(Event::PlaybookInitialized(init)) = append.events.first().map(|new| &new.event) else {
                return Err("a log begins with playbook.initialized".to_owned());
            };
            let mut execution = Execution::begin(id, Arc::new((**init).clone()), append.at);
            (execution.version, execution.decided) = (0, 0);
            let member = Member { head: landing.head.clone(), events: Vec::new(), commands: Vec::new() };
            self.seats.insert(id, Arc::new(Seat { member, execution, digest: 0 }));
        }
        let Some(seat) = self.seats.get_mut(&id) else { return Err(format!("there is no execution {id}")) };
        Arc::make_mut(seat).write(&append, landing.head)?;
        for change in append.due {
            match change {
                DueChange::Set(due) => drop(self.due.insert((due.execution_id, due.kind, due.key), due)),
                DueChange::Clear { execution_id, kind, key } => drop(self.due.remove(&(execution_id, kind, key))),
                DueChange::Tick(_) | DueChange::Enter(_) => {}
            }
        }
        for (child, landing) in append.children.into_iter().zip(landing.children) {
            self.write(child, landing)?;
        }
        Ok(())
    }

    pub(super) fn hash_into(&self, hasher: &mut DefaultHasher) {
        for (id, seat) in &self.seats {
            (id, seat.digest).hash(hasher);
        }
        for (id, kind, key) in self.due.keys() {
            (id, kind.as_str(), key).hash(hasher);
        }
        self.cascades.hash(hasher);
    }
}

impl Seat {
    fn write(&mut self, append: &Append, head: Head) -> Result<(), String> {
        let id = append.execution_id;
        let first = head.version + 1 - append.events.len() as u64;
        let mut hasher = DefaultHasher::new();
        self.digest.hash(&mut hasher);
        for (version, new) in (first..).zip(&append.events) {
            let event = new.event.clone();
            let columns = row::columns::<Value>(&event);
            (columns.event_type, columns.command_id, columns.attempt, &columns.worker_id).hash(&mut hasher);
            let recorded = Recorded { execution_id: id, version, event_id: new.event_id, at: append.at, event };
            self.execution.follow(&recorded).map_err(|error| error.to_string())?;
            self.member.events.push(recorded);
        }
        if let Guard::Claim { command_id, epoch, holder } = &append.guard {
            self.change(*command_id, *epoch, |row| {
                (row.state, row.holder) = (CommandState::Claimed, Some(holder.clone()));
            });
        }
        let rows = &mut self.member.commands;
        for change in &append.commands {
            match change {
                CommandChange::Insert(row) => rows.push((**row).clone()),
                CommandChange::Delete { command_id, epoch, .. } => {
                    rows.retain(|row| row.command_id != *command_id || row.epoch != *epoch);
                }
                CommandChange::Started { command_id, epoch } => {
                    let started = |row: &&mut CommandRow| row.command_id == *command_id && row.epoch == *epoch;
                    if let Some(holder) = rows.iter_mut().find(started).and_then(|row| row.holder.as_mut()) {
                        holder.started = true;
                    }
                }
                CommandChange::Withdraw { command_id, epoch } => {
                    let withdrawn = |row: &&mut CommandRow| row.command_id == *command_id && row.epoch == *epoch;
                    if let Some(row) = rows.iter_mut().find(withdrawn) {
                        row.at_most_once = true;
                        if matches!(row.state, CommandState::Pending | CommandState::Paused) {
                            row.state = CommandState::Suspended;
                        }
                    }
                }
            }
        }
        self.member.head = head;
        self.execution.decided = self.member.head.decided;
        for row in &self.member.commands {
            let holder = row.holder.as_ref().map(|holder| holder.session_id);
            (row.command_id, row.epoch, row.state.as_str(), holder).hash(&mut hasher);
        }
        let head = &self.member.head;
        (head.decided, head.in_flight, head.runnable, head.pause.is_some()).hash(&mut hasher);
        self.digest = hasher.finish();
        Ok(())
    }

    fn change(&mut self, command_id: CommandId, epoch: u32, change: impl FnOnce(&mut CommandRow)) {
        let found = |row: &&mut CommandRow| row.command_id == command_id && row.epoch == epoch;
        if let Some(row) = self.member.commands.iter_mut().find(found) {
            change(row);
        }
    }
}
