//! Cancelling many executions with one request: `POST /api/executions/cancel` and `POST /api/executions/cleanup`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use noetl_core::head::Status;
use noetl_core::id::{CancellationId, ExecutionId};
use noetl_engine::bulk::{IDS_MAX, MATCHED_MAX};
use noetl_engine::{BulkAnswer, BulkError, BulkRequest, CancelRequest, Filter, Selected};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::cancel::{self, GRACE_SECONDS_MAX, WAIT_SECONDS_MAX};
use super::list;
use crate::api::Api;
use crate::api::caller::{Caller, IdempotencyKey};
use crate::api::error::{ApiError, ErrorBody};
use crate::api::extract::Body;
use crate::api::labels;
use crate::render::duration;

/// Executions that one request may match when it does not say.
pub const MAX_DEFAULT: u64 = 1_000;
/// How long a request may hang until everything is decided when it does not say, in seconds.
pub const WAIT_SECONDS_DEFAULT: f64 = 10.0;
/// Most executions per second that a request may ask for.
pub const RATE_MAX: u32 = 1_000_000;
/// Who a cleanup says it is.
const BY_CLEANUP: &str = "cleanup";
/// Age of a stuck execution when a cleanup does not say, in minutes.
const OLDER_THAN_MINUTES_DEFAULT: u64 = 5;

/// Which executions to cancel, and how. Only running ones match.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BulkBody {
    /// These, at most 10,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub ids: Option<Vec<ExecutionId>>,
    /// What they have in common; all conditions hold together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<BulkFilter>,
    /// Everything that runs: a filter that leaves nothing out is refused without this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
    /// Also every descendant of each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cascade: Option<bool>,
    /// `finish` or `interrupt`. Without it each execution's own way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Between the polite stop and the kill of an interrupt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<f64>,
    /// Why: free text up to 4 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Change nothing, say what would be cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
    /// Refuse if more match. Default 1,000, at most 10,000,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
    /// Most executions looked at per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// Hold the answer until everything is decided, or so long; then the job goes on without it. Default 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_seconds: Option<f64>,
}

/// Conditions. Lengths of time are `10m`, `2h` and the like, or seconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BulkFilter {
    /// `RUNNING`: nothing else can be cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Catalog path; `*` matches anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Started so long ago.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub older_than: Option<Value>,
    /// No event for so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub idle_for: Option<Value>,
    /// Direct children of this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// They have this label: `name=value`; several with commas between, all of which they have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// What a cancel of many did. Lists hold at most 10,000 ids; the counts are of all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BulkReply {
    /// `cancelled`, or `dry_run`.
    pub status: String,
    /// How many were cancelled, or would be.
    pub cancelled_count: u64,
    /// What was cancelled, descendants included.
    #[schema(value_type = Vec<String>)]
    pub cancelled_executions: Vec<ExecutionId>,
    /// What was cancelled before, and is now stopped harder.
    #[schema(value_type = Vec<String>)]
    pub escalated: Vec<ExecutionId>,
    /// What a request without `dry_run` would cancel now, descendants not included.
    #[schema(value_type = Vec<String>)]
    pub would_cancel: Vec<ExecutionId>,
    /// What matched at first and had ended or moved on when its turn came, and shielded descendants.
    #[schema(value_type = Vec<String>)]
    pub spared: Vec<ExecutionId>,
    /// What `ids` named and does not exist.
    #[schema(value_type = Vec<String>)]
    pub unknown: Vec<ExecutionId>,
    /// How many matched when the request came.
    pub matched_count: u64,
    /// Everything is decided. If false, the rest goes on as a job.
    pub complete: bool,
    /// The job: `GET /api/jobs/{id}`. Null when nothing matched, or nothing was to be changed.
    #[schema(value_type = Option<String>)]
    pub job_id: Option<CancellationId>,
    /// One sentence for people.
    pub message: String,
}

