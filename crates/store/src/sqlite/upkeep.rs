//! Keeping the file in order: checks, sizes, copies, removal of what is old.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use noetl_core::id::ExecutionId;
use noetl_core::time::Timestamp;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, params};

use super::connection;
use super::tables::{Tables, one};
use crate::{StoreError, TableSize};

/// Most findings that a check lists.
const FINDINGS_MAX: usize = 100;
/// Most families looked up at once for removal.
const PRUNE_PAGE: usize = 1_000;
/// Longest step of a removal; others wait for it.
const PRUNE_TIME_MAX: Duration = Duration::from_millis(5);

/// Tables whose rows belong to an execution.
const OF_EXECUTION: [&str; 8] = ["event", "command", "due", "snapshot", "result", "keychain", "log", "log_size"];

/// Checks the bytes, then what the tables say about each other; returns what is wrong.
pub(super) fn validate(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let mut wrong = Vec::new();
    let mut check = connection.prepare(&format!("PRAGMA noetl.quick_check({FINDINGS_MAX})"))?;
    for finding in check.query_map([], |row| row.get::<_, String>(0))? {
        let finding = finding?;
        if finding != "ok" {
            wrong.push(finding);
        }
    }
    if !wrong.is_empty() {
        // Rows read from damaged pages would only add noise.
        return Ok(wrong);
    }
    for query in CHECKS {
        let mut statement = connection.prepare(&format!("{query} LIMIT {FINDINGS_MAX}"))?;
        let findings = statement.query_map([], |row| row.get::<_, String>(0))?;
        for finding in findings {
            wrong.push(finding?);
        }
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
     AND (e.event_type = 'playbook.completed' OR e.event_type = 'playbook.failed' \
     OR e.event_type = 'execution.cancelled') \
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

/// Counts rows and pages per table, indexes included.
pub(super) fn size(connection: &Connection) -> Result<Vec<TableSize>, StoreError> {
    let mut statement =
        connection.prepare("SELECT name FROM noetl.sqlite_schema WHERE type = 'table' ORDER BY name")?;
    let names = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    let mut sizes = Vec::new();
    for table in names.into_iter().filter(|name| !name.starts_with("sqlite_")) {
        let rows =
            connection.query_row(&format!("SELECT count(*) FROM noetl.{table}"), [], |row| row.get::<_, i64>(0))?;
        let bytes = connection.query_row(
            "SELECT sum(d.pgsize) FROM dbstat('noetl', 1) d JOIN noetl.sqlite_schema s ON s.name = d.name \
             WHERE s.tbl_name = ?1",
            [&table],
            |row| row.get::<_, Option<i64>>(0),
        )?;
        sizes.push(TableSize {
            table,
            rows: u64::try_from(rows).unwrap_or(0),
            bytes: bytes.and_then(|bytes| u64::try_from(bytes).ok()),
        });
    }
    Ok(sizes)
}

/// Writes a consistent copy of the file; the store goes on meanwhile.
pub(super) fn copy_to(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    if path.exists() {
        return Err(StoreError::Closed(format!("{} exists already; name a new file", path.display())));
    }
    // Half a copy must never look like a whole one.
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let copied = copy_pages(connection, &partial).and_then(|()| settle(&partial, path));
    if copied.is_err() {
        std::fs::remove_file(&partial).ok();
    }
    copied
}

fn copy_pages(connection: &Connection, partial: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(partial) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(StoreError::Unavailable(format!("{}: {error}", partial.display()))),
    }
    connection::private(partial)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut copy = Connection::open_with_flags(partial, flags)?;
    // All pages in one step: they are read as of one moment, and no write makes it begin again.
    let step = Backup::new_with_names(connection, "noetl", &mut copy, "main")?.step(-1)?;
    match step {
        StepResult::Done => {}
        other => return Err(StoreError::Unavailable(format!("the copy stopped: {other:?}"))),
    }
    copy.close().map_err(|(_, error)| StoreError::from(error))
}

fn settle(partial: &Path, path: &Path) -> Result<(), StoreError> {
    let settled = std::fs::File::open(partial)
        .and_then(|file| file.sync_all())
        .and_then(|()| std::fs::rename(partial, path))
        .and_then(|()| match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            Some(folder) => std::fs::File::open(folder)?.sync_all(),
            None => Ok(()),
        });
    settled.map_err(|error| StoreError::Unavailable(format!("{}: {error}", path.display())))
}

