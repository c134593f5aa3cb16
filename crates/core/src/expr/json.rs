//! Between the engine's values and JSON, within bounds.

use std::sync::Arc;

use minijinja::value::{DynObject, Enumerator, Object, ObjectRepr, ValueKind};
use minijinja::{Error, ErrorKind, Value as Engine};
use serde_json::{Map, Number, Value};

use super::view::{Data, View};

/// Deepest nesting of a value that a template makes; what reads it back has such a limit, too.
pub const VALUE_DEPTH_MAX: usize = 100;
/// Largest value that a template makes, in bytes of text and 16 bytes per item.
pub const VALUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What is left to spend on one value.
#[derive(Debug)]
pub(super) struct Budget {
    bytes: usize,
    depth: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { bytes: VALUE_BYTES_MAX, depth: VALUE_DEPTH_MAX }
    }
}

/// Why there is no JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Stop {
    #[error("a stored result has to be loaded first")]
    Needed,
    #[error("the value nests deeper than {VALUE_DEPTH_MAX}")]
    Deep,
    #[error("the value is larger than {VALUE_BYTES_MAX} bytes")]
    Large,
    #[error("{0}")]
    Other(String),
}

impl Budget {
    /// Pays for one item and `bytes` of text.
    pub(super) fn pay(&mut self, bytes: usize) -> Result<(), Stop> {
        self.bytes = self.bytes.checked_sub(bytes.saturating_add(16)).ok_or(Stop::Large)?;
        Ok(())
    }

    /// Does something one level further in.
    pub(super) fn within<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, Stop>) -> Result<T, Stop> {
        self.depth = self.depth.checked_sub(1).ok_or(Stop::Deep)?;
        let done = inner(self);
        self.depth += 1;
        done
    }
}

/// Copies a value.
pub(super) fn copy(value: &Value, budget: &mut Budget) -> Result<Value, Stop> {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            budget.pay(0)?;
            Ok(value.clone())
        }
        Value::String(text) => {
            budget.pay(text.len())?;
            Ok(value.clone())
        }
        Value::Array(items) => {
            budget.pay(0)?;
            budget.within(|budget| items.iter().map(|item| copy(item, budget)).collect())
        }
        Value::Object(map) => {
            budget.pay(0)?;
            budget.within(|budget| {
                let mut out = Map::with_capacity(map.len());
                for (key, item) in map {
                    budget.pay(key.len())?;
                    out.insert(key.clone(), copy(item, budget)?);
                }
                Ok(Value::Object(out))
            })
        }
    }
}

/// Returns a view as JSON; undefined is null.
pub(super) fn from_view(view: &View, budget: &mut Budget) -> Result<Value, Stop> {
    match view.data() {
        Data::Undefined => Ok(Value::Null),
        Data::Needed => Err(Stop::Needed),
        Data::Json(value) => copy(value, budget),
        Data::Text(text) => {
            budget.pay(text.len())?;
            Ok(Value::from(text))
        }
        Data::Entries(entries) => budget.within(|budget| {
            let mut out = Map::with_capacity(entries.len());
            for (key, view) in &entries {
                budget.pay(key.len())?;
                out.insert(key.to_string(), from_view(view, budget)?);
            }
            Ok(Value::Object(out))
        }),
    }
}

/// Returns an engine value as JSON; undefined is null, and so is what JSON has no number for.
pub(super) fn from_engine(value: &Engine, budget: &mut Budget) -> Result<Value, Stop> {
    if let Some(lazy) = value.downcast_object_ref::<Lazy>() {
        return from_view(&lazy.0, budget);
    }
    budget.pay(0)?;
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => Ok(Value::Null),
        ValueKind::Bool => Ok(Value::Bool(value.is_true())),
        ValueKind::Number => Ok(number(value)),
        ValueKind::String | ValueKind::Bytes => {
            let text = value.to_str().map_or_else(|| value.to_string(), |text| text.to_string());
            budget.pay(text.len())?;
            Ok(Value::String(text))
        }
        ValueKind::Seq | ValueKind::Iterable => budget.within(|budget| {
            let mut out = Vec::new();
            for item in value.try_iter().map_err(|error| other(&error))?.checked() {
                out.push(from_engine(&item.map_err(|error| other(&error))?, budget)?);
            }
            Ok(Value::Array(out))
        }),
        ValueKind::Map => budget.within(|budget| {
            let mut out = Map::new();
            let pairs = value.as_object().and_then(DynObject::try_iter_pairs);
            for (key, item) in pairs.into_iter().flatten() {
                let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                budget.pay(key.len())?;
                out.insert(key, from_engine(&item, budget)?);
            }
            Ok(Value::Object(out))
        }),
        ValueKind::Invalid => Err(Stop::Other(value.to_string())),
        kind => Err(Stop::Other(format!("a {kind} is no data"))),
    }
}

