//! What a worker may take next, in the order in which executions take turns.
//!
//! Each execution is one step along the index of pending commands, however many commands it has there: a loop with
//! thousands of them costs no more than a playbook with one.

use std::sync::Arc;

use noetl_core::head::CommandRow;
use noetl_core::id::{CommandId, ExecutionId};
use noetl_core::turns::{Stretch, Turns};
use rusqlite::{Connection, params};

use super::{read, rows};
use crate::StoreError;
use crate::pending::{Line, behind, in_turn, up_to};

pub(super) fn candidates(
    connection: &Connection,
    pools: &[Arc<str>],
    turns: &Turns,
    skip: u64,
    limit: u64,
) -> Result<Vec<CommandRow>, StoreError> {
    let wanted = usize::try_from(skip.saturating_add(limit)).unwrap_or(usize::MAX);
    let mut found = Vec::new();
    let mut seen: Vec<&Arc<str>> = Vec::new();
    for pool in pools {
        if seen.contains(&pool) {
            continue;
        }
        seen.push(pool);
        let (mut left, mut above) = (wanted, i64::MAX);
        while left > 0
            && let Some(priority) = next_priority(connection, pool, above)?
        {
            above = i64::from(priority);
            let mut lines = first_of_each(connection, pool, priority, &turns.order(pool, priority), left)?;
            let taken = read_on(connection, pool, priority, &mut lines, left)?;
            left = left.saturating_sub(taken);
            found.extend(lines);
        }
    }
    Ok(in_turn(found, skip, limit))
}

/// Returns the highest priority below `above` at which something is pending.
fn next_priority(connection: &Connection, pool: &str, above: i64) -> Result<Option<i32>, StoreError> {
    let query = "SELECT priority FROM noetl.command WHERE pool = ?1 AND state = 'pending' AND priority < ?2 \
                 ORDER BY priority DESC LIMIT 1";
    let mut statement = connection.prepare_cached(query)?;
    let mut found = statement.query(params![pool, above])?;
    Ok(found.next()?.map(|row| row.get(0)).transpose()?)
}

/// Reads the oldest command of each execution, in the order of the turns, of at most `most`.
fn first_of_each(
    connection: &Connection,
    pool: &str,
    priority: i32,
    order: &[Stretch],
    most: usize,
) -> Result<Vec<Line>, StoreError> {
    let query = format!(
        "SELECT {} FROM noetl.command WHERE pool = ?1 AND state = 'pending' AND priority = ?2 \
         AND execution_id > ?3 AND execution_id <= ?4 ORDER BY execution_id, command_id LIMIT 1",
        rows::COMMAND
    );
    let mut lines = Vec::new();
    for (place, (from, to)) in order.iter().enumerate() {
        let (mut behind, last) = (behind(*from), up_to(*to));
        while lines.len() < most
            && let Some(row) = read::first(connection, &query, params![pool, priority, behind, last], rows::command)?
        {
            behind = row.execution_id.0;
            lines.push(Line { priority, place, rows: vec![row] });
        }
    }
    Ok(lines)
}

/// Reads as many more of each as it takes to have `wanted`; returns how many there are.
fn read_on(
    connection: &Connection,
    pool: &str,
    priority: i32,
    lines: &mut [Line],
    wanted: usize,
) -> Result<usize, StoreError> {
    let query = format!(
        "SELECT {} FROM noetl.command WHERE pool = ?1 AND state = 'pending' AND priority = ?2 \
         AND execution_id = ?3 AND command_id > ?4 ORDER BY command_id LIMIT ?5",
        rows::COMMAND
    );
    let mut have: usize = lines.iter().map(|line| line.rows.len()).sum();
    // Those that may have more.
    let mut going: Vec<&mut Line> = lines.iter_mut().collect();
    loop {
        if have >= wanted || going.is_empty() {
            return Ok(have);
        }
        let depth = (wanted - have).div_ceil(going.len());
        let mut still = Vec::with_capacity(going.len());
        for line in going {
            let Some(CommandRow { execution_id: ExecutionId(id), command_id: CommandId(last), .. }) = line.rows.last()
            else {
                continue;
            };
            let most = i64::try_from(depth).unwrap_or(i64::MAX);
            let more = read::all(connection, &query, params![pool, priority, id, last, most], rows::command)?;
            let cut = more.len() == depth;
            have += more.len();
            line.rows.extend(more);
            if cut {
                still.push(line);
            }
        }
        going = still;
    }
}
