//! What tools printed, line by line.

use serde_json::Value;

use super::{DIM, clean, document};

/// Returns a printed line as it is shown: with the step before it if there may be several, and the iteration of a loop.
pub fn line(entry: &Value, with_step: bool, with_time: bool) -> String {
    let field = |key: &str| document::text(entry, key).map(clean).unwrap_or_default();
    let mut shown = String::new();
    if with_time {
        shown.push_str(&format!("{DIM}{}{DIM:#} ", field("at")));
    }
    let iteration = document::count(entry, "iteration").map(|index| format!("[{index}]")).unwrap_or_default();
    if with_step || !iteration.is_empty() {
        let step = if with_step { field("step") } else { "".into() };
        shown.push_str(&format!("{DIM}{step}{iteration} |{DIM:#} "));
    }
    if document::text(entry, "stream") == Some("system") {
        shown.push_str(&format!("{DIM}{}{DIM:#}", field("line")));
    } else {
        shown.push_str(&field("line"));
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_shows_its_step_and_time_where_wanted_and_no_control_characters() {
        let entry =
            json!({"at": "2026-01-20T09:08:00.123Z", "step": "load", "stream": "stdout", "line": "a\u{1b}[2Jb"});
        let plain =
            |with_step, with_time| anstream::adapter::strip_str(&line(&entry, with_step, with_time)).to_string();
        let text = clean("a\u{1b}[2Jb");
        assert!(!text.contains('\u{1b}'));
        assert_eq!(plain(false, false), text);
        assert_eq!(plain(true, false), format!("load | {text}"));
        let of_loop = json!({"step": "load", "iteration": 3, "stream": "stdout", "line": "x"});
        assert_eq!(anstream::adapter::strip_str(&line(&of_loop, true, false)).to_string(), "load[3] | x");
        assert_eq!(anstream::adapter::strip_str(&line(&of_loop, false, false)).to_string(), "[3] | x");
        assert_eq!(plain(true, true), format!("2026-01-20T09:08:00.123Z load | {text}"));
    }
}
