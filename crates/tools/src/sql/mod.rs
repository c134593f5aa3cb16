//! Texts of SQL: where a tool finds them, where one statement ends and the next begins.

use std::path::Path;

use serde_json::{Map, Value};

use crate::Settings;
use crate::python::{Source, read_script, script_source};

mod split;

pub(crate) use split::{Statement, place, statements};

/// The keys that hold SQL; they exclude each other.
const KEYS: [&str; 4] = ["query", "command", "commands", "script"];

/// Returns the SQL texts of a tool: one, or the items of a list.
pub(crate) async fn scripts(config: &Map<String, Value>, settings: &Settings) -> Result<Vec<String>, String> {
    let mut given = KEYS.iter().filter_map(|key| Some((*key, config.get(*key).filter(|value| !value.is_null())?)));
    let Some((key, value)) = given.next() else {
        return Err("`query`, `command`, `commands` or `script` is missing: give the SQL to run".to_owned());
    };
    if let Some((other, _)) = given.next() {
        return Err(format!("`{key}` and `{other}` exclude each other: give one of them"));
    }
    if key == "script" {
        return Ok(vec![match script_source(value)? {
            Source::Text(sql) => sql,
            Source::File(path) => read_script(&Path::new(&settings.directory).join(path)).await?,
        }]);
    }
    match value {
        Value::String(sql) => Ok(vec![sql.clone()]),
        Value::Array(items) => {
            let texts: Option<_> = items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
            texts.ok_or_else(|| format!("`{key}` must be a list of texts"))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            Err(format!("`{key}` must be a text, or a list of texts"))
        }
    }
}
