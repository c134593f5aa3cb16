//! The store in PostgreSQL: the same tables for any number of equal servers.
//!
//! Heads are locked in the database, one transaction a batch; what decides whether an append lands is the same code as
//! in every other store. In reading order: `write`, a batch under its locks, and `columns`, how it is written; `transaction`, locks, commits and lost
//! answers; `batch` and `control`, what is written; `read`, what is asked.

mod batch;
mod clock;
mod columns;
mod connection;
mod control;
mod document;
mod error;
mod hints;
mod jobs;
mod key;
mod logs;
mod migrate;
mod node;
mod partition;
mod pending;
mod read;
mod rows;
mod schedule;
mod secret;
mod sql;
mod transaction;
mod types;
mod upkeep;
mod write;

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::{Client, Pool};
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
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::clock::StoreClock;
pub use self::connection::Address;
use self::hints::Hints;
pub use self::migrate::{SCHEMA_LATEST, Shape};
use self::node::{First, Numbers};
use self::partition::Partitions;
pub(crate) use self::write::Ready;
use crate::catalog::{NewResource, Resource, ResourceKey};
use crate::prepared::{Form, Prepared};
use crate::secret::{CredentialRow, KeychainRow, Resealed};
use crate::{
    Cancellation, Chunk, ChunkDecide, Clock, DuePlace, EventQuery, JobQuery, ListQuery, Loaded, LockedDecide, LogQuery,
    LogRow, Pick, RunningNote, Session, SqlLimits, SqlRows, Store, StoreError, TableSize,
};

/// Connections that write, when the options do not say.
const WRITERS: usize = 4;
/// Connections for the engine's questions, when the options do not say.
const READERS: usize = 6;
/// Connections for what takes long: people's queries, checks, removals.
const SLOW_READERS: usize = 2;
/// How often partitions of the log are made ahead.
const AHEAD_EVERY: Duration = Duration::from_secs(3_600);

/// How to open a store.
#[derive(Clone)]
pub struct PostgresOptions {
    /// Where the database is.
    pub address: Address,
    /// How many connections write.
    pub writers: usize,
    /// How many connections read.
    pub readers: usize,
    /// What becomes of tables that are older than this program.
    pub shape: Shape,
    /// Where the time comes from; `None` = the database's own clock.
    pub clock: Option<Clock>,
}

impl PostgresOptions {
    /// Returns the usual options for a database.
    pub fn new(address: Address) -> Self {
        PostgresOptions { address, writers: WRITERS, readers: READERS, shape: Shape::Newest, clock: None }
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What the store's tasks share.
struct Inner {
    address: Address,
    writers: Pool,
    readers: Pool,
    slow: Pool,
    clock: StoreClock,
    partitions: Partitions,
    hints: Arc<Hints>,
    numbers: Numbers,
    /// There is a role for people's queries.
    reader: bool,
}

/// The store in a database.
pub struct Postgres {
    inner: Arc<Inner>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("address", &self.inner.address).finish_non_exhaustive()
    }
}

impl Postgres {
    /// Opens the database; makes its tables, or brings them to the newest shape.
    pub async fn open(options: PostgresOptions) -> Result<Self, StoreError> {
        let PostgresOptions { address, writers, readers, shape, clock } = options;
        migrate::migrate(&address, shape).await?;
        let hints = Arc::new(Hints::new());
        let (writers, readers) = (address.quick(writers)?, address.quick(readers)?);
        let slow = address.slow(SLOW_READERS)?;
        let client = slow.get().await?;
        let reader = sql::has_role(&client).await?;
        drop(client);
        let (node, numbers) = First::take(&address).await?;
        let inner = Arc::new(Inner {
            address: address.clone(),
            writers,
            readers,
            slow,
            clock: StoreClock::new(clock),
            partitions: Partitions::default(),
            hints: Arc::clone(&hints),
            numbers,
            reader,
        });
        let client = inner.readers.get().await?;
        let now = transaction::now(&inner, &client).await?;
        inner.partitions.ahead(&client, now).await?;
        drop(client);
        let tasks = vec![
            tokio::spawn(hints::run(address, hints)),
            tokio::spawn(ahead(Arc::clone(&inner))),
            tokio::spawn(node.keep(Arc::clone(&inner))),
        ];
        Ok(Postgres { inner, tasks: Mutex::new(tasks) })
    }

    /// Returns a number that no other server of the database has, for ids. It changes when the session that holds it
    /// is lost; what was made under the one before is refused then.
    pub fn node(&self) -> watch::Receiver<u16> {
        self.inner.numbers.current()
    }

    /// Returns how many other servers use the database now.
    pub async fn others(&self) -> Result<u64, StoreError> {
        Ok(node::held(&*self.reader().await?).await?.saturating_sub(1))
    }

