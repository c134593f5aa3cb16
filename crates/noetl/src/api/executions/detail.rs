//! `GET /api/executions/{execution_id}`: one run, with a page of its log.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use noetl_core::event::Event;
use noetl_core::head::{Head, HeadView, Status};
use noetl_core::id::{CatalogId, ExecutionId};
use noetl_core::result::Bound;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::events::{self, EventParams, EventRow};
use super::pause::Pause;
use super::status::{self, LiveCommand, RUNNING_MAX};
use super::{Cancellation, Summary};
use crate::api::Api;
use crate::api::error::{ApiError, ErrorBody};
use crate::api::extract::{PathId, Query};
use crate::api::page::Pagination;

/// One execution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Detail {
    /// Its id.
    #[schema(value_type = String)]
    pub execution_id: ExecutionId,
    /// Catalog id.
    #[schema(value_type = String)]
    pub catalog_id: CatalogId,
    /// Catalog path.
    pub path: String,
    /// Catalog version.
    pub version: i64,
    /// `RUNNING`, `COMPLETED`, `FAILED`, `CANCELLED`.
    pub status: String,
    /// When it began.
    pub start_time: String,
    /// When it ended.
    pub end_time: Option<String>,
    /// The same as `start_time`.
    pub started_at: String,
    /// The same as `end_time`.
    pub completed_at: Option<String>,
    /// How long it took, or has taken so far.
    pub duration_seconds: f64,
    /// The same for people.
    pub duration_human: String,
    /// 100 when it has ended, else 0.
    pub progress: u8,
    /// What a completed one gave: the data, or `{"reference": …}` when it is stored outside the log.
    #[schema(value_type = Value)]
    pub result: Value,
    /// Why it failed.
    pub error: Option<String>,
    /// The same as `{kind, code, message, …}`.
    #[schema(value_type = Value)]
    pub error_detail: Value,
    /// What it was started with.
    #[schema(value_type = Value)]
    pub workload: Value,
    /// The execution that it runs again.
    #[schema(value_type = Option<String>)]
    pub rerun_of: Option<ExecutionId>,
    /// The execution that started it.
    #[schema(value_type = Option<String>)]
    pub parent_execution_id: Option<ExecutionId>,
    /// Top of its family.
    #[schema(value_type = String)]
    pub root_execution_id: ExecutionId,
    /// 0 without a parent.
    pub depth: u32,
    /// Time of the last event.
    pub updated_at: String,
    /// The step entered last.
    pub current_step: Option<String>,
    /// Steps that failed and that nothing handled.
    pub failed_steps: Vec<String>,
    /// Steps entered.
    pub steps_entered: u64,
    /// Commands issued.
    pub commands_issued: u64,
    /// Commands held by workers.
    pub in_flight: u32,
    /// Nothing of it runs any more.
    pub quiesced: bool,
    /// Since when.
    pub quiesced_at: Option<String>,
    /// How it was cancelled.
    pub cancellation: Option<Cancellation>,
    /// Who paused it, since when and why.
    pub pause: Option<Pause>,
    /// The cancelled execution that it cleans up after.
    #[schema(value_type = Option<String>)]
    pub cleanup_of: Option<ExecutionId>,
    /// What people find it by.
    pub labels: BTreeMap<String, String>,
    /// What is alive: running, pending or waiting; of a cancelled one what still runs.
    pub commands: Vec<LiveCommand>,
    /// There are more than are listed.
    pub commands_truncated: bool,
    /// Place of the last event in the log.
    pub last_version: u64,
    /// A page of the log, newest first.
    pub events: Vec<EventRow>,
    /// The page is in this answer.
    pub events_included: bool,
    /// Where the log can be read on its own.
    pub events_endpoint: String,
    /// Where the page stands.
    pub pagination: Pagination,
}

