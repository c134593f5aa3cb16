//! The answer to a cancel: the block on stdout, and what else is worth knowing on stderr.

use std::fmt::Write as _;

use serde_json::Value;

use super::{CYAN, FRAME, YELLOW, clean, document, labelled};

/// Most running commands that are listed.
const IN_FLIGHT_SHOWN: usize = 10;

/// Returns the block, with the blank lines around it.
///
/// `id` is the argument as typed and `reason` the flag; both are repeated as they are.
pub fn block(id: &str, reason: Option<&str>, answer: &Value) -> String {
    let status = document::text(answer, "status").unwrap_or("unknown").to_uppercase();
    let cancelled = document::ids(answer, "cancelled_executions");
    let mut out = format!("\n{YELLOW}{FRAME}{YELLOW:#}\n");
    // Writing to a String can not fail.
    let _ = writeln!(out, "Execution: {}", clean(id));
    let _ = writeln!(out, "Status:    {YELLOW}{}{YELLOW:#}", clean(&status));
    let _ = writeln!(out, "Cancelled: {} execution(s)", cancelled.len());
    if let Some(message) = document::text(answer, "message") {
        let _ = writeln!(out, "Message:   {}", clean(message));
    }
    if let Some(reason) = reason.filter(|reason| !reason.is_empty()) {
        let _ = writeln!(out, "{}", labelled("Reason:    ", reason));
    }
    if cancelled.len() > 1 {
        out.push_str(&members("Cancelled executions:", &cancelled));
    }
    let would_cancel = document::ids(answer, "would_cancel");
    if !would_cancel.is_empty() {
        out.push_str(&members("Would cancel:", &would_cancel));
    }
    let _ = writeln!(out, "{YELLOW}{FRAME}{YELLOW:#}\n");
    out
}

/// Returns what the block does not say: what still runs, and what could be done about it.
pub fn remarks(id: &str, answer: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let id = clean(id);
    let dry_run = document::text(answer, "status") == Some("dry_run");
    let harder = document::ids(answer, "escalated_executions");
    if document::is(answer, "escalated") {
        lines.push(match harder.iter().any(|one| *one != id) {
            false => "It had been cancelled before; what still runs is now interrupted.".to_owned(),
            true => format!("Cancelled before, and interrupted now: {}.", named(&harder)),
        });
    }
    let would_escalate = document::ids(answer, "would_escalate");
    if !would_escalate.is_empty() {
        lines.push(format!("Cancelled before, and would be interrupted now: {}.", named(&would_escalate)));
    }
    let quiesced = document::is(answer, "quiesced");
    let in_flight = document::list(answer, "in_flight");
    if !in_flight.is_empty() && !quiesced {
        let mode = match document::text(answer, "mode") {
            _ if dry_run => "would be in flight",
            Some("interrupt") => "being stopped",
            Some(_) | None => "running to its end",
        };
        lines.push(format!("{} command(s) {mode}:", in_flight.len()));
        lines.extend(in_flight.iter().take(IN_FLIGHT_SHOWN).map(command));
        if in_flight.len() > IN_FLIGHT_SHOWN {
            lines.push(format!("  … and {} more", in_flight.len() - IN_FLIGHT_SHOWN));
        }
        // Of a step the execution goes on: what is said of a whole one is of no use.
        let of_step = matches!(document::text(answer, "status"), Some("step_cancelled" | "loop_completed"));
        if !dry_run && !of_step {
            lines.extend(what_can_be_done(&id, answer, in_flight));
        }
    }
    if let Some(cleanup) = answer.get("cleanup").and_then(document::id).filter(|_| !dry_run) {
        lines.push(format!("Execution {} cleans up after it.", clean(&cleanup)));
    }
    let running_on = document::count(answer, "active_descendants").unwrap_or(0);
    if running_on > 0 {
        lines.push(format!("{YELLOW}{running_on} descendant(s) run on.{YELLOW:#}"));
        lines.push(hint(&format!("cancel them too with `noetl cancel {id} --cascade`")));
    }
    for spared in document::list(answer, "spared") {
        let which = spared.get("execution_id").and_then(document::id).unwrap_or_default();
        let (which, policy) = (clean(&which), document::text(spared, "policy").unwrap_or("?"));
        let verb = if dry_run { "would be" } else { "is" };
        lines.push(format!("Execution {which} {verb} spared (spec.cancel.policy: {}); it runs on.", clean(policy)));
        lines.push(hint(&format!("`noetl cancel {which}` cancels it all the same")));
    }
    if answer.get("complete").and_then(Value::as_bool) == Some(false) && !dry_run {
        let job = answer.get("job_id").and_then(document::id).map(|job| format!(" as job {}", clean(&job)));
        lines.push(format!("The cascade goes on in the server{}.", job.unwrap_or_default()));
    }
    lines
}