/// Cancels what is listed or matches. Each execution is looked at again under its lock: what has moved on is spared.
///
/// The request is a job that any server carries on. A small one is answered when everything is decided; a large one
/// with `complete: false` and its `job_id`.
#[utoipa::path(
    post, path = "/api/executions/cancel", operation_id = "cancel_matching", tag = "executions",
    request_body = BulkBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key gets the first answer again")),
    responses(
        (status = 200, body = BulkReply),
        (status = 400, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "More match than `max`"),
    )
)]
pub(in crate::api) async fn cancel(
    State(api): State<Api>,
    caller: Caller,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    Body(body): Body<BulkBody>,
) -> Result<Json<BulkReply>, ApiError> {
    let max = body.max.unwrap_or(MAX_DEFAULT);
    if !(1..=MATCHED_MAX).contains(&max) {
        return Err(ApiError::bad_field("max", format!("must be 1 to {MATCHED_MAX}")));
    }
    if body.rate.is_some_and(|rate| !(1..=RATE_MAX).contains(&rate)) {
        return Err(ApiError::bad_field("rate", format!("must be 1 to {RATE_MAX} per second")));
    }
    let wait = Some(body.wait_seconds.unwrap_or(WAIT_SECONDS_DEFAULT));
    let request = BulkRequest {
        selected: selected(&body)?,
        how: CancelRequest {
            execution_id: ExecutionId(0),
            reason: cancel::reason(body.reason)?,
            cascade: body.cascade.unwrap_or(false),
            mode: cancel::mode(body.mode.as_deref())?,
            grace_ms: cancel::milliseconds("grace_seconds", body.grace_seconds, GRACE_SECONDS_MAX)?,
            wait_ms: 0,
            wait_for_cleanup: false,
            dry_run: body.dry_run.unwrap_or(false),
            cancelled_by: caller.name(),
            requested_by: caller.requested_by.clone(),
            remote: caller.remote(),
            idempotency_key,
        },
        max,
        rate: body.rate,
        answer_ms: cancel::milliseconds("wait_seconds", wait, WAIT_SECONDS_MAX)?.unwrap_or(0),
    };
    let answer = api.engine.cancel_matching(&request).await?;
    Ok(Json(BulkReply::of(answer, request.how.dry_run)))
}

/// Reads whom the request means: a list, a filter, or explicitly everything.
fn selected(body: &BulkBody) -> Result<Selected, ApiError> {
    let filter = body.filter.clone().unwrap_or_default();
    if let Some(ids) = &body.ids {
        if filter != BulkFilter::default() || body.all == Some(true) {
            return Err(ApiError::bad_field("ids", "give either `ids`, `filter` or `all`"));
        }
        if ids.is_empty() || ids.len() > IDS_MAX {
            return Err(ApiError::bad_field("ids", format!("must be 1 to {IDS_MAX} ids")));
        }
        return Ok(Selected::Listed(ids.clone()));
    }
    // What a script left empty by mistake must never mean everything.
    for (field, text) in [
        ("filter.status", &filter.status),
        ("filter.path", &filter.path),
        ("filter.parent", &filter.parent),
        ("filter.label", &filter.label),
    ] {
        if text.as_ref().is_some_and(|text| text.trim_matches([' ', '\t', ',']).is_empty()) {
            return Err(ApiError::bad_field(field, "must not be empty: leave it out if it is not meant"));
        }
    }
    for status in list::statuses("filter.status", filter.status.as_deref())? {
        match status {
            Status::Running => {}
            Status::Completed | Status::Failed | Status::Cancelled => {
                let problem = format!("what is {} can not be cancelled: only RUNNING matches", status.as_str());
                return Err(ApiError::bad_field("filter.status", problem));
            }
        }
    }
    let wanted = Filter {
        path: filter.path,
        older_than_ms: length("filter.older_than", filter.older_than.as_ref())?,
        idle_for_ms: length("filter.idle_for", filter.idle_for.as_ref())?,
        parent: list::id("filter.parent", filter.parent.as_deref())?,
        labels: labels::wanted("filter.label", filter.label.as_deref())?,
        stuck: false,
    };
    if !wanted.leaves_out() && body.all != Some(true) {
        let problem = "it matches everything that runs: say `all: true` (`--filter all`) if that is meant";
        return Err(ApiError::bad_field("filter", problem));
    }
    Ok(Selected::Matching(wanted))
}

impl BulkReply {
    fn of(answer: BulkAnswer, dry_run: bool) -> Self {
        let count = if dry_run { answer.matched_count } else { answer.cancelled_count };
        let goes_on = match (answer.complete, answer.job_id) {
            (false, Some(job)) => format!(" so far; job {job} goes on"),
            (true, _) | (false, None) => String::new(),
        };
        BulkReply {
            status: if dry_run { "dry_run" } else { "cancelled" }.to_owned(),
            cancelled_count: count,
            cancelled_executions: answer.cancelled,
            escalated: answer.escalated,
            would_cancel: answer.matched,
            spared: answer.spared,
            unknown: answer.unknown,
            matched_count: answer.matched_count,
            complete: answer.complete,
            job_id: answer.job_id,
            message: format!("{} {count} execution(s){goes_on}", if dry_run { "Would cancel" } else { "Cancelled" }),
        }
    }
}

