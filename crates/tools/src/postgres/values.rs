//! Values between SQL's texts and JSON.

use serde_json::{Number, Value};
use tokio_postgres::types::{Kind, Type};

/// Returns the JSON of a value that the server wrote as `text`.
pub(crate) fn json_of(kind: &Type, text: &str) -> Value {
    let as_text = || Value::String(text.to_owned());
    match *kind {
        Type::BOOL => match text {
            "t" => Value::Bool(true),
            "f" => Value::Bool(false),
            _ => as_text(),
        },
        Type::INT2 | Type::INT4 | Type::INT8 | Type::OID => text.parse::<i64>().map_or_else(|_| as_text(), Value::from),
        // NaN and the infinite ones are no numbers of JSON.
        Type::FLOAT4 | Type::FLOAT8 => {
            text.parse::<f64>().ok().and_then(Number::from_f64).map_or_else(as_text, Value::Number)
        }
        Type::NUMERIC => exact_number(text).map_or_else(as_text, Value::Number),
        Type::JSON | Type::JSONB => serde_json::from_str(text).unwrap_or_else(|_| as_text()),
        Type::TIMESTAMP | Type::TIMESTAMPTZ | Type::TIMETZ => Value::String(iso(text)),
        _ => match kind.kind() {
            Kind::Array(element) => array(element, text).unwrap_or_else(as_text),
            Kind::Domain(base) => json_of(base, text),
            _ => as_text(),
        },
    }
}

/// Returns the number if JSON's readers get exactly its value: as an integer of 64 bits, or as the floating-point
/// number that is written with the same digits.
fn exact_number(text: &str) -> Option<Number> {
    if let Ok(integer) = text.parse::<i64>() {
        return Some(integer.into());
    }
    if let Ok(integer) = text.parse::<u64>() {
        return Some(integer.into());
    }
    let number: f64 = text.parse().ok()?;
    let written = format!("{number:e}");
    (digits(text)? == digits(&written)?).then(|| Number::from_f64(number)).flatten()
}

/// Returns sign, digits without zeros around them, and the power of ten of the last digit.
fn digits(text: &str) -> Option<(bool, String, i64)> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let negative = mantissa.starts_with('-');
    let mantissa = mantissa.trim_start_matches(['-', '+']);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let trimmed = all.trim_end_matches('0');
    let dropped = i64::try_from(all.len() - trimmed.len()).ok()?;
    let power = exponent.parse::<i64>().ok()? - i64::try_from(fraction.len()).ok()? + dropped;
    let significant = trimmed.trim_start_matches('0');
    Some(if significant.is_empty() { (false, String::new(), 0) } else { (negative, significant.to_owned(), power) })
}

/// Returns a time stamp of the server's ISO style as ISO 8601 has it: `T` between date and time, a zone with minutes.
fn iso(text: &str) -> String {
    // `infinity`, and years before Christ, have no such form.
    if !text.starts_with(|first: char| first.is_ascii_digit()) || text.ends_with("BC") {
        return text.to_owned();
    }
    let mut written = text.replacen(' ', "T", 1);
    let time_from = written.find('T').map_or(0, |t| t + 1);
    if let Some(sign) = written[time_from..].rfind(['+', '-'])
        && written.len() - (time_from + sign) == "+00".len()
    {
        written.push_str(":00");
    }
    written
}

/// Reads `{…}`; `None` if it is not what an array looks like.
fn array(element: &Type, text: &str) -> Option<Value> {
    // Bounds that do not start at 1 stand before: `[0:2]={…}`.
    let text = match text.strip_prefix('[') {
        Some(bounds) => bounds.split_once('=')?.1,
        None => text,
    };
    // Boxes are separated by `;`, everything else by `,`.
    let separator = if *element == Type::BOX { b';' } else { b',' };
    let mut reader = ArrayReader { text, at: 0, element, separator };
    let value = reader.list()?;
    (reader.at == text.len()).then_some(value)
}

struct ArrayReader<'a> {
    text: &'a str,
    at: usize,
    element: &'a Type,
    separator: u8,
}

impl ArrayReader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// PostgreSQL allows six dimensions, so this does not go deep.
    fn list(&mut self) -> Option<Value> {
        let mut items = Vec::new();
        if self.peek()? != b'{' {
            return None;
        }
        self.at += 1;
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(Value::Array(items));
        }
        loop {
            items.push(match self.peek()? {
                b'{' => self.list()?,
                b'"' => json_of(self.element, &self.quoted()?),
                _ => {
                    let start = self.at;
                    while self.peek()? != self.separator && self.peek()? != b'}' {
                        self.at += 1;
                    }
                    match &self.text[start..self.at] {
                        "NULL" => Value::Null,
                        plain => json_of(self.element, plain),
                    }
                }
            });
            let end = self.peek()?;
            self.at += 1;
            match end {
                b'}' => return Some(Value::Array(items)),
                _ if end == self.separator => {}
                _ => return None,
            }
        }
    }

    fn quoted(&mut self) -> Option<String> {
        let mut bytes = Vec::new();
        self.at += 1;
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return String::from_utf8(bytes).ok();
                }
                b'\\' => self.at += 1,
                _ => {}
            }
            bytes.push(self.peek()?);
            self.at += 1;
        }
    }
}

/// Returns the text that the server reads as a value of `kind`; `None` is SQL's null.
pub(crate) fn text_of(kind: &Type, value: &Value) -> Option<String> {
    match value {
        // A JSON column keeps a JSON null apart from no value; in playbooks null is no value.
        Value::Null => None,
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        // A text for a JSON column is JSON if it reads as such, as it is for the server itself.
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => Some(match kind.kind() {
            Kind::Array(element) => array_literal(Some(element), items),
            _ => value.to_string(),
        }),
        Value::Object(_) => Some(value.to_string()),
    }
}

