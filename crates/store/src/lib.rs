//! The stores of noetl: what one promise list says, kept by a memory store, by SQLite and by PostgreSQL.
//!
//! The trait speaks the core's types. Which promises a store makes stands in `conformance`, which every store passes.

pub mod catalog;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod landing;
mod listing;
pub mod memory;
pub mod payload;
mod pending;
pub mod postgres;
mod prepared;
pub mod query;
pub mod secret;
pub mod sqlite;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use noetl_core::append::{Append, Due, DueKind, Verdict};
use noetl_core::concurrency::KeyHolder;
use noetl_core::control::selection::Selection;
use noetl_core::event::Recorded;
use noetl_core::head::{CommandRow, Head, HeadView, RunningTool, Status};
use noetl_core::id::{CancellationId, CommandId, CredentialId, EventId, ExecutionId, ScheduleId, SessionId};
use noetl_core::labels::Labels;
use noetl_core::log::LogLine;
use noetl_core::playbook::CancelMode;
use noetl_core::schedule::{Schedule, Tick};
use noetl_core::time::Timestamp;
use noetl_core::turns::Turns;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use prepared::Prepared;

/// Where a store gets the time from.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Where a schedule stands among those whose tick has come: the tick, and which.
pub type DuePlace = (Timestamp, ScheduleId);

/// Why a store could not do its work. Refusals are verdicts, not errors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The disk is full, or a configured size limit is reached. Nothing was written.
    #[error("the store is full: {0}")]
    Full(String),
    /// Bytes are not what was written.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// Another process owns the directory, or a newer version wrote it.
    #[error("the store can not be opened: {0}")]
    Closed(String),
    /// The append itself is malformed; nothing of it was written.
    #[error("the store refuses the data: {0}")]
    BadData(String),
    /// A query of a person is wrong or too expensive.
    #[error("{0}")]
    Query(String),
    /// Anything else; it may work again later.
    #[error("the store failed: {0}")]
    Unavailable(String),
}

/// What stands under the lock of one head.
#[derive(Debug)]
pub struct LockedView {
    /// The store's clock.
    pub now: Timestamp,
    /// Head and live commands, read after the lock was held.
    pub view: HeadView,
    /// Events after the version asked for.
    pub tail: Vec<Recorded>,
}

/// A pure decision under a lock. What it returns is written in the same transaction; its guard is `Locked`.
pub type LockedDecide = Box<dyn FnOnce(&LockedView) -> Option<Append> + Send>;

/// The same for many heads in turn; the id says through which requested or selected execution a head is reached.
pub type ChunkDecide = Box<dyn FnMut(&LockedView, ExecutionId) -> Visit + Send>;

/// What is made of one head on a walk.
#[derive(Debug)]
pub struct Visit {
    /// Written in the same transaction.
    pub append: Option<Append>,
    /// Its children are visited too.
    pub walks_on: bool,
}

/// A visit that walks on, whatever it writes.
impl From<Option<Append>> for Visit {
    fn from(append: Option<Append>) -> Self {
        Visit { append, walks_on: true }
    }
}

/// Whom one step of a job visits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pick {
    /// Up to so many ids that stand on the front.
    Front(usize),
    /// A page of what the job's selection found.
    Page {
        /// What was found, the highest id first.
        ids: Vec<ExecutionId>,
        /// The [`Cancellation::cursor`] below which it was looked for. Is it another one by now, nobody is visited.
        from: ExecutionId,
        /// The cursor afterwards; `None` when nothing more matches.
        to: Option<ExecutionId>,
    },
}

/// What is needed to fold an execution: a snapshot and the events after it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The head, read in the same transaction.
    pub head: Head,
    /// The newest snapshot: version and state.
    pub snapshot: Option<(u64, Arc<Value>)>,
    /// Every event after the snapshot, or every event.
    pub tail: Vec<Recorded>,
}

