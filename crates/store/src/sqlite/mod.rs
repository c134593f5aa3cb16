//! The store in one SQLite file: nothing to install, one process at a time.
//!
//! One thread writes, and groups what waits into one transaction; a few threads read beside it. The writer is the lock
//! of every head.

mod checkpoint;
mod connection;
mod control;
mod encode;
mod error;
mod fault;
mod heads;
mod jobs;
mod logs;
mod migrate;
mod pending;
#[cfg(test)]
mod plans;
mod read;
mod readers;
mod rows;
mod schedule;
mod secret;
mod tables;
mod upkeep;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use noetl_core::append::{Append, Due, Verdict};
use noetl_core::concurrency::KeyHolder;
use noetl_core::event::Recorded;
use noetl_core::head::{CommandRow, Head, HeadView};
use noetl_core::id::{CancellationId, CredentialId, ExecutionId, ScheduleId, SessionId};
use noetl_core::log::LogLine;
use noetl_core::schedule::{Schedule, Tick};
use noetl_core::time::Timestamp;
use noetl_core::turns::Turns;
use serde_json::Value;

use self::checkpoint::Checkpointer;
pub(crate) use self::encode::Ready;
pub use self::fault::{Fault, FaultPoint};
pub use self::migrate::SCHEMA_LATEST;
use self::readers::Readers;
use self::tables::Tables;
use self::writer::Writer;
use crate::catalog::{NewResource, Resource, ResourceKey};
use crate::prepared::{Form, Prepared};
use crate::query::{self, QueryError, QueryLimits, QueryRows};
use crate::secret::{CredentialRow, KeychainRow, Resealed};
use crate::{
    Cancellation, Chunk, ChunkDecide, Clock, DuePlace, EventQuery, JobQuery, ListQuery, Loaded, LockedDecide, LogQuery,
    LogRow, Pick, RunningNote, Session, SqlLimits, SqlRows, Store, StoreError, TableSize,
};

/// Readers for the engine's questions, when the options do not say.
const READERS: usize = 4;
/// Readers for what takes long: people's queries, checks, copies.
const SLOW_READERS: usize = 2;

/// How to open a store.
#[derive(Clone)]
pub struct SqliteOptions {
    /// The file.
    pub path: PathBuf,
    /// How many threads read.
    pub readers: usize,
    /// Largest size of the file, in bytes; beyond it the store is full.
    pub max_bytes: Option<u64>,
    /// Where the time comes from.
    pub clock: Clock,
    /// What goes wrong, in tests.
    pub fault: Fault,
}

impl SqliteOptions {
    /// Returns the usual options for a file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        SqliteOptions {
            path: path.into(),
            readers: READERS,
            max_bytes: None,
            clock: Arc::new(system_time),
            fault: Fault::default(),
        }
    }
}

impl fmt::Debug for SqliteOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteOptions")
            .field("path", &self.path)
            .field("readers", &self.readers)
            .field("max_bytes", &self.max_bytes)
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}

/// The store in a file.
pub struct SqliteStore {
    path: PathBuf,
    clock: Clock,
    /// `None` when opened for reading only.
    writer: Option<Writer>,
    readers: Readers,
    slow: Readers,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens the file for reading and writing; makes it, or brings it to the newest shape.
    ///
    /// The caller sees to it that no other process does the same.
    pub fn open(options: SqliteOptions) -> Result<Self, StoreError> {
        // Looked at before anything could change it: a newer program's file stays as it is.
        migrate::inspect(&options.path)?;
        let mut connection = connection::writer(&options)?;
        let clock = rising(Arc::clone(&options.clock));
        migrate::migrate(&connection, &options.path, &clock)?;
        let checkpointer = Checkpointer::start(&mut connection, &options.path)?;
        let tables = Tables::new(connection, Arc::clone(&clock));
        let writer = Writer::start(tables, checkpointer, options.fault)?;
        Self::with(options.path, options.readers, clock, Some(writer))
    }

