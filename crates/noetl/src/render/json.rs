//! Documents as text, with keys in alphabetical order: scripts compare them.

use serde_json::{Map, Value};

/// Returns `value` on one line.
pub fn compact(value: &Value) -> String {
    sorted(value).to_string()
}

/// Returns `value` indented by two spaces.
pub fn pretty(value: &Value) -> String {
    format!("{:#}", sorted(value))
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            Value::Object(keys.into_iter().map(|key| (key.clone(), sorted(&map[key]))).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_sorted_at_every_depth() {
        let value = json!({"b": [{"z": 1, "a": null}], "a": 543857931469455628_i64});
        assert_eq!(compact(&value), r#"{"a":543857931469455628,"b":[{"a":null,"z":1}]}"#);
        assert_eq!(
            pretty(&value),
            "{\n  \"a\": 543857931469455628,\n  \"b\": [\n    {\n      \"a\": null,\n      \"z\": 1\n    }\n  ]\n}"
        );
    }
}
