//! A store that is slow and sometimes fails: before it did anything, or after it did everything.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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
use noetl_store::{
    Cancellation, Chunk, ChunkDecide, DuePlace, EventQuery, JobQuery, ListQuery, Loaded, LockedDecide, LogQuery,
    LogRow, Pick, RunningNote, Session, SqlLimits, SqlRows, Store, StoreError, TableSize, catalog, secret,
};
use serde_json::Value;

use crate::chance::Chance;

/// The memory store behind a bad line.
#[derive(Debug)]
pub(crate) struct Shaky {
    inner: Arc<dyn Store>,
    chance: Chance,
    /// Calls that fail, per mille; 0 from the moment the world calms down.
    failing: Arc<AtomicU64>,
}

impl Shaky {
    pub(crate) fn new(inner: Arc<dyn Store>, chance: Chance, failing: Arc<AtomicU64>) -> Self {
        Shaky { inner, chance, failing }
    }

    async fn before(&self) -> Result<(), StoreError> {
        tokio::time::sleep(Duration::from_micros(self.chance.below(3_000))).await;
        self.fail("the store was not reached")
    }

    async fn after(&self) -> Result<(), StoreError> {
        tokio::time::sleep(Duration::from_micros(self.chance.below(1_000))).await;
        self.fail("the answer of the store got lost")
    }

    /// The answer comes a while later: what was read has changed meanwhile, now and then.
    async fn late<T>(&self, call: impl Future<Output = T>) -> T {
        let answer = call.await;
        tokio::time::sleep(Duration::from_micros(self.chance.below(3_000))).await;
        answer
    }

    fn fail(&self, why: &str) -> Result<(), StoreError> {
        if self.chance.per_mille(self.failing.load(Ordering::Relaxed) / 2) {
            return Err(StoreError::Unavailable(why.to_owned()));
        }
        Ok(())
    }
}

fn again(error: &StoreError) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

