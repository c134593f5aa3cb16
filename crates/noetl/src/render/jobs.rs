//! Jobs, for people.

use noetl_core::time::Timestamp;
use serde_json::Value;

use super::{clean, document, json, seconds, table};

/// Returns one line per job.
pub fn list(jobs: &[Value]) -> String {
    let rows: Vec<Vec<String>> = jobs.iter().map(row).collect();
    table::columns(&["JOB", "STATE", "ACTION", "WHAT", "CHANGED", "VISITED", "BY", "CREATED", "REASON"], &rows)
}

/// Returns everything about one job.
pub fn detail(job: &Value) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        if value != "-" {
            out.push_str(&format!("{:<13}{value}\n", format!("{name}:")));
        }
    };
    line("Job", field(job, "job_id"));
    line("State", field(job, "state"));
    line("Action", field(job, "action"));
    line("What", what(job));
    line("Cascade", if document::is(job, "cascade") { "yes" } else { "no" }.to_owned());
    line("Mode", field(job, "mode"));
    line("Reason", field(job, "reason"));
    let by = match document::text(job, "requested_by") {
        Some(requested_by) => format!("{} ({})", field(job, "cancelled_by"), clean(requested_by)),
        None => field(job, "cancelled_by"),
    };
    line("By", by);
    line("From", field(job, "remote"));
    line("Selected", number(job, "selected"));
    line("Visited", number(job, "visited"));
    line(&capital(changed(job)), number(job, "cancelled"));
    line("Spared", number(job, "spared"));
    line("Unquiesced", number(job, "unquiesced"));
    line("Rate", document::count(job, "rate").map_or("-".to_owned(), |rate| format!("{rate} per second")));
    line("Created", seconds(&field(job, "created_at")));
    line(
        "Stopped",
        match document::text(job, "stopped_at") {
            Some(at) => format!("{} by {}", seconds(&clean(at)), field(job, "stopped_by")),
            None => "-".to_owned(),
        },
    );
    line("Done", seconds(&field(job, "done_at")));
    out
}

/// Returns how far a job has come, in one line.
pub fn progress(job: &Value) -> String {
    let count = |key| document::count(job, key).unwrap_or(0);
    let mut text =
        format!("job {} {}: {} {}", field(job, "job_id"), field(job, "state"), count("cancelled"), changed(job));
    if count("spared") > 0 {
        text.push_str(&format!(", {} spared", count("spared")));
    }
    if count("unquiesced") > 0 {
        text.push_str(&format!(", {} still run something", count("unquiesced")));
    }
    text
}

/// Returns what has become of those that a job changed.
fn changed(job: &Value) -> &'static str {
    match document::text(job, "action") {
        Some("pause") => "paused",
        Some("resume") => "resumed",
        // An older server knows no other jobs and names no action.
        Some(_) | None => "cancelled",
    }
}

fn field(value: &Value, key: &str) -> String {
    clean(document::text(value, key).unwrap_or("-")).into_owned()
}

fn capital(word: &str) -> String {
    let mut rest = word.chars();
    rest.next().map(|first| first.to_uppercase().chain(rest).collect()).unwrap_or_default()
}

fn number(value: &Value, key: &str) -> String {
    document::count(value, key).map_or("-".to_owned(), |number| number.to_string())
}

fn what(job: &Value) -> String {
    if let Some(id) = document::text(job, "requested_execution_id") {
        return format!("family of {}", clean(id));
    }
    let selection = job.get("selection").and_then(Value::as_object);
    let words: Vec<String> = selection
        .into_iter()
        .flatten()
        .map(|(key, value)| match value {
            Value::Array(ids) => format!("{} listed", ids.len()),
            Value::String(text) => format!("{key}={}", clean(text)),
            Value::Bool(_) => key.clone(),
            Value::Object(labels) => {
                let one = |(name, value): (&String, &Value)| format!("{name}={}", value.as_str().unwrap_or_default());
                format!("label={}", clean(&labels.iter().map(one).collect::<Vec<_>>().join(",")))
            }
            // Moments stand in the row as milliseconds.
            Value::Number(ms) if matches!(key.as_str(), "started_before" | "idle_since") => {
                let at = ms.as_i64().map(|ms| seconds(&Timestamp(ms).to_iso()));
                format!("{key}={}", at.unwrap_or_else(|| ms.to_string()))
            }
            other => format!("{key}={}", clean(&json::compact(other))),
        })
        .collect();
    if words.is_empty() { "all".to_owned() } else { words.join(" ") }
}

