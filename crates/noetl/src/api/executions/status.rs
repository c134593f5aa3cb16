//! `GET /api/executions/{execution_id}/status`: where a run stands, without its log.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use noetl_core::control::cancel;
use noetl_core::execution::state::Execution;
use noetl_core::head::{CommandRow, CommandState, Head, Status};
use noetl_core::id::{CatalogId, CommandId, ExecutionId};
use noetl_core::playbook::CancelMode;
use noetl_core::result::{INLINE_BYTES_MAX, json_size};
use noetl_core::time::Timestamp;
use noetl_core::tool::kind;
use noetl_engine::{Inspection, WaitFor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::pause::Pause;
use super::steps::{self, StepStatus};
use super::{Cancellation, Summary, decisive_event, events};
use crate::api::Api;
use crate::api::error::{ApiError, ErrorBody};
use crate::api::extract::{PathId, Query};
use crate::api::{time, workers};

/// Longest time that a request for a status hangs, in seconds.
pub const WAIT_SECONDS_MAX: f64 = 20.0;
/// The code of the refusal about a cleanup that begins when nothing runs any more of what it cleans up after.
pub const CLEANUP_NOT_BEGUN: &str = "cleanup_not_begun";
/// Most running commands that are listed.
pub const RUNNING_MAX: usize = 100;

/// How much of a status is wanted, and when.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct StatusParams {
    /// Show `variables` whatever their size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full: Option<bool>,
    /// Hang until the execution is where `until` says, or so long; at most 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_seconds: Option<f64>,
    /// `terminal` (the default) or `quiesced`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// Where an execution stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StatusReply {
    /// Which.
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
    /// The event that made the status what it is.
    pub event_type: String,
    /// The execution is over, however it ended.
    pub completed: bool,
    /// It failed.
    pub failed: bool,
    /// It is cancelled.
    pub cancelled: bool,
    /// The same as `cancelled`.
    pub is_cancelled: bool,
    /// Always false: nothing here is guessed.
    pub completion_inferred: bool,
    /// The step entered last.
    pub current_step: Option<String>,
    /// Steps whose last visit worked.
    pub completed_steps: Vec<String>,
    /// Steps that failed and that nothing handled.
    pub failed_steps: Vec<String>,
    /// Variables under `ctx`.
    #[schema(value_type = Object)]
    pub variables: Map<String, Value>,
    /// They are too large to be shown without `full=true`.
    pub variables_omitted: bool,
    /// How many steps are where.
    pub progress: Progress,
    /// When it began.
    pub start_time: String,
    /// When it ended.
    pub end_time: Option<String>,
    /// How long it took, or has taken so far.
    pub duration_seconds: f64,
    /// The same for people.
    pub duration_human: String,
    /// Why it failed.
    pub error: Option<String>,
    /// The same as `{kind, code, message, …}`.
    #[schema(value_type = Value)]
    pub error_detail: Value,
    /// The execution that started it.
    #[schema(value_type = Option<String>)]
    pub parent_execution_id: Option<ExecutionId>,
    /// Top of its family.
    #[schema(value_type = String)]
    pub root_execution_id: ExecutionId,
    /// Steps entered.
    pub steps_entered: u64,
    /// Commands issued: a runaway shows here.
    pub commands_issued: u64,
    /// The step visited most often: here, too.
    pub most_visited_step: Option<VisitedStep>,
    /// Commands held by workers.
    pub in_flight: u32,
    /// Nothing of it runs any more.
    pub quiesced: bool,
    /// Since when.
    pub quiesced_at: Option<String>,
    /// What is alive: running, pending or waiting.
    pub commands: Vec<LiveCommand>,
    /// There are more than are listed.
    pub commands_truncated: bool,
    /// Pools in which commands of it wait, and that no worker serves.
    pub unserved_pools: Vec<String>,
    /// How it was cancelled.
    pub cancellation: Option<Cancellation>,
    /// What a cancel of an ancestor does to it: nothing (`abandon`, `wait`); null: it is cancelled too.
    pub shield: Option<String>,
    /// Who paused it, since when and why.
    pub pause: Option<Pause>,
    /// The cancelled execution that it cleans up after.
    #[schema(value_type = Option<String>)]
    pub cleanup_of: Option<ExecutionId>,
    /// What people find it by.
    pub labels: BTreeMap<String, String>,
    /// Place of the last event in the log.
    pub last_version: u64,
    /// Time of the last event.
    pub updated_at: String,
}

