//! `/api/jobs`: walks over families and selections, under way and done: cancels, pauses and resumptions.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use noetl_core::id::{CancellationId, ExecutionId};
use noetl_core::time::Timestamp;
use noetl_store::{Cancellation, JobQuery};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::caller::Caller;
use super::error::{ApiError, ErrorBody};
use super::extract::{PathId, Query};
use super::{Api, executions, time};

/// Jobs in one list when the request does not say.
const LIMIT_DEFAULT: u64 = 100;
/// Jobs in one list at most.
const LIMIT_MAX: u64 = 1_000;

/// A walk over a family, or a cancel of many.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobRow {
    /// Its id.
    #[schema(value_type = String)]
    pub job_id: CancellationId,
    /// `cascade` or `selection`.
    pub kind: String,
    /// What is done to each: `cancel`, `pause` or `resume`.
    pub action: String,
    /// `running`, `stopping` (finishes the families that it has begun), `stopped` or `done`.
    pub state: String,
    /// The execution whose family it is.
    #[schema(value_type = Option<String>)]
    pub requested_execution_id: Option<ExecutionId>,
    /// What was selected: `ids`, or conditions, with their times as they were fixed.
    #[schema(value_type = Option<Object>)]
    pub selection: Option<Value>,
    /// Descendants too.
    pub cascade: bool,
    /// `finish` or `interrupt`; null: each execution's own way.
    pub mode: Option<String>,
    /// Between the polite stop and the kill, when the request says.
    pub grace_seconds: Option<f64>,
    /// Most executions looked at per second.
    pub rate: Option<u32>,
    /// Why.
    pub reason: Option<String>,
    /// Who asked for it, whatever the action.
    pub cancelled_by: String,
    /// Who said to have asked for it.
    pub requested_by: Option<String>,
    /// Where the request came from.
    pub remote: Option<String>,
    /// How many the selection matched when the request came.
    pub selected: Option<u64>,
    /// How many it has looked at, descendants included.
    pub visited: u64,
    /// How many it has cancelled (paused, resumed), descendants included.
    pub cancelled: u64,
    /// How many it left as they are: they had ended or moved on, or are shielded.
    pub spared: u64,
    /// Of those it has cancelled, how many have still something running. Null in a list.
    pub unquiesced: Option<u64>,
    /// When it was recorded.
    pub created_at: String,
    /// When it was stopped.
    pub stopped_at: Option<String>,
    /// By whom.
    pub stopped_by: Option<String>,
    /// When nothing was left to do.
    pub done_at: Option<String>,
}

impl JobRow {
    fn of(job: Cancellation, unquiesced: Option<u64>) -> Self {
        let state = match (job.stopped_at, job.done_at) {
            (None, None) => "running",
            (Some(_), None) => "stopping",
            (Some(_), Some(_)) => "stopped",
            (None, Some(_)) => "done",
        };
        JobRow {
            job_id: job.cancellation_id,
            kind: if job.selection.is_some() { "selection" } else { "cascade" }.to_owned(),
            action: job.action.as_str().to_owned(),
            state: state.to_owned(),
            requested_execution_id: job.requested_execution_id,
            selection: job.selection.and_then(|selection| serde_json::to_value(selection).ok()),
            cascade: job.cascade,
            mode: job.mode.map(|mode| executions::mode_word(mode).to_owned()),
            grace_seconds: job.grace_ms.map(time::seconds),
            rate: job.rate,
            reason: job.reason,
            cancelled_by: job.cancelled_by,
            requested_by: job.requested_by,
            remote: job.remote,
            selected: job.selected,
            visited: job.visited,
            cancelled: job.cancelled,
            spared: job.spared,
            unquiesced,
            created_at: job.created_at.to_iso(),
            stopped_at: job.stopped_at.map(Timestamp::to_iso),
            stopped_by: job.stopped_by,
            done_at: job.done_at.map(Timestamp::to_iso),
        }
    }
}

/// Jobs, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobsReply {
    /// They.
    pub jobs: Vec<JobRow>,
}

/// Which jobs to list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct JobsParams {
    /// Only those with something left to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open: Option<bool>,
    /// Only ids below this one, to go further back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// How many, 1 to 1000. Default 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// Lists walks over families and bulk cancels, newest first.
#[utoipa::path(
    get, path = "/api/jobs", operation_id = "list_jobs", tag = "jobs", params(JobsParams),
    responses((status = 200, body = JobsReply), (status = 400, body = ErrorBody))
)]
pub(super) async fn list(
    State(api): State<Api>,
    Query(params): Query<JobsParams>,
) -> Result<Json<JobsReply>, ApiError> {
    let limit = params.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(ApiError::bad_field("limit", format!("must be 1 to {LIMIT_MAX}")));
    }
    let before = params.before.map(|text| text.parse().map_err(|error| ApiError::bad_field("before", error)));
    let query = JobQuery { open: params.open.unwrap_or(false), before: before.transpose()?, limit };
    let jobs = api.engine.jobs(query).await?;
    Ok(Json(JobsReply { jobs: jobs.into_iter().map(|job| JobRow::of(job, None)).collect() }))
}

/// Shows one job, and how many of those it has cancelled still run.
#[utoipa::path(
    get, path = "/api/jobs/{job_id}", operation_id = "show_job", tag = "jobs",
    params(("job_id" = String, Path, description = "Which")),
    responses((status = 200, body = JobRow), (status = 404, body = ErrorBody, description = "No such job"))
)]
pub(super) async fn show(
    State(api): State<Api>,
    job_id: Result<PathId<CancellationId>, ApiError>,
) -> Result<Json<JobRow>, ApiError> {
    let PathId(job_id) = job_id?;
    let (job, unquiesced) = api.engine.job(job_id).await?.ok_or_else(|| unknown(job_id))?;
    Ok(Json(JobRow::of(job, Some(unquiesced))))
}

/// Stops a bulk cancel: it selects nothing more, and finishes the families that it has begun. A stopped one stays so.
///
/// What it has cancelled stays cancelled. A cascade can not be stopped: that all of a family ends was promised when it
/// was recorded.
#[utoipa::path(
    post, path = "/api/jobs/{job_id}/stop", operation_id = "stop_job", tag = "jobs",
    params(("job_id" = String, Path, description = "Which")),
    responses(
        (status = 200, body = JobRow),
        (status = 404, body = ErrorBody, description = "No such job"),
        (status = 409, body = ErrorBody, description = "It is a cascade, or done"),
    )
)]
pub(super) async fn stop(
    State(api): State<Api>,
    caller: Caller,
    job_id: Result<PathId<CancellationId>, ApiError>,
) -> Result<Json<JobRow>, ApiError> {
    let PathId(job_id) = job_id?;
    let job = api.engine.stop_job(job_id, &caller.name()).await?.ok_or_else(|| unknown(job_id))?;
    if job.selection.is_none() {
        let message = format!("job {job_id} is a cascade: it ends when the whole family has ended");
        return Err(ApiError::new(StatusCode::CONFLICT, "not_stoppable", message));
    }
    if job.stopped_at.is_none() {
        return Err(ApiError::new(StatusCode::CONFLICT, "already_done", format!("job {job_id} is done already")));
    }
    Ok(Json(JobRow::of(job, None)))
}

fn unknown(job_id: CancellationId) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "not_found", format!("Job {job_id} not found"))
}
