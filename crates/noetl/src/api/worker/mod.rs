//! `/api/worker` and `/api/commands`: the way from workers to this server, over HTTP and JSON.
//!
//! Every request may be sent again. Simple workers in any language poll with `offer: true` and claim what they want.

pub mod advance;
mod schema;
pub mod secrets;

use axum::Json;
use axum::extract::{FromRequest, Request, State};
use axum::http::StatusCode;
use noetl_core::event::Event;
use noetl_core::head::CommandRow;
use noetl_core::id::{CatalogId, CommandId, EventId, ExecutionId, SessionId};
use noetl_core::log::{LOG_LINE_BYTES_MAX, LogLine};
use noetl_core::work::Assignment;
use noetl_engine::transport::{
    Claim, ClaimError, Hello, LOG_LINES_PER_REQUEST_MAX, Orders, PROTOCOL, Poll, REPORTS_MAX, Reports, Welcome,
    WorkerError,
};
use noetl_store::EventQuery;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::catalog::Entry;
use super::error::{ApiError, ErrorBody};
use super::extract::{self, Body, PathId, Query};

/// A worker's own words, read without a complaint about unknown keys: worker and server may differ in version.
pub(super) struct Said<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Said<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = extract::read(request, state).await?;
        let mut reader = serde_json::Deserializer::from_slice(&bytes);
        serde_path_to_error::deserialize(&mut reader).map(Said).map_err(|error| {
            let field = error.path().to_string();
            let problem = error.into_inner();
            // What is missing, or no object at all, has no path of its own.
            if field == "." { ApiError::bad_request(problem.to_string()) } else { ApiError::bad_field(&field, problem) }
        })
    }
}

/// Begins a worker's session.
///
/// A second session under the same name ends the first: what that one held is lost at once.
#[utoipa::path(
    post, path = "/api/worker/hello", tag = "worker", request_body = schema::Hello,
    responses(
        (status = 200, body = schema::Welcome),
        (status = 400, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "Another process goes by its name by now: leave"),
    )
)]
pub(super) async fn hello(State(api): State<Api>, Said(hello): Said<Hello>) -> Result<Json<Welcome>, ApiError> {
    Ok(Json(api.engine.hello(hello).await?))
}

/// Asks for work and orders. Hangs until there are some, at most as long as the poll says.
#[utoipa::path(
    post, path = "/api/worker/poll", tag = "worker", request_body = schema::Poll,
    responses(
        (status = 200, body = schema::Orders),
        (status = 400, body = ErrorBody),
        (status = 410, body = ErrorBody, description = "The session is over: stop what runs and say hello again"),
        (status = 426, body = ErrorBody, description = "The worker speaks a newer protocol than this server"),
    )
)]
pub(super) async fn poll(State(api): State<Api>, Said(poll): Said<Poll>) -> Result<Json<Orders>, ApiError> {
    tokio::select! {
        orders = api.engine.poll(poll) => Ok(Json(orders?)),
        // What was claimed for a poll that ends here is sent again with the next one.
        () = api.stopping() => Ok(Json(Orders { lease_ms: api.engine.options().lease_ms, ..Orders::default() })),
    }
}

/// Reports outcomes. Answered like a poll, when they are durable.
#[utoipa::path(
    post, path = "/api/worker/report", tag = "worker", request_body = schema::Reports,
    responses(
        (status = 200, body = schema::Orders),
        (status = 400, body = ErrorBody),
        (status = 410, body = ErrorBody, description = "The session is over: stop what runs and say hello again"),
        (status = 426, body = ErrorBody, description = "The worker speaks a newer protocol than this server"),
    )
)]
pub(super) async fn report(State(api): State<Api>, Said(reports): Said<Reports>) -> Result<Json<Orders>, ApiError> {
    if reports.reports.len() > REPORTS_MAX {
        return Err(ApiError::bad_field("reports", format!("must be at most {REPORTS_MAX}")));
    }
    Ok(Json(api.engine.report(reports).await?))
}

/// The code of a greeting that comes back to a name which another process has by now.
pub const NAME_TAKEN: &str = "name_taken";

/// What tools printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Printed {
    /// In the order in which it was printed.
    pub lines: Vec<LogLine>,
}

/// The answer to what was printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PrintedReply {
    /// Lines taken; one that was sent before counts again.
    pub lines: usize,
}

/// Room for a mark behind the part of a line that is kept.
const MARK_BYTES: usize = 128;

/// Takes what tools printed. Safe to send again: a line is known by its source and serial.
#[utoipa::path(
    post, path = "/api/worker/log", tag = "worker", request_body = schema::Printed,
    responses((status = 200, body = PrintedReply), (status = 400, body = ErrorBody))
)]
pub(super) async fn log(
    State(api): State<Api>,
    Said(Printed { lines }): Said<Printed>,
) -> Result<Json<PrintedReply>, ApiError> {
    if lines.len() > LOG_LINES_PER_REQUEST_MAX {
        return Err(ApiError::bad_field("lines", format!("must be at most {LOG_LINES_PER_REQUEST_MAX}")));
    }
    if lines.iter().any(|line| line.line.len() > LOG_LINE_BYTES_MAX + MARK_BYTES) {
        return Err(ApiError::bad_field("lines", format!("a line must be at most {LOG_LINE_BYTES_MAX} bytes")));
    }
    let taken = lines.len();
    api.engine.keep_log(lines).await?;
    Ok(Json(PrintedReply { lines: taken }))
}

