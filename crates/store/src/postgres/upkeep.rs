//! Keeping the tables in order: checks, sizes, removal of what is old.

use std::collections::BTreeSet;

use deadpool_postgres::ClientWrapper;
use noetl_core::id::ExecutionId;
use noetl_core::time::Timestamp;

use super::Inner;
use super::partition::{self, Month};
use super::rows;
use super::transaction::all;
use super::types::Moment;
use crate::{StoreError, TableSize};

/// Most findings that a check lists.
const FINDINGS_MAX: usize = 100;
/// Most families looked up at once for removal.
const PRUNE_PAGE: usize = 1_000;
/// Most executions removed in one transaction.
const PRUNE_STEP: i64 = 200;

/// Tables whose rows belong to an execution, besides the log and the heads.
const OF_EXECUTION: [&str; 7] = ["command", "due", "snapshot", "result", "keychain", "log", "log_size"];

/// Checks what the tables say about each other, as of one moment; returns what is wrong.
pub(super) async fn validate(client: &ClientWrapper) -> Result<Vec<String>, StoreError> {
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let found = findings(client).await;
    client.batch_execute("ROLLBACK").await?;
    found
}

async fn findings(client: &ClientWrapper) -> Result<Vec<String>, StoreError> {
    let mut wrong = Vec::new();
    for query in CHECKS {
        let found = client.query(&format!("{query} LIMIT {FINDINGS_MAX}"), &[]).await?;
        wrong.extend(all(&found, rows::sentence)?);
    }
    wrong.truncate(FINDINGS_MAX);
    Ok(wrong)
}

/// Each returns one sentence per contradiction.
const CHECKS: [&str; 6] = [
    // Versions begin at 1 and have no holes: as many events as the last version says.
    "SELECT 'execution ' || x.execution_id || ': version ' || x.version || ' but ' || count(e.event_id) || \
     ' events up to version ' || coalesce(max(e.version), 0) \
     FROM noetl.execution x LEFT JOIN noetl.event e ON e.execution_id = x.execution_id \
     GROUP BY x.execution_id HAVING count(e.event_id) <> x.version OR coalesce(max(e.version), 0) <> x.version",
    "SELECT 'execution ' || execution_id || ': ' || count(*) || ' events without a head' FROM noetl.event e \
     WHERE NOT EXISTS (SELECT 1 FROM noetl.execution x WHERE x.execution_id = e.execution_id) GROUP BY execution_id",
    // The terminal event and the status say the same.
    "SELECT 'execution ' || x.execution_id || ': ' || x.status || ' but its terminal event is ' || \
     coalesce(e.event_type, 'missing') FROM noetl.execution x LEFT JOIN noetl.event e \
     ON e.execution_id = x.execution_id \
     AND e.event_type IN ('playbook.completed', 'playbook.failed', 'execution.cancelled') \
     WHERE x.status <> CASE e.event_type WHEN 'playbook.completed' THEN 'COMPLETED' WHEN 'playbook.failed' \
     THEN 'FAILED' WHEN 'execution.cancelled' THEN 'CANCELLED' ELSE 'RUNNING' END",
    "SELECT 'execution ' || x.execution_id || ': in_flight ' || x.in_flight || ' but ' || count(c.command_id) || \
     ' commands in flight' FROM noetl.execution x LEFT JOIN noetl.command c \
     ON c.execution_id = x.execution_id AND c.state IN ('claimed', 'lost') \
     GROUP BY x.execution_id HAVING count(c.command_id) <> x.in_flight",
    "SELECT 'execution ' || execution_id || ': ended, but command ' || command_id || ' is ' || state \
     FROM noetl.command JOIN noetl.execution x USING (execution_id) \
     WHERE x.status <> 'RUNNING' AND state IN ('pending', 'suspended')",
    "SELECT 'execution ' || x.execution_id || ': its parent ' || x.parent_execution_id || \
     ' is missing or of another family' FROM noetl.execution x LEFT JOIN noetl.execution p \
     ON p.execution_id = x.parent_execution_id WHERE x.parent_execution_id IS NOT NULL \
     AND (p.execution_id IS NULL OR p.root_execution_id <> x.root_execution_id OR p.depth + 1 <> x.depth)",
];

