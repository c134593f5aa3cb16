//! `/api/executions`: looking at runs and stopping them.

pub mod bulk;
pub mod cancel;
pub mod check;
pub mod detail;
pub mod events;
pub mod list;
pub mod logs;
pub mod pause;
pub mod rerun;
pub mod status;
pub mod steps;
pub mod tree;

use std::collections::BTreeMap;

use noetl_core::head::{CancelInfo, Head, Status};
use noetl_core::id::{CancellationId, CatalogId, ExecutionId};
use noetl_core::playbook::CancelMode;
use noetl_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Api;
use super::error::ApiError;
use super::time;

/// An execution in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Summary {
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
    /// How long it took, or has taken so far.
    pub duration_seconds: f64,
    /// The same for people.
    pub duration_human: String,
    /// 100 when it has ended, else 0.
    pub progress: u8,
    /// Always null in a list; the detail has it.
    #[schema(value_type = Value)]
    pub result: Value,
    /// Why it failed.
    pub error: Option<String>,
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
    /// How it was cancelled.
    pub cancellation: Option<Cancellation>,
    /// Who paused it; it goes on when somebody resumes it.
    pub pause: Option<pause::Pause>,
    /// The cancelled execution that it cleans up after.
    #[schema(value_type = Option<String>)]
    pub cleanup_of: Option<ExecutionId>,
    /// What people find it by.
    pub labels: BTreeMap<String, String>,
}

/// How an execution was cancelled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Cancellation {
    /// The authenticated identity, else `api`, `cli`, `parent`, …
    pub cancelled_by: String,
    /// Who said to have asked for it.
    pub requested_by: Option<String>,
    /// Where the request came from.
    pub remote: Option<String>,
    /// Free text.
    pub reason: Option<String>,
    /// The execution that the request named.
    #[schema(value_type = String)]
    pub requested_execution_id: ExecutionId,
    /// The cascade or job that carried it out.
    #[schema(value_type = Option<String>)]
    pub job_id: Option<CancellationId>,
    /// Top of the family.
    #[schema(value_type = String)]
    pub root_execution_id: ExecutionId,
    /// The request asked for descendants too.
    pub cascade: bool,
    /// `finish` or `interrupt`.
    pub mode: String,
    /// Grace of an interrupt.
    pub grace_seconds: f64,
    /// Since when this mode holds.
    pub since: String,
    /// The execution that cleans up after it; it begins when nothing of this one runs any more.
    #[schema(value_type = Option<String>)]
    pub cleanup: Option<ExecutionId>,
}

impl Cancellation {
    pub(super) fn of(head: &Head, cancel: &CancelInfo) -> Self {
        Cancellation {
            cancelled_by: cancel.cancelled_by.clone(),
            requested_by: cancel.requested_by.clone(),
            remote: cancel.remote.clone(),
            reason: cancel.reason.clone(),
            requested_execution_id: cancel.requested_execution_id,
            job_id: cancel.job_id,
            root_execution_id: head.root_execution_id,
            cascade: cancel.cascade,
            mode: mode_word(cancel.mode).to_owned(),
            grace_seconds: time::seconds(cancel.grace_ms),
            since: cancel.since.to_iso(),
            cleanup: cancel.cleanup,
        }
    }
}

impl Summary {
    pub(super) fn of(head: &Head, now: Timestamp) -> Self {
        let duration_ms = time::duration_ms(head, now);
        Summary {
            execution_id: head.execution_id,
            catalog_id: head.catalog_id,
            path: head.path.to_string(),
            version: head.playbook_version,
            status: head.status.as_str().to_owned(),
            start_time: head.started_at.to_iso(),
            end_time: head.ended_at.map(Timestamp::to_iso),
            duration_seconds: time::seconds(duration_ms),
            duration_human: time::human(duration_ms),
            progress: if head.status.is_terminal() { 100 } else { 0 },
            result: Value::Null,
            error: head.error.as_deref().map(error_text),
            parent_execution_id: head.parent_execution_id,
            root_execution_id: head.root_execution_id,
            depth: head.depth,
            updated_at: head.updated_at.to_iso(),
            current_step: head.current_step.as_deref().map(str::to_owned),
            failed_steps: head.failed_steps.iter().map(ToString::to_string).collect(),
            steps_entered: head.steps_entered,
            commands_issued: head.commands_issued,
            in_flight: head.in_flight,
            quiesced: head.quiesced_at.is_some(),
            cancellation: head.cancel.as_ref().map(|cancel| Cancellation::of(head, cancel)),
            pause: head.pause.as_ref().map(pause::Pause::from),
            cleanup_of: head.cleanup_of,
            labels: head.labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        }
    }
}

/// Returns the sentence in an error of the shape `{kind, code, message, …}`.
pub(super) fn error_text(error: &Value) -> String {
    match error.get("message").unwrap_or(error) {
        Value::String(message) => message.clone(),
        other => other.to_string(),
    }
}

/// Returns the word for a mode in bodies and answers.
pub(in crate::api) fn mode_word(mode: CancelMode) -> &'static str {
    match mode {
        CancelMode::Finish => "finish",
        CancelMode::Interrupt => "interrupt",
    }
}

/// Returns the wire name of the event that made `status` what it is.
pub(super) fn decisive_event(status: Status) -> &'static str {
    match status {
        Status::Running => "playbook.initialized",
        Status::Completed => "playbook.completed",
        Status::Failed => "playbook.failed",
        Status::Cancelled => "execution.cancelled",
    }
}

/// Reads a head, or refuses with 404.
pub(super) async fn head_of(api: &Api, execution_id: ExecutionId) -> Result<Head, ApiError> {
    api.store().head(execution_id).await?.ok_or_else(|| ApiError::unknown_execution(execution_id))
}
