//! Reading answers without trusting their shape: servers of other makes leave fields out.

use serde_json::Value;

/// Returns the text in `key`, unless it is empty or none.
pub fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// Returns whether `key` is true.
pub fn is(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or(false)
}

/// Returns the count in `key`.
pub fn count(value: &Value, key: &str) -> Option<u64> {
    value.get(key).and_then(Value::as_u64)
}

/// Returns the list in `key`; none is an empty one.
pub fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Returns an id, whether it came as a string or as a number.
pub fn id(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Returns the ids in `key`.
pub fn ids(value: &Value, key: &str) -> Vec<String> {
    list(value, key).iter().filter_map(id).collect()
}

/// Returns how long an execution took: the server's words, else its number.
pub fn duration(value: &Value) -> Option<String> {
    match text(value, "duration_human") {
        Some(human) => Some(super::clean(human).into_owned()),
        None => value.get("duration_seconds").and_then(Value::as_f64).map(super::duration::human),
    }
}

/// Returns the status word of an execution. Older servers have no such field and say it in flags.
pub fn status(value: &Value) -> String {
    if let Some(status) = text(value, "status") {
        return super::clean(status).to_uppercase();
    }
    let word = if is(value, "cancelled") || is(value, "is_cancelled") {
        "CANCELLED"
    } else if is(value, "failed") {
        "FAILED"
    } else if is(value, "completed") {
        "COMPLETED"
    } else {
        "RUNNING"
    };
    word.to_owned()
}

/// Returns whether nothing can follow this status.
pub fn is_terminal(status: &str) -> bool {
    matches!(status, "COMPLETED" | "FAILED" | "CANCELLED")
}
