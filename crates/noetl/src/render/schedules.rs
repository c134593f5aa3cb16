//! Schedules, for people.

use serde_json::Value;

use super::{clean, document, duration, seconds, table};

/// Returns one line per schedule.
pub fn list(schedules: &[Value]) -> String {
    let rows: Vec<Vec<String>> = schedules.iter().map(row).collect();
    table::columns(&["SCHEDULE", "PLAYBOOK", "WHEN", "NEXT", "LAST", "STATUS"], &rows)
}

/// Returns what was done to a schedule, in one line.
pub fn done(schedule: &Value, done: &str) -> String {
    let next = match (done, document::text(schedule, "next_run_at")) {
        ("removed", _) => String::new(),
        (_, Some(next)) => format!(", next run {}", seconds(&clean(next))),
        (_, None) => ", waits for nothing".to_owned(),
    };
    format!("schedule {} {done}: {} {}{next}\n", field(schedule, "name"), playbook(schedule), when(schedule))
}

fn field(value: &Value, key: &str) -> String {
    clean(document::text(value, key).unwrap_or("-")).into_owned()
}

fn playbook(schedule: &Value) -> String {
    let version = document::count(schedule, "version").map(|version| format!("@{version}")).unwrap_or_default();
    format!("{}{version}", field(schedule, "path"))
}

fn when(schedule: &Value) -> String {
    match (document::text(schedule, "cron"), document::count(schedule, "interval_seconds")) {
        (Some(pattern), _) => format!("{} {}", clean(pattern), field(schedule, "timezone")),
        #[expect(clippy::cast_precision_loss, reason = "a time for people")]
        (None, Some(seconds)) => format!("every {}", duration::human(seconds as f64)),
        (None, None) => "-".to_owned(),
    }
}

fn row(schedule: &Value) -> Vec<String> {
    let status = match document::is(schedule, "enabled") {
        true => field(schedule, "last_status"),
        false => "paused".to_owned(),
    };
    vec![
        field(schedule, "name"),
        playbook(schedule),
        when(schedule),
        seconds(&field(schedule, "next_run_at")),
        seconds(&field(schedule, "last_run_at")),
        status,
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn schedules_say_when_and_what_became_of_them() {
        let schedules = [
            json!({
                "name": "nightly", "path": "a/b", "version": 2, "cron": "30 2 * * *", "timezone": "Europe/Berlin",
                "enabled": true, "next_run_at": "2026-01-21T01:30:00.000Z", "last_run_at": "2026-01-20T01:30:00.000Z",
                "last_status": "started",
            }),
            json!({"name": "poll", "path": "c", "interval_seconds": 300, "timezone": "UTC", "enabled": false}),
        ];
        let text = anstream::adapter::strip_str(&list(&schedules)).to_string();
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect())
            .collect();
        assert_eq!(
            lines[1],
            ["nightly", "a/b@2", "30 2 * * * Europe/Berlin", "2026-01-21T01:30:00Z", "2026-01-20T01:30:00Z", "started"]
        );
        assert_eq!(lines[2], ["poll", "c", "every 5m", "-", "-", "paused"]);
        assert_eq!(
            done(&schedules[0], "added"),
            "schedule nightly added: a/b@2 30 2 * * * Europe/Berlin, next run 2026-01-21T01:30:00Z\n"
        );
        assert_eq!(done(&schedules[1], "paused"), "schedule poll paused: c every 5m, waits for nothing\n");
        assert_eq!(done(&schedules[1], "removed"), "schedule poll removed: c every 5m\n");
    }
}
