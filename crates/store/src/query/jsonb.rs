//! PostgreSQL's `jsonb` operators on JSON values.
//!
//! Missing (`None`, SQL NULL) and JSON `null` are two things here as they are there.

use serde_json::{Map, Value};

/// A step into a document: the right side of `->`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Names a key of an object; finds nothing in an array.
    Key(String),
    /// Counts into an array, from its end when negative; finds nothing in an object.
    Index(i64),
    /// An element of a `#>` path, which fits objects and arrays.
    Either(String),
}

/// Returns what stands at the end of the steps.
pub(super) fn get<'v>(value: &'v Value, steps: &[Step]) -> Option<&'v Value> {
    steps.iter().try_fold(value, |value, step| match (value, step) {
        (Value::Object(map), Step::Key(key) | Step::Either(key)) => map.get(key),
        (Value::Array(list), Step::Index(index)) => at(list, *index),
        (Value::Array(list), Step::Either(text)) => at(list, text.parse().ok()?),
        (_, Step::Key(_) | Step::Index(_) | Step::Either(_)) => None,
    })
}

fn at(list: &[Value], index: i64) -> Option<&Value> {
    let from_start = if index < 0 { i64::try_from(list.len()).ok()?.checked_add(index)? } else { index };
    list.get(usize::try_from(from_start).ok()?)
}

/// Returns the text that `->>` gives: strings bare, JSON `null` as nothing, anything else written out.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => Some(to_text(value)),
    }
}

/// Writes a document as PostgreSQL prints `jsonb`: a space after `:` and `,`, short keys first.
pub(super) fn to_text(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => out.push_str(&value.to_string()),
        Value::Array(list) => {
            out.push('[');
            for (index, element) in list.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write(element, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
            out.push('{');
            for (index, key) in keys.into_iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                out.push_str(&Value::String(key.clone()).to_string());
                out.push_str(": ");
                write(&map[key], out);
            }
            out.push('}');
        }
    }
}

/// Returns the name that `jsonb_typeof` gives.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Tells whether the left document contains the right one: `@>`.
pub(super) fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        // The one exception of the rule that shapes must agree, and only on top: an array contains a bare scalar.
        (Value::Array(list), Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
            list.iter().any(|found| equal(found, part))
        }
        _ => covers(whole, part),
    }
}

fn covers(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, value)| whole.get(key).is_some_and(|found| covers(found, value)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            part.iter().all(|value| whole.iter().any(|found| covers(found, value)))
        }
        _ => equal(whole, part),
    }
}

/// Compares as `jsonb` does: keys in any order, `1` equal to `1.0`.
pub(super) fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left == right || left.as_f64() == right.as_f64(),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| equal(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, value)| right.get(key).is_some_and(|other| equal(value, other)))
        }
        _ => left == right,
    }
}

/// Tells whether a key, or a string element of an array, exists on top: `?`.
pub(super) fn exists(value: &Value, key: &str) -> bool {
    match value {
        Value::Object(map) => map.contains_key(key),
        Value::Array(list) => list.iter().any(|element| element.as_str() == Some(key)),
        Value::String(text) => text == key,
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Joins two documents: `||`.
pub(super) fn concat(left: Value, right: Value) -> Value {
    match (left, right) {
        (Value::Object(mut left), Value::Object(right)) => {
            left.extend(right);
            Value::Object(left)
        }
        (left, right) => {
            let mut list = into_list(left);
            list.extend(into_list(right));
            Value::Array(list)
        }
    }
}

fn into_list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(list) => list,
        other => vec![other],
    }
}

/// Takes a key, or the string elements equal to it, out of a document: `-`.
pub(super) fn without_key(value: Value, key: &str) -> Option<Value> {
    match value {
        Value::Object(mut map) => {
            map.shift_remove(key);
            Some(Value::Object(map))
        }
        Value::Array(mut list) => {
            list.retain(|element| element.as_str() != Some(key));
            Some(Value::Array(list))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// Takes the element at an index out of an array: `-`.
pub(super) fn without_index(value: Value, index: i64) -> Option<Value> {
    let Value::Array(mut list) = value else { return None };
    let length = i64::try_from(list.len()).ok()?;
    let from_start = if index < 0 { length.checked_add(index)? } else { index };
    if (0..length).contains(&from_start) {
        list.remove(usize::try_from(from_start).ok()?);
    }
    Some(Value::Array(list))
}

/// Drops the keys whose value is null, at every depth: `jsonb_strip_nulls`.
pub(super) fn strip_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key, strip_nulls(value))).collect::<Map<_, _>>())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(strip_nulls).collect()),
        other => other,
    }
}

