//! `/api/db`: the tables themselves.

use std::path::PathBuf;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use noetl_store::TableSize;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::caller::Caller;
use super::error::{ApiError, ErrorBody};
use super::extract::Body;

/// The tables are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InitReply {
    /// `ok`.
    pub status: String,
    /// One sentence for people.
    pub message: String,
    /// Table names.
    pub tables: Vec<String>,
}

/// Whether tables and bytes are what they should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ValidateReply {
    /// `ok` or `error`.
    pub status: String,
    /// Nothing is wrong.
    pub valid: bool,
    /// Table names.
    pub tables: Vec<String>,
    /// Always empty: a store without its tables does not open.
    pub missing: Vec<String>,
    /// One sentence for people.
    pub message: String,
    /// What is wrong.
    pub problems: Vec<String>,
}

/// How much the tables hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SizeReply {
    /// Always `ok`.
    pub status: String,
    /// One line per table.
    pub tables: Vec<TableRow>,
    /// Bytes of all tables, as far as the store can tell.
    pub bytes: u64,
}

/// How much one table holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TableRow {
    /// Its name, without the schema.
    pub table: String,
    /// Rows.
    pub rows: u64,
    /// Bytes, as far as the store can tell.
    pub bytes: Option<u64>,
}

impl From<TableSize> for TableRow {
    fn from(size: TableSize) -> Self {
        TableRow { table: size.table, rows: size.rows, bytes: size.bytes }
    }
}

/// What to remove.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PruneRequest {
    /// Families that ended and came to rest at least so long ago.
    pub older_than_seconds: Option<u64>,
    /// Only count. Default true: removing must be asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PruneReply {
    /// `pruned` or `dry_run`.
    pub status: String,
    /// How many executions, with their logs and results.
    pub executions: u64,
    /// Those that ended before this time.
    pub before: String,
    /// One sentence for people.
    pub message: String,
}

/// Where to write a copy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BackupRequest {
    /// A path of the server's machine that does not exist yet.
    pub path: String,
}

/// A copy was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackupReply {
    /// Always `ok`.
    pub status: String,
    /// Where.
    pub path: String,
    /// How large it is.
    pub bytes: u64,
}

/// Says which tables there are. They were made, or brought up to date, when the store was opened.
#[utoipa::path(post, path = "/api/db/init", tag = "db", responses((status = 200, body = InitReply)))]
pub(super) async fn init(State(api): State<Api>) -> Result<Json<InitReply>, ApiError> {
    let tables = tables(&api).await?;
    let message = format!("schema noetl is ready: {} tables", tables.len());
    Ok(Json(InitReply { status: "ok".to_owned(), message, tables }))
}

/// Checks tables and bytes.
#[utoipa::path(get, path = "/api/db/validate", tag = "db", responses((status = 200, body = ValidateReply)))]
pub(super) async fn validate(State(api): State<Api>) -> Result<Json<ValidateReply>, ApiError> {
    let problems = api.store().validate().await?;
    let tables = tables(&api).await?;
    let valid = problems.is_empty();
    let message = match problems.first() {
        None => format!("{} tables are in order", tables.len()),
        Some(first) => format!("{} problem(s): {first}", problems.len()),
    };
    let status = if valid { "ok" } else { "error" }.to_owned();
    Ok(Json(ValidateReply { status, valid, tables, missing: Vec::new(), message, problems }))
}

/// Says how much the tables hold.
#[utoipa::path(get, path = "/api/db/size", tag = "db", responses((status = 200, body = SizeReply)))]
pub(super) async fn size(State(api): State<Api>) -> Result<Json<SizeReply>, ApiError> {
    let tables: Vec<TableRow> = api.store().size().await?.into_iter().map(TableRow::from).collect();
    let bytes = tables.iter().filter_map(|table| table.bytes).sum();
    Ok(Json(SizeReply { status: "ok".to_owned(), tables, bytes }))
}

/// Removes families that ended long ago, with their logs and results.
#[utoipa::path(
    post, path = "/api/db/prune", tag = "db", request_body = PruneRequest,
    responses((status = 200, body = PruneReply), (status = 400, body = ErrorBody))
)]
pub(super) async fn prune(
    State(api): State<Api>,
    Body(request): Body<PruneRequest>,
) -> Result<Json<PruneReply>, ApiError> {
    let Some(seconds) = request.older_than_seconds else {
        return Err(ApiError::bad_field("older_than_seconds", "is needed"));
    };
    let dry_run = request.dry_run.unwrap_or(true);
    let now = api.store().now().await?;
    let age_ms = i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
    let before = noetl_core::time::Timestamp(now.0.saturating_sub(age_ms));
    let executions = api.store().prune(before, dry_run).await?;
    let verb = if dry_run { "would remove" } else { "removed" };
    Ok(Json(PruneReply {
        status: if dry_run { "dry_run" } else { "pruned" }.to_owned(),
        executions,
        message: format!("{verb} {executions} execution(s) that ended before {before}"),
        before: before.to_iso(),
    }))
}

/// Writes a consistent copy while running. Only for callers on the data directory's own socket: it writes a file with
/// the server's rights.
#[utoipa::path(
    post, path = "/api/db/backup", tag = "db", request_body = BackupRequest,
    responses((status = 200, body = BackupReply), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody))
)]
pub(super) async fn backup(
    State(api): State<Api>,
    caller: Caller,
    Body(request): Body<BackupRequest>,
) -> Result<Json<BackupReply>, ApiError> {
    if !caller.is_at_home() {
        let message = "a backup is written by `noetl db backup` on the server's machine, not over the network";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "not_permitted", message));
    }
    let path = PathBuf::from(&request.path);
    if !path.is_absolute() {
        return Err(ApiError::bad_field("path", "must be absolute"));
    }
    if path.exists() {
        return Err(ApiError::bad_field("path", format!("{} exists; name a new file", path.display())));
    }
    api.store().backup(&path).await?;
    let bytes = tokio::fs::metadata(&path).await.map_or(0, |metadata| metadata.len());
    Ok(Json(BackupReply { status: "ok".to_owned(), path: request.path, bytes }))
}

async fn tables(api: &Api) -> Result<Vec<String>, ApiError> {
    Ok(api.store().size().await?.into_iter().map(|table| table.table).collect())
}
