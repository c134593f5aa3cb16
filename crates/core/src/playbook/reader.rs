//! What every part of the compiler needs: the findings so far, and templates with their places.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Value;

use super::advice::advise;
use super::codes;
use super::names::SECRET_NAMES;
use super::place::locate;
use super::suggest::nearest;
use super::task::ENGINE_KINDS;
use super::tree::{Key, Node, Yaml};
use crate::diag::{Diagnostic, Severity, Span};
use crate::expr::{Condition, Template, TemplateError, ValueTemplate, is_template};

/// Most findings that one compilation reports.
pub const DIAGNOSTICS_MAX: usize = 200;

/// Collects findings while the parts of a playbook are read.
#[derive(Debug)]
pub(super) struct Reader<'s> {
    source: &'s str,
    found: Vec<Diagnostic>,
    /// Names that templates read, and where.
    pub(super) uses: Vec<NameUse>,
    /// Whether what is read now is given to a tool on a worker, which may know secrets.
    pub(super) for_worker: bool,
    /// Whether what is read now is for a step, which fails when it gets to a template that can not be read.
    pub(super) in_steps: bool,
}

/// A name that a template reads.
#[derive(Debug)]
pub(super) struct NameUse {
    pub(super) name: String,
    pub(super) span: Span,
    pub(super) for_worker: bool,
}

/// What happens to text that looks like a template and does not parse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It is refused: outside of steps by the registration, else by the step when it is reached, so that the other
    /// steps can run.
    Refused,
    /// It is code that means something to an interpreter, and used as it is.
    Verbatim,
    /// The step fails when it is reached: a command that is sent off half rendered does harm.
    Fails,
}

/// What to write instead of `retry` where it is not read.
pub(super) const RETRY_HINT: &str = "write `spec: {policy: {rules: [{when: …, then: {do: retry}}]}}` on the tool";

/// Fields that hold commands of another language, in which braces may mean something else.
const COMMAND_FIELDS: &[&str] = &["command", "commands", "cmds", "query", "claim"];

impl<'s> Reader<'s> {
    pub(super) fn new(source: &'s str) -> Self {
        Reader { source, found: Vec::new(), uses: Vec::new(), for_worker: false, in_steps: false }
    }

    /// Returns whether further findings are dropped, so that looking for good hints is in vain.
    pub(super) fn is_full(&self) -> bool {
        self.found.len() >= DIAGNOSTICS_MAX
    }

    /// Notes a finding.
    pub(super) fn note(&mut self, diagnostic: Diagnostic) {
        // A workbook task that is used twice has its mistakes once.
        if !self.is_full() && !self.found.contains(&diagnostic) {
            self.found.push(diagnostic);
        }
    }

    /// Notes an error; `hint` says what to write instead, or is empty.
    pub(super) fn error(
        &mut self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.note(finding(code, Severity::Error, span, message.into(), hint.into()));
    }

    /// Notes a warning; `hint` says what to write instead, or is empty.
    pub(super) fn warn(&mut self, code: &'static str, span: Span, message: impl Into<String>, hint: impl Into<String>) {
        self.note(finding(code, Severity::Warning, span, message.into(), hint.into()));
    }

