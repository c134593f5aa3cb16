//! JSON documents, and arrays, which stand in SQLite as JSON arrays.

use rusqlite::Connection;
use rusqlite::types::{Value as Sql, ValueRef};
use serde_json::Value as Json;

use super::{Args, SERIES_ELEMENTS, element, flag, lenient, numbers, optional_text, parse_json, strict, text};
use crate::query::jsonb::{self, Step};

pub(super) fn register(conn: &Connection) -> rusqlite::Result<()> {
    documents(conn)?;
    builders(conn)?;
    arrays(conn)
}

fn documents(conn: &Connection) -> rusqlite::Result<()> {
    strict(conn, "pg_json_get", -1, |args| {
        let document = args.json(0)?;
        optional_text(jsonb::get(&document, &steps(args)?).map(Json::to_string))
    })?;
    strict(conn, "pg_json_get_text", -1, |args| {
        let document = args.json(0)?;
        optional_text(jsonb::get(&document, &steps(args)?).and_then(jsonb::text))
    })?;
    strict(conn, "pg_json_path", 2, |args| {
        let document = args.json(0)?;
        optional_text(jsonb::get(&document, &path(args, 1)?).map(Json::to_string))
    })?;
    strict(conn, "pg_json_path_text", 2, |args| {
        let document = args.json(0)?;
        optional_text(jsonb::get(&document, &path(args, 1)?).and_then(jsonb::text))
    })?;
    strict(conn, "pg_json_exists", 2, |args| flag(jsonb::exists(&args.json(0)?, &args.text(1)?)))?;
    strict(conn, "pg_json_exists_any", 2, |args| {
        let document = args.json(0)?;
        flag(strings(args, 1)?.iter().any(|key| jsonb::exists(&document, key)))
    })?;
    strict(conn, "pg_json_exists_all", 2, |args| {
        let document = args.json(0)?;
        flag(strings(args, 1)?.iter().all(|key| jsonb::exists(&document, key)))
    })?;
    strict(conn, "pg_json_contains", 2, |args| flag(jsonb::contains(&args.json(0)?, &args.json(1)?)))?;
    strict(conn, "pg_json_concat", 2, |args| text(jsonb::concat(args.json(0)?, args.json(1)?).to_string()))?;
    strict(conn, "pg_json_without", 2, |args| {
        let left = match args.raw(1) {
            ValueRef::Integer(index) => jsonb::without_index(args.json(0)?, index),
            _ => jsonb::without_key(args.json(0)?, &args.text(1)?),
        };
        left.map_or_else(
            || Err("can not delete from this kind of json value".to_owned()),
            |left| text(left.to_string()),
        )
    })?;
    strict(conn, "pg_json_equal", 2, |args| flag(jsonb::equal(&args.json(0)?, &args.json(1)?)))?;
    strict(conn, "pg_json_text", 1, |args| text(jsonb::to_text(&args.json(0)?)))?;
    strict(conn, "pg_json_check", 1, |args| text(args.json(0)?.to_string()))?;
    strict(conn, "pg_json_typeof", 1, |args| text(jsonb::type_name(&args.json(0)?)))?;
    strict(conn, "pg_json_strip_nulls", 1, |args| text(jsonb::strip_nulls(args.json(0)?).to_string()))?;
    strict(conn, "pg_json_pretty", 1, |args| {
        let document = args.json(0)?;
        text(serde_json::to_string_pretty(&document).map_err(|error| error.to_string())?.replace("  ", "    "))
    })?;
    strict(conn, "pg_json_length", 1, |args| match args.json(0)? {
        Json::Array(list) => Ok(Sql::Integer(count(list.len()))),
        other => Err(format!("cannot get array length of {}", shape(&other))),
    })?;
    // The two below stand between a document and `json_each`, which takes any shape without complaint.
    strict(conn, "pg_json_array_only", 1, |args| match args.json(0)? {
        list @ Json::Array(_) => text(list.to_string()),
        other => Err(format!("cannot extract elements from {}", shape(&other))),
    })?;
    strict(conn, "pg_json_object_only", 1, |args| match args.json(0)? {
        map @ Json::Object(_) => text(map.to_string()),
        other => Err(format!("cannot take the keys of {}", shape(&other))),
    })?;
    // What `json_each` shows as (type, value), as a document again, and as `->>` text.
    lenient(conn, "pg_each_json", 2, |args| match args.text(0)?.as_str() {
        "text" => text(Json::String(args.text(1)?).to_string()),
        "true" | "false" | "null" => text(args.text(0)?),
        "" => Ok(Sql::Null),
        _ => text(args.text(1)?),
    })?;
    lenient(conn, "pg_each_text", 2, |args| match args.text(0)?.as_str() {
        "true" | "false" => text(args.text(0)?),
        "null" | "" => Ok(Sql::Null),
        "object" | "array" => text(jsonb::to_text(&args.json(1)?)),
        _ => text(args.text(1)?),
    })
}

