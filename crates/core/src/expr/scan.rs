//! Where the expressions of a template are: cuts text the way the engine's own lexer does.
//!
//! Knowing the cuts lets us evaluate `{{ … }}` pieces one by one, keep the type of a lone one, and refuse templates
//! that would make the engine recurse too deep. What the cuts mean is for the engine to say.

use super::TemplateError;

/// Most operators, dots, pipes and opening brackets in one expression or statement; each may nest the syntax tree once.
pub const EXPRESSION_OPERATORS_MAX: usize = 1_000;
/// Most of them in one template, all its expressions together: a bound for the work, not for the nesting.
pub const TEMPLATE_OPERATORS_MAX: usize = 100_000;
/// Deepest brackets within one expression.
pub const TEMPLATE_BRACKETS_MAX: usize = 40;
/// Most statements (`{% … %}`) in one template.
pub const TEMPLATE_STATEMENTS_MAX: usize = 500;

/// A template, cut up.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scan<'a> {
    /// No template at all.
    Plain,
    /// One expression and nothing but white space around it.
    Single(Piece<'a>),
    /// Text and expressions.
    Pieces(Vec<Piece<'a>>),
    /// Statements, comments or white space control: all of it is for the engine. The insides of its tags.
    Program(Vec<&'a str>),
}

/// A part of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    /// The text, or the inside of the braces without white space around it.
    pub(super) text: &'a str,
    /// Where `text` starts in the template.
    pub(super) start: usize,
    /// Whether this is the inside of `{{ }}`.
    pub(super) expression: bool,
}

/// Cuts `source`.
pub(super) fn scan(source: &str) -> Result<Scan<'_>, TemplateError> {
    let (mut pieces, mut insides) = (Vec::new(), Vec::new());
    let (mut program, mut statements, mut operators) = (false, 0, 0);
    let mut at = 0;
    while let Some((start, tag)) = next_tag(source, at) {
        if start > at {
            pieces.push(Piece { text: &source[at..start], start: at, expression: false });
        }
        let inside = start + 2;
        let before = operators;
        let (end, after) = match tag {
            Tag::Comment => {
                let end = source[inside..].find("#}").map(|end| inside + end);
                program = true;
                end.map(|end| (end, end + 2))
            }
            Tag::Statement => {
                statements += 1;
                program = true;
                close(source, inside, "%}", &mut operators)?
            }
            Tag::Expression => close(source, inside, "}}", &mut operators)?,
        }
        .ok_or_else(|| unclosed(source, start, tag))?;
        if statements > TEMPLATE_STATEMENTS_MAX {
            let message = format!("a template may have at most {TEMPLATE_STATEMENTS_MAX} statements");
            return Err(TemplateError { message, range: Some(start..after) });
        }
        if operators - before > EXPRESSION_OPERATORS_MAX {
            let message = format!(
                "one expression may have at most {EXPRESSION_OPERATORS_MAX} operators, and this one has {}",
                operators - before
            );
            return Err(TemplateError { message, range: Some(start..after) });
        }
        if operators > TEMPLATE_OPERATORS_MAX {
            let message = format!(
                "all expressions of one text may have at most {TEMPLATE_OPERATORS_MAX} operators together: cut it in two"
            );
            return Err(TemplateError { message, range: Some(start..after) });
        }
        if tag != Tag::Comment {
            insides.push(&source[inside..end]);
        }
        if tag == Tag::Expression {
            let (text, controlled) = strip_control(&source[inside..end]);
            let text_start = inside + (text.as_ptr() as usize - source[inside..].as_ptr() as usize);
            let lead = text.len() - text.trim_start().len();
            pieces.push(Piece { text: text.trim(), start: text_start + lead, expression: true });
            // Alone, the white space around it does not count anyway.
            program |= controlled && !(blank(&source[..start]) && blank(&source[after..]));
        }
        at = after;
    }
    if at == 0 && pieces.is_empty() {
        return Ok(Scan::Plain);
    }
    if at < source.len() {
        pieces.push(Piece { text: &source[at..], start: at, expression: false });
    }
    if program {
        return Ok(Scan::Program(insides));
    }
    let mut expressions = pieces.iter().filter(|piece| piece.expression);
    if let (Some(only), None) = (expressions.next(), expressions.next())
        && pieces.iter().all(|piece| piece.expression || blank(piece.text))
    {
        return Ok(Scan::Single(*only));
    }
    Ok(Scan::Pieces(pieces))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tag {
    Expression,
    Statement,
    Comment,
}

fn blank(text: &str) -> bool {
    text.trim().is_empty()
}

fn next_tag(source: &str, from: usize) -> Option<(usize, Tag)> {
    let bytes = source.as_bytes();
    (from..bytes.len().saturating_sub(1)).find_map(|at| match (bytes[at], bytes[at + 1]) {
        (b'{', b'{') => Some((at, Tag::Expression)),
        (b'{', b'%') => Some((at, Tag::Statement)),
        (b'{', b'#') => Some((at, Tag::Comment)),
        _ => None,
    })
}

fn unclosed(source: &str, start: usize, tag: Tag) -> TemplateError {
    let (open, close) = match tag {
        Tag::Expression => ("{{", "}}"),
        Tag::Statement => ("{%", "%}"),
        Tag::Comment => ("{#", "#}"),
    };
    let line = source[start..].find('\n').map_or(source.len(), |end| start + end);
    TemplateError { message: format!("`{open}` is never closed by `{close}`"), range: Some(start..line) }
}

/// Returns where the tag's inside ends and where the text goes on; `None` when it is never closed.
fn close(
    source: &str,
    from: usize,
    marker: &str,
    operators: &mut usize,
) -> Result<Option<(usize, usize)>, TemplateError> {
    let bytes = source.as_bytes();
    let mut depth = 0_usize;
    let mut at = from;
    while at < bytes.len() {
        if depth == 0 && source.as_bytes()[at..].starts_with(marker.as_bytes()) {
            return Ok(Some((at, at + marker.len())));
        }
        match bytes[at] {
            quote @ (b'\'' | b'"') => match skip_string(bytes, at, quote) {
                Some(end) => {
                    at = end;
                    continue;
                }
                None => return Ok(None),
            },
            b'(' | b'[' | b'{' => {
                depth += 1;
                *operators += 1;
                if depth > TEMPLATE_BRACKETS_MAX {
                    let message = format!("brackets may be nested at most {TEMPLATE_BRACKETS_MAX} deep");
                    return Err(TemplateError { message, range: Some(at..at + 1) });
                }
            }
            // A bracket that was never opened: the engine will say so.
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'+' | b'-' | b'*' | b'/' | b'%' | b'~' | b'.' | b'|' | b'<' | b'>' | b'=' | b'!' => *operators += 1,
            // `a and b`, `not x`, `x is y`: keywords nest as well.
            b' ' | b'\t' | b'\n' | b'\r' if starts_keyword(&bytes[at + 1..]) => *operators += 1,
            _ => {}
        }
        at += 1;
    }
    Ok(None)
}

fn starts_keyword(rest: &[u8]) -> bool {
    [&b"and"[..], b"or", b"not", b"is", b"in", b"if", b"else"].iter().any(|word| {
        rest.starts_with(word) && rest.get(word.len()).is_none_or(|next| !next.is_ascii_alphanumeric() && *next != b'_')
    })
}

/// Returns the offset after the string that starts at `at`.
pub(super) fn skip_string(bytes: &[u8], at: usize, quote: u8) -> Option<usize> {
    let mut escaped = false;
    for (offset, byte) in bytes[at + 1..].iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            byte if *byte == quote => return Some(at + offset + 2),
            _ => {}
        }
    }
    None
}

