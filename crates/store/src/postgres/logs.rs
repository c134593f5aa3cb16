//! What tools printed. Those who write lines of one execution take turns: its limit is counted, and lines are numbered
//! in the order in which they can be seen.

use std::collections::{BTreeMap, BTreeSet};

use deadpool_postgres::ClientWrapper;
use noetl_core::id::{CommandId, ExecutionId};
use noetl_core::log::{ExecutionMeter, Kept, LogLine, LogStream};
use noetl_core::time::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::read::ask;
use super::transaction::{self, all};
use super::types::Moment;
use super::write::integer;
use crate::{LogQuery, LogRow, StoreError};

/// Executions that are here, held against their removal.
const HERE: &str = "SELECT execution_id FROM noetl.execution WHERE execution_id = ANY($1) \
                    ORDER BY execution_id FOR KEY SHARE";
const BEGIN_SIZES: &str = "INSERT INTO noetl.log_size (execution_id, bytes, is_cut) \
                           SELECT id, 0, false FROM unnest($1::bigint[]) AS id ORDER BY id ON CONFLICT DO NOTHING";
const SIZES: &str = "SELECT execution_id, bytes, is_cut FROM noetl.log_size WHERE execution_id = ANY($1) \
                     ORDER BY execution_id FOR UPDATE";
const KNOWN: &str = "SELECT l.source, l.serial FROM unnest($1::bigint[], $2::bigint[]) AS n (source, serial) \
                     JOIN noetl.log l ON l.source = n.source AND l.serial = n.serial";
const INSERT: &str = "INSERT INTO noetl.log (execution_id, command_id, step, iteration, task, attempt, stream, at, source, \
                      serial, line) SELECT execution_id, command_id, step, iteration, task, attempt, stream, at, source, \
                      serial, line FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[], $5::text[], \
                      $6::bigint[], $7::text[], $8::timestamptz[], $9::bigint[], $10::bigint[], $11::text[]) \
                      WITH ORDINALITY AS n (execution_id, command_id, step, iteration, task, attempt, stream, at, \
                      source, serial, line, place) ORDER BY place \
                      ON CONFLICT (source, serial) DO NOTHING";
const KEEP_SIZE: &str = "UPDATE noetl.log_size SET bytes = $2, is_cut = $3 WHERE execution_id = $1";

/// Keeps lines, as far as there is room; those of executions that are not (any more) here go.
pub(super) async fn keep_log(client: &ClientWrapper, lines: &[LogLine]) -> Result<(), StoreError> {
    if lines.is_empty() {
        return Ok(());
    }
    client.batch_execute("BEGIN").await?;
    let kept = keep(client, lines).await;
    if kept.is_ok() {
        client.batch_execute("COMMIT").await?;
    } else {
        transaction::give_up(client).await;
    }
    kept
}

async fn keep(client: &ClientWrapper, lines: &[LogLine]) -> Result<(), StoreError> {
    let named: BTreeSet<i64> = lines.iter().map(|line| line.execution_id.0).collect();
    let named: Vec<i64> = named.into_iter().collect();
    let here: Vec<i64> = ask(client, HERE, &[&named]).await?.iter().map(|row| row.get(0)).collect();
    let begin = client.prepare_cached(BEGIN_SIZES).await?;
    client.execute(&begin, &[&here]).await?;
    let mut meters: BTreeMap<ExecutionId, ExecutionMeter> =
        ask(client, SIZES, &[&here]).await?.iter().map(meter).collect::<Result<_, StoreError>>()?;
    let (sources, serials): (Vec<i64>, Vec<i64>) = lines.iter().map(|line| (line.source, line.serial)).unzip();
    // Lines that were sent again. Looked for under the lock: whoever sent them first is through.
    let mut known: BTreeSet<(i64, i64)> =
        ask(client, KNOWN, &[&sources, &serials]).await?.iter().map(|row| (row.get(0), row.get(1))).collect();
    let before = meters.clone();
    let mut columns = Columns::default();
    for line in lines {
        let Some(meter) = meters.get_mut(&line.execution_id) else { continue };
        if !known.insert((line.source, line.serial)) {
            continue;
        }
        match meter.take(&line.line) {
            Kept::Line(text) => columns.push(line, line.stream, text),
            Kept::Mark(mark) => columns.push(line, LogStream::System, mark),
            Kept::Nothing => {}
        }
    }
    columns.insert(client).await?;
    let keep_size = client.prepare_cached(KEEP_SIZE).await?;
    for (id, meter) in meters {
        if before.get(&id) != Some(&meter) {
            client.execute(&keep_size, &[&id.0, &integer(meter.bytes), &meter.is_cut]).await?;
        }
    }
    Ok(())
}

