//! YAML as a tree in which every key and value knows its place.
//!
//! This is the only file that knows the YAML library. Scalars follow YAML 1.2: `yes` and `off` are text, so are
//! `0123` and `1_000`. Duplicate keys stay in the tree, so that all of them can be reported at once.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
use serde_saphyr::{DuplicateKeyPolicy, Location, Spanned};

use super::codes;
use crate::diag::{Diagnostic, Severity, Span};

/// Largest source text, in bytes.
pub const SOURCE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Deepest nesting of a source.
pub const SOURCE_DEPTH_MAX: usize = 48;
/// Most keys and values of a source, with every alias written out.
pub const SOURCE_NODES_MAX: usize = 200_000;

/// A value and its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// The value.
    pub(super) yaml: Yaml,
    /// Where it is used.
    pub(super) span: Span,
    /// Where it is written; for an alias that is somewhere else.
    pub(super) written: Span,
}

/// A YAML value.
#[derive(Debug, Clone)]
pub(super) enum Yaml {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key and its place.
#[derive(Debug, Clone)]
pub(super) struct Key {
    /// The key as text, whatever scalar was written.
    pub(super) text: String,
    /// Where it is written.
    pub(super) span: Span,
}

impl Node {
    /// Returns the value of `key`; of equal keys the last one.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().rev().find(|(known, _)| known.text == key).map(|(_, node)| node)
    }

    /// Returns what to point at: a mapping is shown by its first key, a list without brackets by its first item.
    pub(super) fn place(&self) -> Span {
        match &self.yaml {
            Yaml::Map(entries) => entries.first().map_or(self.span, |(key, _)| key.span),
            Yaml::List(items) if self.span.start == self.span.end => items.first().map_or(self.span, Node::place),
            Yaml::Null | Yaml::Bool(_) | Yaml::Number(_) | Yaml::Text(_) | Yaml::List(_) => self.span,
        }
    }

    /// Returns the entries of a map; nothing for other values.
    pub(super) fn entries(&self) -> &[(Key, Node)] {
        match &self.yaml {
            Yaml::Map(entries) => entries,
            Yaml::Null | Yaml::Bool(_) | Yaml::Number(_) | Yaml::Text(_) | Yaml::List(_) => &[],
        }
    }

    /// Returns whether this is a map.
    pub(super) fn is_map(&self) -> bool {
        matches!(self.yaml, Yaml::Map(_))
    }

    /// Returns whether this is null or left out.
    pub(super) fn is_null(&self) -> bool {
        matches!(self.yaml, Yaml::Null)
    }

    /// Returns the text when this is a string.
    pub(super) fn as_str(&self) -> Option<&str> {
        match &self.yaml {
            Yaml::Text(text) => Some(text),
            Yaml::Null | Yaml::Bool(_) | Yaml::Number(_) | Yaml::List(_) | Yaml::Map(_) => None,
        }
    }

    /// Returns what kind of value this is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match &self.yaml {
            Yaml::Null => "nothing",
            Yaml::Bool(_) => "a boolean",
            Yaml::Number(_) => "a number",
            Yaml::Text(_) => "text",
            Yaml::List(_) => "a list",
            Yaml::Map(_) => "a mapping",
        }
    }

    /// Returns the value as JSON.
    pub(super) fn to_json(&self) -> Value {
        match &self.yaml {
            Yaml::Null => Value::Null,
            Yaml::Bool(flag) => Value::Bool(*flag),
            Yaml::Number(number) => Value::Number(number.clone()),
            Yaml::Text(text) => Value::from(text.as_str()),
            Yaml::List(items) => items.iter().map(Node::to_json).collect(),
            Yaml::Map(entries) => entries.iter().map(|(key, node)| (key.text.clone(), node.to_json())).collect(),
        }
    }
}

/// Reads one YAML document.
pub(super) fn parse(source: &str) -> Result<Node, Diagnostic> {
    if source.len() > SOURCE_BYTES_MAX {
        return Err(Diagnostic {
            code: codes::SOURCE_SIZE,
            severity: Severity::Error,
            message: format!("the source has {} bytes, more than {SOURCE_BYTES_MAX}", source.len()),
            span: None,
            hint: Some("keep data out of the playbook: read it from a file, a table or the request".to_owned()),
        });
    }
    let mut options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: SOURCE_DEPTH_MAX, max_nodes: SOURCE_NODES_MAX },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
    };
    options.non_finite_float_policy = serde_saphyr::NonFiniteFloatPolicy::AsString;
    options.alias_limits.max_total_replayed_events = SOURCE_NODES_MAX;
    serde_saphyr::from_str_with_options::<Node>(source, options).map_err(|error| syntax_error(source, &error))
}

