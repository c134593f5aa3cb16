//! What is written besides batches: decisions under a lock, sessions, the catalog, kept answers.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use deadpool_postgres::ClientWrapper;
use futures_util::future::{join, join3};
use noetl_core::append::{Due, Verdict};
use noetl_core::event::Recorded;
use noetl_core::head::HeadView;
use noetl_core::id::{EventId, ExecutionId, SessionId};
use noetl_core::time::Timestamp;
use serde_json::Value;

use super::transaction::{self, Patience, Pauses, Trouble, all};
use super::types::Moment;
use super::write::{Ready, Stage, Wanted, integer, json, ready};
use super::{Inner, batch, key, read, rows};
use crate::catalog::{NewResource, Resource};
use crate::landing;
use crate::{LockedDecide, LockedView, RunningNote, Session, StoreError};

/// How long the row of a worker's life is kept after its lease, when it holds nothing.
const SESSION_KEPT_MS: u64 = 24 * 60 * 60 * 1_000;
/// How often a registration is tried again when another one took its version.
const REGISTER_TRIES: u32 = 50;

/// Heads that are held, with their commands.
pub(super) struct Held {
    pub(super) now: Timestamp,
    pub(super) views: Vec<HeadView>,
    tail: Vec<Recorded>,
}

/// Begins a transaction, waits for the locks, and then reads. With `tail_after`, also the events of the only one.
pub(super) async fn hold(
    inner: &Inner,
    client: &ClientWrapper,
    begin: &str,
    ids: &[i64],
    tail_after: Option<u64>,
) -> Result<Held, Trouble> {
    let lock = client.prepare_cached(transaction::lock(Patience::Long)).await?;
    let heads = client.prepare_cached(&format!("{} ORDER BY execution_id", transaction::heads())).await?;
    let commands = client.prepare_cached(&read::commands_query()).await?;
    let tail = client.prepare_cached(&read::tail_query()).await?;
    let now = client.prepare_cached(transaction::NOW).await?;
    let events = async {
        match (tail_after, ids) {
            (Some(after), [id]) => client.query(&tail, &[id, &integer(after)]).await,
            (Some(_) | None, _) => Ok(Vec::new()),
        }
    };
    let (begun, (locked, ((heads, commands, tail), now))) = join(
        client.batch_execute(begin),
        join(
            client.query(&lock, &[&ids]),
            join(
                join3(client.query(&heads, &[&ids]), client.query(&commands, &[&ids]), events),
                client.query_one(&now, &[]),
            ),
        ),
    )
    .await;
    begun?;
    let (locked, heads, commands, tail, now) = (locked?, heads?, commands?, tail?, now?);
    // Born between lock and look: it is not held.
    let locked = all(&locked, rows::id)?;
    let mut views = read::views(&heads, &commands)?;
    views.retain(|view| locked.contains(&view.head.execution_id));
    Ok(Held { now: inner.clock.heard(rows::moment(&now)?), views, tail: all(&tail, rows::event)? })
}

/// Locks a head, reads, decides and writes, in one transaction.
pub(super) async fn locked(
    inner: &Inner,
    execution_id: ExecutionId,
    tail_after: Option<u64>,
    decide: LockedDecide,
) -> Result<Option<Verdict>, StoreError> {
    let mut decide = Some(decide);
    let mut pauses = Pauses::away();
    loop {
        match once(inner, execution_id, tail_after, &mut decide).await {
            Ok(verdict) => return Ok(verdict),
            // It has not been asked yet, so it can still be.
            Err(Trouble::Away(error)) if decide.is_some() => {
                if !pauses.pause().await {
                    return Err(error);
                }
            }
            Err(trouble) => return Err(trouble.into()),
        }
    }
}

async fn once(
    inner: &Inner,
    id: ExecutionId,
    tail_after: Option<u64>,
    decide: &mut Option<LockedDecide>,
) -> Result<Option<Verdict>, Trouble> {
    let client = transaction::take(&inner.writers).await?;
    let done = under_lock(inner, &client, id, tail_after, decide).await;
    match done {
        // The head was held all the time: nobody answers in its place, it is asked again later.
        Err(Trouble::Refused(error)) if super::error::failed(&error) == super::error::Failed::LockTimeout => {
            transaction::give_up(&client).await;
            Ok(Some(Verdict::Busy))
        }
        Err(trouble) => {
            transaction::give_up(&client).await;
            Err(trouble)
        }
        Ok(verdict) => Ok(verdict),
    }
}

