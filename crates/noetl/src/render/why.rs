//! How an execution came to stand where it stands, in sentences.

use serde_json::Value;

use super::{BOLD, clean, clean_lines, document, labelled, status_colour};

/// Returns the story of the first of `chain`; the others are its ancestors, up to the one that was named in a cancel.
/// `cleanup` is the status of the execution that cleans up after it.
pub fn story(chain: &[Value], cleanup: Option<&Value>) -> String {
    let Some(status) = chain.first() else { return String::new() };
    let word = document::status(status);
    let colour = status_colour(&word);
    let id = status.get("execution_id").and_then(document::id).unwrap_or_default();
    let path = document::text(status, "path").unwrap_or("-");
    let mut lines = vec![format!("{BOLD}{}{BOLD:#} ({}) is {colour}{word}{colour:#}.", clean(&id), clean(path))];
    if let Some(of) = status.get("cleanup_of").and_then(document::id) {
        lines.push(format!("It cleans up after the cancelled execution {}.", clean(&of)));
    }
    if let Some(error) = document::text(status, "error") {
        lines.push(format!("It failed: {}", clean_lines(error)));
    }
    lines.extend(failed_steps(status).map(|steps| format!("Failed without being handled: {steps}.")));
    if let Some(cancellation) = status.get("cancellation").filter(|cancellation| cancellation.is_object()) {
        lines.extend(cancelled(status, cancellation, cleanup, &id));
    }
    if let Some(shield) = document::text(status, "shield").filter(|_| word == "RUNNING") {
        lines.push(format!(
            "It is shielded: a cancel of an ancestor spares it (spec.cancel.policy: {}).",
            clean(shield)
        ));
        let above = chain.get(1).and_then(|parent| parent.get("cancellation")).filter(|above| above.is_object());
        if let Some(by) = above.and_then(|above| document::text(above, "cancelled_by")) {
            lines.push(format!("Its parent was cancelled by {}:", clean(by)));
        }
    }
    for ancestor in chain.iter().skip(1) {
        let id = ancestor.get("execution_id").and_then(document::id).unwrap_or_default();
        let path = document::text(ancestor, "path").unwrap_or("-");
        lines.push(format!("  ↑ {} ({}) {}", clean(&id), clean(path), document::status(ancestor)));
    }
    lines.push(rest(status, &word));
    lines.join("\n") + "\n"
}

/// Returns the steps that ended badly and that nothing handled, if there are any.
fn failed_steps(status: &Value) -> Option<String> {
    let names: Vec<String> = document::list(status, "failed_steps")
        .iter()
        .filter_map(Value::as_str)
        .map(|name| clean(name).into_owned())
        .collect();
    match names.len() {
        0 => None,
        1 => Some(format!("step {}", names.join(", "))),
        _ => Some(format!("steps {}", names.join(", "))),
    }
}

fn cancelled(status: &Value, cancellation: &Value, cleanup: Option<&Value>, id: &str) -> Vec<String> {
    let field = |key: &str| document::text(cancellation, key).map(|text| clean(text).into_owned());
    let mut who = format!("Cancelled by {}", field("cancelled_by").unwrap_or_else(|| "?".to_owned()));
    if let Some(requested_by) = field("requested_by") {
        who.push_str(&format!(" for {requested_by}"));
    }
    if let Some(at) = document::text(status, "end_time") {
        who.push_str(&format!(" at {}", clean(at)));
    }
    if let Some(mode) = field("mode") {
        who.push_str(&format!(", mode {mode}"));
    }
    let mut lines = vec![format!("{who}.")];
    lines.push(match document::text(cancellation, "reason") {
        Some(reason) => labelled("Reason: ", reason),
        None => "No reason was given.".to_owned(),
    });
    if let Some(execution) = cancellation.get("cleanup").and_then(document::id) {
        let stands = cleanup.map(document::status).map(|word| format!(", and is {word}")).unwrap_or_default();
        let failed = cleanup.and_then(failed_steps).map(|steps| format!("; {steps} of it failed")).unwrap_or_default();
        lines.push(format!("Execution {} cleans up after it{stands}{failed}.", clean(&execution)));
    }
    let named = cancellation.get("requested_execution_id").and_then(document::id);
    if let Some(named) = named.filter(|named| named != id) {
        lines.push(format!("The request named its ancestor {}:", clean(&named)));
    }
    lines
}