/// Reads a `'{a,0,"b c"}'` array literal; an unquoted NULL is `None`.
pub(super) fn parse_array_literal(text: &str) -> Option<Vec<Option<String>>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut elements = Vec::new();
    let mut letters = inner.chars().peekable();
    if inner.trim().is_empty() {
        return Some(elements);
    }
    loop {
        while letters.peek().is_some_and(|letter| letter.is_whitespace()) {
            letters.next();
        }
        let mut element = String::new();
        let quoted = letters.peek() == Some(&'"');
        if quoted {
            letters.next();
            loop {
                match letters.next()? {
                    '"' => break,
                    '\\' => element.push(letters.next()?),
                    letter => element.push(letter),
                }
            }
            while letters.peek().is_some_and(|letter| letter.is_whitespace()) {
                letters.next();
            }
        } else {
            while let Some(letter) = letters.next_if(|letter| *letter != ',') {
                match letter {
                    // Arrays of arrays have no place here.
                    '{' | '}' | '"' => return None,
                    '\\' => element.push(letters.next()?),
                    letter => element.push(letter),
                }
            }
            element.truncate(element.trim_end().len());
            if element.is_empty() {
                return None;
            }
        }
        let null = !quoted && element.eq_ignore_ascii_case("null");
        elements.push((!null).then_some(element));
        match letters.next() {
            None => return Some(elements),
            Some(',') => {}
            Some(_) => return None,
        }
    }
}

/// Writes an array as PostgreSQL prints it: `{a,"b c",NULL}`.
pub(super) fn array_text(list: &[Value]) -> String {
    let elements: Vec<String> = list
        .iter()
        .map(|element| match element {
            Value::Null => "NULL".to_owned(),
            Value::Bool(true) => "t".to_owned(),
            Value::Bool(false) => "f".to_owned(),
            Value::Number(number) => number.to_string(),
            Value::Array(inner) => array_text(inner),
            Value::String(text) => quote_element(text),
            Value::Object(_) => quote_element(&to_text(element)),
        })
        .collect();
    format!("{{{}}}", elements.join(","))
}

fn quote_element(text: &str) -> String {
    let special = |letter: char| letter.is_whitespace() || matches!(letter, '{' | '}' | ',' | '"' | '\\');
    if text.is_empty() || text.eq_ignore_ascii_case("null") || text.chars().any(special) {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containment_follows_postgresql() {
        let table = [
            (json!({"a": 1, "b": {"c": [1, 2]}}), json!({"b": {"c": [2]}}), true),
            (json!({"a": 1}), json!({"a": 2}), false),
            (json!([1, 2, 2]), json!([2, 2, 2]), true),
            (json!(["a", "b"]), json!("a"), true),
            (json!("a"), json!(["a"]), false),
            (json!([1, [2]]), json!([2]), false),
            (json!({"a": 1}), json!({"a": 1.0}), true),
            (json!({"a": null}), json!({"a": null}), true),
        ];
        for (whole, part, expected) in table {
            assert_eq!(contains(&whole, &part), expected, "{whole} @> {part}");
        }
    }

    #[test]
    fn text_puts_short_keys_first() {
        assert_eq!(to_text(&json!({"bb": [1, {}], "c": "x\"y"})), r#"{"c": "x\"y", "bb": [1, {}]}"#);
    }

    #[test]
    fn array_literals_are_read_and_written() {
        let read = parse_array_literal(r#"{a, "b, c" ,NULL,"NULL",0}"#).unwrap();
        let expected = [Some("a"), Some("b, c"), None, Some("NULL"), Some("0")];
        assert_eq!(read, expected.map(|element| element.map(str::to_owned)));
        for bad in ["", "a", "{a,}", "{a", "{{a}}", "{\"a}"] {
            assert_eq!(parse_array_literal(bad), None, "{bad}");
        }
        assert_eq!(array_text(&[json!("a"), json!("b c"), json!(null), json!("null")]), r#"{a,"b c",NULL,"null"}"#);
    }
}