async fn under_lock(
    inner: &Inner,
    client: &ClientWrapper,
    id: ExecutionId,
    tail_after: Option<u64>,
    decide: &mut Option<LockedDecide>,
) -> Result<Option<Verdict>, Trouble> {
    let begin = transaction::begin(id.0, Patience::Long);
    let Held { now, mut views, tail } = hold(inner, client, &begin, &[id.0], tail_after).await?;
    let Some(view) = views.pop() else {
        transaction::give_up(client).await;
        return Ok(None);
    };
    let locked = LockedView { now, view, tail };
    let version = locked.view.head.version;
    let Some(decide) = decide.take() else {
        return Err(Trouble::Final(StoreError::Unavailable("the decision was made already".into())));
    };
    let Some(append) = decided(|| decide(&locked))? else {
        transaction::give_up(client).await;
        return Ok(Some(Verdict::Landed { version }));
    };
    landing::decided_under_lock(&append, id)?;
    let ready = ready(append, &inner.numbers)?;
    let mut stage = staged(inner, client, vec![locked.view], std::slice::from_ref(&ready)).await?;
    let verdict = stage.append(&ready, true)?;
    let Verdict::Landed { .. } = verdict else {
        transaction::give_up(client).await;
        return Ok(Some(verdict));
    };
    settle(inner, client, &stage, id.0).await?;
    Ok(Some(verdict))
}

/// Commits; when the answer is lost, finds out.
async fn settle(inner: &Inner, client: &ClientWrapper, stage: &Stage<'_>, key: i64) -> Result<(), Trouble> {
    match transaction::commit(inner, client, stage).await {
        Err(Trouble::Unknown(error)) => known(inner, key, stage.witness(), error).await,
        other => other,
    }
}

pub(super) async fn known(
    inner: &Inner,
    key: i64,
    witness: Option<(ExecutionId, EventId)>,
    error: StoreError,
) -> Result<(), Trouble> {
    let Some(witness) = witness else { return Err(Trouble::Unknown(error)) };
    match transaction::was_committed(inner, key, witness).await {
        Some(true) => Ok(()),
        Some(false) => Err(Trouble::Away(error)),
        None => Err(Trouble::Unknown(error)),
    }
}

/// Asks a decision. One that panics is its maker's bug; nothing was written.
pub(super) fn decided<T>(decide: impl FnOnce() -> T) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(decide))
        .map_err(|_| StoreError::BadData("the decision panicked; nothing was written".into()))
}

/// Makes a stage of heads that are held, for appends that were decided on them.
pub(super) async fn staged<'a>(
    inner: &Inner,
    client: &ClientWrapper,
    views: Vec<HeadView>,
    appends: &'a [Ready],
) -> Result<Stage<'a>, Trouble> {
    let mut wanted = Wanted::default();
    appends.iter().for_each(|ready| wanted.add(&ready.append));
    let born: Vec<ExecutionId> = appends.iter().flat_map(|ready| batch::births(&ready.append)).collect();
    let mut states = Vec::new();
    let mut heads = Vec::with_capacity(views.len());
    for HeadView { head, commands } in views {
        states.extend(commands.iter().map(|row| ((row.execution_id, row.command_id, row.epoch), row.state)));
        heads.push(head);
    }
    let held = heads.iter().map(|head| head.execution_id).collect();
    if !born.is_empty() {
        let missing = inner.partitions.missing(born.iter().copied());
        if !missing.is_empty() {
            // With a connection of its own: this transaction may still be rolled back.
            let other = transaction::take(&inner.readers).await?;
            inner.partitions.make(&other, &missing).await?;
        }
        let ids: Vec<i64> = born.iter().map(|id| id.0).collect();
        let there = client.prepare_cached(&transaction::heads()).await?;
        heads.extend(all(&client.query(&there, &[&ids]).await?, rows::head)?);
    }
    let keys = if wanted.keys.is_empty() { BTreeMap::new() } else { key::hold(client, &wanted.keys).await? };
    Ok(Stage::new(heads, held, states).with_keys(keys))
}