/// Returns a playbook version, for a worker to compile.
#[utoipa::path(
    get, path = "/api/worker/playbook/{catalog_id}", tag = "worker",
    params(("catalog_id" = String, Path, description = "Which version")),
    responses((status = 200, body = Entry), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody))
)]
pub(super) async fn playbook(
    State(api): State<Api>,
    PathId(catalog_id): PathId<CatalogId>,
) -> Result<Json<Entry>, ApiError> {
    match api.engine.playbook(catalog_id).await? {
        Some((resource, _)) => Ok(Json(Entry::from(resource.as_ref()))),
        None => {
            let message = format!("playbook version {catalog_id} is not in the catalog");
            Err(ApiError::new(StatusCode::NOT_FOUND, "unknown_playbook", message))
        }
    }
}

/// Which large result.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ResolveParams {
    /// `noetl://execution/<execution_id>/result/<name>/<id>`.
    #[serde(rename = "ref")]
    pub reference: String,
}

/// Returns a large result: the data itself.
#[utoipa::path(
    get, path = "/api/result/resolve", tag = "worker", params(ResolveParams),
    responses((status = 200, body = Value), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody))
)]
pub(super) async fn resolve(
    State(api): State<Api>,
    Query(params): Query<ResolveParams>,
) -> Result<Json<Value>, ApiError> {
    match api.engine.stored_result(&params.reference).await? {
        Some(data) => Ok(Json(data.as_ref().clone())),
        None => {
            let message = format!("there is no result {}", params.reference);
            Err(ApiError::new(StatusCode::NOT_FOUND, "unknown_result", message))
        }
    }
}

/// Who wants a command.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClaimBody {
    /// The worker's name. Without `session_id`, its present session claims; if it has none, one begins.
    pub worker_id: String,
    /// The worker's session.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub session_id: Option<SessionId>,
    /// Sent by older workers; without effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    pub locality: Option<Value>,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CommandReply {
    /// `ok` for a claim, else `pending`, `claimed`, `suspended`, `lost` or `settled`.
    pub status: String,
    /// The id that was asked for.
    #[schema(value_type = String)]
    pub event_id: EventId,
    /// Whose.
    #[schema(value_type = String)]
    pub execution_id: ExecutionId,
    /// Which.
    #[schema(value_type = String)]
    pub command_id: CommandId,
    /// Attempt: a report must name it.
    pub epoch: Option<u32>,
    /// The session that claimed it.
    #[schema(value_type = Option<String>)]
    pub session_id: Option<SessionId>,
    /// Step name.
    pub node_id: String,
    /// Step name.
    pub node_name: String,
    /// Kind of tool.
    pub action: String,
    /// The names that the step's templates need, the iteration, the continuation.
    #[schema(value_type = Value)]
    pub context: Value,
    /// Playbook version, visit, losses.
    #[schema(value_type = Value)]
    pub meta: Value,
    /// How long the worker is believed alive without another request, in milliseconds.
    pub lease_ms: u64,
}

/// Claims one command for a worker that chooses by itself. The same worker may ask again.
#[utoipa::path(
    post, path = "/api/commands/{event_id}/claim", tag = "worker", request_body = ClaimBody,
    params(("event_id" = String, Path, description = "The event `command.issued`, or the command")),
    responses(
        (status = 200, body = CommandReply),
        (status = 404, body = ErrorBody, description = "No such command, or it is settled"),
        (status = 409, body = ErrorBody, description = "`Execution has been cancelled`, or somebody else has it"),
        (status = 410, body = ErrorBody, description = "The session is over: stop what runs and say hello again"),
    )
)]
pub(super) async fn claim(
    State(api): State<Api>,
    PathId(event_id): PathId<EventId>,
    Body(body): Body<ClaimBody>,
) -> Result<Json<CommandReply>, ApiError> {
    let session_id = match body.session_id {
        Some(session_id) => session_id,
        None => session_of(&api, &body.worker_id).await?,
    };
    let assignment = api.engine.claim(Claim { session_id, id: event_id.0 }).await?;
    Ok(Json(claimed(event_id, session_id, &assignment, api.engine.options().lease_ms)))
}

fn claimed(event_id: EventId, session_id: SessionId, assignment: &Assignment, lease_ms: u64) -> CommandReply {
    CommandReply {
        status: "ok".to_owned(),
        event_id,
        execution_id: assignment.execution_id,
        command_id: assignment.command_id,
        epoch: Some(assignment.epoch),
        session_id: Some(session_id),
        node_id: assignment.step.to_string(),
        node_name: assignment.step.to_string(),
        action: assignment.kind.to_string(),
        context: assignment.work.as_ref().clone(),
        meta: json!({
            "catalog_id": assignment.catalog_id,
            "path": assignment.path,
            "version": assignment.version,
            "visit": assignment.visit,
            "losses": assignment.losses,
            "at_most_once": assignment.at_most_once,
        }),
        lease_ms,
    }
}