/// Which events to read. All conditions hold together.
#[derive(Debug, Clone, Default)]
pub struct EventQuery {
    /// Whose.
    pub execution_id: Option<ExecutionId>,
    /// Only later ones of that execution.
    pub after_version: Option<u64>,
    /// Only those with a higher id.
    pub since_event_id: Option<EventId>,
    /// Only this event type (wire name).
    pub event_type: Option<String>,
    /// Newest first.
    pub newest_first: bool,
    /// How many to skip.
    pub offset: u64,
    /// How many at most.
    pub limit: u64,
}

/// Which printed lines to read. All conditions hold together; oldest first.
#[derive(Debug, Clone)]
pub struct LogQuery {
    /// Whose.
    pub execution_id: ExecutionId,
    /// Only lines of this step.
    pub step: Option<String>,
    /// Only lines that came after this one; 0 = all.
    pub after: u64,
    /// How many at most.
    pub limit: u64,
    /// The newest of them instead of the oldest; in the same order.
    pub newest: bool,
}

/// A printed line with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRow {
    /// Rises with every line, from 1.
    pub log_id: u64,
    /// The line.
    pub line: LogLine,
}

/// Which executions to list. All conditions hold together; newest first.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Any of these; empty = all.
    pub status: Vec<Status>,
    /// Catalog path, `*` matches anything.
    pub path: Option<String>,
    /// Direct children of this one.
    pub parent: Option<ExecutionId>,
    /// Members of this family.
    pub root: Option<ExecutionId>,
    /// They have these labels.
    pub labels: Labels,
    /// Started before.
    pub started_before: Option<Timestamp>,
    /// No event since.
    pub idle_since: Option<Timestamp>,
    /// Terminal, but not quiesced.
    pub unquiesced: bool,
    /// Cancelled by this cascade or job.
    pub job: Option<CancellationId>,
    /// Running ones first.
    pub active_first: bool,
    /// Only ids below this one, for paging without skipping rows.
    pub before: Option<ExecutionId>,
    /// How many to skip.
    pub offset: u64,
    /// How many at most.
    pub limit: u64,
}

/// A worker's session: one life of one worker. The lease is the session's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Which life.
    pub session_id: SessionId,
    /// The worker's name.
    pub worker_id: Arc<str>,
    /// How many commands it runs at once.
    pub slots: u32,
    /// Which pools it serves.
    pub pools: Vec<Arc<str>>,
    /// Until when it is believed alive.
    pub lease_until: Timestamp,
    /// When it began.
    pub started_at: Timestamp,
    /// Host, pid and version, for people.
    pub meta: Value,
}

/// What a worker runs of one attempt that it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningNote {
    /// Whose.
    pub execution_id: ExecutionId,
    /// Which.
    pub command_id: CommandId,
    /// Attempt.
    pub epoch: u32,
    /// What; `None`: nothing that has run for a while.
    pub running: Option<RunningTool>,
}

/// What is done to every member of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FamilyAction {
    /// It is cancelled.
    #[default]
    Cancel,
    /// It is paused.
    Pause,
    /// It goes on.
    Resume,
}

impl FamilyAction {
    /// Returns the word in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            FamilyAction::Cancel => "cancel",
            FamilyAction::Pause => "pause",
            FamilyAction::Resume => "resume",
        }
    }

    /// Returns the action that `word` names.
    pub fn from_word(word: &str) -> Option<Self> {
        [FamilyAction::Cancel, FamilyAction::Pause, FamilyAction::Resume].into_iter().find(|one| one.as_str() == word)
    }
}

/// How long after its last step a job is left to whoever drives it, in milliseconds.
pub const DRIVE_CLAIM_MS: u64 = 1_250;

