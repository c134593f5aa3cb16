//! Whether the server is there, and well.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use noetl_core::id::ExecutionId;
use noetl_store::StoreError;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};
use utoipa::ToSchema;

use super::Api;
use super::error::ApiError;

/// Longest time for a look at the store.
const LOOK_TIME_MAX: Duration = Duration::from_secs(3);
/// How long an answer of the store is good for probes.
const LOOK_AGE_MAX: Duration = Duration::from_secs(1);

/// Where to go from here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RootReply {
    /// One sentence for people.
    pub message: String,
    /// The version.
    pub version: String,
    /// Where the documentation of this interface is.
    pub docs: String,
    /// The same for programs.
    pub openapi: String,
}

/// The process answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LiveReply {
    /// Always `ok`.
    pub status: String,
}

/// Whether requests should come here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReadyReply {
    /// `ok`, `stopping` or `unhealthy`.
    pub status: String,
}

/// How the server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthReply {
    /// `ok`, `stopping` or `unhealthy`.
    pub status: String,
    /// `ok`, or what the store says.
    pub database: String,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// The version.
    pub version: String,
    /// Process id: how `server stop` knows that it talks to the right one.
    pub pid: u32,
}

/// How many workers there are and what they can take: the keys that older workers ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PoolReply {
    /// `ok`.
    pub status: String,
    /// Always 0.
    pub pool_min: u64,
    /// Slots of all workers.
    pub pool_max: u64,
    /// The same.
    pub pool_size: u64,
    /// Slots that are free.
    pub pool_available: u64,
    /// The same.
    pub slots_available: u64,
    /// Always 0: commands wait in the store.
    pub requests_waiting: u64,
    /// Slots in use, from 0 to 1.
    pub utilization: f64,
    /// The workers.
    pub workers: Vec<WorkerRow>,
}

/// A worker with a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerRow {
    /// Its name.
    pub worker_id: String,
    /// This life of it.
    pub session_id: String,
    /// How many commands it runs at once.
    pub slots: u32,
    /// How many it holds.
    pub held: u64,
    /// Which pools it serves.
    pub pools: Vec<String>,
    /// Since when.
    pub started_at: String,
    /// Until when it is believed alive.
    pub lease_until: String,
}

/// Says hello.
#[utoipa::path(get, path = "/", tag = "health", responses((status = 200, body = RootReply)))]
pub(super) async fn root() -> Json<RootReply> {
    Json(RootReply {
        message: "noetl: playbooks that run, and stop when told".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        docs: "/api/docs".to_owned(),
        openapi: "/api/openapi.json".to_owned(),
    })
}

/// Says that the process answers. Needs no token.
#[utoipa::path(get, path = "/health", tag = "health", responses((status = 200, body = LiveReply)))]
pub(super) async fn live() -> Json<LiveReply> {
    Json(LiveReply { status: "ok".to_owned() })
}

/// Says whether requests should come here: 503 when the server stops, or its store does not answer. Needs no token.
#[utoipa::path(
    get, path = "/ready", tag = "health",
    responses((status = 200, body = ReadyReply), (status = 503, body = ReadyReply))
)]
pub(super) async fn ready(State(api): State<Api>) -> (StatusCode, Json<ReadyReply>) {
    let (code, status) = if api.is_stopping() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping")
    } else if api.readiness.look(&api).await {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "unhealthy")
    };
    (code, Json(ReadyReply { status: status.to_owned() }))
}

/// What the store said last: whoever asks without a token costs it one look a second at most.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    last: tokio::sync::Mutex<Option<(Instant, bool)>>,
}

impl Readiness {
    async fn look(&self, api: &Api) -> bool {
        let mut last = self.last.lock().await;
        if let Some((at, answers)) = *last
            && at.elapsed() < LOOK_AGE_MAX
        {
            return answers;
        }
        let answers = answers(api).await.is_ok();
        *last = Some((Instant::now(), answers));
        answers
    }
}

/// Asks the store something that it has to look for itself.
async fn answers(api: &Api) -> Result<(), StoreError> {
    // No execution has this id. What time it is, a store may know without asking its database.
    match timeout(LOOK_TIME_MAX, api.store().head(ExecutionId(0))).await {
        Ok(answer) => answer.map(drop),
        Err(_) => Err(StoreError::Unavailable(format!("no answer within {} s", LOOK_TIME_MAX.as_secs()))),
    }
}

/// Says how the server is; 503 when its store does not answer.
#[utoipa::path(
    get, path = "/api/health", tag = "health",
    responses((status = 200, body = HealthReply), (status = 503, body = HealthReply))
)]
pub(super) async fn health(State(api): State<Api>) -> (StatusCode, Json<HealthReply>) {
    let (code, status, database) = match answers(&api).await {
        Err(error) => {
            // Whoever watches over the server needs the word; the reason is in the log.
            let refusal = ApiError::from(error);
            (StatusCode::SERVICE_UNAVAILABLE, "unhealthy", refusal.body.code)
        }
        Ok(()) if api.is_stopping() => (StatusCode::OK, "stopping", "ok".to_owned()),
        Ok(()) => (StatusCode::OK, "ok", "ok".to_owned()),
    };
    let reply = HealthReply {
        status: status.to_owned(),
        database,
        uptime_seconds: api.started.elapsed().as_secs(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
    };
    (code, Json(reply))
}

/// Says how many workers there are and what they can take.
#[utoipa::path(get, path = "/api/pool/status", tag = "health", responses((status = 200, body = PoolReply)))]
pub(super) async fn pool(State(api): State<Api>) -> Result<Json<PoolReply>, ApiError> {
    let mut workers = Vec::new();
    for session in api.store().sessions().await? {
        let held = api.store().held(session.session_id).await?;
        workers.push(WorkerRow {
            worker_id: session.worker_id.to_string(),
            session_id: session.session_id.to_string(),
            slots: session.slots,
            held: held.len() as u64,
            pools: session.pools.iter().map(ToString::to_string).collect(),
            started_at: session.started_at.to_iso(),
            lease_until: session.lease_until.to_iso(),
        });
    }
    let slots: u64 = workers.iter().map(|worker| u64::from(worker.slots)).sum();
    let used: u64 = workers.iter().map(|worker| worker.held.min(u64::from(worker.slots))).sum();
    #[expect(clippy::cast_precision_loss, reason = "a share, for people")]
    let utilization = if slots == 0 { 0.0 } else { used as f64 / slots as f64 };
    Ok(Json(PoolReply {
        status: "ok".to_owned(),
        pool_min: 0,
        pool_max: slots,
        pool_size: slots,
        pool_available: slots - used,
        slots_available: slots - used,
        requests_waiting: 0,
        utilization,
        workers,
    }))
}