/// Counts rows and bytes per table, indexes and partitions included.
pub(super) async fn size(client: &ClientWrapper) -> Result<Vec<TableSize>, StoreError> {
    let tables = "SELECT c.relname::text, coalesce((SELECT sum(pg_total_relation_size(i.inhrelid))::bigint \
                  FROM pg_inherits i WHERE i.inhparent = c.oid), 0) + pg_total_relation_size(c.oid) \
                  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'noetl' \
                  AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1";
    let mut sizes = Vec::new();
    for row in client.query(tables, &[]).await? {
        let (table, bytes): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
        let counted = client.query_one(&format!("SELECT count(*) FROM noetl.{table}"), &[]).await?;
        sizes.push(TableSize { table, rows: rows::count(&counted)?, bytes: u64::try_from(bytes).ok() });
    }
    Ok(sizes)
}

/// The family of top `r` may go: every member has ended and come to rest before `$1`, and so has its cleanup, which
/// reads what it left behind.
const AT_REST: &str = "r.status <> 'RUNNING' AND r.in_flight = 0 \
     AND greatest(r.ended_at, coalesce(r.quiesced_at, r.ended_at)) < $1 \
     AND NOT EXISTS (SELECT 1 FROM noetl.execution c WHERE c.execution_id = (r.cancel ->> 'cleanup')::bigint \
         AND (c.status = 'RUNNING' OR c.in_flight > 0)) \
     AND NOT EXISTS (SELECT 1 FROM noetl.execution m LEFT JOIN noetl.execution c \
         ON c.execution_id = (m.cancel ->> 'cleanup')::bigint WHERE m.root_execution_id = r.execution_id \
         AND m.parent_execution_id IS NOT NULL AND (m.status = 'RUNNING' OR m.in_flight > 0 \
         OR c.status = 'RUNNING' OR c.in_flight > 0 \
         OR greatest(m.ended_at, coalesce(m.quiesced_at, m.ended_at)) >= $1))";

/// Counts the executions that pruning would remove.
pub(super) async fn prunable(client: &ClientWrapper, before: Timestamp) -> Result<u64, StoreError> {
    let query = format!(
        "SELECT coalesce(sum(1 + (SELECT count(*) FROM noetl.execution m \
         WHERE m.root_execution_id = r.execution_id AND m.parent_execution_id IS NOT NULL)), 0)::bigint \
         FROM noetl.execution r WHERE r.parent_execution_id IS NULL AND {AT_REST}"
    );
    rows::count(&client.query_one(&query, &[&Moment(before)]).await?)
}

/// Removes executions; a partition of the log of which none is left goes as a whole.
pub(super) async fn prune(inner: &Inner, client: &ClientWrapper, before: Timestamp) -> Result<u64, StoreError> {
    let whole = droppable(client, before).await?;
    let mut removed = 0;
    let mut last = i64::MIN;
    loop {
        let page = format!(
            "SELECT r.execution_id FROM noetl.execution r WHERE r.parent_execution_id IS NULL \
             AND r.execution_id > $2 AND {AT_REST} ORDER BY r.execution_id LIMIT {PRUNE_PAGE}"
        );
        let roots: Vec<i64> =
            all(&client.query(&page, &[&Moment(before), &last]).await?, rows::id)?.into_iter().map(|id| id.0).collect();
        let Some(end) = roots.last() else { break };
        last = *end;
        // A few at a time: other work takes turns with it.
        loop {
            let gone = remove_some(client, &roots, before, &whole).await?;
            removed += gone;
            if gone == 0 {
                break;
            }
        }
    }
    client.execute("DELETE FROM noetl.idempotency WHERE created_at < $1", &[&Moment(before)]).await?;
    let jobs = "DELETE FROM noetl.cancellation WHERE requested_execution_id IS NULL AND done_at < $1";
    client.execute(jobs, &[&Moment(before)]).await?;
    for month in whole {
        match inner.partitions.drop_empty(client, month).await {
            Ok(true) => tracing::info!(table = month.table(), "dropped a partition of the log"),
            Ok(false) => {}
            // Somebody reads it for very long; the next removal finds it again.
            Err(error) => tracing::warn!(%error, table = month.table(), "a partition of the log could not be dropped"),
        }
    }
    Ok(removed)
}

