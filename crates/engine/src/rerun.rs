//! Reruns: what a new execution takes from the one before.

use std::collections::BTreeMap;
use std::sync::Arc;

use noetl_core::event::{Event, Initialized};
use noetl_core::execution::rerun::{Kept, NothingKept, Rerun};
use noetl_core::execution::state::Execution;
use noetl_core::head::{Head, Status};
use noetl_core::id::ExecutionId;
use noetl_core::labels::{self, Labels};
use noetl_core::result::LargeResult;
use noetl_store::catalog::ResourceKey;
use noetl_store::{EventQuery, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::engine::Engine;
use crate::once;
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
    /// Laid over the labels that the execution had.
    pub labels: Labels,
    /// Identity of who asks.
    pub started_by: Option<String>,
    /// A repeat with the same key gets the first answer.
    pub idempotency_key: Option<String>,
}

/// An execution that runs again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rerunning {
    /// The new execution.
    pub started: Started,
    /// Finished steps whose results it builds on; none of those that follow where it goes on, which run again.
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
            labels: labels::over(&head.labels, &request.labels).map_err(StartError::Labels)?,
            idempotency_key: None,
        };
        let state = if request.keep_finished { Some(self.before_the_end(&head).await?) } else { None };
        let key = request.idempotency_key.as_deref().map(|key| format!("rerun/{of}/{key}"));
        let kept = match &key {
            Some(key) => self.store.answer(key).await?.map(|kept| once::read::<Rerunning>(key, kept)).transpose()?,
            None => None,
        };
        let mut answer = match (kept, &key) {
            (Some(kept), _) => Rerunning { started: Started { repeated: true, ..kept.started }, ..kept },
            (None, None) => self.about_to_rerun(&start.target, state.as_ref()).await?,
            // As with a start: the key is bound to an id before that id exists, so that whoever repeats the request,
            // after a crash in between or at the same time, starts the same execution, and only one start can land.
            (None, Some(key)) => {
                let first = self.about_to_rerun(&start.target, state.as_ref()).await?;
                let kept = serde_json::to_value(&first).unwrap_or(Value::Null);
                let mut kept: Rerunning = once::read(key, self.store.keep_answer(key, kept).await?)?;
                kept.started.repeated = kept.started.execution_id != first.started.execution_id;
                kept
            }
        };
        if answer.started.repeated
            && let Some(head) = self.store.head(answer.started.execution_id).await?
        {
            answer.started.commands_generated = head.commands_issued;
            return Ok(answer);
        }
        self.go_again(of, state.as_ref(), &mut answer.started, &start).await?;
        Ok(answer)
    }

    /// Returns a rerun that has an id and is not there yet.
    async fn about_to_rerun(&self, target: &ResourceKey, state: Option<&Execution>) -> Result<Rerunning, RerunError> {
        let (started, playbook) = self.about_to_start(target).await?;
        let kept = state.map(|state| Kept::of(state, &playbook)).transpose()?.unwrap_or_default();
        let begins_at = kept.tokens.iter().map(|token| Arc::clone(&token.step)).collect();
        Ok(Rerunning { started, kept: kept.built_on(&playbook), begins_at })
    }

    /// Starts the execution that an answer speaks of, with what `state` has finished.
    async fn go_again(
        &self,
        of: ExecutionId,
        state: Option<&Execution>,
        started: &mut Started,
        start: &StartRequest,
    ) -> Result<(), RerunError> {
        // Of that version: the catalog may have gone on since the first request.
        let (_, playbook) = self.target(&ResourceKey::Id(started.catalog_id)).await?;
        let mut rerun = Rerun { of, kept: None };
        let mut results = Vec::new();
        if let Some(state) = state {
            let mut kept = Kept::of(state, &playbook)?;
            results = self.adopted(&mut kept, started.execution_id).await?;
            rerun.kept = Some(kept);
        }
        let extra = Extra { rerun: Some(rerun), results, ..Extra::default() };
        let begun = self.begin(started, &playbook, start, &extra).await?;
        started.take(begun);
        Ok(())
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