/// Takes the white space control marks off; says whether there were any.
fn strip_control(inside: &str) -> (&str, bool) {
    let head = inside.strip_prefix(['-', '+']).unwrap_or(inside);
    let text = head.strip_suffix(['-', '+']).unwrap_or(head);
    (text, text.len() != inside.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expressions(source: &str) -> Vec<&str> {
        match scan(source).unwrap() {
            Scan::Plain | Scan::Program(_) => vec![],
            Scan::Single(piece) => vec![piece.text],
            Scan::Pieces(pieces) => pieces.iter().filter(|piece| piece.expression).map(|piece| piece.text).collect(),
        }
    }

    #[test]
    fn expressions_end_where_the_engine_ends_them() {
        for (source, expected) in [
            ("{{ a }}", vec!["a"]),
            ("x {{ a }} y {{ b }}", vec!["a", "b"]),
            ("{{ '}}' }}", vec!["'}}'"]),
            (r#"{{ "\"}}" }}"#, vec![r#""\"}}""#]),
            (r#"{{ {"a": {"b": 1}} | tojson }}"#, vec![r#"{"a": {"b": 1}} | tojson"#]),
            (r#"$${{ {"a": x} | tojson }}$$::jsonb"#, vec![r#"{"a": x} | tojson"#]),
            ("{{a}}{{b}}", vec!["a", "b"]),
            ("no template", vec![]),
            ("{ { a } }", vec![]),
        ] {
            assert_eq!(expressions(source), expected, "{source}");
        }
    }

    #[test]
    fn a_lone_expression_is_single_whatever_white_space_is_around_it() {
        for source in ["{{ a }}", "  {{ a }}\n", "{{- a -}}", "\n\n{{a}}"] {
            assert!(matches!(scan(source).unwrap(), Scan::Single(piece) if piece.text == "a"), "{source:?}");
        }
        for source in ["{{ a }}{{ b }}", "x{{ a }}", "{{ a }}."] {
            assert!(matches!(scan(source).unwrap(), Scan::Pieces(_)), "{source:?}");
        }
        for source in ["{% if a %}x{% endif %}", "{{ a }}{# why #}", "x {{- a }}"] {
            assert!(matches!(scan(source).unwrap(), Scan::Program(_)), "{source:?}");
        }
    }

    #[test]
    fn pieces_say_where_they_start() {
        let source = "ab {{  c.d }} e";
        let Scan::Pieces(pieces) = scan(source).unwrap() else { panic!("pieces expected") };
        for piece in pieces {
            assert_eq!(&source[piece.start..piece.start + piece.text.len()], piece.text);
        }
    }

    #[test]
    fn what_is_never_closed_or_too_deep_is_refused_with_its_place() {
        for (source, start) in [
            ("x {{ a ", 2),
            ("{{ 'a }}", 0),
            ("{# a", 0),
            ("{% if a", 0),
            (&format!("{{{{ {} }}}}", "(".repeat(100)), 3 + TEMPLATE_BRACKETS_MAX),
            (&format!("{{{{ a{} }}}}", ".b".repeat(5_000)), 0),
            (&format!("{{{{ {}a }}}}", "not ".repeat(5_000)), 0),
            (&format!("{{{{ b }}}}{{{{ a{} }}}}", " + a".repeat(EXPRESSION_OPERATORS_MAX + 1)), 7),
            (&"{% if a %}".repeat(600), 10 * TEMPLATE_STATEMENTS_MAX),
        ] {
            let error = scan(source).unwrap_err();
            assert_eq!(error.range.map(|range| range.start), Some(start), "{}", &source[..source.len().min(40)]);
        }
    }

    #[test]
    fn operators_are_counted_per_expression_and_only_generously_for_the_text() {
        let column = r#"'{{ iter.row.c | default('') | string | replace("'", "''") }}', "#;
        assert!(matches!(scan(&column.repeat(1_000)).unwrap(), Scan::Pieces(_)));
        let error = scan(&column.repeat(20_000)).unwrap_err();
        assert!(error.message.contains("together: cut it in two"), "{}", error.message);
        let one = format!("{{{{ a{} }}}}", " + a".repeat(EXPRESSION_OPERATORS_MAX + 1));
        let error = scan(&one).unwrap_err();
        assert_eq!(error.message, "one expression may have at most 1000 operators, and this one has 1001");
    }
}
