//! `GET /api/executions/{execution_id}/steps`: what became of each step.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use noetl_core::execution::state::Execution;
use noetl_core::id::ExecutionId;
use noetl_engine::Inspection;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::api::Api;
use crate::api::error::{ApiError, ErrorBody};
use crate::api::extract::{PathId, StepName};
use crate::api::suggest;

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum StepStatus {
    /// Not reached, or reached and not begun.
    Pending,
    /// A visit is under way.
    Running,
    /// The last visit worked.
    Completed,
    /// The last visit ended with an error.
    Failed,
    /// Reached, and not admitted.
    Skipped,
    /// A visit was under way when the execution ended.
    Cancelled,
}

/// A step and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StepSummary {
    /// Step name.
    pub step: String,
    /// Where it stands.
    pub status: StepStatus,
    /// How often it was entered.
    pub visits: u32,
}

/// The steps of an execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StepsReply {
    /// Which.
    #[schema(value_type = String)]
    pub execution_id: ExecutionId,
    /// In the order of the playbook.
    pub steps: Vec<StepSummary>,
}

/// One step with its result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepReply {
    /// Step name.
    pub step: String,
    /// Where it stands.
    pub status: StepStatus,
    /// How often it was entered.
    pub visits: u32,
    /// What later templates see under the step's name, in full; that of the last visit.
    #[schema(value_type = Value)]
    pub result: Value,
    /// Why the last visit failed, as `{kind, code, message, …}`.
    #[schema(value_type = Value)]
    pub error: Value,
}

/// Lists the steps of an execution.
#[utoipa::path(
    get, path = "/api/executions/{execution_id}/steps", tag = "executions",
    params(("execution_id" = String, Path, description = "Which")),
    responses((status = 200, body = StepsReply), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody))
)]
pub(in crate::api) async fn steps(
    State(api): State<Api>,
    PathId(execution_id): PathId<ExecutionId>,
) -> Result<Json<StepsReply>, ApiError> {
    let inspection = inspect(&api, execution_id).await?;
    let execution = &inspection.execution;
    let steps = names(&inspection)
        .iter()
        .map(|name| StepSummary {
            step: name.to_string(),
            status: status(execution, name),
            visits: execution.steps.get(name).map_or(0, |step| step.visits),
        })
        .collect();
    Ok(Json(StepsReply { execution_id, steps }))
}

/// Shows one step with its result in full, wherever that is stored.
///
/// A name with slashes stands in the path as it is, or encoded.
#[utoipa::path(
    get, path = "/api/executions/{execution_id}/steps/{*step}", tag = "executions",
    params(
        ("execution_id" = String, Path, description = "Which"),
        ("step" = String, Path, description = "Step name; may hold slashes"),
    ),
    responses((status = 200, body = StepReply), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody))
)]
pub(in crate::api) async fn step(
    State(api): State<Api>,
    PathId(execution_id): PathId<ExecutionId>,
    StepName(name): StepName,
) -> Result<Json<StepReply>, ApiError> {
    let inspection = inspect(&api, execution_id).await?;
    let known = names(&inspection);
    if !known.contains(name.as_str()) {
        let meant = match suggest::closest(&name, known.iter().map(AsRef::as_ref)) {
            Some(close) => format!("; did you mean `{close}`?"),
            None => String::new(),
        };
        let message = format!("execution {execution_id} has no step `{name}`{meant}");
        return Err(ApiError::new(axum::http::StatusCode::NOT_FOUND, "unknown_step", message)
            .about_execution(execution_id.to_string()));
    }
    let state = inspection.execution.steps.get(name.as_str());
    let result = match state.and_then(|state| state.result.as_ref()) {
        Some(bound) => api.engine.result(bound).await?.as_ref().clone(),
        None => Value::Null,
    };
    Ok(Json(StepReply {
        status: status(&inspection.execution, &name),
        visits: state.map_or(0, |state| state.visits),
        result,
        error: state.and_then(|state| state.error.as_deref()).cloned().unwrap_or(Value::Null),
        step: name,
    }))
}

async fn inspect(api: &Api, execution_id: ExecutionId) -> Result<Inspection, ApiError> {
    api.engine.inspect(execution_id).await?.ok_or_else(|| ApiError::unknown_execution(execution_id))
}

/// Returns the playbook's steps in its order; steps that only the log knows (an entry that can not be compiled) after
/// them.
pub(in crate::api) fn names(inspection: &Inspection) -> indexmap::IndexSet<Arc<str>> {
    let written = inspection.playbook.iter().flat_map(|playbook| playbook.index.keys().cloned());
    written.chain(inspection.execution.steps.keys().cloned()).collect()
}

/// Returns where the step called `name` stands.
///
/// A step that was entered again when the execution ended shows its last finished visit: its result is that one's.
pub(in crate::api) fn status(execution: &Execution, name: &str) -> StepStatus {
    if execution.visits.iter().any(|visit| &*visit.step == name) {
        return StepStatus::Running;
    }
    match execution.steps.get(name) {
        None => StepStatus::Pending,
        Some(step) if step.error.is_some() => StepStatus::Failed,
        Some(step) if step.result.is_some() => StepStatus::Completed,
        // The end of an execution takes the visits under way off the books.
        Some(step) if step.visits > 0 => StepStatus::Cancelled,
        Some(_) if execution.tokens.iter().any(|token| &*token.step == name) => StepStatus::Pending,
        Some(_) => StepStatus::Skipped,
    }
}
