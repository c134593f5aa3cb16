//! The questions, as SQL.

use std::sync::Arc;

use noetl_core::append::Due;
use noetl_core::event::Recorded;
use noetl_core::event::row::canonical_name;
use noetl_core::head::{CommandRow, Head, HeadView};
use noetl_core::id::{ExecutionId, SessionId};
use noetl_core::time::Timestamp;
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, Row, params, params_from_iter};
use serde_json::Value;

use super::rows;
use super::tables::{commands, head, integer, tail};
use crate::catalog::{Resource, ResourceKey};
use crate::listing::{Conditions, Steering};
use crate::{EventQuery, ListQuery, Loaded, Session, StoreError, waiting_while_paused};

/// Conditions of a query, and the values they name.
#[derive(Default)]
struct Filter {
    conditions: Vec<String>,
    values: Vec<Sql>,
}

impl Filter {
    /// Adds a condition in which `?` stands for `value`.
    fn and(&mut self, condition: &str, value: impl Into<Sql>) {
        self.values.push(value.into());
        self.conditions.push(condition.replace('?', &format!("?{}", self.values.len())));
    }

    fn plain(&mut self, condition: &str) {
        self.conditions.push(condition.to_owned());
    }

    fn text(&self) -> String {
        if self.conditions.is_empty() { String::new() } else { format!(" WHERE {}", self.conditions.join(" AND ")) }
    }
}

