//! `POST /api/executions/{execution_id}/pause` and `/resume`: nothing more begins until somebody lets it go on.

use axum::Json;
use axum::extract::State;
use noetl_core::head::PauseInfo;
use noetl_core::id::{CancellationId, ExecutionId};
use noetl_engine::{CancelError, Change, PauseAnswer, PauseError, PauseRequest};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::cancel::{InFlightCommand, reason};
use crate::api::Api;
use crate::api::caller::Caller;
use crate::api::error::{ApiError, ErrorBody};
use crate::api::extract::{Body, PathId};

/// How to pause or to resume. Everything is optional; no body at all, `{}` and `null` are the same.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PauseBody {
    /// Why: free text up to 4 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Also every descendant, at any depth. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cascade: Option<bool>,
}

/// What was paused or resumed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PauseReply {
    /// `paused` or `running`: where the named execution stands now; `ended` when only descendants were reached.
    pub status: String,
    /// The execution that the request named.
    #[schema(value_type = String)]
    pub execution_id: ExecutionId,
    /// What this request changed, the named one first if it is among them; empty when it was so before.
    #[schema(value_type = Vec<String>)]
    pub changed_executions: Vec<ExecutionId>,
    /// What workers hold: it runs to its end, and what it gives is kept.
    pub in_flight: Vec<InFlightCommand>,
    /// Who paused the named one and why, when it is paused now.
    pub pause: Option<Pause>,
    /// Everything asked for has been decided. If false, the rest goes on as a job.
    pub complete: bool,
    /// The walk down the family, when there was one.
    #[schema(value_type = Option<String>)]
    pub job_id: Option<CancellationId>,
    /// One sentence for people.
    pub message: String,
}

/// Who paused an execution, since when and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pause {
    /// The authenticated identity, else `api`, `cli`.
    pub paused_by: String,
    /// Who said to have asked for it.
    pub requested_by: Option<String>,
    /// Free text.
    pub reason: Option<String>,
    /// Since when.
    pub since: String,
    /// The execution that the request named.
    #[schema(value_type = String)]
    pub requested_execution_id: ExecutionId,
}

impl From<&PauseInfo> for Pause {
    fn from(pause: &PauseInfo) -> Self {
        Pause {
            paused_by: pause.paused_by.clone(),
            requested_by: pause.requested_by.clone(),
            reason: pause.reason.clone(),
            since: pause.since.to_iso(),
            requested_execution_id: pause.requested_execution_id,
        }
    }
}

impl From<PauseAnswer> for PauseReply {
    fn from(answer: PauseAnswer) -> Self {
        PauseReply {
            status: answer.state.to_owned(),
            execution_id: answer.execution_id,
            changed_executions: answer.changed,
            in_flight: answer.in_flight.into_iter().map(InFlightCommand::from).collect(),
            pause: answer.pause.as_ref().map(Pause::from),
            complete: answer.complete,
            job_id: answer.job_id,
            message: answer.message,
        }
    }
}

/// Pauses an execution, and with `cascade` every descendant.
///
/// No command of it is issued or claimed until it is resumed. What workers hold runs to its end and is kept; moments
/// that come wait; its own time limits go on; a cancel works as on any other. Pausing a paused one changes nothing.
#[utoipa::path(
    post, path = "/api/executions/{execution_id}/pause", tag = "executions", request_body = Option<PauseBody>,
    params(
        ("execution_id" = String, Path, description = "Which"),
        ("x-noetl-requested-by" = Option<String>, Header, description = "On whose behalf, as the client says"),
    ),
    responses(
        (status = 200, body = PauseReply),
        (status = 400, body = ErrorBody, description = "The id or the body is malformed"),
        (status = 404, body = ErrorBody, description = "No such execution"),
        (status = 409, body = ErrorBody, description = "It has ended already"),
    )
)]
pub(in crate::api) async fn pause(
    State(api): State<Api>,
    caller: Caller,
    PathId(execution_id): PathId<ExecutionId>,
    Body(body): Body<PauseBody>,
) -> Result<Json<PauseReply>, ApiError> {
    decide(&api, &caller, execution_id, body, Change::Pause).await
}

/// Lets a paused execution go on, and with `cascade` every descendant.
///
/// Resuming one that is not paused changes nothing.
#[utoipa::path(
    post, path = "/api/executions/{execution_id}/resume", tag = "executions", request_body = Option<PauseBody>,
    params(
        ("execution_id" = String, Path, description = "Which"),
        ("x-noetl-requested-by" = Option<String>, Header, description = "On whose behalf, as the client says"),
    ),
    responses(
        (status = 200, body = PauseReply),
        (status = 400, body = ErrorBody, description = "The id or the body is malformed"),
        (status = 404, body = ErrorBody, description = "No such execution"),
        (status = 409, body = ErrorBody, description = "It has ended already"),
    )
)]
pub(in crate::api) async fn resume(
    State(api): State<Api>,
    caller: Caller,
    PathId(execution_id): PathId<ExecutionId>,
    Body(body): Body<PauseBody>,
) -> Result<Json<PauseReply>, ApiError> {
    decide(&api, &caller, execution_id, body, Change::Resume).await
}

async fn decide(
    api: &Api,
    caller: &Caller,
    execution_id: ExecutionId,
    body: PauseBody,
    change: Change,
) -> Result<Json<PauseReply>, ApiError> {
    let request = PauseRequest {
        execution_id,
        change,
        reason: reason(body.reason)?,
        cascade: body.cascade.unwrap_or(false),
        by: caller.name(),
        requested_by: caller.requested_by.clone(),
    };
    Ok(Json(api.engine.pause(&request).await?.into()))
}

impl From<PauseError> for ApiError {
    fn from(error: PauseError) -> Self {
        match error {
            PauseError::Unknown(execution_id) => ApiError::unknown_execution(execution_id),
            PauseError::AlreadyEnded { head } => CancelError::of_ended(head).into(),
            PauseError::Store(error) => error.into(),
        }
    }
}