fn other(error: &Error) -> Stop {
    Stop::Other(super::engine::describe(error))
}

fn number(value: &Engine) -> Value {
    if let Some(number) = value.as_i64().filter(|_| value.is_integer()) {
        return Value::from(number);
    }
    if value.is_integer()
        && let Ok(number) = u64::try_from(value.clone())
    {
        return Value::from(number);
    }
    f64::try_from(value.clone()).ok().and_then(Number::from_f64).map_or(Value::Null, Value::Number)
}

/// Shows a view to the engine.
pub(super) fn to_engine(view: View) -> Engine {
    if view.is_summary_of_object() {
        return Engine::from_object(Lazy(view));
    }
    let simple = match view.data() {
        Data::Undefined => Some(Engine::UNDEFINED),
        Data::Needed => Some(needed()),
        Data::Text(text) => Some(Engine::from(text)),
        Data::Json(Value::Null) => Some(Engine::from(())),
        Data::Json(Value::Bool(flag)) => Some(Engine::from(*flag)),
        Data::Json(Value::Number(number)) => Some(match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Engine::from(number),
            (None, Some(number)) => Engine::from(number),
            (None, None) => Engine::from(number.as_f64().unwrap_or(f64::NAN)),
        }),
        Data::Json(Value::String(text)) => Some(Engine::from(text.as_str())),
        Data::Json(Value::Array(_) | Value::Object(_)) | Data::Entries(_) => None,
    };
    simple.unwrap_or_else(|| Engine::from_object(Lazy(view)))
}

fn needed() -> Engine {
    Engine::from(Error::new(ErrorKind::InvalidOperation, Stop::Needed.to_string()))
}

/// A view of a list or map that the engine looks into, item by item.
#[derive(Debug)]
pub(super) struct Lazy(View);

impl Object for Lazy {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        if self.0.is_summary_of_object() {
            return ObjectRepr::Map;
        }
        match self.0.data() {
            Data::Json(Value::Array(_)) => ObjectRepr::Seq,
            Data::Json(_) | Data::Entries(_) | Data::Undefined | Data::Needed | Data::Text(_) => ObjectRepr::Map,
        }
    }

    fn get_value(self: &Arc<Self>, key: &Engine) -> Option<Engine> {
        match (key.as_str(), key.as_i64()) {
            (Some(key), _) => self.get_value_by_str(key),
            (None, Some(index)) => defined(self.0.element(index)),
            (None, None) => None,
        }
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Engine> {
        defined(self.0.attribute(key))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        match self.0.data() {
            Data::Json(Value::Array(items)) => Enumerator::Seq(items.len()),
            Data::Json(Value::Object(map)) => {
                Enumerator::Values(map.keys().map(|key| Engine::from(key.as_str())).collect())
            }
            Data::Entries(entries) => Enumerator::Values(entries.iter().map(|(key, _)| Engine::from(&**key)).collect()),
            Data::Needed => Enumerator::Iter(Box::new(std::iter::once(needed()))),
            Data::Json(_) | Data::Undefined | Data::Text(_) => Enumerator::Empty,
        }
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        match self.0.data() {
            Data::Json(Value::Array(items)) => Some(items.len()),
            Data::Json(Value::Object(map)) => Some(map.len()),
            Data::Entries(entries) => Some(entries.len()),
            Data::Needed => None,
            Data::Json(_) | Data::Undefined | Data::Text(_) => Some(0),
        }
    }

    fn is_true(self: &Arc<Self>) -> bool {
        // What is stored apart is large, so it is not empty: no need to load it.
        self.0.is_summary_of_object() || self.enumerator_len() != Some(0)
    }
}

fn defined(view: View) -> Option<Engine> {
    match view {
        View::Undefined => None,
        view => Some(to_engine(view)),
    }
}
