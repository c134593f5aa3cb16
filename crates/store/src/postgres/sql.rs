//! People's SQL: one statement that reads, in a transaction that cannot write, as a role that may not, within limits.

use deadpool_postgres::{Client, Object};
use futures_util::StreamExt;
use serde_json::{Number, Value};
use tokio_postgres::error::{ErrorPosition, SqlState};
use tokio_postgres::types::{Kind, Type};
use tokio_postgres::{Error, SimpleQueryMessage, SimpleQueryRow};

use super::Inner;
use super::migrate::READER;
use crate::{SqlLimits, SqlRows, StoreError};

/// What a statement may begin with.
const READING: [&str; 6] = ["select", "with", "values", "table", "explain", "show"];
/// What no statement may name: ways to change what the session may do, and to run text as SQL.
const WAYS_OUT: [&str; 6] = ["set_config", "pg_settings", "_to_xml", "dblink", "u&\"", "lo_"];
/// What no statement may name besides, where there is no role that may not read it.
const WITHOUT_ROLE: [&str; 3] = ["credential", "keychain", "pg_"];
/// Tables with columns that nobody may read.
const GUARDED: [&str; 2] = ["credential", "keychain"];
/// Most bytes in an answer, about; more are cut off.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Returns whether there is a role for it.
pub(super) async fn has_role(client: &Client) -> Result<bool, StoreError> {
    let query = "SELECT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = $1 AND pg_has_role(r.oid, 'MEMBER') \
                 AND has_schema_privilege(r.oid, 'noetl', 'USAGE'))";
    Ok(client.query_one(query, &[&READER]).await?.try_get(0)?)
}

/// Runs a query.
pub(super) async fn run(inner: &Inner, sql: &str, limits: SqlLimits) -> Result<SqlRows, StoreError> {
    allowed(sql, inner.reader)?;
    let client = inner.slow.get().await?;
    let role = if inner.reader { format!("; SET LOCAL ROLE {READER}") } else { String::new() };
    client
        .batch_execute(&format!(
            "BEGIN READ ONLY; SET LOCAL search_path = noetl, public; SET LOCAL statement_timeout = {}{role}",
            limits.ms.clamp(1, i32::MAX as u64)
        ))
        .await?;
    let answered = answer(&client, sql, limits).await;
    match &answered {
        Ok(rows) if !rows.truncated => client.batch_execute("ROLLBACK").await?,
        Ok(_) => {
            // Whatever is still on its way, nobody wants it. The request may hit the next statement of the session, so
            // there is none.
            let token = client.cancel_token();
            drop(Object::take(client));
            inner.address.break_off(token).await.ok();
        }
        Err(_) => drop(Object::take(client)),
    }
    answered
}

fn allowed(sql: &str, reader: bool) -> Result<(), StoreError> {
    let lower = sql.to_ascii_lowercase();
    let first: String = beginning(&lower).chars().take_while(char::is_ascii_alphabetic).collect();
    if !READING.contains(&first.as_str()) {
        return Err(StoreError::Query(format!(
            "only queries can be run here: a statement begins with {}, not with `{first}`",
            READING.map(str::to_uppercase).join(", ")
        )));
    }
    let more: &[&str] = if reader { &[] } else { &WITHOUT_ROLE };
    match WAYS_OUT.iter().chain(more).find(|word| lower.contains(**word)) {
        Some(word) => Err(StoreError::Query(format!("`{word}` can not be used in a query here"))),
        None => Ok(()),
    }
}

/// Returns what follows blanks, comments and brackets.
fn beginning(sql: &str) -> &str {
    let mut rest = sql;
    loop {
        rest = rest.trim_start_matches(|character: char| character.is_whitespace() || character == '(');
        rest = match (rest.strip_prefix("--"), rest.strip_prefix("/*")) {
            (Some(comment), _) => comment.split_once('\n').map_or("", |(_, rest)| rest),
            (None, Some(comment)) => comment.split_once("*/").map_or("", |(_, rest)| rest),
            (None, None) => return rest,
        };
    }
}

async fn answer(client: &Client, sql: &str, limits: SqlLimits) -> Result<SqlRows, StoreError> {
    // Prepared for its columns; and because only a single statement can be.
    let statement = client.prepare(sql).await.map_err(|error| said(&error, sql, limits))?;
    let types: Vec<Type> = statement.columns().iter().map(|column| column.type_().clone()).collect();
    let mut answer = SqlRows {
        columns: statement.columns().iter().map(|column| column.name().to_owned()).collect(),
        ..SqlRows::default()
    };
    let mut bytes = 0;
    let messages = client.simple_query_raw(sql).await.map_err(|error| said(&error, sql, limits))?;
    let mut messages = std::pin::pin!(messages);
    while let Some(message) = messages.next().await {
        let SimpleQueryMessage::Row(row) = message.map_err(|error| said(&error, sql, limits))? else { continue };
        bytes += (0..row.len()).filter_map(|column| row.get(column)).map(str::len).sum::<usize>();
        if answer.rows.len() >= limits.rows || bytes > ANSWER_BYTES_MAX {
            answer.truncated = true;
            break;
        }
        answer.rows.push(values(&row, &types));
    }
    Ok(answer)
}

fn values(row: &SimpleQueryRow, types: &[Type]) -> Vec<Value> {
    types.iter().enumerate().map(|(column, ty)| row.get(column).map_or(Value::Null, |text| json(text, ty))).collect()
}