fn builders(conn: &Connection) -> rusqlite::Result<()> {
    // Arguments are documents already; NULL is JSON null.
    lenient(conn, "pg_json_array", -1, |args| {
        let elements: Result<Vec<String>, String> = (0..args.len()).map(|index| document(args, index)).collect();
        text(format!("[{}]", elements?.join(",")))
    })?;
    lenient(conn, "pg_json_object", -1, |args| {
        let mut map = serde_json::Map::new();
        for index in (0..args.len()).step_by(2) {
            if args.is_null(index) {
                return Err("a json key must not be null".to_owned());
            }
            map.insert(args.text(index)?, args.json(index + 1)?);
        }
        text(Json::Object(map).to_string())
    })
}

fn arrays(conn: &Connection) -> rusqlite::Result<()> {
    strict(conn, "pg_array_parse", 2, |args| {
        let (given, kind) = (args.text(0)?, args.text(1)?);
        let literal =
            jsonb::parse_array_literal(&given).ok_or_else(|| format!("malformed array literal: {given:?}"))?;
        let elements: Result<Vec<Json>, String> = literal.into_iter().map(|text| typed_element(text, &kind)).collect();
        text(Json::Array(elements?).to_string())
    })?;
    strict(conn, "pg_array_text", 1, |args| text(jsonb::array_text(&list(args, 0)?)))?;
    strict(conn, "pg_array_length", 1, |args| match list(args, 0)?.len() {
        0 => Ok(Sql::Null),
        length => Ok(Sql::Integer(count(length))),
    })?;
    strict(conn, "pg_cardinality", 1, |args| Ok(Sql::Integer(count(list(args, 0)?.len()))))?;
    strict(conn, "pg_array_get", 2, |args| {
        let index = usize::try_from(args.int(1)? - 1).ok();
        list(args, 0)?.get(index.unwrap_or(usize::MAX)).map_or(Ok(Sql::Null), element)
    })?;
    strict(conn, "pg_array_get_json", 2, |args| {
        let index = usize::try_from(args.int(1)? - 1).ok();
        optional_text(list(args, 0)?.get(index.unwrap_or(usize::MAX)).map(Json::to_string))
    })?;
    strict(conn, "pg_array_contains", 2, |args| {
        let whole = list(args, 0)?;
        flag(list(args, 1)?.iter().all(|part| whole.iter().any(|found| jsonb::equal(found, part))))
    })?;
    strict(conn, "pg_array_overlaps", 2, |args| {
        let other = list(args, 1)?;
        flag(list(args, 0)?.iter().any(|found| other.iter().any(|part| jsonb::equal(found, part))))
    })?;
    lenient(conn, "pg_array_concat", 2, |args| {
        let mut joined = if args.is_null(0) { Vec::new() } else { list(args, 0)? };
        joined.extend(if args.is_null(1) { Vec::new() } else { list(args, 1)? });
        if args.is_null(0) && args.is_null(1) { Ok(Sql::Null) } else { text(Json::Array(joined).to_string()) }
    })?;
    strict(conn, "pg_array_position", 2, |args| {
        let wanted = parse_json(args.raw(1))?;
        let found = list(args, 0)?.iter().position(|value| jsonb::equal(value, &wanted));
        Ok(found.map_or(Sql::Null, |at| Sql::Integer(count(at + 1))))
    })?;
    strict(conn, "pg_array_join", 2, |args| text(join(args, None)?))?;
    lenient(conn, "pg_array_join", 3, |args| match (args.is_null(0) || args.is_null(1), args.is_null(2)) {
        (true, _) => Ok(Sql::Null),
        (false, true) => text(join(args, None)?),
        (false, false) => text(join(args, Some(&args.text(2)?))?),
    })?;
    strict(conn, "pg_array_split", 2, |args| {
        let (given, separator) = (args.text(0)?, args.text(1)?);
        let parts: Vec<&str> = match (given.is_empty(), separator.is_empty()) {
            (true, _) => Vec::new(),
            (false, true) => vec![&given],
            (false, false) => given.split(separator.as_str()).collect(),
        };
        text(Json::from(parts).to_string())
    })?;
    strict(conn, "pg_series", 3, |args| {
        let (first, last, step) = (args.int(0)?, args.int(1)?, args.int(2)?);
        if step == 0 {
            return Err("step size cannot equal zero".to_owned());
        }
        let mut list = Vec::new();
        let mut next = Some(first);
        while let Some(value) = next.filter(|value| if step > 0 { *value <= last } else { *value >= last }) {
            if list.len() == SERIES_ELEMENTS {
                return Err(format!("generate_series counts more than {SERIES_ELEMENTS} elements"));
            }
            list.push(Json::from(value));
            next = value.checked_add(step);
        }
        text(Json::Array(list).to_string())
    })
}

