//! The tables of the memory store, with the few orders that questions need.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use noetl_core::append::{Append, CommandChange, Due, DueChange, Guard};
use noetl_core::concurrency::KeyHolder;
use noetl_core::event::Recorded;
use noetl_core::head::{CommandRow, CommandState, Head, HeadView};
use noetl_core::id::{CancellationId, CatalogId, CommandId, EventId, ExecutionId, ScheduleId, SessionId};
use noetl_core::result::LargeResult;
use noetl_core::schedule::{Schedule, Tick};
use noetl_core::time::Timestamp;
use serde_json::Value;

use super::logs::Logs;
use crate::catalog::Resource;
use crate::landing::{Landing, Rows};
use crate::secret::{CredentialRow, KeychainRow};
use crate::{Cancellation, RunningNote, Session, StoreError};

/// How many snapshots of an execution are kept.
const SNAPSHOTS_KEPT: usize = 2;

pub(super) type CommandKey = (ExecutionId, CommandId, u32);
pub(super) type DueKey = (ExecutionId, &'static str, i64);

/// Pool, priority, command, execution, epoch.
type PendingKey = (Arc<str>, Reverse<i32>, CommandId, ExecutionId, u32);

#[derive(Default)]
pub(super) struct Tables {
    pub(super) executions: BTreeMap<ExecutionId, Execution>,
    pub(super) event_ids: BTreeMap<EventId, (ExecutionId, u64)>,
    pub(super) commands: BTreeMap<CommandKey, CommandRow>,
    pub(super) due: BTreeMap<DueKey, Due>,
    pub(super) results: BTreeMap<String, LargeResult>,
    pub(super) sessions: BTreeMap<SessionId, Life>,
    pub(super) cancellations: BTreeMap<CancellationId, Cancellation>,
    pub(super) front: BTreeMap<(CancellationId, ExecutionId), ExecutionId>,
    pub(super) catalog: BTreeMap<CatalogId, Resource>,
    pub(super) schedules: BTreeMap<ScheduleId, Schedule>,
    pub(super) answers: BTreeMap<String, (Timestamp, Value)>,
    pub(super) logs: Logs,
    pub(super) credentials: BTreeMap<Arc<str>, CredentialRow>,
    pub(super) keychain: BTreeMap<Arc<str>, KeychainRow>,
    pub(super) key_fingerprint: Option<String>,
    // Orders of the above.
    pub(super) children: BTreeMap<ExecutionId, BTreeSet<ExecutionId>>,
    pub(super) pending: BTreeSet<PendingKey>,
    pub(super) due_at: BTreeSet<(Timestamp, ExecutionId, &'static str, i64)>,
    pub(super) held: BTreeSet<(SessionId, CommandKey)>,
    pub(super) unquiesced: BTreeSet<ExecutionId>,
    pub(super) keys: BTreeMap<Arc<str>, BTreeSet<ExecutionId>>,
}

pub(super) struct Execution {
    pub(super) head: Head,
    pub(super) events: Vec<Recorded>,
    pub(super) snapshots: Vec<(u64, Arc<Value>)>,
}

/// A session, and whether its end was said.
pub(super) struct Life {
    pub(super) session: Session,
    pub(super) closed: bool,
}

impl Rows for &Tables {
    fn head(&mut self, execution_id: ExecutionId) -> Result<Option<Head>, StoreError> {
        Ok(self.executions.get(&execution_id).map(|execution| execution.head.clone()))
    }

    fn command_state(
        &mut self,
        execution_id: ExecutionId,
        command_id: CommandId,
        epoch: u32,
    ) -> Result<Option<CommandState>, StoreError> {
        Ok(self.commands.get(&(execution_id, command_id, epoch)).map(|row| row.state))
    }

    fn waits_for(&mut self, schedule_id: ScheduleId) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.schedules.get(&schedule_id).filter(|schedule| schedule.enabled).and_then(|one| one.next_run_at))
    }

    fn key_holders(&mut self, key: &str) -> Result<Vec<KeyHolder>, StoreError> {
        Ok(Tables::key_holders(self, key))
    }
}

impl Tables {
    pub(super) fn view(&self, execution_id: ExecutionId) -> Option<HeadView> {
        let head = self.executions.get(&execution_id)?.head.clone();
        Some(HeadView { head, commands: self.commands_of(execution_id).cloned().collect() })
    }

    /// Returns who has a concurrency key, oldest first.
    pub(super) fn key_holders(&self, key: &str) -> Vec<KeyHolder> {
        let ids = self.keys.get(key).into_iter().flatten();
        let heads = ids.filter_map(|id| self.executions.get(id)).map(|execution| &execution.head);
        heads
            .map(|head| KeyHolder {
                execution_id: head.execution_id,
                active: head.is_active(),
                started_at: head.started_at,
            })
            .collect()
    }

