//! `--label`: names and values on the command line.

use noetl_core::labels;
use serde_json::{Value, json};

use super::stop::Stop;

/// Returns what a start gets; `None` when nothing is given.
pub fn given(labels: &[String]) -> Result<Option<Value>, Stop> {
    let Some(text) = joined(labels) else { return Ok(None) };
    let read = labels::parse(&text).map_err(|error| Stop::usage(format!("--label: {error}")))?;
    Ok(Some(json!(read)))
}

/// Returns what a question asks for: the server reads it, and says what is wrong with it.
pub fn joined(labels: &[String]) -> Option<String> {
    (!labels.is_empty()).then(|| labels.join(","))
}
