//! Workers and what they run, for people.

use serde_json::Value;

use super::{clean, document, table};

/// Returns one line per worker, below them one per command that somebody holds, and one per pool in which commands wait
/// for a worker that is not there.
pub fn list(answer: &Value) -> String {
    let workers = document::list(answer, "workers");
    let rows: Vec<Vec<String>> = workers.iter().map(worker).collect();
    let mut out = table::columns(&["WORKER", "POOLS", "BUSY", "HOST", "VERSION", "SINCE"], &rows);
    let commands: Vec<Vec<String>> = workers
        .iter()
        .flat_map(|worker| document::list(worker, "commands").iter().map(|held| command(worker, held)))
        .collect();
    if !commands.is_empty() {
        out.push('\n');
        out.push_str(&table::columns(&["EXECUTION", "STEP", "TOOL", "STATE", "WORKER", "SINCE"], &commands));
    }
    let unserved: Vec<Vec<String>> = document::list(answer, "unserved")
        .iter()
        .map(|pool| vec![field(pool, "pool"), document::count(pool, "waiting").unwrap_or(0).to_string()])
        .collect();
    if !unserved.is_empty() {
        out.push('\n');
        out.push_str(&table::columns(&["POOL WITHOUT WORKER", "WAITING"], &unserved));
    }
    out
}

fn field(value: &Value, key: &str) -> String {
    clean(document::text(value, key).unwrap_or("-")).into_owned()
}

fn worker(worker: &Value) -> Vec<String> {
    let pools: Vec<String> =
        document::list(worker, "pools").iter().filter_map(Value::as_str).map(|pool| clean(pool).into_owned()).collect();
    let busy = document::list(worker, "commands").len();
    vec![
        format!("{}{}", field(worker, "worker_id"), if document::is(worker, "draining") { " (draining)" } else { "" }),
        pools.join(","),
        format!("{busy}/{}", document::count(worker, "slots").unwrap_or(0)),
        field(worker, "host"),
        field(worker, "version"),
        super::seconds(&field(worker, "started_at")),
    ]
}

fn command(worker: &Value, held: &Value) -> Vec<String> {
    let iteration = document::count(held, "iteration").map(|n| format!("[{n}]")).unwrap_or_default();
    // A tool is reported as started when it runs for a while; before that it is only known to be held.
    let state = match (field(held, "state").as_str(), document::is(held, "started")) {
        ("claimed", true) => "running".to_owned(),
        (other, _) => other.to_owned(),
    };
    vec![
        field(held, "execution_id"),
        format!("{}{iteration}", field(held, "step")),
        field(held, "kind"),
        state,
        field(worker, "worker_id"),
        super::seconds(&field(held, "claimed_at")),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn workers_stand_above_what_they_run() {
        let workers = json!([
            {
                "worker_id": "a", "pools": ["default", "gpu"], "slots": 4, "host": "h", "version": "0.1.0",
                "started_at": "2026-01-20T09:08:00.123Z",
                "commands": [{
                    "execution_id": "12", "step": "each", "iteration": 3, "kind": "python", "state": "claimed",
                    "started": true, "claimed_at": "2026-01-20T09:09:00.000Z",
                }],
            },
            {"worker_id": "b", "pools": ["default"], "slots": 1, "started_at": "x", "draining": true, "commands": []},
        ]);
        let answer = json!({"workers": workers, "unserved": [{"pool": "slow", "waiting": 12}]});
        assert_eq!(
            anstream::adapter::strip_str(&list(&answer)).to_string(),
            "\
WORKER        POOLS        BUSY  HOST  VERSION  SINCE
a             default,gpu  1/4   h     0.1.0    2026-01-20T09:08:00Z
b (draining)  default      0/1   -     -        x

EXECUTION  STEP     TOOL    STATE    WORKER  SINCE
12         each[3]  python  running  a       2026-01-20T09:09:00Z

POOL WITHOUT WORKER  WAITING
slow                 12
"
        );
        assert_eq!(list(&json!({})).lines().count(), 1);
    }
}