/// Deletes obligations that were met, of executions that have ended.
pub(super) async fn forget_due(client: &ClientWrapper, met: &[Due]) -> Result<(), StoreError> {
    let statement = client
        .prepare_cached(
            // Set anew in between: that one is not the one that was met.
            "DELETE FROM noetl.due d USING unnest($1::bigint[], $2::text[], $3::bigint[], $4::timestamptz[], \
             $5::bigint[]) AS n (execution_id, kind, key, at, command_id) WHERE d.execution_id = n.execution_id \
             AND d.kind = n.kind AND d.key = n.key AND d.at = n.at \
             AND d.command_id IS NOT DISTINCT FROM n.command_id AND NOT EXISTS (SELECT 1 FROM noetl.execution e \
             WHERE e.execution_id = d.execution_id AND e.status = 'RUNNING')",
        )
        .await?;
    let ids: Vec<i64> = met.iter().map(|due| due.execution_id.0).collect();
    let kinds: Vec<&str> = met.iter().map(|due| due.kind.as_str()).collect();
    let keys: Vec<i64> = met.iter().map(|due| due.key).collect();
    let at: Vec<Moment> = met.iter().map(|due| Moment(due.at)).collect();
    let commands: Vec<Option<i64>> = met.iter().map(|due| due.command.map(|id| id.0)).collect();
    client.execute(&statement, &[&ids, &kinds, &keys, &at, &commands]).await?;
    Ok(())
}

pub(super) async fn open_session(
    inner: &Inner,
    client: &ClientWrapper,
    session: &Session,
) -> Result<Vec<Session>, StoreError> {
    let now = transaction::now(inner, client).await?;
    let older = format!(
        "SELECT {} FROM noetl.runtime r WHERE name = $1 AND runtime_id <> $2 AND ((status = 'ready' \
         AND lease_ends_at > $3) OR EXISTS (SELECT 1 FROM noetl.command c WHERE c.session_id = r.runtime_id \
         AND c.state IN ('claimed', 'lost'))) ORDER BY runtime_id",
        rows::SESSION
    );
    let older = client.prepare_cached(&older).await?;
    let old = client
        .prepare_cached(
            "DELETE FROM noetl.runtime r WHERE lease_ends_at < $1 \
             AND NOT EXISTS (SELECT 1 FROM noetl.command c WHERE c.session_id = r.runtime_id)",
        )
        .await?;
    let insert = client
        .prepare_cached(
            "INSERT INTO noetl.runtime (runtime_id, name, kind, status, capacity, pools, runtime, lease_ends_at, \
             heartbeat_at, started_at) VALUES ($1, $2, 'worker_pool', 'ready', $3, $4::text::json, $5::text::json, \
             $6, $7, $8) ON CONFLICT (runtime_id) DO UPDATE SET name = excluded.name, kind = excluded.kind, \
             status = excluded.status, capacity = excluded.capacity, pools = excluded.pools, \
             runtime = excluded.runtime, lease_ends_at = excluded.lease_ends_at, \
             heartbeat_at = excluded.heartbeat_at, started_at = excluded.started_at",
        )
        .await?;
    // Recorded first: of two lives that begin at once at least one sees the other.
    client
        .execute(
            &insert,
            &[
                &session.session_id.0,
                &session.worker_id.as_ref(),
                &i64::from(session.slots),
                &json(&session.pools),
                &json(&session.meta),
                &Moment(session.lease_until),
                &Moment(now),
                &Moment(session.started_at),
            ],
        )
        .await?;
    let older = client.query(&older, &[&session.worker_id.as_ref(), &session.session_id.0, &Moment(now)]).await?;
    let kept = i64::try_from(SESSION_KEPT_MS).unwrap_or(i64::MAX);
    client.execute(&old, &[&Moment(Timestamp(now.0.saturating_sub(kept)))]).await?;
    all(&older, rows::session)
}

pub(super) async fn renew_sessions(
    inner: &Inner,
    client: &ClientWrapper,
    sessions: &[SessionId],
    lease_ms: u64,
) -> Result<Vec<SessionId>, StoreError> {
    let now = transaction::now(inner, client).await?;
    let statement = client
        .prepare_cached(
            // A lease never gets shorter by being renewed. Rows are locked in order, as everywhere.
            "UPDATE noetl.runtime r SET lease_ends_at = greatest(lease_ends_at, $2), heartbeat_at = $3 \
             FROM (SELECT runtime_id FROM noetl.runtime WHERE runtime_id = ANY($1) AND status = 'ready' \
                   ORDER BY runtime_id FOR NO KEY UPDATE) n \
             WHERE r.runtime_id = n.runtime_id RETURNING r.runtime_id",
        )
        .await?;
    let ids: Vec<i64> = sessions.iter().map(|id| id.0).collect();
    let renewed = client.query(&statement, &[&ids, &Moment(now.plus_ms(lease_ms)), &Moment(now)]).await?;
    let renewed: Vec<i64> = all(&renewed, rows::id)?.into_iter().map(|id| id.0).collect();
    Ok(sessions.iter().filter(|id| !renewed.contains(&id.0)).copied().collect())
}

