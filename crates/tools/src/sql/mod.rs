//! What SQL tools share: where they find SQL, where one statement ends and the next begins, what they answer.

use serde_json::{Map, Value};

use crate::python::{Source, script_source};

mod answer;
mod split;

pub(crate) use answer::{Answer, data};
pub(crate) use split::{Statement, place, statements};

/// The keys that hold SQL; they exclude each other.
const KEYS: [&str; 4] = ["query", "command", "commands", "script"];

/// Returns where a tool has its SQL: one text or file, or the items of a list.
pub(crate) fn sources(config: &Map<String, Value>) -> Result<Vec<Source>, String> {
    let mut given = KEYS.iter().filter_map(|key| Some((*key, config.get(*key).filter(|value| !value.is_null())?)));
    let Some((key, value)) = given.next() else {
        return Err("`query`, `command`, `commands` or `script` is missing: give the SQL to run".to_owned());
    };
    if let Some((other, _)) = given.next() {
        return Err(format!("`{key}` and `{other}` exclude each other: give one of them"));
    }
    if key == "script" {
        return Ok(vec![script_source(value)?]);
    }
    match value {
        Value::String(sql) => Ok(vec![Source::Text(sql.clone())]),
        Value::Array(items) => {
            let texts: Option<_> = items.iter().map(|item| Some(Source::Text(item.as_str()?.to_owned()))).collect();
            texts.ok_or_else(|| format!("`{key}` must be a list of texts"))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            Err(format!("`{key}` must be a text, or a list of texts"))
        }
    }
}

/// Returns the values for the parameters of SQL.
pub(crate) fn params(config: &Map<String, Value>) -> Result<Vec<Value>, String> {
    match config.get("params") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(params)) => Ok(params.clone()),
        Some(Value::Object(params)) if params.is_empty() => Ok(Vec::new()),
        Some(Value::Object(_)) => Err("`params` must be a list: SQL names them `$1`, `$2`, …".to_owned()),
        Some(single @ (Value::Bool(_) | Value::Number(_) | Value::String(_))) => Ok(vec![single.clone()]),
    }
}
