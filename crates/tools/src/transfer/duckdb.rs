//! Rows out of and into DuckDB, which works in the slot's python process: they wait in a file in between.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::plan::{Plan, field};
use super::spool::{Lines, SPOOL_BYTES_MAX, Spool};
use super::{CHUNK_BYTES_MAX, Means, Moved, Row, config_error, spool_error};
use crate::duckdb::{Raised, STATEMENTS, answer, database, in_python, not_there};
use crate::failure::Failure;
use crate::slot::Slot;
use crate::sql::{self, statements};
use crate::stop::Brake;

/// Reads and writes files of rows; `statements.py` stands before it.
const PROGRAM: &str = include_str!("duckdb.py");

/// Longest row, as a line of JSON.
const ROW_BYTES_MAX: usize = 64 << 20;

/// What the program returns.
#[derive(Debug, Default, Deserialize)]
struct Reply {
    error: Option<Raised>,
    missing: Option<String>,
    refused: Option<String>,
    #[serde(default)]
    too_large: bool,
    #[serde(default)]
    columns: Vec<String>,
}

/// Calls a function of the program.
async fn ask(
    slot: &mut Slot,
    means: &Means<'_>,
    function: &str,
    request: Value,
    brake: &mut Brake,
) -> Result<Reply, Failure> {
    let program = format!("{STATEMENTS}\n\n{PROGRAM}\n\nreturn {function}(request)\n");
    let Means { settings, clients, call, outside, .. } = means;
    let outcome = in_python(slot, settings, clients, call, program, request, brake, *outside).await;
    let reply: Reply = match answer(outcome)? {
        Ok(reply) => reply,
        Err(missing) => Reply { missing: Some(missing), ..Reply::default() },
    };
    if let Some(missing) = &reply.missing {
        return Err(not_there(missing).into());
    }
    match reply {
        Reply { error: Some(raised), .. } => Err(raised.into_error().into()),
        Reply { refused: Some(why), .. } => Err(config_error(why).into()),
        Reply { too_large: true, .. } => Err(spool_error(&std::io::ErrorKind::FileTooLarge.into()).into()),
        reply => Ok(reply),
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The rows of a query.
#[derive(Debug)]
pub(super) struct Source(Lines);

impl Source {
    pub(super) async fn open(
        slot: &mut Slot,
        means: &Means<'_>,
        plan: &Plan,
        brake: &mut Brake,
    ) -> Result<Self, Failure> {
        let mut scripts = Vec::new();
        for source in sql::sources(&plan.source_config).map_err(config_error)? {
            scripts.push(source.load(means.settings, means.clients, brake, means.outside, config_error).await?);
        }
        let script = scripts.join(";\n");
        let [statement] = statements(&script)[..] else {
            return Err(config_error("`source.query` must be one statement").into());
        };
        let spool = Spool::new().map_err(|error| spool_error(&error))?;
        let request = json!({
            "database": database(&plan.source_config).map_err(config_error)?, "query": statement.text,
            "file": text(spool.path()), "chunk_rows": plan.chunk_rows, "bytes_max": SPOOL_BYTES_MAX,
        });
        ask(slot, means, "read_rows", request, brake).await?;
        Ok(Source(spool.into_reader().map_err(|error| spool_error(&error))?))
    }

    /// Returns the next rows; `None` once there are no more.
    pub(super) fn next(&mut self, chunk_rows: usize) -> Result<Option<Vec<Row>>, Failure> {
        let mut chunk = Vec::new();
        let mut weight = 0;
        while chunk.len() < chunk_rows && weight < CHUNK_BYTES_MAX {
            let Some((row, bytes)) = self.0.next().map_err(|error| spool_error(&error))? else { break };
            weight += bytes;
            chunk.push(row);
        }
        Ok((!chunk.is_empty()).then_some(chunk))
    }
}

/// Rows that wait to be inserted.
#[derive(Debug)]
pub(super) struct Target {
    spool: Spool,
    columns: Option<Vec<(String, String)>>,
    moved: Moved,
}

impl Target {
    pub(super) fn open(plan: &Plan) -> Result<Self, Failure> {
        let spool = Spool::new().map_err(|error| spool_error(&error))?;
        Ok(Target { spool, columns: plan.mapping.clone(), moved: Moved::default() })
    }

    pub(super) fn write(&mut self, plan: &Plan, chunk: &[Row]) -> Result<(), Failure> {
        let Some(first) = chunk.first() else { return Ok(()) };
        let columns = self.columns.get_or_insert_with(|| plan.columns(first));
        for row in chunk {
            if let Some(stranger) = plan.stranger(row, columns) {
                let message = format!("a row has the field `{stranger}`, the first row had not: give a `mapping`");
                return Err(config_error(message).into());
            }
            let mut line = Map::new();
            for (nth, (_, from)) in columns.iter().enumerate() {
                let text = match field(row, from) {
                    Value::Null => Value::Null,
                    Value::String(text) => Value::String(text.clone()),
                    other => Value::String(other.to_string()),
                };
                line.insert(nth.to_string(), text);
            }
            line.insert("nth".to_owned(), self.moved.rows.into());
            self.spool.write(&line).map_err(|error| spool_error(&error))?;
            self.moved.rows += 1;
        }
        self.moved.chunks += 1;
        Ok(())
    }

    pub(super) async fn finish(
        mut self,
        slot: &mut Slot,
        means: &Means<'_>,
        plan: &Plan,
        brake: &mut Brake,
    ) -> Result<Moved, Failure> {
        self.spool.flush().map_err(|error| spool_error(&error))?;
        let columns: Vec<String> = self.columns.unwrap_or_default().into_iter().map(|(column, _)| column).collect();
        let request = json!({
            "database": database(&plan.target_config).map_err(config_error)?, "table": plan.table,
            "columns": columns, "key": plan.key, "mode": plan.mode.as_str(), "file": text(self.spool.path()),
            "line_bytes_max": ROW_BYTES_MAX,
        });
        let reply = ask(slot, means, "write_rows", request, brake).await?;
        Ok(Moved { columns: reply.columns, ..self.moved })
    }
}
