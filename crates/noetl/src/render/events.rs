//! The log of an execution, one line per event.

use serde_json::Value;

use super::{DIM, RED, clean, document, status_colour};

/// Width of the column with event names; longer ones push the rest.
const NAME_WIDTH: usize = 24;
/// Longest error on a line, in characters.
const ERROR_SHOWN: usize = 200;

/// Returns the line of one event.
pub fn line(event: &Value) -> String {
    let field = |key: &str| document::text(event, key).map(clean).unwrap_or_default();
    let status = field("status");
    let colour = status_colour(&status);
    let version = document::count(event, "version").map(|version| format!("{version:>5} ")).unwrap_or_default();
    let mut line = format!(
        "{DIM}{version}{}{DIM:#}  {:<NAME_WIDTH$}  {colour}{status:<11}{colour:#}  {}",
        field("created_at"),
        field("event_type"),
        field("node_name"),
    );
    if let Some(iteration) = document::count(event, "iteration") {
        line.push_str(&format!("[{iteration}]"));
    }
    if let Some(attempt) = document::count(event, "attempt").filter(|attempt| *attempt > 1) {
        line.push_str(&format!(" attempt {attempt}"));
    }
    if let Some(ms) = event.get("duration").and_then(Value::as_f64) {
        line.push_str(&format!("  {ms:.0} ms"));
    }
    if let Some(reason) = event.get("context").and_then(|context| document::text(context, "reason")) {
        line.push_str(&format!("  {}", clean(reason)));
    }
    if let Some(error) = document::text(event, "error") {
        let short: String = error.chars().take(ERROR_SHOWN).collect();
        line.push_str(&format!("  {RED}{}{RED:#}", clean(&short)));
    }
    line.truncate(line.trim_end().len());
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_one_line() {
        for (event, expected) in [
            (
                json!({
                    "version": 3, "created_at": "2026-01-20T09:08:00.123Z", "event_type": "step.enter",
                    "status": "RUNNING", "node_name": "load", "iteration": 2, "attempt": 1,
                }),
                "    3 2026-01-20T09:08:00.123Z  step.enter                RUNNING      load[2]",
            ),
            (
                json!({
                    "version": 12, "created_at": "2026-01-20T09:08:00.123Z", "event_type": "command.failed",
                    "status": "FAILED", "node_name": "load", "attempt": 2, "duration": 12.4, "error": "boom\nat x",
                }),
                "   12 2026-01-20T09:08:00.123Z  command.failed            FAILED       load attempt 2  12 ms  boom\\nat x",
            ),
            (
                json!({
                    "created_at": "T", "event_type": "execution.cancelled", "status": "CANCELLED",
                    "node_name": "cancel", "context": {"reason": "loop"},
                }),
                "T  execution.cancelled       CANCELLED    cancel  loop",
            ),
        ] {
            assert_eq!(anstream::adapter::strip_str(&line(&event)).to_string(), expected);
        }
    }
}
