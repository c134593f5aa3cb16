//! Cancelling executions, alone or with their descendants.

use noetl_core::control::cancel::InFlight;
use noetl_core::head::{Head, Status};
use noetl_core::id::{CancellationId, ExecutionId};
use noetl_core::playbook::CancelMode;
use noetl_store::StoreError;
use serde::{Deserialize, Serialize};

use crate::engine::Engine;

/// Who wants what cancelled.
#[derive(Debug, Clone)]
pub struct CancelRequest {
    /// Which.
    pub execution_id: ExecutionId,
    /// Free text.
    pub reason: Option<String>,
    /// Descendants too, at any depth.
    pub cascade: bool,
    /// How what runs is treated; `None` = each execution's own way.
    pub mode: Option<CancelMode>,
    /// Between the polite stop and the kill, in milliseconds.
    pub grace_ms: Option<u64>,
    /// How long to wait until everything cancelled has quiesced, in milliseconds.
    pub wait_ms: u64,
    /// Only say what would be cancelled.
    pub dry_run: bool,
    /// The authenticated identity, else `api`, `cli`, …
    pub cancelled_by: String,
    /// Self-declared.
    pub requested_by: Option<String>,
    /// Where the request came from.
    pub remote: Option<String>,
    /// A repeat with the same key gets the first answer.
    pub idempotency_key: Option<String>,
}

/// What became of a request to cancel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CancelAnswer {
    /// Done, or only looked.
    pub status: CancelStatus,
    /// The execution that the request named.
    pub execution_id: ExecutionId,
    /// What this request cancelled, the named one first if it is among them.
    pub cancelled_executions: Vec<ExecutionId>,
    /// What a request without `dry_run` would cancel now.
    pub would_cancel: Vec<ExecutionId>,
    /// The named one was cancelled before, and what still runs is now stopped harder.
    pub escalated: bool,
    /// The request's reason.
    pub reason: Option<String>,
    /// The mode that holds for the named execution.
    pub mode: CancelMode,
    /// What workers held at the decision.
    pub in_flight: Vec<InFlight>,
    /// Descendants that run on because `cascade` was not asked.
    pub active_descendants: u64,
    /// Nothing of what was cancelled runs any more.
    pub quiesced: bool,
    /// Everything asked for has been decided.
    pub complete: bool,
    /// The cascade, to be asked about later.
    pub job_id: Option<CancellationId>,
    /// One sentence for people.
    pub message: String,
}

/// Kinds of answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelStatus {
    /// It was decided.
    Cancelled,
    /// Nothing was changed.
    DryRun,
}

/// Why nothing was cancelled.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// 404.
    #[error("Execution {0} not found")]
    Unknown(ExecutionId),
    /// 409. The head says when, and for a cancelled one who and why.
    #[error("Execution {} is already {}", head.execution_id, head.status.as_str())]
    AlreadyEnded {
        /// As it stands.
        head: Box<Head>,
    },
    /// 503 or 507.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CancelError {
    /// Returns the status of an execution that had ended.
    pub fn ended(&self) -> Option<Status> {
        match self {
            CancelError::AlreadyEnded { head } => Some(head.status),
            CancelError::Unknown(_) | CancelError::Store(_) => None,
        }
    }
}

impl Engine {
    /// Cancels an execution, and with `cascade` its descendants. What it answers is durable.
    pub async fn cancel(&self, request: CancelRequest) -> Result<CancelAnswer, CancelError> {
        drop(request);
        unimplemented!()
    }
}
