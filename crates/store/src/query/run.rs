//! Running a query: the wall around it, its limits, and its rows as JSON.

use std::ops::Deref;
use std::time::{Duration, Instant};

use noetl_core::time::Timestamp;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode};
use serde_json::Value as Json;

use super::error::{QueryError, Result};
use super::functions;
use super::interval::Interval;
use super::schema::{QUERYABLE, SCHEMA, Schema, is_encrypted};
use super::translate::{Translated, translate};
use super::types::Type;

/// SQLite instructions between two looks at the clock.
const CLOCK_INSTRUCTIONS: i32 = 1_000;
/// Bytes of one value inside a query.
const VALUE_BYTES: i32 = 64 << 20;

/// The SQLite functions that translations call, besides our own.
const NATIVE_FUNCTIONS: &[&str] = &[
    "abs",
    "avg",
    "char",
    "coalesce",
    "concat",
    "concat_ws",
    "count",
    "cume_dist",
    "dense_rank",
    "first_value",
    "group_concat",
    "ifnull",
    "instr",
    "json_quote",
    "lag",
    "last_value",
    "lead",
    "length",
    "ltrim",
    "max",
    "min",
    "nth_value",
    "ntile",
    "nullif",
    "percent_rank",
    "random",
    "rank",
    "replace",
    "row_number",
    "rtrim",
    "sign",
    "sqlite_version",
    "substr",
    "sum",
    "trim",
    "unicode",
];

/// What a query may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryLimits {
    /// Time for the whole query.
    pub timeout: Duration,
    /// Rows in the answer; more are cut off.
    pub max_rows: usize,
    /// Bytes in the answer, about; more are cut off.
    pub max_bytes: usize,
}

impl Default for QueryLimits {
    fn default() -> Self {
        QueryLimits { timeout: Duration::from_secs(10), max_rows: 10_000, max_bytes: 16 << 20 }
    }
}

/// The answer to a query.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryRows {
    /// Names as PostgreSQL gives them; two columns may have one name.
    pub columns: Vec<String>,
    /// Rows in order; ids are exact numbers, documents are JSON, times are ISO-8601 text in UTC.
    pub rows: Vec<Vec<Json>>,
    /// Whether rows were cut off at a limit.
    pub truncated: bool,
}

/// Runs one PostgreSQL query on a connection that has the store attached as `noetl`.
///
/// The connection needs [`super::register_functions`] once before. While the query runs, the connection can
/// read the tables of the store and nothing else; `now` is what the query takes for the current time.
/// Statements that are cached on the connection are prepared again afterwards, so let it be one for queries.
///
/// # Errors
///
/// Refuses what [`translate`] refuses; fails when the time is over or the data does not fit the query.
pub fn run(connection: &mut Connection, sql: &str, now: Timestamp, limits: &QueryLimits) -> Result<QueryRows> {
    let deadline = Instant::now() + limits.timeout;
    let translated = translate(sql, &Schema::read(connection)?)?;
    let guarded = Guarded::new(connection, deadline)?;
    collect(&guarded, &translated, now, limits).map_err(|error| match error {
        QueryError::Store(error) => explain_failure(error, limits.timeout),
        other => other,
    })
}

fn collect(connection: &Connection, query: &Translated, now: Timestamp, limits: &QueryLimits) -> Result<QueryRows> {
    let mut statement = connection.prepare(&query.sql)?;
    if statement.parameter_count() > 0 {
        statement.raw_bind_parameter(1, now.to_iso())?;
    }
    let mut answer = QueryRows {
        columns: query.columns.iter().map(|column| column.name.clone()).collect(),
        rows: Vec::new(),
        truncated: false,
    };
    let mut bytes = 0;
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        let mut values = Vec::with_capacity(query.columns.len());
        for (index, column) in query.columns.iter().enumerate() {
            // Of a plan, the fourth column is the one for people.
            let value = row.get_ref(if query.explain { 3 } else { index })?;
            bytes += size(value);
            values.push(to_json(value, &column.ty));
        }
        if answer.rows.len() == limits.max_rows || bytes > limits.max_bytes {
            answer.truncated = true;
            break;
        }
        answer.rows.push(values);
    }
    Ok(answer)
}

/// A connection behind the wall, until it is dropped.
struct Guarded<'c> {
    connection: &'c mut Connection,
    value_bytes: i32,
}

impl<'c> Guarded<'c> {
    fn new(connection: &'c mut Connection, deadline: Instant) -> rusqlite::Result<Self> {
        let value_bytes = connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES)?;
        let guarded = Guarded { connection, value_bytes };
        guarded.connection.authorizer(Some(|context: AuthContext<'_>| authorize(&context)))?;
        guarded.connection.progress_handler(CLOCK_INSTRUCTIONS, Some(move || Instant::now() >= deadline))?;
        Ok(guarded)
    }
}

impl Deref for Guarded<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

impl Drop for Guarded<'_> {
    fn drop(&mut self) {
        // None of the three can fail on an open connection, and there is nobody to tell.
        self.connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>).ok();
        self.connection.progress_handler(0, None::<fn() -> bool>).ok();
        self.connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, self.value_bytes).ok();
    }
}

