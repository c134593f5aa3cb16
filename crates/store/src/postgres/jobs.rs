//! Cascades and jobs: their rows, the ids they have still to visit, and the steps that visit them.

use std::collections::BTreeMap;

use deadpool_postgres::ClientWrapper;
use futures_util::future::{join, join3};
use noetl_core::append::Verdict;
use noetl_core::id::{CancellationId, ExecutionId};
use noetl_core::time::Timestamp;
use tokio_postgres::Row;

use super::control::{Held, decided, hold, known, staged};
use super::read::{ask, first};
use super::transaction::{self, Patience, Trouble, all};
use super::types::Moment;
use super::write::{integer, json, ready};
use super::{Inner, rows};
use crate::{Cancellation, Chunk, ChunkDecide, DRIVE_CLAIM_MS, JobQuery, LockedView, Pick, StoreError, Visit, landing};

/// Most heads in one step; others wait for them.
const CHUNK_MAX: usize = 500;

/// What a step has visited.
#[derive(Default)]
struct Visited {
    /// Taken off the front, each with the one it was reached through.
    ticked: Vec<(i64, i64)>,
    /// Those whose children are visited too.
    walked: Vec<(i64, i64)>,
    cancelled: u64,
    spared: u64,
    /// The cursor afterwards.
    cursor: Option<ExecutionId>,
}

/// One step of a cascade or job: fence, then look.
pub(super) async fn cancel_chunk(
    inner: &Inner,
    id: CancellationId,
    pick: Pick,
    decide: ChunkDecide,
) -> Result<Chunk, StoreError> {
    let client = inner.writers.get().await?;
    let stepped = step(inner, &client, id, pick, decide).await;
    if stepped.is_err() {
        transaction::give_up(&client).await;
    }
    Ok(stepped?)
}

async fn step(
    inner: &Inner,
    client: &ClientWrapper,
    id: CancellationId,
    pick: Pick,
    mut decide: ChunkDecide,
) -> Result<Chunk, Trouble> {
    let taken = "SELECT cursor FROM noetl.cancellation WHERE cancellation_id = $1 FOR UPDATE";
    let taken = client.prepare_cached(taken).await?;
    let front = "SELECT execution_id, requested_execution_id FROM noetl.cancellation_front \
                 WHERE cancellation_id = $1 ORDER BY execution_id LIMIT $2";
    let front = client.prepare_cached(front).await?;
    let most = match &pick {
        Pick::Front(max) => integer((*max).min(CHUNK_MAX) as u64),
        Pick::Page { .. } => 0,
    };
    // Whoever takes the same step at the same time waits here, and then sees what is left.
    let begin = transaction::begin(id.0, Patience::Long);
    let (begun, (taken, front)) = join(
        client.batch_execute(&begin),
        join(client.query_opt(&taken, &[&id.0]), client.query(&front, &[&id.0, &most])),
    )
    .await;
    begun?;
    let cursor: Option<i64> = match taken? {
        Some(row) => row.try_get(0)?,
        None => None,
    };
    let mut visited = Visited { cursor: cursor.map(ExecutionId), ..Visited::default() };
    match pick {
        Pick::Front(_) => {
            for row in front? {
                visited.ticked.push((row.try_get(0)?, row.try_get(1)?));
            }
        }
        // Somebody else looked there already, or the job was stopped.
        Pick::Page { from, .. } if cursor != Some(from.0) => {}
        Pick::Page { mut ids, to, .. } => {
            visited.cursor = to;
            if ids.len() > CHUNK_MAX {
                ids.truncate(CHUNK_MAX);
                visited.cursor = ids.last().copied();
            }
            visited.ticked = ids.iter().map(|id| (id.0, id.0)).collect();
        }
    }
    let ids: Vec<i64> = visited.ticked.iter().map(|(member, _)| *member).collect();
    let through: BTreeMap<i64, i64> = visited.ticked.iter().copied().collect();
    let Held { now, views, .. } = hold(inner, client, "SELECT 1", &ids, None).await?;
    let mut chunk = Chunk::default();
    let mut appends = Vec::new();
    let mut fenced = Vec::new();
    for view in views {
        let member = view.head.execution_id;
        let through = through.get(&member.0).map_or(member, |through| ExecutionId(*through));
        chunk.visited.push(member);
        let locked = LockedView { now, view, tail: Vec::new() };
        let Visit { append, walks_on } = decided(|| decide(&locked, through))?;
        if walks_on {
            visited.walked.push((member.0, through.0));
        }
        match append {
            None => visited.spared += u64::from(!walks_on),
            Some(append) => {
                landing::decided_under_lock(&append, member)?;
                appends.push(ready(append, &inner.numbers)?);
            }
        }
        fenced.push(locked.view);
    }
    visited.cancelled = appends.len() as u64;
    let mut stage = staged(inner, client, fenced, &appends).await?;
    for ready in &appends {
        match stage.append(ready, true)? {
            Verdict::Landed { .. } => {}
            stayed @ (Verdict::Conflict | Verdict::Refused(_) | Verdict::Busy) => {
                return Err(landing::stayed_under_lock(ready.append.execution_id, &stayed).into());
            }
        }
    }
    if !stage.is_empty() {
        let outcome = stage.outcome();
        let (statement, values) = outcome.prepare(client).await?;
        client.execute(&statement, &values).await?;
    }
    tick_off(client, id, &visited, &mut chunk, now).await?;
    match transaction::ended(Ok(()), client.batch_execute("COMMIT").await) {
        Ok(()) => {}
        // Doing it again changes nothing; but the caller is to be told what was visited.
        Err(Trouble::Unknown(error)) => known(inner, id.0, stage.witness(), error).await?,
        Err(trouble) => return Err(trouble),
    }
    if !stage.is_empty() {
        inner.hints.give();
    }
    Ok(chunk)
}

