//! The kinds that the engine runs itself: what a task asks of them, and what became of it.

use serde_json::{Map, Value};

use super::{WAIT_MS_MAX, failed};
use crate::expr::Library;
use crate::id::CatalogId;
use crate::playbook::{Shield, parse_duration};
use crate::result::Bound;
use crate::tool::{ErrorKind, ToolError, ToolOutcome};
use crate::work::{ChildOutcome, ChildRequest};

/// Reads a number of seconds: a number, or a text that holds one or a time (`30s`). Nothing else limits anything.
pub(super) fn seconds(value: &Value) -> Option<u64> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => parse_duration(text)? as f64 / 1_000.0,
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    (seconds > 0.0).then_some((seconds * 1000.0).min(WAIT_MS_MAX as f64 * 366.0) as u64)
}

pub(super) fn child_request(
    config: &Map<String, Value>,
    input: Map<String, Value>,
    timeout_ms: Option<u64>,
    shield: Option<Shield>,
) -> Result<ChildRequest, Box<ToolError>> {
    let refuse = |code: &str, message: &str| Err(Box::new(ToolError::hard(ErrorKind::Config, code, message)));
    // A block scalar keeps its line end.
    let text = |key: &str| config.get(key).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
    let catalog_id = match config.get("catalog_id") {
        None | Some(Value::Null) => None,
        Some(Value::Number(number)) => number.as_i64(),
        Some(Value::String(text)) if text.is_empty() => None,
        Some(Value::String(text)) => match text.parse() {
            Ok(id) => Some(id),
            Err(_) => return refuse("PLAYBOOK_ID", &format!("`catalog_id: {text}` is no number")),
        },
        Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => {
            return refuse("PLAYBOOK_ID", "`catalog_id` must be a number");
        }
    };
    let path = text("path").or_else(|| text("catalog_path")).unwrap_or_default();
    if path.is_empty() && catalog_id.is_none() {
        return refuse("PLAYBOOK_PATH", "a playbook task needs `path` or `catalog_id`, and here both are empty");
    }
    // As on the command line: `catalog://NAME[@VERSION]`; a version of its own wins.
    let (path, named) = match path.strip_prefix("catalog://") {
        Some(name) => name.rsplit_once('@').map_or((name, None), |(path, version)| (path, Some(version))),
        None => (path, None),
    };
    let named = named.map(Value::from);
    let version = match config.get("version").filter(|version| !version.is_null()).or(named.as_ref()) {
        None | Some(Value::Null) => None,
        Some(Value::Number(number)) => number.as_i64(),
        Some(Value::String(text)) if text == "latest" || text.is_empty() => None,
        Some(Value::String(text)) => match text.parse() {
            Ok(version) => Some(version),
            Err(_) => {
                return refuse("PLAYBOOK_VERSION", &format!("`version: {text}` is no number"));
            }
        },
        Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => {
            return refuse("PLAYBOOK_VERSION", "`version` must be a number");
        }
    };
    let return_step = text("return_step").or_else(|| text("result_step")).map(Into::into);
    Ok(ChildRequest {
        path: path.into(),
        version,
        catalog_id: catalog_id.map(CatalogId),
        input,
        return_step,
        timeout_ms,
        shield,
    })
}

/// Gives the whole data of a stored result, or says which one is to be loaded.
pub(super) fn artifact(
    config: &Map<String, Value>,
    input: &Map<String, Value>,
    library: &Library,
) -> Result<ToolOutcome, String> {
    let refuse = |code: &str, message: &str| Ok(failed(ToolError::hard(ErrorKind::Config, code, message)));
    let text = |key: &str| input.get(key).or_else(|| config.get(key)).and_then(Value::as_str);
    match config.get("action").and_then(Value::as_str) {
        None | Some("get" | "fetch") => {}
        Some(_) => return refuse("ARTIFACT_ACTION", "stored results can be read with `action: get`, and nothing else"),
    }
    let named = ["result_ref", "ref", "uri"].iter().find_map(|key| text(key).filter(|text| !text.is_empty()));
    let Some(reference) = named else {
        return refuse("ARTIFACT_REF", "a stored result is named by `input.result_ref`, and here that is empty");
    };
    match library.get(reference) {
        Some(data) => Ok(ToolOutcome::ok((*data).clone())),
        None => Err(reference.to_owned()),
    }
}

/// Returns what a child's end is to the task that waited for it.
pub(super) fn child_outcome(child: &ChildOutcome) -> ToolOutcome {
    use crate::head::Status;
    let id = child.execution_id.to_string();
    // A large result of a child goes by reference: whoever looks into it loads it.
    let mut data = match &child.result {
        Bound::Inline(data) => (**data).clone(),
        Bound::Stored(stored) => crate::result::stored_value(stored),
    };
    if !data.is_object() {
        data = match data {
            Value::Null => Value::Object(Map::new()),
            other => serde_json::json!({ "data": other }),
        };
    }
    if let Value::Object(map) = &mut data {
        map.insert("execution_id".into(), id.clone().into());
        map.entry("status").or_insert_with(|| child.status.as_str().into());
    }
    let (kind, code) = match child.status {
        Status::Completed | Status::Running => return ToolOutcome::ok(data),
        Status::Failed => (ErrorKind::Child, "CHILD_FAILED"),
        Status::Cancelled => (ErrorKind::Cancelled, "CHILD_CANCELLED"),
    };
    let because = child.error.as_deref().and_then(|error| error.get("message")).and_then(Value::as_str);
    let message = match because {
        Some(because) => format!("child execution {id} is {}: {because}", child.status.as_str()),
        None => format!("child execution {id} is {}", child.status.as_str()),
    };
    ToolOutcome::failed(ToolError::soft(kind, code, message).with("execution_id", id), data)
}
