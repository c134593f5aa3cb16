//! A store that forgets: for the simulator, for tests, and as the plain reading of what a store promises.
//!
//! Deterministic: ordered maps, an injected clock, no threads. What it answers is what every store must answer.

mod jobs;
mod logs;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use noetl_core::append::{Append, Due, Verdict};
use noetl_core::concurrency::KeyHolder;
use noetl_core::control::selection::path_matches;
use noetl_core::event::Recorded;
use noetl_core::event::row::{canonical_name, wire_name};
use noetl_core::head::{CommandRow, CommandState, Head, HeadView};
use noetl_core::id::{CancellationId, CredentialId, ExecutionId, ScheduleId, SessionId};
use noetl_core::labels;
use noetl_core::log::LogLine;
use noetl_core::schedule::{Schedule, Tick};
use noetl_core::time::Timestamp;
use noetl_core::turns::Turns;
use serde_json::Value;

use self::tables::{Life, Tables};
use crate::catalog::{NewResource, Resource, ResourceKey};
use crate::landing::{self, Check, Landing, Rows};
use crate::secret::{CredentialRow, KeychainRow, Resealed};
use crate::{
    Cancellation, Chunk, ChunkDecide, Clock, DuePlace, EventQuery, JobQuery, ListQuery, Loaded, LockedDecide,
    LockedView, LogQuery, LogRow, Pick, RunningNote, Session, SqlLimits, SqlRows, Store, StoreError, TableSize,
    payload,
};

/// The store in memory.
pub struct MemoryStore {
    clock: Clock,
    /// `None` after [`Store::close`].
    tables: Mutex<Option<Tables>>,
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

impl MemoryStore {
    /// Returns an empty store that reads the time from `clock`.
    pub fn new(clock: Clock) -> Self {
        MemoryStore { clock, tables: Mutex::new(Some(Tables::default())) }
    }

    fn lock(&self) -> Result<Open<'_>, StoreError> {
        // Nothing is half-written when a decision panics: it is made before the first write.
        let guard = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if guard.is_some() { Ok(Open(guard)) } else { Err(StoreError::Closed("it has been closed".into())) }
    }
}

/// The tables of a store that has not been closed.
struct Open<'a>(MutexGuard<'a, Option<Tables>>);

impl std::ops::Deref for Open<'_> {
    type Target = Tables;

    fn deref(&self) -> &Tables {
        self.0.as_ref().unwrap_or_else(|| unreachable!("checked when it was locked"))
    }
}

impl std::ops::DerefMut for Open<'_> {
    fn deref_mut(&mut self) -> &mut Tables {
        self.0.as_mut().unwrap_or_else(|| unreachable!("checked when it was locked"))
    }
}

impl Tables {
    fn append(&mut self, append: Append, locked: bool) -> Result<Verdict, StoreError> {
        match self.prepare(append, locked)? {
            Prepared::Lands(append, landing) => {
                let version = landing.head.version;
                self.write(*append, *landing);
                Ok(Verdict::Landed { version })
            }
            Prepared::Stays(verdict) => Ok(verdict),
        }
    }

    fn prepare(&self, mut append: Append, locked: bool) -> Result<Prepared, StoreError> {
        payload::scrub(&mut append)?;
        match landing::check(&mut &*self, &append, locked)? {
            Check::Lands(landing) => {
                self.unique(&append)?;
                Ok(Prepared::Lands(Box::new(append), landing))
            }
            Check::Stays(verdict) => Ok(Prepared::Stays(verdict)),
        }
    }
}

enum Prepared {
    Lands(Box<Append>, Box<Landing>),
    Stays(Verdict),
}

fn page<T>(all: impl Iterator<Item = T>, offset: u64, limit: u64) -> Vec<T> {
    let (offset, limit) = (usize::try_from(offset), usize::try_from(limit));
    all.skip(offset.unwrap_or(usize::MAX)).take(limit.unwrap_or(usize::MAX)).collect()
}

