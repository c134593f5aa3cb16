//! Transactions that hold heads: what they read under the locks, how they end, and how it is found out what became of
//! one whose answer was lost.
//!
//! Locking and reading are two statements, always: a statement that waits for a lock and reads goes on with what it saw
//! before it waited. Statements travel together, so that a batch costs two ways to the database and back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Client, ClientWrapper, Pool};
use futures_util::future::join;
use noetl_core::concurrency::KeyHolder;
use noetl_core::head::Head;
use noetl_core::id::{EventId, ExecutionId, ScheduleId};
use noetl_core::time::Timestamp;
use tokio::time::Instant;
use tokio_postgres::{Error, Row};

use super::Inner;
use super::error::{Failed, failed};
use super::write::{CommandKey, Stage, Wanted};
use super::{key, rows, schedule};
use crate::StoreError;

/// Longest wait for a database that does not answer, before a call gives up.
const AWAY_MAX: Duration = Duration::from_secs(10);
/// Longest wait for a database that took a commit and did not answer: giving up means not to know.
const UNKNOWN_MAX: Duration = Duration::from_secs(60);
/// First pause between two tries to connect.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What a lock waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// A head that is held stays out.
    None,
    /// For a moment.
    Short,
    /// As long as it takes.
    Long,
}

/// How long [`Patience::Short`] is: bystanders of the same batch wait with it.
const SHORT_MS: u32 = 500;

const LOCK_FREE: &str = "SELECT execution_id FROM noetl.execution WHERE execution_id = ANY($1) \
                         ORDER BY execution_id FOR NO KEY UPDATE SKIP LOCKED";
const LOCK: &str = "SELECT execution_id FROM noetl.execution WHERE execution_id = ANY($1) \
                    ORDER BY execution_id FOR NO KEY UPDATE";
const STATES: &str = "SELECT c.execution_id, c.command_id, c.epoch, c.state \
                      FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS n (execution_id, command_id, epoch) \
                      JOIN noetl.command c ON c.execution_id = n.execution_id AND c.command_id = n.command_id \
                      AND c.epoch = n.epoch";
/// The database's clock.
pub(super) const NOW: &str = "SELECT clock_timestamp()";

/// Why a transaction did not come to its end.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The database went away before it was asked to commit: nothing was written.
    Away(StoreError),
    /// The database refused something: nothing was written.
    Refused(Error),
    /// Something else stands in the way, which trying again does not change.
    Final(StoreError),
    /// The database went away while it committed.
    Unknown(StoreError),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match failed(&error) {
            Failed::Connection => Trouble::Away(error.into()),
            Failed::Passing | Failed::NoPartition | Failed::LockTimeout | Failed::Refused => Trouble::Refused(error),
        }
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Trouble::Away(error),
            StoreError::Full(_)
            | StoreError::Corrupt(_)
            | StoreError::Closed(_)
            | StoreError::BadData(_)
            | StoreError::Query(_) => Trouble::Final(error),
        }
    }
}

impl From<Trouble> for StoreError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Away(error) | Trouble::Final(error) | Trouble::Unknown(error) => error,
            Trouble::Refused(error) => error.into(),
        }
    }
}

/// Takes a connection; a database that is not there now may be there soon.
pub(super) async fn take(pool: &Pool) -> Result<Client, Trouble> {
    pool.get().await.map_err(|error| Trouble::from(StoreError::from(error)))
}

/// Pauses between tries, up to a deadline.
#[derive(Debug)]
pub(super) struct Pauses {
    deadline: Instant,
    next: Duration,
}

impl Pauses {
    /// For a database that is away.
    pub(super) fn away() -> Self {
        Pauses { deadline: Instant::now() + AWAY_MAX, next: PAUSE_FIRST }
    }

    fn unknown() -> Self {
        Pauses { deadline: Instant::now() + UNKNOWN_MAX, ..Pauses::away() }
    }

    /// Waits; returns false when it has been long enough.
    pub(super) async fn pause(&mut self) -> bool {
        if Instant::now() + self.next > self.deadline {
            return false;
        }
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(PAUSE_MAX);
        true
    }
}

/// The beginning of a transaction that writes. `key` is held until it has ended, one way or the other.
pub(super) fn begin(key: i64, patience: Patience) -> String {
    let wait = match patience {
        Patience::None | Patience::Long => String::new(),
        Patience::Short => format!("; SET LOCAL lock_timeout = {SHORT_MS}"),
    };
    format!("BEGIN; SELECT pg_advisory_xact_lock({key}){wait}")
}

/// Returns the statement that locks heads.
pub(super) fn lock(patience: Patience) -> &'static str {
    match patience {
        Patience::None => LOCK_FREE,
        Patience::Short | Patience::Long => LOCK,
    }
}

/// Returns the statement that reads heads.
pub(super) fn heads() -> String {
    format!("SELECT {} FROM noetl.execution WHERE execution_id = ANY($1)", rows::HEAD)
}

/// What a batch reads: the heads that it holds, and everything that guards look at.
pub(super) struct Look {
    pub(super) heads: Vec<Head>,
    pub(super) held: BTreeSet<ExecutionId>,
    pub(super) states: Vec<(CommandKey, noetl_core::head::CommandState)>,
    /// Schedules that are held, and the ticks that they wait for.
    pub(super) ticks: Vec<(ScheduleId, Option<Timestamp>)>,
    /// Concurrency keys that are held, and who has them.
    pub(super) keys: BTreeMap<Arc<str>, Vec<KeyHolder>>,
}

