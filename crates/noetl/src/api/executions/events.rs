//! `GET /api/executions/{execution_id}/events`: the log.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use noetl_core::event::Recorded;
use noetl_core::event::row::{self, RowContext};
use noetl_core::head::Head;
use noetl_core::id::{CatalogId, CommandId, EventId, ExecutionId};
use noetl_store::EventQuery;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

use super::head_of;
use crate::api::Api;
use crate::api::error::{ApiError, ErrorBody};
use crate::api::extract::{PathId, Query};
use crate::api::page::{self, Pagination};

/// Events on a page when the request does not say.
pub const PAGE_SIZE_DEFAULT: u64 = 100;
/// Most events on a page.
pub const PAGE_SIZE_MAX: u64 = 1000;
/// Longest time that a request for new events hangs, in seconds.
pub const WAIT_SECONDS_MAX: f64 = 20.0;

/// Which events of an execution to show.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct EventParams {
    /// Page, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<u64>,
    /// Events on a page, at most 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_size: Option<u64>,
    /// Only events with a higher id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_event_id: Option<String>,
    /// Only events after this place in the log: what a follower asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_version: Option<u64>,
    /// Only this type, such as `execution.cancelled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// `desc` (newest first, the default) or `asc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// Hang until there is such an event or the execution has quiesced, or so long; at most 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_seconds: Option<f64>,
    /// `false` leaves the events out of the detail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_events: Option<bool>,
}

/// One row of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventRow {
    /// Whose.
    #[schema(value_type = String)]
    pub execution_id: ExecutionId,
    /// Unique over all logs.
    #[schema(value_type = String)]
    pub event_id: EventId,
    /// Place in this log, from 1, without holes.
    pub version: u64,
    /// Such as `step.enter`.
    pub event_type: String,
    /// Step, `cancel`, or catalog path.
    pub node_id: Option<String>,
    /// The same.
    pub node_name: Option<String>,
    /// Kind of tool, and the like.
    pub node_type: Option<String>,
    /// Such as `RUNNING`.
    pub status: String,
    /// When it was decided.
    pub created_at: String,
    /// The same.
    pub timestamp: String,
    /// What was decided.
    #[schema(value_type = Value)]
    pub context: Value,
    /// `{status, data | reference, error}`.
    #[schema(value_type = Value)]
    pub result: Value,
    /// How it came about.
    #[schema(value_type = Value)]
    pub meta: Value,
    /// What went wrong.
    pub error: Option<String>,
    /// Who held the command.
    pub worker_id: Option<String>,
    /// Which command.
    #[schema(value_type = Option<String>)]
    pub command_id: Option<CommandId>,
    /// Which attempt of it.
    pub attempt: Option<u32>,
    /// Which iteration of a loop, from 0.
    pub iteration: Option<u32>,
    /// How long the work took, in milliseconds.
    pub duration: Option<f64>,
    /// Catalog id.
    #[schema(value_type = String)]
    pub catalog_id: CatalogId,
    /// Top of the family.
    #[schema(value_type = String)]
    pub root_execution_id: ExecutionId,
    /// Only on `playbook.initialized`.
    #[schema(value_type = Option<String>)]
    pub parent_execution_id: Option<ExecutionId>,
}

/// A page of a log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventsReply {
    /// Whose.
    #[schema(value_type = String)]
    pub execution_id: ExecutionId,
    /// Catalog path.
    pub path: String,
    /// Status of the execution.
    pub status: String,
    /// Nothing of it runs any more, so nothing follows.
    pub quiesced: bool,
    /// The events.
    pub events: Vec<EventRow>,
    /// Where this page stands.
    pub pagination: Pagination,
}

