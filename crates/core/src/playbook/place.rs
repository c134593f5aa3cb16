//! From an offset inside a YAML scalar's text to the place in the file.

use std::ops::Range;

use crate::diag::Span;

/// Returns the place of `range` of `text`, which is what the scalar written at `written` means.
///
/// Quotes, escapes, indentation and folded lines make the two differ. They are walked side by side; where that fails,
/// the whole scalar is meant.
pub(super) fn locate(source: &str, written: Span, text: &str, range: Range<usize>) -> Span {
    let Some(scalar) = source.get(written.start..written.end) else {
        return written;
    };
    let start = align(scalar, text, range.start);
    let end = align(scalar, text, range.end.max(range.start + 1));
    match (start, end) {
        (Some(start), end) => {
            let end = end.filter(|end| *end > start).unwrap_or(start + 1).min(scalar.len());
            let before = &scalar[..start];
            let line = written.line + u32::try_from(before.matches('\n').count()).unwrap_or(0);
            let column = match before.rfind('\n') {
                Some(newline) => chars(&before[newline + 1..]) + 1,
                None => written.column + chars(before),
            };
            Span { start: written.start + start, end: written.start + end.max(start), line, column }
        }
        (None, _) => written,
    }
}

fn chars(text: &str) -> u32 {
    u32::try_from(text.chars().count()).unwrap_or(u32::MAX)
}

/// Returns the offset in `scalar` of the character at `offset` of `text`.
fn align(scalar: &str, text: &str, offset: usize) -> Option<usize> {
    let double_quoted = scalar.starts_with('"');
    // Blank lines at the start of a block are outside of its span.
    let blank =
        if scalar.starts_with(char::is_whitespace) { 0 } else { text.len() - text.trim_start_matches('\n').len() };
    let (text, offset) = (&text[blank..], offset.saturating_sub(blank));
    let mut source = scalar.char_indices().peekable();
    if double_quoted || scalar.starts_with('\'') {
        source.next();
    }
    for (at, wanted) in text.char_indices() {
        let found = loop {
            let (here, letter) = source.next()?;
            if double_quoted && letter == '\\' {
                match escape(&mut source) {
                    // The end of a line that goes on: it means nothing itself.
                    None => continue,
                    Some(meant) if meant == wanted => break here,
                    Some(_) => return None,
                }
            }
            if letter == wanted || letter.is_whitespace() && wanted.is_whitespace() {
                break here;
            }
            // Indentation, the second of two quotes, the white space around a fold.
            if !letter.is_whitespace() && letter != '\'' {
                return None;
            }
        };
        if at >= offset {
            return Some(found);
        }
    }
    // Just behind the text.
    (offset >= text.len()).then(|| source.peek().map_or(scalar.len(), |(here, _)| *here))
}

/// Reads what follows a backslash; `None` when it only joins two lines.
fn escape(source: &mut std::iter::Peekable<std::str::CharIndices<'_>>) -> Option<char> {
    let (_, letter) = source.next()?;
    let digits = match letter {
        'x' => 2,
        'u' => 4,
        'U' => 8,
        '\n' | '\r' => {
            while source.peek().is_some_and(|(_, letter)| letter.is_whitespace()) {
                source.next();
            }
            return None;
        }
        '0' => return Some('\0'),
        'a' => return Some('\u{7}'),
        'b' => return Some('\u{8}'),
        't' | '\t' => return Some('\t'),
        'n' => return Some('\n'),
        'v' => return Some('\u{b}'),
        'f' => return Some('\u{c}'),
        'r' => return Some('\r'),
        'e' => return Some('\u{1b}'),
        'N' => return Some('\u{85}'),
        '_' => return Some('\u{a0}'),
        'L' => return Some('\u{2028}'),
        'P' => return Some('\u{2029}'),
        other => return Some(other),
    };
    let mut code = 0;
    for _ in 0..digits {
        code = code * 16 + source.next()?.1.to_digit(16)?;
    }
    char::from_u32(code)
}

#[cfg(test)]
mod tests {
    use super::super::tree;
    use super::*;

    #[test]
    fn a_mark_in_a_scalar_is_found_in_the_file_whatever_the_style() {
        for source in [
            "k: plain <X> text",
            "k: plain over\n  two <X> lines",
            "k: 'it''s <X>'",
            "k: \"q\\n\\u00fc \\\"<X>\\\"\"",
            "k: \"one \\\n  two\\\n  \\ three <X>\"",
            "k: |\n  one\n    two <X>\n",
            "k: |-\n\n  # <X>",
            "k: >-\n  folded\n  text\n\n  and <X> more\n",
            "üü: ü <X>",
            "a: &x 'is <X>'\nk: *x",
            "k: {a: [1, 'b <X>']}",
        ] {
            let node = tree::parse(source).unwrap();
            let mut scalar = node.get("k").or_else(|| node.get("üü")).unwrap().clone();
            if let Some(inner) = scalar.get("a") {
                let tree::Yaml::List(items) = &inner.yaml else { panic!("a list expected") };
                scalar = items[1].clone();
            }
            let text = scalar.as_str().unwrap();
            let at = text.find("<X>").unwrap();
            let span = locate(source, scalar.written, text, at..at + 3);
            assert_eq!(&source[span.start..span.end], "<X>", "{source:?}");
            let line_start = source[..span.start].rfind('\n').map_or(0, |newline| newline + 1);
            let column = source[line_start..span.start].chars().count() + 1;
            let line = source[..span.start].matches('\n').count() + 1;
            assert_eq!((span.line as usize, span.column as usize), (line, column), "{source:?}");
        }
    }
}
