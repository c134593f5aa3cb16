//! `GET /api/executions/{execution_id}/cancellation-check`: what a worker asks before it runs something.

use axum::Json;
use axum::extract::State;
use noetl_core::head::{Head, Status};
use noetl_core::id::ExecutionId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{decisive_event, head_of};
use crate::api::Api;
use crate::api::error::{ApiError, ErrorBody};
use crate::api::extract::PathId;

/// Whether an execution is over, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckReply {
    /// Which.
    #[schema(value_type = String)]
    pub execution_id: ExecutionId,
    /// `RUNNING`, `COMPLETED`, `FAILED`, `CANCELLED`.
    pub status: String,
    /// The event that made the status what it is, whatever came later.
    pub event_type: String,
    /// It is cancelled.
    pub cancelled: bool,
    /// It completed.
    pub completed: bool,
    /// It failed.
    pub failed: bool,
    /// The same as `cancelled`.
    pub is_cancelled: bool,
    /// Nothing of it runs any more.
    pub quiesced: bool,
}

impl CheckReply {
    fn of(head: &Head) -> Self {
        let cancelled = head.status == Status::Cancelled;
        CheckReply {
            execution_id: head.execution_id,
            status: head.status.as_str().to_owned(),
            event_type: decisive_event(head.status).to_owned(),
            cancelled,
            completed: head.status == Status::Completed,
            failed: head.status == Status::Failed,
            is_cancelled: cancelled,
            quiesced: head.quiesced_at.is_some(),
        }
    }
}

/// Tells whether an execution is cancelled.
#[utoipa::path(
    get, path = "/api/executions/{execution_id}/cancellation-check", tag = "executions",
    params(("execution_id" = String, Path, description = "Which")),
    responses((status = 200, body = CheckReply), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody))
)]
pub(in crate::api) async fn check(
    State(api): State<Api>,
    PathId(execution_id): PathId<ExecutionId>,
) -> Result<Json<CheckReply>, ApiError> {
    Ok(Json(CheckReply::of(&head_of(&api, execution_id).await?)))
}
