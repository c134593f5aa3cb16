//! What tools printed.

use std::collections::{BTreeMap, BTreeSet};

use noetl_core::id::ExecutionId;
use noetl_core::log::{ExecutionMeter, Kept, LogLine, LogStream};

use crate::{LogQuery, LogRow};

/// The lines of all executions, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Logs {
    lines: BTreeMap<u64, LogLine>,
    /// Lines that are here: their sources, and which of theirs.
    known: BTreeSet<(i64, i64)>,
    meters: BTreeMap<ExecutionId, ExecutionMeter>,
    latest: u64,
}

impl Logs {
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    pub(super) fn executions(&self) -> usize {
        self.meters.len()
    }

    /// Keeps a line, as far as there is room.
    pub(super) fn keep(&mut self, line: LogLine) {
        let key = (line.source, line.serial);
        if self.known.contains(&key) {
            return;
        }
        let (stream, text) = match self.meters.entry(line.execution_id).or_default().take(&line.line) {
            Kept::Line(text) => (line.stream, text),
            Kept::Mark(mark) => (LogStream::System, mark),
            Kept::Nothing => return,
        };
        self.latest += 1;
        self.known.insert(key);
        self.lines.insert(self.latest, LogLine { stream, line: text, ..line });
    }

    /// Returns lines, oldest first.
    pub(super) fn read(&self, query: &LogQuery) -> Vec<LogRow> {
        let matches = self.lines.range(query.after.saturating_add(1)..).filter(|(_, line)| {
            line.execution_id == query.execution_id && query.step.as_deref().is_none_or(|step| step == &*line.step)
        });
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
        let row = |(log_id, line): (&u64, &LogLine)| LogRow { log_id: *log_id, line: line.clone() };
        if query.newest {
            let mut rows: Vec<LogRow> = matches.rev().take(limit).map(row).collect();
            rows.reverse();
            return rows;
        }
        matches.take(limit).map(row).collect()
    }

    pub(super) fn remove(&mut self, execution_id: ExecutionId) {
        let known = &mut self.known;
        self.lines.retain(|_, line| {
            let stays = line.execution_id != execution_id;
            if !stays {
                known.remove(&(line.source, line.serial));
            }
            stays
        });
        self.meters.remove(&execution_id);
    }
}
