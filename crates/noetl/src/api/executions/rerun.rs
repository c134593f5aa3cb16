//! `POST /api/executions/{execution_id}/rerun`: the same again, from the start or from where it stopped.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use noetl_core::execution::rerun::NothingKept;
use noetl_core::id::{CatalogId, ExecutionId};
use noetl_engine::rerun::{RerunError, RerunRequest};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::api::Api;
use crate::api::caller::{Caller, IdempotencyKey};
use crate::api::error::{ApiError, ErrorBody};
use crate::api::extract::{Body, PathId};
use crate::api::labels;

/// How to run it again. Nothing is needed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RerunBody {
    /// Keep the results of the steps that have finished, and go on from there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_finished: Option<bool>,
    /// With the newest version of the playbook.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latest: Option<bool>,
    /// Inputs, laid over those that the execution had.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub workload: Option<Map<String, Value>>,
    /// Another name of `workload`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub payload: Option<Map<String, Value>>,
    /// Laid over the labels that the execution had.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub labels: Option<Map<String, Value>>,
}

/// The new execution runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RerunReply {
    /// Its id.
    #[schema(value_type = String)]
    pub execution_id: ExecutionId,
    /// The execution before.
    #[schema(value_type = String)]
    pub rerun_of: ExecutionId,
    /// Always `started`.
    pub status: String,
    /// Catalog path.
    pub path: String,
    /// Catalog version.
    pub version: i64,
    /// Catalog id.
    #[schema(value_type = String)]
    pub catalog_id: CatalogId,
    /// Commands issued by the start; in the answer to a repeat, by now.
    pub commands_generated: u64,
    /// Finished steps whose results it builds on; none of those that follow where it goes on, which run again.
    pub kept_steps: Vec<String>,
    /// The steps it goes on with; none when it begins from the start.
    pub begins_at: Vec<String>,
}

/// Runs an execution that has ended again, as a new one with the same inputs.
///
/// With `keep_finished` the new execution has the results and variables of the steps that had finished, and goes on
/// with those that were under way, that had been arrived at, or that had failed the run. The same `Idempotency-Key`
/// gets the first answer again and starts nothing.
#[utoipa::path(
    post, path = "/api/executions/{execution_id}/rerun", tag = "execute", request_body = RerunBody,
    params(
        ("execution_id" = String, Path, description = "Which"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key gets the first answer again"),
    ),
    responses(
        (status = 200, body = RerunReply),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "It still runs, or nothing of it is left to run"),
        (status = 422, body = ErrorBody, description = "What is kept does not fit the playbook, or is too large"),
    )
)]
pub(in crate::api) async fn rerun(
    State(api): State<Api>,
    caller: Caller,
    PathId(execution_id): PathId<ExecutionId>,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    Body(body): Body<RerunBody>,
) -> Result<Json<RerunReply>, ApiError> {
    let payload = match (body.workload, body.payload) {
        (Some(_), Some(_)) => return Err(ApiError::bad_field("workload", "give only one of `workload` and `payload`")),
        (one, other) => one.or(other).unwrap_or_default(),
    };
    let request = RerunRequest {
        execution_id,
        keep_finished: body.keep_finished.unwrap_or(false),
        latest: body.latest.unwrap_or(false),
        payload,
        labels: labels::given(body.labels.as_ref())?,
        started_by: Some(caller.name()),
        idempotency_key,
    };
    let running = api.engine.rerun(request).await?;
    let names = |steps: Vec<std::sync::Arc<str>>| steps.iter().map(ToString::to_string).collect();
    Ok(Json(RerunReply {
        execution_id: running.started.execution_id,
        rerun_of: execution_id,
        status: "started".to_owned(),
        path: running.started.path.to_string(),
        version: running.started.version,
        catalog_id: running.started.catalog_id,
        commands_generated: running.started.commands_generated,
        kept_steps: names(running.kept),
        begins_at: names(running.begins_at),
    }))
}

impl From<RerunError> for ApiError {
    fn from(error: RerunError) -> Self {
        let message = error.to_string();
        match error {
            RerunError::Unknown(_) => ApiError::new(StatusCode::NOT_FOUND, "unknown_execution", message),
            RerunError::Running(_) => ApiError::new(StatusCode::CONFLICT, "still_running", message),
            RerunError::Cleanup(_) => ApiError::new(StatusCode::CONFLICT, "is_cleanup", message),
            RerunError::Nothing(NothingKept::Finished) => ApiError::new(StatusCode::CONFLICT, "nothing_left", message),
            RerunError::Nothing(NothingKept::NoStep(_) | NothingKept::TooLarge { .. }) => {
                ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "can_not_keep", message)
            }
            RerunError::Start(error) => error.into(),
        }
    }
}
