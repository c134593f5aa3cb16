//! `GET /api/executions/{execution_id}/logs`: what the tools of an execution printed.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use noetl_core::head::Head;
use noetl_core::id::{CommandId, ExecutionId};
use noetl_core::time::Timestamp;
use noetl_store::{LogQuery, LogRow};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

use super::events::{WAIT_SECONDS_MAX, wait};
use super::head_of;
use crate::api::Api;
use crate::api::error::{ApiError, ErrorBody};
use crate::api::extract::{PathId, Query};

/// Lines on a page, unless told otherwise.
pub const LINES_DEFAULT: u64 = 500;
/// Most lines on a page.
pub const LINES_MAX: u64 = 1_000;
/// Most bytes of lines on a page, about.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long after an execution has quiesced lines of it may still be on their way: a worker gives a few tries to
/// sending them, and no command waits for that.
pub const LATE_LINES: Duration = Duration::from_secs(2);

/// Which lines.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct LogParams {
    /// Only lines of this step.
    pub step: Option<String>,
    /// Only lines after this one: `log_id` of a line, or `last` of a page.
    pub after: Option<u64>,
    /// Most lines on the page, 1 to 1,000; 500 without it.
    pub limit: Option<u64>,
    /// The newest lines instead of the oldest; in the order in which they came all the same.
    pub newest: Option<bool>,
    /// Wait so long for a first line.
    pub wait_seconds: Option<f64>,
}

/// A line that a tool printed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LogEntry {
    /// Rises with every line.
    pub log_id: u64,
    /// Step name.
    pub step: String,
    /// Which iteration of its loop, from 0.
    pub iteration: Option<u32>,
    /// Task label within the step.
    pub task: String,
    /// Which execution of the task, from 1.
    pub attempt: u32,
    /// Which command printed it.
    #[schema(value_type = String)]
    pub command_id: CommandId,
    /// `stdout`, `stderr`; `system` for a mark that says what is missing.
    pub stream: String,
    /// When the worker read it.
    pub at: String,
    /// The line, without its end.
    pub line: String,
}

/// A page of what was printed, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LogReply {
    /// Whose.
    #[schema(value_type = String)]
    pub execution_id: ExecutionId,
    /// Status of the execution.
    pub status: String,
    /// Nothing of it runs any more, and nothing is on its way: no line follows those that are here.
    pub complete: bool,
    /// The lines.
    pub lines: Vec<LogEntry>,
    /// The last line of the page, for `after`; without lines what was asked for.
    pub last: u64,
    /// There may be more lines behind it already.
    pub has_more: bool,
}

impl LogEntry {
    fn of(row: LogRow) -> Self {
        let LogRow { log_id, line } = row;
        LogEntry {
            log_id,
            step: line.step.to_string(),
            iteration: line.iteration,
            task: line.task.to_string(),
            attempt: line.attempt,
            command_id: line.command_id,
            stream: line.stream.as_str().to_owned(),
            at: line.at.to_iso(),
            line: line.line,
        }
    }
}

/// Shows what the tools of an execution printed, page by page.
///
/// A follower asks with `after` and `wait_seconds` until `complete` is true and `has_more` is not.
#[utoipa::path(
    get, path = "/api/executions/{execution_id}/logs", tag = "executions",
    params(("execution_id" = String, Path, description = "Which"), LogParams),
    responses(
        (status = 200, body = LogReply),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody),
    )
)]
pub(in crate::api) async fn logs(
    State(api): State<Api>,
    PathId(execution_id): PathId<ExecutionId>,
    Query(params): Query<LogParams>,
) -> Result<Json<LogReply>, ApiError> {
    let limit = params.limit.unwrap_or(LINES_DEFAULT);
    if limit == 0 || limit > LINES_MAX {
        return Err(ApiError::bad_field("limit", format!("must be 1 to {LINES_MAX}")));
    }
    let after = params.after.unwrap_or(0);
    if i64::try_from(after).is_err() {
        return Err(ApiError::bad_field("after", "must be the `log_id` of a line"));
    }
    let deadline = Instant::now() + wait(params.wait_seconds, WAIT_SECONDS_MAX)?;
    let newest = params.newest.unwrap_or(false);
    let query = LogQuery { execution_id, step: params.step.filter(|step| !step.is_empty()), after, limit, newest };
    // Subscribed before the first look: a line in between wakes the wait at once.
    let mut news = api.engine.subscribe_log(execution_id);
    loop {
        // The head first: lines that come between the two looks are in a page that says more may follow.
        let head = head_of(&api, execution_id).await?;
        let late_until = head.quiesced_at.map(|at| at.plus_ms(LATE_LINES.as_millis() as u64));
        let now = api.store().now().await?;
        let complete = late_until.is_some_and(|until| now >= until);
        let rows = api.store().log(query.clone()).await?;
        if !rows.is_empty() || complete || Instant::now() >= deadline || api.is_stopping() {
            return Ok(Json(page(&head, complete, rows, &query)));
        }
        let until = late_until.map_or(deadline, |until| deadline.min(moment(until, now)));
        api.woken_before(until, &mut news).await;
    }
}

fn page(head: &Head, complete: bool, rows: Vec<LogRow>, query: &LogQuery) -> LogReply {
    let found = rows.len();
    let mut bytes = 0;
    let fits = |row: &LogRow| {
        bytes += row.line.line.len();
        bytes <= PAGE_BYTES_MAX
    };
    // The newest ones would miss their beginning, the others are asked for again.
    let lines: Vec<LogEntry> = if query.newest {
        let mut newest: Vec<LogRow> = rows.into_iter().rev().take_while(fits).collect();
        newest.reverse();
        newest.into_iter().map(LogEntry::of).collect()
    } else {
        rows.into_iter().take_while(fits).map(LogEntry::of).collect()
    };
    LogReply {
        execution_id: head.execution_id,
        status: head.status.as_str().to_owned(),
        complete,
        last: lines.last().map_or(query.after, |line| line.log_id),
        has_more: !query.newest && (found as u64 == query.limit || lines.len() < found),
        lines,
    }
}

/// Returns when, by this process's clock, the store's clock shows `at`.
fn moment(at: Timestamp, now: Timestamp) -> Instant {
    Instant::now() + Duration::from_millis(at.since_ms(now))
}
