//! What a transfer is to do, read from its configuration.

use std::fmt;

use serde_json::{Map, Value};

use super::{CHUNK_ROWS_DEFAULT, CHUNK_ROWS_MAX, Row};

/// A kind of place that rows come from or go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Http,
    Postgres,
    Duckdb,
}

impl Place {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Place::Http => "http",
            Place::Postgres => "postgres",
            Place::Duckdb => "duckdb",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happens to the rows that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// They stay.
    Append,
    /// They go.
    Replace,
    /// Those with the key of a new row take its values.
    Upsert,
}

impl Mode {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Mode::Append => "append",
            Mode::Replace => "replace",
            Mode::Upsert => "upsert",
        }
    }
}

/// A transfer.
#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) source: Place,
    pub(super) source_config: Map<String, Value>,
    pub(super) target: Place,
    pub(super) target_config: Map<String, Value>,
    /// With its schema, as SQL.
    pub(super) table: String,
    /// With its schema, as the playbook writes it.
    pub(super) table_name: String,
    pub(super) mode: Mode,
    pub(super) chunk_rows: usize,
    /// Column and the field that it gets, in order; `None`: those of the first row.
    pub(super) mapping: Option<Vec<(String, String)>>,
    /// Columns that `upsert` goes by; empty: the primary key.
    pub(super) key: Vec<String>,
    /// The way to the rows in what a server answers.
    pub(super) data_path: Option<String>,
}

impl Plan {
    pub(super) fn read(config: &Map<String, Value>) -> Result<Plan, String> {
        let part = |name: &str| match config.get(name) {
            Some(Value::Object(part)) => Ok(part.clone()),
            Some(_) => Err(format!("`{name}` must be a mapping with a `type`")),
            None => Err(format!("`{name}` is missing: give a mapping with a `type`")),
        };
        let mut source_config = part("source")?;
        let mut target_config = part("target")?;
        let source = place(&source_config, "source", &[Place::Http, Place::Postgres, Place::Duckdb])?;
        let target = place(&target_config, "target", &[Place::Postgres, Place::Duckdb])?;
        for part in [&mut source_config, &mut target_config] {
            for name in ["type", "tool", "kind"] {
                part.shift_remove(name);
            }
        }
        if let (Place::Http, false, Some(url)) =
            (source, source_config.contains_key("url"), source_config.shift_remove("endpoint"))
        {
            source_config.insert("url".to_owned(), url);
        }
        let data_path = source_config.shift_remove("data_path");
        let data_path = data_path.and_then(|path| path.as_str().map(str::to_owned)).filter(|path| !path.is_empty());

        let text = |name: &str| target_config.get(name).and_then(Value::as_str).filter(|text| !text.trim().is_empty());
        let table = text("table").ok_or("`target.table` is missing: name the table that the rows go to")?;
        let (table_name, table) = match text("schema") {
            Some(schema) if !table.contains('.') => {
                (format!("{schema}.{table}"), format!("{}.{}", identifier(schema)?, identifier(table)?))
            }
            Some(_) | None => (table.to_owned(), identifier(table)?),
        };
        let mode = match config.get("mode").or_else(|| target_config.get("mode")).map(|mode| mode.as_str()) {
            None | Some(Some("append" | "insert")) => Mode::Append,
            Some(Some("replace" | "overwrite")) => Mode::Replace,
            Some(Some("upsert" | "merge")) => Mode::Upsert,
            Some(_) => return Err("`mode` must be append, replace or upsert".to_owned()),
        };
        let chunk_rows = match config.get("chunk_size") {
            None | Some(Value::Null) => CHUNK_ROWS_DEFAULT,
            Some(Value::Number(rows)) => rows.as_u64().and_then(|rows| rows.try_into().ok()).unwrap_or(0),
            Some(Value::String(rows)) => rows.trim().parse().unwrap_or(0),
            Some(_) => 0,
        };
        if chunk_rows == 0 {
            return Err("`chunk_size` must be a number of rows from 1".to_owned());
        }
        let mapping = match target_config.get("mapping").or_else(|| config.get("mapping")) {
            None | Some(Value::Null) => None,
            Some(Value::Object(mapping)) if mapping.is_empty() => None,
            Some(Value::Object(mapping)) => {
                let pairs: Option<_> =
                    mapping.iter().map(|(column, field)| Some((column.clone(), field.as_str()?.to_owned()))).collect();
                Some(pairs.ok_or("`mapping` must give each column the name of a field")?)
            }
            Some(_) => return Err("`mapping` must give each column the name of a field".to_owned()),
        };
        let key = ["key", "keys", "primary_key", "conflict_columns", "upsert_keys"]
            .iter()
            .find_map(|name| target_config.get(*name).or_else(|| config.get(*name)));
        let key = match key {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(column)) => column.split(',').map(|column| column.trim().to_owned()).collect(),
            Some(Value::Array(columns)) => {
                let columns: Option<_> = columns.iter().map(|column| column.as_str().map(str::to_owned)).collect();
                columns.ok_or("`key` must be a column, or a list of columns")?
            }
            Some(_) => return Err("`key` must be a column, or a list of columns".to_owned()),
        };
        let chunk_rows = chunk_rows.min(CHUNK_ROWS_MAX);
        Ok(Plan {
            source,
            source_config,
            target,
            target_config,
            table,
            table_name,
            mode,
            chunk_rows,
            mapping,
            key,
            data_path,
        })
    }

    /// Returns the target's columns and the field that each gets: the mapping's, else those of the first row.
    pub(super) fn columns(&self, first: &Row) -> Vec<(String, String)> {
        match &self.mapping {
            Some(mapping) => mapping.clone(),
            None => first.keys().map(|name| (name.clone(), name.clone())).collect(),
        }
    }

    /// Returns a field that a row has and the columns do not know of, if there is one. With a mapping that is what
    /// it is for.
    pub(super) fn stranger<'a>(&self, row: &'a Row, columns: &[(String, String)]) -> Option<&'a str> {
        if self.mapping.is_some() {
            return None;
        }
        row.keys().map(String::as_str).find(|name| !columns.iter().any(|(_, field)| field == name))
    }
}

