//! Labels in bodies and queries.

use noetl_core::labels::{self, LabelError, Labels};
use serde_json::{Map, Value};

use super::error::ApiError;

/// Reads what a request gives an execution: `{name: value}`. Numbers and booleans are text here, as in a playbook.
pub(super) fn given(labels: Option<&Map<String, Value>>) -> Result<Labels, ApiError> {
    let mut read = Labels::new();
    for (name, value) in labels.into_iter().flatten() {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                return Err(ApiError::bad_field(&format!("labels.{name}"), "the value of a label is text"));
            }
        };
        labels::check(name, &value).map_err(|error| refused("labels", &error))?;
        read.insert(name.as_str().into(), value.into());
    }
    labels::bounded(read).map_err(|error| refused("labels", &error))
}

/// Reads what a list or a selection asks for: `name=value`, several with commas between, all of which must be there.
pub(super) fn wanted(field: &str, text: Option<&str>) -> Result<Labels, ApiError> {
    let Some(text) = text else { return Ok(Labels::new()) };
    let labels = labels::parse(text).map_err(|error| refused(field, &error))?;
    // Nothing asked for would match everything, which nobody means who writes the word.
    if labels.is_empty() { Err(ApiError::bad_field(field, "write name=value")) } else { Ok(labels) }
}

fn refused(field: &str, error: &LabelError) -> ApiError {
    match error.label() {
        Some(label) => ApiError::bad_field(&format!("{field}.{label}"), error),
        None => ApiError::bad_field(field, error),
    }
}
