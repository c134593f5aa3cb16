//! Cascades and jobs: their rows, the ids they have still to visit, and the steps that visit them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use noetl_core::append::Verdict;
use noetl_core::id::{CancellationId, ExecutionId};
use noetl_core::time::Timestamp;
use rusqlite::{Connection, params};

use super::encode::json;
use super::read::{all, first};
use super::rows;
use super::tables::{Tables, integer, one};
use crate::landing::{self, Rows as _};
use crate::{Cancellation, Chunk, ChunkDecide, DRIVE_CLAIM_MS, JobQuery, LockedView, Pick, StoreError, Visit};

/// Longest step of a cascade; whoever comes while it is taken waits for its commit too, which grows with it.
const CHUNK_TIME_MAX: Duration = Duration::from_millis(20);
/// Longest step of a cascade for which somebody waits. Not at once: each commit has its price, and a busy store must
/// not hold up a cascade for long.
const CHUNK_TIME_AWAITED: Duration = Duration::from_millis(3);

/// An id to visit, and the one it is reached through.
type Reached = (ExecutionId, ExecutionId);

impl Tables {
    pub(super) fn open_cancellation(&mut self, cancellation: &Cancellation) -> Result<(), StoreError> {
        let id = cancellation.cancellation_id;
        let requested = cancellation.requested_execution_id;
        let root = match requested {
            Some(requested) => Some(self.head(requested)?.map_or(requested, |head| head.root_execution_id)),
            None => None,
        };
        let mut statement = self.connection.prepare_cached(
            "INSERT OR IGNORE INTO noetl.cancellation (cancellation_id, requested_execution_id, root_execution_id, \
             selection, cascade, reason, cancelled_by, requested_by, remote, mode, grace_ms, idempotency_key, rate, \
             selected, cursor, cancelled, visited, spared, created_at, claimed_until, stopped_at, stopped_by, done_at, action) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, \
             ?22, ?23, ?24)",
        )?;
        let new = statement.execute(params![
            id.0,
            requested.map(|id| id.0),
            root.map(|id| id.0),
            cancellation.selection.as_ref().map(json),
            cancellation.cascade,
            cancellation.reason,
            cancellation.cancelled_by,
            cancellation.requested_by,
            cancellation.remote,
            cancellation.mode.map(rows::mode_word),
            cancellation.grace_ms.map(integer),
            cancellation.idempotency_key,
            cancellation.rate,
            cancellation.selected.map(integer),
            cancellation.cursor.map(|id| id.0),
            integer(cancellation.cancelled),
            integer(cancellation.visited),
            integer(cancellation.spared),
            cancellation.created_at.to_iso(),
            cancellation.claimed_until.map(Timestamp::to_iso),
            cancellation.stopped_at.map(Timestamp::to_iso),
            cancellation.stopped_by,
            cancellation.done_at.map(Timestamp::to_iso),
            cancellation.action.as_str(),
        ])?;
        if new > 0 {
            let mut front = self.connection.prepare_cached(
                "INSERT OR IGNORE INTO noetl.cancellation_front (cancellation_id, execution_id, \
                 requested_execution_id, root_execution_id) VALUES (?1, ?2, ?2, \
                 coalesce((SELECT root_execution_id FROM noetl.execution WHERE execution_id = ?2), ?2))",
            )?;
            for first in cancellation.first_front() {
                front.execute(params![id.0, first.0])?;
            }
        }
        Ok(())
    }

