//! Deciding under the lock of a head.

use std::sync::{Arc, Mutex};

use noetl_core::append::{Append, RefusedBy, Verdict};
use noetl_core::id::{ExecutionId, IdSource};
use noetl_store::{LockedView, StoreError};

use crate::engine::Engine;
use crate::hold;
use crate::landing::Landing;

/// How often a store that finds the head busy is asked again.
const BUSY_MAX: u32 = 100;

/// What came of a decision under the lock of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnderLock {
    /// It stands in the log.
    Wrote,
    /// There was nothing to write, or nobody to decide for.
    Nothing,
    /// It would start something with a concurrency key that others have: nothing was written.
    KeyHeld,
}

impl UnderLock {
    /// Returns whether something was written, by a decision that starts nothing with a key.
    pub(crate) fn wrote(self) -> Result<bool, StoreError> {
        match self {
            UnderLock::Wrote => Ok(true),
            UnderLock::Nothing => Ok(false),
            UnderLock::KeyHeld => {
                Err(StoreError::BadData("a decision that takes no concurrency key was refused for one".into()))
            }
        }
    }
}

impl Engine {
    /// Decides under the lock of a head and acts upon what landed; `false` when nothing was written.
    ///
    /// `decide` may be called again when the store found the head busy.
    pub(crate) async fn under_lock<D>(
        &self,
        execution_id: ExecutionId,
        tail_after: Option<u64>,
        decide: D,
    ) -> Result<bool, StoreError>
    where
        D: Fn(&LockedView, &mut IdSource) -> Option<Append> + Send + Sync + 'static,
    {
        self.under_lock_with(execution_id, tail_after, move |locked, ids| {
            let append = decide(locked, ids)?;
            let landing = Landing::of_control(&append, &locked.view.head);
            Some((append, landing))
        })
        .await?
        .wrote()
    }

    /// The same, for a decision that knows more of what it brings about.
    pub(crate) async fn under_lock_with<D>(
        &self,
        execution_id: ExecutionId,
        tail_after: Option<u64>,
        decide: D,
    ) -> Result<UnderLock, StoreError>
    where
        D: Fn(&LockedView, &mut IdSource) -> Option<(Append, Landing)> + Send + Sync + 'static,
    {
        let decide = Arc::new(decide);
        for _ in 0..BUSY_MAX {
            let decided: Arc<Mutex<Option<Landing>>> = Arc::default();
            let verdict = {
                let (decide, decided, ids) = (Arc::clone(&decide), Arc::clone(&decided), Arc::clone(&self.ids));
                let decide = Box::new(move |locked: &LockedView| {
                    let (append, landing) = decide(locked, &mut hold(&ids))?;
                    *hold(&decided) = Some(landing);
                    Some(append)
                });
                self.metrics.locked.add_one();
                self.store.locked(execution_id, tail_after, decide).await?
            };
            let landing = hold(&decided).take();
            match verdict {
                None => return Ok(UnderLock::Nothing),
                Some(Verdict::Landed { version }) => {
                    let Some(landing) = landing else { return Ok(UnderLock::Nothing) };
                    self.landed(landing, version);
                    return Ok(UnderLock::Wrote);
                }
                // A store may say so when the head is held by a batch; under its lock nothing else can happen.
                Some(Verdict::Busy | Verdict::Conflict) => tokio::task::yield_now().await,
                Some(Verdict::Refused(RefusedBy::KeyHeld)) => return Ok(UnderLock::KeyHeld),
                Some(Verdict::Refused(by)) => {
                    return Err(StoreError::BadData(format!("a decision under the lock was refused: {by:?}")));
                }
            }
        }
        Err(StoreError::Unavailable(format!("execution {execution_id} is busy")))
    }
}