impl EventRow {
    pub(in crate::api) fn of(recorded: &Recorded, head: &Head) -> Self {
        let family = RowContext { root_execution_id: head.root_execution_id, catalog_id: head.catalog_id };
        let row = row::to_row(recorded, &family);
        let at = row.created_at.to_iso();
        EventRow {
            execution_id: row.execution_id,
            event_id: row.event_id,
            version: row.version,
            event_type: row.event_type.into_owned(),
            node_id: row.node_id.map(|name| name.to_string()),
            node_name: row.node_name.map(|name| name.to_string()),
            node_type: row.node_type.map(|name| name.to_string()),
            status: row.status.into_owned(),
            created_at: at.clone(),
            timestamp: at,
            context: row.context.unwrap_or(Value::Null),
            result: row.result.unwrap_or(Value::Null),
            meta: row.meta.unwrap_or(Value::Null),
            error: row.error,
            worker_id: row.worker_id.map(|name| name.to_string()),
            command_id: row.command_id,
            attempt: row.attempt,
            iteration: row.iteration,
            duration: row.duration,
            catalog_id: row.catalog_id,
            root_execution_id: row.root_execution_id,
            parent_execution_id: row.parent_execution_id,
        }
    }
}

/// Shows the log of an execution, page by page.
///
/// A follower asks with `order=asc`, `after_version` and `wait_seconds` until `quiesced` is true.
#[utoipa::path(
    get, path = "/api/executions/{execution_id}/events", tag = "executions",
    params(("execution_id" = String, Path, description = "Which"), EventParams),
    responses(
        (status = 200, body = EventsReply),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody),
    )
)]
pub(in crate::api) async fn events(
    State(api): State<Api>,
    PathId(execution_id): PathId<ExecutionId>,
    Query(params): Query<EventParams>,
) -> Result<Json<EventsReply>, ApiError> {
    let wait = wait(params.wait_seconds, WAIT_SECONDS_MAX)?;
    let deadline = Instant::now() + wait;
    // Subscribed before the first look: an event in between wakes the wait at once.
    let mut versions = api.engine.subscribe(execution_id);
    loop {
        let head = head_of(&api, execution_id).await?;
        let (events, pagination) = page_of(&api, &head, &params).await?;
        let over = !events.is_empty() || head.quiesced_at.is_some() || Instant::now() >= deadline;
        if over || api.is_stopping() {
            return Ok(Json(EventsReply {
                execution_id,
                path: head.path.to_string(),
                status: head.status.as_str().to_owned(),
                quiesced: head.quiesced_at.is_some(),
                events,
                pagination,
            }));
        }
        api.woken_before(deadline, &mut versions).await;
    }
}

/// Returns the page of events that `params` ask for.
pub(in crate::api) async fn page_of(
    api: &Api,
    head: &Head,
    params: &EventParams,
) -> Result<(Vec<EventRow>, Pagination), ApiError> {
    let (limit, offset) = page::window(params.page, params.page_size, PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)?;
    let newest_first = match params.order.as_deref() {
        None | Some("desc") => true,
        Some("asc") => false,
        Some(other) => return Err(ApiError::bad_field("order", format!("`{other}` is neither `asc` nor `desc`"))),
    };
    let since_event_id = match params.since_event_id.as_deref() {
        None | Some("0") => None,
        Some(text) => Some(text.parse().map_err(|error| ApiError::bad_field("since_event_id", error))?),
    };
    let query = EventQuery {
        execution_id: Some(head.execution_id),
        after_version: params.after_version,
        since_event_id,
        event_type: params.event_type.clone().filter(|name| !name.is_empty()),
        newest_first,
        offset,
        limit,
    };
    let (events, total) = api.store().events(query).await?;
    let rows = events.iter().map(|recorded| EventRow::of(recorded, head)).collect();
    Ok((rows, Pagination::new(offset / limit + 1, limit, total)))
}

/// Reads a number of seconds to wait.
pub(in crate::api) fn wait(seconds: Option<f64>, most: f64) -> Result<Duration, ApiError> {
    let seconds = seconds.unwrap_or(0.0);
    if !(0.0..=most).contains(&seconds) {
        return Err(ApiError::bad_field("wait_seconds", format!("must be 0 to {most}")));
    }
    Ok(Duration::from_secs_f64(seconds))
}