fn row(job: &Value) -> Vec<String> {
    vec![
        field(job, "job_id"),
        field(job, "state"),
        field(job, "action"),
        what(job),
        number(job, "cancelled"),
        match document::count(job, "selected") {
            Some(selected) => format!("{}/{selected}", number(job, "visited")),
            None => number(job, "visited"),
        },
        field(job, "cancelled_by"),
        seconds(&field(job, "created_at")),
        field(job, "reason"),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn selection() -> Value {
        json!({
            "job_id": "12", "action": "cancel", "kind": "selection", "state": "stopped", "cascade": false, "mode": null,
            "selection": {"path": "etl/*", "labels": {"env": "prod", "team": "data"}, "stuck": true}, "cancelled_by": "api", "requested_by": "ann@box",
            "selected": 9, "visited": 5, "cancelled": 4, "spared": 1, "unquiesced": 2, "rate": 10,
            "created_at": "2026-01-20T09:08:00.000Z", "stopped_at": "2026-01-20T09:08:01.000Z", "stopped_by": "ann",
            "done_at": "2026-01-20T09:08:02.000Z",
        })
    }

    #[test]
    fn a_list_says_what_each_is_about_and_how_far_it_came() {
        let cascade = json!({
            "job_id": "11", "state": "running", "requested_execution_id": "7", "visited": 3, "cancelled": 3,
            "cancelled_by": "cli", "reason": "loop\u{1b}[2J", "created_at": "2026-01-20T09:07:00.000Z",
        });
        let mut pause = cascade.clone();
        (pause["action"], pause["requested_execution_id"]) = (json!("pause"), json!("8"));
        let text = list(&[selection(), cascade, pause]);
        let line = text.lines().find(|line| line.contains("family of 8")).unwrap();
        assert!(line.contains(" pause ") && !line.contains("cancel"), "{text}");
        assert!(text.contains("path=etl/* label=env=prod,team=data stuck") && text.contains("5/9"), "{text}");
        let mut aged = selection();
        aged["selection"] = json!({"started_before": 1_768_900_080_123_i64, "idle_since": 1_768_900_080_999_i64});
        let text_of_aged = list(&[aged]);
        let moments = "started_before=2026-01-20T09:08:00Z idle_since=2026-01-20T09:08:00Z";
        assert!(text_of_aged.contains(moments), "{text_of_aged}");
        assert!(text.contains("family of 7") && !text.contains("loop\u{1b}"), "{text}");
    }

    #[test]
    fn a_walk_that_pauses_or_resumes_is_no_cancel() {
        let mut job = selection();
        for (action, done) in [("pause", "paused"), ("resume", "resumed")] {
            job["action"] = json!(action);
            let text = detail(&job);
            let (action, done) = (format!("Action:      {action}\n"), format!("{}:", capital(done)));
            assert!(text.contains(&action) && text.contains(&done) && !text.contains("Cancelled"), "{text}");
        }
        assert!(progress(&job).starts_with("job 12 stopped: 4 resumed,"), "{}", progress(&job));
    }

    #[test]
    fn a_detail_leaves_out_what_there_is_not() {
        let text = detail(&selection());
        assert!(
            text.contains("By:          api (ann@box)\n") && text.contains("Rate:        10 per second\n"),
            "{text}"
        );
        assert!(!text.contains("Reason"), "{text}");
        assert_eq!(progress(&selection()), "job 12 stopped: 4 cancelled, 1 spared, 2 still run something");
    }
}