    /// Opens the file for reading only, while its owner is away or beside it.
    pub fn open_read_only(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        match migrate::inspect(&path)? {
            SCHEMA_LATEST => Self::with(path, 1, rising(Arc::new(system_time)), None),
            0 => Err(StoreError::Closed(format!("{} holds nothing yet", path.display()))),
            older => Err(StoreError::Closed(format!(
                "{} has the older schema {older}; start a server on it once to bring it up to date",
                path.display()
            ))),
        }
    }

    fn with(path: PathBuf, readers: usize, clock: Clock, writer: Option<Writer>) -> Result<Self, StoreError> {
        let readers = Readers::start("reader", readers, &path, |_| Ok(()))?;
        let slow = Readers::start("slow", SLOW_READERS, &path, query::register_functions)?;
        Ok(SqliteStore { path, clock, writer, readers, slow })
    }

    fn writer(&self) -> Result<&Writer, StoreError> {
        self.writer.as_ref().ok_or_else(|| StoreError::Closed("it was opened for reading only".into()))
    }

    /// Writes what was looked through and written out, so that the writer has less to do and no bad one gets near it.
    async fn write_batch(
        &self,
        batch: impl Iterator<Item = Result<Ready, StoreError>> + Send,
    ) -> Vec<Result<Verdict, StoreError>> {
        let mut answers: Vec<Option<Result<Verdict, StoreError>>> = Vec::new();
        let mut good = Vec::with_capacity(batch.size_hint().0);
        for ready in batch {
            match ready {
                Ok(ready) => {
                    good.push(ready);
                    answers.push(None);
                }
                Err(error) => answers.push(Some(Err(error))),
            }
        }
        let written = match self.writer() {
            Ok(writer) => writer.append(good).await,
            Err(error) => vec![Err(error); good.len()],
        };
        let mut written = written.into_iter();
        let missing = || Err(StoreError::Unavailable("the writer gave no answer".into()));
        answers.into_iter().map(|answer| answer.or_else(|| written.next()).unwrap_or_else(missing)).collect()
    }

    async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tables) -> Result<T, StoreError> + Send + 'static,
    {
        self.writer()?.task(work).await
    }
}

fn system_time() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Returns a clock that stands still when `clock` goes back.
fn rising(clock: Clock) -> Clock {
    let latest = AtomicI64::new(i64::MIN);
    Arc::new(move || {
        let now = clock().0;
        Timestamp(latest.fetch_max(now, Ordering::Relaxed).max(now))
    })
}