/// Returns `{…}` with the items of a list.
pub(crate) fn array_literal(element: Option<&Type>, items: &[Value]) -> String {
    let items: Vec<String> = items
        .iter()
        .map(|item| match item {
            Value::Array(inner) => array_literal(element, inner),
            other => match text_of(element.unwrap_or(&Type::TEXT), other) {
                Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
                None => "NULL".to_owned(),
            },
        })
        .collect();
    format!("{{{}}}", items.join(","))
}

/// Returns a value as a constant in SQL.
pub(crate) fn literal(kind: &Type, value: &Value) -> Result<String, String> {
    let Some(text) = text_of(kind, value) else { return Ok("NULL".to_owned()) };
    if text.contains('\0') {
        return Err("a parameter holds a NUL character, which PostgreSQL does not keep".to_owned());
    }
    let quoted = text.replace('\'', "''");
    // `E` says that a backslash escapes, whatever the session's setting says of ordinary quotes.
    Ok(match quoted.contains('\\') {
        true => format!("E'{}'", quoted.replace('\\', "\\\\")),
        false => format!("'{quoted}'"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_keep_their_types() {
        let table = [
            (Type::BOOL, "t", json!(true)),
            (Type::INT8, "-9223372036854775808", json!(i64::MIN)),
            (Type::FLOAT8, "0.1", json!(0.1)),
            (Type::FLOAT8, "NaN", json!("NaN")),
            (Type::NUMERIC, "16.50", json!(16.5)),
            (Type::NUMERIC, "0.00", json!(0.0)),
            (Type::NUMERIC, "-0.30", json!(-0.3)),
            (Type::NUMERIC, "18446744073709551615", json!(u64::MAX)),
            (Type::NUMERIC, "100000000000000000000", json!(1e20)),
            (Type::NUMERIC, "100000000000000000001", json!("100000000000000000001")),
            (Type::NUMERIC, "0.1234567890123456789", json!("0.1234567890123456789")),
            (Type::NUMERIC, "NaN", json!("NaN")),
            (Type::NUMERIC, "Infinity", json!("Infinity")),
            (Type::JSONB, "{\"a\": [1, null]}", json!({"a": [1, null]})),
            (Type::TIMESTAMP, "2024-02-03 04:05:06.789", json!("2024-02-03T04:05:06.789")),
            (Type::TIMESTAMPTZ, "2024-02-03 04:05:06+00", json!("2024-02-03T04:05:06+00:00")),
            (Type::TIMESTAMPTZ, "2024-02-03 04:05:06-03:30", json!("2024-02-03T04:05:06-03:30")),
            (Type::TIMESTAMP, "infinity", json!("infinity")),
            (Type::TIMESTAMP, "0044-03-15 00:00:00 BC", json!("0044-03-15 00:00:00 BC")),
            (Type::TIMETZ, "04:05:06+02", json!("04:05:06+02:00")),
            (Type::DATE, "2024-02-03", json!("2024-02-03")),
            (Type::BYTEA, "\\x00ff", json!("\\x00ff")),
            (Type::INT4_ARRAY, "{1,NULL,3}", json!([1, null, 3])),
            (Type::INT4_ARRAY, "{}", json!([])),
            (Type::INT4_ARRAY, "{{1,2},{3,4}}", json!([[1, 2], [3, 4]])),
            (Type::INT4_ARRAY, "[0:1]={1,2}", json!([1, 2])),
            (
                Type::TEXT_ARRAY,
                r#"{a,"b,c","d\"e\\f","NULL","","é;"}"#,
                json!(["a", "b,c", "d\"e\\f", "NULL", "", "é;"]),
            ),
            (Type::JSONB_ARRAY, r#"{"{\"a\": 1}"}"#, json!([{"a": 1}])),
            (Type::BOX_ARRAY, "{(1,1),(0,0);(2,2),(1,1)}", json!(["(1,1),(0,0)", "(2,2),(1,1)"])),
            (Type::TEXT_ARRAY, "{a", json!("{a")),
            (Type::TEXT_ARRAY, "{a}b", json!("{a}b")),
            (Type::POINT, "(1,2)", json!("(1,2)")),
        ];
        for (kind, text, expected) in table {
            assert_eq!(json_of(&kind, text), expected, "{kind} {text}");
        }
    }

    #[test]
    fn parameters_become_constants_that_can_not_break_out() {
        let table = [
            (Type::INT4, json!(null), "NULL"),
            (Type::INT4, json!(5), "'5'"),
            (Type::BOOL, json!(true), "'true'"),
            (Type::TEXT, json!("it's; --"), "'it''s; --'"),
            (Type::TEXT, json!("a\\'b"), "E'a\\\\''b'"),
            (Type::JSONB, json!({"a": "b'c"}), "'{\"a\":\"b''c\"}'"),
            (Type::JSONB, json!([1, "x"]), "'[1,\"x\"]'"),
            (Type::INT4_ARRAY, json!([1, null]), "'{\"1\",NULL}'"),
            (Type::TEXT_ARRAY, json!(["a\"b\\c", ["d"]]), "E'{\"a\\\\\"b\\\\\\\\c\",{\"d\"}}'"),
        ];
        for (kind, value, expected) in table {
            assert_eq!(literal(&kind, &value).as_deref(), Ok(expected), "{value}");
        }
        assert!(literal(&Type::TEXT, &json!("a\0")).is_err());
    }
}
