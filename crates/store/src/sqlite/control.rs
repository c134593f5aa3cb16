//! What the writer does besides batches: decisions under a lock, cascades, sessions, the catalog, kept answers.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use noetl_core::append::{Append, Due, Verdict};
use noetl_core::id::{CancellationId, ExecutionId, SessionId};
use noetl_core::time::Timestamp;
use rusqlite::params;
use serde_json::Value;

use super::encode::{json, ready};
use super::rows;
use super::tables::{Failure, Tables, integer, one, tail};
use crate::catalog::{NewResource, Resource};
use crate::landing::{self, Rows};
use crate::{Cancellation, Chunk, ChunkDecide, LockedDecide, LockedView, Session, StoreError};

/// Longest step of a cascade; others wait for it.
const CHUNK_TIME_MAX: Duration = Duration::from_millis(5);

/// How long the row of a worker's life is kept after its lease, when it holds nothing.
const SESSION_KEPT_MS: u64 = 24 * 60 * 60 * 1_000;

impl Tables {
    /// Reads, decides and writes. The writer is the lock: nothing comes between.
    pub(super) fn locked(
        &mut self,
        execution_id: ExecutionId,
        tail_after: Option<u64>,
        decide: LockedDecide,
    ) -> Result<Option<Verdict>, StoreError> {
        let Some(view) = self.view(execution_id)? else { return Ok(None) };
        let tail = match tail_after {
            Some(after) => tail(&self.connection, execution_id, after)?,
            None => Vec::new(),
        };
        let version = view.head.version;
        match decide(&LockedView { now: self.now(), view, tail }) {
            None => Ok(Some(Verdict::Landed { version })),
            Some(append) => self.decided(execution_id, append).map(Some),
        }
    }

    fn decided(&mut self, execution_id: ExecutionId, append: Append) -> Result<Verdict, StoreError> {
        landing::decided_under_lock(&append, execution_id)?;
        self.append(&ready(append)?, true).map_err(|failure| match failure {
            Failure::Before(error) | Failure::Halfway(error) => error,
        })
    }