/// A row that an append is about to write is passed over: whoever waited here, holding other rows, could wait for ever.
pub(super) async fn note_running(
    client: &ClientWrapper,
    session_id: SessionId,
    mut running: Vec<RunningNote>,
) -> Result<Vec<RunningNote>, StoreError> {
    let statement = client
        .prepare_cached(
            "UPDATE noetl.command c SET running = n.running::json \
             FROM (SELECT c.execution_id, c.command_id, c.epoch, s.running \
                   FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::text[]) \
                        AS s (execution_id, command_id, epoch, running) \
                   JOIN noetl.command c USING (execution_id, command_id, epoch) \
                   WHERE c.session_id = $1 AND c.state IN ('claimed', 'lost') FOR NO KEY UPDATE OF c SKIP LOCKED) n \
             WHERE c.execution_id = n.execution_id AND c.command_id = n.command_id AND c.epoch = n.epoch \
             RETURNING c.execution_id, c.command_id, c.epoch",
        )
        .await?;
    let executions: Vec<i64> = running.iter().map(|note| note.execution_id.0).collect();
    let commands: Vec<i64> = running.iter().map(|note| note.command_id.0).collect();
    let epochs: Vec<i64> = running.iter().map(|note| note.epoch.into()).collect();
    let texts: Vec<Option<String>> = running.iter().map(|note| note.running.as_ref().map(json)).collect();
    let noted = client.query(&statement, &[&session_id.0, &executions, &commands, &epochs, &texts]).await?;
    let noted = all(&noted, rows::command_key)?;
    running.retain(|note| noted.contains(&(note.execution_id, note.command_id, note.epoch)));
    Ok(running)
}

pub(super) async fn close_session(
    inner: &Inner,
    client: &ClientWrapper,
    session_id: SessionId,
) -> Result<(), StoreError> {
    let now = transaction::now(inner, client).await?;
    let statement = client
        .prepare_cached(
            "UPDATE noetl.runtime SET status = 'closed', lease_ends_at = least(lease_ends_at, $2) \
             WHERE runtime_id = $1",
        )
        .await?;
    client.execute(&statement, &[&session_id.0, &Moment(now)]).await?;
    Ok(())
}

pub(super) async fn register(
    inner: &Inner,
    client: &ClientWrapper,
    resource: NewResource,
) -> Result<Resource, StoreError> {
    let now = transaction::now(inner, client).await?;
    let statement = format!(
        "INSERT INTO noetl.catalog (catalog_id, path, version, kind, content, created_at) \
         SELECT $1, $2, coalesce(max(version), 0) + 1, $3, $4, $5 FROM noetl.catalog WHERE path = $2 \
         ON CONFLICT (path, version) DO NOTHING RETURNING {}",
        rows::RESOURCE
    );
    let statement = client.prepare_cached(&statement).await?;
    let NewResource { catalog_id, path, kind, content } = resource;
    for _ in 0..REGISTER_TRIES {
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
            [&catalog_id.0, &path.as_ref(), &kind.as_ref(), &content.as_ref(), &Moment(now)];
        // No row: somebody registered the same path at the same moment, and was faster.
        if let Some(row) = client.query_opt(&statement, &values).await? {
            return rows::resource(&row);
        }
    }
    Err(StoreError::Unavailable(format!("`{path}` is registered by many at once")))
}

pub(super) async fn keep_answer(
    inner: &Inner,
    client: &ClientWrapper,
    key: &str,
    answer: &Value,
) -> Result<Value, StoreError> {
    let now = transaction::now(inner, client).await?;
    let statement = client
        .prepare_cached(
            "INSERT INTO noetl.idempotency (key, answer, created_at) VALUES ($1, $2::text::json, $3) \
             ON CONFLICT (key) DO NOTHING",
        )
        .await?;
    client.execute(&statement, &[&key, &json(answer), &Moment(now)]).await?;
    read::answer(client, key)
        .await?
        .ok_or_else(|| StoreError::Corrupt(format!("the answer to `{key}` was kept and is not there")))
}