#[async_trait]
impl Store for SqliteStore {
    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok((self.clock)())
    }

    async fn append(&self, batch: Vec<Append>) -> Vec<Result<Verdict, StoreError>> {
        self.write_batch(batch.into_iter().map(encode::ready)).await
    }

    fn prepare(&self, append: Append) -> Result<Prepared, StoreError> {
        encode::ready(append).map(|ready| Prepared(Form::Sqlite(Box::new(ready))))
    }

    async fn append_prepared(&self, batch: Vec<Prepared>) -> Vec<Result<Verdict, StoreError>> {
        let ready = batch.into_iter().map(|prepared| match prepared.0 {
            Form::Sqlite(ready) => Ok(*ready),
            form @ (Form::Plain(_) | Form::Postgres(_)) => encode::ready(Prepared(form).into_append()),
        });
        self.write_batch(ready).await
    }

    async fn locked(
        &self,
        execution_id: ExecutionId,
        tail_after: Option<u64>,
        decide: LockedDecide,
    ) -> Result<Option<Verdict>, StoreError> {
        self.write(move |tables| tables.locked(execution_id, tail_after, decide)).await
    }

    async fn head(&self, execution_id: ExecutionId) -> Result<Option<Head>, StoreError> {
        self.readers.ask(move |connection| tables::head(connection, execution_id)).await
    }

    async fn view(&self, execution_id: ExecutionId) -> Result<Option<HeadView>, StoreError> {
        self.readers.ask(move |connection| read::view(connection, execution_id)).await
    }

    async fn key_holders(&self, key: &str) -> Result<Vec<KeyHolder>, StoreError> {
        let key = key.to_owned();
        self.readers.ask(move |connection| tables::key_holders(connection, &key)).await
    }

    async fn load(&self, execution_id: ExecutionId) -> Result<Option<Loaded>, StoreError> {
        self.readers.ask(move |connection| read::load(connection, execution_id)).await
    }

    async fn events(&self, query: EventQuery) -> Result<(Vec<Recorded>, u64), StoreError> {
        self.readers.ask(move |connection| read::events(connection, &query)).await
    }

    async fn terminal_event(&self, execution_id: ExecutionId) -> Result<Option<Recorded>, StoreError> {
        self.readers.ask(move |connection| read::terminal_event(connection, execution_id)).await
    }

    async fn result(&self, reference: &str) -> Result<Option<Arc<Value>>, StoreError> {
        let reference = reference.to_owned();
        self.readers.ask(move |connection| read::result(connection, &reference)).await
    }

    async fn execution_ids(&self, query: ListQuery) -> Result<Vec<ExecutionId>, StoreError> {
        self.readers.ask(move |connection| read::execution_ids(connection, &query)).await
    }

    async fn count_executions(&self, query: ListQuery) -> Result<u64, StoreError> {
        self.readers.ask(move |connection| read::count_executions(connection, &query)).await
    }

    async fn active_below(&self, execution_id: ExecutionId, limit: u64) -> Result<u64, StoreError> {
        self.readers.ask(move |connection| read::active_below(connection, execution_id, limit)).await
    }

    async fn executions(&self, query: ListQuery) -> Result<Vec<Head>, StoreError> {
        self.readers.ask(move |connection| read::executions(connection, &query)).await
    }

    async fn candidates(
        &self,
        pools: &[Arc<str>],
        turns: &Turns,
        skip: u64,
        limit: u64,
    ) -> Result<Vec<CommandRow>, StoreError> {
        let (pools, turns) = (pools.to_vec(), turns.clone());
        self.readers.ask(move |connection| pending::candidates(connection, &pools, &turns, skip, limit)).await
    }

    async fn due(&self, limit: u64) -> Result<(Timestamp, Vec<Due>), StoreError> {
        let now = (self.clock)();
        self.readers.ask(move |connection| Ok((now, read::due(connection, now, limit)?))).await
    }

    async fn forget_due(&self, met: Vec<Due>) -> Result<(), StoreError> {
        self.write(move |tables| tables.forget_due(&met)).await
    }

    async fn held(&self, session_id: SessionId) -> Result<Vec<CommandRow>, StoreError> {
        self.readers.ask(move |connection| read::held(connection, session_id)).await
    }

    async fn unquiesced(&self, limit: u64) -> Result<Vec<HeadView>, StoreError> {
        self.readers.ask(move |connection| read::unquiesced(connection, limit)).await
    }

    async fn open_session(&self, session: Session) -> Result<Vec<Session>, StoreError> {
        self.write(move |tables| tables.open_session(&session)).await
    }

    async fn note_running(
        &self,
        session_id: SessionId,
        running: Vec<RunningNote>,
    ) -> Result<Vec<RunningNote>, StoreError> {
        self.write(move |tables| tables.note_running(session_id, running)).await
    }

    async fn renew_sessions(&self, sessions: &[SessionId], lease_ms: u64) -> Result<Vec<SessionId>, StoreError> {
        let sessions = sessions.to_vec();
        self.write(move |tables| tables.renew_sessions(&sessions, lease_ms)).await
    }

    async fn expired_sessions(&self, limit: u64) -> Result<Vec<Session>, StoreError> {
        let now = (self.clock)();
        self.readers.ask(move |connection| read::expired_sessions(connection, now, limit)).await
    }

    async fn sessions(&self) -> Result<Vec<Session>, StoreError> {
        let now = (self.clock)();
        self.readers.ask(move |connection| read::sessions(connection, now)).await
    }

    async fn close_session(&self, session_id: SessionId) -> Result<(), StoreError> {
        self.write(move |tables| tables.close_session(session_id)).await
    }

    async fn open_cancellation(&self, cancellation: Cancellation) -> Result<(), StoreError> {
        self.write(move |tables| tables.open_cancellation(&cancellation)).await
    }

    async fn cancel_chunk(
        &self,
        cancellation_id: CancellationId,
        pick: Pick,
        decide: ChunkDecide,
    ) -> Result<Chunk, StoreError> {
        self.writer()?.step(move |tables| tables.cancel_chunk(cancellation_id, &pick, decide)).await
    }

    async fn claim_cancellation(&self, cancellation_id: CancellationId) -> Result<bool, StoreError> {
        self.write(move |tables| tables.claim_cancellation(cancellation_id)).await
    }

    async fn stop_cancellation(
        &self,
        cancellation_id: CancellationId,
        by: &str,
    ) -> Result<Option<Cancellation>, StoreError> {
        let by = by.to_owned();
        self.write(move |tables| tables.stop_cancellation(cancellation_id, &by)).await
    }

    async fn open_cancellations(&self) -> Result<Vec<Cancellation>, StoreError> {
        self.readers.ask(jobs::open_cancellations).await
    }

    async fn cancellations(&self, query: JobQuery) -> Result<Vec<Cancellation>, StoreError> {
        self.readers.ask(move |connection| jobs::cancellations(connection, &query)).await
    }

    async fn cancellation(&self, cancellation_id: CancellationId) -> Result<Option<Cancellation>, StoreError> {
        self.readers.ask(move |connection| jobs::cancellation(connection, cancellation_id)).await
    }

    async fn add_schedule(&self, schedule: Schedule) -> Result<bool, StoreError> {
        self.write(move |tables| tables.add_schedule(&schedule)).await
    }

    async fn schedules(&self) -> Result<Vec<Schedule>, StoreError> {
        self.readers.ask(schedule::all).await
    }

    async fn due_schedules(
        &self,
        after: Option<DuePlace>,
        limit: u64,
    ) -> Result<(Timestamp, Vec<Schedule>), StoreError> {
        let now = (self.clock)();
        self.readers.ask(move |connection| Ok((now, schedule::due(connection, now, after, limit)?))).await
    }

    async fn pass_tick(&self, tick: Tick, status: &str) -> Result<bool, StoreError> {
        let status = status.to_owned();
        self.write(move |tables| tables.pass_tick(&tick, &status)).await
    }

    async fn set_schedule(&self, schedule_id: ScheduleId, next: Option<Timestamp>) -> Result<bool, StoreError> {
        self.write(move |tables| tables.set_schedule(schedule_id, next)).await
    }

    async fn remove_schedule(&self, schedule_id: ScheduleId) -> Result<bool, StoreError> {
        self.write(move |tables| tables.remove_schedule(schedule_id)).await
    }

    async fn register(&self, resource: NewResource) -> Result<Resource, StoreError> {
        self.write(move |tables| tables.register(resource)).await
    }

    async fn resource(&self, key: ResourceKey) -> Result<Option<Resource>, StoreError> {
        self.readers.ask(move |connection| read::resource(connection, &key)).await
    }

    async fn resources(&self, kind: Option<&str>) -> Result<Vec<Resource>, StoreError> {
        let kind = kind.map(str::to_owned);
        self.readers.ask(move |connection| read::resources(connection, kind.as_deref())).await
    }

    async fn answer(&self, key: &str) -> Result<Option<Value>, StoreError> {
        let key = key.to_owned();
        self.readers.ask(move |connection| read::answer(connection, &key)).await
    }

    async fn keep_answer(&self, key: &str, answer: Value) -> Result<Value, StoreError> {
        let key = key.to_owned();
        self.write(move |tables| tables.keep_answer(&key, &answer)).await
    }

    async fn keep_log(&self, lines: Vec<LogLine>) -> Result<(), StoreError> {
        self.write(move |tables| tables.keep_log(&lines)).await
    }

    async fn log(&self, query: LogQuery) -> Result<Vec<LogRow>, StoreError> {
        self.readers.ask(move |connection| logs::log(connection, &query)).await
    }

    async fn credential(&self, name_or_id: &str) -> Result<Option<CredentialRow>, StoreError> {
        let name_or_id = name_or_id.to_owned();
        self.readers.ask(move |connection| secret::credential(connection, &name_or_id)).await
    }

    async fn credentials(&self) -> Result<Vec<CredentialRow>, StoreError> {
        self.readers.ask(secret::credentials).await
    }

    async fn put_credential(&self, row: CredentialRow, key: &str) -> Result<bool, StoreError> {
        let key = key.to_owned();
        self.write(move |tables| tables.put_credential(&row, &key)).await
    }

    async fn delete_credential(&self, id: CredentialId) -> Result<bool, StoreError> {
        self.write(move |tables| tables.delete_credential(id)).await
    }

    async fn key_fingerprint(&self) -> Result<Option<String>, StoreError> {
        self.readers.ask(secret::key_fingerprint).await
    }

    async fn keep_key_fingerprint(&self, fingerprint: &str) -> Result<String, StoreError> {
        let fingerprint = fingerprint.to_owned();
        self.write(move |tables| tables.keep_key_fingerprint(&fingerprint)).await
    }

    async fn reseal(&self, from: &str, to: &str, rows: Vec<Resealed>) -> Result<bool, StoreError> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.write(move |tables| tables.reseal(&from, &to, &rows)).await
    }

    async fn keychain(&self, cache_key: &str) -> Result<Option<KeychainRow>, StoreError> {
        let (cache_key, now) = (cache_key.to_owned(), (self.clock)());
        self.readers.ask(move |connection| secret::keychain(connection, &cache_key, now)).await
    }

    async fn keep_keychain(&self, row: KeychainRow, key: &str) -> Result<bool, StoreError> {
        let key = key.to_owned();
        self.write(move |tables| tables.keep_keychain(&row, &key)).await
    }

    async fn sql(&self, sql: &str, limits: SqlLimits) -> Result<SqlRows, StoreError> {
        let (sql, now) = (sql.to_owned(), (self.clock)());
        let limits =
            QueryLimits { timeout: Duration::from_millis(limits.ms), max_rows: limits.rows, ..QueryLimits::default() };
        let asked = self.slow.ask_alone(move |connection| {
            query::run(connection, &sql, now, &limits).map_err(|error| match error {
                QueryError::Store(error) => StoreError::from(error),
                wrong => StoreError::Query(wrong.to_string()),
            })
        });
        let QueryRows { columns, rows, truncated } = asked.await?;
        Ok(SqlRows { columns, rows, truncated })
    }

    async fn validate(&self) -> Result<Vec<String>, StoreError> {
        self.slow.ask(upkeep::validate).await
    }

    async fn size(&self) -> Result<Vec<TableSize>, StoreError> {
        self.slow.ask(upkeep::size).await
    }

    async fn prune(&self, before: Timestamp, dry_run: bool) -> Result<u64, StoreError> {
        if dry_run {
            return self.slow.ask(move |connection| upkeep::prunable(connection, before)).await;
        }
        let mut removed = 0;
        let mut last = ExecutionId(i64::MIN);
        loop {
            let roots = self.slow.ask(move |connection| upkeep::prunable_roots(connection, before, last)).await?;
            let Some(end) = roots.last() else { break };
            last = *end;
            let mut left: Arc<[ExecutionId]> = roots.into();
            // A few at a time: other work takes turns with it.
            while !left.is_empty() {
                let some = Arc::clone(&left);
                let (gone, through) = self.writer()?.step(move |tables| tables.prune_some(&some, before)).await?;
                removed += gone;
                left = left[through..].into();
            }
        }
        self.write(move |tables| tables.prune_answers(before)).await?;
        Ok(removed)
    }

    async fn backup(&self, path: &Path) -> Result<(), StoreError> {
        let path = path.to_owned();
        self.slow.ask(move |connection| upkeep::copy_to(connection, &path)).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        // The readers first: one in the middle of a question would keep the log from being emptied.
        self.readers.stop();
        self.slow.stop();
        match &self.writer {
            Some(writer) => writer.close().await,
            None => Ok(()),
        }
    }
}
