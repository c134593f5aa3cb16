//! Starting executions.

use std::sync::Arc;

use noetl_core::append::{Due, DueChange, DueKind, RefusedBy, Verdict};
use noetl_core::diag::Diagnostic;
use noetl_core::event::Parent;
use noetl_core::execution::draft::{self, StartRefusal};
use noetl_core::execution::rerun::Rerun;
use noetl_core::execution::{Env, Start, StartParent};
use noetl_core::head::{Head, Status};
use noetl_core::id::{CatalogId, ExecutionId};
use noetl_core::labels::{LabelError, Labels};
use noetl_core::playbook::Playbook;
use noetl_core::result::LargeResult;
use noetl_core::schedule::Tick;
use noetl_store::StoreError;
use noetl_store::catalog::{Resource, ResourceKey};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::catalog::Stock;
use crate::engine::Engine;
use crate::hold;
use crate::landing::{Fold, Landing, Whose};

/// What is to be started.
#[derive(Debug, Clone)]
pub struct StartRequest {
    /// The playbook.
    pub target: ResourceKey,
    /// Data over the workload's defaults; never rendered.
    pub payload: Map<String, Value>,
    /// The execution that the new one becomes a child of.
    pub parent_execution_id: Option<ExecutionId>,
    /// Identity of who asks.
    pub started_by: Option<String>,
    /// Every unhandled error fails the run.
    pub strict: bool,
    /// Laid over the labels of the playbook.
    pub labels: Labels,
    /// A repeat with the same key gets the first answer.
    pub idempotency_key: Option<String>,
}

/// An execution that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Its id.
    pub execution_id: ExecutionId,
    /// Catalog path.
    pub path: Arc<str>,
    /// Catalog version.
    pub version: i64,
    /// Catalog id.
    pub catalog_id: CatalogId,
    /// How many commands its start issued.
    pub commands_generated: u64,
    /// It was cancelled where it began: others have its concurrency key.
    #[serde(default)]
    pub cancelled: bool,
    /// An earlier request with the same key started it.
    #[serde(default)]
    pub repeated: bool,
}

/// Why an execution was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// 404.
    #[error("playbook {0} is not in the catalog")]
    UnknownPlaybook(String),
    /// 404.
    #[error("parent execution {0} is not known")]
    ParentUnknown(ExecutionId),
    /// 409.
    #[error("parent execution {} is already {}", .0, .1.as_str())]
    ParentEnded(ExecutionId, Status),
    /// 422.
    #[error("the family is {depth} levels deep already (limits.max_depth)")]
    TooDeep {
        /// How deep the parent is.
        depth: u32,
    },
    /// 422.
    #[error("workload.{name}: {message}")]
    Workload {
        /// Which default can not be rendered.
        name: String,
        /// Why.
        message: String,
    },
    /// 422.
    #[error("executor.spec.concurrency.key: {message}")]
    Key {
        /// Why there is none.
        message: String,
    },
    /// 422.
    #[error("labels: {0}")]
    Labels(LabelError),
    /// 409.
    #[error("{message}")]
    KeyHeld {
        /// Which key, who has it, and how many may.
        message: String,
    },
    /// 422: what is in the catalog is refused by this version.
    #[error("playbook {path} in the catalog can not be run: {}", diagnostics.first().map_or("it is no playbook", |d| d.message.as_str()))]
    Broken {
        /// Which.
        path: Arc<str>,
        /// Why.
        diagnostics: Vec<Diagnostic>,
    },
    /// 409: another server has started it, or the schedule is paused.
    #[error("the schedule does not wait for this tick any more")]
    TickTaken,
    /// 503 or 507.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What some starts have besides their request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Extra {
    /// The tick of a schedule.
    pub(crate) tick: Option<Tick>,
    /// The execution whose place it takes: it is cancelled.
    pub(crate) displaces: Option<ExecutionId>,
    /// The execution that is run again.
    pub(crate) rerun: Option<Rerun>,
    /// Large results that it has from that one.
    pub(crate) results: Vec<LargeResult>,
}

