//! The list of executions, for people.

use serde_json::Value;

use super::{clean, document, seconds, status_colour, table};

/// Returns one line per execution.
pub fn list(executions: &[Value]) -> String {
    let heading = ["EXECUTION", "STATUS", "PLAYBOOK", "STARTED", "DURATION", "STEP", "COMMANDS"];
    let rows: Vec<Vec<String>> = executions.iter().map(row).collect();
    table::columns(&heading, &rows)
}

fn row(execution: &Value) -> Vec<String> {
    let field = |key: &str| clean(document::text(execution, key).unwrap_or("-")).into_owned();
    let status = document::status(execution);
    let colour = status_colour(&status);
    let unquiet = document::is_terminal(&status)
        && execution.get("quiesced").and_then(Value::as_bool) == Some(false)
        && document::count(execution, "in_flight").unwrap_or(0) > 0;
    let paused = execution.get("pause").is_some_and(Value::is_object);
    let mark = match (unquiet, paused) {
        (true, _) => "*",
        (false, true) => " (paused)",
        (false, false) => "",
    };
    let version = document::count(execution, "version").map(|version| format!("@{version}")).unwrap_or_default();
    let step = if document::is_terminal(&status) { failed_or_dash(execution) } else { field("current_step") };
    vec![
        execution.get("execution_id").and_then(document::id).map_or("-".to_owned(), |id| clean(&id).into_owned()),
        format!("{colour}{status}{colour:#}{mark}"),
        format!("{}{version}", field("path")),
        seconds(&field("start_time")),
        document::duration(execution).unwrap_or_else(|| "-".to_owned()),
        step,
        document::count(execution, "commands_issued").map_or("-".to_owned(), |count| count.to_string()),
    ]
}

/// An ended execution is nowhere, but where it failed is worth knowing.
fn failed_or_dash(execution: &Value) -> String {
    let failed: Vec<String> = document::list(execution, "failed_steps")
        .iter()
        .filter_map(Value::as_str)
        .map(|n| clean(n).into_owned())
        .collect();
    match failed.as_slice() {
        [] => "-".to_owned(),
        [one] => format!("failed: {one}"),
        [first, rest @ ..] => format!("failed: {first} +{}", rest.len()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_aligns_and_marks_what_is_not_quiet() {
        let executions = [
            json!({
                "execution_id": "12", "status": "RUNNING", "path": "demo/spin", "version": 2,
                "start_time": "2026-01-20T09:08:00.123Z", "duration_seconds": 3.0, "current_step": "spin",
                "commands_issued": 7, "quiesced": false, "in_flight": 1,
            }),
            json!({
                "execution_id": "11", "status": "CANCELLED", "path": "demo/a", "version": 1, "duration_human": "1m",
                "start_time": "2026-01-20T09:07:00.000Z", "quiesced": false, "in_flight": 1, "commands_issued": 1,
            }),
            json!({
                "execution_id": "10", "status": "FAILED", "path": "demo/a", "version": 1, "duration_human": "1m",
                "start_time": "2026-01-20T09:07:00.000Z", "quiesced": true, "failed_steps": ["x", "y"],
            }),
        ];
        assert_eq!(
            anstream::adapter::strip_str(&list(&executions)).to_string(),
            "\
EXECUTION  STATUS      PLAYBOOK     STARTED               DURATION  STEP          COMMANDS
12         RUNNING     demo/spin@2  2026-01-20T09:08:00Z  3s        spin          7
11         CANCELLED*  demo/a@1     2026-01-20T09:07:00Z  1m        -             1
10         FAILED      demo/a@1     2026-01-20T09:07:00Z  1m        failed: x +1  -
"
        );
    }
}
