//! Pending commands in the order of their turns, once they have been read line by line.

use std::cmp::Reverse;
use std::ops::Bound;

use noetl_core::head::CommandRow;
use noetl_core::id::ExecutionId;

/// One execution's pending commands of one queue, by age, as far as they have been read.
#[derive(Debug)]
pub(crate) struct Line {
    /// The queue's priority.
    pub(crate) priority: i32,
    /// Which stretch of the turns it stands in.
    pub(crate) place: usize,
    /// At least one.
    pub(crate) rows: Vec<CommandRow>,
}

/// Returns the first of each line, then the second of each, and so on; higher priorities before lower ones.
pub(crate) fn in_turn(lines: Vec<Line>, skip: u64, limit: u64) -> Vec<CommandRow> {
    let mut found = Vec::new();
    for Line { priority, place, rows } in lines {
        let ranked = rows.into_iter().zip(0_u64..);
        found.extend(ranked.map(|(row, rank)| ((Reverse(priority), rank, place, row.execution_id), row)));
    }
    found.sort_by_key(|(order, row)| (*order, row.command_id));
    let (skip, limit) = (usize::try_from(skip).unwrap_or(usize::MAX), usize::try_from(limit).unwrap_or(usize::MAX));
    found.into_iter().map(|(_, row)| row).skip(skip).take(limit).collect()
}

/// Returns the id that the first of a stretch exceeds.
pub(crate) fn behind(bound: Bound<ExecutionId>) -> i64 {
    match bound {
        Bound::Excluded(ExecutionId(id)) => id,
        Bound::Included(ExecutionId(id)) => id.saturating_sub(1),
        Bound::Unbounded => i64::MIN,
    }
}

/// Returns the id that the last of a stretch does not exceed.
pub(crate) fn up_to(bound: Bound<ExecutionId>) -> i64 {
    match bound {
        Bound::Included(ExecutionId(id)) => id,
        Bound::Excluded(ExecutionId(id)) => id.saturating_sub(1),
        Bound::Unbounded => i64::MAX,
    }
}
