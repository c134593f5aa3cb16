//! Rows that a web server answers.

use noetl_core::tool::{ErrorKind, ToolError};
use serde_json::Value;

use super::plan::{Plan, step};
use super::{Means, Row, config_error};
use crate::failure::Failure;
use crate::http;
use crate::stop::Brake;

/// Asks and returns the rows of the answer; the tool `http` bounds how long that is.
pub(super) async fn rows(means: &Means<'_>, plan: &Plan, brake: &mut Brake) -> Result<Vec<Row>, Failure> {
    let limit_ms = means.call.timeout_ms.unwrap_or(http::TIMEOUT_DEFAULT_MS);
    let bytes_max = http::BODY_BYTES_MAX as u64;
    let text = http::text(means.clients, &plan.source_config, limit_ms, bytes_max, brake, means.outside).await?;
    let body: Value = serde_json::from_str(&text).map_err(|error| {
        ToolError::hard(ErrorKind::Parse, "TRANSFER_SOURCE", format!("the source's answer is not JSON: {error}"))
    })?;
    Ok(rows_of(body, plan.data_path.as_deref())?)
}

fn rows_of(body: Value, data_path: Option<&str>) -> Result<Vec<Row>, Box<ToolError>> {
    let found = match data_path {
        None => body,
        Some(path) => {
            let found = path.trim_start_matches("$.").split('.').try_fold(&body, step);
            let nowhere = || Box::new(config_error(format!("`data_path` {path} leads nowhere in the answer")));
            found.cloned().ok_or_else(nowhere)?
        }
    };
    let wrong = |what: &str| {
        let message =
            format!("the source's answer holds {what}, rows are objects: say with `data_path` where they are");
        Box::new(ToolError::hard(ErrorKind::Schema, "TRANSFER_SOURCE", message))
    };
    match found {
        Value::Array(items) => items
            .into_iter()
            .map(|item| match item {
                Value::Object(row) => Ok(row),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                    Err(wrong("a list of other things than objects"))
                }
            })
            .collect(),
        Value::Object(row) => Ok(vec![row]),
        Value::Null => Ok(Vec::new()),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => Err(wrong("a single value")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_are_objects_wherever_they_are() {
        let count = |body: Value, path: Option<&str>| rows_of(body, path).map(|rows| rows.len());
        assert_eq!(count(json!([{"a": 1}, {"a": 2}]), None), Ok(2));
        assert_eq!(count(json!({"a": 1}), None), Ok(1));
        assert_eq!(count(json!({"d": {"i": [{"a": 1}]}}), Some("d.i")), Ok(1));
        assert_eq!(count(json!({"d": [[{"a": 1}]]}), Some("$.d.0")), Ok(1));
        assert_eq!(count(json!([]), None), Ok(0));
        assert_eq!(count(json!({"d": 1}), Some("e")).unwrap_err().code, "TRANSFER_CONFIG");
        assert_eq!(count(json!([1]), None).unwrap_err().code, "TRANSFER_SOURCE");
        assert_eq!(count(json!("x"), None).unwrap_err().code, "TRANSFER_SOURCE");
    }
}