/// Puts the children of what is fenced on the front, ticks off what was visited, and says what is left.
async fn tick_off(
    client: &ClientWrapper,
    id: CancellationId,
    visited: &Visited,
    chunk: &mut Chunk,
    now: Timestamp,
) -> Result<(), Trouble> {
    // Only now, with every fence up: a child born between a look and a fence would escape. A listed one that is a child
    // too is reached as a child: stopping the job must not leave it behind.
    let children = "INSERT INTO noetl.cancellation_front (cancellation_id, execution_id, requested_execution_id, \
                    root_execution_id) SELECT $1, e.execution_id, w.through, e.root_execution_id \
                    FROM unnest($2::bigint[], $3::bigint[]) AS w (member, through) \
                    JOIN noetl.execution e ON e.parent_execution_id = w.member \
                    ON CONFLICT (cancellation_id, execution_id) \
                    DO UPDATE SET requested_execution_id = excluded.requested_execution_id";
    let children = client.prepare_cached(children).await?;
    let tick = "DELETE FROM noetl.cancellation_front WHERE cancellation_id = $1 AND execution_id = ANY($2)";
    let tick = client.prepare_cached(tick).await?;
    let count = "UPDATE noetl.cancellation c SET cancelled = cancelled + $2, visited = visited + $3, \
                 spared = spared + $4, cursor = $5, claimed_until = $6, \
                 done_at = CASE WHEN $5::bigint IS NOT NULL OR f.front THEN done_at ELSE coalesce(done_at, $7) END \
                 FROM (SELECT EXISTS (SELECT 1 FROM noetl.cancellation_front WHERE cancellation_id = $1) AS front) f \
                 WHERE cancellation_id = $1 RETURNING f.front";
    let count = client.prepare_cached(count).await?;
    let (ticked, (walked, through)): (Vec<i64>, (Vec<i64>, Vec<i64>)) =
        (visited.ticked.iter().map(|(member, _)| *member).collect(), visited.walked.iter().copied().unzip());
    let (cancelled, spared) = (integer(visited.cancelled), integer(visited.spared));
    let (seen, cursor) = (integer(chunk.visited.len() as u64), visited.cursor.map(|id| id.0));
    let (now, claimed_until) = (Moment(now), Moment(now.plus_ms(DRIVE_CLAIM_MS)));
    let counts: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
        [&id.0, &cancelled, &seen, &spared, &cursor, &claimed_until, &now];
    let (added, ticked, counted) = join3(
        client.execute(&children, &[&id.0, &walked, &through]),
        client.execute(&tick, &[&id.0, &ticked]),
        client.query_opt(&count, &counts),
    )
    .await;
    added?;
    ticked?;
    // One that was never opened has nothing left either.
    chunk.front = counted?.map_or(Ok(false), |row: Row| row.try_get(0))?;
    chunk.cursor = visited.cursor;
    chunk.done = !chunk.front && chunk.cursor.is_none();
    Ok(())
}

