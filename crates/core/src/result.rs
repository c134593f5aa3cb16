//! Results: small ones live in the log, large ones beside it, both under the same name.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::ExecutionId;
use crate::playbook::Output;

/// Largest result that stays in the log, in bytes of JSON.
pub const INLINE_BYTES_MAX: usize = 64 * 1024;
/// Largest result called `kv`; larger ones are called `disk`.
pub const KV_BYTES_MAX: usize = 1024 * 1024;
/// Largest scalar or small field that a summary keeps, in bytes of JSON.
pub const SUMMARY_FIELD_BYTES_MAX: usize = 1024;
/// Largest summary, in bytes of JSON.
pub const SUMMARY_BYTES_MAX: usize = 16 * 1024;

/// A result, or the way to it. In JSON `{"data": …}` or `{"reference": {…}}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Bound {
    /// The data itself.
    #[serde(rename = "data")]
    Inline(Arc<Value>),
    /// Stored outside the log.
    #[serde(rename = "reference")]
    Stored(Arc<StoredRef>),
}

/// Where a large result is, and the part of it that needs no look-up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredRef {
    /// `noetl://execution/<execution_id>/result/<name>/<id>`: the key in the `result` table.
    #[serde(rename = "ref")]
    pub reference: String,
    /// `kv`, `disk`, or what the playbook named.
    pub store: String,
    /// Size of the data as JSON.
    pub bytes: u64,
    /// Scalars, small fields, selected fields of the data; null when it is no object.
    pub summary: Value,
}

impl Bound {
    /// Returns `data` in place.
    pub fn inline(data: Value) -> Self {
        Bound::Inline(Arc::new(data))
    }

    /// Returns a result of nothing.
    pub fn null() -> Self {
        Bound::inline(Value::Null)
    }
}

/// A large result on its way to the `result` table.
#[derive(Debug, Clone, PartialEq)]
pub struct LargeResult {
    /// The run it belongs to.
    pub execution_id: ExecutionId,
    /// [`StoredRef::reference`].
    pub reference: String,
    /// [`StoredRef::store`].
    pub store: String,
    /// [`StoredRef::bytes`].
    pub bytes: u64,
    /// The data.
    pub data: Arc<Value>,
}

/// Keeps `data` in place when it is small, else moves it out under `name` and `id`.
///
/// `output` says what the playbook wants: which fields stay readable whatever their size, what the tier is called, and
/// what it takes for small; the log's own bound holds in any case.
pub fn bind(
    execution_id: ExecutionId,
    name: &str,
    id: i64,
    data: Value,
    output: &Output,
) -> (Bound, Option<LargeResult>) {
    let bytes = json_size(&data);
    if bytes <= output.inline_bytes_max.unwrap_or(INLINE_BYTES_MAX).min(INLINE_BYTES_MAX) {
        return (Bound::inline(data), None);
    }
    let tier = if bytes <= KV_BYTES_MAX { "kv" } else { "disk" };
    let store = match output.store.as_deref() {
        None | Some("auto") => tier,
        Some(named) => named,
    };
    let data = Arc::new(data);
    let large = LargeResult {
        execution_id,
        reference: format!("noetl://execution/{execution_id}/result/{name}/{id}"),
        store: store.to_owned(),
        bytes: bytes as u64,
        data: Arc::clone(&data),
    };
    let stored = StoredRef {
        reference: large.reference.clone(),
        store: large.store.clone(),
        bytes: large.bytes,
        summary: summarise(&data, &output.select),
    };
    (Bound::Stored(Arc::new(stored)), Some(large))
}

/// Returns a stored result as plain data: its summary, and where the rest is.
pub fn stored_value(stored: &StoredRef) -> Value {
    let mut map = match &stored.summary {
        Value::Object(map) => map.clone(),
        _ => Map::new(),
    };
    map.insert("_ref".into(), stored.reference.clone().into());
    map.insert("_store".into(), stored.store.clone().into());
    Value::Object(map)
}

/// Returns how many bytes `value` takes as compact JSON, without writing it. Escapes count as one byte.
pub fn json_size(value: &Value) -> usize {
    match value {
        Value::Null => 4,
        Value::Bool(true) => 4,
        Value::Bool(false) => 5,
        Value::Number(number) => number.as_i64().map_or(8, |n| if (0..10).contains(&n) { 1 } else { 6 }),
        Value::String(text) => text.len() + 2,
        Value::Array(items) => 2 + items.iter().map(|item| json_size(item) + 1).sum::<usize>(),
        Value::Object(map) => 2 + map.iter().map(|(key, item)| key.len() + 4 + json_size(item)).sum::<usize>(),
    }
}

fn summarise(data: &Value, select: &[String]) -> Value {
    let Value::Object(map) = data else {
        return Value::Null;
    };
    let mut summary = Map::new();
    let mut bytes = 0;
    for (key, item) in map {
        let size = json_size(item) + key.len();
        let selected = select.iter().any(|name| name == key);
        if selected || size <= SUMMARY_FIELD_BYTES_MAX && bytes + size <= SUMMARY_BYTES_MAX {
            bytes += size;
            summary.insert(key.clone(), item.clone());
        }
    }
    Value::Object(summary)
}
