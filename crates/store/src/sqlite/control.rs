//! What the writer does besides batches: decisions under a lock, sessions, the catalog, kept answers.

use noetl_core::append::{Append, Due, Verdict};
use noetl_core::head::HeadView;
use noetl_core::id::{ExecutionId, SessionId};
use noetl_core::time::Timestamp;
use rusqlite::params;
use serde_json::Value;

use super::encode::{json, ready};
use super::rows;
use super::tables::{Failure, Tables, one, tail};
use crate::catalog::{NewResource, Resource};
use crate::landing;
use crate::{LockedDecide, LockedView, RunningNote, Session, StoreError};

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
        let locked = LockedView { now: self.now(), view, tail };
        match decide(&locked) {
            None => Ok(Some(Verdict::Landed { version: locked.view.head.version })),
            Some(append) => self.decided(&locked.view, append).map(Some),
        }
    }

    /// Writes what was decided on `view`.
    pub(super) fn decided(&mut self, view: &HeadView, append: Append) -> Result<Verdict, StoreError> {
        landing::decided_under_lock(&append, view.head.execution_id)?;
        self.append_on(view, &ready(append)?).map_err(|failure| match failure {
            Failure::Before(error) | Failure::Halfway(error) => error,
        })
    }

    /// Deletes obligations that were met, of executions that have ended.
    pub(super) fn forget_due(&mut self, met: &[Due]) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare_cached(
            // Set anew in between: that one is not the one that was met.
            "DELETE FROM noetl.due WHERE execution_id = ?1 AND kind = ?2 AND key = ?3 AND at = ?4 AND command_id IS ?5 \
             AND NOT EXISTS (SELECT 1 FROM noetl.execution e WHERE e.execution_id = ?1 AND e.status = 'RUNNING')",
        )?;
        for due in met {
            let command = due.command.map(|id| id.0);
            statement.execute(params![due.execution_id.0, due.kind.as_str(), due.key, due.at.to_iso(), command])?;
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

    pub(super) fn note_running(
        &mut self,
        session_id: SessionId,
        mut running: Vec<RunningNote>,
    ) -> Result<Vec<RunningNote>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "UPDATE noetl.command SET running = ?1 WHERE execution_id = ?2 AND command_id = ?3 AND epoch = ?4 \
             AND session_id = ?5 AND state IN ('claimed', 'lost')",
        )?;
        let mut noted = Vec::with_capacity(running.len());
        for note in &running {
            let text = note.running.as_ref().map(json);
            let key = params![text, note.execution_id.0, note.command_id.0, note.epoch, session_id.0];
            noted.push(statement.execute(key)? > 0);
        }
        let mut noted = noted.into_iter();
        running.retain(|_| noted.next() == Some(true));
        Ok(running)
    }

    pub(super) fn close_session(&mut self, session_id: SessionId) -> Result<(), StoreError> {
        let now = self.now().to_iso();
        let mut statement = self.connection.prepare_cached(
            "UPDATE noetl.runtime SET status = 'closed', lease_ends_at = min(lease_ends_at, ?2) WHERE runtime_id = ?1",
        )?;
        statement.execute(params![session_id.0, now])?;
        Ok(())
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
