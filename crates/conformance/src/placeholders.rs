//! `${NAME}` in the manifest: text that only the run knows.

use std::collections::BTreeMap;

use serde_json::Value;

/// The value of each placeholder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placeholders {
    values: BTreeMap<&'static str, String>,
}

impl Placeholders {
    /// Gives `name` a value, a new one if it had one.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.values.insert(name, value.into());
        self
    }

    /// Returns `text` with each known placeholder replaced, once: what comes in is not searched again.
    pub fn fill(&self, text: &str) -> String {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let (before, found) = rest.split_at(start);
            filled.push_str(before);
            let named = found.find('}').map(|end| (&found[2..end], &found[end + 1..]));
            match named.and_then(|(name, after)| self.values.get(name).map(|value| (value, after))) {
                Some((value, after)) => {
                    filled.push_str(value);
                    rest = after;
                }
                None => {
                    filled.push_str("${");
                    rest = &found[2..];
                }
            }
        }
        filled.push_str(rest);
        filled
    }

    /// Fills every text of `value`, at any depth; what was text stays text.
    pub fn fill_value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.fill(text)),
            Value::Array(list) => list.iter().map(|element| self.fill_value(element)).collect(),
            Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), self.fill_value(value))).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn placeholders() -> Placeholders {
        Placeholders::default().with("PG_PORT", "5433").with("HTTP_URL", "http://h:1").with("LOOP", "${PG_PORT}")
    }

    #[test]
    fn known_placeholders_are_replaced_as_text() {
        let cases = [
            ("${HTTP_URL}/posts", "http://h:1/posts"),
            ("${PG_PORT}${PG_PORT}", "54335433"),
            ("a ${UNKNOWN} b ${PG_PORT}", "a ${UNKNOWN} b 5433"),
            ("${ ${PG_PORT}", "${ 5433"),
            ("${LOOP}", "${PG_PORT}"),
            ("$PG_PORT {PG_PORT} ${PG_PORT", "$PG_PORT {PG_PORT} ${PG_PORT"),
            ("$${{ x }}$$", "$${{ x }}$$"),
        ];
        for (text, wanted) in cases {
            assert_eq!(placeholders().fill(text), wanted, "{text}");
        }
    }

    #[test]
    fn a_value_keeps_its_types() {
        let value = json!({"port": "${PG_PORT}", "n": 1, "list": ["${HTTP_URL}", null]});
        let wanted = json!({"port": "5433", "n": 1, "list": ["http://h:1", null]});
        assert_eq!(placeholders().fill_value(&value), wanted);
    }
}
