//! The shape of the tables, one numbered step after the other, forwards only.
//!
//! A step that was released is never edited: its text is remembered by checksum. A file that a newer program wrote is
//! refused before anything touches it; before a step changes a file with data in it, a copy is put beside it.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

use super::{connection, upkeep};
use crate::{Clock, StoreError};

struct Step {
    version: i64,
    name: &'static str,
    sql: &'static str,
}

const STEPS: &[Step] = &[Step { version: 1, name: "tables", sql: include_str!("schema/0001_tables.sql") }];

/// Newest shape that this program knows.
pub const SCHEMA_LATEST: i64 = 1;
const _: () = assert!(STEPS.len() as i64 == SCHEMA_LATEST);

/// Marks the file as ours: `noet`.
const APPLICATION_ID: i64 = 0x6e6f_6574;

/// Refuses a file that is not ours to change, without touching it; returns its version, 0 for none.
pub(super) fn inspect(path: &Path) -> Result<i64, StoreError> {
    match std::fs::metadata(path) {
        Ok(file) if file.len() > 0 => {}
        Ok(_) => return Ok(0),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(StoreError::Closed(format!("{}: {error}", path.display()))),
    }
    let connection = connection::reader(path)?;
    let version = version(&connection)?;
    let application: i64 = connection.query_row("PRAGMA noetl.application_id", [], |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM noetl.sqlite_schema", [], |row| row.get(0))?;
    if tables > 0 && application != APPLICATION_ID {
        return Err(StoreError::Closed(format!("{} is a database of another program", path.display())));
    }
    if version > SCHEMA_LATEST {
        return Err(StoreError::Closed(format!(
            "{} was written by a newer noetl (schema {version}, this one knows {SCHEMA_LATEST}); use that one",
            path.display()
        )));
    }
    Ok(version)
}

/// Brings the file to the newest shape.
pub(super) fn migrate(connection: &Connection, path: &Path, clock: &Clock) -> Result<(), StoreError> {
    walk(STEPS, connection, path, clock)
}

fn walk(steps: &[Step], connection: &Connection, path: &Path, clock: &Clock) -> Result<(), StoreError> {
    let from = version(connection)?;
    verify(steps, connection, from)?;
    let mut missing = steps.iter().filter(|step| step.version > from).peekable();
    if from > 0 && missing.peek().is_some() {
        let copy = copy_path(path, from);
        tracing::info!(from, copy = %copy.display(), "copying the database before its shape changes");
        upkeep::copy_to(connection, &copy)?;
    }
    for step in missing {
        connection.execute_batch("BEGIN EXCLUSIVE")?;
        let applied = apply(connection, step, clock);
        match &applied {
            Ok(()) => connection.execute_batch("COMMIT")?,
            Err(_) => connection.execute_batch("ROLLBACK")?,
        }
        applied?;
    }
    Ok(())
}

fn apply(connection: &Connection, step: &Step, clock: &Clock) -> Result<(), StoreError> {
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS noetl.schema_version (
            version    INTEGER PRIMARY KEY,
            name       TEXT NOT NULL,
            checksum   TEXT NOT NULL,
            applied_at TEXT NOT NULL
        ) STRICT",
    )?;
    connection.execute_batch(step.sql)?;
    connection.pragma_update(Some("noetl"), "application_id", APPLICATION_ID)?;
    connection.execute(
        "INSERT INTO noetl.schema_version (version, name, checksum, applied_at) VALUES (?1, ?2, ?3, ?4)",
        params![step.version, step.name, checksum(step.sql), clock().to_iso()],
    )?;
    Ok(())
}

/// Checks that the steps the file went through are the ones this program has.
fn verify(steps: &[Step], connection: &Connection, from: i64) -> Result<(), StoreError> {
    for step in steps.iter().filter(|step| step.version <= from) {
        let query = "SELECT checksum FROM noetl.schema_version WHERE version = ?1";
        let kept: Option<String> = connection.query_row(query, [step.version], |row| row.get(0)).optional()?;
        if kept != Some(checksum(step.sql)) {
            return Err(StoreError::Closed(format!(
                "step {} (`{}`) of its schema is not the one this program knows",
                step.version, step.name
            )));
        }
    }
    Ok(())
}

/// Returns the newest step that the file went through; 0 for an empty file.
pub(super) fn version(connection: &Connection) -> Result<i64, StoreError> {
    let table = "SELECT 1 FROM noetl.sqlite_schema WHERE name = 'schema_version'";
    let known: Option<i64> = connection.query_row(table, [], |row| row.get(0)).optional()?;
    if known.is_none() {
        return Ok(0);
    }
    let newest = "SELECT coalesce(max(version), 0) FROM noetl.schema_version";
    Ok(connection.query_row(newest, [], |row| row.get(0))?)
}