/// Returns a value as the JSON that its type stands for.
fn json(text: &str, ty: &Type) -> Value {
    let plain = || Value::String(text.to_owned());
    match *ty {
        Type::BOOL => Value::Bool(text == "t"),
        Type::INT2 | Type::INT4 | Type::INT8 | Type::OID => text.parse::<i64>().map_or_else(|_| plain(), Value::from),
        Type::FLOAT4 | Type::FLOAT8 | Type::NUMERIC => number(text).unwrap_or_else(plain),
        Type::JSON | Type::JSONB => serde_json::from_str(text).unwrap_or_else(|_| plain()),
        Type::TIMESTAMPTZ | Type::TIMESTAMP => Value::String(iso(text)),
        _ => match ty.kind() {
            Kind::Array(element) => array(text, element).unwrap_or_else(plain),
            _ => plain(),
        },
    }
}

/// What JSON has no number for stays a word.
fn number(text: &str) -> Option<Value> {
    match text.parse::<i64>() {
        Ok(whole) => Some(Value::from(whole)),
        Err(_) => Number::from_f64(text.parse().ok()?).map(Value::Number),
    }
}

/// `2026-01-20 09:08:00.123+00` as `2026-01-20T09:08:00.123Z`.
fn iso(text: &str) -> String {
    let Some((date, time)) = text.split_once(' ') else { return text.to_owned() };
    let (time, zone) = match time.strip_suffix("+00") {
        Some(time) => (time, "Z"),
        None => (time, ""),
    };
    let (whole, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut fraction = fraction.to_owned();
    while fraction.len() < 3 {
        fraction.push('0');
    }
    format!("{date}T{whole}.{fraction}{zone}")
}

/// Reads `{a,"b c",NULL}`; `None` for what is nested.
fn array(text: &str, element: &Type) -> Option<Value> {
    let inner = text.strip_prefix('{')?.strip_suffix('}')?;
    let mut items = Vec::new();
    let mut characters = inner.chars().peekable();
    while characters.peek().is_some() {
        let (mut item, mut quoted) = (String::new(), false);
        loop {
            match characters.next() {
                None => break,
                Some(',') => break,
                Some('{') => return None,
                Some('"') => {
                    quoted = true;
                    loop {
                        match characters.next()? {
                            '"' => break,
                            '\\' => item.push(characters.next()?),
                            other => item.push(other),
                        }
                    }
                }
                Some(other) => item.push(other),
            }
        }
        items.push(if !quoted && item == "NULL" { Value::Null } else { json(&item, element) });
    }
    Some(Value::Array(items))
}

/// What the database says about a query, with the place.
fn said(error: &Error, sql: &str, limits: SqlLimits) -> StoreError {
    let Some(database) = error.as_db_error() else {
        return StoreError::Unavailable(super::error::connection(error));
    };
    if database.code().code() == "57014" {
        return StoreError::Query(format!("the query took longer than {} ms", limits.ms));
    }
    if database.code().code().starts_with("57P") {
        return StoreError::Unavailable(database.message().to_owned());
    }
    let mut text = database.message().to_owned();
    if let Some(ErrorPosition::Original(position)) = database.position() {
        let before: String = sql.chars().take(usize::try_from(*position).unwrap_or(1).saturating_sub(1)).collect();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
        text = format!("{text} (line {line}, column {column})");
    }
    if *database.code() == SqlState::INSUFFICIENT_PRIVILEGE && GUARDED.iter().any(|table| text.contains(table)) {
        text += "; what is encrypted can not be read, name the columns that you want instead of `*`";
    }
    if let Some(hint) = database.hint() {
        text = format!("{text}; {hint}");
    }
    StoreError::Query(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_reads_is_let_in() {
        for sql in ["SELECT 1", " -- a\n/* b */ (select 1)", "WITH x AS (SELECT 1) TABLE x", "EXPLAIN SELECT 1"] {
            assert!(allowed(sql, true).is_ok(), "{sql}");
        }
        for sql in
            ["", "DELETE FROM noetl.event", "SET ROLE postgres", "COMMIT", "-- SELECT", "/* SELECT 1", "DO $$ $$"]
        {
            assert!(allowed(sql, true).is_err(), "{sql}");
        }
        assert!(allowed("SELECT SET_CONFIG('role', 'none', true)", true).is_err());
        assert!(allowed("SELECT name FROM noetl.credential", true).is_ok());
        assert!(allowed("SELECT name FROM noetl.credential", false).is_err());
    }

    #[test]
    fn values_become_the_json_they_stand_for() {
        for (text, ty, value) in [
            ("t", Type::BOOL, json!(true)),
            ("543857931469455628", Type::INT8, json!(543_857_931_469_455_628_i64)),
            ("1.50", Type::NUMERIC, json!(1.5)),
            ("12", Type::NUMERIC, json!(12)),
            ("NaN", Type::FLOAT8, json!("NaN")),
            ("{\"a\": 1}", Type::JSONB, json!({"a": 1})),
            ("2026-01-20 09:08:00.12+00", Type::TIMESTAMPTZ, json!("2026-01-20T09:08:00.120Z")),
            ("2026-01-20 09:08:00+00", Type::TIMESTAMPTZ, json!("2026-01-20T09:08:00.000Z")),
            ("{1,NULL,3}", Type::INT8_ARRAY, json!([1, null, 3])),
            ("{a,\"b, \\\"c\",\"NULL\"}", Type::TEXT_ARRAY, json!(["a", "b, \"c", "NULL"])),
            ("{}", Type::TEXT_ARRAY, json!([])),
            ("{{1},{2}}", Type::INT8_ARRAY, json!("{{1},{2}}")),
            ("a", Type::TEXT, json!("a")),
        ] {
            assert_eq!(json(text, &ty), value, "{text}");
        }
    }
}