fn syntax_error(source: &str, error: &serde_saphyr::Error) -> Diagnostic {
    let text = error.without_snippet().to_string();
    let (message, hint) = match error.without_snippet() {
        serde_saphyr::Error::MultipleDocuments { .. } => {
            ("a source holds one document".to_owned(), Some("register each playbook for itself"))
        }
        serde_saphyr::Error::Budget { .. } | serde_saphyr::Error::AliasReplayLimitExceeded { .. } => {
            let limits = format!("{SOURCE_NODES_MAX} values or {SOURCE_DEPTH_MAX} levels");
            (format!("the source has more than {limits}"), Some("an alias counts as everything that it stands for"))
        }
        // The place is in the span; the library also writes it into the text.
        _ => (text.split(" at line ").next().unwrap_or(&text).trim().to_owned(), None),
    };
    if let Some(tab) = error.location().and_then(|location| indenting_tab(source, span_of(location).line)) {
        return Diagnostic {
            code: codes::SYNTAX,
            severity: Severity::Error,
            message: "tabs are not allowed for indentation".to_owned(),
            span: Some(tab),
            hint: Some("indent with spaces".to_owned()),
        };
    }
    let span = error.location().map(|location| match location.span().byte_offset() {
        Some(_) => span_of(location),
        None => point(source, span_of(location)),
    });
    Diagnostic { code: codes::SYNTAX, severity: Severity::Error, message, span, hint: hint.map(str::to_owned) }
}

/// Finds a tab that indents the line on which YAML gave up, or the next one: that is where it found out.
fn indenting_tab(source: &str, line: u32) -> Option<Span> {
    let mut start = 0;
    for (number, text) in (1_u32..).zip(source.split_inclusive('\n')) {
        let indent = &text[..text.len() - text.trim_start_matches([' ', '\t']).len()];
        let is_near = number == line || number == line.saturating_add(1);
        if let Some(tab) = indent.find('\t').filter(|_| is_near && !text.trim().is_empty()) {
            let at = start + tab;
            return Some(Span { start: at, end: at + 1, line: number, column: u32::try_from(tab).ok()? + 1 });
        }
        start += text.len();
    }
    None
}

/// Fills in the byte offset of a place of which only line and column are known.
fn point(source: &str, place: Span) -> Span {
    let line_start: usize =
        source.split_inclusive('\n').take(place.line.saturating_sub(1) as usize).map(str::len).sum();
    let line = source.get(line_start..).unwrap_or_default();
    let start =
        line_start + line.char_indices().nth(place.column.saturating_sub(1) as usize).map_or(line.len(), |at| at.0);
    Span { start, end: start, ..place }
}

fn span_of(location: Location) -> Span {
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let offset = |number: Option<u64>| number.and_then(|number| usize::try_from(number).ok()).unwrap_or(0);
    let (start, len) = (offset(location.span().byte_offset()), offset(location.span().byte_len()));
    Span { start, end: start + len, line: narrow(location.line()), column: narrow(location.column()) }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Yaml>::deserialize(deserializer)?;
        Ok(Node { yaml: spanned.value, span: span_of(spanned.referenced), written: span_of(spanned.defined) })
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Yaml>::deserialize(deserializer)?;
        let text = match spanned.value {
            Yaml::Text(text) => text,
            Yaml::Null => "null".to_owned(),
            Yaml::Bool(flag) => flag.to_string(),
            Yaml::Number(number) => number.to_string(),
            Yaml::List(_) | Yaml::Map(_) => return Err(de::Error::custom("a key has to be a scalar")),
        };
        Ok(Key { text, span: span_of(spanned.referenced) })
    }
}

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(YamlVisitor)
    }
}

struct YamlVisitor;