pub(super) async fn open_cancellation(client: &ClientWrapper, cancellation: &Cancellation) -> Result<(), StoreError> {
    let statement = client
        .prepare_cached(
            "WITH new AS (INSERT INTO noetl.cancellation (cancellation_id, requested_execution_id, \
             root_execution_id, selection, cascade, reason, cancelled_by, requested_by, remote, mode, grace_ms, \
             idempotency_key, rate, selected, cursor, cancelled, visited, spared, created_at, claimed_until, \
             stopped_at, stopped_by, done_at, action) VALUES ($1, $2, coalesce((SELECT root_execution_id \
             FROM noetl.execution WHERE execution_id = $2), $2), $3::text::json, $4, $5, $6, $7, $8, $9, $10, $11, \
             $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $24) \
             ON CONFLICT DO NOTHING RETURNING cancellation_id) \
             INSERT INTO noetl.cancellation_front (cancellation_id, execution_id, requested_execution_id, \
             root_execution_id) SELECT DISTINCT n.cancellation_id, f.id, f.id, coalesce(e.root_execution_id, f.id) \
             FROM new n CROSS JOIN unnest($23::bigint[]) AS f (id) \
             LEFT JOIN noetl.execution e ON e.execution_id = f.id",
        )
        .await?;
    let front: Vec<i64> = cancellation.first_front().iter().map(|id| id.0).collect();
    client
        .execute(
            &statement,
            &[
                &cancellation.cancellation_id.0,
                &cancellation.requested_execution_id.map(|id| id.0),
                &cancellation.selection.as_ref().map(json),
                &cancellation.cascade,
                &cancellation.reason,
                &cancellation.cancelled_by,
                &cancellation.requested_by,
                &cancellation.remote,
                &cancellation.mode.map(rows::mode_word),
                &cancellation.grace_ms.map(integer),
                &cancellation.idempotency_key,
                &cancellation.rate.map(i64::from),
                &cancellation.selected.map(integer),
                &cancellation.cursor.map(|id| id.0),
                &integer(cancellation.cancelled),
                &integer(cancellation.visited),
                &integer(cancellation.spared),
                &Moment(cancellation.created_at),
                &cancellation.claimed_until.map(Moment),
                &cancellation.stopped_at.map(Moment),
                &cancellation.stopped_by,
                &cancellation.done_at.map(Moment),
                &front,
                &cancellation.action.as_str(),
            ],
        )
        .await?;
    Ok(())
}

pub(super) async fn claim_cancellation(
    inner: &Inner,
    client: &ClientWrapper,
    id: CancellationId,
) -> Result<bool, StoreError> {
    let now = transaction::now(inner, client).await?;
    let statement = client
        .prepare_cached(
            "UPDATE noetl.cancellation SET claimed_until = $3 WHERE cancellation_id = $1 AND done_at IS NULL \
             AND (claimed_until IS NULL OR claimed_until < $2)",
        )
        .await?;
    let until = Moment(now.plus_ms(DRIVE_CLAIM_MS));
    Ok(client.execute(&statement, &[&id.0, &Moment(now), &until]).await? > 0)
}

pub(super) async fn stop_cancellation(
    inner: &Inner,
    client: &ClientWrapper,
    id: CancellationId,
    by: &str,
) -> Result<Option<Cancellation>, StoreError> {
    let now = Moment(transaction::now(inner, client).await?);
    let stopped = stopping(client, id, by, now).await;
    if stopped.is_err() {
        transaction::give_up(client).await;
    }
    stopped?;
    cancellation(client, id).await
}

/// In statements of their own: a step that was under way has added children to the front when the row is free.
async fn stopping(client: &ClientWrapper, id: CancellationId, by: &str, now: Moment) -> Result<(), StoreError> {
    client.batch_execute(&transaction::begin(id.0, Patience::Long)).await?;
    let stop = "UPDATE noetl.cancellation SET stopped_at = $2, stopped_by = $3, cursor = NULL \
                WHERE cancellation_id = $1 AND selection IS NOT NULL AND done_at IS NULL AND stopped_at IS NULL";
    if client.execute(stop, &[&id.0, &now, &by]).await? > 0 {
        // What was not begun; the descendants of what was begun stay.
        let front = "DELETE FROM noetl.cancellation_front WHERE cancellation_id = $1 \
                     AND execution_id = requested_execution_id";
        client.execute(front, &[&id.0]).await?;
        let done = "UPDATE noetl.cancellation SET done_at = $2 WHERE cancellation_id = $1 \
                    AND NOT EXISTS (SELECT 1 FROM noetl.cancellation_front WHERE cancellation_id = $1)";
        client.execute(done, &[&id.0, &now]).await?;
    }
    client.batch_execute("COMMIT").await?;
    Ok(())
}

pub(super) async fn open_cancellations(client: &ClientWrapper) -> Result<Vec<Cancellation>, StoreError> {
    let columns = rows::CANCELLATION;
    let query = format!("SELECT {columns} FROM noetl.cancellation WHERE done_at IS NULL ORDER BY cancellation_id");
    all(&ask(client, &query, &[]).await?, rows::cancellation)
}

pub(super) async fn cancellations(client: &ClientWrapper, query: &JobQuery) -> Result<Vec<Cancellation>, StoreError> {
    let open = if query.open { " AND done_at IS NULL" } else { "" };
    let before = query.before.map_or(i64::MAX, |id| id.0);
    let select = format!(
        "SELECT {} FROM noetl.cancellation WHERE cancellation_id < $1{open} ORDER BY cancellation_id DESC LIMIT $2",
        rows::CANCELLATION
    );
    all(&ask(client, &select, &[&before, &integer(query.limit)]).await?, rows::cancellation)
}

pub(super) async fn cancellation(
    client: &ClientWrapper,
    id: CancellationId,
) -> Result<Option<Cancellation>, StoreError> {
    let query = format!("SELECT {} FROM noetl.cancellation WHERE cancellation_id = $1", rows::CANCELLATION);
    first(client, &query, &[&id.0], rows::cancellation).await
}