/// A cancellation, a pause or a resumption that takes more than one commit: a cascade, or a job over a selection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cancellation {
    /// Which.
    pub cancellation_id: CancellationId,
    /// What is done to each member.
    pub action: FamilyAction,
    /// The execution that the request named; `None` for a selection.
    pub requested_execution_id: Option<ExecutionId>,
    /// What is cancelled, when no single execution was named.
    pub selection: Option<Selection>,
    /// Descendants too.
    pub cascade: bool,
    /// Free text.
    pub reason: Option<String>,
    /// The authenticated identity, else `api`, `cli`, …
    pub cancelled_by: String,
    /// Self-declared.
    pub requested_by: Option<String>,
    /// Where the request came from.
    pub remote: Option<String>,
    /// An explicit mode holds for all; without one each execution's own.
    pub mode: Option<CancelMode>,
    /// Grace of an interrupt, in milliseconds, when the request says.
    pub grace_ms: Option<u64>,
    /// The request's `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// Most executions visited per second.
    pub rate: Option<u32>,
    /// How many the selection matched when it was made.
    pub selected: Option<u64>,
    /// Only executions below this id have still to be looked for; `None` when the selection is used up.
    pub cursor: Option<ExecutionId>,
    /// How many it has cancelled.
    pub cancelled: u64,
    /// How many ids it has visited.
    pub visited: u64,
    /// How many of them were left as they are, with all their descendants: they had ended or moved
    /// on, or are shielded.
    pub spared: u64,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// Until when it is left to whoever drives it; renewed by every step.
    pub claimed_until: Option<Timestamp>,
    /// When it was told to select nothing more.
    pub stopped_at: Option<Timestamp>,
    /// By whom.
    pub stopped_by: Option<String>,
    /// When nothing was left to visit.
    pub done_at: Option<Timestamp>,
}

impl Cancellation {
    /// Returns the ids that it begins with.
    pub(crate) fn first_front(&self) -> Vec<ExecutionId> {
        let listed = self.selection.iter().flat_map(|selection| &selection.ids);
        self.requested_execution_id.iter().chain(listed).copied().collect()
    }
}

/// One step of a cascade or job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Heads visited in this step, in the order in which they were visited.
    pub visited: Vec<ExecutionId>,
    /// Something stands on the front.
    pub front: bool,
    /// Below which the selection has still to be looked for.
    pub cursor: Option<ExecutionId>,
    /// Nothing is left to visit.
    pub done: bool,
}

/// Which jobs to list; newest first.
#[derive(Debug, Clone, Default)]
pub struct JobQuery {
    /// Only those with something left to visit.
    pub open: bool,
    /// Only ids below this one.
    pub before: Option<CancellationId>,
    /// How many at most.
    pub limit: u64,
}

/// Limits of a person's query.
#[derive(Debug, Clone, Copy)]
pub struct SqlLimits {
    /// Most rows.
    pub rows: usize,
    /// Longest time, in milliseconds.
    pub ms: u64,
}

/// The words of obligations that wait while their execution is paused, as a list in SQL.
pub(crate) fn waiting_while_paused() -> String {
    let kinds = DueKind::ALL.into_iter().filter(|kind| kind.waits_while_paused());
    kinds.map(|kind| format!("'{}'", kind.as_str())).collect::<Vec<_>>().join(", ")
}

/// What a person's query gave.
#[derive(Debug, Clone, Default)]
pub struct SqlRows {
    /// Column names.
    pub columns: Vec<String>,
    /// Values, row by row.
    pub rows: Vec<Vec<Value>>,
    /// There would have been more rows.
    pub truncated: bool,
}