pub(super) fn all<T>(
    connection: &Connection,
    query: &str,
    values: impl rusqlite::Params,
    read: impl Fn(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    connection.prepare_cached(query)?.query_and_then(values, read)?.collect()
}

pub(super) fn first<T>(
    connection: &Connection,
    query: &str,
    values: impl rusqlite::Params,
    read: impl Fn(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    let mut statement = connection.prepare_cached(query)?;
    let mut found = statement.query(values)?;
    found.next()?.map(read).transpose()
}

pub(super) fn view(connection: &Connection, execution_id: ExecutionId) -> Result<Option<HeadView>, StoreError> {
    let Some(head) = head(connection, execution_id)? else { return Ok(None) };
    Ok(Some(HeadView { head, commands: commands(connection, execution_id)? }))
}

pub(super) fn load(connection: &Connection, execution_id: ExecutionId) -> Result<Option<Loaded>, StoreError> {
    let Some(head) = head(connection, execution_id)? else { return Ok(None) };
    let newest = "SELECT version, state FROM noetl.snapshot WHERE execution_id = ?1 ORDER BY version DESC LIMIT 1";
    let snapshot = first(connection, newest, [execution_id.0], rows::snapshot)?;
    let tail = tail(connection, execution_id, snapshot.as_ref().map_or(0, |(version, _)| *version))?;
    Ok(Some(Loaded { head, snapshot, tail }))
}

pub(super) fn events(connection: &Connection, query: &EventQuery) -> Result<(Vec<Recorded>, u64), StoreError> {
    let mut filter = Filter::default();
    if let Some(id) = query.execution_id {
        filter.and("execution_id = ?", id.0);
    }
    if let Some(after) = query.after_version {
        filter.and("version > ?", integer(after));
    }
    if let Some(since) = query.since_event_id {
        filter.and("event_id > ?", since.0);
    }
    if let Some(event_type) = &query.event_type {
        filter.and("event_type = ?", canonical_name(event_type).to_owned());
    }
    let total = format!("SELECT count(*) FROM noetl.event{}", filter.text());
    let total =
        connection.prepare_cached(&total)?.query_row(params_from_iter(&filter.values), |row| row.get::<_, i64>(0))?;
    // Within one log by place, over all logs by id.
    let order = if query.execution_id.is_some() { "version" } else { "event_id" };
    let direction = if query.newest_first { "DESC" } else { "ASC" };
    let page = format!(
        "SELECT {} FROM noetl.event{} ORDER BY {order} {direction} LIMIT {} OFFSET {}",
        rows::EVENT,
        filter.text(),
        integer(query.limit),
        integer(query.offset),
    );
    let mut statement = connection.prepare(&page)?;
    let found = statement.query_and_then(params_from_iter(&filter.values), rows::event)?;
    Ok((found.collect::<Result<_, _>>()?, u64::try_from(total).unwrap_or(0)))
}

pub(super) fn terminal_event(
    connection: &Connection,
    execution_id: ExecutionId,
) -> Result<Option<Recorded>, StoreError> {
    let query = format!(
        "SELECT {} FROM noetl.event WHERE execution_id = ?1 \
         AND (event_type = 'playbook.completed' OR event_type = 'playbook.failed' OR event_type = 'execution.cancelled')",
        rows::EVENT
    );
    first(connection, &query, [execution_id.0], rows::event)
}

pub(super) fn result(connection: &Connection, reference: &str) -> Result<Option<Arc<Value>>, StoreError> {
    let query = "SELECT data FROM noetl.result WHERE reference = ?1";
    Ok(first(connection, query, [reference], rows::document)?.map(Arc::new))
}

pub(super) fn executions(connection: &Connection, query: &ListQuery) -> Result<Vec<Head>, StoreError> {
    let (values, conditions) = listing(query);
    let mut statement = connection.prepare(&query.select(rows::HEAD, &conditions, Steering::Equality))?;
    statement.query_and_then(params_from_iter(&values), rows::head)?.collect()
}

pub(super) fn execution_ids(connection: &Connection, query: &ListQuery) -> Result<Vec<ExecutionId>, StoreError> {
    let (values, conditions) = listing(query);
    let mut statement = connection.prepare(&query.select("execution_id", &conditions, Steering::Equality))?;
    let ids = statement.query_map(params_from_iter(&values), |row| row.get(0).map(ExecutionId))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

pub(super) fn count_executions(connection: &Connection, query: &ListQuery) -> Result<u64, StoreError> {
    let (values, conditions) = listing(query);
    let mut statement = connection.prepare(&query.select_count(&conditions))?;
    let count: i64 = statement.query_row(params_from_iter(&values), |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

pub(super) fn active_below(connection: &Connection, id: ExecutionId, limit: u64) -> Result<u64, StoreError> {
    // Ends with the limit: a recursion is taken row by row.
    let query = "WITH RECURSIVE below (id, status) AS (\
                   SELECT execution_id, status FROM noetl.execution WHERE parent_execution_id = ?1 UNION ALL \
                   SELECT e.execution_id, e.status FROM below b JOIN noetl.execution e ON e.parent_execution_id = b.id \
                   LIMIT ?2) \
                 SELECT count(*) FROM below WHERE status = 'RUNNING'";
    let count: i64 = connection.prepare_cached(query)?.query_row(params![id.0, integer(limit)], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Returns the conditions of a list that have nothing to do with the status, with their values.
fn listing(query: &ListQuery) -> (Vec<Sql>, Conditions) {
    let mut filter = Filter::default();
    let mut path = None;
    if let Some(exact) = query.exact_path() {
        filter.values.push(exact.to_owned().into());
        path = Some("?1".to_owned());
    } else if let Some(pattern) = &query.path {
        // GLOB has more wildcards than `*`; in brackets they stand for themselves. Not along the index of paths: what
        // many have in common would all have to be sorted for one page.
        filter.and("+path GLOB ?", pattern.replace('[', "[[]").replace('?', "[?]"));
    }
    if let Some(parent) = query.parent {
        filter.and("parent_execution_id = ?", parent.0);
    }
    if let Some(root) = query.root {
        filter.and(
            "execution_id IN (SELECT ? UNION ALL SELECT m.execution_id FROM noetl.execution m \
             WHERE m.root_execution_id = ? AND m.parent_execution_id IS NOT NULL)",
            root.0,
        );
    }
    if !query.labels.is_empty() {
        // Said so that the index of labelled ones can be used.
        filter.plain("labels IS NOT NULL");
    }
    for (name, value) in &query.labels {
        // A name is made of letters, digits and a few signs that mean nothing between quotes.
        filter.and(&format!("labels ->> '$.\"{name}\"' = ?"), value.to_string());
    }
    if let Some(before) = query.started_before {
        filter.and("started_at < ?", before.to_iso());
    }
    if let Some(since) = query.idle_since {
        filter.and("updated_at < ?", since.to_iso());
    }
    if query.unquiesced {
        filter.plain("ended_at IS NOT NULL AND in_flight > 0");
    }
    if let Some(job) = query.job {
        filter.and("cancel ->> '$.job_id' = ?", job.to_string());
    }
    if let Some(before) = query.before {
        filter.and("execution_id < ?", before.0);
    }
    (filter.values, Conditions { plain: filter.conditions, path })
}

pub(super) fn due(connection: &Connection, now: Timestamp, limit: u64) -> Result<Vec<Due>, StoreError> {
    let columns = rows::DUE;
    let query = format!(
        "SELECT {columns} FROM noetl.due AS d WHERE at <= ?1 AND NOT (kind IN ({}) AND EXISTS (SELECT 1 FROM \
         noetl.execution x WHERE x.execution_id = d.execution_id AND x.pause IS NOT NULL)) \
         ORDER BY at, execution_id, kind, key LIMIT ?2",
        waiting_while_paused()
    );
    all(connection, &query, params![now.to_iso(), integer(limit)], rows::due)
}

pub(super) fn held(connection: &Connection, session_id: SessionId) -> Result<Vec<CommandRow>, StoreError> {
    let query = format!(
        "SELECT {} FROM noetl.command WHERE session_id = ?1 AND state IN ('claimed', 'lost') \
         ORDER BY execution_id, command_id, epoch",
        rows::COMMAND
    );
    all(connection, &query, [session_id.0], rows::command)
}

pub(super) fn unquiesced(connection: &Connection, limit: u64) -> Result<Vec<HeadView>, StoreError> {
    let query = format!(
        "SELECT {} FROM noetl.execution WHERE ended_at IS NOT NULL AND in_flight > 0 ORDER BY execution_id LIMIT ?1",
        rows::HEAD
    );
    let heads = all(connection, &query, [integer(limit)], rows::head)?;
    let views = heads.into_iter().map(|head| {
        let commands = commands(connection, head.execution_id)?;
        Ok(HeadView { head, commands })
    });
    views.collect()
}

pub(super) fn expired_sessions(
    connection: &Connection,
    now: Timestamp,
    limit: u64,
) -> Result<Vec<Session>, StoreError> {
    // Sessions with nothing but lost attempts come last: there is nothing to do for them until they are forgotten.
    let query = format!(
        "SELECT {} FROM noetl.runtime r WHERE lease_ends_at <= ?1 \
         AND EXISTS (SELECT 1 FROM noetl.command c WHERE c.session_id = r.runtime_id \
                     AND c.state IN ('claimed', 'lost')) \
         ORDER BY NOT EXISTS (SELECT 1 FROM noetl.command c WHERE c.session_id = r.runtime_id \
                              AND c.state = 'claimed'), lease_ends_at, runtime_id LIMIT ?2",
        rows::SESSION
    );
    all(connection, &query, params![now.to_iso(), integer(limit)], rows::session)
}

pub(super) fn sessions(connection: &Connection, now: Timestamp) -> Result<Vec<Session>, StoreError> {
    let query = format!(
        "SELECT {} FROM noetl.runtime WHERE status = 'ready' AND lease_ends_at > ?1 ORDER BY runtime_id",
        rows::SESSION
    );
    all(connection, &query, [now.to_iso()], rows::session)
}

pub(super) fn resource(connection: &Connection, key: &ResourceKey) -> Result<Option<Resource>, StoreError> {
    let select = format!("SELECT {} FROM noetl.catalog", rows::RESOURCE);
    match key {
        ResourceKey::Id(id) => first(connection, &format!("{select} WHERE catalog_id = ?1"), [id.0], rows::resource),
        ResourceKey::Latest(path) => {
            let query = format!("{select} WHERE path = ?1 ORDER BY version DESC LIMIT 1");
            first(connection, &query, [path.as_ref()], rows::resource)
        }
        ResourceKey::Version(path, version) => {
            let query = format!("{select} WHERE path = ?1 AND version = ?2");
            first(connection, &query, params![path.as_ref(), version], rows::resource)
        }
    }
}

pub(super) fn resources(connection: &Connection, kind: Option<&str>) -> Result<Vec<Resource>, StoreError> {
    let query = format!(
        "SELECT {} FROM noetl.catalog WHERE ?1 IS NULL OR lower(kind) = lower(?1) ORDER BY catalog_id DESC",
        rows::RESOURCE
    );
    all(connection, &query, [kind], rows::resource)
}

pub(super) fn answer(connection: &Connection, key: &str) -> Result<Option<Value>, StoreError> {
    first(connection, "SELECT answer FROM noetl.idempotency WHERE key = ?1", [key], rows::document)
}