    async fn reader(&self) -> Result<Client, StoreError> {
        Ok(self.inner.readers.get().await?)
    }

    async fn writer(&self) -> Result<Client, StoreError> {
        Ok(self.inner.writers.get().await?)
    }

    /// Runs what must not be left half-way in a task of its own: a caller may stop waiting at any moment.
    async fn whole<T, F, R>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(Arc<Inner>) -> R,
        R: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let task = tokio::spawn(work(Arc::clone(&self.inner)));
        task.await.unwrap_or_else(|error| Err(StoreError::Unavailable(format!("it was given up: {error}"))))
    }

    fn end_tasks(&self) {
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.end_tasks();
    }
}

/// Makes partitions of the log before they are needed, until it is ended.
async fn ahead(inner: Arc<Inner>) {
    loop {
        tokio::time::sleep(AHEAD_EVERY).await;
        let made = async {
            let client = inner.readers.get().await?;
            inner.partitions.ahead(&client, inner.clock.now()).await
        };
        if let Err(error) = made.await {
            tracing::warn!(%error, "no partition of the log could be made ahead; trying again later");
        }
    }
}

#[async_trait]
impl Store for Postgres {
    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(self.inner.clock.now())
    }

    async fn append(&self, batch: Vec<Append>) -> Vec<Result<Verdict, StoreError>> {
        let numbers = &self.inner.numbers;
        batch::append(&self.inner, batch.into_iter().map(|append| write::ready(append, numbers))).await
    }

    fn prepare(&self, append: Append) -> Result<Prepared, StoreError> {
        write::ready(append, &self.inner.numbers).map(|ready| Prepared(Form::Postgres(Box::new(ready))))
    }

    async fn append_prepared(&self, batch: Vec<Prepared>) -> Vec<Result<Verdict, StoreError>> {
        let numbers = &self.inner.numbers;
        let ready = batch.into_iter().map(|prepared| match prepared.0 {
            // The number may have been lost since it was prepared.
            Form::Postgres(ready) => numbers.check(&ready.append).map(|()| *ready),
            form @ (Form::Plain(_) | Form::Sqlite(_)) => write::ready(Prepared(form).into_append(), numbers),
        });
        batch::append(&self.inner, ready).await
    }

    async fn locked(
        &self,
        execution_id: ExecutionId,
        tail_after: Option<u64>,
        decide: LockedDecide,
    ) -> Result<Option<Verdict>, StoreError> {
        self.whole(move |inner| async move { control::locked(&inner, execution_id, tail_after, decide).await }).await
    }

    async fn head(&self, execution_id: ExecutionId) -> Result<Option<Head>, StoreError> {
        read::head(&*self.reader().await?, execution_id).await
    }

    async fn view(&self, execution_id: ExecutionId) -> Result<Option<HeadView>, StoreError> {
        self.whole(move |inner| async move { read::view(&*inner.readers.get().await?, execution_id).await }).await
    }

    async fn key_holders(&self, key: &str) -> Result<Vec<KeyHolder>, StoreError> {
        let key = key.to_owned();
        self.whole(move |inner| async move { key::holders(&*inner.readers.get().await?, &key).await }).await
    }

    async fn load(&self, execution_id: ExecutionId) -> Result<Option<Loaded>, StoreError> {
        self.whole(move |inner| async move { read::load(&*inner.readers.get().await?, execution_id).await }).await
    }

    async fn events(&self, query: EventQuery) -> Result<(Vec<Recorded>, u64), StoreError> {
        self.whole(move |inner| async move { read::events(&*inner.readers.get().await?, &query).await }).await
    }

    async fn terminal_event(&self, execution_id: ExecutionId) -> Result<Option<Recorded>, StoreError> {
        read::terminal_event(&*self.reader().await?, execution_id).await
    }

    async fn result(&self, reference: &str) -> Result<Option<Arc<Value>>, StoreError> {
        read::result(&*self.reader().await?, reference).await
    }

    async fn execution_ids(&self, query: ListQuery) -> Result<Vec<ExecutionId>, StoreError> {
        self.whole(move |inner| async move { read::execution_ids(&*inner.readers.get().await?, &query).await }).await
    }

    async fn count_executions(&self, query: ListQuery) -> Result<u64, StoreError> {
        self.whole(move |inner| async move { read::count_executions(&*inner.readers.get().await?, &query).await }).await
    }

    async fn active_below(&self, execution_id: ExecutionId, limit: u64) -> Result<u64, StoreError> {
        read::active_below(&*self.reader().await?, execution_id, limit).await
    }

    async fn executions(&self, query: ListQuery) -> Result<Vec<Head>, StoreError> {
        self.whole(move |inner| async move { read::executions(&*inner.readers.get().await?, &query).await }).await
    }

    async fn candidates(
        &self,
        pools: &[Arc<str>],
        turns: &Turns,
        skip: u64,
        limit: u64,
    ) -> Result<Vec<CommandRow>, StoreError> {
        pending::candidates(&*self.reader().await?, pools, turns, skip, limit).await
    }

    async fn due(&self, limit: u64) -> Result<(Timestamp, Vec<Due>), StoreError> {
        let client = self.reader().await?;
        let now = transaction::now(&self.inner, &client).await?;
        Ok((now, read::due(&client, now, limit).await?))
    }

    async fn forget_due(&self, met: Vec<Due>) -> Result<(), StoreError> {
        control::forget_due(&*self.writer().await?, &met).await
    }

    async fn held(&self, session_id: SessionId) -> Result<Vec<CommandRow>, StoreError> {
        read::held(&*self.reader().await?, session_id).await
    }

    async fn unquiesced(&self, limit: u64) -> Result<Vec<HeadView>, StoreError> {
        self.whole(move |inner| async move { read::unquiesced(&*inner.readers.get().await?, limit).await }).await
    }

    async fn open_session(&self, session: Session) -> Result<Vec<Session>, StoreError> {
        control::open_session(&self.inner, &*self.writer().await?, &session).await
    }

    async fn note_running(
        &self,
        session_id: SessionId,
        running: Vec<RunningNote>,
    ) -> Result<Vec<RunningNote>, StoreError> {
        control::note_running(&*self.writer().await?, session_id, running).await
    }

    async fn renew_sessions(&self, sessions: &[SessionId], lease_ms: u64) -> Result<Vec<SessionId>, StoreError> {
        control::renew_sessions(&self.inner, &*self.writer().await?, sessions, lease_ms).await
    }

    async fn expired_sessions(&self, limit: u64) -> Result<Vec<Session>, StoreError> {
        let client = self.reader().await?;
        let now = transaction::now(&self.inner, &client).await?;
        read::expired_sessions(&client, now, limit).await
    }

    async fn sessions(&self) -> Result<Vec<Session>, StoreError> {
        let client = self.reader().await?;
        let now = transaction::now(&self.inner, &client).await?;
        read::sessions(&client, now).await
    }

    async fn close_session(&self, session_id: SessionId) -> Result<(), StoreError> {
        control::close_session(&self.inner, &*self.writer().await?, session_id).await
    }

    async fn open_cancellation(&self, cancellation: Cancellation) -> Result<(), StoreError> {
        jobs::open_cancellation(&*self.writer().await?, &cancellation).await?;
        self.inner.hints.give();
        Ok(())
    }

    async fn cancel_chunk(
        &self,
        cancellation_id: CancellationId,
        pick: Pick,
        decide: ChunkDecide,
    ) -> Result<Chunk, StoreError> {
        self.whole(move |inner| async move { jobs::cancel_chunk(&inner, cancellation_id, pick, decide).await }).await
    }

    async fn claim_cancellation(&self, cancellation_id: CancellationId) -> Result<bool, StoreError> {
        jobs::claim_cancellation(&self.inner, &*self.writer().await?, cancellation_id).await
    }

    async fn stop_cancellation(
        &self,
        cancellation_id: CancellationId,
        by: &str,
    ) -> Result<Option<Cancellation>, StoreError> {
        let by = by.to_owned();
        self.whole(move |inner| async move {
            let client = inner.writers.get().await?;
            jobs::stop_cancellation(&inner, &client, cancellation_id, &by).await
        })
        .await
    }

    async fn open_cancellations(&self) -> Result<Vec<Cancellation>, StoreError> {
        jobs::open_cancellations(&*self.reader().await?).await
    }

    async fn cancellations(&self, query: JobQuery) -> Result<Vec<Cancellation>, StoreError> {
        jobs::cancellations(&*self.reader().await?, &query).await
    }

    async fn cancellation(&self, cancellation_id: CancellationId) -> Result<Option<Cancellation>, StoreError> {
        jobs::cancellation(&*self.reader().await?, cancellation_id).await
    }

    async fn add_schedule(&self, schedule: Schedule) -> Result<bool, StoreError> {
        schedule::add(&*self.writer().await?, &schedule).await
    }

    async fn schedules(&self) -> Result<Vec<Schedule>, StoreError> {
        schedule::list(&*self.reader().await?).await
    }

    async fn due_schedules(
        &self,
        after: Option<DuePlace>,
        limit: u64,
    ) -> Result<(Timestamp, Vec<Schedule>), StoreError> {
        let client = self.reader().await?;
        let now = transaction::now(&self.inner, &client).await?;
        Ok((now, schedule::due(&client, now, after, limit).await?))
    }

    async fn pass_tick(&self, tick: Tick, status: &str) -> Result<bool, StoreError> {
        schedule::pass_tick(&self.inner, &*self.writer().await?, &tick, status).await
    }

    async fn set_schedule(&self, schedule_id: ScheduleId, next: Option<Timestamp>) -> Result<bool, StoreError> {
        schedule::set(&self.inner, &*self.writer().await?, schedule_id, next).await
    }

    async fn remove_schedule(&self, schedule_id: ScheduleId) -> Result<bool, StoreError> {
        schedule::remove(&*self.writer().await?, schedule_id).await
    }

    async fn register(&self, resource: NewResource) -> Result<Resource, StoreError> {
        control::register(&self.inner, &*self.writer().await?, resource).await
    }

    async fn resource(&self, key: ResourceKey) -> Result<Option<Resource>, StoreError> {
        read::resource(&*self.reader().await?, &key).await
    }

    async fn resources(&self, kind: Option<&str>) -> Result<Vec<Resource>, StoreError> {
        read::resources(&*self.reader().await?, kind).await
    }

    async fn answer(&self, key: &str) -> Result<Option<Value>, StoreError> {
        read::answer(&*self.reader().await?, key).await
    }

    async fn keep_answer(&self, key: &str, answer: Value) -> Result<Value, StoreError> {
        control::keep_answer(&self.inner, &*self.writer().await?, key, &answer).await
    }

    async fn keep_log(&self, lines: Vec<LogLine>) -> Result<(), StoreError> {
        self.whole(move |inner| async move { logs::keep_log(&*inner.writers.get().await?, &lines).await }).await
    }

    async fn log(&self, query: LogQuery) -> Result<Vec<LogRow>, StoreError> {
        logs::log(&*self.reader().await?, &query).await
    }

    async fn credential(&self, name_or_id: &str) -> Result<Option<CredentialRow>, StoreError> {
        secret::credential(&*self.reader().await?, name_or_id).await
    }

    async fn credentials(&self) -> Result<Vec<CredentialRow>, StoreError> {
        secret::credentials(&*self.reader().await?).await
    }

    async fn put_credential(&self, row: CredentialRow, key: &str) -> Result<bool, StoreError> {
        let key = key.to_owned();
        self.whole(move |inner| async move { secret::put_credential(&*inner.writers.get().await?, &row, &key).await })
            .await
    }

    async fn delete_credential(&self, id: CredentialId) -> Result<bool, StoreError> {
        secret::delete_credential(&*self.writer().await?, id).await
    }

    async fn key_fingerprint(&self) -> Result<Option<String>, StoreError> {
        secret::key_fingerprint(&*self.reader().await?).await
    }

    async fn keep_key_fingerprint(&self, fingerprint: &str) -> Result<String, StoreError> {
        secret::keep_key_fingerprint(&self.inner, &*self.writer().await?, fingerprint).await
    }

    async fn reseal(&self, from: &str, to: &str, rows: Vec<Resealed>) -> Result<bool, StoreError> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.whole(
            move |inner| async move { secret::reseal(&inner, &*inner.writers.get().await?, &from, &to, &rows).await },
        )
        .await
    }

    async fn keychain(&self, cache_key: &str) -> Result<Option<KeychainRow>, StoreError> {
        secret::keychain(&self.inner, &*self.reader().await?, cache_key).await
    }

    async fn keep_keychain(&self, row: KeychainRow, key: &str) -> Result<bool, StoreError> {
        let key = key.to_owned();
        self.whole(
            move |inner| async move { secret::keep_keychain(&inner, &*inner.writers.get().await?, &row, &key).await },
        )
        .await
    }

    async fn sql(&self, sql: &str, limits: SqlLimits) -> Result<SqlRows, StoreError> {
        let sql = sql.to_owned();
        self.whole(move |inner| async move { sql::run(&inner, &sql, limits).await }).await
    }

    async fn validate(&self) -> Result<Vec<String>, StoreError> {
        self.whole(|inner| async move { upkeep::validate(&*inner.slow.get().await?).await }).await
    }

    async fn size(&self) -> Result<Vec<TableSize>, StoreError> {
        upkeep::size(&*self.inner.slow.get().await?).await
    }

    async fn prune(&self, before: Timestamp, dry_run: bool) -> Result<u64, StoreError> {
        self.whole(move |inner| async move {
            let client = inner.slow.get().await?;
            if dry_run { upkeep::prunable(&client, before).await } else { upkeep::prune(&inner, &client, before).await }
        })
        .await
    }

    async fn backup(&self, _path: &Path) -> Result<(), StoreError> {
        Err(StoreError::Closed(
            "a PostgreSQL database is copied with its own tools, such as `pg_dump --schema=noetl`".into(),
        ))
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.end_tasks();
        self.inner.writers.close();
        self.inner.readers.close();
        self.inner.slow.close();
        Ok(())
    }

    fn hints(&self) -> Option<watch::Receiver<u64>> {
        Some(self.inner.hints.hear())
    }
}