/// How to clean up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CleanupBody {
    /// How long nothing must have happened, in minutes. Default 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_than_minutes: Option<u64>,
    /// Change nothing, say what would be cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
    /// Whatever started so long ago, whether or not anything is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_healthy: Option<bool>,
    /// Only those with this label: `name=value`; several with commas between, all of which they have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// What a cleanup did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CleanupReply {
    /// How many were cancelled, or would be.
    pub cancelled_count: u64,
    /// Which, at most 10,000. Numbers, because the published client shows nothing else here.
    #[schema(value_type = Vec<i64>)]
    pub execution_ids: Vec<i64>,
    /// One sentence for people.
    pub message: String,
}

/// Cancels executions that are stuck: no event for so long, and no worker, timer or active child that will move them.
#[utoipa::path(
    post, path = "/api/executions/cleanup", operation_id = "cleanup_executions", tag = "executions",
    request_body = Option<CleanupBody>,
    responses(
        (status = 200, body = CleanupReply),
        (status = 400, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "More are stuck than one request may cancel"),
    )
)]
pub(in crate::api) async fn cleanup(
    State(api): State<Api>,
    caller: Caller,
    Body(body): Body<CleanupBody>,
) -> Result<Json<CleanupReply>, ApiError> {
    let minutes = body.older_than_minutes.unwrap_or(OLDER_THAN_MINUTES_DEFAULT);
    if minutes == 0 {
        return Err(ApiError::bad_field("older_than_minutes", "must be at least 1".to_owned()));
    }
    let ms = Some(minutes.saturating_mul(60_000));
    let healthy = body.include_healthy.unwrap_or(false);
    let dry_run = body.dry_run.unwrap_or(false);
    let labels = labels::wanted("label", body.label.as_deref())?;
    let request = BulkRequest {
        selected: Selected::Matching(if healthy {
            Filter { older_than_ms: ms, labels, ..Filter::default() }
        } else {
            Filter { idle_for_ms: ms, stuck: true, labels, ..Filter::default() }
        }),
        how: CancelRequest {
            execution_id: ExecutionId(0),
            reason: Some(format!(
                "cleanup: {} for more than {minutes} minutes",
                if healthy { "running" } else { "stuck" }
            )),
            cascade: false,
            mode: None,
            grace_ms: None,
            wait_ms: 0,
            wait_for_cleanup: false,
            dry_run,
            cancelled_by: caller.identity.clone().unwrap_or_else(|| BY_CLEANUP.to_owned()),
            requested_by: caller.requested_by.clone(),
            remote: caller.remote(),
            idempotency_key: None,
        },
        max: MATCHED_MAX,
        rate: None,
        answer_ms: cancel::milliseconds("wait_seconds", Some(WAIT_SECONDS_DEFAULT), WAIT_SECONDS_MAX)?.unwrap_or(0),
    };
    let answer = api.engine.cancel_matching(&request).await?;
    let (count, ids) = match dry_run {
        true => (answer.matched_count, answer.matched),
        false => (answer.cancelled_count, answer.cancelled),
    };
    let goes_on = match (answer.complete, answer.job_id) {
        (false, Some(job)) => format!(" so far; job {job} goes on"),
        (true, _) | (false, None) => String::new(),
    };
    let message = match (count, dry_run) {
        (0, _) => format!("No stuck executions found older than {minutes} minutes"),
        (_, true) => format!("[DRY RUN] Would cancel {count} stuck executions older than {minutes} minutes"),
        (_, false) => format!("Successfully cancelled {count} stuck executions older than {minutes} minutes{goes_on}"),
    };
    let execution_ids = ids.iter().map(|id| id.0).collect();
    Ok(Json(CleanupReply { cancelled_count: count, execution_ids, message }))
}

fn length(field: &str, value: Option<&Value>) -> Result<Option<u64>, ApiError> {
    let Some(value) = value else { return Ok(None) };
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            return Err(ApiError::bad_field(field, "must be a length of time such as 10m, or seconds".to_owned()));
        }
    };
    let length = duration::parse(&text).map_err(|problem| ApiError::bad_field(field, problem))?;
    Ok(Some(u64::try_from(length.as_millis()).unwrap_or(u64::MAX)))
}

impl From<BulkError> for ApiError {
    fn from(error: BulkError) -> Self {
        let message = error.to_string();
        match error {
            BulkError::TooMany { .. } => ApiError::new(StatusCode::CONFLICT, "too_many", message),
            BulkError::Store(error) => error.into(),
        }
    }
}