fn rest(status: &Value, word: &str) -> String {
    let running = document::count(status, "in_flight").unwrap_or(0);
    if let Some(pause) = status.get("pause").filter(|pause| pause.is_object()) {
        let reason = match document::text(pause, "reason") {
            Some(reason) => labelled("Reason: ", reason),
            None => "No reason was given.".to_owned(),
        };
        let line = super::pause_line(pause);
        return format!(
            "Paused {line}.\n{reason}\n{running} command(s) in flight run to their end; `noetl resume` lets it go on."
        );
    }
    if !document::is_terminal(word) {
        let step = document::text(status, "current_step").unwrap_or("-");
        let unserved: Vec<_> =
            document::list(status, "unserved_pools").iter().filter_map(Value::as_str).map(clean).collect();
        let waits = match unserved.as_slice() {
            [] => String::new(),
            pools => {
                let start = "`noetl worker start --pool NAME` starts one";
                format!("\nCommands of it wait in a pool that no worker serves: {}. {start}.", pools.join(", "))
            }
        };
        return format!("It goes on: at step {}, {running} command(s) in flight.{waits}", clean(step));
    }
    if document::is(status, "quiesced") {
        let since = document::text(status, "quiesced_at").map(|at| format!(", since {}", clean(at)));
        return format!("Nothing of it runs any more{}.", since.unwrap_or_default());
    }
    format!("{running} command(s) still run; `noetl status` shows them.")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plain(chain: &[Value]) -> String {
        anstream::adapter::strip_str(&story(chain, None)).to_string()
    }

    #[test]
    fn a_member_of_a_family_names_the_ancestor_that_was_meant() {
        let child = json!({
            "execution_id": "3", "path": "leaf", "status": "CANCELLED", "end_time": "2026-01-20T09:08:00.123Z",
            "quiesced": true, "quiesced_at": "2026-01-20T09:08:01.000Z", "in_flight": 0,
            "cancellation": {"cancelled_by": "ann", "requested_by": "ann@host", "reason": "enough", "mode": "finish",
                "requested_execution_id": "1"},
        });
        let parent = json!({"execution_id": "2", "path": "branch", "status": "CANCELLED"});
        let root = json!({"execution_id": "1", "path": "root", "status": "CANCELLED"});
        assert_eq!(
            plain(&[child, parent, root]),
            "\
3 (leaf) is CANCELLED.
Cancelled by ann for ann@host at 2026-01-20T09:08:00.123Z, mode finish.
Reason: enough
The request named its ancestor 1:
  ↑ 2 (branch) CANCELLED
  ↑ 1 (root) CANCELLED
Nothing of it runs any more, since 2026-01-20T09:08:01.000Z.
"
        );
    }

    #[test]
    fn a_cleanup_says_what_of_it_failed() {
        let cancelled = json!({"execution_id": "1", "path": "a", "status": "CANCELLED", "quiesced": true,
            "cancellation": {"cancelled_by": "ann", "mode": "finish", "reason": "x\nIt is fine.", "cleanup": "2"}});
        let cleanup = json!({"execution_id": "2", "path": "a", "status": "COMPLETED", "cleanup_of": "1",
            "failed_steps": ["unbook"], "quiesced": true});
        let text = anstream::adapter::strip_str(&story(std::slice::from_ref(&cancelled), Some(&cleanup))).to_string();
        assert!(
            text.contains("Execution 2 cleans up after it, and is COMPLETED; step unbook of it failed.\n"),
            "{text}"
        );
        assert!(text.contains("Reason: x\n        It is fine.\n"), "{text}");
        assert!(plain(&[cancelled]).contains("Execution 2 cleans up after it.\n"), "not begun");
        let text = plain(&[cleanup]);
        assert!(text.contains("Failed without being handled: step unbook.\n"), "{text}");
    }

    #[test]
    fn what_a_shield_spared_says_from_what() {
        let child = json!({"execution_id": "2", "path": "leaf", "status": "RUNNING", "current_step": "work",
            "in_flight": 1, "shield": "wait"});
        let parent = json!({"execution_id": "1", "path": "root", "status": "CANCELLED",
            "cancellation": {"cancelled_by": "ann", "requested_execution_id": "1"}});
        assert_eq!(
            plain(&[child, parent]),
            "\
2 (leaf) is RUNNING.
It is shielded: a cancel of an ancestor spares it (spec.cancel.policy: wait).
Its parent was cancelled by ann:
  ↑ 1 (root) CANCELLED
It goes on: at step work, 1 command(s) in flight.
"
        );
    }

    #[test]
    fn what_failed_and_what_runs_have_stories_too() {
        let failed = json!({"execution_id": "1", "path": "a", "status": "FAILED", "error": "no", "quiesced": false,
            "in_flight": 2});
        assert_eq!(
            plain(&[failed]),
            "1 (a) is FAILED.\nIt failed: no\n2 command(s) still run; `noetl status` shows them.\n"
        );
        let running =
            json!({"execution_id": "1", "path": "a", "status": "RUNNING", "current_step": "load", "in_flight": 1});
        assert_eq!(plain(&[running]), "1 (a) is RUNNING.\nIt goes on: at step load, 1 command(s) in flight.\n");
        let waiting = json!({"execution_id": "1", "path": "a", "status": "RUNNING", "current_step": "load",
            "in_flight": 0, "unserved_pools": ["gpu"]});
        assert!(plain(&[waiting]).contains("\nCommands of it wait in a pool that no worker serves: gpu. "));
        let paused = json!({"execution_id": "1", "path": "a", "status": "RUNNING", "in_flight": 1,
            "pause": {"paused_by": "cli", "requested_by": "ann@host", "since": "2026-01-20T09:08:00.123Z"}});
        assert_eq!(
            plain(&[paused]),
            "1 (a) is RUNNING.\nPaused by cli (ann@host) since 2026-01-20T09:08:00.123Z.\nNo reason was given.\n\
             1 command(s) in flight run to their end; `noetl resume` lets it go on.\n"
        );
    }
}
