//! JSON on its way into `jsonb` and back, without a loss.
//!
//! `jsonb` keeps values, not texts: it sorts the keys of every object (shorter ones first, then by bytes), and it keeps
//! numbers as decimals. The language sees both: loops run over the keys of an object in their order, and `1e16` is no
//! integer. So numbers are written with a point and without an exponent, and the order of the keys is kept beside the
//! document wherever it is not the one that `jsonb` makes of it.

use std::fmt::Write as _;
use std::io;

use noetl_core::event::row::{ReadJson, WriteJson};
use serde::Serialize;
use serde::de::{DeserializeOwned, Error as _};
use serde_json::ser::{CharEscape, Formatter, Serializer};
use serde_json::{Map, Value};

/// A document as it is written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Document {
    /// For `jsonb`.
    pub(super) text: String,
    /// The order of keys, when it would be lost: `object:place,place,…;…`. Objects are counted from 0, from the outside
    /// in and from left to right; each place is that of a key in `jsonb`'s order.
    pub(super) order: Option<String>,
}

/// A document as it is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored<'a> {
    pub(super) text: &'a str,
    pub(super) order: Option<&'a str>,
}

impl WriteJson for Document {
    fn write<T: Serialize>(value: &T) -> Self {
        let mut text = Vec::with_capacity(128);
        let mut keys = Keys::default();
        let mut serializer = Serializer::with_formatter(&mut text, Exact { keys: &mut keys });
        value.serialize(&mut serializer).unwrap_or_else(|error| unreachable!("columns are plain JSON: {error}"));
        let text = String::from_utf8(text).unwrap_or_else(|_| unreachable!("JSON is UTF-8"));
        Document { text, order: keys.order() }
    }
}

impl ReadJson for Stored<'_> {
    fn read<T: DeserializeOwned>(self) -> Result<T, serde_json::Error> {
        let Some(order) = self.order else { return serde_json::from_str(self.text) };
        let mut value: Value = serde_json::from_str(self.text)?;
        if Orders::new(order).restore(&mut value).is_none() {
            return Err(serde_json::Error::custom("the order of its keys does not fit it"));
        }
        serde_json::from_value(value)
    }
}

/// The keys of the objects that are being written.
#[derive(Default)]
struct Keys {
    /// The objects that are open, outermost first.
    open: Vec<Object>,
    /// Where the keys of the open objects stand in `text`.
    spans: Vec<(usize, usize)>,
    text: String,
    /// The next characters belong to a key.
    in_key: bool,
    /// Objects begun so far.
    objects: usize,
    /// What was found, by object.
    found: Vec<(usize, Vec<usize>)>,
}

struct Object {
    number: usize,
    first_span: usize,
    text_from: usize,
}

impl Keys {
    fn begin(&mut self) {
        self.open.push(Object { number: self.objects, first_span: self.spans.len(), text_from: self.text.len() });
        self.objects += 1;
    }

    fn key_begins(&mut self) {
        self.in_key = true;
        self.spans.push((self.text.len(), self.text.len()));
    }

    fn key_ends(&mut self) {
        self.in_key = false;
        if let Some(span) = self.spans.last_mut() {
            span.1 = self.text.len();
        }
    }

    fn end(&mut self) {
        let Some(Object { number, first_span, text_from }) = self.open.pop() else { return };
        let key = |span: &(usize, usize)| (span.1 - span.0, &self.text.as_bytes()[span.0..span.1]);
        let spans = &self.spans[first_span..];
        if !spans.is_sorted_by_key(key) {
            let mut sorted: Vec<usize> = (0..spans.len()).collect();
            sorted.sort_by_key(|index| key(&spans[*index]));
            let mut places = vec![0; spans.len()];
            for (place, index) in sorted.into_iter().enumerate() {
                places[index] = place;
            }
            self.found.push((number, places));
        }
        self.spans.truncate(first_span);
        self.text.truncate(text_from);
    }

    fn order(mut self) -> Option<String> {
        // The keys of the outermost object are fields of ours, whose order says nothing.
        if self.found.iter().all(|(number, _)| *number == 0) {
            return None;
        }
        self.found.sort_unstable_by_key(|(number, _)| *number);
        let mut order = String::new();
        for (number, places) in self.found {
            if !order.is_empty() {
                order.push(';');
            }
            write!(order, "{number}:").ok();
            for (index, place) in places.into_iter().enumerate() {
                let comma = if index > 0 { "," } else { "" };
                write!(order, "{comma}{place}").ok();
            }
        }
        Some(order)
    }
}

/// Writes compactly, floats as plain decimals, and listens to keys.
struct Exact<'a> {
    keys: &'a mut Keys,
}

/// Writes a float so that it stays one: `10000000000000000.0`, not `1e16`.
fn decimal(writer: &mut (impl io::Write + ?Sized), text: &str) -> io::Result<()> {
    writer.write_all(text.as_bytes())?;
    if text.contains('.') { Ok(()) } else { writer.write_all(b".0") }
}