/// Shows one execution with a page of its log.
#[utoipa::path(
    get, path = "/api/executions/{execution_id}", tag = "executions",
    params(("execution_id" = String, Path, description = "Which"), EventParams),
    responses((status = 200, body = Detail), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody))
)]
pub(in crate::api) async fn detail(
    State(api): State<Api>,
    PathId(execution_id): PathId<ExecutionId>,
    Query(params): Query<EventParams>,
) -> Result<Json<Detail>, ApiError> {
    if params.wait_seconds.is_some() {
        let endpoint = format!("/api/executions/{execution_id}/events");
        return Err(ApiError::bad_field("wait_seconds", format!("only {endpoint} can wait")));
    }
    let view = api.store().view(execution_id).await?.ok_or_else(|| ApiError::unknown_execution(execution_id))?;
    let HeadView { head, commands } = view;
    let now = api.store().now().await?;
    let (events, pagination) = events::page_of(&api, &head, &params).await?;
    let events_included = params.include_events.unwrap_or(true);
    let summary = Summary::of(&head, now);
    let (workload, rerun_of) = beginning(&api, execution_id).await?;
    Ok(Json(Detail {
        execution_id,
        catalog_id: summary.catalog_id,
        path: summary.path,
        version: summary.version,
        status: summary.status,
        started_at: summary.start_time.clone(),
        completed_at: summary.end_time.clone(),
        start_time: summary.start_time,
        end_time: summary.end_time,
        duration_seconds: summary.duration_seconds,
        duration_human: summary.duration_human,
        progress: summary.progress,
        result: result(&api, &head).await?,
        error: summary.error,
        error_detail: head.error.as_deref().cloned().unwrap_or(Value::Null),
        workload,
        rerun_of,
        parent_execution_id: summary.parent_execution_id,
        root_execution_id: summary.root_execution_id,
        depth: summary.depth,
        updated_at: summary.updated_at,
        current_step: summary.current_step,
        failed_steps: summary.failed_steps,
        steps_entered: summary.steps_entered,
        commands_issued: summary.commands_issued,
        in_flight: summary.in_flight,
        quiesced: summary.quiesced,
        quiesced_at: head.quiesced_at.map(noetl_core::time::Timestamp::to_iso),
        cancellation: summary.cancellation,
        pause: summary.pause,
        cleanup_of: summary.cleanup_of,
        labels: summary.labels,
        commands: commands.iter().take(RUNNING_MAX).map(|row| status::live(row, &head, now)).collect(),
        commands_truncated: commands.len() > RUNNING_MAX,
        last_version: head.version,
        events: if events_included { events } else { Vec::new() },
        events_included,
        events_endpoint: format!("/api/executions/{execution_id}/events"),
        pagination,
    }))
}

async fn result(api: &Api, head: &Head) -> Result<Value, ApiError> {
    match head.status {
        Status::Completed => {}
        Status::Running | Status::Failed | Status::Cancelled => return Ok(Value::Null),
    }
    let terminal = api.store().terminal_event(head.execution_id).await?;
    Ok(match terminal.map(|recorded| recorded.event) {
        Some(Event::PlaybookCompleted { result: Bound::Inline(data), .. }) => data.as_ref().clone(),
        Some(Event::PlaybookCompleted { result: Bound::Stored(stored), .. }) => {
            json!({ "reference": stored.as_ref() })
        }
        Some(_) | None => Value::Null,
    })
}

async fn beginning(api: &Api, execution_id: ExecutionId) -> Result<(Value, Option<ExecutionId>), ApiError> {
    let first = noetl_store::EventQuery { execution_id: Some(execution_id), limit: 1, ..Default::default() };
    let (events, _) = api.store().events(first).await?;
    Ok(match events.into_iter().next().map(|recorded| recorded.event) {
        Some(Event::PlaybookInitialized(init)) => {
            (init.workload.as_ref().clone(), init.rerun.as_ref().map(|rerun| rerun.of))
        }
        Some(_) | None => (Value::Null, None),
    })
}