/// Returns a free name beside `path`: an earlier attempt's copy stays, it may be the only good one.
fn copy_path(path: &Path, from: i64) -> PathBuf {
    let named = |suffix: String| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let mut copy = named(format!(".before-schema-{}", from + 1));
    let mut attempt = 1;
    while copy.exists() {
        attempt += 1;
        copy = named(format!(".before-schema-{}.{attempt}", from + 1));
    }
    copy
}

fn checksum(sql: &str) -> String {
    Sha256::digest(sql.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use noetl_core::time::Timestamp;

    use super::*;
    use crate::sqlite::SqliteOptions;

    const ONE: Step = Step { version: 1, name: "one", sql: "CREATE TABLE noetl.thing (name TEXT) STRICT" };
    const TWO: Step = Step { version: 2, name: "two", sql: "ALTER TABLE noetl.thing ADD COLUMN size INTEGER" };
    const BROKEN: Step = Step {
        version: 2,
        name: "broken",
        sql: "ALTER TABLE noetl.thing ADD COLUMN half INTEGER; INSERT INTO noetl.nowhere VALUES (1)",
    };

    struct File {
        folder: tempfile::TempDir,
        clock: Clock,
    }

    impl File {
        fn new() -> Self {
            File { folder: tempfile::tempdir().unwrap(), clock: Arc::new(|| Timestamp(0)) }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("noetl.db")
        }

        fn walk(&self, steps: &[Step]) -> Result<Connection, StoreError> {
            let connection = connection::writer(&SqliteOptions::new(self.path()))?;
            walk(steps, &connection, &self.path(), &self.clock)?;
            Ok(connection)
        }

        fn columns(connection: &Connection) -> Vec<String> {
            let mut statement = connection.prepare("SELECT name FROM pragma_table_info('thing', 'noetl')").unwrap();
            statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        }

        fn copies(&self) -> Vec<PathBuf> {
            let files = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path());
            let mut copies: Vec<_> = files.filter(|path| path.to_string_lossy().contains("before-schema")).collect();
            copies.sort();
            copies
        }
    }

    #[test]
    fn a_new_file_walks_every_step_and_is_not_copied() {
        let file = File::new();
        let connection = file.walk(&[ONE, TWO]).unwrap();
        assert_eq!(
            (version(&connection).unwrap(), File::columns(&connection)),
            (2, vec!["name".into(), "size".into()])
        );
        assert!(file.copies().is_empty());
        drop(connection);
        let connection = file.walk(&[ONE, TWO]).unwrap();
        assert_eq!(version(&connection).unwrap(), 2);
    }

    #[test]
    fn a_file_with_data_is_copied_before_its_shape_changes() {
        let file = File::new();
        file.walk(&[ONE]).unwrap().execute("INSERT INTO noetl.thing VALUES ('kept')", []).unwrap();
        let connection = file.walk(&[ONE, TWO]).unwrap();
        let kept: String = connection.query_row("SELECT name FROM noetl.thing", [], |row| row.get(0)).unwrap();
        assert_eq!((version(&connection).unwrap(), kept.as_str()), (2, "kept"));
        let copies = file.copies();
        assert_eq!(copies.len(), 1);
        let copy = connection::reader(&copies[0]).unwrap();
        assert_eq!((version(&copy).unwrap(), File::columns(&copy)), (1, vec!["name".into()]));
    }

    #[test]
    fn a_step_that_fails_leaves_the_file_as_it_was() {
        let file = File::new();
        file.walk(&[ONE]).unwrap().execute("INSERT INTO noetl.thing VALUES ('kept')", []).unwrap();
        assert!(file.walk(&[ONE, BROKEN]).is_err());
        let connection = connection::reader(&file.path()).unwrap();
        assert_eq!((version(&connection).unwrap(), File::columns(&connection)), (1, vec!["name".into()]));
        drop(connection);
        // The corrected program tries again; the copy of the first attempt stays.
        assert_eq!(version(&file.walk(&[ONE, TWO]).unwrap()).unwrap(), 2);
        assert_eq!(file.copies().len(), 2);
    }

    #[test]
    fn a_step_that_was_edited_after_its_release_is_noticed() {
        let file = File::new();
        file.walk(&[ONE]).unwrap();
        let edited = Step { sql: "CREATE TABLE noetl.thing (name TEXT, more TEXT) STRICT", ..ONE };
        let Err(StoreError::Closed(why)) = file.walk(&[edited, TWO]) else { panic!() };
        assert!(why.contains("step 1 (`one`)"), "{why}");
        assert!(file.copies().is_empty());
    }
}