fn steps(args: &Args<'_, '_>) -> Result<Vec<Step>, String> {
    (1..args.len())
        .map(|index| match args.raw(index) {
            ValueRef::Integer(at) => Ok(Step::Index(at)),
            _ => Ok(Step::Key(args.text(index)?)),
        })
        .collect()
}

fn path(args: &Args<'_, '_>, index: usize) -> Result<Vec<Step>, String> {
    Ok(strings(args, index)?.into_iter().map(Step::Either).collect())
}

fn list(args: &Args<'_, '_>, index: usize) -> Result<Vec<Json>, String> {
    match args.json(index)? {
        Json::Array(list) => Ok(list),
        other => Err(format!("expected an array, got {}", shape(&other))),
    }
}

fn strings(args: &Args<'_, '_>, index: usize) -> Result<Vec<String>, String> {
    Ok(list(args, index)?.iter().filter_map(jsonb::text).collect())
}

fn document(args: &Args<'_, '_>, index: usize) -> Result<String, String> {
    if args.is_null(index) { Ok("null".to_owned()) } else { args.text(index) }
}

fn join(args: &Args<'_, '_>, null: Option<&str>) -> Result<String, String> {
    let separator = args.text(1)?;
    let parts: Vec<String> = list(args, 0)?
        .iter()
        .filter_map(|value| if value.is_null() { null.map(str::to_owned) } else { jsonb::text(value) })
        .collect();
    Ok(parts.join(&separator))
}

fn typed_element(text: Option<String>, kind: &str) -> Result<Json, String> {
    let Some(text) = text else { return Ok(Json::Null) };
    let parsed = match kind {
        "int" => numbers::whole(&text).map(Json::from),
        "real" => text.trim().parse::<f64>().ok().map(Json::from),
        "bool" => numbers::boolean(&text).map(Json::from),
        "json" => serde_json::from_str(&text).ok(),
        _ => return Ok(Json::String(text)),
    };
    parsed.ok_or_else(|| format!("invalid array element: {text:?}"))
}

fn shape(value: &Json) -> &'static str {
    match value {
        Json::Array(_) => "an array",
        Json::Object(_) => "an object",
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => "a scalar",
    }
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
