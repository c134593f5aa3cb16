//! `/api/schedules`: what starts by the clock.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use noetl_engine::schedule::{BadSchedule, Missed, Overlap, Rhythm, Schedule, ScheduleError, ScheduleRequest};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Api;
use super::caller::Caller;
use super::error::{ApiError, ErrorBody};
use super::extract::Body;

/// What is to start by the clock. `path`, `name` and either `cron` or `interval_seconds` are needed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleBody {
    /// How people call it.
    pub name: String,
    /// Catalog path of the playbook.
    pub path: String,
    /// Catalog version; without it the newest at each tick.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// Five fields: minute, hour, day of month, month, day of week; `30 2 * * MON-FRI`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// Every so many seconds, counted from when the schedule is added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_seconds: Option<u64>,
    /// The time zone that `cron` is read in, such as `Europe/Berlin`. Default `UTC`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// Inputs of each run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub payload: Option<Map<String, Value>>,
    /// What becomes of ticks that no server was there for: `once` (default), `skip` or `all`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<String>,
    /// What becomes of a tick while the run before goes on: `skip` (default), `allow` or `cancel` (the one before).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlap: Option<String>,
    /// Wait for nothing until it is resumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
}

/// A schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ScheduleRow {
    /// Its id.
    pub schedule_id: String,
    /// How people call it.
    pub name: String,
    /// Catalog path of the playbook.
    pub path: String,
    /// Catalog version; none = the newest.
    pub version: Option<i64>,
    /// When, by the calendar.
    pub cron: Option<String>,
    /// When, by an interval.
    pub interval_seconds: Option<u64>,
    /// The time zone of `cron`.
    pub timezone: String,
    /// Inputs of each run.
    #[schema(value_type = Object)]
    pub payload: Map<String, Value>,
    /// `once`, `skip` or `all`.
    pub missed: String,
    /// `skip`, `allow` or `cancel`.
    pub overlap: String,
    /// It is not paused.
    pub enabled: bool,
    /// The tick that it waits for.
    pub next_run_at: Option<String>,
    /// The last tick that was dealt with.
    pub last_run_at: Option<String>,
    /// The execution started last.
    pub last_execution_id: Option<String>,
    /// What became of the last tick: `started`, `skipped: …`, `failed: …`.
    pub last_status: Option<String>,
    /// Who made it.
    pub created_by: Option<String>,
    /// When it was made.
    pub created_at: String,
}

/// Every schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SchedulesReply {
    /// By name.
    pub schedules: Vec<ScheduleRow>,
}

impl From<Schedule> for ScheduleRow {
    fn from(schedule: Schedule) -> Self {
        let (cron, interval_seconds) = match schedule.rhythm {
            Rhythm::Cron(pattern) => (Some(pattern), None),
            Rhythm::Every(seconds) => (None, Some(seconds)),
        };
        ScheduleRow {
            schedule_id: schedule.schedule_id.to_string(),
            name: schedule.name.to_string(),
            path: schedule.path.to_string(),
            version: schedule.version,
            cron,
            interval_seconds,
            timezone: schedule.timezone.to_string(),
            payload: schedule.payload,
            missed: schedule.missed.to_string(),
            overlap: schedule.overlap.to_string(),
            enabled: schedule.enabled,
            next_run_at: schedule.next_run_at.map(noetl_core::time::Timestamp::to_iso),
            last_run_at: schedule.last_run_at.map(noetl_core::time::Timestamp::to_iso),
            last_execution_id: schedule.last_execution_id.map(|id| id.to_string()),
            last_status: schedule.last_status,
            created_by: schedule.created_by,
            created_at: schedule.created_at.to_iso(),
        }
    }
}

