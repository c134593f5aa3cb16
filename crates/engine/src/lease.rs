//! Leases: renewing them together, and giving up the commands of workers that fell silent.

use std::collections::BTreeMap;

use noetl_core::append::Append;
use noetl_core::control::lease;
use noetl_core::head::HeadView;
use noetl_core::id::{IdSource, SessionId};
use noetl_core::time::Timestamp;
use noetl_store::StoreError;
use tokio::sync::oneshot;

use crate::attend::executions_of;
use crate::engine::Engine;
use crate::queue::Queue;

/// Leases renewed in one write at most.
const RENEWALS_MAX: usize = 1024;

/// Renewals on their way: what waits is written together.
#[derive(Debug)]
pub(crate) struct Renewals {
    queue: Queue<(SessionId, oneshot::Sender<Option<bool>>)>,
}

impl Renewals {
    pub(crate) fn new() -> Self {
        Renewals { queue: Queue::new() }
    }

    /// Renews a lease; `false` when there is no such session (any more).
    pub(crate) async fn renew(&self, session_id: SessionId) -> Result<bool, StoreError> {
        let (answer, told) = oneshot::channel();
        let known = if self.queue.put((session_id, answer)) { told.await.ok().flatten() } else { None };
        known.ok_or_else(|| StoreError::Unavailable("the lease could not be renewed".into()))
    }

    /// Lets nothing more in.
    pub(crate) fn shut(&self) {
        self.queue.shut();
    }
}

/// Renews leases until the queue is closed.
pub(crate) async fn run(engine: &Engine) {
    loop {
        let waiting = engine.renewals.queue.take(RENEWALS_MAX).await;
        if waiting.is_empty() {
            return;
        }
        let mut sessions: BTreeMap<SessionId, Vec<oneshot::Sender<Option<bool>>>> = BTreeMap::new();
        for (session_id, answer) in waiting {
            sessions.entry(session_id).or_default().push(answer);
        }
        let ids: Vec<SessionId> = sessions.keys().copied().collect();
        let unknown = match engine.store.renew_sessions(&ids, engine.options.lease_ms).await {
            Ok(unknown) => Some(unknown),
            Err(error) => {
                engine.metrics.store_errors.add_one();
                tracing::warn!(%error, "leases can not be renewed");
                None
            }
        };
        for (session_id, answers) in sessions {
            let known = unknown.as_ref().map(|unknown| !unknown.contains(&session_id));
            if known == Some(true) {
                engine.desk.renewed(session_id);
            }
            for answer in answers {
                // The request may have been given up.
                let _ = answer.send(known);
            }
        }
    }
}

impl Engine {
    /// Gives up every command that a session holds.
    pub(crate) async fn lose_session(&self, session_id: SessionId) -> Result<(), StoreError> {
        let lost = self.control(session_id, lease::lose).await?;
        self.metrics.lost.add(lost);
        Ok(())
    }

    /// Takes the lost attempts of a session off the books: its worker itself says that nothing of them runs.
    pub(crate) async fn confirm_gone(&self, session_id: SessionId) -> Result<(), StoreError> {
        self.control(session_id, lease::confirm_gone).await.map(drop)
    }

    /// Gives up the lost attempts of a session for good: it has been silent for `session_forget_ms`.
    pub(crate) async fn forget_session(&self, session_id: SessionId) -> Result<(), StoreError> {
        self.control(session_id, lease::forget).await.map(drop)
    }

    /// Decides about a session in every execution that it holds something of; returns in how many that wrote anything.
    async fn control(&self, session_id: SessionId, decide: LeaseDecision) -> Result<u64, StoreError> {
        let mut written = 0;
        for execution_id in executions_of(&self.store.held(session_id).await?) {
            let wrote = self
                .under_lock(execution_id, None, move |locked, ids| decide(&locked.view, session_id, locked.now, ids))
                .await?;
            written += u64::from(wrote);
        }
        Ok(written)
    }
}

type LeaseDecision = fn(&HeadView, SessionId, Timestamp, &mut IdSource) -> Option<Append>;