#[async_trait]
impl Store for Shaky {
    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.inner.now().await
    }

    async fn append(&self, batch: Vec<Append>) -> Vec<Result<Verdict, StoreError>> {
        if let Err(error) = self.before().await {
            // The whole batch never arrived.
            return batch.iter().map(|_| Err(again(&error))).collect();
        }
        let verdicts = self.inner.append(batch).await;
        match self.after().await {
            Ok(()) => verdicts,
            // It was committed, and the answer got lost.
            Err(error) => verdicts.iter().map(|_| Err(again(&error))).collect(),
        }
    }

    async fn locked(
        &self,
        execution_id: ExecutionId,
        tail_after: Option<u64>,
        decide: LockedDecide,
    ) -> Result<Option<Verdict>, StoreError> {
        self.before().await?;
        let answer = self.inner.locked(execution_id, tail_after, decide).await;
        self.after().await?;
        answer
    }

    async fn head(&self, execution_id: ExecutionId) -> Result<Option<Head>, StoreError> {
        self.late(self.inner.head(execution_id)).await
    }

    async fn view(&self, execution_id: ExecutionId) -> Result<Option<HeadView>, StoreError> {
        self.late(self.inner.view(execution_id)).await
    }

    async fn key_holders(&self, key: &str) -> Result<Vec<KeyHolder>, StoreError> {
        self.late(self.inner.key_holders(key)).await
    }

    async fn load(&self, execution_id: ExecutionId) -> Result<Option<Loaded>, StoreError> {
        self.late(self.inner.load(execution_id)).await
    }

    async fn events(&self, query: EventQuery) -> Result<(Vec<Recorded>, u64), StoreError> {
        self.late(self.inner.events(query)).await
    }

    async fn terminal_event(&self, execution_id: ExecutionId) -> Result<Option<Recorded>, StoreError> {
        self.late(self.inner.terminal_event(execution_id)).await
    }

    async fn result(&self, reference: &str) -> Result<Option<Arc<Value>>, StoreError> {
        self.late(self.inner.result(reference)).await
    }

    async fn executions(&self, query: ListQuery) -> Result<Vec<Head>, StoreError> {
        self.late(self.inner.executions(query)).await
    }

    async fn candidates(
        &self,
        pools: &[Arc<str>],
        turns: &Turns,
        skip: u64,
        limit: u64,
    ) -> Result<Vec<CommandRow>, StoreError> {
        self.late(self.inner.candidates(pools, turns, skip, limit)).await
    }

    async fn due(&self, limit: u64) -> Result<(Timestamp, Vec<Due>), StoreError> {
        self.late(self.inner.due(limit)).await
    }

    async fn forget_due(&self, met: Vec<Due>) -> Result<(), StoreError> {
        self.late(self.inner.forget_due(met)).await
    }

    async fn held(&self, session_id: SessionId) -> Result<Vec<CommandRow>, StoreError> {
        self.late(self.inner.held(session_id)).await
    }

    async fn unquiesced(&self, limit: u64) -> Result<Vec<HeadView>, StoreError> {
        self.late(self.inner.unquiesced(limit)).await
    }

    async fn open_session(&self, session: Session) -> Result<Vec<Session>, StoreError> {
        self.late(self.inner.open_session(session)).await
    }

    async fn note_running(
        &self,
        session_id: SessionId,
        running: Vec<RunningNote>,
    ) -> Result<Vec<RunningNote>, StoreError> {
        self.late(self.inner.note_running(session_id, running)).await
    }

    async fn renew_sessions(&self, sessions: &[SessionId], lease_ms: u64) -> Result<Vec<SessionId>, StoreError> {
        self.late(self.inner.renew_sessions(sessions, lease_ms)).await
    }

    async fn expired_sessions(&self, limit: u64) -> Result<Vec<Session>, StoreError> {
        self.late(self.inner.expired_sessions(limit)).await
    }

    async fn sessions(&self) -> Result<Vec<Session>, StoreError> {
        self.late(self.inner.sessions()).await
    }

    async fn close_session(&self, session_id: SessionId) -> Result<(), StoreError> {
        self.late(self.inner.close_session(session_id)).await
    }

    async fn open_cancellation(&self, cancellation: Cancellation) -> Result<(), StoreError> {
        self.late(self.inner.open_cancellation(cancellation)).await
    }

    async fn cancel_chunk(
        &self,
        cancellation_id: CancellationId,
        pick: Pick,
        decide: ChunkDecide,
    ) -> Result<Chunk, StoreError> {
        self.before().await?;
        let answer = self.inner.cancel_chunk(cancellation_id, pick, decide).await;
        self.after().await?;
        answer
    }

    async fn claim_cancellation(&self, cancellation_id: CancellationId) -> Result<bool, StoreError> {
        self.late(self.inner.claim_cancellation(cancellation_id)).await
    }

    async fn stop_cancellation(
        &self,
        cancellation_id: CancellationId,
        by: &str,
    ) -> Result<Option<Cancellation>, StoreError> {
        self.late(self.inner.stop_cancellation(cancellation_id, by)).await
    }

    async fn open_cancellations(&self) -> Result<Vec<Cancellation>, StoreError> {
        self.late(self.inner.open_cancellations()).await
    }

    async fn cancellations(&self, query: JobQuery) -> Result<Vec<Cancellation>, StoreError> {
        self.late(self.inner.cancellations(query)).await
    }

    async fn cancellation(&self, cancellation_id: CancellationId) -> Result<Option<Cancellation>, StoreError> {
        self.late(self.inner.cancellation(cancellation_id)).await
    }

    async fn execution_ids(&self, query: ListQuery) -> Result<Vec<ExecutionId>, StoreError> {
        self.late(self.inner.execution_ids(query)).await
    }

    async fn count_executions(&self, query: ListQuery) -> Result<u64, StoreError> {
        self.late(self.inner.count_executions(query)).await
    }

    async fn active_below(&self, execution_id: ExecutionId, limit: u64) -> Result<u64, StoreError> {
        self.late(self.inner.active_below(execution_id, limit)).await
    }

    async fn add_schedule(&self, schedule: Schedule) -> Result<bool, StoreError> {
        self.late(self.inner.add_schedule(schedule)).await
    }

    async fn schedules(&self) -> Result<Vec<Schedule>, StoreError> {
        self.late(self.inner.schedules()).await
    }

    async fn due_schedules(
        &self,
        after: Option<DuePlace>,
        limit: u64,
    ) -> Result<(Timestamp, Vec<Schedule>), StoreError> {
        self.late(self.inner.due_schedules(after, limit)).await
    }

    async fn pass_tick(&self, tick: Tick, status: &str) -> Result<bool, StoreError> {
        self.late(self.inner.pass_tick(tick, status)).await
    }

    async fn set_schedule(&self, schedule_id: ScheduleId, next: Option<Timestamp>) -> Result<bool, StoreError> {
        self.late(self.inner.set_schedule(schedule_id, next)).await
    }

    async fn remove_schedule(&self, schedule_id: ScheduleId) -> Result<bool, StoreError> {
        self.late(self.inner.remove_schedule(schedule_id)).await
    }

    async fn register(&self, resource: catalog::NewResource) -> Result<catalog::Resource, StoreError> {
        self.late(self.inner.register(resource)).await
    }

    async fn resource(&self, key: catalog::ResourceKey) -> Result<Option<catalog::Resource>, StoreError> {
        self.late(self.inner.resource(key)).await
    }

    async fn resources(&self, kind: Option<&str>) -> Result<Vec<catalog::Resource>, StoreError> {
        self.late(self.inner.resources(kind)).await
    }

    async fn answer(&self, key: &str) -> Result<Option<Value>, StoreError> {
        self.late(self.inner.answer(key)).await
    }

    async fn keep_answer(&self, key: &str, answer: Value) -> Result<Value, StoreError> {
        self.late(self.inner.keep_answer(key, answer)).await
    }

    async fn keep_log(&self, lines: Vec<LogLine>) -> Result<(), StoreError> {
        self.before().await?;
        let answer = self.inner.keep_log(lines).await;
        self.after().await?;
        answer
    }

    async fn log(&self, query: LogQuery) -> Result<Vec<LogRow>, StoreError> {
        self.late(self.inner.log(query)).await
    }

    async fn credential(&self, name_or_id: &str) -> Result<Option<secret::CredentialRow>, StoreError> {
        self.late(self.inner.credential(name_or_id)).await
    }

    async fn credentials(&self) -> Result<Vec<secret::CredentialRow>, StoreError> {
        self.late(self.inner.credentials()).await
    }

    async fn put_credential(&self, row: secret::CredentialRow, key: &str) -> Result<bool, StoreError> {
        self.late(self.inner.put_credential(row, key)).await
    }

    async fn delete_credential(&self, id: CredentialId) -> Result<bool, StoreError> {
        self.late(self.inner.delete_credential(id)).await
    }

    async fn key_fingerprint(&self) -> Result<Option<String>, StoreError> {
        self.late(self.inner.key_fingerprint()).await
    }

    async fn keep_key_fingerprint(&self, fingerprint: &str) -> Result<String, StoreError> {
        self.late(self.inner.keep_key_fingerprint(fingerprint)).await
    }

    async fn reseal(&self, from: &str, to: &str, rows: Vec<secret::Resealed>) -> Result<bool, StoreError> {
        self.late(self.inner.reseal(from, to, rows)).await
    }

    async fn keychain(&self, cache_key: &str) -> Result<Option<secret::KeychainRow>, StoreError> {
        self.late(self.inner.keychain(cache_key)).await
    }

    async fn keep_keychain(&self, row: secret::KeychainRow, key: &str) -> Result<bool, StoreError> {
        self.late(self.inner.keep_keychain(row, key)).await
    }

    async fn sql(&self, sql: &str, limits: SqlLimits) -> Result<SqlRows, StoreError> {
        self.late(self.inner.sql(sql, limits)).await
    }

    async fn validate(&self) -> Result<Vec<String>, StoreError> {
        self.late(self.inner.validate()).await
    }

    async fn size(&self) -> Result<Vec<TableSize>, StoreError> {
        self.late(self.inner.size()).await
    }

    async fn prune(&self, before: Timestamp, dry_run: bool) -> Result<u64, StoreError> {
        self.late(self.inner.prune(before, dry_run)).await
    }

    async fn backup(&self, path: &std::path::Path) -> Result<(), StoreError> {
        self.late(self.inner.backup(path)).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.late(self.inner.close()).await
    }
}
