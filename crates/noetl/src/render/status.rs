//! Where one execution stands, for people.

use std::fmt::Write as _;

use serde_json::Value;

use super::{FRAME, RED, clean, document, duration, status_colour};

/// Most names on one line or in one list.
const NAMES_SHOWN: usize = 50;
/// A step visited so often is worth a line: it looks like a loop.
const VISITS_WORTH_SAYING: u64 = 2;

/// Returns the block, with the blank lines around it.
pub fn block(id: &str, answer: &Value) -> String {
    let status = document::status(answer);
    let terminal = document::is_terminal(&status);
    let colour = status_colour(&status);
    let completed = names(answer, "completed_steps");
    let mut out = format!("\n{colour}{FRAME}{colour:#}\n");
    // Writing to a String can not fail.
    let _ = writeln!(out, "Execution: {}", clean(id));
    let _ = writeln!(out, "Status:    {colour}{status}{colour:#}");
    if let Some(path) = document::text(answer, "path") {
        let version = document::count(answer, "version").map(|version| format!(" v{version}")).unwrap_or_default();
        let _ = writeln!(out, "Playbook:  {}{version}", clean(path));
    }
    let _ = writeln!(out, "Steps:     {} completed", completed.len());
    if let Some(duration) = document::duration(answer) {
        let _ = writeln!(out, "Duration:  {duration}");
    }
    if !terminal {
        let _ = writeln!(out, "Current:   {}", clean(document::text(answer, "current_step").unwrap_or("unknown")));
    }
    if let Some(issued) = document::count(answer, "commands_issued") {
        let _ = write!(out, "Commands:  {issued} issued");
        let in_flight = document::count(answer, "in_flight").unwrap_or(0);
        let _ = if in_flight > 0 { writeln!(out, ", {in_flight} in flight") } else { writeln!(out) };
    }
    if let Some(line) = most_visited(answer) {
        let _ = writeln!(out, "Busiest:   {line}");
    }
    let failed = names(answer, "failed_steps");
    if !failed.is_empty() {
        let _ = writeln!(out, "Failed:    {}", joined(&failed));
    }
    if let Some(error) = document::text(answer, "error").filter(|_| status == "FAILED") {
        let _ = writeln!(out, "{RED}Error:{RED:#}     {}", super::clean_lines(error));
    }
    if let Some(of) = answer.get("cleanup_of").and_then(document::id) {
        let _ = writeln!(out, "Cleans up: after {}", clean(&of));
    }
    let labels = labels(answer);
    if !labels.is_empty() {
        let _ = writeln!(out, "Labels:    {}", joined(&labels));
    }
    out.push_str(&paused(answer));
    out.push_str(&cancellation(answer));
    out.push_str(&quiesced(answer));
    out.push_str(&commands(answer));
    if !completed.is_empty() {
        out.push_str("\nCompleted steps:\n");
        for name in completed.iter().take(NAMES_SHOWN) {
            let _ = writeln!(out, "  - {name}");
        }
        if completed.len() > NAMES_SHOWN {
            let _ = writeln!(out, "  … and {} more", completed.len() - NAMES_SHOWN);
        }
    }
    let _ = writeln!(out, "{colour}{FRAME}{colour:#}\n");
    out
}

fn labels(answer: &Value) -> Vec<String> {
    let labels = answer.get("labels").and_then(Value::as_object).into_iter().flatten();
    let text = |(name, value): (&String, &Value)| {
        clean(&format!("{name}={}", value.as_str().unwrap_or_default())).into_owned()
    };
    labels.map(text).collect()
}

fn most_visited(answer: &Value) -> Option<String> {
    let busiest = answer.get("most_visited_step")?;
    let visits = document::count(busiest, "visits").filter(|visits| *visits >= VISITS_WORTH_SAYING)?;
    Some(format!("{} ({visits} visits)", clean(document::text(busiest, "step")?)))
}