/// The promises every store makes, see PROTOCOL in the documentation.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// Returns the store's clock.
    async fn now(&self) -> Result<Timestamp, StoreError>;

    /// Writes a batch as one transaction in which each append lands, conflicts or is refused on its own.
    ///
    /// Durable when it returns. Answers stand in the order of the batch. If the batch cannot be committed as a
    /// whole, each append is tried alone and only the failing one gets the error.
    async fn append(&self, batch: Vec<Append>) -> Vec<Result<Verdict, StoreError>>;

    /// Looks an append through and writes it out as far as that can be done outside of the transaction, so that whoever
    /// decides does it at the same time as others, and not one after the other in front of the writer.
    ///
    /// # Errors
    /// What [`Store::append`] would say of it.
    fn prepare(&self, append: Append) -> Result<Prepared, StoreError> {
        Ok(Prepared::plain(append))
    }

    /// The same as [`Store::append`], of what has been prepared.
    async fn append_prepared(&self, batch: Vec<Prepared>) -> Vec<Result<Verdict, StoreError>> {
        self.append(batch.into_iter().map(Prepared::into_append).collect()).await
    }

    /// Locks a head, then reads, decides and writes, in one transaction. It can not conflict.
    ///
    /// `Ok(None)`: no such execution. `tail_after`: also read the events after this version.
    async fn locked(
        &self,
        execution_id: ExecutionId,
        tail_after: Option<u64>,
        decide: LockedDecide,
    ) -> Result<Option<Verdict>, StoreError>;

    /// Returns the head.
    async fn head(&self, execution_id: ExecutionId) -> Result<Option<Head>, StoreError>;

    /// Returns the head and its live commands, as of one moment.
    async fn view(&self, execution_id: ExecutionId) -> Result<Option<HeadView>, StoreError>;

    /// Returns the executions that have a concurrency key: those with it that have not quiesced, oldest first.
    async fn key_holders(&self, key: &str) -> Result<Vec<KeyHolder>, StoreError>;

    /// Returns what is needed to fold an execution.
    async fn load(&self, execution_id: ExecutionId) -> Result<Option<Loaded>, StoreError>;

    /// Returns events, and how many match without `limit` and `offset`.
    async fn events(&self, query: EventQuery) -> Result<(Vec<Recorded>, u64), StoreError>;

    /// Returns the terminal event of an execution.
    async fn terminal_event(&self, execution_id: ExecutionId) -> Result<Option<Recorded>, StoreError>;

    /// Returns a large result.
    async fn result(&self, reference: &str) -> Result<Option<Arc<Value>>, StoreError>;

    /// Lists executions.
    async fn executions(&self, query: ListQuery) -> Result<Vec<Head>, StoreError>;

    /// Returns the ids of what [`Store::executions`] would list: much less to read.
    async fn execution_ids(&self, query: ListQuery) -> Result<Vec<ExecutionId>, StoreError>;

    /// Counts what [`Store::executions`] would list.
    async fn count_executions(&self, query: ListQuery) -> Result<u64, StoreError>;

    /// Counts the active executions among the first `limit` descendants of one that are come to, at any depth.
    async fn active_below(&self, execution_id: ExecutionId, limit: u64) -> Result<u64, StoreError>;

    /// Returns pending commands of `pools`, skipping `skip`: an unlocked read, so a hint.
    ///
    /// Highest priority first. In one priority first one command of each execution, in the order of `turns`, then a
    /// second one of each, and so on; the commands of one execution by age. Pools are merged in that same order.
    async fn candidates(
        &self,
        pools: &[Arc<str>],
        turns: &Turns,
        skip: u64,
        limit: u64,
    ) -> Result<Vec<CommandRow>, StoreError>;

    /// Returns the store's clock and obligations that are due, oldest first.
    async fn due(&self, limit: u64) -> Result<(Timestamp, Vec<Due>), StoreError>;

    /// Deletes obligations of terminal executions without an event.
    async fn forget_due(&self, met: Vec<Due>) -> Result<(), StoreError>;

    /// Returns commands held by a session, claimed and lost ones.
    async fn held(&self, session_id: SessionId) -> Result<Vec<CommandRow>, StoreError>;

    /// Notes what a worker says it runs of commands that its session holds. No event, and no part of the state: what is
    /// not held by it (any more) is passed over, and a row that is being written may be. Returns what was noted.
    async fn note_running(
        &self,
        session_id: SessionId,
        running: Vec<RunningNote>,
    ) -> Result<Vec<RunningNote>, StoreError>;

    /// Returns terminal executions that have commands held by workers, for pushing cancels.
    async fn unquiesced(&self, limit: u64) -> Result<Vec<HeadView>, StoreError>;

    /// Records a session, and returns older sessions under the same worker name that still have a lease or commands.
    async fn open_session(&self, session: Session) -> Result<Vec<Session>, StoreError>;

    /// Renews leases until `now + lease_ms`; returns those sessions that are not known (any more).
    async fn renew_sessions(&self, sessions: &[SessionId], lease_ms: u64) -> Result<Vec<SessionId>, StoreError>;

    /// Returns sessions whose lease has run out by the store's clock and that still hold commands.
    async fn expired_sessions(&self, limit: u64) -> Result<Vec<Session>, StoreError>;

    /// Returns every session with a lease, for people.
    async fn sessions(&self) -> Result<Vec<Session>, StoreError>;

    /// Ends a session's lease at once.
    async fn close_session(&self, session_id: SessionId) -> Result<(), StoreError>;

    /// Records a cascade or a job durably, with the requested execution or the listed ones as its first ids to visit.
    async fn open_cancellation(&self, cancellation: Cancellation) -> Result<(), StoreError>;

    /// Visits ids of a cascade or job, in one transaction: fences each (lock, decide, write), then, in a read that
    /// starts after the fences are held, puts the children of those that are walked on from on the front, and ticks the
    /// visited off. A page may be visited in part; the cursor says how far it came.
    ///
    /// `decide` is called for every head visited, ended ones too; the walk passes through those untouched.
    async fn cancel_chunk(
        &self,
        cancellation_id: CancellationId,
        pick: Pick,
        decide: ChunkDecide,
    ) -> Result<Chunk, StoreError>;

    /// Takes a job over from whoever drove it, if it has not moved for [`DRIVE_CLAIM_MS`]; `false` when it has, or is
    /// done.
    async fn claim_cancellation(&self, cancellation_id: CancellationId) -> Result<bool, StoreError>;

    /// Lets a job select nothing more. The families that it has begun are finished, so that no descendant of what was
    /// cancelled with `cascade` is left over. Returns the job; `None` when there is none. Is it a cascade, done, or
    /// stopped already, nothing changes.
    async fn stop_cancellation(
        &self,
        cancellation_id: CancellationId,
        by: &str,
    ) -> Result<Option<Cancellation>, StoreError>;

    /// Returns cascades and jobs with something left to visit.
    async fn open_cancellations(&self) -> Result<Vec<Cancellation>, StoreError>;

    /// Lists cascades and jobs.
    async fn cancellations(&self, query: JobQuery) -> Result<Vec<Cancellation>, StoreError>;

    /// Returns one cascade.
    async fn cancellation(&self, cancellation_id: CancellationId) -> Result<Option<Cancellation>, StoreError>;

    /// Adds a schedule; `false` when another one has its name.
    async fn add_schedule(&self, schedule: Schedule) -> Result<bool, StoreError>;

    /// Returns every schedule, by name.
    async fn schedules(&self) -> Result<Vec<Schedule>, StoreError>;

    /// Returns the store's clock and schedules whose tick has come, oldest first; `after` is the place of the last one
    /// of the page before.
    async fn due_schedules(
        &self,
        after: Option<DuePlace>,
        limit: u64,
    ) -> Result<(Timestamp, Vec<Schedule>), StoreError>;

    /// Moves a schedule on from a tick that starts nothing, and says why; `false` when it does not wait for it.
    async fn pass_tick(&self, tick: Tick, status: &str) -> Result<bool, StoreError>;

    /// Lets a schedule wait for `next`, or pauses it with `None`; `false` when there is none.
    async fn set_schedule(&self, schedule_id: ScheduleId, next: Option<Timestamp>) -> Result<bool, StoreError>;

    /// Removes a schedule; `false` when there is none. What it has started goes on.
    async fn remove_schedule(&self, schedule_id: ScheduleId) -> Result<bool, StoreError>;

    /// Adds a version of a playbook; the version is the highest of its path plus one.
    async fn register(&self, resource: catalog::NewResource) -> Result<catalog::Resource, StoreError>;

    /// Returns one catalog entry.
    async fn resource(&self, key: catalog::ResourceKey) -> Result<Option<catalog::Resource>, StoreError>;

    /// Lists the catalog, newest first, of one kind (any case) or all.
    async fn resources(&self, kind: Option<&str>) -> Result<Vec<catalog::Resource>, StoreError>;

    /// Returns the answer given to an idempotency key.
    async fn answer(&self, key: &str) -> Result<Option<Value>, StoreError>;

    /// Keeps the answer given to an idempotency key, unless one is kept already; returns the one that is kept.
    async fn keep_answer(&self, key: &str, answer: Value) -> Result<Value, StoreError>;

    /// Keeps lines that tools printed, in their order. A line that is here already changes nothing; lines of executions
    /// that are not here (any more) are dropped, and so is what an execution prints beyond its limit, behind a mark.
    async fn keep_log(&self, lines: Vec<LogLine>) -> Result<(), StoreError>;

    /// Returns lines that tools printed.
    async fn log(&self, query: LogQuery) -> Result<Vec<LogRow>, StoreError>;

    /// Returns the credential under a name, else the one with that id.
    async fn credential(&self, name_or_id: &str) -> Result<Option<secret::CredentialRow>, StoreError>;

    /// Lists the credentials by name.
    async fn credentials(&self) -> Result<Vec<secret::CredentialRow>, StoreError>;

    /// Writes a credential that stands at the version before, or with version 1 one that is not there; returns whether
    /// that was so, and `key` is the fingerprint that is kept. A server that has not heard of a new key writes nothing.
    async fn put_credential(&self, row: secret::CredentialRow, key: &str) -> Result<bool, StoreError>;

    /// Removes a credential; returns whether it was there.
    async fn delete_credential(&self, id: CredentialId) -> Result<bool, StoreError>;

    /// Returns the fingerprint of the key that everything secret is sealed with; `None` before the first one.
    async fn key_fingerprint(&self) -> Result<Option<String>, StoreError>;

    /// Keeps the fingerprint of the first key, unless one is kept already; returns the one that is kept.
    async fn keep_key_fingerprint(&self, fingerprint: &str) -> Result<String, StoreError>;

    /// Puts every credential under another key, in one transaction, and forgets the kept keychain entries; returns
    /// whether it did. It does not if the fingerprint is not `from`, or `rows` are not all there is as it stands.
    async fn reseal(&self, from: &str, to: &str, rows: Vec<secret::Resealed>) -> Result<bool, StoreError>;

    /// Returns a kept keychain entry that has not expired by the store's clock.
    async fn keychain(&self, cache_key: &str) -> Result<Option<secret::KeychainRow>, StoreError>;

    /// Keeps a keychain entry in the place of an older one, and forgets those that have expired; returns whether `key`
    /// is the fingerprint that is kept. Else it keeps nothing.
    async fn keep_keychain(&self, row: secret::KeychainRow, key: &str) -> Result<bool, StoreError>;

    /// Runs a person's read-only query.
    async fn sql(&self, sql: &str, limits: SqlLimits) -> Result<SqlRows, StoreError>;

    /// Checks the tables and the bytes; returns what is wrong.
    async fn validate(&self) -> Result<Vec<String>, StoreError>;

    /// Returns rows and bytes per table.
    async fn size(&self) -> Result<Vec<TableSize>, StoreError>;

    /// Removes executions that ended and quiesced before `before`, with their logs and results; returns how many. With
    /// `dry_run` only counts. Members of a family go together, when all of them have ended and quiesced. Answers kept
    /// before `before` go too.
    async fn prune(&self, before: Timestamp, dry_run: bool) -> Result<u64, StoreError>;

    /// Writes a consistent copy to `path` while running.
    async fn backup(&self, path: &std::path::Path) -> Result<(), StoreError>;

    /// Flushes and closes; later calls fail.
    async fn close(&self) -> Result<(), StoreError>;

    /// Returns what changes when another server wrote something that others may want to look at. Such a hint may be
    /// lost; the tables are the truth. `None`: nobody else writes.
    fn hints(&self) -> Option<tokio::sync::watch::Receiver<u64>> {
        None
    }
}

/// How much a table holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSize {
    /// Its name, without the schema.
    pub table: String,
    /// Rows.
    pub rows: u64,
    /// Bytes on disk, as far as the store can tell.
    pub bytes: Option<u64>,
}