impl Engine {
    /// Starts the run of a schedule's tick, once among all servers, in place of another execution if it says so.
    pub(crate) async fn start_tick(
        &self,
        request: &StartRequest,
        tick: &Tick,
        displaces: Option<ExecutionId>,
    ) -> Result<Started, StartError> {
        let (mut started, playbook) = self.about_to_start(&request.target).await?;
        let extra = Extra { tick: Some(tick.clone()), displaces, ..Extra::default() };
        started.take(self.begin(&started, &playbook, request, &extra).await?);
        Ok(started)
    }

    /// Returns an execution that has an id and is not there yet.
    pub(crate) async fn about_to_start(&self, target: &ResourceKey) -> Result<(Started, Arc<Playbook>), StartError> {
        let (resource, playbook) = self.target(target).await?;
        let now = self.now().await?;
        let started = Started {
            execution_id: ExecutionId(self.next_id(now)),
            path: Arc::clone(&resource.path),
            version: resource.version,
            catalog_id: resource.catalog_id,
            commands_generated: 0,
            cancelled: false,
            repeated: false,
        };
        Ok((started, playbook))
    }

    /// Starts an execution; it is durable when this returns. The engine must have been spawned.
    pub async fn start(&self, request: StartRequest) -> Result<Started, StartError> {
        let (mut first, playbook) = self.about_to_start(&request.target).await?;
        let Some(key) = request.idempotency_key.as_deref().map(|key| format!("start/{key}")) else {
            first.take(self.begin(&first, &playbook, &request, &Extra::default()).await?);
            return Ok(first);
        };
        // The key is bound to an id before that id exists. Whoever repeats the request, after a crash in between or
        // at the same time, starts the same execution, and only one start of it can land.
        let kept = self.store.keep_answer(&key, json(&first)).await?;
        let kept: Started = serde_json::from_value(kept)
            .map_err(|error| StoreError::Corrupt(format!("the answer kept for {key}: {error}")))?;
        if kept.execution_id != first.execution_id
            && let Some(head) = self.store.head(kept.execution_id).await?
        {
            let mut kept = Started { repeated: true, ..kept };
            kept.take(Begun::of(&head));
            return Ok(kept);
        }
        let (_, playbook) = self.target(&ResourceKey::Id(kept.catalog_id)).await?;
        let repeated = kept.execution_id != first.execution_id;
        let mut kept = Started { repeated, ..kept };
        kept.take(self.begin(&kept, &playbook, &request, &Extra::default()).await?);
        Ok(kept)
    }

    pub(crate) async fn target(&self, key: &ResourceKey) -> Result<(Arc<Resource>, Arc<Playbook>), StartError> {
        let entry = match key {
            ResourceKey::Id(catalog_id) => self.entry(*catalog_id).await?,
            ResourceKey::Latest(_) | ResourceKey::Version(..) => self.entry_named(key.clone()).await?,
        };
        let Some(entry) = entry else {
            return Err(StartError::UnknownPlaybook(match key {
                ResourceKey::Id(catalog_id) => catalog_id.to_string(),
                ResourceKey::Latest(path) => path.to_string(),
                ResourceKey::Version(path, version) => format!("{path} version {version}"),
            }));
        };
        match &entry.playbook {
            Ok(playbook) => Ok((Arc::clone(&entry.resource), Arc::clone(playbook))),
            Err(diagnostics) => {
                Err(StartError::Broken { path: Arc::clone(&entry.resource.path), diagnostics: diagnostics.clone() })
            }
        }
    }

