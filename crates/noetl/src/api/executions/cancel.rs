//! `POST /api/executions/{execution_id}/cancel`: the promise this product is about.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use noetl_core::control::cancel::{InFlight, REASON_BYTES_MAX};
use noetl_core::id::{CancellationId, CommandId, ExecutionId};
use noetl_core::playbook::CancelMode;
use noetl_engine::{
    CancelAnswer, CancelError, CancelRequest, CancelStatus, CompleteRequest, Spared, StopError, StopRequest, Stopped,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::mode_word;
use crate::api::Api;
use crate::api::caller::{Caller, IdempotencyKey};
use crate::api::error::{ApiError, ErrorBody};
use crate::api::extract::{Body, PathId};
use crate::api::suggest;

/// Longest grace, in seconds.
pub const GRACE_SECONDS_MAX: f64 = 3600.0;
/// Longest time that a cancel hangs until everything has quiesced, in seconds.
pub const WAIT_SECONDS_MAX: f64 = 600.0;

/// How to cancel. Everything is optional; no body at all, `{}` and `null` are the same.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CancelBody {
    /// Why: free text up to 4 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Also every descendant, at any depth. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cascade: Option<bool>,
    /// `finish` or `interrupt`. Without it each execution's own way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Between the polite stop and the kill of an interrupt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<f64>,
    /// Hold the answer until everything cancelled has quiesced, or so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_seconds: Option<f64>,
    /// `quiesced` (the default), or `cleanup`: hold the answer until the cleanups have ended, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_for: Option<String>,
    /// Change nothing, say what would be cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
    /// Only what this step has begun: its outcome is an error of kind `cancelled` that policies and arcs may handle,
    /// and the execution goes on. It is always interrupted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// With `step`: only this iteration of its loop, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iteration: Option<u32>,
    /// With `step`: its loop ends with the results there are, as a success. `mode` says what becomes of the iterations
    /// that run (`interrupt` or `finish`); without it the loop's own `on_complete`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub complete: Option<bool>,
}

/// What a cancel did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CancelReply {
    /// `cancelled`, `dry_run`; `step_cancelled` or `loop_completed` when the request named a step.
    pub status: String,
    /// The execution that the request named.
    #[schema(value_type = String)]
    pub execution_id: ExecutionId,
    /// What this request cancelled, the named one first if it is among them.
    #[schema(value_type = Vec<String>)]
    pub cancelled_executions: Vec<ExecutionId>,
    /// One sentence for people.
    pub message: String,
    /// What a request without `dry_run` would cancel now.
    #[schema(value_type = Vec<String>)]
    pub would_cancel: Vec<ExecutionId>,
    /// Something was cancelled before, and what still runs of it is now stopped harder.
    pub escalated: bool,
    /// Which executions those are.
    #[schema(value_type = Vec<String>)]
    pub escalated_executions: Vec<ExecutionId>,
    /// What a request without `dry_run` would stop harder now.
    #[schema(value_type = Vec<String>)]
    pub would_escalate: Vec<ExecutionId>,
    /// The request's reason.
    pub reason: Option<String>,
    /// The mode that holds for the named execution.
    pub mode: String,
    /// What workers held at the decision; nothing else of these executions will ever start.
    pub in_flight: Vec<InFlightCommand>,
    /// Descendants that run on because `cascade` was not asked.
    pub active_descendants: u64,
    /// Descendants that a cascade left alone with all that is below them, because they are shielded.
    pub spared: Vec<SparedExecution>,
    /// Nothing of what was cancelled runs any more, and what is spared with `wait` has ended.
    pub quiesced: bool,
    /// The execution that cleans up after the named one; it begins when that has quiesced.
    #[schema(value_type = Option<String>)]
    pub cleanup: Option<ExecutionId>,
    /// Every cleanup has ended; known only with `wait_for: cleanup`.
    pub cleaned_up: bool,
    /// Everything asked for has been decided. If false, the rest goes on as a job.
    pub complete: bool,
    /// That job.
    #[schema(value_type = Option<String>)]
    pub job_id: Option<CancellationId>,
}

/// A command that a worker held at the decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InFlightCommand {
    /// Which.
    #[schema(value_type = String)]
    pub command_id: CommandId,
    /// Whose.
    #[schema(value_type = String)]
    pub execution_id: ExecutionId,
    /// Step name.
    pub step: String,
    /// Attempt.
    pub epoch: u32,
    /// The worker's name.
    pub worker: Option<String>,
    /// Kind of tool.
    pub tool: String,
    /// Whether an interrupt can end it.
    pub stoppable: bool,
}

/// A descendant that a cascade left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SparedExecution {
    /// Which.
    #[schema(value_type = String)]
    pub execution_id: ExecutionId,
    /// What its parent's task says (`spec.cancel.policy`): `abandon`, or `wait`.
    pub policy: String,
}

