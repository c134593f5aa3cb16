//! `POST /api/commands/{event_id}/advance`: what a command does next, for workers that only run tools.

use axum::Json;
use axum::extract::State;
use noetl_core::id::{CommandId, EventId, ExecutionId, SessionId};
use noetl_core::tool::{ErrorKind, Stopped, ToolCall, ToolError, ToolOutcome};
use noetl_core::work::Report;
use noetl_engine::{Advance, Advanced};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{Said, schema};
use crate::api::Api;
use crate::api::error::{ApiError, ErrorBody};
use crate::api::extract::PathId;

/// Who asks, and what the last call came to.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
pub struct AdvanceBody {
    /// The worker's session.
    #[schema(value_type = String)]
    pub session_id: SessionId,
    /// Whose command it is.
    #[schema(value_type = String)]
    pub execution_id: ExecutionId,
    /// The attempt that the worker holds.
    pub epoch: u32,
    /// What the last call came to; none before the first.
    #[serde(default)]
    pub outcome: Option<OutcomeBody>,
    /// What came with the last answer.
    #[serde(default)]
    #[schema(value_type = Option<Value>)]
    pub continuation: Option<Value>,
}

/// How a tool ended.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
pub struct OutcomeBody {
    /// What it gave.
    #[serde(default)]
    #[schema(value_type = Value)]
    pub data: Value,
    /// Why it failed, if it did.
    #[serde(default)]
    pub error: Option<FailureBody>,
    /// How far stopping it had to go, if it was stopped: `stopped`, `killed` or `unconfirmed`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub stopped: Option<Stopped>,
}

/// Why a tool failed.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
pub struct FailureBody {
    /// In words, without secrets.
    pub message: String,
    /// A stable code, such as `EXIT_3`.
    #[serde(default = "failed")]
    pub code: String,
    /// What kind of failure, for policies: `code`, `connection`, `timeout`, …
    #[serde(default = "code")]
    #[schema(value_type = Option<String>)]
    pub kind: ErrorKind,
    /// Whether trying again may help.
    #[serde(default)]
    pub retryable: bool,
    /// Fails the run, unless a policy or an arc handles it.
    #[serde(default)]
    pub hard: bool,
    /// Further facts.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub details: Map<String, Value>,
}

fn failed() -> String {
    "FAILED".to_owned()
}

fn code() -> ErrorKind {
    ErrorKind::Code
}

/// What the command does next: exactly one of `call`, `wait_ms` and `report`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, ToSchema)]
pub struct AdvanceReply {
    /// Run this tool, then ask again with its outcome: `{step, iteration, label, kind, config, input, context,
    /// attempt, timeout_ms}`, with everything rendered.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub call: Option<ToolCall>,
    /// Wait so many milliseconds, then ask again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// To be sent along when asking again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    pub continuation: Option<Value>,
    /// It is over here: this belongs into the `reports` of the next `POST /api/worker/report`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Report>)]
    pub report: Option<Report>,
}

/// Says what a command that the worker holds does next: which tool to run, or what to report.
#[utoipa::path(
    post, path = "/api/commands/{event_id}/advance", tag = "worker", request_body = AdvanceBody,
    params(("event_id" = String, Path, description = "The id of the command")),
    responses(
        (status = 200, body = AdvanceReply),
        (status = 400, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "The command is not held by this session (any more)"),
        (status = 410, body = ErrorBody, description = "The session is over: stop what runs and say hello again"),
    )
)]
pub(in crate::api) async fn advance(
    State(api): State<Api>,
    // The segment has one name in every path.
    PathId(EventId(id)): PathId<EventId>,
    Said(body): Said<AdvanceBody>,
) -> Result<Json<AdvanceReply>, ApiError> {
    let AdvanceBody { session_id, execution_id, epoch, outcome, continuation } = body;
    let command_id = CommandId(id);
    let outcome = outcome.map(OutcomeBody::into_outcome);
    let asked = Advance { session_id, execution_id, command_id, epoch, outcome, continuation };
    let none = AdvanceReply::default();
    Ok(Json(match api.engine.advance(asked).await? {
        Advanced::Call { call, continuation } => {
            AdvanceReply { call: Some(*call), continuation: Some(continuation), ..none }
        }
        Advanced::Wait { ms, continuation } => {
            AdvanceReply { wait_ms: Some(ms), continuation: Some(continuation), ..none }
        }
        Advanced::Report(outcome) => {
            AdvanceReply { report: Some(Report { execution_id, command_id, epoch, outcome }), ..none }
        }
    }))
}

impl OutcomeBody {
    fn into_outcome(self) -> ToolOutcome {
        let OutcomeBody { data, error, stopped } = self;
        let error = error.map(|error| {
            let FailureBody { message, code, kind, retryable, hard, details } = error;
            ToolError { kind, retryable, code, message, hard, details }
        });
        ToolOutcome { error, data, http: None, pg: None, py: None, stopped }
    }
}