    /// Starts the execution that `started` describes, unless it exists.
    pub(crate) async fn begin(
        &self,
        started: &Started,
        playbook: &Arc<Playbook>,
        request: &StartRequest,
        extra: &Extra,
    ) -> Result<Begun, StartError> {
        let parent = match request.parent_execution_id {
            Some(parent) => Some(self.parent(parent).await?),
            None => None,
        };
        let start = Start {
            execution_id: started.execution_id,
            catalog_id: started.catalog_id,
            version: started.version,
            payload: request.payload.clone(),
            parent: parent.as_ref().map(|parent| StartParent {
                shield: None,
                parent: Parent { execution_id: parent.execution_id, command_id: None, return_step: None },
                root_execution_id: parent.root_execution_id,
                depth: parent.depth,
            }),
            started_by: request.started_by.clone(),
            strict: request.strict,
            labels: request.labels.clone(),
            rerun: extra.rerun.clone(),
        };
        let mut stock = Stock::default();
        loop {
            let now = self.now().await?;
            let mut promise = self.desk.spare();
            let mut hands = promise.hands();
            let decided = {
                let mut env = Env {
                    playbook,
                    now,
                    ids: &mut hold(&self.ids),
                    library: &stock.library,
                    books: &stock.books,
                    environment: &self.options.environment,
                    hands: &mut hands,
                };
                draft::start(&start, &mut env)
            };
            let (execution, mut append) = match decided {
                Ok(decided) => decided,
                Err(StartRefusal::Needs(needs)) => {
                    drop(promise);
                    self.fetch(needs, &mut stock).await?;
                    continue;
                }
                Err(StartRefusal::Workload { name, message }) => return Err(StartError::Workload { name, message }),
                Err(StartRefusal::TooDeep { depth }) => return Err(StartError::TooDeep { depth }),
                Err(StartRefusal::Labels(error)) => return Err(StartError::Labels(error)),
                Err(StartRefusal::Key { message }) => return Err(StartError::Key { message }),
                Err(refusal @ StartRefusal::KeyHeld { .. }) => {
                    let message = refusal.to_string();
                    // One that is sent again may have started before the key was taken.
                    return match self.store.head(started.execution_id).await? {
                        Some(head) => Ok(Begun::of(&head)),
                        None => Err(StartError::KeyHeld { message }),
                    };
                }
            };
            promise.keep_used(&hands);
            append.due.extend(extra.tick.clone().map(DueChange::Tick));
            append.due.extend(extra.displaces.map(|before| {
                let (kind, key) = (DueKind::Displaced, started.execution_id.0);
                DueChange::Set(Due { execution_id: before, kind, key, at: now, command: None })
            }));
            append.results.extend(extra.results.iter().cloned());
            let begun = Begun {
                commands_issued: append.head.commands_issued,
                cancelled: append.head.status == Some(Status::Cancelled),
            };
            let whose = Whose::of_init(&execution.init);
            let landing = Landing::of(&append, &whose, Fold::State(Box::new(execution))).with(promise);
            match self.batcher.append(append, landing).await.0? {
                Verdict::Landed { .. } => {
                    self.metrics.started.add_one();
                    return Ok(begun);
                }
                // The parent's head was held by another transaction.
                Verdict::Busy | Verdict::Conflict => {}
                // A request with the same key was faster.
                Verdict::Refused(RefusedBy::Exists) => {
                    let head = self.store.head(started.execution_id).await?;
                    return Ok(head.as_ref().map_or(begun, Begun::of));
                }
                Verdict::Refused(RefusedBy::ParentUnknown | RefusedBy::ParentEnded) => {
                    if let Some(parent) = request.parent_execution_id {
                        self.parent(parent).await?;
                    }
                }
                Verdict::Refused(RefusedBy::TickTaken) => return Err(StartError::TickTaken),
                // Its concurrency key has changed hands: decided again on who has it now.
                Verdict::Refused(RefusedBy::KeyHeld) => stock.forget_holders(),
                Verdict::Refused(by @ (RefusedBy::Unknown | RefusedBy::Ended | RefusedBy::NotPending)) => {
                    return Err(StoreError::BadData(format!("a start was refused: {by:?}")).into());
                }
            }
        }
    }

    async fn parent(&self, execution_id: ExecutionId) -> Result<Head, StartError> {
        let Some(head) = self.store.head(execution_id).await? else {
            return Err(StartError::ParentUnknown(execution_id));
        };
        match head.status {
            Status::Running => Ok(head),
            ended @ (Status::Completed | Status::Failed | Status::Cancelled) => {
                Err(StartError::ParentEnded(execution_id, ended))
            }
        }
    }
}

/// What came of a start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begun {
    pub(crate) commands_issued: u64,
    /// It was cancelled where it began.
    pub(crate) cancelled: bool,
}

impl Begun {
    fn of(head: &Head) -> Self {
        let cancelled = head.status == Status::Cancelled && head.steps_entered == 0;
        Begun { commands_issued: head.commands_issued, cancelled }
    }
}

impl Started {
    pub(crate) fn take(&mut self, begun: Begun) {
        self.commands_generated = begun.commands_issued;
        self.cancelled = begun.cancelled;
    }
}

fn json(started: &Started) -> Value {
    serde_json::to_value(started).unwrap_or(Value::Null)
}