/// How many steps are where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// Steps of the playbook.
    pub total_steps: u64,
    /// Of these, last visited with success.
    pub completed_steps: u64,
    /// Of these, under way.
    pub running_steps: u64,
    /// Of these, last visited with an error.
    pub failed_steps: u64,
}

/// A step and how often it was entered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VisitedStep {
    /// Step name.
    pub step: String,
    /// Visits.
    pub visits: u32,
}

/// A command that is not settled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LiveCommand {
    /// Which.
    #[schema(value_type = String)]
    pub command_id: CommandId,
    /// Attempt.
    pub epoch: u32,
    /// `pending`, `paused`, `claimed`, `suspended` or `lost`.
    pub state: String,
    /// Step name.
    pub step: String,
    /// Which visit of the step.
    pub visit: u32,
    /// Which iteration of a loop, from 0.
    pub iteration: Option<u32>,
    /// Kind of tool.
    pub tool: String,
    /// Its pool: which workers may run it.
    pub pool: String,
    /// Whether an interrupt can end it, as its kind declares.
    pub stoppable: bool,
    /// Who holds it.
    pub worker_id: Option<String>,
    /// The tool is known to have started.
    pub started: bool,
    /// The process that leads what runs, on the worker's machine; known once it has run for more than a second, null
    /// where it is no process of its own.
    pub pid: Option<u32>,
    /// Kind of the tool that runs, once it has run for more than a second.
    pub running_tool: Option<String>,
    /// Since when that tool runs, by the worker's clock.
    pub running_since: Option<String>,
    /// Since when it has been issued or held.
    pub since: String,
    /// How long that is.
    pub age_seconds: f64,
    /// When it will be stopped by force, if it has not ended by then.
    pub kill_at: Option<String>,
}

/// Shows where an execution stands.
#[utoipa::path(
    get, path = "/api/executions/{execution_id}/status", tag = "executions",
    params(("execution_id" = String, Path, description = "Which"), StatusParams),
    responses((status = 200, body = StatusReply), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody))
)]
pub(in crate::api) async fn status(
    State(api): State<Api>,
    PathId(execution_id): PathId<ExecutionId>,
    Query(params): Query<StatusParams>,
) -> Result<Json<StatusReply>, ApiError> {
    let until = match params.until.as_deref() {
        None | Some("terminal") => WaitFor::Terminal,
        Some("quiesced") => WaitFor::Quiesced,
        Some(other) => {
            return Err(ApiError::bad_field("until", format!("`{other}` is neither `terminal` nor `quiesced`")));
        }
    };
    let wait = events::wait(params.wait_seconds, WAIT_SECONDS_MAX)?;
    if !wait.is_zero() {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        tokio::select! {
            head = api.engine.wait(execution_id, until, wait_ms) => drop(head?),
            () = api.stopping() => {}
        }
    }
    let Some(inspection) = api.engine.inspect(execution_id).await? else {
        return Err(match api.engine.cleans_up_after(execution_id).await? {
            Some(of) => not_begun(execution_id, of),
            None => ApiError::unknown_execution(execution_id),
        });
    };
    let now = api.store().now().await?;
    let mut reply = reply(&inspection, now, params.full.unwrap_or(false));
    reply.unserved_pools = unserved(&api, &inspection.commands).await?;
    Ok(Json(reply))
}

/// Returns the pools in which one of `commands` waits and that no worker serves.
async fn unserved(api: &Api, commands: &[CommandRow]) -> Result<Vec<String>, ApiError> {
    let pending = commands.iter().filter(|row| row.state == CommandState::Pending);
    let pools: BTreeSet<&str> = pending.map(|row| row.pool.as_ref()).collect();
    if pools.is_empty() {
        return Ok(Vec::new());
    }
    let sessions = api.store().sessions().await?;
    Ok(pools.into_iter().filter(|pool| !workers::serves(&sessions, pool)).map(str::to_owned).collect())
}

/// A cancel's answer names the cleanup before it is there.
fn not_begun(execution_id: ExecutionId, of: ExecutionId) -> ApiError {
    let message = format!(
        "Execution {execution_id} has not begun: it cleans up after {of}, of which something still runs or has just ended"
    );
    ApiError::new(StatusCode::NOT_FOUND, CLEANUP_NOT_BEGUN, message).about_execution(execution_id.to_string())
}

