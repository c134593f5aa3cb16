//! The questions, as SQL. What takes several statements is read as of one moment.

use std::sync::Arc;

use deadpool_postgres::ClientWrapper;
use futures_util::future::{join, join3};
use noetl_core::append::Due;
use noetl_core::event::Recorded;
use noetl_core::event::row::canonical_name;
use noetl_core::head::{CommandRow, Head, HeadView};
use noetl_core::id::{ExecutionId, SessionId};
use noetl_core::time::Timestamp;
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::rows;
use super::transaction::all;
use super::types::Moment;
use super::write::integer;
use crate::catalog::{Resource, ResourceKey};
use crate::listing::{Conditions, Steering};
use crate::{EventQuery, ListQuery, Loaded, Session, StoreError, waiting_while_paused};

type Found<T> = Result<T, StoreError>;

/// One moment for several statements.
const ONE_MOMENT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Conditions of a query, and the values they name.
#[derive(Default)]
struct Filter {
    conditions: Vec<String>,
    values: Vec<Box<dyn ToSql + Sync + Send>>,
}

impl Filter {
    /// Adds a condition in which `?` stands for `value`.
    fn and(&mut self, condition: &str, value: impl ToSql + Sync + Send + 'static) {
        let place = self.value(value);
        self.conditions.push(condition.replace('?', &place));
    }

    fn plain(&mut self, condition: &str) {
        self.conditions.push(condition.to_owned());
    }

    /// Adds a value; returns how the query names it.
    fn value(&mut self, value: impl ToSql + Sync + Send + 'static) -> String {
        self.values.push(Box::new(value));
        format!("${}", self.values.len())
    }

    fn text(&self) -> String {
        if self.conditions.is_empty() { String::new() } else { format!(" WHERE {}", self.conditions.join(" AND ")) }
    }

    fn values(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.values.iter().map(|value| -> &(dyn ToSql + Sync) { value.as_ref() }).collect()
    }
}

pub(super) async fn ask(client: &ClientWrapper, query: &str, values: &[&(dyn ToSql + Sync)]) -> Found<Vec<Row>> {
    let statement = client.prepare_cached(query).await?;
    Ok(client.query(&statement, values).await?)
}

pub(super) async fn first<T>(
    client: &ClientWrapper,
    query: &str,
    values: &[&(dyn ToSql + Sync)],
    read: impl Fn(&Row) -> Found<T>,
) -> Found<Option<T>> {
    ask(client, query, values).await?.first().map(read).transpose()
}

fn head_query() -> String {
    format!("SELECT {} FROM noetl.execution WHERE execution_id = $1", rows::HEAD)
}

pub(super) fn commands_query() -> String {
    format!("SELECT {} FROM noetl.command WHERE execution_id = ANY($1) ORDER BY 1, 2, 3", rows::COMMAND)
}

/// The events of an execution after a version.
pub(super) fn tail_query() -> String {
    format!("SELECT {} FROM noetl.event WHERE execution_id = $1 AND version > $2 ORDER BY version", rows::EVENT)
}

pub(super) async fn head(client: &ClientWrapper, id: ExecutionId) -> Found<Option<Head>> {
    first(client, &head_query(), &[&id.0], rows::head).await
}

pub(super) async fn view(client: &ClientWrapper, id: ExecutionId) -> Found<Option<HeadView>> {
    let head = client.prepare_cached(&head_query()).await?;
    let commands = client.prepare_cached(&commands_query()).await?;
    let ids = vec![id.0];
    let (began, ((heads, commands), ended)) = join(
        client.batch_execute(ONE_MOMENT),
        join(join(client.query(&head, &[&id.0]), client.query(&commands, &[&ids])), client.batch_execute("COMMIT")),
    )
    .await;
    began?;
    let (heads, commands) = (heads?, commands?);
    ended?;
    let Some(head) = heads.first().map(rows::head).transpose()? else { return Ok(None) };
    Ok(Some(HeadView { head, commands: all(&commands, rows::command)? }))
}