#[async_trait]
impl Store for MemoryStore {
    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok((self.clock)())
    }

    async fn append(&self, batch: Vec<Append>) -> Vec<Result<Verdict, StoreError>> {
        batch.into_iter().map(|append| self.lock()?.append(append, false)).collect()
    }

    async fn locked(
        &self,
        execution_id: ExecutionId,
        tail_after: Option<u64>,
        decide: LockedDecide,
    ) -> Result<Option<Verdict>, StoreError> {
        let mut tables = self.lock()?;
        let Some(view) = tables.view(execution_id) else { return Ok(None) };
        let tail = tail_after.map_or_else(Vec::new, |after| tables.tail(execution_id, after));
        let version = view.head.version;
        let locked = LockedView { now: (self.clock)(), view, tail };
        match decide(&locked) {
            None => Ok(Some(Verdict::Landed { version })),
            Some(append) => {
                landing::decided_under_lock(&append, execution_id)?;
                tables.append(append, true).map(Some)
            }
        }
    }

    async fn head(&self, execution_id: ExecutionId) -> Result<Option<Head>, StoreError> {
        Ok(self.lock()?.executions.get(&execution_id).map(|execution| execution.head.clone()))
    }

    async fn view(&self, execution_id: ExecutionId) -> Result<Option<HeadView>, StoreError> {
        Ok(self.lock()?.view(execution_id))
    }

    async fn key_holders(&self, key: &str) -> Result<Vec<KeyHolder>, StoreError> {
        Ok(self.lock()?.key_holders(key))
    }

    async fn load(&self, execution_id: ExecutionId) -> Result<Option<Loaded>, StoreError> {
        let tables = self.lock()?;
        let Some(execution) = tables.executions.get(&execution_id) else { return Ok(None) };
        let snapshot = execution.snapshots.last().cloned();
        let tail = tables.tail(execution_id, snapshot.as_ref().map_or(0, |(version, _)| *version));
        Ok(Some(Loaded { head: execution.head.clone(), snapshot, tail }))
    }

    async fn events(&self, query: EventQuery) -> Result<(Vec<Recorded>, u64), StoreError> {
        let tables = self.lock()?;
        let event_type = query.event_type.as_deref().map(canonical_name);
        let matches = |recorded: &&Recorded| {
            query.after_version.is_none_or(|after| recorded.version > after)
                && query.since_event_id.is_none_or(|since| recorded.event_id > since)
                && event_type.is_none_or(|name| wire_name(&recorded.event) == name)
        };
        let mut found: Vec<&Recorded> = match query.execution_id {
            Some(id) => {
                tables.executions.get(&id).map_or_else(Vec::new, |one| one.events.iter().filter(matches).collect())
            }
            None => {
                let places = tables.event_ids.values();
                let all = places.filter_map(|(id, version)| {
                    let index = usize::try_from(version - 1).ok()?;
                    tables.executions.get(id)?.events.get(index)
                });
                all.filter(matches).collect()
            }
        };
        if query.newest_first {
            found.reverse();
        }
        let total = found.len() as u64;
        Ok((page(found.into_iter().cloned(), query.offset, query.limit), total))
    }

    async fn terminal_event(&self, execution_id: ExecutionId) -> Result<Option<Recorded>, StoreError> {
        let tables = self.lock()?;
        let Some(execution) = tables.executions.get(&execution_id) else { return Ok(None) };
        Ok(execution.events.iter().rev().find(|recorded| recorded.event.is_terminal()).cloned())
    }

    async fn result(&self, reference: &str) -> Result<Option<Arc<Value>>, StoreError> {
        Ok(self.lock()?.results.get(reference).map(|result| Arc::clone(&result.data)))
    }

    async fn executions(&self, query: ListQuery) -> Result<Vec<Head>, StoreError> {
        let tables = self.lock()?;
        let heads = tables.executions.values().rev().map(|execution| &execution.head);
        let matches = |head: &&Head| {
            (query.status.is_empty() || query.status.contains(&head.status))
                && query.path.as_deref().is_none_or(|pattern| path_matches(pattern, &head.path))
                && query.parent.is_none_or(|parent| head.parent_execution_id == Some(parent))
                && query.root.is_none_or(|root| head.root_execution_id == root)
                && labels::have(&head.labels, &query.labels)
                && query.started_before.is_none_or(|before| head.started_at < before)
                && query.idle_since.is_none_or(|since| head.updated_at < since)
                && (!query.unquiesced || !head.is_active() && head.in_flight > 0)
                && query.job.is_none_or(|job| head.cancel.as_ref().is_some_and(|cancel| cancel.job_id == Some(job)))
                && query.before.is_none_or(|before| head.execution_id < before)
        };
        let mut found: Vec<&Head> = heads.filter(matches).collect();
        if query.active_first {
            // Stable, so that each half stays newest first.
            found.sort_by_key(|head| !head.is_active());
        }
        Ok(page(found.into_iter().cloned(), query.offset, query.limit))
    }

    async fn execution_ids(&self, query: ListQuery) -> Result<Vec<ExecutionId>, StoreError> {
        Ok(self.executions(query).await?.into_iter().map(|head| head.execution_id).collect())
    }

    async fn count_executions(&self, query: ListQuery) -> Result<u64, StoreError> {
        Ok(self.executions(query).await?.len() as u64)
    }

    async fn active_below(&self, execution_id: ExecutionId, limit: u64) -> Result<u64, StoreError> {
        let tables = self.lock()?;
        let children = |id: &ExecutionId| tables.children.get(id).into_iter().flatten().copied().collect::<Vec<_>>();
        let mut below = children(&execution_id);
        let (mut at, mut active) = (0, 0);
        while let Some(id) = below.get(at).copied().filter(|_| (at as u64) < limit) {
            active += u64::from(tables.executions.get(&id).is_some_and(|execution| execution.head.is_active()));
            below.extend(children(&id));
            at += 1;
        }
        Ok(active)
    }

    async fn candidates(
        &self,
        pools: &[Arc<str>],
        turns: &Turns,
        skip: u64,
        limit: u64,
    ) -> Result<Vec<CommandRow>, StoreError> {
        let tables = self.lock()?;
        let mut queues: BTreeMap<_, BTreeMap<ExecutionId, Vec<&CommandRow>>> = BTreeMap::new();
        // In the order of their age.
        for (pool, priority, command_id, execution_id, epoch) in &tables.pending {
            if pools.contains(pool)
                && let Some(row) = tables.commands.get(&(*execution_id, *command_id, *epoch))
            {
                queues.entry((pool, *priority)).or_default().entry(*execution_id).or_default().push(row);
            }
        }
        let mut found = Vec::new();
        for ((pool, priority), executions) in queues {
            for stretch in turns.order(pool, priority.0).iter().zip(0..) {
                let (stretch, place) = stretch;
                for (execution_id, rows) in executions.range(*stretch) {
                    let ranked = rows.iter().zip(0_u64..);
                    found.extend(ranked.map(|(row, rank)| ((priority, rank, place, *execution_id), *row)));
                }
            }
        }
        found.sort_by_key(|(order, row)| (*order, row.command_id));
        Ok(page(found.into_iter().map(|(_, row)| row.clone()), skip, limit))
    }

    async fn due(&self, limit: u64) -> Result<(Timestamp, Vec<Due>), StoreError> {
        let now = (self.clock)();
        let tables = self.lock()?;
        let due = tables.due_at.iter().take_while(|(at, ..)| *at <= now);
        let due = due.filter_map(|(_, execution_id, kind, key)| tables.due.get(&(*execution_id, *kind, *key)).cloned());
        let paused = |id| tables.executions.get(&id).is_some_and(|execution| execution.head.pause.is_some());
        let due = due.filter(|due| !(due.kind.waits_while_paused() && paused(due.execution_id)));
        Ok((now, page(due, 0, limit)))
    }

    async fn forget_due(&self, met: Vec<Due>) -> Result<(), StoreError> {
        let mut tables = self.lock()?;
        for due in met {
            let active = tables.executions.get(&due.execution_id).is_some_and(|execution| execution.head.is_active());
            let key = (due.execution_id, due.kind.as_str(), due.key);
            // Set anew in between: that one is not the one that was met.
            if !active && tables.due.get(&key) == Some(&due) {
                tables.clear_due(key);
            }
        }
        Ok(())
    }

    async fn held(&self, session_id: SessionId) -> Result<Vec<CommandRow>, StoreError> {
        let tables = self.lock()?;
        let held = tables.held.iter().filter(|(holder, _)| *holder == session_id);
        Ok(held.filter_map(|(_, key)| tables.commands.get(key).cloned()).collect())
    }

    async fn unquiesced(&self, limit: u64) -> Result<Vec<HeadView>, StoreError> {
        let tables = self.lock()?;
        Ok(page(tables.unquiesced.iter().filter_map(|id| tables.view(*id)), 0, limit))
    }

    async fn open_session(&self, session: Session) -> Result<Vec<Session>, StoreError> {
        let now = (self.clock)();
        let mut tables = self.lock()?;
        let older = tables.sessions.values().filter(|life| {
            let id = life.session.session_id;
            life.session.worker_id == session.worker_id
                && id != session.session_id
                && (!life.closed && life.session.lease_until > now
                    || tables.held.iter().any(|(holder, _)| *holder == id))
        });
        let older = older.map(|life| life.session.clone()).collect();
        tables.sessions.insert(session.session_id, Life { session, closed: false });
        Ok(older)
    }

    async fn note_running(
        &self,
        session_id: SessionId,
        running: Vec<RunningNote>,
    ) -> Result<Vec<RunningNote>, StoreError> {
        let mut tables = self.lock()?;
        Ok(running.into_iter().filter(|note| tables.note_running(session_id, note)).collect())
    }

    async fn renew_sessions(&self, sessions: &[SessionId], lease_ms: u64) -> Result<Vec<SessionId>, StoreError> {
        let until = (self.clock)().plus_ms(lease_ms);
        let mut tables = self.lock()?;
        let mut unknown = Vec::new();
        for id in sessions {
            match tables.sessions.get_mut(id) {
                // A lease never gets shorter by being renewed.
                Some(life) if !life.closed => life.session.lease_until = life.session.lease_until.max(until),
                Some(_) | None => unknown.push(*id),
            }
        }
        Ok(unknown)
    }

    async fn expired_sessions(&self, limit: u64) -> Result<Vec<Session>, StoreError> {
        let now = (self.clock)();
        let tables = self.lock()?;
        let mut found = Vec::new();
        for life in tables.sessions.values().filter(|life| life.session.lease_until <= now) {
            let id = life.session.session_id;
            let mut rows =
                tables.held.iter().filter(|(holder, _)| *holder == id).filter_map(|(_, key)| tables.commands.get(key));
            let mut rows = rows.by_ref().peekable();
            if rows.peek().is_some() {
                let claims = rows.any(|row| row.state == CommandState::Claimed);
                found.push((!claims, life.session.lease_until, id, &life.session));
            }
        }
        found.sort_by_key(|(lost_only, until, id, _)| (*lost_only, *until, *id));
        Ok(page(found.into_iter().map(|(.., session)| session.clone()), 0, limit))
    }

    async fn sessions(&self) -> Result<Vec<Session>, StoreError> {
        let now = (self.clock)();
        let tables = self.lock()?;
        let alive = tables.sessions.values().filter(|life| !life.closed && life.session.lease_until > now);
        Ok(alive.map(|life| life.session.clone()).collect())
    }

    async fn close_session(&self, session_id: SessionId) -> Result<(), StoreError> {
        let now = (self.clock)();
        if let Some(life) = self.lock()?.sessions.get_mut(&session_id) {
            life.closed = true;
            life.session.lease_until = life.session.lease_until.min(now);
        }
        Ok(())
    }

    async fn open_cancellation(&self, cancellation: Cancellation) -> Result<(), StoreError> {
        self.lock()?.open_cancellation(cancellation);
        Ok(())
    }

    async fn cancel_chunk(
        &self,
        cancellation_id: CancellationId,
        pick: Pick,
        decide: ChunkDecide,
    ) -> Result<Chunk, StoreError> {
        let now = (self.clock)();
        self.lock()?.cancel_chunk(cancellation_id, &pick, decide, now)
    }

    async fn claim_cancellation(&self, cancellation_id: CancellationId) -> Result<bool, StoreError> {
        let now = (self.clock)();
        Ok(self.lock()?.claim_cancellation(cancellation_id, now))
    }

    async fn stop_cancellation(
        &self,
        cancellation_id: CancellationId,
        by: &str,
    ) -> Result<Option<Cancellation>, StoreError> {
        let now = (self.clock)();
        Ok(self.lock()?.stop_cancellation(cancellation_id, by, now))
    }

    async fn open_cancellations(&self) -> Result<Vec<Cancellation>, StoreError> {
        Ok(self.lock()?.cancellations.values().filter(|one| one.done_at.is_none()).cloned().collect())
    }

    async fn cancellations(&self, query: JobQuery) -> Result<Vec<Cancellation>, StoreError> {
        let tables = self.lock()?;
        let matches = |one: &&Cancellation| {
            (!query.open || one.done_at.is_none()) && query.before.is_none_or(|before| one.cancellation_id < before)
        };
        Ok(page(tables.cancellations.values().rev().filter(matches).cloned(), 0, query.limit))
    }

    async fn cancellation(&self, cancellation_id: CancellationId) -> Result<Option<Cancellation>, StoreError> {
        Ok(self.lock()?.cancellations.get(&cancellation_id).cloned())
    }

    async fn add_schedule(&self, schedule: Schedule) -> Result<bool, StoreError> {
        let mut tables = self.lock()?;
        let taken = tables.schedules.values().any(|known| known.name == schedule.name);
        if !taken {
            tables.schedules.insert(schedule.schedule_id, schedule);
        }
        Ok(!taken)
    }

    async fn schedules(&self) -> Result<Vec<Schedule>, StoreError> {
        let mut all: Vec<Schedule> = self.lock()?.schedules.values().cloned().collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    async fn due_schedules(
        &self,
        after: Option<DuePlace>,
        limit: u64,
    ) -> Result<(Timestamp, Vec<Schedule>), StoreError> {
        let now = (self.clock)();
        let tables = self.lock()?;
        let is_due = |schedule: &&Schedule| schedule.enabled && schedule.next_run_at.is_some_and(|at| at <= now);
        let place = |schedule: &&Schedule| (schedule.next_run_at, schedule.schedule_id);
        let after = after.map(|(at, schedule_id)| (Some(at), schedule_id));
        let mut due: Vec<&Schedule> =
            tables.schedules.values().filter(is_due).filter(|schedule| Some(place(schedule)) > after).collect();
        due.sort_by_key(place);
        Ok((now, page(due.into_iter().cloned(), 0, limit)))
    }

    async fn pass_tick(&self, tick: Tick, status: &str) -> Result<bool, StoreError> {
        let now = (self.clock)();
        let mut tables = self.lock()?;
        let waits = (&mut &*tables).waits_for(tick.schedule_id)? == Some(tick.at);
        if waits {
            tables.pass_tick(&tick, now, status);
        }
        Ok(waits)
    }

    async fn set_schedule(&self, schedule_id: ScheduleId, next: Option<Timestamp>) -> Result<bool, StoreError> {
        let now = (self.clock)();
        let mut tables = self.lock()?;
        let Some(schedule) = tables.schedules.get_mut(&schedule_id) else { return Ok(false) };
        schedule.enabled = next.is_some();
        schedule.next_run_at = next;
        schedule.updated_at = now;
        Ok(true)
    }

    async fn remove_schedule(&self, schedule_id: ScheduleId) -> Result<bool, StoreError> {
        Ok(self.lock()?.schedules.remove(&schedule_id).is_some())
    }

    async fn register(&self, resource: NewResource) -> Result<Resource, StoreError> {
        let created_at = (self.clock)();
        let mut tables = self.lock()?;
        if tables.catalog.contains_key(&resource.catalog_id) {
            return Err(StoreError::BadData(format!("catalog entry {} exists already", resource.catalog_id)));
        }
        let versions = tables.catalog.values().filter(|entry| entry.path == resource.path).map(|entry| entry.version);
        let entry = Resource {
            catalog_id: resource.catalog_id,
            version: versions.max().unwrap_or(0) + 1,
            path: resource.path,
            kind: resource.kind,
            content: resource.content,
            created_at,
        };
        tables.catalog.insert(entry.catalog_id, entry.clone());
        Ok(entry)
    }

    async fn resource(&self, key: ResourceKey) -> Result<Option<Resource>, StoreError> {
        let tables = self.lock()?;
        let entry = match &key {
            ResourceKey::Id(id) => tables.catalog.get(id),
            ResourceKey::Latest(path) => {
                tables.catalog.values().filter(|entry| entry.path == *path).max_by_key(|entry| entry.version)
            }
            ResourceKey::Version(path, version) => {
                tables.catalog.values().find(|entry| entry.path == *path && entry.version == *version)
            }
        };
        Ok(entry.cloned())
    }

    async fn resources(&self, kind: Option<&str>) -> Result<Vec<Resource>, StoreError> {
        let tables = self.lock()?;
        let entries = tables.catalog.values().rev();
        Ok(entries.filter(|entry| kind.is_none_or(|kind| entry.kind.eq_ignore_ascii_case(kind))).cloned().collect())
    }

    async fn answer(&self, key: &str) -> Result<Option<Value>, StoreError> {
        Ok(self.lock()?.answers.get(key).map(|(_, answer)| answer.clone()))
    }

    async fn keep_answer(&self, key: &str, answer: Value) -> Result<Value, StoreError> {
        let now = (self.clock)();
        Ok(self.lock()?.answers.entry(key.to_owned()).or_insert((now, answer)).1.clone())
    }

    async fn keep_log(&self, lines: Vec<LogLine>) -> Result<(), StoreError> {
        let mut tables = self.lock()?;
        for line in lines {
            if tables.executions.contains_key(&line.execution_id) {
                tables.logs.keep(line);
            }
        }
        Ok(())
    }

    async fn log(&self, query: LogQuery) -> Result<Vec<LogRow>, StoreError> {
        Ok(self.lock()?.logs.read(&query))
    }

    async fn credential(&self, name_or_id: &str) -> Result<Option<CredentialRow>, StoreError> {
        let tables = self.lock()?;
        let named = tables.credentials.get(name_or_id);
        let with_id = || {
            let id: CredentialId = name_or_id.parse().ok()?;
            tables.credentials.values().find(|row| row.id == id)
        };
        Ok(named.or_else(with_id).cloned())
    }

    async fn credentials(&self) -> Result<Vec<CredentialRow>, StoreError> {
        Ok(self.lock()?.credentials.values().cloned().collect())
    }

    async fn put_credential(&self, row: CredentialRow, key: &str) -> Result<bool, StoreError> {
        let mut tables = self.lock()?;
        let present = tables.credentials.get(&row.name).map(|present| (present.id, present.version));
        let follows = match present {
            Some(present) => present == (row.id, row.version - 1),
            None => row.version == 1 && tables.credentials.values().all(|other| other.id != row.id),
        };
        let follows = follows && tables.key_fingerprint.as_deref() == Some(key);
        if follows {
            tables.credentials.insert(Arc::clone(&row.name), row);
        }
        Ok(follows)
    }

    async fn delete_credential(&self, id: CredentialId) -> Result<bool, StoreError> {
        let mut tables = self.lock()?;
        let before = tables.credentials.len();
        tables.credentials.retain(|_, row| row.id != id);
        Ok(tables.credentials.len() < before)
    }

    async fn key_fingerprint(&self) -> Result<Option<String>, StoreError> {
        Ok(self.lock()?.key_fingerprint.clone())
    }

    async fn keep_key_fingerprint(&self, fingerprint: &str) -> Result<String, StoreError> {
        Ok(self.lock()?.key_fingerprint.get_or_insert_with(|| fingerprint.to_owned()).clone())
    }

    async fn reseal(&self, from: &str, to: &str, rows: Vec<Resealed>) -> Result<bool, StoreError> {
        let mut tables = self.lock()?;
        let present: BTreeSet<_> = tables.credentials.values().map(|row| (row.id, row.version)).collect();
        let opened: BTreeSet<_> = rows.iter().map(|row| (row.id, row.version)).collect();
        if tables.key_fingerprint.as_deref() != Some(from) || present != opened {
            return Ok(false);
        }
        for row in rows {
            if let Some(present) = tables.credentials.values_mut().find(|present| present.id == row.id) {
                present.sealed = row.sealed;
                present.version += 1;
            }
        }
        tables.keychain.clear();
        tables.key_fingerprint = Some(to.to_owned());
        Ok(true)
    }

    async fn keychain(&self, cache_key: &str) -> Result<Option<KeychainRow>, StoreError> {
        let now = (self.clock)();
        Ok(self.lock()?.keychain.get(cache_key).filter(|row| row.expires_at > now).cloned())
    }

    async fn keep_keychain(&self, row: KeychainRow, key: &str) -> Result<bool, StoreError> {
        let now = (self.clock)();
        let mut tables = self.lock()?;
        tables.keychain.retain(|_, kept| kept.expires_at > now);
        let known = tables.key_fingerprint.as_deref() == Some(key);
        if known {
            tables.keychain.insert(Arc::clone(&row.cache_key), row);
        }
        Ok(known)
    }

    async fn sql(&self, _sql: &str, _limits: SqlLimits) -> Result<SqlRows, StoreError> {
        Err(StoreError::Query("a store in memory has no SQL; use a store on disk".into()))
    }

    async fn validate(&self) -> Result<Vec<String>, StoreError> {
        let tables = self.lock()?;
        let mut wrong = Vec::new();
        for (id, execution) in &tables.executions {
            let head = &execution.head;
            if head.version != execution.events.len() as u64 {
                wrong.push(format!("execution {id}: version {} but {} events", head.version, execution.events.len()));
            }
            let terminal = execution.events.iter().filter(|recorded| recorded.event.is_terminal()).count();
            if terminal != usize::from(!head.is_active()) {
                wrong.push(format!("execution {id}: {} with {terminal} terminal events", head.status.as_str()));
            }
            let in_flight = tables.commands_of(*id).filter(|row| row.state.in_flight()).count();
            if in_flight as u64 != u64::from(head.in_flight) {
                wrong.push(format!("execution {id}: in_flight {} but {in_flight} commands in flight", head.in_flight));
            }
        }
        Ok(wrong)
    }

    async fn size(&self) -> Result<Vec<TableSize>, StoreError> {
        let tables = self.lock()?;
        let rows = [
            ("cancellation", tables.cancellations.len()),
            ("cancellation_front", tables.front.len()),
            ("catalog", tables.catalog.len()),
            ("command", tables.commands.len()),
            ("due", tables.due.len()),
            ("event", tables.event_ids.len()),
            ("execution", tables.executions.len()),
            ("idempotency", tables.answers.len()),
            ("log", tables.logs.len()),
            ("log_size", tables.logs.executions()),
            ("credential", tables.credentials.len()),
            ("keychain", tables.keychain.len()),
            ("setting", usize::from(tables.key_fingerprint.is_some())),
            ("result", tables.results.len()),
            ("runtime", tables.sessions.len()),
            ("schedule", tables.schedules.len()),
            ("snapshot", tables.executions.values().map(|execution| execution.snapshots.len()).sum()),
        ];
        let sizes = rows.map(|(table, rows)| TableSize { table: table.to_owned(), rows: rows as u64, bytes: None });
        Ok(sizes.into())
    }

    async fn prune(&self, before: Timestamp, dry_run: bool) -> Result<u64, StoreError> {
        let mut tables = self.lock()?;
        let gone = tables.prunable(before);
        if !dry_run {
            for id in &gone {
                tables.remove_execution(*id);
            }
            let gone: BTreeSet<ExecutionId> = gone.iter().copied().collect();
            tables.answers.retain(|_, (kept_at, _)| *kept_at >= before);
            tables.cancellations.retain(|_, one| match one.requested_execution_id {
                Some(requested) => one.done_at.is_none() || !gone.contains(&requested),
                None => one.done_at.is_none_or(|done_at| done_at >= before),
            });
        }
        Ok(gone.len() as u64)
    }

    async fn backup(&self, _path: &std::path::Path) -> Result<(), StoreError> {
        Err(StoreError::Unavailable("a store in memory has no file to copy".into()))
    }

    async fn close(&self) -> Result<(), StoreError> {
        *self.tables.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }
}
