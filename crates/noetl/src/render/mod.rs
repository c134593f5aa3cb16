//! What people see: pure functions from documents to text.
//!
//! Texts carry ANSI colours; whoever writes them to something that is no terminal strips them. Whatever comes from
//! outside goes through [`clean`], so that no name or message can move the reader's cursor.

pub mod cancel;
pub mod diagnostics;
pub mod document;
pub mod duration;
pub mod events;
pub mod executions;
pub mod jobs;
pub mod json;
pub mod logs;
pub mod progress;
pub mod schedules;
pub mod status;
pub mod table;
pub mod tree;
pub mod verify;
pub mod why;
pub mod workers;

use std::borrow::Cow;
use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

/// Cancelled, running, warnings.
pub const YELLOW: Style = AnsiColor::Yellow.on_default();
/// Completed.
pub const GREEN: Style = AnsiColor::Green.on_default();
/// Failed, errors.
pub const RED: Style = AnsiColor::Red.on_default();
/// Hints.
pub const CYAN: Style = AnsiColor::Cyan.on_default();
/// What matters less.
pub const DIM: Style = Style::new().dimmed();
/// Headings.
pub const BOLD: Style = Style::new().bold();

/// The line above and below a block.
pub const FRAME: &str = "============================================================";

/// Returns the colour of a status word.
pub fn status_colour(status: &str) -> Style {
    match status {
        "COMPLETED" => GREEN,
        "FAILED" => RED,
        "RUNNING" | "CANCELLED" => YELLOW,
        _ => Style::new(),
    }
}

/// Returns `text` without anything that a terminal would obey: control characters are shown as escapes.
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        match letter {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            letter if letter.is_control() => {
                // Writing to a String can not fail.
                let _ = write!(out, "\\u{{{:x}}}", u32::from(letter));
            }
            letter => out.push(letter),
        }
    }
    Cow::Owned(out)
}

/// Returns a multi-line text of a person (an error, a reason) as it is, but for what a terminal would obey.
pub fn clean_lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n")
}

/// Returns the same behind `label`, with the further lines under the first one: no text can look like another field.
pub(crate) fn labelled(label: &str, text: &str) -> String {
    let further = format!("\n{}", " ".repeat(label.chars().count()));
    format!("{label}{}", clean_lines(text).replace('\n', &further))
}

/// `2026-01-20T09:08:00.123Z` without the fraction: a list is looked at, not computed with.
pub(crate) fn seconds(iso: &str) -> String {
    match iso.split_once('.') {
        Some((seconds, fraction)) if fraction.ends_with('Z') => format!("{seconds}Z"),
        Some(_) | None => iso.to_owned(),
    }
}

/// Returns who paused an execution and since when: the rest of a sentence.
pub(crate) fn pause_line(pause: &serde_json::Value) -> String {
    let field = |key: &str| document::text(pause, key).map(|text| clean(text).into_owned());
    let mut line = format!("by {}", field("paused_by").unwrap_or_else(|| "unknown".to_owned()));
    if let Some(requested_by) = field("requested_by") {
        line.push_str(&format!(" ({requested_by})"));
    }
    if let Some(since) = field("since") {
        line.push_str(&format!(" since {since}"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        assert_eq!(clean("a\u{1b}[31mb\nc\t\u{7}"), "a\\u{1b}[31mb\\nc\\t\\u{7}");
        assert_eq!(clean("größer – fine"), "größer – fine");
        assert_eq!(clean_lines("one\ntwo\u{1b}"), "one\ntwo\\u{1b}");
        assert_eq!(labelled("Reason: ", "x\nStatus: COMPLETED"), "Reason: x\n        Status: COMPLETED");
    }
}
