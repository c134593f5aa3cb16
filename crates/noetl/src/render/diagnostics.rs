//! What is wrong with a playbook: message, place, the lines around it, and what to write instead.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use noetl_core::diag::{Diagnostic, Severity};
use serde_json::{Value, json};

use super::{clean, clean_lines, document};

/// One finding, from our own checks or from a server's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Stable code.
    pub code: String,
    /// Whether the playbook can be used all the same.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// Byte offsets in the text.
    pub bytes: Option<(usize, usize)>,
    /// Line and column, from 1.
    pub place: Option<(u32, u32)>,
    /// What to write instead.
    pub hint: Option<String>,
}

impl From<&Diagnostic> for Finding {
    fn from(diagnostic: &Diagnostic) -> Self {
        Finding {
            code: diagnostic.code.to_owned(),
            severity: diagnostic.severity,
            message: diagnostic.message.clone(),
            bytes: diagnostic.span.map(|span| (span.start, span.end)),
            place: diagnostic.span.map(|span| (span.line, span.column)),
            hint: diagnostic.hint.clone(),
        }
    }
}

impl Finding {
    /// Reads the findings in a server's refusal.
    pub fn of_answer(answer: &Value) -> Vec<Finding> {
        document::list(answer, "diagnostics").iter().filter_map(Finding::read).collect()
    }

    /// Returns the finding as a document for `--json`.
    pub fn to_json(&self, file: &str) -> Value {
        json!({
            "file": file,
            "code": self.code,
            "severity": self.severity.to_string(),
            "message": self.message,
            "line": self.place.map(|(line, _)| line),
            "column": self.place.map(|(_, column)| column),
            "hint": self.hint,
        })
    }

    fn read(value: &Value) -> Option<Finding> {
        let offset = |key| document::count(value, key).and_then(|offset| usize::try_from(offset).ok());
        let place = |key| document::count(value, key).and_then(|place| u32::try_from(place).ok());
        Some(Finding {
            code: document::text(value, "code").unwrap_or_default().to_owned(),
            severity: if document::text(value, "severity") == Some("warning") {
                Severity::Warning
            } else {
                Severity::Error
            },
            message: document::text(value, "message")?.to_owned(),
            bytes: offset("start").zip(offset("end")),
            place: place("line").zip(place("column")),
            hint: document::text(value, "hint").map(str::to_owned),
        })
    }
}

/// Returns every finding about `source`, which came from `file`, each followed by a blank line.
pub fn report(file: &str, source: &str, findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("{}\n\n", one(file, source, finding))).collect()
}

/// Returns `2 errors, 1 warning`.
pub fn tally(findings: &[Finding]) -> String {
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    let warnings = findings.len() - errors;
    let say = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    match (errors, warnings) {
        (_, 0) => say(errors, "error"),
        (0, _) => say(warnings, "warning"),
        (_, _) => format!("{}, {}", say(errors, "error"), say(warnings, "warning")),
    }
}

fn one(file: &str, source: &str, finding: &Finding) -> String {
    let level = match finding.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let message = clean_lines(&finding.message);
    let mut title = level.primary_title(message.as_str());
    if !finding.code.is_empty() {
        title = title.id(finding.code.as_str());
    }
    let mut group = Group::with_title(title);
    match finding.bytes.and_then(|bytes| within(source, bytes)) {
        Some(span) => {
            let annotation = AnnotationKind::Primary.span(span);
            group = group.element(Snippet::source(source).path(file).annotation(annotation));
        }
        // Without the text at hand, the place still helps.
        None => {
            let mut origin = annotate_snippets::Origin::path(file);
            if let Some((line, column)) = finding.place {
                origin = origin.line(line as usize).char_column(column as usize);
            }
            group = group.element(origin);
        }
    }
    let hint = finding.hint.as_deref().map(clean);
    if let Some(hint) = &hint {
        group = group.element(Level::HELP.message(hint.as_ref()));
    }
    Renderer::styled().render(&[group])
}

/// Returns the span if it lies in `source`: a server may have checked another version of the text.
fn within(source: &str, (start, end): (usize, usize)) -> Option<std::ops::Range<usize>> {
    let end = end.max(start).min(source.len());
    (start <= end && source.is_char_boundary(start) && source.is_char_boundary(end)).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "apiVersion: noetl.io/v2\nkind: Playbook\nworkflow:\n  - step: start\n    tol: {kind: noop}\n";

    fn finding() -> Finding {
        let start = SOURCE.find("tol").unwrap();
        Finding {
            code: "NE0104".into(),
            severity: Severity::Error,
            message: "unknown key `tol`".into(),
            bytes: Some((start, start + 3)),
            place: Some((5, 5)),
            hint: Some("did you mean `tool`?".into()),
        }
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_finding_shows_its_place_and_what_to_write() {
        assert_eq!(
            plain(&report("a.yaml", SOURCE, &[finding()])),
            "\
error[NE0104]: unknown key `tol`
 --> a.yaml:5:5
  |
5 |     tol: {kind: noop}
  |     ^^^
  |
  = help: did you mean `tool`?

"
        );
    }

    #[test]
    fn a_finding_of_a_server_reads_the_same() {
        let answer = json!({"status": "error", "diagnostics": [{
            "code": "NE0104", "severity": "error", "message": "unknown key `tol`", "line": 5, "column": 5,
            "start": SOURCE.find("tol").unwrap(), "end": SOURCE.find("tol").unwrap() + 3,
            "hint": "did you mean `tool`?",
        }]});
        assert_eq!(Finding::of_answer(&answer), [finding()]);
    }

    #[test]
    fn a_span_outside_the_text_still_names_the_line() {
        let mut finding = finding();
        finding.bytes = Some((7_000, 7_003));
        let text = plain(&report("a.yaml", SOURCE, &[finding]));
        assert!(text.contains("--> a.yaml:5:5"), "{text}");
    }

    #[test]
    fn findings_are_counted_by_kind() {
        let warning = Finding { severity: Severity::Warning, ..finding() };
        assert_eq!(tally(&[finding()]), "1 error");
        assert_eq!(tally(&[finding(), finding(), warning.clone()]), "2 errors, 1 warning");
        assert_eq!(tally(&[warning]), "1 warning");
    }
}
