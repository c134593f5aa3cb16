//! Plain paths such as `a.b[0].c`, and finding them inside larger expressions.
//!
//! Most templates are nothing but a path. We follow those ourselves: it is faster than the engine, and the rules for
//! results are in one place. In larger expressions every path becomes one variable of the engine.

use std::fmt::Write as _;
use std::sync::Arc;

use super::scan::skip_string;

/// A name and what is looked up below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    /// The name.
    pub(super) root: Arc<str>,
    /// The look-ups, from left to right.
    pub(super) segments: Arc<[Segment]>,
}

/// One look-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    /// `.key` or `['key']`.
    Key(Arc<str>),
    /// `[0]`; negative counts from the end.
    Index(i64),
}

/// An expression with its paths taken out.
#[derive(Debug)]
pub(super) struct Rewritten {
    /// The expression, in which path number n is called [`slot`]`(n)`.
    pub(super) source: String,
    /// The paths, each once.
    pub(super) paths: Vec<Path>,
    /// Names of filters, tests and methods, and where they stand.
    pub(super) called: Vec<(Called, String, usize)>,
}

/// What a name calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Called {
    Filter,
    Test,
    Method,
}

/// What the next word of an expression can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Anything,
    Attribute,
    Called(Called),
}

/// Words that are no names.
const KEYWORDS: &[&str] =
    &["and", "or", "not", "in", "is", "if", "else", "true", "false", "none", "True", "False", "None"];

const SLOT: &str = "_path_";

/// Returns what the engine calls path number `n`.
fn slot(n: usize) -> String {
    format!("{SLOT}{n}")
}

/// Returns the number of the path that the engine calls `name`.
pub(super) fn slot_number(name: &str) -> Option<usize> {
    name.strip_prefix(SLOT)?.parse().ok()
}

impl Rewritten {
    /// Returns the names that are looked into with brackets.
    ///
    /// The engine's own list of names forgets what is sliced (`rows[1:]`). Local names of a program may be among these.
    pub(super) fn indexed_names(&self) -> impl Iterator<Item = Arc<str>> {
        let indexed = |n: usize| self.source.contains(&format!("{}[", slot(n)));
        let paths = self.paths.iter().enumerate();
        paths.filter(move |(n, _)| indexed(*n)).map(|(_, path)| Arc::clone(&path.root))
    }
}

impl Path {
    /// Reads an expression that is nothing but a path.
    pub(super) fn parse(source: &str) -> Option<Path> {
        let (path, end) = read_path(source, 0)?;
        (end == source.len()).then_some(path)
    }
}

/// Takes the paths out of an expression that the engine has already accepted.
pub(super) fn rewrite(source: &str) -> Rewritten {
    let bytes = source.as_bytes();
    let mut out = String::with_capacity(source.len());
    let mut paths: Vec<Path> = Vec::new();
    let mut called = Vec::new();
    let mut at = 0;
    let mut expected = Next::Anything;
    while at < bytes.len() {
        let byte = bytes[at];
        if byte == b'\'' || byte == b'"' {
            let end = skip_string(bytes, at, byte).unwrap_or(bytes.len());
            out.push_str(&source[at..end]);
            (at, expected) = (end, Next::Anything);
            continue;
        }
        if byte.is_ascii_digit() {
            let end = at + number_len(&bytes[at..]);
            out.push_str(&source[at..end]);
            (at, expected) = (end, Next::Anything);
            continue;
        }
        let word = word_len(&source[at..]);
        if word == 0 {
            let end = at + source[at..].chars().next().map_or(1, char::len_utf8);
            out.push_str(&source[at..end]);
            if !byte.is_ascii_whitespace() {
                expected = match byte {
                    b'.' => Next::Attribute,
                    b'|' => Next::Called(Called::Filter),
                    _ => Next::Anything,
                };
            }
            at = end;
            continue;
        }
        let text = &source[at..at + word];
        let next = source[at + word..].trim_start().as_bytes();
        let keyword_argument = next.first() == Some(&b'=') && next.get(1) != Some(&b'=');
        let call = next.first() == Some(&b'(');
        match expected {
            // `is not`: the name of the test is still to come.
            Next::Called(Called::Test) if text == "not" => {}
            Next::Called(what) => {
                called.push((what, text.to_owned(), at));
                expected = Next::Anything;
            }
            Next::Attribute => {
                if call {
                    called.push((Called::Method, text.to_owned(), at));
                }
                expected = Next::Anything;
            }
            Next::Anything if text == "is" => expected = Next::Called(Called::Test),
            Next::Anything if KEYWORDS.contains(&text) || keyword_argument || call => {}
            Next::Anything => {
                if let Some((path, end)) = read_path(source, at) {
                    let n = paths.iter().position(|known| *known == path).unwrap_or_else(|| {
                        paths.push(path);
                        paths.len() - 1
                    });
                    // Writing to a string can not fail.
                    let _ = write!(out, "{}", slot(n));
                    at = end;
                    continue;
                }
            }
        }
        out.push_str(text);
        at += word;
    }
    Rewritten { source: out, paths, called }
}