/// Tops of families that may go: every member has ended and come to rest before `?1`, and so has its cleanup, which
/// reads what it left behind.
const PRUNABLE: &str = "FROM noetl.execution r WHERE r.parent_execution_id IS NULL AND r.status <> 'RUNNING' \
     AND r.in_flight = 0 AND max(r.ended_at, coalesce(r.quiesced_at, r.ended_at)) < ?1 \
     AND NOT EXISTS (SELECT 1 FROM noetl.execution c WHERE c.execution_id = CAST(r.cancel ->> '$.cleanup' AS INTEGER) \
         AND (c.status = 'RUNNING' OR c.in_flight > 0)) \
     AND NOT EXISTS (SELECT 1 FROM noetl.execution m LEFT JOIN noetl.execution c \
         ON c.execution_id = CAST(m.cancel ->> '$.cleanup' AS INTEGER) WHERE m.root_execution_id = r.execution_id \
         AND m.parent_execution_id IS NOT NULL AND (m.status = 'RUNNING' OR m.in_flight > 0 \
         OR c.status = 'RUNNING' OR c.in_flight > 0 \
         OR max(m.ended_at, coalesce(m.quiesced_at, m.ended_at)) >= ?1))";

/// Counts the executions that pruning would remove.
pub(super) fn prunable(connection: &Connection, before: Timestamp) -> Result<u64, StoreError> {
    let query = format!(
        "SELECT coalesce(sum(1 + (SELECT count(*) FROM noetl.execution m WHERE m.root_execution_id = r.execution_id \
         AND m.parent_execution_id IS NOT NULL)), 0) {PRUNABLE}"
    );
    let count: i64 = connection.query_row(&query, [before.to_iso()], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Finds tops of families that may go, after `last`: a look beside the writer, which checks each again.
pub(super) fn prunable_roots(
    connection: &Connection,
    before: Timestamp,
    last: ExecutionId,
) -> Result<Vec<ExecutionId>, StoreError> {
    let query =
        format!("SELECT r.execution_id {PRUNABLE} AND r.execution_id > ?2 ORDER BY r.execution_id LIMIT {PRUNE_PAGE}");
    let mut statement = connection.prepare(&query)?;
    let found = statement.query_map(params![before.to_iso(), last.0], |row| row.get(0))?;
    found.map(|id| Ok(ExecutionId(id?))).collect()
}

impl Tables {
    /// Removes families from the front of `roots`, for a moment; returns how many executions it removed and how many
    /// families are through.
    pub(super) fn prune_some(&mut self, roots: &[ExecutionId], before: Timestamp) -> Result<(u64, usize), StoreError> {
        let began = Instant::now();
        let mut removed = 0;
        for (through, root) in roots.iter().enumerate() {
            for member in self.prunable_members(*root, before)? {
                if removed > 0 && began.elapsed() > PRUNE_TIME_MAX {
                    return Ok((removed, through));
                }
                self.remove_execution(member)?;
                removed += 1;
            }
        }
        Ok((removed, roots.len()))
    }

    /// Returns the members of a family that may go, the deepest first: a family broken off keeps its top, and is found
    /// again. None is born meanwhile, since all have ended.
    fn prunable_members(&self, root: ExecutionId, before: Timestamp) -> Result<Vec<i64>, StoreError> {
        let query = format!("SELECT 1 {PRUNABLE} AND r.execution_id = ?2");
        if one::<i64>(&self.connection, &query, params![before.to_iso(), root.0])?.is_none() {
            return Ok(Vec::new());
        }
        let mut statement = self.connection.prepare_cached(
            "SELECT execution_id, depth FROM noetl.execution WHERE root_execution_id = ?1 \
             AND parent_execution_id IS NOT NULL UNION ALL SELECT ?1, 0 ORDER BY depth DESC, execution_id DESC",
        )?;
        Ok(statement.query_map([root.0], |row| row.get(0))?.collect::<Result<_, _>>()?)
    }

    fn remove_execution(&mut self, id: i64) -> Result<(), StoreError> {
        for table in OF_EXECUTION {
            let delete = format!("DELETE FROM noetl.{table} WHERE execution_id = ?1");
            self.connection.prepare_cached(&delete)?.execute([id])?;
        }
        let done = "DELETE FROM noetl.cancellation WHERE requested_execution_id = ?1 AND done_at IS NOT NULL";
        self.connection.prepare_cached(done)?.execute([id])?;
        self.connection.prepare_cached("DELETE FROM noetl.execution WHERE execution_id = ?1")?.execute([id])?;
        self.heads.forget(ExecutionId(id));
        Ok(())
    }

    /// Removes kept answers and finished jobs that are as old.
    pub(super) fn prune_answers(&mut self, before: Timestamp) -> Result<(), StoreError> {
        let jobs = "DELETE FROM noetl.cancellation WHERE requested_execution_id IS NULL AND done_at < ?1";
        self.connection.execute(jobs, [before.to_iso()])?;
        self.connection.execute("DELETE FROM noetl.idempotency WHERE created_at < ?1", [before.to_iso()])?;
        Ok(())
    }
}
