//! `GET /api/workers`: who works, and on what.

use axum::Json;
use axum::extract::State;
use noetl_core::head::CommandRow;
use noetl_store::Session;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Api;
use super::error::ApiError;

/// Every worker with a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkersReply {
    /// By name.
    pub workers: Vec<WorkerStatus>,
}

/// A worker with a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerStatus {
    /// Its name.
    pub worker_id: String,
    /// This life of it.
    pub session_id: String,
    /// Which pools it serves.
    pub pools: Vec<String>,
    /// How many commands it runs at once.
    pub slots: u32,
    /// Its version.
    pub version: Option<String>,
    /// The protocol that it speaks.
    pub protocol: Option<u64>,
    /// The machine it is on, as it says.
    pub host: Option<String>,
    /// Its process, as it says.
    pub pid: Option<u64>,
    /// Since when.
    pub started_at: String,
    /// Until when it is believed alive.
    pub lease_until: String,
    /// What it holds.
    pub commands: Vec<HeldCommand>,
}

/// A command in a worker's hands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeldCommand {
    /// Whose.
    pub execution_id: String,
    /// Which.
    pub command_id: String,
    /// Attempt.
    pub epoch: u32,
    /// `claimed`, or `lost`: given up, but perhaps still running.
    pub state: String,
    /// Step name.
    pub step: String,
    /// Which iteration of a loop.
    pub iteration: Option<u32>,
    /// Kind of the first tool.
    pub kind: String,
    /// Its pool.
    pub pool: String,
    /// Its priority.
    pub priority: i32,
    /// Since when it is held.
    pub claimed_at: Option<String>,
    /// The tool is known to have started.
    pub started: bool,
}

/// Lists the workers that have a lease, and what they hold.
#[utoipa::path(
    get, path = "/api/workers", operation_id = "list_workers", tag = "worker",
    responses((status = 200, body = WorkersReply))
)]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<WorkersReply>, ApiError> {
    let mut workers = Vec::new();
    for session in api.store().sessions().await? {
        let held = api.store().held(session.session_id).await?;
        workers.push(status(&session, &held));
    }
    workers.sort_by(|one, other| (&one.worker_id, &one.session_id).cmp(&(&other.worker_id, &other.session_id)));
    Ok(Json(WorkersReply { workers }))
}

fn status(session: &Session, held: &[CommandRow]) -> WorkerStatus {
    let said = |pointer: &str| session.meta.pointer(pointer);
    let text = |pointer: &str| said(pointer).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    WorkerStatus {
        worker_id: session.worker_id.to_string(),
        session_id: session.session_id.to_string(),
        pools: session.pools.iter().map(ToString::to_string).collect(),
        slots: session.slots,
        version: text("/version"),
        protocol: said("/protocol").and_then(Value::as_u64),
        host: text("/meta/host"),
        pid: said("/meta/pid").and_then(Value::as_u64),
        started_at: session.started_at.to_iso(),
        lease_until: session.lease_until.to_iso(),
        commands: held.iter().map(command).collect(),
    }
}

fn command(row: &CommandRow) -> HeldCommand {
    HeldCommand {
        execution_id: row.execution_id.to_string(),
        command_id: row.command_id.to_string(),
        epoch: row.epoch,
        state: row.state.as_str().to_owned(),
        step: row.step.to_string(),
        iteration: row.iteration,
        kind: row.kind.to_string(),
        pool: row.pool.to_string(),
        priority: row.priority,
        claimed_at: row.holder.as_ref().map(|holder| holder.claimed_at.to_iso()),
        started: row.holder.as_ref().is_some_and(|holder| holder.started),
    }
}