/// Reads the longest path at `at`: where it starts and what it is; stops before a call.
fn read_path(source: &str, at: usize) -> Option<(Path, usize)> {
    let root_len = word_len(&source[at..]);
    let root = &source[at..at + root_len];
    if root.is_empty() || KEYWORDS.contains(&root) {
        return None;
    }
    let mut segments = Vec::new();
    let mut end = at + root_len;
    if is_call(source, end) {
        return None;
    }
    while let Some((segment, next)) = read_segment(source, end) {
        if is_call(source, next) {
            break;
        }
        segments.push(segment);
        end = next;
    }
    Some((Path { root: Arc::from(root), segments: Arc::from(segments) }, end))
}

fn is_call(source: &str, at: usize) -> bool {
    source[at..].trim_start().starts_with('(')
}

/// Reads `.key`, `[1]`, `[-1]` or `['key']`.
fn read_segment(source: &str, at: usize) -> Option<(Segment, usize)> {
    let bytes = source.as_bytes();
    match bytes.get(at)? {
        b'.' => {
            let len = word_len(&source[at + 1..]);
            let key = &source[at + 1..at + 1 + len];
            (len > 0).then(|| (Segment::Key(Arc::from(key)), at + 1 + len))
        }
        b'[' => {
            let inside = at + 1 + (source[at + 1..].len() - source[at + 1..].trim_start().len());
            let quote = *bytes.get(inside)?;
            let (segment, end) = if quote == b'\'' || quote == b'"' {
                let end = skip_string(bytes, inside, quote)?;
                let key = &source[inside + 1..end - 1];
                // Escapes are for the engine.
                (!key.contains('\\')).then(|| (Segment::Key(Arc::from(key)), end))?
            } else {
                let digits = usize::from(quote == b'-') + inside;
                let end = digits + bytes[digits..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                (Segment::Index(source[inside..end].parse().ok()?), end)
            };
            let close = end + (source[end..].len() - source[end..].trim_start().len());
            (bytes.get(close) == Some(&b']')).then_some((segment, close + 1))
        }
        _ => None,
    }
}

/// Returns the length of the identifier at the start of `text`; 0 when there is none.
fn word_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    match bytes.first() {
        Some(byte) if byte.is_ascii_alphabetic() || *byte == b'_' => {
            bytes.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count()
        }
        _ => 0,
    }
}