    /// One step of a cascade or job: fence, then look.
    pub(super) fn cancel_chunk(
        &mut self,
        id: CancellationId,
        pick: &Pick,
        mut decide: ChunkDecide,
    ) -> Result<Chunk, StoreError> {
        let began = Instant::now();
        let now = self.now();
        let before = cursor(&self.connection, id)?;
        let picked: Vec<Reached> = match pick {
            Pick::Front(max) => self.front(id, *max)?,
            // Somebody else looked there already, or the job was stopped.
            Pick::Page { from, .. } if before != Some(*from) => Vec::new(),
            Pick::Page { ids, .. } => ids.iter().map(|id| (*id, *id)).collect(),
        };
        let mut chunk = Chunk::default();
        let (mut cancelled, mut spared) = (0_u64, 0_u64);
        let mut ticked: Vec<(Reached, bool)> = Vec::with_capacity(picked.len());
        for (visited, through) in picked.iter().copied() {
            if !ticked.is_empty() && is_time(began.elapsed(), &self.awaited) {
                break;
            }
            // A head that was pruned in between has no children either.
            let Some(view) = self.view_in_passing(visited)? else {
                ticked.push(((visited, through), false));
                continue;
            };
            chunk.visited.push(visited);
            let locked = LockedView { now, view, tail: Vec::new() };
            let Visit { append, walks_on } = decide(&locked, through);
            ticked.push(((visited, through), walks_on));
            match append {
                None => spared += u64::from(!walks_on),
                Some(append) => match self.decided(&locked.view, append)? {
                    Verdict::Landed { .. } => cancelled += 1,
                    stayed @ (Verdict::Conflict | Verdict::Refused(_) | Verdict::Busy) => {
                        return Err(landing::stayed_under_lock(visited, &stayed));
                    }
                },
            }
        }
        self.tick_off(id, &ticked)?;
        let after = match pick {
            Pick::Page { from, .. } if before != Some(*from) => before,
            Pick::Front(_) => before,
            // Out of time: the rest of the page is looked for again.
            Pick::Page { .. } if ticked.len() < picked.len() => ticked.last().map(|((visited, _), _)| *visited),
            Pick::Page { to, .. } => *to,
        };
        let left = "SELECT 1 FROM noetl.cancellation_front WHERE cancellation_id = ?1 LIMIT 1";
        chunk.front = one::<i64>(&self.connection, left, [id.0])?.is_some();
        chunk.cursor = after;
        chunk.done = !chunk.front && after.is_none();
        let mut count = self.connection.prepare_cached(
            "UPDATE noetl.cancellation SET cancelled = cancelled + ?2, visited = visited + ?3, spared = spared + ?4, \
             cursor = ?5, claimed_until = ?6, done_at = CASE WHEN ?7 THEN coalesce(done_at, ?8) ELSE done_at END \
             WHERE cancellation_id = ?1",
        )?;
        count.execute(params![
            id.0,
            integer(cancelled),
            integer(chunk.visited.len() as u64),
            integer(spared),
            after.map(|id| id.0),
            now.plus_ms(DRIVE_CLAIM_MS).to_iso(),
            chunk.done,
            now.to_iso(),
        ])?;
        Ok(chunk)
    }

    /// Puts children on the front and takes off what was visited, all of a step at once: a statement for each costs as
    /// much as the decision.
    fn tick_off(&self, id: CancellationId, ticked: &[(Reached, bool)]) -> Result<(), StoreError> {
        // Only now, with every fence up: a child born between a look and a fence would escape. A listed one that is a
        // child too is reached as a child: stopping the job must not leave it behind.
        let mut children = self.connection.prepare_cached(
            "INSERT OR FAIL INTO noetl.cancellation_front (cancellation_id, execution_id, requested_execution_id, \
             root_execution_id) SELECT ?1, child.execution_id, visited.value, child.root_execution_id \
             FROM json_each(?2) AS visited CROSS JOIN noetl.execution AS child \
             WHERE child.parent_execution_id = CAST(visited.key AS INTEGER) \
             ON CONFLICT DO UPDATE SET requested_execution_id = excluded.requested_execution_id",
        )?;
        children.execute(params![id.0, numbered(ticked.iter().filter(|(_, walks_on)| *walks_on))])?;
        let mut tick = self.connection.prepare_cached(
            "DELETE FROM noetl.cancellation_front WHERE cancellation_id = ?1 \
             AND execution_id IN (SELECT CAST(key AS INTEGER) FROM json_each(?2))",
        )?;
        tick.execute(params![id.0, numbered(ticked.iter())])?;
        Ok(())
    }

