//! What a worker may take next, in the order in which executions take turns.
//!
//! Each execution is one step along the index of pending commands, however many commands it has there.

use std::collections::BTreeMap;
use std::sync::Arc;

use deadpool_postgres::ClientWrapper;
use noetl_core::head::CommandRow;
use noetl_core::id::ExecutionId;
use noetl_core::turns::{Stretch, Turns};

use super::read::ask;
use super::rows;
use super::transaction::all;
use super::write::integer;
use crate::StoreError;
use crate::pending::{Line, behind, in_turn, up_to};

/// How much deeper into each line the next look goes when the last one did not find enough.
const DEEPER: u64 = 4;

/// The executions of a queue that have something pending, stretch by stretch, at most `$6` of each: one look into the
/// index per execution, where `DISTINCT` would read every pending command.
const EXECUTIONS: &str = "\
    WITH RECURSIVE line AS (\
      SELECT s.place, s.last, 1::bigint AS n, \
        (SELECT min(c.execution_id) FROM noetl.command c WHERE c.pool = $1 AND c.state = 'pending' \
         AND c.priority = $2 AND c.execution_id > s.behind AND c.execution_id <= s.last) AS execution_id \
      FROM unnest($3::integer[], $4::bigint[], $5::bigint[]) AS s (place, behind, last) \
      UNION ALL \
      SELECT l.place, l.last, l.n + 1, \
        (SELECT min(c.execution_id) FROM noetl.command c WHERE c.pool = $1 AND c.state = 'pending' \
         AND c.priority = $2 AND c.execution_id > l.execution_id AND c.execution_id <= l.last) \
      FROM line l WHERE l.execution_id IS NOT NULL AND l.n < $6\
    ) \
    SELECT place, execution_id FROM line WHERE execution_id IS NOT NULL ORDER BY place, execution_id LIMIT $6";

pub(super) async fn candidates(
    client: &ClientWrapper,
    pools: &[Arc<str>],
    turns: &Turns,
    skip: u64,
    limit: u64,
) -> Result<Vec<CommandRow>, StoreError> {
    let wanted = skip.saturating_add(limit);
    let mut lines = Vec::new();
    let mut seen: Vec<&Arc<str>> = Vec::new();
    for pool in pools {
        if seen.contains(&pool) {
            continue;
        }
        seen.push(pool);
        let (mut left, mut above) = (wanted, None);
        while left > 0
            && let Some(priority) = next_priority(client, pool, above).await?
        {
            above = Some(priority);
            let order = turns.order(pool, priority);
            let queue = queue(client, pool, priority, &order, left).await?;
            left = left.saturating_sub(queue.iter().map(|line| line.rows.len() as u64).sum());
            lines.extend(queue);
        }
    }
    Ok(in_turn(lines, skip, limit))
}

/// Returns the highest priority, below `above` if there is one, at which something is pending.
async fn next_priority(client: &ClientWrapper, pool: &str, above: Option<i32>) -> Result<Option<i32>, StoreError> {
    let query = "SELECT priority FROM noetl.command WHERE pool = $1 AND state = 'pending' AND priority <= $2 \
                 ORDER BY priority DESC LIMIT 1";
    let Some(most) = above.map_or(Some(i32::MAX), |above| above.checked_sub(1)) else { return Ok(None) };
    let found = ask(client, query, &[&pool, &most]).await?;
    Ok(found.first().map(|row| row.try_get(0)).transpose()?)
}

/// Reads one queue, as far as it takes to have `wanted` rows.
async fn queue(
    client: &ClientWrapper,
    pool: &str,
    priority: i32,
    order: &[Stretch],
    wanted: u64,
) -> Result<Vec<Line>, StoreError> {
    let places: Vec<i32> = (0..).take(order.len()).collect();
    let from: Vec<i64> = order.iter().map(|(from, _)| behind(*from)).collect();
    let to: Vec<i64> = order.iter().map(|(_, to)| up_to(*to)).collect();
    let most = integer(wanted);
    let found = ask(client, EXECUTIONS, &[&pool, &priority, &places, &from, &to, &most]).await?;
    let mut executions = BTreeMap::new();
    for row in &found {
        let (place, id): (i32, i64) = (row.try_get(0)?, row.try_get(1)?);
        executions.insert(ExecutionId(id), usize::try_from(place).unwrap_or(0));
    }
    let ids: Vec<i64> = executions.keys().map(|id| id.0).collect();
    let Some(mut depth) = wanted.checked_div(ids.len() as u64).map(|share| share.max(1)) else { return Ok(Vec::new()) };
    let query = format!(
        "SELECT c.* FROM unnest($3::bigint[]) AS e (id) CROSS JOIN LATERAL (SELECT {} FROM noetl.command \
         WHERE pool = $1 AND state = 'pending' AND priority = $2 AND execution_id = e.id \
         ORDER BY command_id LIMIT $4) c ORDER BY c.execution_id, c.command_id",
        rows::COMMAND
    );
    loop {
        let found = ask(client, &query, &[&pool, &priority, &ids, &integer(depth)]).await?;
        let mut read: BTreeMap<ExecutionId, Vec<CommandRow>> = BTreeMap::new();
        for row in all(&found, rows::command)? {
            read.entry(row.execution_id).or_default().push(row);
        }
        // Some lines are shorter than their share, so others have to give more.
        let cut = read.values().any(|rows| rows.len() as u64 == depth);
        if cut && (found.len() as u64) < wanted && depth < wanted {
            depth = depth.saturating_mul(DEEPER).min(wanted);
            continue;
        }
        let lines = read.into_iter().map(|(id, rows)| {
            let place = executions.get(&id).copied().unwrap_or(0);
            Line { priority, place, rows }
        });
        return Ok(lines.collect());
    }
}