impl<'de> Visitor<'de> for YamlVisitor {
    type Value = Yaml;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_unit<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Null)
    }

    fn visit_none<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Yaml, D::Error> {
        Yaml::deserialize(deserializer)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Yaml, E> {
        Ok(Yaml::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Yaml, E> {
        Ok(Yaml::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Yaml, E> {
        Ok(Yaml::Number(number.into()))
    }

    fn visit_i128<E: de::Error>(self, number: i128) -> Result<Yaml, E> {
        Number::from_i128(number).map(Yaml::Number).ok_or_else(|| E::custom("an integer has to fit into 64 bits"))
    }

    fn visit_u128<E: de::Error>(self, number: u128) -> Result<Yaml, E> {
        Number::from_u128(number).map(Yaml::Number).ok_or_else(|| E::custom("an integer has to fit into 64 bits"))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Yaml, E> {
        Number::from_f64(number).map(Yaml::Number).ok_or_else(|| E::custom("a number has to be finite"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Yaml, E> {
        Ok(Yaml::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Yaml, E> {
        Ok(Yaml::Text(text))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Yaml, E> {
        Ok(Yaml::Text(String::from_utf8_lossy(bytes).into_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Yaml, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Yaml::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Yaml, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Yaml::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_follow_yaml_1_2() {
        let node =
            parse("[yes, off, 0123, 1_000, 1.5, ~, true, True, .inf, 0x10, '1', 18446744073709551615, null, '']")
                .unwrap();
        let expected = serde_json::json!([
            "yes",
            "off",
            "0123",
            "1_000",
            1.5,
            null,
            true,
            true,
            ".inf",
            16,
            "1",
            18_446_744_073_709_551_615_u64,
            null,
            ""
        ]);
        assert_eq!(node.to_json(), expected);
    }

    #[test]
    fn every_key_and_value_knows_its_place() {
        let source = "a: |\n  one\nb: {c: 'it''s', 1: x}\n";
        let node = parse(source).unwrap();
        let places: Vec<_> = node.entries().iter().map(|(key, value)| (key.span.line, value.span.line)).collect();
        assert_eq!(places, [(1, 2), (3, 3)]);
        let inner = node.get("b").unwrap().get("c").unwrap();
        assert_eq!(&source[inner.span.start..inner.span.end], "'it''s'");
        assert_eq!((inner.span.line, inner.span.column), (3, 8));
        assert_eq!(node.get("b").unwrap().get("1").unwrap().as_str(), Some("x"));
    }

    #[test]
    fn an_alias_knows_where_it_is_used_and_where_it_is_written() {
        let node = parse("a: &x text\nb: *x\n").unwrap();
        let alias = node.get("b").unwrap();
        assert_eq!((alias.as_str(), alias.span.line, alias.written.line), (Some("text"), 2, 1));
    }

    #[test]
    fn duplicate_keys_stay_in_the_tree() {
        let node = parse("a: 1\nb: 2\na: 3\n").unwrap();
        assert_eq!(node.entries().len(), 3);
        assert_eq!(node.get("a").unwrap().to_json(), 3);
    }

    #[test]
    fn what_is_no_yaml_is_refused_with_its_place() {
        for (source, line, column, message) in [
            ("a: [1", 1, 4, "unclosed bracket"),
            ("a:\n\tb: 1", 2, 1, "tabs are not allowed"),
            ("a:\n  b: 1\n\tc: 2\n", 3, 1, "tabs are not allowed"),
            ("a:\n  b: 1\n  \tc: 2\n", 3, 3, "tabs are not allowed"),
            ("a: b: c", 1, 5, "mapping values are not allowed"),
            ("x: *nope", 1, 4, "unknown anchor"),
            ("ü: 'x", 1, 4, "unclosed quote"),
            ("---\na: 1\n---\nb: 2\n", 4, 1, "one document"),
            ("- a\nb: 1", 2, 1, "did not find expected '-'"),
            ("? [a]\n: 1", 1, 3, "a key has to be a scalar"),
            ("a: !!int x", 1, 10, "invalid u64"),
        ] {
            let error = parse(source).unwrap_err();
            let span = error.span.unwrap();
            assert_eq!((span.line, span.column), (line, column), "{source}: {error}");
            assert!(error.message.contains(message), "{source}: {error}");
            assert!(span.start <= span.end && span.end <= source.len(), "{source}: {span:?}");
        }
    }

    #[test]
    fn sources_are_bounded() {
        let level = |name: char, of: &str| format!("{name}: &{name} [{}]\n", [of; 10].join(","));
        let bomb = level('a', "x")
            + &level('b', "*a")
            + &level('c', "*b")
            + &level('d', "*c")
            + &level('e', "*d")
            + &level('f', "*e");
        for source in [
            bomb,
            "[".repeat(100_000),
            "a: {".repeat(1_000),
            "x".repeat(SOURCE_BYTES_MAX + 1),
            "- x\n".repeat(SOURCE_NODES_MAX + 1),
        ] {
            assert!(parse(&source).is_err(), "{}", &source[..20]);
        }
    }
}
