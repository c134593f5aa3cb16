//! Reruns: what a new execution takes from the one before.

use std::collections::BTreeMap;
use std::sync::Arc;

use noetl_core::event::{Event, Initialized};
use noetl_core::execution::rerun::{Kept, NothingKept, Rerun};
use noetl_core::execution::state::Execution;
use noetl_core::head::{Head, Status};
use noetl_core::id::ExecutionId;
use noetl_core::result::LargeResult;
use noetl_store::catalog::ResourceKey;
use noetl_store::{EventQuery, StoreError};
use serde_json::{Map, Value};

use crate::engine::Engine;
use crate::start::{Extra, StartError, StartRequest, Started};

/// What is to be run again.
#[derive(Debug, Clone)]
pub struct RerunRequest {
    /// The execution before.
    pub execution_id: ExecutionId,
    /// What has finished is kept, and the new execution goes on from there.
    pub keep_finished: bool,
    /// With the newest version of the playbook, instead of the one that the execution had.
    pub latest: bool,
    /// Laid over the inputs that the execution had.
    pub payload: Map<String, Value>,
    /// Identity of who asks.
    pub started_by: Option<String>,
}

/// An execution that runs again.
#[derive(Debug, Clone)]
pub struct Rerunning {
    /// The new execution.
    pub started: Started,
    /// Steps whose results it has from the one before.
    pub kept: Vec<Arc<str>>,
    /// Where it goes on; none when it begins from the start.
    pub begins_at: Vec<Arc<str>>,
}

/// Why nothing runs again.
#[derive(Debug, thiserror::Error)]
pub enum RerunError {
    /// 404.
    #[error("execution {0} is not known")]
    Unknown(ExecutionId),
    /// 409.
    #[error("Execution {0} is still RUNNING")]
    Running(ExecutionId),
    /// 409.
    #[error("execution {0} is the cleanup of another one: rerun that one")]
    Cleanup(ExecutionId),
    /// 409 or 422.
    #[error(transparent)]
    Nothing(#[from] NothingKept),
    /// What keeps an execution from starting.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl From<StoreError> for RerunError {
    fn from(error: StoreError) -> Self {
        RerunError::Start(StartError::Store(error))
    }
}

impl Engine {
    /// Starts an execution with the inputs of one that has ended, from the start or from where that one stopped.
    pub async fn rerun(&self, request: RerunRequest) -> Result<Rerunning, RerunError> {
        let of = request.execution_id;
        let Some(head) = self.store.head(of).await? else { return Err(RerunError::Unknown(of)) };
        match head.status {
            Status::Running => return Err(RerunError::Running(of)),
            Status::Completed | Status::Failed | Status::Cancelled => {}
        }
        if head.cleanup_of.is_some() {
            return Err(RerunError::Cleanup(of));
        }
        let init = self.init_of(&head).await?;
        let target =
            if request.latest { ResourceKey::Latest(Arc::clone(&head.path)) } else { ResourceKey::Id(head.catalog_id) };
        let mut payload = init.workload.as_object().cloned().unwrap_or_default();
        payload.extend(request.payload);
        let start = StartRequest {
            target,
            payload,
            parent_execution_id: None,
            started_by: request.started_by,
            strict: init.strict,
            idempotency_key: None,
        };
        let (mut started, playbook) = self.about_to_start(&start.target).await?;
        let mut rerun = Rerun { of, kept: None };
        let mut results = Vec::new();
        if request.keep_finished {
            let mut kept = Kept::of(&self.before_the_end(&head).await?, &playbook)?;
            results = self.adopted(&mut kept, started.execution_id).await?;
            rerun.kept = Some(kept);
        }
        let kept = rerun.kept.as_ref();
        let names = kept.map(|kept| kept.steps.keys().cloned().collect()).unwrap_or_default();
        let begins_at = kept.map(|kept| kept.tokens.iter().map(|token| Arc::clone(&token.step)).collect());
        let extra = Extra { rerun: Some(rerun.clone()), results, ..Extra::default() };
        started.take(self.begin(&started, &playbook, &start, &extra).await?);
        Ok(Rerunning { started, kept: names, begins_at: begins_at.unwrap_or_default() })
    }

    async fn init_of(&self, head: &Head) -> Result<Initialized, StoreError> {
        let query = EventQuery { execution_id: Some(head.execution_id), limit: 1, ..EventQuery::default() };
        let (events, _) = self.store.events(query).await?;
        match events.into_iter().next().map(|recorded| recorded.event) {
            Some(Event::PlaybookInitialized(init)) => Ok(*init),
            Some(_) | None => {
                Err(StoreError::Corrupt(format!("the log of execution {} has no beginning", head.execution_id)))
            }
        }
    }

    /// Returns the state just before the terminal event: that one forgets what was under way.
    async fn before_the_end(&self, head: &Head) -> Result<Execution, StoreError> {
        let id = head.execution_id;
        let broken = |what: &str| StoreError::Corrupt(format!("execution {id}: {what}"));
        let end = self.store.terminal_event(id).await?.ok_or_else(|| broken("it has ended without an event"))?.version;
        let loaded = self.store.load(id).await?.ok_or_else(|| broken("it has vanished"))?;
        let snapshot = loaded.snapshot.as_ref().filter(|(version, _)| *version < end);
        let log = match snapshot {
            Some(_) => loaded.tail.into_iter().filter(|recorded| recorded.version < end).collect(),
            None => self.log(id, 0, end - 1).await?,
        };
        let from = snapshot.map(|(version, state)| (*version, &**state));
        Execution::fold(from, &log).map_err(|error| broken(&error.to_string()))
    }

    /// Copies the large results that are kept: the execution before may be pruned.
    async fn adopted(&self, kept: &mut Kept, execution_id: ExecutionId) -> Result<Vec<LargeResult>, StoreError> {
        let mut data = BTreeMap::new();
        for stored in kept.stored() {
            let Some(found) = self.stored_result(&stored.reference).await? else {
                return Err(StoreError::Corrupt(format!("there is no result {}", stored.reference)));
            };
            data.insert(stored.reference.clone(), found);
        }
        let now = self.now().await?;
        kept.adopt(execution_id, |stored| {
            let found = data.get(&stored.reference).map(Arc::clone);
            found.map(|found| (self.next_id(now), found)).ok_or_else(|| StoreError::Corrupt(stored.reference.clone()))
        })
    }
}