pub(super) async fn load(client: &ClientWrapper, id: ExecutionId) -> Found<Option<Loaded>> {
    let head = client.prepare_cached(&head_query()).await?;
    let newest = "SELECT version, state FROM noetl.snapshot WHERE execution_id = $1 ORDER BY version DESC LIMIT 1";
    let newest = client.prepare_cached(newest).await?;
    let tail = format!(
        "SELECT {} FROM noetl.event WHERE execution_id = $1 AND version > coalesce((SELECT max(version) \
         FROM noetl.snapshot WHERE execution_id = $1), 0) ORDER BY version",
        rows::EVENT
    );
    let tail = client.prepare_cached(&tail).await?;
    let (began, ((heads, snapshots, tail), ended)) = join(
        client.batch_execute(ONE_MOMENT),
        join(
            join3(client.query(&head, &[&id.0]), client.query(&newest, &[&id.0]), client.query(&tail, &[&id.0])),
            client.batch_execute("COMMIT"),
        ),
    )
    .await;
    began?;
    let (heads, snapshots, tail) = (heads?, snapshots?, tail?);
    ended?;
    let Some(head) = heads.first().map(rows::head).transpose()? else { return Ok(None) };
    let snapshot = snapshots.first().map(rows::snapshot).transpose()?;
    Ok(Some(Loaded { head, snapshot, tail: all(&tail, rows::event)? }))
}

pub(super) async fn events(client: &ClientWrapper, query: &EventQuery) -> Found<(Vec<Recorded>, u64)> {
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
    let total = client.prepare_cached(&total).await?;
    let counted = filter.values.len();
    // Within one log by place, over all logs by id.
    let order = if query.execution_id.is_some() { "version" } else { "event_id" };
    let direction = if query.newest_first { "DESC" } else { "ASC" };
    let (limit, offset) = (filter.value(integer(query.limit)), filter.value(integer(query.offset)));
    let page = format!(
        "SELECT {} FROM noetl.event{} ORDER BY {order} {direction} LIMIT {limit} OFFSET {offset}",
        rows::EVENT,
        filter.text(),
    );
    let page = client.prepare_cached(&page).await?;
    let values = filter.values();
    let (began, ((total, page), ended)) = join(
        client.batch_execute(ONE_MOMENT),
        join(
            join(client.query_one(&total, &values[..counted]), client.query(&page, &values)),
            client.batch_execute("COMMIT"),
        ),
    )
    .await;
    began?;
    let (total, page) = (total?, page?);
    ended?;
    Ok((all(&page, rows::event)?, rows::count(&total)?))
}

pub(super) async fn terminal_event(client: &ClientWrapper, id: ExecutionId) -> Found<Option<Recorded>> {
    let query = format!(
        "SELECT {} FROM noetl.event WHERE execution_id = $1 \
         AND event_type IN ('playbook.completed', 'playbook.failed', 'execution.cancelled')",
        rows::EVENT
    );
    first(client, &query, &[&id.0], rows::event).await
}

pub(super) async fn result(client: &ClientWrapper, reference: &str) -> Found<Option<Arc<Value>>> {
    let query = "SELECT data FROM noetl.result WHERE reference = $1";
    Ok(first(client, query, &[&reference], rows::document).await?.map(Arc::new))
}

pub(super) async fn executions(client: &ClientWrapper, query: &ListQuery) -> Found<Vec<Head>> {
    let (filter, conditions) = listing(query);
    all(&look(client, &query.select(rows::HEAD, &conditions, Steering::Order), &filter).await?, rows::head)
}

pub(super) async fn execution_ids(client: &ClientWrapper, query: &ListQuery) -> Found<Vec<ExecutionId>> {
    let (filter, conditions) = listing(query);
    all(&look(client, &query.select("execution_id", &conditions, Steering::Order), &filter).await?, rows::id)
}

pub(super) async fn count_executions(client: &ClientWrapper, query: &ListQuery) -> Found<u64> {
    let (filter, conditions) = listing(query);
    let rows = look(client, &query.select_count(&conditions), &filter).await?;
    rows.first().map_or(Ok(0), rows::count)
}

