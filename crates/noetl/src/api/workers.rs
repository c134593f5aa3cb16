//! `GET /api/workers`: who works, and on what.

use axum::Json;
use axum::extract::State;
use noetl_core::head::CommandRow;
use noetl_store::{Session, SqlLimits, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Api;
use super::error::ApiError;

/// How many commands wait in which pool.
const WAITING: &str =
    "SELECT pool, count(*) AS waiting FROM noetl.command WHERE state = 'pending' GROUP BY pool ORDER BY pool";
/// As much of it as is worth waiting for.
const WAITING_LIMITS: SqlLimits = SqlLimits { rows: 1_000, ms: 2_000 };

/// Every worker with a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkersReply {
    /// By name.
    pub workers: Vec<WorkerStatus>,
    /// Pools in which commands wait and that no worker serves, by name.
    pub unserved: Vec<UnservedPool>,
}

/// A pool in which commands wait and that no worker serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnservedPool {
    /// Its name.
    pub pool: String,
    /// How many commands wait in it.
    pub waiting: u64,
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
    /// It takes nothing new and leaves when it holds nothing, as far as this server has heard.
    pub draining: bool,
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
    let sessions = api.store().sessions().await?;
    for session in &sessions {
        let held = api.store().held(session.session_id).await?;
        workers.push(status(session, &held, api.engine.drains(session.session_id)));
    }
    workers.sort_by(|one, other| (&one.worker_id, &one.session_id).cmp(&(&other.worker_id, &other.session_id)));
    let unserved = unserved(&api, &sessions).await?;
    Ok(Json(WorkersReply { workers, unserved }))
}

/// Returns whether one of the workers serves a pool.
pub(super) fn serves(sessions: &[Session], pool: &str) -> bool {
    sessions.iter().any(|session| session.pools.iter().any(|served| served.as_ref() == pool))
}

async fn unserved(api: &Api, sessions: &[Session]) -> Result<Vec<UnservedPool>, ApiError> {
    let rows = match api.store().sql(WAITING, WAITING_LIMITS).await {
        Ok(found) => found.rows,
        // It took too long, or the store knows no SQL: the list of workers is worth more.
        Err(StoreError::Query(why)) => {
            tracing::warn!(why, "what waits in which pool can not be counted");
            Vec::new()
        }
        Err(error) => return Err(error.into()),
    };
    let pool = |row: &Vec<Value>| Some((row.first()?.as_str()?.to_owned(), row.get(1)?.as_u64()?));
    let waiting = rows.iter().filter_map(pool).filter(|(pool, _)| !serves(sessions, pool));
    Ok(waiting.map(|(pool, waiting)| UnservedPool { pool, waiting }).collect())
}

fn status(session: &Session, held: &[CommandRow], draining: bool) -> WorkerStatus {
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
        draining,
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
