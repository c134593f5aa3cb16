//! The SQL functions that translated queries call, each under the prefix `pg_`.
//!
//! What SQLite has itself is used as it is; these are the rest. A function whose argument is NULL answers
//! NULL, unless it is registered as one that looks at NULL.

mod aggregates;
mod json;
mod numbers;
mod text;
mod times;

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Value as Sql, ValueRef};
use rusqlite::{Connection, Error};
use serde_json::Value as Json;

pub(super) use numbers::boolean;

/// Bytes that one function may return.
pub(super) const FUNCTION_RESULT_BYTES: usize = 16 << 20;
/// Elements that `generate_series` may count.
pub(super) const SERIES_ELEMENTS: usize = 100_000;

/// What a function answers: a value, or a sentence that says what is wrong with its arguments.
type Answer = Result<Sql, String>;

/// Gives a connection the functions that translated queries call.
///
/// To be called once per connection that [`super::run`] is to use.
///
/// # Errors
///
/// Fails only if SQLite refuses a registration, for example because a statement is running.
pub fn register_functions(connection: &Connection) -> rusqlite::Result<()> {
    json::register(connection)?;
    numbers::register(connection)?;
    text::register(connection)?;
    times::register(connection)?;
    aggregates::register(connection)
}

/// Registers a function that answers NULL as soon as one argument is NULL.
fn strict(conn: &Connection, name: &str, arity: i32, body: fn(&Args<'_, '_>) -> Answer) -> rusqlite::Result<()> {
    conn.create_scalar_function(name, arity, flags(), move |context| {
        let args = Args(context);
        if (0..args.len()).any(|index| args.is_null(index)) {
            return Ok(Sql::Null);
        }
        body(&args).map_err(failure)
    })
}

/// Registers a function that sees NULL arguments.
fn lenient(conn: &Connection, name: &str, arity: i32, body: fn(&Args<'_, '_>) -> Answer) -> rusqlite::Result<()> {
    conn.create_scalar_function(name, arity, flags(), move |context| body(&Args(context)).map_err(failure))
}

fn flags() -> FunctionFlags {
    FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY
}

fn failure(message: String) -> Error {
    Error::UserFunctionError(message.into())
}

/// The arguments of one call.
struct Args<'a, 'c>(&'a Context<'c>);

impl Args<'_, '_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn raw(&self, index: usize) -> ValueRef<'_> {
        self.0.get_raw(index)
    }

    fn is_null(&self, index: usize) -> bool {
        matches!(self.raw(index), ValueRef::Null)
    }

    fn text(&self, index: usize) -> Result<String, String> {
        value_text(self.raw(index))
    }

    fn int(&self, index: usize) -> Result<i64, String> {
        match self.raw(index) {
            ValueRef::Integer(value) => Ok(value),
            other => {
                let text = value_text(other)?;
                numbers::whole(&text).ok_or_else(|| format!("invalid input syntax for type bigint: {text:?}"))
            }
        }
    }

    fn real(&self, index: usize) -> Result<f64, String> {
        match self.raw(index) {
            ValueRef::Integer(value) => Ok(numbers::as_real(value)),
            ValueRef::Real(value) => Ok(value),
            other => {
                let text = value_text(other)?;
                text.trim().parse().map_err(|_| format!("invalid input syntax for type double precision: {text:?}"))
            }
        }
    }

    fn json(&self, index: usize) -> Result<Json, String> {
        parse_json(self.raw(index))
    }
}

/// Reads a value that stands for a JSON document.
///
/// A column declared `JSON` has SQLite's numeric affinity, so a document that is a bare number arrives as one.
pub(super) fn parse_json(value: ValueRef<'_>) -> Result<Json, String> {
    match value {
        ValueRef::Null => Ok(Json::Null),
        ValueRef::Integer(number) => Ok(Json::from(number)),
        ValueRef::Real(number) => Ok(Json::from(number)),
        ValueRef::Text(bytes) => serde_json::from_slice(bytes).map_err(|_| {
            let text: String = String::from_utf8_lossy(bytes).chars().take(60).collect();
            format!("invalid input syntax for type json: {text:?}")
        }),
        ValueRef::Blob(_) => Err("bytes are not a json document".to_owned()),
    }
}

fn value_text(value: ValueRef<'_>) -> Result<String, String> {
    match value {
        ValueRef::Null => Ok(String::new()),
        ValueRef::Integer(number) => Ok(number.to_string()),
        ValueRef::Real(number) => Ok(numbers::real_text(number)),
        ValueRef::Text(bytes) => Ok(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Blob(_) => Err("bytes can not be used as text here".to_owned()),
    }
}

fn text(value: impl Into<String>) -> Answer {
    let value = value.into();
    if value.len() > FUNCTION_RESULT_BYTES {
        return Err(format!("a function's result is longer than {FUNCTION_RESULT_BYTES} bytes"));
    }
    Ok(Sql::Text(value))
}

fn optional_text(value: Option<String>) -> Answer {
    value.map_or(Ok(Sql::Null), text)
}

fn flag(value: bool) -> Answer {
    Ok(Sql::Integer(i64::from(value)))
}

/// Copies a value out of a call.
fn owned(value: ValueRef<'_>) -> Sql {
    match value {
        ValueRef::Null => Sql::Null,
        ValueRef::Integer(number) => Sql::Integer(number),
        ValueRef::Real(number) => Sql::Real(number),
        ValueRef::Text(bytes) => Sql::Text(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Blob(bytes) => Sql::Blob(bytes.to_vec()),
    }
}

/// Returns a JSON element as the SQL value that stands for it.
fn element(value: &Json) -> Answer {
    Ok(match value {
        Json::Null => Sql::Null,
        Json::Bool(value) => Sql::Integer(i64::from(*value)),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => Sql::Integer(whole),
            None => Sql::Real(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(value) => Sql::Text(value.clone()),
        Json::Array(_) | Json::Object(_) => Sql::Text(value.to_string()),
    })
}