    pub(super) fn commands_of(&self, execution_id: ExecutionId) -> impl Iterator<Item = &CommandRow> {
        let first = (execution_id, CommandId(i64::MIN), 0);
        let last = (execution_id, CommandId(i64::MAX), u32::MAX);
        self.commands.range(first..=last).map(|(_, row)| row)
    }

    pub(super) fn tail(&self, execution_id: ExecutionId, after: u64) -> Vec<Recorded> {
        let Some(execution) = self.executions.get(&execution_id) else { return Vec::new() };
        let from = usize::try_from(after).unwrap_or(usize::MAX).min(execution.events.len());
        execution.events[from..].to_vec()
    }

    /// Refuses keys that are taken: what constraints do in a database.
    pub(super) fn unique(&self, append: &Append) -> Result<(), StoreError> {
        self.unique_among(append, &mut BTreeSet::new())
    }

    fn unique_among(&self, append: &Append, seen: &mut BTreeSet<EventId>) -> Result<(), StoreError> {
        for new in &append.events {
            if self.event_ids.contains_key(&new.event_id) || !seen.insert(new.event_id) {
                return Err(StoreError::BadData(format!("event {} exists already", new.event_id)));
            }
        }
        let mut gone = BTreeSet::new();
        let mut born = BTreeSet::new();
        for change in &append.commands {
            match change {
                CommandChange::Insert(row) => {
                    let key = (row.command_id, row.epoch);
                    let stands = self.commands.contains_key(&(append.execution_id, row.command_id, row.epoch));
                    if (stands && !gone.contains(&key)) || !born.insert(key) {
                        return Err(StoreError::BadData(format!(
                            "command {} exists already under epoch {}",
                            row.command_id, row.epoch
                        )));
                    }
                }
                CommandChange::Delete { command_id, epoch, .. } => {
                    gone.insert((*command_id, *epoch));
                    born.remove(&(*command_id, *epoch));
                }
                CommandChange::Started { .. } | CommandChange::Withdraw { .. } => {}
            }
        }
        append.children.iter().try_for_each(|child| self.unique_among(child, seen))
    }

    /// Writes an append that has been checked.
    pub(super) fn write(&mut self, append: Append, landing: Landing) {
        let execution_id = append.execution_id;
        let first = landing.first_version(append.events.len());
        let at = append.at;
        let version = landing.head.version;
        if let Some(parent) = landing.head.parent_execution_id {
            self.children.entry(parent).or_default().insert(execution_id);
        }
        if landing.head.status.is_terminal() && landing.head.in_flight > 0 {
            self.unquiesced.insert(execution_id);
        } else {
            self.unquiesced.remove(&execution_id);
        }
        if let Some(key) = &landing.head.concurrency_key {
            let holders = self.keys.entry(Arc::clone(key)).or_default();
            if landing.head.quiesced_at.is_none() {
                holders.insert(execution_id);
            } else {
                holders.remove(&execution_id);
            }
        }
        let execution = self.executions.entry(execution_id).or_insert_with(|| Execution {
            head: landing.head.clone(),
            events: Vec::new(),
            snapshots: Vec::new(),
        });
        execution.head = landing.head;
        for (version, new) in (first..).zip(append.events) {
            self.event_ids.insert(new.event_id, (execution_id, version));
            execution.events.push(Recorded { execution_id, version, event_id: new.event_id, at, event: new.event });
        }
        if let Some(state) = append.snapshot {
            execution.snapshots.push((version, state));
            let surplus = execution.snapshots.len().saturating_sub(SNAPSHOTS_KEPT);
            execution.snapshots.drain(..surplus);
        }
        if let Guard::Claim { command_id, epoch, holder } = append.guard {
            self.change_command((execution_id, command_id, epoch), |row| {
                row.state = CommandState::Claimed;
                row.holder = Some(holder);
            });
        }
        for change in append.commands {
            match change {
                CommandChange::Insert(row) => self.insert_command(*row),
                CommandChange::Delete { command_id, epoch, .. } => {
                    self.remove_command((execution_id, command_id, epoch));
                }
                CommandChange::Started { command_id, epoch } => {
                    self.change_command((execution_id, command_id, epoch), |row| {
                        if let Some(holder) = &mut row.holder {
                            holder.started = true;
                        }
                    });
                }
                CommandChange::Withdraw { command_id, epoch } => {
                    self.change_command((execution_id, command_id, epoch), |row| {
                        row.at_most_once = true;
                        if matches!(row.state, CommandState::Pending | CommandState::Paused) {
                            row.state = CommandState::Suspended;
                        }
                    });
                }
            }
        }
        for change in append.due {
            match change {
                DueChange::Set(due) => self.set_due(due),
                DueChange::Clear { execution_id, kind, key } => self.clear_due((execution_id, kind.as_str(), key)),
                // The head says that it has the key.
                DueChange::Enter(_) => {}
                DueChange::Tick(tick) => {
                    self.pass_tick(&tick, at, "started");
                    if let Some(schedule) = self.schedules.get_mut(&tick.schedule_id) {
                        schedule.last_execution_id = Some(execution_id);
                    }
                }
            }
        }
        for result in append.results {
            self.results.entry(result.reference.clone()).or_insert(result);
        }
        for (child, landing) in append.children.into_iter().zip(landing.children) {
            self.write(child, landing);
        }
    }

