//! `transfer`: rows from one place into a table of another.
//!
//! Configuration: `source: {type: http | postgres | duckdb, …}` with what that tool has (`url`, `method`, `headers`,
//! `params`, `auth` and `data_path`, the dotted way to the rows; or `auth` / `database` and `query`);
//! `target: {type: postgres | duckdb, auth / database, table, schema, mapping, key}`, where `mapping` says for each
//! column of the table which field of a row it gets (without, fields and columns have the same names) and `key` names
//! the columns that `upsert` goes by (without, the primary key); `mode`: `append` (default), `replace`, `upsert`;
//! `chunk_size`, rows at a time (default 1000).
//!
//! Every value is cast to the type of its column. A transfer is one transaction: the table has all of it or is as it
//! was. Rows pass in chunks; what has to wait for another process waits in a file.
//!
//! Data: `{status, direction, source_type, target_type, mode, rows_transferred, chunks_processed, target_table,
//! columns}`.

use noetl_core::tool::{ErrorKind, ToolCall, ToolError, ToolOutcome};
use serde_json::{Map, Value, json};

use crate::failure::Failure;
use crate::slot::Slot;
use crate::stop::Brake;
use crate::{Outside, Settings, http, postgres};

mod duckdb;
mod http_source;
mod into_postgres;
mod out_of_postgres;
mod plan;
mod spool;

use plan::{Place, Plan};

/// Rows at a time, if nothing else is said.
pub(crate) const CHUNK_ROWS_DEFAULT: usize = 1000;
/// Most rows at a time.
pub(crate) const CHUNK_ROWS_MAX: usize = 10_000;
/// A chunk of fewer rows is as full as it gets with this many bytes.
pub(crate) const CHUNK_BYTES_MAX: usize = 8 << 20;

/// A row: its fields by name.
type Row = Map<String, Value>;

/// What the tools below a transfer need.
pub(crate) struct Means<'a> {
    pub(crate) pool: &'a postgres::Pool,
    pub(crate) clients: &'a http::Clients,
    pub(crate) settings: &'a Settings,
    pub(crate) call: &'a ToolCall,
    pub(crate) outside: Outside<'a>,
}

/// Moves the rows of a call.
pub(crate) async fn run(slot: &mut Slot, means: Means<'_>, brake: &mut Brake) -> ToolOutcome {
    let plan = match Plan::read(&means.call.config) {
        Ok(plan) => plan,
        Err(message) => return ToolOutcome::failed(config_error(message), Value::Null),
    };
    match transfer(slot, &means, &plan, brake).await {
        Ok(moved) => ToolOutcome::ok(json!({
            "status": "success",
            "direction": format!("{}_to_{}", plan.source, plan.target),
            "source_type": plan.source.as_str(),
            "target_type": plan.target.as_str(),
            "mode": plan.mode.as_str(),
            "rows_transferred": moved.rows,
            "chunks_processed": moved.chunks,
            "target_table": plan.table_name,
            "columns": moved.columns,
        })),
        Err(failure) => failure.into_outcome(Value::Null),
    }
}

/// What a transfer has done.
#[derive(Debug, Default, PartialEq)]
struct Moved {
    rows: u64,
    chunks: u64,
    columns: Vec<String>,
}

async fn transfer(slot: &mut Slot, means: &Means<'_>, plan: &Plan, brake: &mut Brake) -> Result<Moved, Failure> {
    // Before the first row is asked for, so that a table that is not there costs nothing.
    let mut target = match plan.target {
        Place::Postgres => Target::Postgres(Box::new(into_postgres::Target::open(means, plan, brake).await?)),
        Place::Duckdb | Place::Http => Target::Duckdb(duckdb::Target::open(plan)?),
    };
    match (fill(&mut target, slot, means, plan, brake).await, target) {
        (Ok(()), Target::Postgres(target)) => target.finish(means, plan, brake).await,
        (Ok(()), Target::Duckdb(target)) => target.finish(slot, means, plan, brake).await,
        (Err(failure), Target::Postgres(target)) => Err(failure.after(target.abandon().await)),
        // What waits in a file has reached nothing yet.
        (Err(failure), Target::Duckdb(_)) => Err(failure),
    }
}

/// Passes all rows of the source to the target.
async fn fill(
    target: &mut Target,
    slot: &mut Slot,
    means: &Means<'_>,
    plan: &Plan,
    brake: &mut Brake,
) -> Result<(), Failure> {
    match plan.source {
        Place::Http => {
            let mut rows = http_source::rows(means, plan, brake).await?.into_iter();
            loop {
                let chunk: Vec<Row> = rows.by_ref().take(plan.chunk_rows).collect();
                if chunk.is_empty() {
                    break;
                }
                target.write(means, plan, &chunk, brake).await?;
            }
        }
        Place::Postgres => {
            let mut source = out_of_postgres::Source::open(means, plan, brake).await?;
            while let Some(chunk) = source.next(plan.chunk_rows, means, brake).await? {
                // Once it is to stop, the source is asked again until its statement has ended.
                if brake.cause().is_none()
                    && let Err(failure) = target.write(means, plan, &chunk, brake).await
                {
                    return Err(failure.after(source.end(means, brake).await));
                }
            }
            source.close(means);
        }
        Place::Duckdb => {
            let mut source = duckdb::Source::open(slot, means, plan, brake).await?;
            while let Some(chunk) = source.next(plan.chunk_rows)? {
                target.write(means, plan, &chunk, brake).await?;
            }
        }
    }
    Ok(())
}

/// Where rows go.
enum Target {
    Postgres(Box<into_postgres::Target>),
    Duckdb(duckdb::Target),
}

impl Target {
    async fn write(&mut self, means: &Means<'_>, plan: &Plan, chunk: &[Row], brake: &mut Brake) -> Result<(), Failure> {
        // Race: the order may have come while the chunk before was being written.
        if let Some(cause) = brake.cause() {
            return Err(Failure::stopped(cause.error(), noetl_core::tool::Stopped::Stopped));
        }
        match self {
            Target::Postgres(target) => target.write(means, plan, chunk, brake).await,
            Target::Duckdb(target) => target.write(plan, chunk),
        }
    }
}

fn config_error(message: impl Into<String>) -> ToolError {
    ToolError::hard(ErrorKind::Config, "TRANSFER_CONFIG", message)
}

fn spool_error(error: &std::io::Error) -> ToolError {
    match error.kind() {
        std::io::ErrorKind::FileTooLarge => {
            let message = format!("the rows exceed the limit of {} bytes", spool::SPOOL_BYTES_MAX);
            ToolError::hard(ErrorKind::Limit, "TRANSFER_TOO_LARGE", message)
        }
        _ => {
            let message = format!("rows could not be kept in a file: {error}");
            ToolError::hard(ErrorKind::StorageQuota, "TRANSFER_SPOOL", message)
        }
    }
}
