//! What a pipeline remembers between its tasks: its continuation.

use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::event::error_value;
use crate::playbook::Step;
use crate::tool::ToolError;

/// What a pipeline remembers. Plain JSON, so that another process can go on with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    /// The task at hand.
    pub(super) at: usize,
    /// Executions of the task at hand, in a row.
    pub(super) executions: u32,
    /// Executions of all tasks.
    pub(super) executions_total: u64,
    /// A wait that has to come before the next execution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) delay_ms: Option<u64>,
    /// The task at hand has asked for a child.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) awaiting_child: bool,
    /// What the tasks that ran gave, by label, in the order of their last run.
    #[serde(default)]
    pub(super) results: IndexMap<Arc<str>, TaskResult>,
    /// Names bound by `set`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub(super) locals: Map<String, Value>,
    /// Names under `iter.` bound by `set`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub(super) iter: Map<String, Value>,
}

/// What one task gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct TaskResult {
    pub(super) data: Arc<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<Arc<Value>>,
}

impl State {
    pub(super) fn new(_step: &Step) -> Self {
        State {
            at: 0,
            executions: 0,
            executions_total: 0,
            delay_ms: None,
            awaiting_child: false,
            results: IndexMap::new(),
            locals: Map::new(),
            iter: Map::new(),
        }
    }

    pub(super) fn from_json(continuation: &Value) -> Option<Self> {
        State::deserialize(continuation).ok()
    }

    pub(super) fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or(Value::Null)
    }

    /// Binds what the task called `label` gave; the latest run is the last in order.
    pub(super) fn bind(&mut self, label: &Arc<str>, data: Value, error: Option<&ToolError>) {
        self.results.shift_remove(label);
        let error = error.map(|error| Arc::new(error_value(error)));
        self.results.insert(Arc::clone(label), TaskResult { data: Arc::new(data), error });
    }

    pub(super) fn set_local(&mut self, path: &[Arc<str>], value: Value) {
        put(&mut self.locals, path, value);
    }

    pub(super) fn set_iter(&mut self, path: &[Arc<str>], value: Value) {
        put(&mut self.iter, path, value);
    }

    /// Returns what later templates see under the step's name.
    ///
    /// A single tool gives its data. A list gives label → data, with the fields of the tasks' data on top, the last
    /// task winning; a label is never hidden by a field. That a task failed is said under its label; on top it would
    /// say that the step did, so there it stands for the last task only.
    pub(super) fn result(&self, step: &Step, error: Option<&ToolError>) -> Value {
        if !step.body.pipeline {
            return match (self.results.values().next_back(), error) {
                (Some(last), None) => (*last.data).clone(),
                (Some(last), Some(error)) => failed_data(&last.data, error),
                (None, Some(error)) => failed_data(&Value::Null, error),
                (None, None) => Value::Null,
            };
        }
        let mut merged = Map::new();
        for (label, result) in &self.results {
            merged.insert(label.to_string(), (*result.data).clone());
        }
        for (place, result) in self.results.values().enumerate() {
            let Value::Object(fields) = &*result.data else { continue };
            let passed_over = result.error.is_some() && place + 1 < self.results.len();
            for (key, value) in fields {
                let marks_failure = passed_over && matches!(key.as_str(), "status" | "error");
                if !marks_failure && !self.results.contains_key(key.as_str()) {
                    merged.insert(key.clone(), value.clone());
                }
            }
        }
        if let Some(error) = error {
            merged.insert("status".into(), "error".into());
            merged.insert("error".into(), error_value(error));
        }
        Value::Object(merged)
    }
}

/// Returns the data of something that failed: what there was, with `status` and `error` over it.
pub(super) fn failed_data(data: &Value, error: &ToolError) -> Value {
    let mut map = match data {
        Value::Object(map) => map.clone(),
        Value::Null => Map::new(),
        other => Map::from_iter([("data".to_owned(), other.clone())]),
    };
    map.insert("status".into(), "error".into());
    map.insert("error".into(), error_value(error));
    Value::Object(map)
}

fn put(map: &mut Map<String, Value>, path: &[Arc<str>], value: Value) {
    match path {
        [] => {}
        [name] => {
            map.insert(name.to_string(), value);
        }
        [name, deeper @ ..] => {
            let slot = map.entry(name.to_string()).or_insert(Value::Null);
            if !slot.is_object() {
                *slot = Value::Object(Map::new());
            }
            if let Value::Object(inner) = slot {
                put(inner, deeper, value);
            }
        }
    }
}