    pub(super) fn set_due(&mut self, due: Due) {
        let key = (due.execution_id, due.kind.as_str(), due.key);
        self.clear_due(key);
        self.due_at.insert((due.at, key.0, key.1, key.2));
        self.due.insert(key, due);
    }

    pub(super) fn clear_due(&mut self, key: DueKey) {
        if let Some(due) = self.due.remove(&key) {
            self.due_at.remove(&(due.at, key.0, key.1, key.2));
        }
    }

    /// Moves a schedule on to the next tick.
    pub(super) fn pass_tick(&mut self, tick: &Tick, now: Timestamp, status: &str) {
        if let Some(schedule) = self.schedules.get_mut(&tick.schedule_id) {
            schedule.next_run_at = tick.next;
            schedule.last_run_at = Some(tick.at);
            schedule.last_status = Some(status.to_owned());
            schedule.updated_at = now;
        }
    }

    fn insert_command(&mut self, row: CommandRow) {
        let key = (row.execution_id, row.command_id, row.epoch);
        if row.state == CommandState::Pending {
            self.pending.insert(pending_key(&row));
        }
        if let Some(holder) = row.holder.as_ref().filter(|_| row.state.in_flight()) {
            self.held.insert((holder.session_id, key));
        }
        self.commands.insert(key, row);
    }

    /// Notes what a worker says it runs; `false` when it does not hold the attempt.
    pub(super) fn note_running(&mut self, session_id: SessionId, note: &RunningNote) -> bool {
        let key = (note.execution_id, note.command_id, note.epoch);
        let row = self.commands.get_mut(&key).filter(|row| {
            row.state.in_flight() && row.holder.as_ref().is_some_and(|holder| holder.session_id == session_id)
        });
        let Some(row) = row else { return false };
        row.running.clone_from(&note.running);
        true
    }

    pub(super) fn remove_command(&mut self, key: CommandKey) -> Option<CommandRow> {
        let row = self.commands.remove(&key)?;
        self.pending.remove(&pending_key(&row));
        if let Some(holder) = &row.holder {
            self.held.remove(&(holder.session_id, key));
        }
        Some(row)
    }

    fn change_command(&mut self, key: CommandKey, change: impl FnOnce(&mut CommandRow)) {
        if let Some(mut row) = self.remove_command(key) {
            change(&mut row);
            self.insert_command(row);
        }
    }

    /// Returns families that may go: all members ended, nothing in flight, the last of it before `before`.
    pub(super) fn prunable(&self, before: Timestamp) -> Vec<ExecutionId> {
        let mut keep: BTreeSet<ExecutionId> = BTreeSet::new();
        for Execution { head, .. } in self.executions.values() {
            let rest = head.quiesced_at.max(head.ended_at);
            if head.is_active() || head.in_flight > 0 || rest.is_none_or(|rest| rest >= before) {
                keep.insert(head.root_execution_id);
            }
            // Its cleanup reads what it left behind.
            let cleaned = head.cleanup_of.filter(|_| head.is_active() || head.in_flight > 0);
            keep.extend(cleaned.and_then(|id| self.executions.get(&id)).map(|of| of.head.root_execution_id));
        }
        let members = self.executions.values().filter(|execution| !keep.contains(&execution.head.root_execution_id));
        members.map(|execution| execution.head.execution_id).collect()
    }

    pub(super) fn remove_execution(&mut self, execution_id: ExecutionId) {
        if let Some(execution) = self.executions.remove(&execution_id) {
            for recorded in &execution.events {
                self.event_ids.remove(&recorded.event_id);
            }
            if let Some(siblings) = execution.head.parent_execution_id.and_then(|id| self.children.get_mut(&id)) {
                siblings.remove(&execution_id);
            }
        }
        self.children.remove(&execution_id);
        let commands: Vec<CommandKey> =
            self.commands_of(execution_id).map(|row| (execution_id, row.command_id, row.epoch)).collect();
        for key in commands {
            self.remove_command(key);
        }
        let due: Vec<DueKey> = self.due.keys().filter(|key| key.0 == execution_id).copied().collect();
        for key in due {
            self.clear_due(key);
        }
        self.results.retain(|_, result| result.execution_id != execution_id);
        self.keychain.retain(|_, row| row.execution.is_none_or(|(id, _)| id != execution_id));
        self.unquiesced.remove(&execution_id);
        self.logs.remove(execution_id);
    }
}

fn pending_key(row: &CommandRow) -> PendingKey {
    (Arc::clone(&row.pool), Reverse(row.priority), row.command_id, row.execution_id, row.epoch)
}