fn reply(inspection: &Inspection, now: Timestamp, full: bool) -> StatusReply {
    let Inspection { head, execution, playbook, commands, .. } = inspection;
    let summary = Summary::of(head, now);
    let total = playbook.as_ref().map_or(execution.steps.len(), |playbook| playbook.steps.len());
    let mut progress = Progress { total_steps: total as u64, ..Progress::default() };
    let mut completed_steps = Vec::new();
    for name in &steps::names(inspection) {
        match steps::status(execution, name) {
            StepStatus::Completed => {
                progress.completed_steps += 1;
                completed_steps.push(name.to_string());
            }
            StepStatus::Running => progress.running_steps += 1,
            StepStatus::Failed => progress.failed_steps += 1,
            StepStatus::Pending | StepStatus::Skipped | StepStatus::Cancelled => {}
        }
    }
    let most_visited_step = execution
        .steps
        .iter()
        .max_by_key(|(_, step)| step.visits)
        .filter(|(_, step)| step.visits > 0)
        .map(|(name, step)| VisitedStep { step: name.to_string(), visits: step.visits });
    let size: usize = execution.ctx.iter().map(|(key, item)| key.len() + json_size(item)).sum();
    let omitted = !full && size > INLINE_BYTES_MAX;
    let cancelled = head.status == Status::Cancelled;
    StatusReply {
        execution_id: head.execution_id,
        catalog_id: head.catalog_id,
        path: summary.path,
        version: summary.version,
        status: summary.status,
        event_type: decisive_event(head.status).to_owned(),
        // Clients of older servers read `completed` as "it is over"; a failed run with `false` prints RUNNING for ever.
        completed: head.status.is_terminal(),
        failed: head.status == Status::Failed,
        cancelled,
        is_cancelled: cancelled,
        completion_inferred: false,
        current_step: summary.current_step,
        completed_steps,
        failed_steps: summary.failed_steps,
        variables: if omitted { Map::new() } else { variables(execution) },
        variables_omitted: omitted,
        progress,
        start_time: summary.start_time,
        end_time: summary.end_time,
        duration_seconds: summary.duration_seconds,
        duration_human: summary.duration_human,
        error: summary.error,
        error_detail: head.error.as_deref().cloned().unwrap_or(Value::Null),
        parent_execution_id: head.parent_execution_id,
        root_execution_id: head.root_execution_id,
        steps_entered: head.steps_entered,
        commands_issued: head.commands_issued,
        most_visited_step,
        in_flight: head.in_flight,
        quiesced: summary.quiesced,
        quiesced_at: head.quiesced_at.map(Timestamp::to_iso),
        commands: commands.iter().take(RUNNING_MAX).map(|row| live(row, head, now)).collect(),
        commands_truncated: commands.len() > RUNNING_MAX,
        unserved_pools: Vec::new(),
        cancellation: summary.cancellation,
        shield: head.shield.map(|shield| shield.as_str().to_owned()),
        pause: summary.pause,
        cleanup_of: summary.cleanup_of,
        labels: summary.labels,
        last_version: head.version,
        updated_at: summary.updated_at,
    }
}

fn variables(execution: &Execution) -> Map<String, Value> {
    execution.ctx.iter().map(|(key, item)| (key.to_string(), item.as_ref().clone())).collect()
}

pub(super) fn live(row: &CommandRow, head: &Head, now: Timestamp) -> LiveCommand {
    let since = row.holder.as_ref().map_or(row.since, |holder| holder.claimed_at);
    let kill_at = head.cancel.as_ref().filter(|_| row.state.in_flight()).and_then(|cancel| match cancel.mode {
        CancelMode::Interrupt => Some(cancel.since.plus_ms(cancel::grace_ms(head, row))),
        CancelMode::Finish => None,
    });
    LiveCommand {
        command_id: row.command_id,
        epoch: row.epoch,
        state: row.state.as_str().to_owned(),
        step: row.step.to_string(),
        visit: row.visit,
        iteration: row.iteration,
        tool: row.kind.to_string(),
        pool: row.pool.to_string(),
        stoppable: kind::stoppable(&row.kind),
        worker_id: row.holder.as_ref().map(|holder| holder.worker_id.to_string()),
        started: row.holder.as_ref().is_some_and(|holder| holder.started),
        pid: row.running.as_ref().and_then(|running| running.pid),
        running_tool: row.running.as_ref().map(|running| running.tool.to_string()),
        running_since: row.running.as_ref().map(|running| running.since.to_iso()),
        since: since.to_iso(),
        age_seconds: time::seconds(now.since_ms(since)),
        kill_at: kill_at.map(Timestamp::to_iso),
    }
}