    /// Deletes obligations that were met, of executions that have ended.
    pub(super) fn forget_due(&mut self, met: &[Due]) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare_cached(
            // Set anew in between: that one is not the one that was met.
            "DELETE FROM noetl.due WHERE execution_id = ?1 AND kind = ?2 AND key = ?3 AND at = ?4 \
             AND child_execution_id IS ?5 \
             AND NOT EXISTS (SELECT 1 FROM noetl.execution e WHERE e.execution_id = ?1 AND e.status = 'RUNNING')",
        )?;
        for due in met {
            let child = due.child.map(|id| id.0);
            statement.execute(params![due.execution_id.0, due.kind.as_str(), due.key, due.at.to_iso(), child])?;
        }
        Ok(())
    }

    pub(super) fn open_session(&mut self, session: &Session) -> Result<Vec<Session>, StoreError> {
        let now = self.now();
        let older = {
            let query = format!(
                "SELECT {} FROM noetl.runtime r WHERE name = ?1 AND runtime_id <> ?2 AND \
                 ((status = 'ready' AND lease_ends_at > ?3) \
                  OR EXISTS (SELECT 1 FROM noetl.command c WHERE c.session_id = r.runtime_id \
                             AND c.state IN ('claimed', 'lost'))) \
                 ORDER BY runtime_id",
                rows::SESSION
            );
            let mut statement = self.connection.prepare_cached(&query)?;
            let parameters = params![session.worker_id.as_ref(), session.session_id.0, now.to_iso()];
            statement.query_and_then(parameters, rows::session)?.collect::<Result<Vec<_>, _>>()?
        };
        self.forget_old_sessions(now)?;
        let mut statement = self.connection.prepare_cached(
            "INSERT OR REPLACE INTO noetl.runtime (runtime_id, name, kind, status, capacity, pools, runtime, \
             lease_ends_at, heartbeat_at, started_at) VALUES (?1, ?2, 'worker_pool', 'ready', ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        statement.execute(params![
            session.session_id.0,
            session.worker_id.as_ref(),
            session.slots,
            json(&session.pools),
            json(&session.meta),
            session.lease_until.to_iso(),
            now.to_iso(),
            session.started_at.to_iso(),
        ])?;
        Ok(older)
    }

    fn forget_old_sessions(&self, now: Timestamp) -> Result<(), StoreError> {
        let kept = i64::try_from(SESSION_KEPT_MS).unwrap_or(i64::MAX);
        let mut statement = self.connection.prepare_cached(
            "DELETE FROM noetl.runtime WHERE lease_ends_at < ?1 \
             AND NOT EXISTS (SELECT 1 FROM noetl.command c WHERE c.session_id = runtime_id)",
        )?;
        statement.execute([Timestamp(now.0.saturating_sub(kept)).to_iso()])?;
        Ok(())
    }

    pub(super) fn renew_sessions(
        &mut self,
        sessions: &[SessionId],
        lease_ms: u64,
    ) -> Result<Vec<SessionId>, StoreError> {
        let now = self.now();
        let (until, now) = (now.plus_ms(lease_ms).to_iso(), now.to_iso());
        let mut statement = self.connection.prepare_cached(
            // A lease never gets shorter by being renewed.
            "UPDATE noetl.runtime SET lease_ends_at = max(lease_ends_at, ?2), heartbeat_at = ?3 \
             WHERE runtime_id = ?1 AND status = 'ready'",
        )?;
        let mut unknown = Vec::new();
        for session in sessions {
            if statement.execute(params![session.0, until, now])? == 0 {
                unknown.push(*session);
            }
        }
        Ok(unknown)
    }

    pub(super) fn close_session(&mut self, session_id: SessionId) -> Result<(), StoreError> {
        let now = self.now().to_iso();
        let mut statement = self.connection.prepare_cached(
            "UPDATE noetl.runtime SET status = 'closed', lease_ends_at = min(lease_ends_at, ?2) WHERE runtime_id = ?1",
        )?;
        statement.execute(params![session_id.0, now])?;
        Ok(())
    }

    pub(super) fn open_cancellation(&mut self, cancellation: &Cancellation) -> Result<(), StoreError> {
        let requested = cancellation.requested_execution_id;
        let root = self.head(requested)?.map_or(requested, |head| head.root_execution_id);
        let mut statement = self.connection.prepare_cached(
            "INSERT OR IGNORE INTO noetl.cancellation (cancellation_id, requested_execution_id, root_execution_id, \
             reason, cancelled_by, requested_by, remote, mode, grace_ms, idempotency_key, cancelled, visited, \
             created_at, done_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?;
        let new = statement.execute(params![
            cancellation.cancellation_id.0,
            requested.0,
            root.0,
            cancellation.reason,
            cancellation.cancelled_by,
            cancellation.requested_by,
            cancellation.remote,
            cancellation.mode.map(rows::mode_word),
            cancellation.grace_ms.map(integer),
            cancellation.idempotency_key,
            integer(cancellation.cancelled),
            integer(cancellation.visited),
            cancellation.created_at.to_iso(),
            cancellation.done_at.map(Timestamp::to_iso),
        ])?;
        if new > 0 {
            self.connection.execute(
                "INSERT INTO noetl.cancellation_front (cancellation_id, execution_id, root_execution_id) \
                 VALUES (?1, ?2, ?3)",
                params![cancellation.cancellation_id.0, requested.0, root.0],
            )?;
        }
        Ok(())
    }

    /// One step of a cascade: fence, then look.
    pub(super) fn cancel_chunk(
        &mut self,
        cancellation_id: CancellationId,
        max: usize,
        mut decide: ChunkDecide,
    ) -> Result<Chunk, StoreError> {
        let began = Instant::now();
        let ids = self.front(cancellation_id, max)?;
        let now = self.now();
        let mut chunk = Chunk::default();
        let mut cancelled = 0;
        let mut ticked = 0;
        let mut spared = BTreeSet::new();
        let requested = "SELECT requested_execution_id FROM noetl.cancellation WHERE cancellation_id = ?1";
        let requested = one::<i64>(&self.connection, requested, [cancellation_id.0])?.map(ExecutionId);
        for id in &ids {
            if ticked > 0 && began.elapsed() > CHUNK_TIME_MAX {
                break;
            }
            ticked += 1;
            // A head that was pruned in between has no children either.
            let Some(view) = self.view(*id)? else { continue };
            chunk.visited.push(*id);
            // What is shielded is left alone with all that is below it.
            if requested.is_some_and(|requested| view.head.is_shielded_from(requested)) {
                spared.insert(*id);
            }
            if let Some(append) = decide(&LockedView { now, view, tail: Vec::new() }) {
                match self.decided(*id, append)? {
                    Verdict::Landed { .. } => cancelled += 1,
                    stayed @ (Verdict::Conflict | Verdict::Refused(_) | Verdict::Busy) => {
                        return Err(landing::stayed_under_lock(*id, &stayed));
                    }
                }
            }
        }
        // Only now, with every fence up: a child born between a look and a fence would escape.
        let mut children = self.connection.prepare_cached(
            "INSERT OR IGNORE INTO noetl.cancellation_front (cancellation_id, execution_id, root_execution_id) \
             SELECT ?1, execution_id, root_execution_id FROM noetl.execution WHERE parent_execution_id = ?2",
        )?;
        let mut tick = self
            .connection
            .prepare_cached("DELETE FROM noetl.cancellation_front WHERE cancellation_id = ?1 AND execution_id = ?2")?;
        for id in &ids[..ticked] {
            if !spared.contains(id) {
                children.execute(params![cancellation_id.0, id.0])?;
            }
            tick.execute(params![cancellation_id.0, id.0])?;
        }
        let left = "SELECT 1 FROM noetl.cancellation_front WHERE cancellation_id = ?1 LIMIT 1";
        chunk.done = one::<i64>(&self.connection, left, [cancellation_id.0])?.is_none();
        let mut count = self.connection.prepare_cached(
            "UPDATE noetl.cancellation SET cancelled = cancelled + ?2, visited = visited + ?3, \
             done_at = CASE WHEN ?4 THEN coalesce(done_at, ?5) ELSE done_at END WHERE cancellation_id = ?1",
        )?;
        let visited = integer(chunk.visited.len() as u64);
        count.execute(params![cancellation_id.0, cancelled, visited, chunk.done, now.to_iso()])?;
        Ok(chunk)
    }

    fn front(&self, cancellation_id: CancellationId, max: usize) -> Result<Vec<ExecutionId>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT execution_id FROM noetl.cancellation_front WHERE cancellation_id = ?1 \
             ORDER BY execution_id LIMIT ?2",
        )?;
        let ids = statement.query_map(params![cancellation_id.0, integer(max as u64)], |row| row.get(0))?;
        ids.map(|id| Ok(ExecutionId(id?))).collect()
    }

    pub(super) fn register(&mut self, resource: NewResource) -> Result<Resource, StoreError> {
        let newest = "SELECT max(version) FROM noetl.catalog WHERE path = ?1";
        let version =
            one::<Option<i64>>(&self.connection, newest, [resource.path.as_ref()])?.flatten().unwrap_or(0) + 1;
        let entry = Resource {
            catalog_id: resource.catalog_id,
            path: resource.path,
            version,
            kind: resource.kind,
            content: resource.content,
            created_at: self.now(),
        };
        self.connection.execute(
            "INSERT INTO noetl.catalog (catalog_id, path, version, kind, content, created_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                entry.catalog_id.0,
                entry.path.as_ref(),
                entry.version,
                entry.kind.as_ref(),
                entry.content.as_ref(),
                entry.created_at.to_iso(),
            ],
        )?;
        Ok(entry)
    }

    pub(super) fn keep_answer(&mut self, key: &str, answer: &Value) -> Result<Value, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("INSERT OR IGNORE INTO noetl.idempotency (key, answer, created_at) VALUES (?1, ?2, ?3)")?;
        statement.execute(params![key, json(answer), self.now().to_iso()])?;
        drop(statement);
        super::read::answer(&self.connection, key)?
            .ok_or_else(|| StoreError::Corrupt(format!("the answer to `{key}` was kept and is not there")))
    }
}
