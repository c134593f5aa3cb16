//! Executions that never end by themselves, stopped while others go on.

use std::path::Path;

use noetl_core::time::Timestamp;
use serde_json::Value;

use crate::support::{Home, Server, eventually};

/// Executions that go on beside the runaways.
const BYSTANDERS: usize = 50;
/// How often each runaway is started and stopped. The median counts: the machine is busy with other tests too.
const ROUNDS: usize = 3;
/// Room for every bystander and for the runaway: what is measured is the stop, not the wait for a slot.
const SLOTS: &str = "60";
/// From the end of the running task to the proof that nothing runs (C7). How fast it is in fact, `noetl bench` says.
const STOPPED_WITHIN_MS: i64 = 1_000;
/// From the decision until its worker knows: what it holds may go on to its next task for so long.
const ORDERED_WITHIN_MS: i64 = 250;

/// Goes round, with a task for a worker each time, until there is a file.
const BYSTANDER: &str = r#"
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: bystander, path: test/bystander}
workflow:
  - step: start
    tool:
      kind: python
      input: {folder: "{{ workload.folder }}"}
      code: |
        import os, time
        time.sleep(1)
        result = {"enough": os.path.exists(folder + "/enough")}
    next:
      spec: {mode: exclusive}
      arcs:
        - step: end
          when: "{{ start.enough }}"
        - step: start
  - step: end
    tool: {kind: noop}
"#;

/// Returns an example whose python task notes when it began and ended.
fn noting(name: &str, notes: &Path) -> String {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../examples/runaway/{name}.yaml"));
    let text = std::fs::read_to_string(example).unwrap();
    let (before, after) = text.split_once("time.sleep(0.01)\n").unwrap();
    let indent = " ".repeat(before.len() - before.trim_end_matches(' ').len());
    let notes = notes.display().to_string();
    let note = format!("open({notes:?}, 'a').write('%d %d\\n' % (began * 1000, time.time() * 1000))");
    format!("{before}began = time.time()\n{indent}time.sleep(0.05)\n{indent}{note}\n{after}")
}

fn start(home: &Home, playbook: &str) -> String {
    let started = home.run(&["run", playbook, "-r", "distributed", "--json"]).done().json();
    started["execution_id"].as_str().unwrap().to_owned()
}

/// When each event of these happened, in milliseconds, and how much of its work began after the first of them.
fn story(home: &Home, id: &str) -> (i64, i64, u64) {
    let sql = format!(
        "SELECT c.created_at AS decided, q.created_at AS proven, \
         (SELECT count(*) FROM noetl.event e WHERE e.execution_id = c.execution_id AND e.version > c.version \
          AND e.event_type IN ('step.enter', 'command.issued', 'command.claimed')) AS begun \
         FROM noetl.event c JOIN noetl.event q ON q.execution_id = c.execution_id \
         WHERE c.execution_id = {id} AND c.event_type = 'execution.cancelled' AND q.event_type = 'execution.quiesced'"
    );
    let row = home.run(&["query", &sql, "--format", "json"]).done().json()["result"][0].clone();
    let time = |name: &str| Timestamp::from_iso(row[name].as_str().unwrap_or_default()).unwrap().0;
    (time("decided"), time("proven"), row["begun"].as_u64().unwrap())
}

fn count(home: &Home, sql: &str) -> u64 {
    home.run(&["query", sql, "--format", "json"]).done().json()["result"][0]["n"].as_u64().unwrap()
}

fn median(mut values: Vec<i64>) -> i64 {
    values.sort_unstable();
    values[values.len() / 2]
}

#[test]
fn three_runaways_are_stopped_while_fifty_others_go_on() {
    let home = Home::new();
    let server = Server::start(&home, &["--worker-slots", SLOTS]);
    home.file("bystander.yaml", BYSTANDER);
    home.run(&["register", "bystander.yaml"]).done();
    let body = serde_json::json!({"path": "test/bystander", "workload": {"folder": home.path()}});
    let bystanders = home
        .shell(&format!(
            "for n in $(seq {BYSTANDERS}); do curl -sf {}/api/execute -H 'content-type: application/json' -d '{body}'; echo; done",
            server.url
        ))
        .done();
    let bystanders: Vec<String> = bystanders
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["execution_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(bystanders.len(), BYSTANDERS);
    let progress = format!(
        "SELECT count(*) AS n FROM noetl.event e JOIN noetl.execution x ON x.execution_id = e.execution_id \
         WHERE x.path = 'test/bystander' AND e.event_type = 'command.completed' AND {}",
        "x.status = 'RUNNING'"
    );
    let mut done_before = count(&home, &progress);

    for name in ["noop_cycle", "python_cycle", "jump_cycle"] {
        let mut took = Vec::new();
        for round in 0..ROUNDS {
            let notes = home.path().join(format!("{name}-{round}"));
            let example = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../examples/runaway/{name}.yaml"));
            let id = if name == "noop_cycle" {
                start(&home, example.to_str().unwrap())
            } else {
                let file = home.file(&format!("{name}.yaml"), &noting(name, &notes));
                start(&home, file.to_str().unwrap())
            };
            eventually("it is seen to run away", || {
                let status = home.run(&["status", &id, "--json"]).json();
                let visits = status["most_visited_step"]["visits"].as_u64().unwrap_or(0);
                let notes = std::fs::read_to_string(&notes).unwrap_or_default().lines().count();
                (visits > 3 || notes > 1).then_some(())
            });
            home.run(&["cancel", &id, "--reason", "Infinite loop detected"]).done();
            assert_eq!(home.run(&["wait", &id, "--for", "quiesced"]).done().stdout, "CANCELLED\n");
            let (decided, proven, begun) = story(&home, &id);
            assert_eq!(begun, 0, "{name}: something began after the decision");
            // Begin and end of each task, as the tasks themselves noted them.
            let tasks: Vec<(i64, i64)> = std::fs::read_to_string(&notes)
                .unwrap_or_default()
                .lines()
                .map(|line| line.split_once(' ').unwrap())
                .map(|(began, ended)| (began.parse().unwrap(), ended.parse().unwrap()))
                .collect();
            if let Some((began, _)) = tasks.last() {
                let late = began - decided;
                assert!(late <= ORDERED_WITHIN_MS, "{name}: a task began {late} ms after the decision");
            }
            let last = tasks.last().map_or(decided, |(_, ended)| (*ended).max(decided));
            assert!(last <= proven, "{name}: a task ended {} ms after the proof", last - proven);
            took.push(proven - last);
        }
        println!("{name}: {took:?} ms from the task's end to the proof");
        assert!(median(took.clone()) <= STOPPED_WITHIN_MS, "{name}: {took:?} ms from the task's end to the proof");
        let done = count(&home, &progress);
        assert!(done > done_before, "the others went on while {name} ran away and was stopped");
        done_before = done;
    }

    home.file("enough", "");
    for id in &bystanders {
        assert_eq!(home.run(&["wait", id]).done().stdout, "COMPLETED\n");
    }
    let touched = "SELECT count(*) AS n FROM noetl.event e JOIN noetl.execution x ON x.execution_id = e.execution_id \
                   WHERE x.path = 'test/bystander' AND e.event_type IN ('execution.cancelled', 'command.cancelled')";
    assert_eq!(count(&home, touched), 0, "no event of a cancel is in a bystander's log");
}
