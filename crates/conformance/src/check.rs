//! What a check asks of a value: paths into JSON, and four operators that compare by meaning.

use std::fmt;

use serde_json::{Number, Value};

/// Longest value shown in a message, in characters.
const SHOWN_CHARS_MAX: usize = 400;

/// What must be true of the value that a check looks at.
#[derive(Debug, Clone, PartialEq)]
pub enum Operator {
    /// The same JSON value; numbers compare by value.
    Equals(Value),
    /// A substring, an element, or every given key with an equal value.
    Contains(Value),
    /// So many elements, keys or characters.
    Length(usize),
    /// Whether there is a value at all; null is one.
    Exists(bool),
}

impl Operator {
    /// Checks `found`, the value at the check's path, or returns what is wrong with it.
    pub fn check(&self, found: Option<&Value>) -> Result<(), String> {
        let holds = match (self, found) {
            (Operator::Exists(wanted), found) => found.is_some() == *wanted,
            (Operator::Equals(wanted), Some(found)) => equal(wanted, found),
            (Operator::Contains(wanted), Some(found)) => contains(found, wanted),
            (Operator::Length(wanted), Some(found)) => length(found) == Some(*wanted),
            (Operator::Equals(_) | Operator::Contains(_) | Operator::Length(_), None) => false,
        };
        if holds {
            return Ok(());
        }
        match found {
            Some(found) => Err(format!("must {self}, is {}", shown(found))),
            None => Err(format!("must {self}, is not there")),
        }
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operator::Equals(wanted) => write!(f, "equal {}", shown(wanted)),
            Operator::Contains(wanted) => write!(f, "contain {}", shown(wanted)),
            Operator::Length(wanted) => write!(f, "have length {wanted}"),
            Operator::Exists(true) => f.write_str("be there"),
            Operator::Exists(false) => f.write_str("not be there"),
        }
    }
}

/// Follows a dotted path: map keys, and indexes from 0 into lists.
pub fn follow<'v>(value: &'v Value, path: Option<&str>) -> Option<&'v Value> {
    let Some(path) = path else { return Some(value) };
    path.split('.').try_fold(value, |value, segment| match value {
        Value::Object(map) => map.get(segment),
        Value::Array(list) => segment.parse::<usize>().ok().and_then(|index| list.get(index)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    })
}

/// Says whether two values mean the same: 3 is 3.0, true is neither 1 nor "true", the order of keys says nothing.
pub fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::Number(left), Value::Number(right)) => equal_numbers(left, right),
        (Value::String(left), Value::String(right)) => left == right,
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| equal(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, left)| right.get(key).is_some_and(|right| equal(left, right)))
        }
        (_, _) => false,
    }
}

fn equal_numbers(left: &Number, right: &Number) -> bool {
    // Integers first: above 2^53 two different ones can be the same float.
    match (left.as_i128(), right.as_i128()) {
        (Some(left), Some(right)) => left == right,
        (None, _) | (_, None) => left.as_f64() == right.as_f64(),
    }
}

fn contains(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::String(found), Value::String(wanted)) => found.contains(wanted.as_str()),
        (Value::Array(found), wanted) => found.iter().any(|element| equal(element, wanted)),
        (Value::Object(_), Value::Object(wanted)) => {
            wanted.iter().all(|(path, wanted)| follow(found, Some(path)).is_some_and(|found| equal(found, wanted)))
        }
        (_, _) => false,
    }
}

fn length(found: &Value) -> Option<usize> {
    match found {
        Value::String(text) => Some(text.chars().count()),
        Value::Array(list) => Some(list.len()),
        Value::Object(map) => Some(map.len()),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// Returns the value as compact JSON, cut where it gets long.
pub fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_compare_by_meaning() {
        let cases = [
            (json!(3), json!(3.0), true),
            (json!(3), json!(3.1), false),
            (json!(1), json!(true), false),
            (json!("true"), json!(true), false),
            (json!("3"), json!(3), false),
            (json!(null), json!(null), true),
            (json!(null), json!(false), false),
            (json!(9_007_199_254_740_993_i64), json!(9_007_199_254_740_992_i64), false),
            (json!({"a": 1, "b": [1, {"c": 2}]}), json!({"b": [1.0, {"c": 2}], "a": 1}), true),
            (json!({"a": 1}), json!({"a": 1, "b": 2}), false),
            (json!([1, 2]), json!([2, 1]), false),
            (json!([1]), json!([1, 2]), false),
        ];
        for (left, right, same) in cases {
            assert_eq!(equal(&left, &right), same, "{left} against {right}");
            assert_eq!(equal(&right, &left), same, "{right} against {left}");
        }
    }

    #[test]
    fn paths_follow_keys_and_indexes_and_nothing_else() {
        let value = json!({"rows": [{"n": 1}, {"n": null}], "0": "key", "a": {"b.c": 1}});
        let cases = [
            ("rows.0.n", Some(json!(1))),
            ("rows.1.n", Some(json!(null))),
            ("rows.2", None),
            ("rows.-1", None),
            ("rows.n", None),
            ("0", Some(json!("key"))),
            ("rows.0.n.deeper", None),
            ("a.b.c", None),
        ];
        for (path, wanted) in cases {
            assert_eq!(follow(&value, Some(path)), wanted.as_ref(), "{path}");
        }
        assert_eq!(follow(&value, None), Some(&value));
    }

    #[test]
    fn contains_is_a_substring_an_element_or_a_part_of_a_map() {
        let cases = [
            (json!("It's here"), json!("here"), true),
            (json!("It's here"), json!("Here"), false),
            (json!([1, {"a": 2}]), json!({"a": 2.0}), true),
            (json!([1, {"a": 2, "b": 3}]), json!({"a": 2}), false),
            (json!({"a": {"b": 1}, "c": 2}), json!({"a.b": 1}), true),
            (json!({"a": {"b": 1, "x": 0}, "c": 2}), json!({"a": {"b": 1}}), false),
            (json!({"a": null}), json!({"a": null}), true),
            (json!({}), json!({"a": null}), false),
            (json!({"a": 1}), json!("a"), false),
            (json!(12), json!(1), false),
        ];
        for (found, wanted, holds) in cases {
            assert_eq!(contains(&found, &wanted), holds, "{wanted} in {found}");
        }
    }

    #[test]
    fn length_counts_elements_keys_and_characters() {
        let cases = [
            (json!([1, 2]), Some(2)),
            (json!({"a": 1}), Some(1)),
            (json!("größe"), Some(5)),
            (json!(5), None),
            (json!(null), None),
        ];
        for (value, wanted) in cases {
            assert_eq!(length(&value), wanted, "{value}");
        }
    }

    #[test]
    fn a_null_exists_and_an_absent_value_does_not() {
        assert_eq!(Operator::Exists(true).check(Some(&Value::Null)), Ok(()));
        assert_eq!(Operator::Exists(false).check(None), Ok(()));
        assert!(Operator::Exists(true).check(None).is_err());
        assert!(Operator::Exists(false).check(Some(&Value::Null)).is_err());
        assert!(Operator::Equals(Value::Null).check(None).is_err());
    }

    #[test]
    fn a_failed_check_names_what_was_wanted_and_what_was_found() {
        let failed = Operator::Equals(json!(5)).check(Some(&json!({"a": 1})));
        assert_eq!(failed, Err("must equal 5, is {\"a\":1}".to_owned()));
        let absent = Operator::Length(2).check(None);
        assert_eq!(absent, Err("must have length 2, is not there".to_owned()));
        assert!(shown(&json!("x".repeat(5_000))).len() < 500);
    }
}