fn meter(row: &Row) -> Result<(ExecutionId, ExecutionMeter), StoreError> {
    let bytes: i64 = row.try_get(1)?;
    let meter = ExecutionMeter { bytes: u64::try_from(bytes).unwrap_or(0), is_cut: row.try_get(2)? };
    Ok((ExecutionId(row.try_get(0)?), meter))
}

/// Lines on their way, column by column.
#[derive(Default)]
struct Columns<'a> {
    executions: Vec<i64>,
    commands: Vec<i64>,
    steps: Vec<&'a str>,
    iterations: Vec<Option<i64>>,
    tasks: Vec<&'a str>,
    attempts: Vec<i64>,
    streams: Vec<&'static str>,
    times: Vec<Moment>,
    sources: Vec<i64>,
    serials: Vec<i64>,
    lines: Vec<String>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, line: &'a LogLine, stream: LogStream, text: String) {
        self.executions.push(line.execution_id.0);
        self.commands.push(line.command_id.0);
        self.steps.push(&line.step);
        self.iterations.push(line.iteration.map(i64::from));
        self.tasks.push(&line.task);
        self.attempts.push(i64::from(line.attempt));
        self.streams.push(stream.as_str());
        self.times.push(Moment(line.at));
        self.sources.push(line.source);
        self.serials.push(line.serial);
        self.lines.push(text);
    }

    async fn insert(&self, client: &ClientWrapper) -> Result<(), StoreError> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let values: [&(dyn ToSql + Sync); 11] = [
            &self.executions,
            &self.commands,
            &self.steps,
            &self.iterations,
            &self.tasks,
            &self.attempts,
            &self.streams,
            &self.times,
            &self.sources,
            &self.serials,
            &self.lines,
        ];
        let statement = client.prepare_cached(INSERT).await?;
        client.execute(&statement, &values).await?;
        Ok(())
    }
}

/// Reads lines, oldest first.
pub(super) async fn log(client: &ClientWrapper, query: &LogQuery) -> Result<Vec<LogRow>, StoreError> {
    let direction = if query.newest { "DESC" } else { "ASC" };
    let page = format!(
        "SELECT log_id, execution_id, command_id, step, iteration, task, attempt, stream, at, source, serial, line \
         FROM noetl.log WHERE execution_id = $1 AND log_id > $2 AND ($3::text IS NULL OR step = $3) ORDER BY log_id {direction} LIMIT $4"
    );
    let values: [&(dyn ToSql + Sync); 4] =
        [&query.execution_id.0, &integer(query.after), &query.step, &integer(query.limit)];
    let mut rows = all(&ask(client, &page, &values).await?, row)?;
    if query.newest {
        rows.reverse();
    }
    Ok(rows)
}

fn row(row: &Row) -> Result<LogRow, StoreError> {
    let stream: &str = row.try_get(7)?;
    let stream = LogStream::from_word(stream)
        .ok_or_else(|| StoreError::Corrupt(format!("a line of a log has the stream `{stream}`")))?;
    let log_id: i64 = row.try_get(0)?;
    let iteration: Option<i64> = row.try_get(4)?;
    let attempt: i64 = row.try_get(6)?;
    let Moment(at): Moment = row.try_get(8)?;
    let line = LogLine {
        execution_id: ExecutionId(row.try_get(1)?),
        command_id: CommandId(row.try_get(2)?),
        step: row.try_get::<_, &str>(3)?.into(),
        iteration: iteration.and_then(|iteration| u32::try_from(iteration).ok()),
        task: row.try_get::<_, &str>(5)?.into(),
        attempt: u32::try_from(attempt).unwrap_or(u32::MAX),
        stream,
        at: Timestamp(at.0),
        source: row.try_get(9)?,
        serial: row.try_get(10)?,
        line: row.try_get(11)?,
    };
    Ok(LogRow { log_id: u64::try_from(log_id).unwrap_or(0), line })
}