impl From<Spared> for SparedExecution {
    fn from(spared: Spared) -> Self {
        SparedExecution { execution_id: spared.execution_id, policy: spared.policy.as_str().to_owned() }
    }
}

impl From<InFlight> for InFlightCommand {
    fn from(command: InFlight) -> Self {
        InFlightCommand {
            command_id: command.command_id,
            execution_id: command.execution_id,
            step: command.step.to_string(),
            epoch: command.epoch,
            worker: command.worker.map(|name| name.to_string()),
            tool: command.tool.to_string(),
            stoppable: command.stoppable,
        }
    }
}

impl CancelReply {
    fn of_stop(request: StopRequest, stopped: Stopped) -> Self {
        let count = stopped.in_flight.len() + stopped.withdrawn.len();
        let message = format!("Cancelled {count} command(s) of step {}", request.step);
        let status = "step_cancelled".to_owned();
        let reason = request.reason;
        CancelReply { status, message, reason, ..CancelReply::of_step(request.execution_id, stopped) }
    }

    fn of_completion(request: CompleteRequest, stopped: Stopped) -> Self {
        let what = match stopped.mode {
            CancelMode::Interrupt => "are told to stop",
            CancelMode::Finish => "run to their end and count",
        };
        let (step, count) = (&request.step, stopped.in_flight.len());
        let message = format!("Completed the loop of step {step} early: {count} command(s) in flight {what}");
        let status = "loop_completed".to_owned();
        let reason = request.reason;
        CancelReply { status, message, reason, ..CancelReply::of_step(request.execution_id, stopped) }
    }

    /// What a request that named a step did; the execution goes on.
    fn of_step(execution_id: ExecutionId, stopped: Stopped) -> Self {
        CancelReply {
            status: String::new(),
            execution_id,
            cancelled_executions: Vec::new(),
            message: String::new(),
            would_cancel: Vec::new(),
            escalated: false,
            reason: None,
            escalated_executions: Vec::new(),
            would_escalate: Vec::new(),
            mode: mode_word(stopped.mode).to_owned(),
            quiesced: stopped.quiesced,
            in_flight: stopped.in_flight.into_iter().map(InFlightCommand::from).collect(),
            active_descendants: 0,
            spared: Vec::new(),
            cleanup: None,
            cleaned_up: false,
            complete: true,
            job_id: None,
        }
    }
}

impl From<CancelAnswer> for CancelReply {
    fn from(answer: CancelAnswer) -> Self {
        CancelReply {
            status: match answer.status {
                CancelStatus::Cancelled => "cancelled",
                CancelStatus::DryRun => "dry_run",
            }
            .to_owned(),
            execution_id: answer.execution_id,
            cancelled_executions: answer.cancelled_executions,
            message: answer.message,
            would_cancel: answer.would_cancel,
            escalated: answer.escalated,
            escalated_executions: answer.escalated_executions,
            would_escalate: answer.would_escalate,
            reason: answer.reason,
            mode: mode_word(answer.mode).to_owned(),
            in_flight: answer.in_flight.into_iter().map(InFlightCommand::from).collect(),
            active_descendants: answer.active_descendants,
            spared: answer.spared.into_iter().map(SparedExecution::from).collect(),
            quiesced: answer.quiesced,
            cleanup: answer.cleanup,
            cleaned_up: answer.cleaned_up,
            complete: answer.complete,
            job_id: answer.job_id,
        }
    }
}

/// Cancels an execution, and with `cascade` every descendant.
///
/// What is answered is durable. A repeat gets 409 with who and why, unless it repeats its `Idempotency-Key`, asks for
/// `interrupt` while something still runs, or reaches a descendant that is still active.
#[utoipa::path(
    post, path = "/api/executions/{execution_id}/cancel", tag = "executions", request_body = Option<CancelBody>,
    params(
        ("execution_id" = String, Path, description = "Which"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key gets the first answer again"),
        ("x-noetl-requested-by" = Option<String>, Header, description = "On whose behalf, as the client says"),
    ),
    responses(
        (status = 200, body = CancelReply),
        (status = 400, body = ErrorBody, description = "The id or the body is malformed"),
        (status = 404, body = ErrorBody, description = "No such execution"),
        (status = 409, body = ErrorBody, description = "It has ended already"),
    )
)]
pub(in crate::api) async fn cancel(
    State(api): State<Api>,
    caller: Caller,
    execution_id: Result<PathId<ExecutionId>, ApiError>,
    key: Result<IdempotencyKey, ApiError>,
    body: Result<Body<CancelBody>, ApiError>,
) -> Result<Json<CancelReply>, ApiError> {
    decide(&api, &caller, execution_id, key, body).await
}