/// Returns the value of a field: of that name, else along the dotted way.
pub(super) fn field<'a>(row: &'a Row, name: &str) -> &'a Value {
    const NOTHING: &Value = &Value::Null;
    if let Some(value) = row.get(name) {
        return value;
    }
    let mut steps = name.split('.');
    let first = steps.next().and_then(|step| row.get(step));
    steps.try_fold(first.unwrap_or(NOTHING), step).unwrap_or(NOTHING)
}

/// Returns what is one step further.
pub(super) fn step<'a>(value: &'a Value, step: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map.get(step),
        Value::Array(list) => list.get(step.parse::<usize>().ok()?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn place(part: &Map<String, Value>, name: &str, allowed: &[Place]) -> Result<Place, String> {
    let words: Vec<&str> = allowed.iter().map(|place| place.as_str()).collect();
    let written = ["type", "tool", "kind"].iter().find_map(|key| part.get(*key)?.as_str());
    let Some(written) = written else { return Err(format!("`{name}.type` is missing: use {}", words.join(", "))) };
    let meant = if written == "postgresql" { "postgres" } else { written };
    let found = allowed.iter().find(|place| place.as_str() == meant).copied();
    found.ok_or_else(|| format!("`{name}.type` is `{written}`, supported are {}", words.join(", ")))
}

/// Returns a name, perhaps with its schema, as SQL: what is not quoted folds to lower case, as SQL has it, and is
/// quoted, so that no name is a word of the language or anything else.
pub(super) fn identifier(name: &str) -> Result<String, String> {
    let mut parts = Vec::new();
    let mut rest = name.trim();
    loop {
        let (part, after) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let end = closing_quote(quoted).ok_or_else(|| format!("the name `{name}` has an open quote"))?;
                (quoted[..end].replace("\"\"", "\""), &quoted[end + 1..])
            }
            None => {
                let end = rest.find('.').unwrap_or(rest.len());
                (rest[..end].to_lowercase(), &rest[end..])
            }
        };
        if part.is_empty() || part.contains('\0') {
            return Err(format!("`{name}` is no name of a table"));
        }
        parts.push(quoted(&part));
        match after.strip_prefix('.') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(parts.join(".")),
            None => return Err(format!("`{name}` is no name of a table")),
        }
    }
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + text[from..].find('"')?;
        if text[at + 1..].starts_with('"') {
            from = at + 2;
        } else {
            return Some(at);
        }
    }
}