pub(super) async fn active_below(client: &ClientWrapper, id: ExecutionId, limit: u64) -> Found<u64> {
    // Ends with the limit: a recursion is worked out only as far as it is asked for.
    let query = "WITH RECURSIVE below (id, status) AS (\
                   SELECT execution_id, status FROM noetl.execution WHERE parent_execution_id = $1 UNION ALL \
                   SELECT e.execution_id, e.status FROM below b JOIN noetl.execution e ON e.parent_execution_id = b.id) \
                 SELECT count(*) FROM (SELECT status FROM below LIMIT $2) AS looked_at WHERE status = 'RUNNING'";
    let rows = ask(client, query, &[&id.0, &integer(limit)]).await?;
    let count: i64 = rows.first().map_or(Ok(0), |row| row.try_get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Asks with a statement that is planned for these very values: what is right for a path that many have is wrong for one
/// that few have.
async fn look(client: &ClientWrapper, query: &str, filter: &Filter) -> Found<Vec<Row>> {
    // Not kept: there are as many of them as there are pages.
    let statement = client.prepare(query).await?;
    let values = filter.values();
    let begin = "BEGIN READ ONLY; SET LOCAL plan_cache_mode = force_custom_plan";
    let (began, (rows, ended)) =
        join(client.batch_execute(begin), join(client.query(&statement, &values), client.batch_execute("COMMIT")))
            .await;
    began?;
    let rows = rows?;
    ended?;
    Ok(rows)
}

/// Returns the conditions of a list that have nothing to do with the status, with their values.
fn listing(query: &ListQuery) -> (Filter, Conditions) {
    let mut filter = Filter::default();
    let mut path = None;
    if let Some(exact) = query.exact_path() {
        path = Some(filter.value(exact.to_owned()));
    } else if let Some(pattern) = &query.path {
        // LIKE has wildcards of its own; escaped they stand for themselves.
        let pattern = pattern.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_").replace('*', "%");
        filter.and("path LIKE ?", pattern);
    }
    if let Some(parent) = query.parent {
        filter.and("parent_execution_id = ?", parent.0);
    }
    if let Some(root) = query.root {
        filter.and(
            "execution_id IN (SELECT ?::bigint UNION ALL SELECT m.execution_id FROM noetl.execution m \
             WHERE m.root_execution_id = ? AND m.parent_execution_id IS NOT NULL)",
            root.0,
        );
    }
    if !query.labels.is_empty() {
        filter.and("labels @> ?::text::jsonb", serde_json::json!(query.labels).to_string());
    }
    if let Some(before) = query.started_before {
        filter.and("started_at < ?", Moment(before));
    }
    if let Some(since) = query.idle_since {
        filter.and("updated_at < ?", Moment(since));
    }
    if query.unquiesced {
        filter.plain("unquiesced");
    }
    if let Some(job) = query.job {
        filter.and("cancel ->> 'job_id' = ?", job.to_string());
    }
    if let Some(before) = query.before {
        filter.and("execution_id < ?", before.0);
    }
    let plain = std::mem::take(&mut filter.conditions);
    (filter, Conditions { plain, path })
}

pub(super) async fn due(client: &ClientWrapper, now: Timestamp, limit: u64) -> Found<Vec<Due>> {
    let columns = rows::DUE;
    let query = format!(
        "SELECT {columns} FROM noetl.due d WHERE at <= $1 AND NOT (kind IN ({}) AND EXISTS (SELECT 1 FROM \
         noetl.execution x WHERE x.execution_id = d.execution_id AND x.pause IS NOT NULL)) \
         ORDER BY at, execution_id, kind, key LIMIT $2",
        waiting_while_paused()
    );
    all(&ask(client, &query, &[&Moment(now), &integer(limit)]).await?, rows::due)
}

pub(super) async fn held(client: &ClientWrapper, session_id: SessionId) -> Found<Vec<CommandRow>> {
    let query = format!(
        "SELECT {} FROM noetl.command WHERE session_id = $1 AND state IN ('claimed', 'lost') \
         ORDER BY execution_id, command_id, epoch",
        rows::COMMAND
    );
    all(&ask(client, &query, &[&session_id.0]).await?, rows::command)
}

pub(super) async fn unquiesced(client: &ClientWrapper, limit: u64) -> Found<Vec<HeadView>> {
    let some = "noetl.execution WHERE unquiesced ORDER BY execution_id LIMIT $1";
    let heads = client.prepare_cached(&format!("SELECT {} FROM {some}", rows::HEAD)).await?;
    let commands = format!(
        "SELECT {} FROM noetl.command WHERE execution_id IN (SELECT execution_id FROM {some}) ORDER BY 1, 2, 3",
        rows::COMMAND
    );
    let commands = client.prepare_cached(&commands).await?;
    let limit = integer(limit);
    let (began, ((heads, commands), ended)) = join(
        client.batch_execute(ONE_MOMENT),
        join(join(client.query(&heads, &[&limit]), client.query(&commands, &[&limit])), client.batch_execute("COMMIT")),
    )
    .await;
    began?;
    let (heads, commands) = (heads?, commands?);
    ended?;
    views(&heads, &commands)
}

/// Puts heads and their commands together, both in order of id.
pub(super) fn views(heads: &[Row], commands: &[Row]) -> Found<Vec<HeadView>> {
    let mut commands = all(commands, rows::command)?.into_iter().peekable();
    let mut views = Vec::with_capacity(heads.len());
    for head in heads {
        let head = rows::head(head)?;
        let mut own = Vec::new();
        while let Some(row) = commands.next_if(|row| row.execution_id == head.execution_id) {
            own.push(row);
        }
        views.push(HeadView { head, commands: own });
    }
    Ok(views)
}

pub(super) async fn expired_sessions(client: &ClientWrapper, now: Timestamp, limit: u64) -> Found<Vec<Session>> {
    // Sessions with nothing but lost attempts come last: there is nothing to do for them until they are forgotten.
    let query = format!(
        "SELECT {} FROM noetl.runtime r WHERE lease_ends_at <= $1 \
         AND EXISTS (SELECT 1 FROM noetl.command c WHERE c.session_id = r.runtime_id \
                     AND c.state IN ('claimed', 'lost')) \
         ORDER BY NOT EXISTS (SELECT 1 FROM noetl.command c WHERE c.session_id = r.runtime_id \
                              AND c.state = 'claimed'), lease_ends_at, runtime_id LIMIT $2",
        rows::SESSION
    );
    all(&ask(client, &query, &[&Moment(now), &integer(limit)]).await?, rows::session)
}

pub(super) async fn sessions(client: &ClientWrapper, now: Timestamp) -> Found<Vec<Session>> {
    let query = format!(
        "SELECT {} FROM noetl.runtime WHERE status = 'ready' AND lease_ends_at > $1 ORDER BY runtime_id",
        rows::SESSION
    );
    all(&ask(client, &query, &[&Moment(now)]).await?, rows::session)
}

pub(super) async fn resource(client: &ClientWrapper, key: &ResourceKey) -> Found<Option<Resource>> {
    let select = format!("SELECT {} FROM noetl.catalog", rows::RESOURCE);
    match key {
        ResourceKey::Id(id) => {
            first(client, &format!("{select} WHERE catalog_id = $1"), &[&id.0], rows::resource).await
        }
        ResourceKey::Latest(path) => {
            let query = format!("{select} WHERE path = $1 ORDER BY version DESC LIMIT 1");
            first(client, &query, &[&path.as_ref()], rows::resource).await
        }
        ResourceKey::Version(path, version) => {
            let query = format!("{select} WHERE path = $1 AND version = $2");
            first(client, &query, &[&path.as_ref(), version], rows::resource).await
        }
    }
}

pub(super) async fn resources(client: &ClientWrapper, kind: Option<&str>) -> Found<Vec<Resource>> {
    let query = format!(
        "SELECT {} FROM noetl.catalog WHERE $1::text IS NULL OR lower(kind) = lower($1) ORDER BY catalog_id DESC",
        rows::RESOURCE
    );
    all(&ask(client, &query, &[&kind]).await?, rows::resource)
}

pub(super) async fn answer(client: &ClientWrapper, key: &str) -> Found<Option<Value>> {
    first(client, "SELECT answer FROM noetl.idempotency WHERE key = $1", &[&key], rows::document).await
}