/// Adds a schedule.
#[utoipa::path(
    post, path = "/api/schedules", operation_id = "add_schedule", tag = "schedules", request_body = ScheduleBody,
    responses(
        (status = 200, body = ScheduleRow),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody, description = "No such playbook"),
        (status = 409, body = ErrorBody, description = "The name is taken"),
    )
)]
pub(super) async fn add(
    State(api): State<Api>,
    caller: Caller,
    Body(body): Body<ScheduleBody>,
) -> Result<Json<ScheduleRow>, ApiError> {
    let rhythm = match (body.cron, body.interval_seconds) {
        (Some(pattern), None) => Rhythm::Cron(pattern),
        (None, Some(seconds)) => Rhythm::Every(seconds),
        (None, None) | (Some(_), Some(_)) => {
            return Err(ApiError::bad_field("cron", "give either `cron` or `interval_seconds`"));
        }
    };
    if body.path.trim().is_empty() {
        return Err(ApiError::bad_field("path", "is needed: the catalog path of the playbook"));
    }
    let missed = word(body.missed.as_deref(), "missed", Missed::Once)?;
    let overlap = word(body.overlap.as_deref(), "overlap", Overlap::Skip)?;
    let request = ScheduleRequest {
        name: body.name.trim().into(),
        path: body.path.trim().into(),
        version: body.version,
        payload: body.payload.unwrap_or_default(),
        rhythm,
        timezone: body.timezone.as_deref().map_or_else(|| Arc::from("UTC"), |zone| Arc::from(zone.trim())),
        missed,
        overlap,
        paused: body.paused.unwrap_or(false),
        created_by: Some(caller.name()),
    };
    Ok(Json(api.engine.add_schedule(request).await?.into()))
}

fn word<T: std::str::FromStr<Err = BadSchedule>>(given: Option<&str>, field: &str, default: T) -> Result<T, ApiError> {
    match given {
        None => Ok(default),
        Some(word) => word.parse().map_err(|error: BadSchedule| ApiError::bad_field(field, error)),
    }
}

/// Lists the schedules.
#[utoipa::path(
    get, path = "/api/schedules", operation_id = "list_schedules", tag = "schedules",
    responses((status = 200, body = SchedulesReply))
)]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<SchedulesReply>, ApiError> {
    let schedules = api.store().schedules().await?.into_iter().map(ScheduleRow::from).collect();
    Ok(Json(SchedulesReply { schedules }))
}

/// Pauses a schedule: it starts nothing until it is resumed. What it has started goes on.
#[utoipa::path(
    post, path = "/api/schedules/{name}/pause", operation_id = "pause_schedule", tag = "schedules",
    params(("name" = String, Path, description = "Which")),
    responses((status = 200, body = ScheduleRow), (status = 404, body = ErrorBody))
)]
pub(super) async fn pause(State(api): State<Api>, Path(name): Path<String>) -> Result<Json<ScheduleRow>, ApiError> {
    Ok(Json(api.engine.pause_schedule(&name).await?.into()))
}

/// Lets a paused schedule go on with its next tick.
#[utoipa::path(
    post, path = "/api/schedules/{name}/resume", operation_id = "resume_schedule", tag = "schedules",
    params(("name" = String, Path, description = "Which")),
    responses((status = 200, body = ScheduleRow), (status = 404, body = ErrorBody))
)]
pub(super) async fn resume(State(api): State<Api>, Path(name): Path<String>) -> Result<Json<ScheduleRow>, ApiError> {
    Ok(Json(api.engine.resume_schedule(&name).await?.into()))
}

/// Removes a schedule. What it has started goes on.
#[utoipa::path(
    delete, path = "/api/schedules/{name}", operation_id = "remove_schedule", tag = "schedules",
    params(("name" = String, Path, description = "Which")),
    responses((status = 200, body = ScheduleRow), (status = 404, body = ErrorBody))
)]
pub(super) async fn remove(State(api): State<Api>, Path(name): Path<String>) -> Result<Json<ScheduleRow>, ApiError> {
    Ok(Json(api.engine.remove_schedule(&name).await?.into()))
}

impl From<ScheduleError> for ApiError {
    fn from(error: ScheduleError) -> Self {
        let message = error.to_string();
        match error {
            ScheduleError::BadName => ApiError::bad_field("name", "expected one line of 1 to 128 bytes"),
            ScheduleError::Bad(error) => {
                let field = match &error {
                    BadSchedule::Cron { .. } | BadSchedule::Never(_) => "cron",
                    BadSchedule::Interval(_) => "interval_seconds",
                    BadSchedule::Word { .. } => "missed",
                };
                ApiError::bad_field(field, error)
            }
            ScheduleError::UnknownZone(_) => ApiError::bad_request(message),
            ScheduleError::UnknownPlaybook(_) => ApiError::new(StatusCode::NOT_FOUND, "unknown_playbook", message),
            ScheduleError::Unknown(_) => ApiError::new(StatusCode::NOT_FOUND, "unknown_schedule", message),
            ScheduleError::Exists(_) => ApiError::new(StatusCode::CONFLICT, "schedule_exists", message),
            ScheduleError::TooMany => ApiError::new(StatusCode::CONFLICT, "too_many_schedules", message),
            ScheduleError::Store(error) => error.into(),
        }
    }
}