/// Returns a name in quotes.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("{other} is no mapping"),
        }
    }

    #[test]
    fn names_fold_like_sql_and_can_be_nothing_else() {
        let table = [
            ("Public.Users", Ok("\"public\".\"users\"")),
            ("order", Ok("\"order\"")),
            ("\"My.Table\"", Ok("\"My.Table\"")),
            ("s.\"a\"\"b\"", Ok("\"s\".\"a\"\"b\"")),
            ("t; drop table x", Ok("\"t; drop table x\"")),
            ("t\"; drop", Ok("\"t\"\"; drop\"")),
            ("", Err("`` is no name of a table")),
            ("a..b", Err("`a..b` is no name of a table")),
            ("\"a", Err("the name `\"a` has an open quote")),
            ("\"a\"b", Err("`\"a\"b` is no name of a table")),
        ];
        for (name, expected) in table {
            assert_eq!(identifier(name).as_deref().map_err(String::as_str), expected, "{name}");
        }
    }

    #[test]
    fn fields_are_found_by_name_and_along_dots() {
        let row = map(json!({"a": {"b": [{"c": 1}]}, "a.b": 2}));
        assert_eq!(field(&row, "a.b"), &json!(2));
        assert_eq!(field(&row, "a.b.0.c"), &json!(1));
        assert_eq!(field(&row, "a.b.1.c"), &json!(null));
        assert_eq!(field(&row, "nothing.there"), &json!(null));
    }

    #[test]
    fn a_plan_says_what_is_wrong_with_it() {
        let target = json!({"type": "postgres", "table": "t"});
        let source = json!({"type": "http", "url": "u"});
        let table = [
            (json!({}), "`source` is missing: give a mapping with a `type`"),
            (json!({"source": 1}), "`source` must be a mapping with a `type`"),
            (json!({"source": {}, "target": target}), "`source.type` is missing: use http, postgres, duckdb"),
            (
                json!({"source": {"type": "snowflake"}, "target": target}),
                "`source.type` is `snowflake`, supported are http, postgres, duckdb",
            ),
            (
                json!({"source": source, "target": {"type": "http"}}),
                "`target.type` is `http`, supported are postgres, duckdb",
            ),
            (
                json!({"source": source, "target": {"kind": "postgres"}}),
                "`target.table` is missing: name the table that the rows go to",
            ),
            (json!({"source": source, "target": target, "mode": "x"}), "`mode` must be append, replace or upsert"),
            (
                json!({"source": source, "target": target, "chunk_size": 0}),
                "`chunk_size` must be a number of rows from 1",
            ),
            (
                json!({"source": source, "target": {"type": "postgres", "table": "t", "mapping": {"a": 1}}}),
                "`mapping` must give each column the name of a field",
            ),
        ];
        for (config, message) in table {
            assert_eq!(Plan::read(&map(config)).unwrap_err(), message);
        }
        let whole = json!({
            "source": {"tool": "http", "endpoint": "u", "data_path": "data.items"},
            "target": {"kind": "postgres", "table": "T", "schema": "s", "mapping": {"a": "b.c"}, "key": "a, d"},
            "mode": "upsert", "chunk_size": "1000000",
        });
        let plan = Plan::read(&map(whole)).unwrap();
        assert_eq!((plan.table.as_str(), plan.mode, plan.chunk_rows), ("\"s\".\"t\"", Mode::Upsert, CHUNK_ROWS_MAX));
        assert_eq!((plan.key, plan.data_path.as_deref()), (vec!["a".to_owned(), "d".to_owned()], Some("data.items")));
        assert_eq!(plan.source_config, map(json!({"url": "u"})));
    }
}