/// The session of a worker that knows only its name. A second one would end the first, so it is looked for.
async fn session_of(api: &Api, worker_id: &str) -> Result<SessionId, ApiError> {
    if worker_id.trim().is_empty() {
        return Err(ApiError::bad_field("worker_id", "is needed: the name of the worker"));
    }
    let sessions = api.store().sessions().await?;
    if let Some(session) = sessions.iter().find(|session| &*session.worker_id == worker_id) {
        return Ok(session.session_id);
    }
    let hello = Hello {
        worker_id: worker_id.into(),
        session_id: None,
        instance: None,
        slots: 1,
        pools: Vec::new(),
        protocol: PROTOCOL,
        version: String::new(),
        meta: Value::Null,
    };
    Ok(api.engine.hello(hello).await?.session_id)
}

/// Shows a command by the event that issued it.
#[utoipa::path(
    get, path = "/api/commands/{event_id}", tag = "worker",
    params(("event_id" = String, Path, description = "The event `command.issued`")),
    responses((status = 200, body = CommandReply), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody))
)]
pub(super) async fn command(
    State(api): State<Api>,
    PathId(event_id): PathId<EventId>,
) -> Result<Json<CommandReply>, ApiError> {
    let query = EventQuery {
        since_event_id: Some(EventId(event_id.0 - 1)),
        event_type: Some("command.issued".to_owned()),
        limit: 1,
        ..EventQuery::default()
    };
    let (events, _) = api.store().events(query).await?;
    let unknown = || {
        let message = format!("event {event_id} is no command.issued");
        ApiError::new(StatusCode::NOT_FOUND, "unknown_command", message)
    };
    let recorded = events.into_iter().find(|recorded| recorded.event_id == event_id).ok_or_else(unknown)?;
    let Event::CommandIssued(issued) = recorded.event else {
        return Err(unknown());
    };
    let view = api.store().view(recorded.execution_id).await?.ok_or_else(unknown)?;
    // The newest attempt stands last.
    let row: Option<&CommandRow> = view.commands.iter().rfind(|row| row.command_id == issued.command_id);
    Ok(Json(CommandReply {
        status: row.map_or("settled", |row| row.state.as_str()).to_owned(),
        event_id,
        execution_id: recorded.execution_id,
        command_id: issued.command_id,
        epoch: row.map(|row| row.epoch),
        session_id: row.and_then(|row| row.holder.as_ref()).map(|holder| holder.session_id),
        node_id: issued.step.to_string(),
        node_name: issued.step.to_string(),
        action: issued.kind.to_string(),
        context: row.map_or(Value::Null, |row| row.work.as_ref().clone()),
        meta: json!({
            "catalog_id": view.head.catalog_id,
            "path": view.head.path,
            "version": view.head.playbook_version,
            "visit": issued.visit,
            "iteration": issued.iteration,
            "input": issued.input,
        }),
        lease_ms: api.engine.options().lease_ms,
    }))
}

impl From<WorkerError> for ApiError {
    fn from(error: WorkerError) -> Self {
        let message = error.to_string();
        match error {
            WorkerError::UnknownSession(_) => ApiError::new(StatusCode::GONE, "unknown_session", message),
            WorkerError::NameTaken(_) => ApiError::new(StatusCode::CONFLICT, NAME_TAKEN, message),
            WorkerError::Bad(_) => ApiError::bad_request(message),
            WorkerError::TooNew(_) => ApiError::new(StatusCode::UPGRADE_REQUIRED, "protocol_too_new", message),
            WorkerError::Store(error) => error.into(),
            WorkerError::Unreachable(_) => ApiError::new(StatusCode::BAD_GATEWAY, "unreachable", message),
        }
    }
}

impl From<ClaimError> for ApiError {
    fn from(error: ClaimError) -> Self {
        let message = error.to_string();
        let (status, code) = match error {
            ClaimError::Unknown(_) => (StatusCode::NOT_FOUND, "unknown_command"),
            ClaimError::Cancelled => (StatusCode::CONFLICT, "execution_cancelled"),
            ClaimError::Ended(_) => (StatusCode::CONFLICT, "already_terminal"),
            ClaimError::Taken(_) => (StatusCode::CONFLICT, "active_claim"),
            ClaimError::Suspended => (StatusCode::CONFLICT, "suspended"),
            ClaimError::Paused => (StatusCode::CONFLICT, "paused"),
            ClaimError::NotHeld { .. } => (StatusCode::CONFLICT, "not_held"),
            ClaimError::Continuation => (StatusCode::BAD_REQUEST, "bad_continuation"),
            ClaimError::UnknownSession(_) => (StatusCode::GONE, "unknown_session"),
            ClaimError::Store(error) => return error.into(),
        };
        ApiError::new(status, code, message)
    }
}
