//! What a pipeline remembers between its tasks: its continuation.

use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::event::error_value;
use crate::expr::Library;
use crate::playbook::{Output, Step, Target};
use crate::result::{Bound, INLINE_BYTES_MAX, StoredRef, json_size};
use crate::tool::ToolError;

/// Largest value that a continuation never moves out of the log, in bytes of JSON: a reference with its summary may
/// be as large.
pub(super) const KEPT_IN_PLACE_BYTES_MAX: usize = crate::result::SUMMARY_BYTES_MAX;

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
    /// Those of `locals` that were moved out of the log.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub(super) stored_locals: Stored,
    /// Those of `iter` that were moved out of the log.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub(super) stored_iter: Stored,
}

/// Names whose values are stored beside the log.
pub(super) type Stored = IndexMap<String, Arc<StoredRef>>;

/// What one task gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct TaskResult {
    #[serde(flatten)]
    pub(super) bound: Bound,
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
            stored_locals: Stored::new(),
            stored_iter: Stored::new(),
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
        self.results.insert(Arc::clone(label), TaskResult { bound: Bound::inline(data), error });
    }

    pub(super) fn set_local(&mut self, path: &[Arc<str>], value: Value) {
        set(&mut self.locals, &mut self.stored_locals, path, value);
    }

    pub(super) fn set_iter(&mut self, path: &[Arc<str>], value: Value) {
        set(&mut self.iter, &mut self.stored_iter, path, value);
    }

    /// Takes back the value that a write below `path` changes, should it be stored; else says what must be at hand.
    pub(super) fn take_back(&mut self, target: Target, path: &[Arc<str>], library: &Library) -> Result<(), String> {
        let (values, stored) = match target {
            Target::Ctx => return Ok(()),
            Target::Iter => (&mut self.iter, &mut self.stored_iter),
            Target::Local => (&mut self.locals, &mut self.stored_locals),
        };
        let [name, _, ..] = path else { return Ok(()) };
        let Some(kept) = stored.get(&**name) else { return Ok(()) };
        let data = library.get(&kept.reference).ok_or_else(|| kept.reference.clone())?;
        stored.shift_remove(&**name);
        values.insert(name.to_string(), (*data).clone());
        Ok(())
    }

    /// Moves the largest values out, until what is left is small enough for the log. `keep` stores one.
    pub(super) fn move_out(&mut self, mut keep: impl FnMut(&str, Value, &Output) -> Bound) {
        let mut bytes = json_size(&self.to_json());
        if bytes <= INLINE_BYTES_MAX {
            return;
        }
        let results = self.results.iter().filter_map(|(label, result)| match &result.bound {
            Bound::Inline(data) => Some((json_size(data), Place::Result, label.to_string())),
            Bound::Stored(_) => None,
        });
        let locals = self.locals.iter().map(|(name, value)| (json_size(value), Place::Local, name.clone()));
        let iter = self.iter.iter().map(|(name, value)| (json_size(value), Place::Iter, name.clone()));
        let mut values: Vec<_> = results.chain(locals).chain(iter).collect();
        values.sort_by_key(|(size, ..)| std::cmp::Reverse(*size));
        let everything = Output { inline_bytes_max: Some(0), ..Output::default() };
        for (size, place, name) in values {
            if bytes <= INLINE_BYTES_MAX || size <= KEPT_IN_PLACE_BYTES_MAX {
                return;
            }
            bytes -= size;
            match place {
                Place::Result => {
                    if let Some(result) = self.results.get_mut(&*name)
                        && let Bound::Inline(data) = &result.bound
                    {
                        result.bound = keep(&name, (**data).clone(), &everything);
                    }
                }
                Place::Local => move_name(&mut self.locals, &mut self.stored_locals, &name, &everything, &mut keep),
                Place::Iter => move_name(&mut self.iter, &mut self.stored_iter, &name, &everything, &mut keep),
            }
        }
    }

    /// Returns what later templates see under the step's name; else the stored results that it is made of.
    ///
    /// A single tool gives its data. A list gives label → data, with the fields of the tasks' data on top, the last
    /// task winning; a label is never hidden by a field. That a task failed is said under its label; on top it would
    /// say that the step did, so there it stands for the last task only.
    pub(super) fn result(
        &self,
        step: &Step,
        error: Option<&ToolError>,
        library: &Library,
    ) -> Result<Value, Vec<String>> {
        let skipped = if step.body.pipeline { 0 } else { self.results.len().saturating_sub(1) };
        let mut parts = Vec::with_capacity(self.results.len());
        let mut missing = Vec::new();
        for (label, result) in self.results.iter().skip(skipped) {
            match &result.bound {
                Bound::Inline(data) => parts.push((label, Arc::clone(data), result.error.is_some())),
                Bound::Stored(stored) => match library.get(&stored.reference) {
                    Some(data) => parts.push((label, data, result.error.is_some())),
                    None => missing.push(stored.reference.clone()),
                },
            }
        }
        if !missing.is_empty() {
            return Err(missing);
        }
        if !step.body.pipeline {
            return Ok(match (parts.pop(), error) {
                (Some((_, last, _)), None) => (*last).clone(),
                (Some((_, last, _)), Some(error)) => failed_data(&last, error),
                (None, Some(error)) => failed_data(&Value::Null, error),
                (None, None) => Value::Null,
            });
        }
        let mut merged = Map::new();
        for (label, data, _) in &parts {
            merged.insert(label.to_string(), (**data).clone());
        }
        for (place, (_, data, failed)) in parts.iter().enumerate() {
            let Value::Object(fields) = &**data else { continue };
            let passed_over = *failed && place + 1 < parts.len();
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
        Ok(Value::Object(merged))
    }
}

/// Where a pipeline keeps a value.
#[derive(Debug, Clone, Copy)]
enum Place {
    Result,
    Local,
    Iter,
}

fn move_name(
    values: &mut Map<String, Value>,
    stored: &mut Stored,
    name: &str,
    output: &Output,
    keep: &mut impl FnMut(&str, Value, &Output) -> Bound,
) {
    let Some(value) = values.shift_remove(name) else { return };
    match keep(name, value, output) {
        Bound::Stored(kept) => drop(stored.insert(name.to_owned(), kept)),
        Bound::Inline(value) => drop(values.insert(name.to_owned(), (*value).clone())),
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

/// Binds a name; what it stood for is forgotten, unless the write is only to a part of it.
fn set(values: &mut Map<String, Value>, stored: &mut Stored, path: &[Arc<str>], value: Value) {
    if let Some(name) = path.first() {
        stored.shift_remove(&**name);
    }
    put(values, path, value);
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