/// Returns the months that are over and of which every execution may go.
async fn droppable(client: &ClientWrapper, before: Timestamp) -> Result<BTreeSet<Month>, StoreError> {
    let stays = format!(
        "SELECT 1 FROM noetl.execution x JOIN noetl.execution r ON r.execution_id = x.root_execution_id \
         WHERE x.execution_id >= $2 AND x.execution_id < $3 AND NOT ({AT_REST}) LIMIT 1"
    );
    let mut months = BTreeSet::new();
    for month in partition::list(client).await? {
        let range = (month.first().unwrap_or(i64::MIN), month.end().unwrap_or(i64::MAX));
        if month.over() <= before && client.query_opt(&stays, &[&Moment(before), &range.0, &range.1]).await?.is_none() {
            months.insert(month);
        }
    }
    Ok(months)
}

/// Removes some members of families, the deepest first: a family broken off keeps its top, and is found again. None is
/// born meanwhile, since all have ended. Returns how many.
async fn remove_some(
    client: &ClientWrapper,
    roots: &[i64],
    before: Timestamp,
    whole: &BTreeSet<Month>,
) -> Result<u64, StoreError> {
    client.batch_execute("BEGIN").await?;
    let removed = remove(client, roots, before, whole).await;
    let end = if removed.is_ok() { "COMMIT" } else { "ROLLBACK" };
    client.batch_execute(end).await?;
    removed
}

async fn remove(
    client: &ClientWrapper,
    roots: &[i64],
    before: Timestamp,
    whole: &BTreeSet<Month>,
) -> Result<u64, StoreError> {
    // Looked at again for each step: what was found before may have changed.
    let members = format!(
        "SELECT m.execution_id FROM noetl.execution r JOIN noetl.execution m \
         ON m.execution_id = r.execution_id \
         OR (m.root_execution_id = r.execution_id AND m.parent_execution_id IS NOT NULL) \
         WHERE r.execution_id = ANY($2) AND {AT_REST} \
         ORDER BY r.execution_id, m.depth DESC, m.execution_id DESC LIMIT {PRUNE_STEP}"
    );
    let found = all(&client.query(&members, &[&Moment(before), &roots]).await?, rows::id)?;
    let mut ids: Vec<i64> = found.iter().map(|id| id.0).collect();
    // Heads are locked by id, as everywhere.
    ids.sort_unstable();
    let lock = "SELECT execution_id FROM noetl.execution WHERE execution_id = ANY($1) ORDER BY execution_id FOR UPDATE";
    client.query(lock, &[&ids]).await?;
    for table in OF_EXECUTION {
        client.execute(&format!("DELETE FROM noetl.{table} WHERE execution_id = ANY($1)"), &[&ids]).await?;
    }
    let row_wise: Vec<i64> = ids.iter().filter(|id| !whole.contains(&Month::of(ExecutionId(**id)))).copied().collect();
    client.execute("DELETE FROM noetl.event WHERE execution_id = ANY($1)", &[&row_wise]).await?;
    let done = "DELETE FROM noetl.cancellation WHERE requested_execution_id = ANY($1) AND done_at IS NOT NULL";
    client.execute(done, &[&ids]).await?;
    client.execute("DELETE FROM noetl.execution WHERE execution_id = ANY($1)", &[&ids]).await.map_err(StoreError::from)
}