    /// Returns the findings in the order of the source.
    pub(super) fn into_findings(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|diagnostic| (diagnostic.span, diagnostic.severity, diagnostic.code));
        self.found
    }

    /// Notes keys of `node` that are not in `known`.
    pub(super) fn unknown_keys(&mut self, node: &Node, what: &str, known: &[&str]) {
        for (key, _) in node.entries() {
            // What was refused as a legacy key is not unknown as well.
            let refused = self.found.iter().any(|found| found.span == Some(key.span));
            if !known.contains(&&*key.text) && !refused {
                let hint = match nearest(&key.text, known.iter().copied()) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("known are: {}", known.join(", ")),
                };
                self.warn(
                    codes::UNKNOWN_KEY,
                    key.span,
                    format!("{what} has no key `{}`: it is ignored", key.text),
                    hint,
                );
            }
        }
    }

    /// Notes that `node` should be something else.
    pub(super) fn wrong_kind(&mut self, node: &Node, what: &str, expected: &str) {
        let message = format!("{what} has to be {expected}, not {}", node.kind());
        self.error(codes::WRONG_KIND, node.place(), message, "");
    }

    /// Returns text, also when it is written as a number or boolean.
    pub(super) fn text(&mut self, node: &Node, what: &str) -> Option<String> {
        match &node.yaml {
            Yaml::Text(text) => Some(text.clone()),
            Yaml::Number(number) => Some(number.to_string()),
            Yaml::Bool(flag) => Some(flag.to_string()),
            Yaml::Null | Yaml::List(_) | Yaml::Map(_) => {
                self.wrong_kind(node, what, "text");
                None
            }
        }
    }

    /// Returns a boolean.
    pub(super) fn flag(&mut self, node: &Node, what: &str) -> Option<bool> {
        match &node.yaml {
            Yaml::Bool(flag) => Some(*flag),
            Yaml::Null => None,
            Yaml::Number(_) | Yaml::Text(_) | Yaml::List(_) | Yaml::Map(_) => {
                self.wrong_kind(node, what, "true or false");
                None
            }
        }
    }

    /// Returns a whole number of at least `min`.
    pub(super) fn count(&mut self, node: &Node, what: &str, min: u64) -> Option<u64> {
        let number = match &node.yaml {
            Yaml::Null => return None,
            Yaml::Number(number) => number.as_u64(),
            Yaml::Text(text) => text.trim().parse().ok(),
            Yaml::Bool(_) | Yaml::List(_) | Yaml::Map(_) => None,
        };
        match number {
            Some(number) if number >= min => Some(number),
            Some(_) | None => {
                let message = format!("{what} has to be a whole number of at least {min}");
                self.error(codes::OUT_OF_RANGE, node.span, message, "");
                None
            }
        }
    }

    /// Returns a time in milliseconds: seconds, or a number with `ms`, `s`, `m`, `h` or `d` behind it.
    pub(super) fn duration(&mut self, node: &Node, what: &str) -> Option<u64> {
        let ms = match &node.yaml {
            Yaml::Null => return None,
            Yaml::Number(number) => number.as_f64().and_then(|seconds| milliseconds(seconds, 1_000.0)),
            Yaml::Text(text) => parse_duration(text),
            Yaml::Bool(_) | Yaml::List(_) | Yaml::Map(_) => None,
        };
        if ms.is_none() {
            let message = format!("{what} has to be a time");
            self.error(
                codes::OUT_OF_RANGE,
                node.span,
                message,
                "write seconds as a number, or `500ms`, `90s`, `5m`, `2h`, `1d`",
            );
        }
        ms
    }

    /// Returns the word of `known` that `node` is.
    pub(super) fn word<T: Copy>(&mut self, node: &Node, what: &str, known: &[(&str, T)]) -> Option<T> {
        let text = self.text(node, what)?;
        let lower = text.trim().to_lowercase();
        if let Some((_, value)) = known.iter().find(|(word, _)| *word == lower) {
            return Some(*value);
        }
        let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
        let hint = match nearest(&text, words.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("possible are: {}", words.join(", ")),
        };
        self.error(codes::UNKNOWN_WORD, node.span, format!("{what} can not be `{text}`"), hint);
        None
    }

    /// Compiles a value with templates in it.
    pub(super) fn value(&mut self, node: &Node, unreadable: Unreadable) -> ValueTemplate {
        match &node.yaml {
            Yaml::Text(text) if is_template(text) => match Template::compile(text) {
                Ok(template) => {
                    self.note_uses(node, text, &template);
                    let place = self.first_tag(node, text);
                    ValueTemplate::from(template.placed(place.line, place.column))
                }
                Err(error) => {
                    let message = self.refuse(node, text, &error, unreadable);
                    match unreadable {
                        Unreadable::Verbatim => ValueTemplate::literal(Value::from(text.as_str())),
                        Unreadable::Refused | Unreadable::Fails => ValueTemplate::unreadable(text, message),
                    }
                }
            },
            Yaml::List(items) => ValueTemplate::list(items.iter().map(|item| self.value(item, unreadable)).collect()),
            Yaml::Map(entries) => {
                let entries = entries.iter().map(|(key, item)| (key.text.clone(), self.field(key, item, unreadable)));
                ValueTemplate::map(entries.collect())
            }
            Yaml::Null | Yaml::Bool(_) | Yaml::Number(_) | Yaml::Text(_) => ValueTemplate::literal(node.to_json()),
        }
    }

    /// Compiles the value of a field, which may hold code.
    pub(super) fn field(&mut self, key: &Key, node: &Node, unreadable: Unreadable) -> ValueTemplate {
        let unreadable = match &*key.text {
            "code" => Unreadable::Verbatim,
            name if COMMAND_FIELDS.contains(&name) => Unreadable::Fails,
            _ => unreadable,
        };
        self.value(node, unreadable)
    }

    /// Compiles the entries of a mapping; nothing and null is no entry.
    pub(super) fn mapping(&mut self, node: &Node, what: &str) -> IndexMap<Arc<str>, ValueTemplate> {
        if !node.is_map() {
            if !node.is_null() {
                self.wrong_kind(node, what, "a mapping");
            }
            return IndexMap::new();
        }
        let entries = node.entries().iter();
        entries.map(|(key, item)| (Arc::from(&*key.text), self.value(item, Unreadable::Refused))).collect()
    }

    /// Compiles a condition.
    pub(super) fn condition(&mut self, node: &Node) -> Option<Condition> {
        let value = node.to_json();
        let text = match &node.yaml {
            Yaml::Text(text) => text.as_str(),
            Yaml::Bool(_) => "",
            Yaml::Null | Yaml::Number(_) | Yaml::List(_) | Yaml::Map(_) => {
                self.wrong_kind(node, "a condition", "a template or a boolean");
                return None;
            }
        };
        match Condition::compile(&value) {
            Ok(condition) => {
                let looks_meant = text.contains(['=', '<', '>', '.', ' ']);
                if let (Some(holds), true) = (condition.as_constant(), looks_meant) {
                    let message = format!("this condition is plain text, so it is always {holds}");
                    self.warn(
                        codes::CONSTANT_CONDITION,
                        node.span,
                        message,
                        format!("write `{{{{ {} }}}}`", text.trim()),
                    );
                }
                if condition.is_text_around_templates() {
                    let inside = text.replace("{{", " ").replace("}}", " ");
                    let inside: Vec<&str> = inside.split_whitespace().collect();
                    self.warn(
                        codes::CONSTANT_CONDITION,
                        node.span,
                        "there is text around the braces of this condition, so it is always true",
                        format!("write `{{{{ {} }}}}`", inside.join(" ")),
                    );
                }
                self.note_roots(node, text, condition.roots());
                let place = self.first_tag(node, text);
                Some(condition.placed(place.line, place.column))
            }
            Err(error) => {
                let message = self.refuse(node, text, &error, Unreadable::Refused);
                Some(Condition::unreadable(text, &message))
            }
        }
    }

    /// Compiles a condition that is written as a bare expression.
    pub(super) fn raw_condition(&mut self, node: &Node) -> Option<Condition> {
        let text = match &node.yaml {
            Yaml::Text(text) if !is_template(text) => text,
            Yaml::Null | Yaml::Bool(_) | Yaml::Number(_) | Yaml::Text(_) | Yaml::List(_) | Yaml::Map(_) => {
                return self.condition(node);
            }
        };
        match Condition::compile_raw(text) {
            // Its names may be fields of a result, which nobody knows here; but what is secret is secret.
            Ok(condition) => {
                self.note_roots(node, text, condition.roots().filter(|root| SECRET_NAMES.contains(root)));
                Some(condition.placed(node.written.line, node.written.column))
            }
            Err(error) => {
                let message = self.refuse(node, text, &error, Unreadable::Refused);
                Some(Condition::unreadable(text, &message))
            }
        }
    }

    /// Returns where the first template of a text begins.
    fn first_tag(&self, node: &Node, text: &str) -> Span {
        let at = ["{{", "{%", "{#"].iter().filter_map(|tag| text.find(tag)).min().unwrap_or(0);
        locate(self.source, node.written, text, at..at + 1)
    }

    /// Notes that a template can not be read, and returns what a step says that gets to it all the same.
    fn refuse(&mut self, node: &Node, text: &str, error: &TemplateError, unreadable: Unreadable) -> String {
        let span = match &error.range {
            Some(range) => locate(self.source, node.written, text, range.clone()),
            None => node.written,
        };
        match unreadable {
            Unreadable::Refused if self.in_steps => {
                let message = format!("the step fails here, because the template can not be read: {}", error.message);
                self.warn(codes::BAD_TEMPLATE, span, message, advise(text, error));
            }
            Unreadable::Refused => {
                let message = format!("the template can not be read: {}", error.message);
                self.error(codes::BAD_TEMPLATE, span, message, advise(text, error));
            }
            Unreadable::Fails => {
                let message = format!("the step fails here, because this is no template: {}", error.message);
                self.warn(codes::UNREADABLE_COMMAND, span, message, advise(text, error));
            }
            Unreadable::Verbatim => {
                let message = format!("this is used as it is, because it is no template: {}", error.message);
                self.warn(codes::VERBATIM, span, message, "");
            }
        }
        let (line, column) = (span.line, span.column);
        let hint = advise(text, error);
        format!("this is no template: {} (line {line}, column {column}; {hint})", error.message)
    }

    /// Reads something that is given to a tool of `kind`.
    pub(super) fn for_tool<T>(&mut self, kind: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.for_worker, !ENGINE_KINDS.contains(&kind));
        let value = read(self);
        self.for_worker = before;
        value
    }

    /// Returns the source from a place to its end.
    pub(super) fn source_from(&self, at: usize) -> &'s str {
        self.source.get(at..).unwrap_or_default()
    }

    fn note_uses(&mut self, node: &Node, text: &str, template: &Template) {
        self.note_roots(node, text, template.roots());
    }

    fn note_roots<'r>(&mut self, node: &Node, text: &str, roots: impl Iterator<Item = &'r str>) {
        // Who asks whether a name is there knows that it may not be.
        if text.contains("default") || text.contains("defined") {
            return;
        }
        for name in roots {
            let at = find_word(text, name).unwrap_or(0);
            let span = locate(self.source, node.written, text, at..at + name.len());
            self.uses.push(NameUse { name: name.to_owned(), span, for_worker: self.for_worker });
        }
    }
}