/// Returns how to stop what still runs, and how to wait for it.
fn what_can_be_done(id: &str, answer: &Value, in_flight: &[Value]) -> Vec<String> {
    let mut runs: Vec<String> =
        in_flight.iter().filter_map(|command| command.get("execution_id").and_then(document::id)).collect();
    runs.sort();
    runs.dedup();
    // A cancel of the named one alone reaches nothing of its descendants, and it may have quiesced before them.
    let below = runs.iter().any(|one| one != id);
    let mut lines = Vec::new();
    if document::text(answer, "mode") != Some("interrupt") {
        let cascade = if below { " --cascade" } else { "" };
        lines.push(hint(&format!("stop them now with `noetl cancel {id}{cascade} --interrupt`")));
    }
    if !below {
        lines.push(hint(&format!("`noetl wait {id} --for quiesced` returns when nothing runs any more")));
        return lines;
    }
    match answer.get("job_id").and_then(document::id).filter(|_| !document::is(answer, "escalated")) {
        Some(job) => {
            lines.push(hint(&format!("`noetl jobs {} --wait` returns when nothing runs any more", clean(&job))));
        }
        None => lines.push(hint(&format!("`noetl wait ID --for quiesced` waits for each of {}", named(&runs)))),
    }
    lines
}

/// Returns the first of some ids, and how many there are besides.
fn named(ids: &[String]) -> String {
    let shown: Vec<String> = ids.iter().take(IN_FLIGHT_SHOWN).map(|id| clean(id).into_owned()).collect();
    let more = ids.len() - shown.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

fn members(title: &str, ids: &[String]) -> String {
    let mut out = format!("\n{title}\n");
    for id in ids {
        let _ = writeln!(out, "  - {}", clean(id));
    }
    out
}

fn command(command: &Value) -> String {
    let field = |key: &str| clean(document::text(command, key).unwrap_or("?")).into_owned();
    let mut line = format!("  - step {} ({}) on {}", field("step"), field("tool"), field("worker"));
    if let Some(execution) = command.get("execution_id").and_then(document::id) {
        let _ = write!(line, ", execution {}", clean(&execution));
    }
    if command.get("stoppable").and_then(Value::as_bool) == Some(false) {
        line.push_str(", can not be interrupted");
    }
    line
}

fn hint(text: &str) -> String {
    format!("{CYAN}hint:{CYAN:#} {text}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    const ID: &str = "543857931469455628";

    #[test]
    fn one_execution_is_the_block_of_the_founding_document() {
        let answer = json!({
            "status": "cancelled", "execution_id": ID, "cancelled_executions": [ID],
            "message": "Cancelled 1 execution(s)",
        });
        assert_eq!(
            plain(&block(ID, Some("Detected infinite loop"), &answer)),
            "
============================================================
Execution: 543857931469455628
Status:    CANCELLED
Cancelled: 1 execution(s)
Message:   Cancelled 1 execution(s)
Reason:    Detected infinite loop
============================================================

"
        );
    }

    #[test]
    fn a_family_is_the_second_block_of_the_founding_document() {
        let answer = json!({
            "status": "cancelled", "execution_id": ID,
            "cancelled_executions": [ID, "543857932012345678", 543_857_933_098_765_432_i64],
            "message": "Cancelled 3 execution(s)", "reason": null,
        });
        assert_eq!(
            plain(&block(ID, None, &answer)),
            "
============================================================
Execution: 543857931469455628
Status:    CANCELLED
Cancelled: 3 execution(s)
Message:   Cancelled 3 execution(s)

Cancelled executions:
  - 543857931469455628
  - 543857932012345678
  - 543857933098765432
============================================================

"
        );
    }

    #[test]
    fn a_dry_run_says_what_would_be() {
        let answer = json!({
            "status": "dry_run", "execution_id": ID, "cancelled_executions": [], "would_cancel": [ID],
            "message": "Would cancel 1 execution(s)",
        });
        let text = plain(&block(ID, None, &answer));
        assert!(text.contains("Status:    DRY_RUN\nCancelled: 0 execution(s)\n"), "{text}");
        assert!(text.contains("\nWould cancel:\n  - 543857931469455628\n==="), "{text}");
    }

    #[test]
    fn colours_frame_the_block_and_nothing_else() {
        let text = block(ID, None, &json!({"status": "cancelled"}));
        assert_eq!(text.matches("\u{1b}[33m").count(), 3);
        assert!(text.starts_with("\n\u{1b}[33m===") && text.ends_with("\u{1b}[0m\n\n"), "{text:?}");
    }

    #[test]
    fn remarks_name_what_still_runs_and_who_was_spared() {
        let answer = json!({
            "status": "cancelled", "mode": "finish", "quiesced": false, "active_descendants": 2, "complete": true,
            "in_flight": [{"step": "load", "tool": "python", "worker": "w1", "execution_id": ID, "stoppable": true}],
        });
        let lines = remarks(ID, &answer).iter().map(|line| plain(line)).collect::<Vec<_>>();
        assert_eq!(
            lines,
            [
                "1 command(s) running to its end:",
                "  - step load (python) on w1, execution 543857931469455628",
                "hint: stop them now with `noetl cancel 543857931469455628 --interrupt`",
                "hint: `noetl wait 543857931469455628 --for quiesced` returns when nothing runs any more",
                "2 descendant(s) run on.",
                "hint: cancel them too with `noetl cancel 543857931469455628 --cascade`",
            ]
        );
        assert!(remarks(ID, &json!({"status": "cancelled", "quiesced": true, "complete": true})).is_empty());
    }

    #[test]
    fn what_runs_below_is_stopped_and_waited_for_where_it_runs() {
        let held = |execution: &str| json!({"step": "load", "tool": "python", "worker": "w1", "execution_id": execution, "stoppable": true});
        let mut answer = json!({
            "status": "cancelled", "mode": "finish", "quiesced": false, "complete": true, "job_id": "77",
            "in_flight": [held("8"), held("8"), held("9")],
        });
        let told = |answer: &Value| remarks(ID, answer).iter().map(|line| plain(line)).collect::<Vec<_>>();
        let lines = told(&answer);
        assert_eq!(lines[4], format!("hint: stop them now with `noetl cancel {ID} --cascade --interrupt`"));
        assert_eq!(lines[5..], ["hint: `noetl jobs 77 --wait` returns when nothing runs any more"]);
        (answer["escalated"], answer["mode"]) = (json!(true), json!("interrupt"));
        answer["escalated_executions"] = json!(["8", "9"]);
        let lines = told(&answer);
        assert_eq!(lines[0], "Cancelled before, and interrupted now: 8, 9.");
        assert_eq!(lines[5..], ["hint: `noetl wait ID --for quiesced` waits for each of 8, 9"]);
        let dry = json!({"status": "dry_run", "would_escalate": ["8"], "quiesced": false});
        assert_eq!(told(&dry), ["Cancelled before, and would be interrupted now: 8."]);
    }

    #[test]
    fn a_step_that_is_stopped_leaves_an_execution_that_goes_on() {
        let answer = json!({
            "status": "loop_completed", "mode": "finish", "quiesced": false, "complete": true,
            "in_flight": [{"step": "each", "tool": "shell", "worker": "w1", "execution_id": ID, "stoppable": true}],
        });
        let lines = remarks(ID, &answer);
        assert_eq!(lines.len(), 2, "{lines:?}");
    }

    #[test]
    fn a_reason_of_several_lines_can_not_look_like_another_field() {
        let text = plain(&block(ID, Some("x\nStatus: COMPLETED"), &json!({"status": "cancelled"})));
        assert!(text.contains("Reason:    x\n           Status: COMPLETED\n==="), "{text}");
    }

    #[test]
    fn an_unfinished_cascade_is_said() {
        let answer = json!({"status": "cancelled", "quiesced": false, "complete": false, "job_id": "77"});
        assert_eq!(remarks(ID, &answer), ["The cascade goes on in the server as job 77."]);
    }
}