/// The same as cancel, under the name that the web pages of older servers use.
#[utoipa::path(
    post, path = "/api/executions/{execution_id}/stop", tag = "executions", request_body = Option<CancelBody>,
    params(("execution_id" = String, Path, description = "Which")),
    responses(
        (status = 200, body = CancelReply),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody),
    )
)]
pub(in crate::api) async fn stop(
    State(api): State<Api>,
    caller: Caller,
    execution_id: Result<PathId<ExecutionId>, ApiError>,
    key: Result<IdempotencyKey, ApiError>,
    body: Result<Body<CancelBody>, ApiError>,
) -> Result<Json<CancelReply>, ApiError> {
    decide(&api, &caller, execution_id, key, body).await
}

/// Gives every refusal the shape of a refused cancel, that of a malformed id or body too.
async fn decide(
    api: &Api,
    caller: &Caller,
    execution_id: Result<PathId<ExecutionId>, ApiError>,
    key: Result<IdempotencyKey, ApiError>,
    body: Result<Body<CancelBody>, ApiError>,
) -> Result<Json<CancelReply>, ApiError> {
    let PathId(execution_id) = execution_id.map_err(|refusal| {
        let given = refusal.body.execution_id.clone().unwrap_or_default();
        refusal.as_cancel(given)
    })?;
    let as_cancel = |refusal: ApiError| refusal.as_cancel(execution_id.to_string());
    let IdempotencyKey(key) = key.map_err(as_cancel)?;
    let Body(body) = body.map_err(as_cancel)?;
    if body.complete == Some(true) {
        let request = of_completion(execution_id, body, caller, key).map_err(as_cancel)?;
        return match api.engine.complete_loop(&request).await {
            Ok(stopped) => Ok(Json(CancelReply::of_completion(request, stopped))),
            Err(error) => Err(as_cancel(error.into())),
        };
    }
    if body.step.is_some() || body.iteration.is_some() {
        let request = of_step(execution_id, body, caller, key).map_err(as_cancel)?;
        return match api.engine.stop_step(&request).await {
            Ok(stopped) => Ok(Json(CancelReply::of_stop(request, stopped))),
            Err(error) => Err(as_cancel(error.into())),
        };
    }
    let order = order(execution_id, body, caller, key).map_err(as_cancel)?;
    match api.engine.cancel(order).await {
        Ok(answer) => Ok(Json(answer.into())),
        Err(error) => Err(as_cancel(error.into())),
    }
}

/// Reads a request that names a step. What is said of an execution only does not go with it.
fn of_step(
    execution_id: ExecutionId,
    body: CancelBody,
    caller: &Caller,
    idempotency_key: Option<String>,
) -> Result<StopRequest, ApiError> {
    only_with_execution(&body)?;
    let Some(step) = body.step.filter(|step| !step.is_empty()) else {
        return Err(ApiError::bad_field("step", "which step the iteration belongs to must be named".to_owned()));
    };
    if mode(body.mode.as_deref())? == Some(CancelMode::Finish) {
        return Err(ApiError::bad_field("mode", "a step is always interrupted: leave it out".to_owned()));
    }
    Ok(StopRequest {
        execution_id,
        step,
        iteration: body.iteration,
        reason: reason(body.reason)?,
        grace_ms: milliseconds("grace_seconds", body.grace_seconds, GRACE_SECONDS_MAX)?,
        by: caller.name(),
        idempotency_key,
    })
}

/// Reads a request that completes a loop.
fn of_completion(
    execution_id: ExecutionId,
    body: CancelBody,
    caller: &Caller,
    idempotency_key: Option<String>,
) -> Result<CompleteRequest, ApiError> {
    only_with_execution(&body)?;
    let Some(step) = body.step.filter(|step| !step.is_empty()) else {
        return Err(ApiError::bad_field("step", "which step's loop is to be completed must be named".to_owned()));
    };
    if body.iteration.is_some() {
        return Err(ApiError::bad_field("iteration", "does not go with `complete`".to_owned()));
    }
    Ok(CompleteRequest {
        execution_id,
        step,
        mode: mode(body.mode.as_deref())?,
        reason: reason(body.reason)?,
        grace_ms: milliseconds("grace_seconds", body.grace_seconds, GRACE_SECONDS_MAX)?,
        by: caller.name(),
        idempotency_key,
    })
}

/// Refuses what is said of a whole execution only.
fn only_with_execution(body: &CancelBody) -> Result<(), ApiError> {
    for (field, given) in [
        ("cascade", body.cascade == Some(true)),
        ("dry_run", body.dry_run == Some(true)),
        ("wait_seconds", body.wait_seconds.is_some_and(|seconds| seconds > 0.0)),
    ] {
        if given {
            return Err(ApiError::bad_field(field, "does not go with `step`".to_owned()));
        }
    }
    Ok(())
}