    fn front(&self, id: CancellationId, max: usize) -> Result<Vec<Reached>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT execution_id, requested_execution_id FROM noetl.cancellation_front WHERE cancellation_id = ?1 \
             ORDER BY execution_id LIMIT ?2",
        )?;
        let reached = statement.query_map(params![id.0, integer(max as u64)], |row| {
            Ok((ExecutionId(row.get(0)?), ExecutionId(row.get(1)?)))
        })?;
        Ok(reached.collect::<Result<_, _>>()?)
    }

    pub(super) fn claim_cancellation(&mut self, id: CancellationId) -> Result<bool, StoreError> {
        let now = self.now();
        let mut statement = self.connection.prepare_cached(
            "UPDATE noetl.cancellation SET claimed_until = ?3 WHERE cancellation_id = ?1 AND done_at IS NULL \
             AND (claimed_until IS NULL OR claimed_until < ?2)",
        )?;
        Ok(statement.execute(params![id.0, now.to_iso(), now.plus_ms(DRIVE_CLAIM_MS).to_iso()])? > 0)
    }

    pub(super) fn stop_cancellation(
        &mut self,
        id: CancellationId,
        by: &str,
    ) -> Result<Option<Cancellation>, StoreError> {
        let now = self.now().to_iso();
        let mut stop = self.connection.prepare_cached(
            "UPDATE noetl.cancellation SET stopped_at = ?2, stopped_by = ?3, cursor = NULL \
             WHERE cancellation_id = ?1 AND selection IS NOT NULL AND done_at IS NULL AND stopped_at IS NULL",
        )?;
        if stop.execute(params![id.0, now, by])? > 0 {
            // What was not begun; the descendants of what was begun stay.
            self.connection.execute(
                "DELETE FROM noetl.cancellation_front WHERE cancellation_id = ?1 \
                 AND execution_id = requested_execution_id",
                [id.0],
            )?;
            self.connection.execute(
                "UPDATE noetl.cancellation SET done_at = ?2 WHERE cancellation_id = ?1 \
                 AND NOT EXISTS (SELECT 1 FROM noetl.cancellation_front f WHERE f.cancellation_id = ?1)",
                params![id.0, now],
            )?;
        }
        cancellation(&self.connection, id)
    }
}

/// Returns who was visited, and through whom, as a document that a statement reads row by row.
fn numbered<'a>(ticked: impl Iterator<Item = &'a (Reached, bool)>) -> String {
    let map: BTreeMap<i64, i64> = ticked.map(|((visited, through), _)| (visited.0, through.0)).collect();
    json(&map)
}

/// Returns whether a step that took so long ends here.
fn is_time(took: Duration, awaited: impl Fn() -> bool) -> bool {
    took > CHUNK_TIME_MAX || (took > CHUNK_TIME_AWAITED && awaited())
}

fn cursor(connection: &Connection, id: CancellationId) -> Result<Option<ExecutionId>, StoreError> {
    let query = "SELECT cursor FROM noetl.cancellation WHERE cancellation_id = ?1";
    Ok(one::<Option<i64>>(connection, query, [id.0])?.flatten().map(ExecutionId))
}

pub(super) fn open_cancellations(connection: &Connection) -> Result<Vec<Cancellation>, StoreError> {
    let columns = rows::CANCELLATION;
    let query = format!("SELECT {columns} FROM noetl.cancellation WHERE done_at IS NULL ORDER BY cancellation_id");
    all(connection, &query, [], rows::cancellation)
}

pub(super) fn cancellations(connection: &Connection, query: &JobQuery) -> Result<Vec<Cancellation>, StoreError> {
    let open = if query.open { " AND done_at IS NULL" } else { "" };
    let before = query.before.map_or(i64::MAX, |id| id.0);
    let query_text = format!(
        "SELECT {} FROM noetl.cancellation WHERE cancellation_id < ?1{open} ORDER BY cancellation_id DESC LIMIT ?2",
        rows::CANCELLATION
    );
    all(connection, &query_text, params![before, integer(query.limit)], rows::cancellation)
}

pub(super) fn cancellation(connection: &Connection, id: CancellationId) -> Result<Option<Cancellation>, StoreError> {
    let query = format!("SELECT {} FROM noetl.cancellation WHERE cancellation_id = ?1", rows::CANCELLATION);
    first(connection, &query, [id.0], rows::cancellation)
}
