//! Starting executions.

use noetl_core::diag::Diagnostic;
use noetl_core::head::Status;
use noetl_core::id::{CatalogId, ExecutionId};
use noetl_store::StoreError;
use noetl_store::catalog::ResourceKey;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;

use crate::engine::Engine;

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
    /// 422: what is in the catalog is refused by this version.
    #[error("playbook {path} in the catalog can not be run: {}", diagnostics.first().map_or("it is no playbook", |d| d.message.as_str()))]
    Broken {
        /// Which.
        path: Arc<str>,
        /// Why.
        diagnostics: Vec<Diagnostic>,
    },
    /// 503 or 507.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Engine {
    /// Starts an execution; it is durable when this returns.
    pub async fn start(&self, request: StartRequest) -> Result<Started, StartError> {
        drop(request);
        unimplemented!()
    }
}