/// Says who paused it, since when and why.
fn paused(answer: &Value) -> String {
    let Some(pause) = answer.get("pause").filter(|pause| pause.is_object()) else { return String::new() };
    let mut out = format!("Paused:    {}\n", super::pause_line(pause));
    if let Some(reason) = document::text(pause, "reason") {
        let _ = writeln!(out, "{}", super::labelled("Reason:    ", reason));
    }
    out
}

fn cancellation(answer: &Value) -> String {
    let Some(cancel) = answer.get("cancellation").filter(|cancel| cancel.is_object()) else { return String::new() };
    let mut out = String::new();
    if let Some(reason) = document::text(cancel, "reason") {
        let _ = writeln!(out, "{}", super::labelled("Reason:    ", reason));
    }
    let mut by = clean(document::text(cancel, "cancelled_by").unwrap_or("unknown")).into_owned();
    if let Some(requested_by) = document::text(cancel, "requested_by") {
        let _ = write!(by, " ({})", clean(requested_by));
    }
    if let Some(since) = document::text(cancel, "since") {
        let _ = write!(by, " at {}", clean(since));
    }
    if let Some(mode) = document::text(cancel, "mode") {
        let _ = write!(by, ", mode {}", clean(mode));
    }
    let _ = writeln!(out, "Cancelled: by {by}");
    if let Some(cleanup) = cancel.get("cleanup").and_then(document::id) {
        let _ = writeln!(out, "Cleanup:   {}", clean(&cleanup));
    }
    let requested = cancel.get("requested_execution_id").and_then(document::id);
    if let Some(requested) =
        requested.filter(|requested| answer.get("execution_id").and_then(document::id).as_ref() != Some(requested))
    {
        let _ = writeln!(out, "           through {}", clean(&requested));
    }
    out
}

/// Says whether anything of a cancelled execution still runs.
fn quiesced(answer: &Value) -> String {
    if document::status(answer) != "CANCELLED" {
        return String::new();
    }
    match (answer.get("quiesced").and_then(Value::as_bool), document::text(answer, "quiesced_at")) {
        (Some(true), Some(at)) => format!("Quiesced:  yes, since {}\n", clean(at)),
        (Some(true), None) => "Quiesced:  yes\n".to_owned(),
        (Some(false), _) => "Quiesced:  not yet\n".to_owned(),
        // An older server does not know.
        (None, _) => String::new(),
    }
}

/// Lists what is alive: while it runs, and after a cancel until it has quiesced.
fn commands(answer: &Value) -> String {
    let alive = document::list(answer, "commands");
    if alive.is_empty() {
        return String::new();
    }
    let mut out = "\nLive commands:\n".to_owned();
    for command in alive.iter().take(NAMES_SHOWN) {
        let field = |key: &str| document::text(command, key).map(clean);
        let _ = write!(out, "  - {} [{}]", field("step").unwrap_or_default(), field("state").unwrap_or_default());
        if let Some(iteration) = document::count(command, "iteration") {
            let _ = write!(out, " iteration {iteration}");
        }
        if let Some(tool) = field("tool") {
            let _ = write!(out, " {tool}");
        }
        if let Some(pool) = unserved(answer, command) {
            let _ = write!(out, " in pool {}, which no worker serves", clean(pool));
        }
        if let Some(worker) = field("worker_id") {
            let _ = write!(out, " on {worker}");
        }
        if let Some(pid) = document::count(command, "pid") {
            let _ = write!(out, " pid {pid}");
        }
        if let Some(age) = command.get("age_seconds").and_then(Value::as_f64) {
            let _ = write!(out, ", {}", duration::human(age));
        }
        if let Some(kill_at) = field("kill_at") {
            let _ = write!(out, ", killed at {kill_at}");
        }
        out.push('\n');
    }
    if alive.len() > NAMES_SHOWN || document::is(answer, "commands_truncated") {
        out.push_str("  … and more\n");
    }
    out
}