/// Begins a transaction, locks, and then reads, in one go.
pub(super) async fn look(
    inner: &Inner,
    client: &ClientWrapper,
    known_by: i64,
    wanted: &Wanted,
    patience: Patience,
) -> Result<Look, Trouble> {
    let lock = client.prepare_cached(lock(patience)).await?;
    let heads = client.prepare_cached(&heads()).await?;
    let states = client.prepare_cached(STATES).await?;
    let now = client.prepare_cached(NOW).await?;
    let begin = begin(known_by, patience);
    let held: Vec<i64> = wanted.lock.iter().map(|id| id.0).collect();
    let read: Vec<i64> = wanted.lock.union(&wanted.births).map(|id| id.0).collect();
    let (mut ids, mut commands, mut epochs) = (Vec::new(), Vec::new(), Vec::new());
    for (id, command_id, epoch) in &wanted.commands {
        ids.push(id.0);
        commands.push(command_id.0);
        epochs.push(i64::from(*epoch));
    }
    let (begun, (locked, (heads, (states, now)))) = join(
        client.batch_execute(&begin),
        join(
            async { if held.is_empty() { Ok(Vec::new()) } else { client.query(&lock, &[&held]).await } },
            join(
                client.query(&heads, &[&read]),
                join(
                    async {
                        if ids.is_empty() {
                            Ok(Vec::new())
                        } else {
                            client.query(&states, &[&ids, &commands, &epochs]).await
                        }
                    },
                    client.query_one(&now, &[]),
                ),
            ),
        ),
    )
    .await;
    begun?;
    let (locked, heads, states, now) = (locked?, heads?, states?, now?);
    inner.clock.heard(rows::moment(&now)?);
    // Few batches start something by the clock.
    let ticks = if wanted.ticks.is_empty() { Vec::new() } else { schedule::hold(client, &wanted.ticks).await? };
    let keys = if wanted.keys.is_empty() { BTreeMap::new() } else { key::hold(client, &wanted.keys).await? };
    Ok(Look {
        ticks,
        keys,
        heads: all(&heads, rows::head)?,
        held: locked.iter().map(rows::id).collect::<Result<_, _>>()?,
        states: all(&states, rows::state)?,
    })
}

/// Reads rows.
pub(super) fn all<T>(rows: &[Row], read: impl Fn(&Row) -> Result<T, StoreError>) -> Result<Vec<T>, StoreError> {
    rows.iter().map(read).collect()
}

/// Gives up a transaction; whether that works does not matter, a connection that is gone rolls back too.
pub(super) async fn give_up(client: &ClientWrapper) {
    client.batch_execute("ROLLBACK").await.ok();
}

/// Writes what a stage holds and commits, in one go.
pub(super) async fn commit(inner: &Inner, client: &ClientWrapper, stage: &Stage<'_>) -> Result<(), Trouble> {
    let outcome = stage.outcome();
    let (statement, values) = outcome.prepare(client).await?;
    for tick in stage.ticks() {
        schedule::go_on(client, tick).await?;
    }
    let (written, committed) = join(client.execute(&statement, &values), client.batch_execute("COMMIT")).await;
    ended(written.map(drop), committed)?;
    if stage.concerns_others() {
        inner.hints.give();
    }
    Ok(())
}

/// Says how a transaction ended, whose last statement and COMMIT were sent together.
pub(super) fn ended(written: Result<(), Error>, committed: Result<(), Error>) -> Result<(), Trouble> {
    for result in [written, committed] {
        match result {
            Ok(()) => {}
            Err(error) if failed(&error) == Failed::Connection => return Err(Trouble::Unknown(error.into())),
            // A COMMIT behind a statement that failed is a ROLLBACK.
            Err(error) => return Err(Trouble::Refused(error)),
        }
    }
    Ok(())
}

/// Finds out whether a transaction was committed whose answer was lost, by one of its events. `None`: the database
/// stays away.
pub(super) async fn was_committed(inner: &Inner, key: i64, witness: (ExecutionId, EventId)) -> Option<bool> {
    let mut pauses = Pauses::unknown();
    loop {
        match find(inner, key, witness).await {
            Ok(found) => return Some(found),
            Err(error) => tracing::warn!(%error, "what became of a commit is not known yet"),
        }
        if !pauses.pause().await {
            return None;
        }
    }
}

async fn find(inner: &Inner, key: i64, (execution_id, event_id): (ExecutionId, EventId)) -> Result<bool, StoreError> {
    let client = inner.writers.get().await?;
    // The old session may still be about to commit: it holds the key until it has.
    client.batch_execute(&begin(key, Patience::Long)).await?;
    let query = "SELECT 1 FROM noetl.event WHERE execution_id = $1 AND event_id = $2";
    let found = client.query_opt(query, &[&execution_id.0, &event_id.0]).await;
    give_up(&client).await;
    Ok(found?.is_some())
}

/// Returns the time of the store, asked anew.
pub(super) async fn now(inner: &Inner, client: &ClientWrapper) -> Result<Timestamp, StoreError> {
    let now = client.prepare_cached(NOW).await?;
    let row = client.query_one(&now, &[]).await?;
    Ok(inner.clock.heard(rows::moment(&row)?))
}
