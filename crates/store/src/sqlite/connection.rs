//! Connections: `main` is empty and in memory, the file is attached as `noetl`.
//!
//! So `noetl.event` is the same text here and in PostgreSQL. PRAGMAs name the schema, because without it they speak of
//! `main` and miss the file.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::SqliteOptions;
use crate::StoreError;

/// How long a statement waits for another process that holds the file.
const BUSY_MS: u64 = 5_000;
/// Prepared statements kept per connection.
const STATEMENTS_KEPT: usize = 128;
/// Page cache of the writer, in KiB.
const WRITER_CACHE_KIB: i64 = 64 * 1024;
/// Page cache of each reader, in KiB.
const READER_CACHE_KIB: i64 = 4 * 1024;
/// What is kept of the log file after a burst, in bytes.
const LOG_KEPT_BYTES: i64 = 64 * 1024 * 1024;

/// Opens the file for the one writer; makes it when it is not there.
pub(super) fn writer(options: &SqliteOptions) -> Result<Connection, StoreError> {
    private(&options.path)?;
    let connection = attach(&options.path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
    let mode: String = connection.query_row("PRAGMA noetl.journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(StoreError::Closed(format!("its journal stays in mode `{mode}`; is it on a network file system?")));
    }
    // FULL: an acknowledged commit survives a power cut. NORMAL would lose the last ones.
    connection.pragma_update(Some("noetl"), "synchronous", "FULL")?;
    connection.pragma_update(Some("noetl"), "cache_size", -WRITER_CACHE_KIB)?;
    connection.pragma_update(Some("noetl"), "journal_size_limit", LOG_KEPT_BYTES)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    if let Some(bytes) = options.max_bytes {
        let page: i64 = connection.query_row("PRAGMA noetl.page_size", [], |row| row.get(0))?;
        let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page;
        connection.pragma_update(Some("noetl"), "max_page_count", pages.max(1))?;
    }
    Ok(connection)
}

/// Makes the file, if it is not there, with rights for its owner only: it holds what people's playbooks say and get. The
/// files beside it take their rights from it.
pub(super) fn private(path: &Path) -> Result<(), StoreError> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(StoreError::Closed(format!("{}: {error}", path.display()))),
    }
}

/// Opens the file for whoever moves the log into it.
pub(super) fn beside_the_writer(path: &Path) -> Result<Connection, StoreError> {
    let connection = attach(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // What has left the log must be in the file, whatever happens.
    connection.pragma_update(Some("noetl"), "synchronous", "FULL")?;
    Ok(connection)
}

/// Opens the file for reading; it must be there.
pub(super) fn reader(path: &Path) -> Result<Connection, StoreError> {
    // Opened for writing all the same: a reader keeps its place in the log's shared index.
    let connection = attach(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.pragma_update(Some("noetl"), "cache_size", -READER_CACHE_KIB)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn attach(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    let file = std::path::absolute(path).map_err(|error| StoreError::Closed(format!("{}: {error}", path.display())))?;
    let file = file.to_str().ok_or_else(|| StoreError::Closed(format!("{} is not UTF-8", path.display())))?;
    let connection = Connection::open_in_memory_with_flags(flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    // A plan never depends on the values that are bound. Else SQLite takes a look at them for some statements, which
    // means that it parses and plans these anew for every single execution.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.busy_timeout(Duration::from_millis(BUSY_MS))?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.execute("ATTACH DATABASE ?1 AS noetl", [file]).map_err(|error| match StoreError::from(error) {
        StoreError::Closed(why) => StoreError::Closed(format!("{file}: {why}")),
        other => other,
    })?;
    Ok(connection)
}