/// Returns the pool that a command waits in, if no worker serves it.
fn unserved<'a>(answer: &Value, command: &'a Value) -> Option<&'a str> {
    let pool = document::text(command, "pool").filter(|_| document::text(command, "state") == Some("pending"))?;
    document::list(answer, "unserved_pools").iter().any(|unserved| unserved == pool).then_some(pool)
}

fn names(answer: &Value, key: &str) -> Vec<String> {
    document::list(answer, key).iter().filter_map(Value::as_str).map(|name| clean(name).into_owned()).collect()
}

fn joined(names: &[String]) -> String {
    let shown = names.iter().take(NAMES_SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > NAMES_SHOWN { format!("{shown}, … and {} more", names.len() - NAMES_SHOWN) } else { shown }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn an_answer_of_an_older_server_is_the_published_block() {
        let answer = json!({
            "completed": false, "failed": false, "current_step": "step2", "completed_steps": ["start", "a"],
            "duration_human": "1m 5s",
        });
        assert_eq!(
            plain(&block("123", &answer)),
            "
============================================================
Execution: 123
Status:    RUNNING
Steps:     2 completed
Duration:  1m 5s
Current:   step2

Completed steps:
  - start
  - a
============================================================

"
        );
        for (answer, word) in [
            (json!({"completed": true}), "COMPLETED"),
            (json!({"completed": false, "failed": true}), "FAILED"),
            (json!({"completed": true, "failed": false, "is_cancelled": true}), "CANCELLED"),
            (json!({"completed": true, "status": "cancelled"}), "CANCELLED"),
        ] {
            assert!(plain(&block("1", &answer)).contains(&format!("Status:    {word}\n")), "{answer}");
        }
    }

    #[test]
    fn a_runaway_shows() {
        let answer = json!({
            "status": "RUNNING", "path": "demo/spin", "version": 3, "current_step": "spin", "commands_issued": 9_000,
            "in_flight": 1, "most_visited_step": {"step": "spin", "visits": 9_000}, "duration_seconds": 65.2,
            "commands": [{"step": "spin", "state": "claimed", "tool": "python", "worker_id": "w1", "age_seconds": 1.3}],
        });
        assert_eq!(
            plain(&block("5", &answer)),
            "
============================================================
Execution: 5
Status:    RUNNING
Playbook:  demo/spin v3
Steps:     0 completed
Duration:  1m 5s
Current:   spin
Commands:  9000 issued, 1 in flight
Busiest:   spin (9000 visits)

Live commands:
  - spin [claimed] python on w1, 1.3s
============================================================

"
        );
    }

    #[test]
    fn a_cancelled_one_says_who_why_and_whether_it_is_quiet() {
        let answer = json!({
            "execution_id": "6", "status": "CANCELLED", "completed": true, "cancelled": true, "completed_steps": [],
            "quiesced": true, "quiesced_at": "2026-01-20T09:08:01.000Z",
            "cancellation": {
                "reason": "Detected infinite loop", "cancelled_by": "cli", "requested_by": "ann@host",
                "since": "2026-01-20T09:08:00.000Z", "mode": "finish", "requested_execution_id": "5",
            },
        });
        let text = block("6", &answer);
        assert!(text.contains("\u{1b}[33mCANCELLED\u{1b}[0m"), "{text:?}");
        assert_eq!(
            plain(&text),
            "
============================================================
Execution: 6
Status:    CANCELLED
Steps:     0 completed
Reason:    Detected infinite loop
Cancelled: by cli (ann@host) at 2026-01-20T09:08:00.000Z, mode finish
           through 5
Quiesced:  yes, since 2026-01-20T09:08:01.000Z
============================================================

"
        );
    }

    #[test]
    fn a_failed_one_names_steps_and_error() {
        let answer = json!({"status": "FAILED", "error": "boom", "failed_steps": ["a", "b"], "completed_steps": ["s"]});
        let text = plain(&block("7", &answer));
        assert!(text.contains("Failed:    a, b\nError:     boom\n"), "{text}");
    }
}
