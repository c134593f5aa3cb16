//! `/api/db/verify`: the promises, checked over real logs.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::error::{ApiError, ErrorBody};
use super::executions::{self, list};
use super::extract::Query;
use crate::verify::{self, Scope, Verified};

/// What is to be verified.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct VerifyParams {
    /// Only the family of this execution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<String>,
    /// Also show the family's log, one line per event; for one family only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub trace: bool,
}

/// Whether every log keeps every promise, and every head says what its log says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VerifyReply {
    /// `ok` or `error`.
    pub status: String,
    /// How many executions were looked at.
    pub executions: u64,
    /// How many events were looked at.
    pub events: u64,
    /// Which promises are broken, where, and by which events; at most 1000.
    pub problems: Vec<Problem>,
    /// The family's log, one line per event, at most 100000; when it was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trace: Vec<String>,
    /// One sentence for people.
    pub message: String,
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Its number: C1 to C10 of the cancellation contract, or one of the engine's own, E1 and on.
    pub property: String,
    /// What it promises.
    pub title: String,
    /// Where it is broken.
    pub execution_id: String,
    /// What was found.
    pub found: String,
    /// The events that show it, one line each.
    pub events: Vec<String>,
}

impl From<Verified> for VerifyReply {
    fn from(verified: Verified) -> Self {
        let message = match verified.problems.first() {
            None => format!("{} execution(s) keep every promise", verified.executions),
            Some(first) => format!("{} problem(s): {}", verified.problems.len(), first.violation),
        };
        let problems: Vec<Problem> = verified.problems.into_iter().map(Problem::from).collect();
        let status = if problems.is_empty() { "ok" } else { "error" }.to_owned();
        let (executions, events, trace) = (verified.executions, verified.events, verified.trace);
        VerifyReply { status, executions, events, problems, trace, message }
    }
}

impl From<verify::Problem> for Problem {
    fn from(problem: verify::Problem) -> Self {
        let verify::Problem { violation, events } = problem;
        Problem {
            property: violation.property.code().to_owned(),
            title: violation.property.title().to_owned(),
            execution_id: violation.execution_id.to_string(),
            found: violation.found,
            events,
        }
    }
}

/// Proves from the logs that the engine kept its promises: every head is what its log says, every snapshot is the
/// replay, nothing started after a cancel, every certificate is complete, and so on.
#[utoipa::path(
    get, path = "/api/db/verify", tag = "db", params(VerifyParams),
    responses((status = 200, body = VerifyReply), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody))
)]
pub(super) async fn verify(
    State(api): State<Api>,
    Query(params): Query<VerifyParams>,
) -> Result<Json<VerifyReply>, ApiError> {
    let scope = match list::id("execution_id", params.execution_id.as_deref())? {
        Some(execution_id) => {
            let head = executions::head_of(&api, execution_id).await?;
            Scope::Family { root: head.root_execution_id, trace: params.trace }
        }
        None if params.trace => return Err(ApiError::bad_field("trace", "is for one family: say `execution_id` too")),
        None => Scope::Everything,
    };
    Ok(Json(verify::verify(api.store(), scope).await?.into()))
}