fn finding(code: &'static str, severity: Severity, span: Span, message: String, hint: String) -> Diagnostic {
    Diagnostic { code, severity, message, span: Some(span), hint: Some(hint).filter(|hint| !hint.is_empty()) }
}

/// Returns where `word` stands on its own inside a template, and not behind a dot or quote.
fn find_word(text: &str, word: &str) -> Option<usize> {
    let inside = text.find("{{").into_iter().chain(text.find("{%")).min().unwrap_or(0);
    text[inside..].match_indices(word).map(|(at, _)| inside + at).find(|at| {
        let before = text[..*at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        let part = |letter: Option<char>| letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
        !part(before) && !part(after) && !matches!(before, Some('.' | '\'' | '"'))
    })
}

pub(crate) fn parse_duration(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match text[digits.len()..].trim() {
        "ms" => 1.0,
        "" | "s" | "sec" => 1_000.0,
        "m" | "min" => 60_000.0,
        "h" => 3_600_000.0,
        "d" => 86_400_000.0,
        _ => return None,
    };
    milliseconds(digits.trim().parse().ok()?, unit)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
fn milliseconds(number: f64, unit: f64) -> Option<u64> {
    // A thousand years; anything longer is a mistake.
    const LONGEST_MS: f64 = 3.2e13;
    let ms = number * unit;
    (ms.is_finite() && (0.0..=LONGEST_MS).contains(&ms)).then(|| ms.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_or_have_a_unit() {
        for (text, expected) in [
            ("30", Some(30_000)),
            ("1.5", Some(1_500)),
            ("500ms", Some(500)),
            ("90s", Some(90_000)),
            ("5 m", Some(300_000)),
            ("2h", Some(7_200_000)),
            ("1d", Some(86_400_000)),
            ("-1", None),
            ("soon", None),
            ("10y", None),
            ("", None),
            ("1e300", None),
            ("inf", None),
        ] {
            assert_eq!(parse_duration(text), expected, "{text}");
        }
    }

    #[test]
    fn a_name_is_found_where_it_is_read() {
        for (text, word, expected) in [
            ("{{ a.b }}", "a", Some(3)),
            ("a {{ x.a + a }}", "a", Some(11)),
            ("{{ 'a' ~ a }}", "a", Some(9)),
            ("{{ ab }}", "a", None),
        ] {
            assert_eq!(find_word(text, word), expected, "{text}");
        }
    }
}