pub(super) fn reason(reason: Option<String>) -> Result<Option<String>, ApiError> {
    let reason = reason.filter(|reason| !reason.is_empty());
    if reason.as_ref().is_some_and(|reason| reason.len() > REASON_BYTES_MAX) {
        return Err(ApiError::bad_field("reason", format!("must be at most {REASON_BYTES_MAX} bytes")));
    }
    // Not every store keeps them, and none of them is text that a person writes.
    let foreign = |letter: char| letter.is_control() && !matches!(letter, '\n' | '\r' | '\t');
    if reason.as_ref().is_some_and(|reason| reason.contains(foreign)) {
        let problem = "must not contain control characters other than new lines and tabs";
        return Err(ApiError::bad_field("reason", problem));
    }
    Ok(reason)
}

fn order(
    execution_id: ExecutionId,
    body: CancelBody,
    caller: &Caller,
    idempotency_key: Option<String>,
) -> Result<CancelRequest, ApiError> {
    Ok(CancelRequest {
        execution_id,
        reason: reason(body.reason)?,
        cascade: body.cascade.unwrap_or(false),
        mode: mode(body.mode.as_deref())?,
        grace_ms: milliseconds("grace_seconds", body.grace_seconds, GRACE_SECONDS_MAX)?,
        wait_ms: milliseconds("wait_seconds", body.wait_seconds, WAIT_SECONDS_MAX)?.unwrap_or(0),
        wait_for_cleanup: match body.wait_for.as_deref() {
            None | Some("quiesced") => false,
            Some("cleanup") => true,
            Some(other) => {
                let what = format!("`{other}` is neither `quiesced` nor `cleanup`");
                return Err(ApiError::bad_field("wait_for", what));
            }
        },
        dry_run: body.dry_run.unwrap_or(false),
        cancelled_by: caller.name(),
        requested_by: caller.requested_by.clone(),
        remote: caller.remote(),
        idempotency_key,
    })
}

pub(super) fn mode(word: Option<&str>) -> Result<Option<CancelMode>, ApiError> {
    match word {
        None => Ok(None),
        Some("finish") => Ok(Some(CancelMode::Finish)),
        Some("interrupt") => Ok(Some(CancelMode::Interrupt)),
        Some(other) => {
            let meant = suggest::closest(other, ["finish", "interrupt"]);
            let hint = meant.map(|word| format!("; did you mean `{word}`?")).unwrap_or_default();
            Err(ApiError::bad_field("mode", format!("`{other}` is neither `finish` nor `interrupt`{hint}")))
        }
    }
}

pub(super) fn milliseconds(field: &str, seconds: Option<f64>, most: f64) -> Result<Option<u64>, ApiError> {
    let Some(seconds) = seconds else {
        return Ok(None);
    };
    if !(0.0..=most).contains(&seconds) {
        return Err(ApiError::bad_field(field, format!("must be 0 to {most}")));
    }
    let duration = std::time::Duration::from_secs_f64(seconds);
    Ok(Some(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
}

impl From<StopError> for ApiError {
    fn from(error: StopError) -> Self {
        let message = error.to_string();
        match error {
            StopError::Unknown(execution_id) => ApiError::unknown_execution(execution_id),
            StopError::AlreadyEnded { head } => CancelError::of_ended(head).into(),
            StopError::NotRunning { .. } | StopError::NoLoop { .. } => {
                ApiError::new(StatusCode::CONFLICT, "not_running", message)
            }
            StopError::Store(error) => error.into(),
        }
    }
}

impl From<CancelError> for ApiError {
    fn from(error: CancelError) -> Self {
        let message = error.to_string();
        match error {
            CancelError::Unknown(execution_id) => ApiError::unknown_execution(execution_id),
            CancelError::AlreadyEnded { head, unquiesced } => {
                let mut refusal = ApiError::new(StatusCode::CONFLICT, "already_ended", message);
                refusal.body.execution_status = Some(head.status.as_str().to_owned());
                refusal.body.quiesced = Some(head.quiesced_at.is_some());
                refusal.body.unquiesced_executions = Some(unquiesced.iter().map(ToString::to_string).collect());
                refusal.body.ended_at = head.ended_at.map(noetl_core::time::Timestamp::to_iso);
                if let Some(cancel) = head.cancel {
                    refusal.body.cancelled_by = Some(cancel.cancelled_by);
                    refusal.body.requested_by = cancel.requested_by;
                    refusal.body.requested_execution_id = Some(cancel.requested_execution_id.to_string());
                    refusal.body.reason = cancel.reason;
                }
                refusal
            }
            CancelError::Store(error) => error.into(),
        }
    }
}