impl Formatter for Exact<'_> {
    fn write_f32<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f32) -> io::Result<()> {
        decimal(writer, &value.to_string())
    }

    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        decimal(writer, &value.to_string())
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.keys.begin();
        writer.write_all(b"{")
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.keys.end();
        writer.write_all(b"}")
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.keys.key_begins();
        if first { Ok(()) } else { writer.write_all(b",") }
    }

    fn end_object_key<W: ?Sized + io::Write>(&mut self, _writer: &mut W) -> io::Result<()> {
        self.keys.key_ends();
        Ok(())
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if self.keys.in_key {
            self.keys.text.push_str(fragment);
        }
        writer.write_all(fragment.as_bytes())
    }

    fn write_char_escape<W: ?Sized + io::Write>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()> {
        let (character, text) = match escape {
            CharEscape::Quote => ('"', "\\\""),
            CharEscape::ReverseSolidus => ('\\', "\\\\"),
            CharEscape::Solidus => ('/', "\\/"),
            CharEscape::Backspace => ('\u{8}', "\\b"),
            CharEscape::FormFeed => ('\u{c}', "\\f"),
            CharEscape::LineFeed => ('\n', "\\n"),
            CharEscape::CarriageReturn => ('\r', "\\r"),
            CharEscape::Tab => ('\t', "\\t"),
            CharEscape::AsciiControl(byte) => {
                if self.keys.in_key {
                    self.keys.text.push(char::from(byte));
                }
                return write!(writer, "\\u{byte:04x}");
            }
        };
        if self.keys.in_key {
            self.keys.text.push(character);
        }
        writer.write_all(text.as_bytes())
    }
}

/// The orders of a document, in the order in which its objects are met.
struct Orders<'a> {
    left: std::str::Split<'a, char>,
    next: Option<(usize, &'a str)>,
    objects: usize,
}

impl<'a> Orders<'a> {
    fn new(order: &'a str) -> Self {
        let mut orders = Orders { left: order.split(';'), next: None, objects: 0 };
        orders.advance();
        orders
    }

    fn advance(&mut self) {
        self.next = self.left.next().and_then(|one| {
            let (number, places) = one.split_once(':')?;
            Some((number.parse().ok()?, places))
        });
    }

    /// Puts keys back where they were; `None` when that is impossible.
    fn restore(&mut self, value: &mut Value) -> Option<()> {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(()),
            Value::Array(items) => items.iter_mut().try_for_each(|item| self.restore(item)),
            Value::Object(map) => {
                let number = self.objects;
                self.objects += 1;
                if let Some((_, places)) = self.next.filter(|(next, _)| *next == number) {
                    self.advance();
                    let mut entries: Vec<_> = std::mem::take(map).into_iter().map(Some).collect();
                    let mut ordered = Map::with_capacity(entries.len());
                    for place in places.split(',') {
                        let place: usize = place.parse().ok()?;
                        let (key, item) = entries.get_mut(place)?.take()?;
                        ordered.insert(key, item);
                    }
                    if ordered.len() != entries.len() {
                        return None;
                    }
                    *map = ordered;
                }
                map.values_mut().try_for_each(|item| self.restore(item))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// What `jsonb` makes of a document: keys sorted by length, then by bytes.
    fn as_jsonb(value: Value) -> Value {
        match value {
            Value::Array(items) => Value::Array(items.into_iter().map(as_jsonb).collect()),
            Value::Object(map) => {
                let mut entries: Vec<_> = map.into_iter().map(|(key, item)| (key, as_jsonb(item))).collect();
                entries.sort_by(|(a, _), (b, _)| (a.len(), a).cmp(&(b.len(), b)));
                Value::Object(entries.into_iter().collect())
            }
            other => other,
        }
    }

    fn round_trip(value: &Value) -> Value {
        let written = Document::write(value);
        let kept: Value = serde_json::from_str(&written.text).unwrap();
        let kept = as_jsonb(kept).to_string();
        Stored { text: &kept, order: written.order.as_deref() }.read().unwrap()
    }

    #[test]
    fn the_order_of_keys_comes_back() {
        let value = json!({"data": {"zz": {"b": 1, "a\"\n\u{1}": [{"x": 1, "ä": 2, "a": 3}]}, "y": {}, "x": 2}});
        let back = round_trip(&value);
        // As texts: equality of objects does not look at the order.
        assert_eq!(back.to_string(), value.to_string());
    }

    #[test]
    fn an_order_is_kept_only_where_there_is_something_to_keep() {
        assert_eq!(Document::write(&json!({"status": 1, "data": {"a": 1, "b": 2, "aa": 3}})).order, None);
        assert_eq!(Document::write(&json!({"data": {"b": 1, "a": 2}})).order.as_deref(), Some("1:1,0"));
        // Which object is met first depends on the outermost one.
        let two = json!({"second": {"b": 1, "a": 2}, "first": {"a": 1, "b": 2}});
        assert_eq!(Document::write(&two).order.as_deref(), Some("0:1,0;1:1,0"));
        assert_eq!(Document::write(&json!([1, "b", {"z": 1}])).order, None);
    }

    #[test]
    fn a_float_stays_a_float() {
        let floats = json!([1e16, 1.0, -0.5, 1e-300, 1e300, 0.1 + 0.2, f64::MIN_POSITIVE, f64::MAX]);
        let text = Document::write(&floats).text;
        assert!(!text.contains('e'), "{text}");
        assert!(text.starts_with("[10000000000000000.0,1.0,-0.5,0.000"), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), floats);
    }

    #[test]
    fn an_order_that_does_not_fit_is_damage() {
        for order in ["1:0", "1:0,0", "1:0,2", "1:0,1,2", "1:x,y"] {
            let stored = Stored { text: r#"{"data": {"a": 1, "b": 2}}"#, order: Some(order) };
            assert!(stored.read::<Value>().is_err(), "{order}");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a-c\"\\\\\n]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec(("[a-cä\"\\\\\n\u{1}]{0,3}", inner), 0..5)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_document_comes_back_as_it_was(data in value(), error in value()) {
            let value = json!({"status": 1, "error": error, "data": data});
            let back = round_trip(&value);
            for field in ["data", "error"] {
                prop_assert_eq!(&back[field].to_string(), &value[field].to_string());
            }
        }
    }
}
