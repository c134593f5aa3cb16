//! Methods that a template may call: what Python's texts and maps answer under the same names.
//!
//! None of them changes anything: a value in a template is what it is. Who has no methods at all is nothing, and like
//! its attributes what its methods give is nothing again; but for a `get` that says what to take instead.

use minijinja::value::{ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

/// Methods of texts, and the filters that do the same.
const AS_FILTERS: &[(&str, &str)] = &[
    ("capitalize", "capitalize"),
    ("lower", "lower"),
    ("replace", "replace"),
    ("split", "split"),
    ("strip", "trim"),
    ("title", "title"),
    ("upper", "upper"),
];

/// Answers a method that the engine itself does not know.
pub(super) fn call(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => of_nothing(name, args),
        ValueKind::Map => of_map(value, name, args),
        ValueKind::String => of_text(state, value, name, args),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// Nothing has no key; whoever says what to take instead gets that.
fn of_nothing(name: &str, args: &[Value]) -> Result<Value, Error> {
    match (name, args) {
        ("get", [_, other]) => Ok(other.clone()),
        _ => Ok(Value::UNDEFINED),
    }
}

fn of_map(value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match name {
        "get" => {
            let (key, other): (Value, Option<Value>) = from_args(args)?;
            let found = value.get_item(&key)?;
            Ok(if found.is_undefined() { other.unwrap_or(Value::from(())) } else { found })
        }
        "keys" => {
            let () = from_args(args)?;
            Ok(value.try_iter()?.collect())
        }
        "values" => {
            let () = from_args(args)?;
            value.try_iter()?.map(|key| value.get_item(&key)).collect()
        }
        "items" => {
            let () = from_args(args)?;
            value.try_iter()?.map(|key| Ok(Value::from(vec![key.clone(), value.get_item(&key)?]))).collect()
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn of_text(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some((_, filter)) = AS_FILTERS.iter().find(|(method, _)| *method == name) {
        let args: Vec<Value> = std::iter::once(value).chain(args).cloned().collect();
        return state.apply_filter(filter, &args);
    }
    match name {
        "startswith" => state.perform_test("startingwith", &[value.clone(), only(args)?]).map(Value::from),
        "endswith" => state.perform_test("endingwith", &[value.clone(), only(args)?]).map(Value::from),
        "join" => state.apply_filter("join", &[only(args)?, value.clone()]),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn only(args: &[Value]) -> Result<Value, Error> {
    let (only,): (Value,) = from_args(args)?;
    Ok(only)
}

#[cfg(test)]
mod tests {
    use minijinja::Value;
    use serde_json::{Value as Json, json};

    use crate::expr::engine::ENGINE;

    fn eval(expression: &str) -> Result<Json, String> {
        let map = [("k", Value::from("v")), ("n", Value::from(())), ("items", Value::from(3))];
        let names = Value::from_pairs([
            ("m", Value::from_pairs(map)),
            ("s", Value::from("a-b-c")),
            ("l", Value::from(vec!["x", "y"])),
        ]);
        let value = ENGINE.compile_expression(expression).unwrap().eval(names).map_err(|error| error.to_string())?;
        Ok(serde_json::to_value(value).unwrap())
    }

    #[test]
    fn texts_and_maps_have_the_methods_of_python() {
        for (expression, expected) in [
            ("m.get('k')", json!("v")),
            ("m.get('x') is none", json!(true)),
            ("m.get('x', {}).get('y', 7)", json!(7)),
            ("m.get('n', 7)", json!(null)),
            ("m.keys()", json!(["k", "n", "items"])),
            ("m.values()", json!(["v", null, 3])),
            // As everywhere a key is a key; as a call it is the method.
            ("m.items", json!(3)),
            ("m.items()", json!([["k", "v"], ["n", null], ["items", 3]])),
            ("s.split('-')", json!(["a", "b", "c"])),
            ("s.split('-')[1]", json!("b")),
            ("s.replace('-', '+').upper()", json!("A+B+C")),
            ("' x '.strip() ~ 'Y'.lower()", json!("xy")),
            ("s.startswith('a-') and not s.endswith('b')", json!(true)),
            ("', '.join(l)", json!("x, y")),
            ("nothing.get('k').get('x') is defined", json!(false)),
            ("none.get('k') is defined", json!(false)),
            ("nothing.get('k', 7)", json!(7)),
            ("nothing.get('k', {}).get('x', 8)", json!(8)),
            ("none.get('k', 'd')", json!("d")),
        ] {
            assert_eq!(eval(expression), Ok(expected), "{expression}");
        }
    }

    #[test]
    fn other_methods_and_wrong_arguments_are_errors() {
        for expression in ["s.format(1)", "m.pop('k')", "l.append(1)", "m.get()", "m.keys(1)", "s.startswith()"] {
            assert!(eval(expression).is_err(), "{expression}");
        }
    }
}
