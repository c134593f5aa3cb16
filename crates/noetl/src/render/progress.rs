//! A run as it goes and as it ends, line by line.

use serde_json::Value;

use super::{CYAN, DIM, GREEN, RED, YELLOW, clean, document, duration, status_colour};

/// Returns the line for an event, if it is worth one; with `verbose` more are.
pub fn line_of(event: &Value, verbose: bool) -> Option<String> {
    let field = |key: &str| document::text(event, key).map(clean);
    let step = field("node_name").unwrap_or_default();
    let iteration = document::count(event, "iteration").map(|iteration| format!("[{iteration}]")).unwrap_or_default();
    let failed = field("status").as_deref() == Some("FAILED");
    match document::text(event, "event_type")? {
        "step.enter" => Some(format!("🔹 Step: {step}")),
        // The error of a call is said again by the command's and the step's end.
        "call.error" => None,
        "command.failed" => {
            let error = field("error").unwrap_or_default();
            Some(format!("   {RED}✗{RED:#} {step}{iteration}: {error}"))
        }
        "step.exit" if failed => Some(format!("   {RED}✗{RED:#} Step failed: {step}")),
        "step.exit" if verbose => Some(format!("   {GREEN}✓{GREEN:#} {step}{}", routes(event))),
        "step.skipped" if verbose => Some(format!("   {DIM}- skipped: {step}{DIM:#}")),
        "command.lost" => Some(format!("   {YELLOW}!{YELLOW:#} {step}{iteration}: its worker fell silent")),
        "command.issued" | "command.completed" | "command.cancelled" | "loop.done" if verbose => {
            let name = document::text(event, "event_type")?;
            Some(format!("   {DIM}{name} {step}{iteration}{DIM:#}"))
        }
        "execution.cancelled" => {
            let reason = event.get("context").and_then(|context| document::text(context, "reason"));
            let reason = reason.map(|reason| format!(": {}", clean(reason))).unwrap_or_default();
            Some(format!("{YELLOW}⏹ Cancelled{YELLOW:#}{reason}"))
        }
        "execution.quiesced" if verbose => Some(format!("{DIM}nothing of it runs any more{DIM:#}")),
        _ => None,
    }
}

/// Returns where a step's exit leads: ` → a, b`.
fn routes(event: &Value) -> String {
    let taken = event.pointer("/context/taken").or_else(|| event.pointer("/context/next"));
    let names: Vec<String> = taken
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice)
        .iter()
        .filter_map(|arc| document::text(arc, "to").or_else(|| arc.as_str()))
        .map(|name| clean(name).into_owned())
        .collect();
    if names.is_empty() { String::new() } else { format!(" → {}", names.join(", ")) }
}

/// Returns `1 step`, `2 steps`.
pub fn counted(count: u64, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

/// Returns how a run ended, and what can be done next.
pub fn ending(id: &str, status: &Value) -> Vec<String> {
    let word = document::status(status);
    let colour = status_colour(&word);
    let steps = document::count(status, "steps_entered").map(|steps| format!(", {}", counted(steps, "step")));
    let steps = steps.unwrap_or_default();
    // The number is finer than the server's words, which leave out fractions of a second.
    let time = status.get("duration_seconds").and_then(Value::as_f64).map(duration::human);
    let time = time.or_else(|| document::duration(status)).map(|time| format!(" in {time}")).unwrap_or_default();
    let path = clean(document::text(status, "path").unwrap_or("playbook")).into_owned();
    let mut lines = Vec::new();
    let failed: Vec<String> = document::list(status, "failed_steps")
        .iter()
        .filter_map(Value::as_str)
        .map(|name| clean(name).into_owned())
        .collect();
    if let Some(error) = document::text(status, "error").filter(|_| word == "FAILED") {
        lines.push(format!("{RED}Error:{RED:#} {}", super::clean_lines(error)));
    }
    if !failed.is_empty() {
        lines.push(format!("{RED}Failed steps that nothing handled:{RED:#} {}", failed.join(", ")));
    }
    let mark = match word.as_str() {
        "COMPLETED" if failed.is_empty() => "✅ ",
        "FAILED" => "❌ ",
        _ => "",
    };
    lines.push(format!("{mark}{path} {colour}{word}{colour:#}{time}{steps}  (execution {})", clean(id)));
    if word != "COMPLETED" || !failed.is_empty() {
        lines.push(format!("{CYAN}hint:{CYAN:#} `noetl status {0}` and `noetl events {0}` say more", clean(id)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn steps_and_failures_are_worth_a_line() {
        for (event, verbose, expected) in [
            (json!({"event_type": "step.enter", "node_name": "start"}), false, Some("🔹 Step: start")),
            (
                json!({"event_type": "command.failed", "node_name": "a", "iteration": 2, "error": "boom", "status": "FAILED"}),
                false,
                Some("   ✗ a[2]: boom"),
            ),
            (
                json!({"event_type": "step.exit", "node_name": "a", "status": "FAILED"}),
                false,
                Some("   ✗ Step failed: a"),
            ),
            (json!({"event_type": "step.exit", "node_name": "a", "status": "COMPLETED"}), false, None),
            (json!({"event_type": "step.exit", "node_name": "a", "status": "COMPLETED"}), true, Some("   ✓ a")),
            (json!({"event_type": "command.claimed", "node_name": "a"}), true, None),
            (
                json!({"event_type": "execution.cancelled", "node_name": "cancel", "context": {"reason": "why"}}),
                false,
                Some("⏹ Cancelled: why"),
            ),
        ] {
            assert_eq!(line_of(&event, verbose).map(|line| plain(&line)).as_deref(), expected, "{event}");
        }
    }

    #[test]
    fn an_ending_names_what_failed_and_what_to_do() {
        let lines = |status: Value| ending("7", &status).iter().map(|line| plain(line)).collect::<Vec<_>>();
        assert_eq!(
            lines(json!({"status": "COMPLETED", "path": "p", "duration_human": "2s", "steps_entered": 3})),
            ["✅ p COMPLETED in 2s, 3 steps  (execution 7)"]
        );
        assert_eq!(
            lines(json!({"status": "COMPLETED", "path": "p", "failed_steps": ["a", "b"]})),
            [
                "Failed steps that nothing handled: a, b",
                "p COMPLETED  (execution 7)",
                "hint: `noetl status 7` and `noetl events 7` say more",
            ]
        );
        assert_eq!(lines(json!({"status": "FAILED", "path": "p", "error": "boom"}))[0], "Error: boom");
    }
}