/// Returns the length of the number at the start of `bytes`, whatever its form.
fn number_len(bytes: &[u8]) -> usize {
    let mut len = 0;
    while let Some(byte) = bytes.get(len) {
        let exponent_sign = matches!(byte, b'+' | b'-') && matches!(bytes[len - 1], b'e' | b'E') && bytes[0] != b'0';
        let fraction = *byte == b'.' && bytes.get(len + 1).is_some_and(u8::is_ascii_digit);
        if !(byte.is_ascii_alphanumeric() || *byte == b'_' || fraction || len > 0 && exponent_sign) {
            break;
        }
        len += 1;
    }
    len
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(path: &Path) -> String {
        path.segments.iter().fold(path.root.to_string(), |text, segment| match segment {
            Segment::Key(key) => format!("{text}/{key}"),
            Segment::Index(index) => format!("{text}/{index}"),
        })
    }

    #[test]
    fn plain_paths_are_recognised() {
        for (source, expected) in [
            ("a", Some("a")),
            ("a.b.c", Some("a/b/c")),
            ("a.b[0].c", Some("a/b/0/c")),
            ("a[-1]", Some("a/-1")),
            ("a['b c'][\"d\"]", Some("a/b c/d")),
            ("a[ 0 ]", Some("a/0")),
            ("start.items", Some("start/items")),
            ("true", None),
            ("none", None),
            ("a()", None),
            ("a.b()", None),
            ("a + b", None),
            ("a.b | int", None),
            ("a[b]", None),
            ("a[0:1]", None),
            ("1", None),
            ("", None),
            ("a['\\n']", None),
            ("a.0", None),
        ] {
            assert_eq!(Path::parse(source).as_ref().map(show).as_deref(), expected, "{source}");
        }
    }

    #[test]
    fn filters_and_tests_are_found() {
        let found: Vec<_> = rewrite("a.upper | default(b | int) is not none and c is divisibleby 3").called;
        let show: Vec<_> = found.iter().map(|(what, name, at)| format!("{what:?} {name} {at}")).collect();
        assert_eq!(show, ["Filter default 10", "Filter int 22", "Test none 34", "Test divisibleby 48"]);
        let found: Vec<_> = rewrite("a.b.append(c.d) + e.pop | length").called;
        let show: Vec<_> = found.iter().map(|(what, name, at)| format!("{what:?} {name} {at}")).collect();
        assert_eq!(show, ["Method append 4", "Filter length 26"]);
    }

    #[test]
    fn paths_are_taken_out_of_expressions_and_nothing_else_is() {
        for (source, expected, paths) in [
            ("a.b == 'a.b'", "_path_0 == 'a.b'", "a/b"),
            ("a | default(b.c)", "_path_0 | default(_path_1)", "a b/c"),
            ("a | int + a", "_path_0 | int + _path_0", "a"),
            ("x is defined and y is not none", "_path_0 is defined and _path_1 is not none", "x y"),
            ("x is divisibleby y", "_path_0 is divisibleby _path_1", "x y"),
            ("x is not divisibleby y", "_path_0 is not divisibleby _path_1", "x y"),
            ("now()", "now()", ""),
            ("a.get('x').y", "_path_0.get('x').y", "a"),
            ("range(n)", "range(_path_0)", "n"),
            ("a[b.c].d", "_path_0[_path_1].d", "a b/c"),
            ("f(k=v) ", "f(k=_path_0) ", "v"),
            ("x|default(value=none)", "_path_0|default(value=none)", "x"),
            ("{'k': v, k: 1}", "{'k': _path_0, _path_1: 1}", "v k"),
            ("1.5 + 2e10 + 0x1f + a1", "1.5 + 2e10 + 0x1f + _path_0", "a1"),
            ("not a", "not _path_0", "a"),
            ("a in [b, 1]", "_path_0 in [_path_1, 1]", "a b"),
            ("p.x if p else q.x", "_path_0 if _path_1 else _path_2", "p/x p q/x"),
            ("a == b", "_path_0 == _path_1", "a b"),
            ("a . b", "_path_0 . b", "a"),
            ("a[1:2]", "_path_0[1:2]", "a"),
            ("x.y|replace(\"'\", \"''\")", "_path_0|replace(\"'\", \"''\")", "x/y"),
        ] {
            let rewritten = rewrite(source);
            assert_eq!(rewritten.source, expected, "{source}");
            assert_eq!(rewritten.paths.iter().map(show).collect::<Vec<_>>().join(" "), paths, "{source}");
        }
    }
}
