//! What tools printed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use noetl_core::id::{CommandId, ExecutionId};
use noetl_core::log::{ExecutionMeter, Kept, LogLine, LogStream};
use noetl_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::tables::{Tables, integer};
use crate::{LogQuery, LogRow, StoreError};

impl Tables {
    /// Keeps lines, as far as there is room; those of executions that are not (any more) here go.
    pub(super) fn keep_log(&mut self, lines: &[LogLine]) -> Result<(), StoreError> {
        // As they were, and as they are.
        let mut meters: BTreeMap<ExecutionId, Option<(ExecutionMeter, ExecutionMeter)>> = BTreeMap::new();
        let mut insert = self.connection.prepare_cached(
            // A line that was sent again is here already.
            "INSERT INTO noetl.log (execution_id, command_id, step, iteration, task, attempt, stream, at, \
             source, serial, line) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT (source, serial) DO NOTHING",
        )?;
        for line in lines {
            let meter = match meters.entry(line.execution_id) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    let meter = meter(&self.connection, line.execution_id)?;
                    new.insert(meter.map(|meter| (meter, meter)))
                }
            };
            let Some((_, meter)) = meter else { continue };
            let before = *meter;
            let (stream, text) = match meter.take(&line.line) {
                Kept::Line(text) => (line.stream, text),
                Kept::Mark(mark) => (LogStream::System, mark),
                Kept::Nothing => continue,
            };
            let inserted = insert.execute(params![
                line.execution_id.0,
                line.command_id.0,
                line.step,
                line.iteration,
                line.task,
                line.attempt,
                stream.as_str(),
                line.at.to_iso(),
                line.source,
                line.serial,
                text,
            ])?;
            if inserted == 0 {
                *meter = before;
            }
        }
        let mut note = self.connection.prepare_cached(
            "INSERT OR REPLACE INTO noetl.log_size (execution_id, bytes, is_cut) VALUES (?1, ?2, ?3)",
        )?;
        for (id, meter) in meters {
            if let Some((before, meter)) = meter
                && before != meter
            {
                let ExecutionMeter { bytes, is_cut } = meter;
                note.execute(params![id.0, integer(bytes), is_cut])?;
            }
        }
        Ok(())
    }
}

/// Returns what is kept of an execution so far; `None` if there is no such execution.
fn meter(connection: &Connection, id: ExecutionId) -> Result<Option<ExecutionMeter>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT coalesce(s.bytes, 0), coalesce(s.is_cut, 0) FROM noetl.execution x \
         LEFT JOIN noetl.log_size s ON s.execution_id = x.execution_id WHERE x.execution_id = ?1",
    )?;
    let read = |row: &Row<'_>| {
        let bytes: i64 = row.get(0)?;
        Ok(ExecutionMeter { bytes: u64::try_from(bytes).unwrap_or(0), is_cut: row.get(1)? })
    };
    Ok(statement.query_row([id.0], read).optional()?)
}

/// Reads lines, oldest first.
pub(super) fn log(connection: &Connection, query: &LogQuery) -> Result<Vec<LogRow>, StoreError> {
    let mut filter = "execution_id = ? AND log_id > ?".to_owned();
    let mut values: Vec<rusqlite::types::Value> = vec![query.execution_id.0.into(), integer(query.after).into()];
    if let Some(step) = &query.step {
        filter.push_str(" AND step = ?");
        values.push(step.clone().into());
    }
    let direction = if query.newest { "DESC" } else { "ASC" };
    let page = format!(
        "SELECT log_id, execution_id, command_id, step, iteration, task, attempt, stream, at, source, serial, line \
         FROM noetl.log WHERE {filter} ORDER BY log_id {direction} LIMIT {}",
        integer(query.limit)
    );
    let mut statement = connection.prepare_cached(&page)?;
    let mut rows: Vec<LogRow> =
        statement.query_and_then(params_from_iter(&values), row)?.collect::<Result<_, StoreError>>()?;
    if query.newest {
        rows.reverse();
    }
    Ok(rows)
}

fn row(row: &Row<'_>) -> Result<LogRow, StoreError> {
    let damaged = |what: &str| StoreError::Corrupt(format!("a line of a log has no {what}"));
    let log_id: i64 = row.get(0)?;
    let stream: String = row.get(7)?;
    let at: String = row.get(8)?;
    let line = LogLine {
        execution_id: ExecutionId(row.get(1)?),
        command_id: CommandId(row.get(2)?),
        step: row.get::<_, String>(3)?.into(),
        iteration: row.get(4)?,
        task: row.get::<_, String>(5)?.into(),
        attempt: row.get(6)?,
        stream: LogStream::from_word(&stream).ok_or_else(|| damaged("stream"))?,
        at: Timestamp::from_iso(&at).ok_or_else(|| damaged("time"))?,
        source: row.get(9)?,
        serial: row.get(10)?,
        line: row.get(11)?,
    };
    Ok(LogRow { log_id: u64::try_from(log_id).unwrap_or(0), line })
}