/// Allows reading the tables of the store, and calling the functions that translations call.
///
/// The translation names nothing else; this is the second wall, for the day that it has a hole.
fn authorize(context: &AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Select | AuthAction::Recursive => Authorization::Allow,
        AuthAction::Function { function_name } => {
            // The view's own text may look into documents; a query may not, for `->>` means something else to it.
            let in_view = function_name == "->>" && context.accessor.is_some_and(|view| QUERYABLE.contains(&view));
            if in_view || function_name.starts_with("pg_") || NATIVE_FUNCTIONS.contains(&function_name) {
                Authorization::Allow
            } else {
                Authorization::Deny
            }
        }
        AuthAction::Read { table_name, column_name } => match context.database_name {
            Some(SCHEMA) if is_encrypted(table_name, column_name) => Authorization::Ignore,
            Some(SCHEMA) if QUERYABLE.contains(&table_name) => Authorization::Allow,
            Some(SCHEMA) => Authorization::Deny,
            _ if table_name == "json_each" => Authorization::Allow,
            // Subqueries and WITH queries are read without a database; a table of another database is not ours.
            None => Authorization::Allow,
            Some(_) => Authorization::Deny,
        },
        _ => Authorization::Deny,
    }
}

/// Returns a value as the JSON that its type stands for.
fn to_json(value: ValueRef<'_>, ty: &Type) -> Json {
    match (value, ty) {
        (ValueRef::Null, _) => Json::Null,
        (ValueRef::Integer(number), Type::Bool) => Json::Bool(number != 0),
        (ValueRef::Text(_), Type::Json | Type::Array(_)) => {
            let mut document = functions::parse_json(value).unwrap_or_else(|_| text(value));
            if let (Json::Array(elements), Type::Array(element)) = (&mut document, ty) {
                for value in elements.iter_mut().filter(|_| **element == Type::Interval) {
                    *value = value.as_str().map_or(Json::Null, |text| Json::String(interval_text(text)));
                }
            }
            document
        }
        (ValueRef::Text(_), Type::Interval) => match text(value) {
            Json::String(encoded) => Json::String(interval_text(&encoded)),
            other => other,
        },
        (ValueRef::Integer(number), _) => Json::from(number),
        (ValueRef::Real(number), _) => {
            // What JSON has no number for, PostgreSQL prints as a word.
            serde_json::Number::from_f64(number).map_or_else(|| Json::String(number.to_string()), Json::Number)
        }
        (ValueRef::Text(_), _) => text(value),
        (ValueRef::Blob(bytes), _) => {
            // As PostgreSQL prints `bytea`.
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            Json::String(format!("\\x{hex}"))
        }
    }
}

fn text(value: ValueRef<'_>) -> Json {
    match value {
        ValueRef::Text(bytes) => Json::String(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Blob(_) => Json::Null,
    }
}

fn interval_text(encoded: &str) -> String {
    Interval::decode(encoded).map_or_else(|| encoded.to_owned(), Interval::to_text)
}

fn size(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => 8,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
    }
}

/// Says what stopped a query: the clock, a function of ours, or the store.
fn explain_failure(error: rusqlite::Error, timeout: Duration) -> QueryError {
    match &error {
        rusqlite::Error::SqliteFailure(failure, message) => match (failure.code, message) {
            (ErrorCode::OperationInterrupted, _) => QueryError::TimedOut(timeout),
            (ErrorCode::TooBig, _) => QueryError::TooLarge(format!("large: a value of more than {VALUE_BYTES} bytes")),
            (ErrorCode::Unknown, Some(message)) => QueryError::Failed(message.clone()),
            _ => QueryError::Store(error),
        },
        _ => QueryError::Store(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "ATTACH ':memory:' AS noetl;
                 CREATE TABLE noetl.credential (name TEXT, data_encrypted TEXT);
                 CREATE INDEX noetl.credential_name ON credential (name);
                 CREATE TABLE noetl.migration (version INTEGER);
                 CREATE TABLE main.event (secret TEXT);
                 CREATE TEMP TABLE result (secret TEXT);
                 INSERT INTO noetl.credential VALUES ('a', 'c2VjcmV0');",
            )
            .unwrap();
        functions::register_functions(&connection).unwrap();
        connection
    }

    #[test]
    fn the_second_wall_stops_what_the_translation_never_writes() {
        let mut connection = store();
        let guarded = Guarded::new(&mut connection, Instant::now() + Duration::from_secs(60)).unwrap();
        for sql in [
            "INSERT INTO noetl.credential VALUES ('b', 'b')",
            "UPDATE noetl.credential SET name = 'b'",
            "DELETE FROM noetl.credential",
            "DROP TABLE noetl.credential",
            "CREATE TABLE noetl.x (a)",
            "CREATE TEMP TABLE x (a)",
            "CREATE TEMP VIEW x AS SELECT 1",
            "ATTACH '/tmp/noetl-never' AS other",
            "DETACH noetl",
            "PRAGMA noetl.journal_mode = DELETE",
            "PRAGMA table_info(credential)",
            "VACUUM noetl",
            "BEGIN",
            "SAVEPOINT a",
            "ANALYZE noetl",
            "REINDEX",
            "SELECT * FROM noetl.migration",
            "SELECT * FROM noetl.sqlite_schema",
            "SELECT * FROM main.event",
            "SELECT * FROM temp.result",
            "SELECT * FROM pragma_table_info('credential')",
            "SELECT * FROM dbstat",
            "SELECT load_extension('x')",
            "SELECT randomblob(1000000000)",
            "SELECT fts3_tokenizer('x')",
        ] {
            assert!(guarded.execute_batch(sql).is_err(), "{sql}");
        }
        let read = "SELECT name, data_encrypted FROM noetl.credential WHERE data_encrypted IS NULL";
        let row: (String, Option<String>) = guarded.query_row(read, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!(row, ("a".to_owned(), None));
    }
}
