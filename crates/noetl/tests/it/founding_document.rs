//! The founding document, from top to bottom: each command line, request, answer, query and example output, on the real
//! binary, whatever store it has. Texts in here are the document's; only ids and the port are put in.
//!
//! The runaways of its first use case have a place of their own, [`crate::runaways`].

use serde_json::{Value, json};

use crate::playbooks::{FAMILY, MOMENT, NOOP, SLEEP};
use crate::support::{Home, Said, Server, eventually};

/// A parent with two children that wait for a worker.
const PARENT_OF_TWO: &str = "\
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: two, path: test/two}
workflow:
  - step: start
    loop: {in: 2, iterator: n, spec: {mode: parallel, max_in_flight: 2}}
    tool: {kind: playbook, path: test/sleep}
";

/// A server whose executions stay where they are, because nobody works for it.
fn idle() -> (Home, Server) {
    let home = Home::new();
    let server = Server::start(&home, &["--no-worker"]);
    for (name, text) in [("sleep.yaml", SLEEP), ("noop.yaml", NOOP), ("two.yaml", PARENT_OF_TWO)] {
        home.file(name, text);
        home.run(&["register", name]).done();
    }
    (home, server)
}

fn start(home: &Home, path: &str) -> String {
    let started = home.run(&["run", path, "-r", "distributed", "--json"]).done().json();
    started["execution_id"].as_str().unwrap().to_owned()
}

/// Starts the parent of two and returns all three ids, in the order of their birth.
fn start_three(home: &Home) -> Vec<String> {
    let parent = start(home, "test/two");
    eventually("the children are there", || {
        let tree = home.run(&["tree", &parent, "--json"]).json();
        let members = tree["executions"].as_array()?;
        let mut ids: Vec<String> =
            members.iter().filter_map(|member| member["execution_id"].as_str().map(str::to_owned)).collect();
        ids.sort();
        (ids.len() == 3).then_some(ids)
    })
}

/// What the log of an execution holds, by name.
fn names(home: &Home, id: &str) -> Vec<String> {
    let events = home.run(&["events", id, "--json"]).done().stdout;
    let name = |line: &str| serde_json::from_str::<Value>(line).unwrap()["event_type"].as_str().unwrap().to_owned();
    events.lines().map(name).collect()
}

fn rows(home: &Home, sql: &str) -> Vec<Value> {
    let said = home.run(&["query", sql, "--format", "json"]).done();
    said.json()["result"].as_array().unwrap().clone()
}

/// An id in a row: a number, as the column is one.
fn id_of(row: &Value) -> String {
    row["execution_id"].as_i64().unwrap_or_else(|| panic!("{row}")).to_string()
}

/// Sends a request with curl, as the document does; returns the status and the body.
fn curl(home: &Home, line: &str) -> (u16, Value) {
    let said = home.shell(&format!("{line} --silent --show-error --write-out '\\n%{{http_code}}'")).done();
    let (body, status) = said.stdout.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), serde_json::from_str(body).unwrap())
}

fn post(home: &Home, url: &str, body: &Value) -> (u16, Value) {
    curl(home, &format!("curl -X POST '{url}' -H 'Content-Type: application/json' -d '{body}'"))
}

/// The first four fields of an answer, in their order.
fn documented(answer: &Value) -> String {
    let fields = answer.as_object().unwrap().iter().take(4);
    Value::Object(fields.map(|(key, value)| (key.clone(), value.clone())).collect()).to_string()
}

#[test]
fn each_command_line_of_cli_usage_cancels() {
    let (home, _server) = idle();
    // noetl cancel <execution_id>
    let id = start(&home, "test/sleep");
    assert_eq!(
        home.shell(&format!("noetl cancel {id}")).done().stdout,
        format!(
            "
============================================================
Execution: {id}
Status:    CANCELLED
Cancelled: 1 execution(s)
Message:   Cancelled 1 execution(s)
============================================================

"
        )
    );
    let id = start(&home, "test/sleep");
    assert_eq!(
        home.shell(&format!("noetl cancel {id} --reason \"Detected infinite loop\"")).done().stdout,
        format!(
            "
============================================================
Execution: {id}
Status:    CANCELLED
Cancelled: 1 execution(s)
Message:   Cancelled 1 execution(s)
Reason:    Detected infinite loop
============================================================

"
        )
    );
    let id = start(&home, "test/sleep");
    let said = home.shell(&format!("noetl cancel {id} --json")).done();
    assert_eq!(said.stdout.lines().count(), 1);
    let answer = said.json();
    assert_eq!((&answer["status"], &answer["execution_id"]), (&json!("cancelled"), &json!(id)));
    assert_eq!(
        (&answer["cancelled_executions"], &answer["message"]),
        (&json!([id]), &json!("Cancelled 1 execution(s)"))
    );
    for reason in ["Infinite loop detected", "Data already processed by another job"] {
        let id = start(&home, "test/sleep");
        let said = home.shell(&format!("noetl cancel {id} --reason \"{reason}\"")).done();
        assert!(said.stdout.contains(&format!("Reason:    {reason}\n")), "{}", said.stdout);
        let status = home.shell(&format!("noetl status {id}")).done().stdout;
        assert!(status.contains("Status:    CANCELLED\n"), "{status}");
    }
}

#[test]
fn with_cascade_the_children_are_listed() {
    let (home, _server) = idle();
    let ids = start_three(&home);
    let [parent, first, second] = &ids[..] else { panic!("{ids:?}") };
    assert_eq!(
        home.shell(&format!("noetl cancel {parent} --cascade")).done().stdout,
        format!(
            "
============================================================
Execution: {parent}
Status:    CANCELLED
Cancelled: 3 execution(s)
Message:   Cancelled 3 execution(s)

Cancelled executions:
  - {parent}
  - {first}
  - {second}
============================================================

"
        )
    );
    for id in &ids {
        assert_eq!(names(&home, id).last().map(String::as_str), Some("execution.quiesced"));
    }
}

#[test]
fn without_cascade_the_children_run_on() {
    let (home, _server) = idle();
    let ids = start_three(&home);
    home.shell(&format!("noetl cancel {}", ids[0])).done();
    for child in &ids[1..] {
        assert!(home.run(&["status", child]).done().stdout.contains("Status:    RUNNING\n"));
    }
}

#[test]
fn the_cancel_endpoint_answers_as_documented() {
    let (home, server) = idle();
    let endpoint = |id: &str| format!("{}/api/executions/{id}/cancel", server.url);
    let id = start(&home, "test/sleep");
    let body = json!({"reason": "Optional cancellation reason", "cascade": true});
    let (status, answer) = post(&home, &endpoint(&id), &body);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        documented(&answer),
        format!(
            r#"{{"status":"cancelled","execution_id":"{id}","cancelled_executions":["{id}"],"message":"Cancelled 1 execution(s)"}}"#
        )
    );
    // Emergency stop.
    let id = start(&home, "test/sleep");
    let line = format!(
        "curl -X POST \"http://localhost:8082/api/executions/{id}/cancel\" \\
  -H \"Content-Type: application/json\" \\
  -d '{{\"reason\": \"Emergency stop\", \"cascade\": true}}'"
    );
    let (status, answer) = curl(&home, &line.replace("http://localhost:8082", &server.url));
    assert_eq!((status, &answer["cancelled_executions"]), (200, &json!([id])));
    // Already completed.
    let id = start(&home, "test/noop");
    home.run(&["wait", &id]).done();
    let (status, answer) = post(&home, &endpoint(&id), &json!({}));
    assert_eq!(status, 409, "{answer}");
    assert_eq!(
        documented(&answer),
        format!(
            r#"{{"status":"error","execution_id":"{id}","cancelled_executions":[],"message":"Execution {id} is already COMPLETED"}}"#
        )
    );
}

#[test]
fn the_cancellation_check_answers_as_documented() {
    let (home, server) = idle();
    let check = |id: &str| curl(&home, &format!("curl {}/api/executions/{id}/cancellation-check", server.url)).1;
    let first_six = |answer: &Value| -> Value {
        let fields = answer.as_object().unwrap().iter().take(6);
        Value::Object(fields.map(|(key, value)| (key.clone(), value.clone())).collect())
    };
    let id = start(&home, "test/sleep");
    let running = check(&id);
    assert_eq!(
        (&running["cancelled"], &running["completed"], &running["failed"]),
        (&json!(false), &json!(false), &json!(false))
    );
    home.run(&["cancel", &id]).done();
    assert_eq!(
        first_six(&check(&id)).to_string(),
        json!({
            "execution_id": id,
            "status": "CANCELLED",
            "event_type": "execution.cancelled",
            "cancelled": true,
            "completed": false,
            "failed": false
        })
        .to_string()
    );
    let id = start(&home, "test/noop");
    home.run(&["wait", &id]).done();
    let completed = check(&id);
    assert_eq!((&completed["cancelled"], &completed["completed"]), (&json!(false), &json!(true)));
}

#[test]
fn a_cancel_leaves_the_row_that_the_document_inserts_and_nobody_inserts_it_by_hand() {
    let (home, _server) = idle();
    let id = start(&home, "test/sleep");
    let insert = "INSERT INTO noetl.event (event_type, status) VALUES ('execution.cancelled', 'CANCELLED');";
    let refused = home.run(&["query", insert]);
    assert_eq!((refused.exit, refused.stdout.as_str()), (2, ""), "{}", refused.stderr);
    assert!(home.run(&["status", &id]).done().stdout.contains("Status:    RUNNING\n"));
    home.run(&["cancel", &id, "--reason", "by the book"]).done();
    let row = rows(
        &home,
        &format!(
            "SELECT event_type, status, execution_id, context->>'reason' AS reason FROM noetl.event \
             WHERE execution_id = {id} AND event_type = 'execution.cancelled' AND status = 'CANCELLED'"
        ),
    );
    assert_eq!(
        row,
        [
            json!({"event_type": "execution.cancelled", "status": "CANCELLED", "execution_id": id.parse::<i64>().unwrap(), "reason": "by the book"})
        ]
    );
}

/// A worker of a few lines: check, claim, check, run.
#[test]
fn a_worker_checks_before_and_after_it_claims_and_skips_what_is_cancelled() {
    let (home, server) = idle();
    let url = &server.url;
    let cancelled =
        |id: &str| curl(&home, &format!("curl {url}/api/executions/{id}/cancellation-check")).1["cancelled"] == true;
    let issued = |id: &str| {
        let issued = home.run(&["events", id, "--json", "--type", "command.issued"]).done().json();
        issued["event_id"].as_str().unwrap().to_owned()
    };
    let claim =
        |event: &str| post(&home, &format!("{url}/api/commands/{event}/claim"), &json!({"worker_id": "simple"}));
    // Before claiming: the check says so, and who claims all the same is refused.
    let id = start(&home, "test/sleep");
    assert!(!cancelled(&id));
    home.run(&["cancel", &id]).done();
    assert!(cancelled(&id));
    let (status, answer) = claim(&issued(&id));
    assert_eq!((status, &answer["message"]), (409, &json!("Execution has been cancelled")));
    assert_eq!(
        names(&home, &id),
        ["playbook.initialized", "command.issued", "execution.cancelled", "command.cancelled", "execution.quiesced"]
    );
    // After claiming: the cancel came in between.
    let id = start(&home, "test/sleep");
    assert!(!cancelled(&id));
    let (status, claimed) = claim(&issued(&id));
    assert_eq!(status, 200, "{claimed}");
    home.run(&["cancel", &id]).done();
    assert!(cancelled(&id), "the second check");
    let report = json!({
        "reports": [{
            "execution_id": id, "command_id": claimed["command_id"], "epoch": claimed["epoch"],
            "outcome": {"cancelled": {"started": false, "stopped": null, "pids": []}},
        }],
        "poll": {"session_id": claimed["session_id"]},
    });
    let (status, answer) = post(&home, &format!("{url}/api/worker/report"), &report);
    assert_eq!(status, 200, "{answer}");
    let log = names(&home, &id);
    assert_eq!(log[log.len() - 3..], ["execution.cancelled", "command.cancelled", "execution.quiesced"], "{log:?}");
    assert!(!log.contains(&"command.started".to_owned()), "{log:?}");
    let proof = home.run(&["events", &id, "--json", "--type", "execution.quiesced"]).done().stdout;
    assert!(proof.contains("never_started"), "{proof}");
}

#[test]
fn a_command_already_in_progress_completes_and_no_other_begins() {
    let home = Home::new();
    let _server = Server::start(&home, &[]);
    // It goes on when there is a file called `go`.
    let waits = MOMENT.replacen("sleep 0.2", "echo begun > begun; until [ -e go ]; do sleep 0.02; done", 1);
    let waits =
        waits.replace("> begun", "> '{{ workload.folder }}/begun'").replace("-e go", "-e '{{ workload.folder }}/go'");
    home.file("moment.yaml", &waits);
    let folder = home.path().display();
    let flags = [format!("folder={folder}"), format!("file={folder}/lines"), "line=mine".to_owned()];
    let mut arguments = vec!["run", "moment.yaml", "-r", "distributed", "--json"];
    for flag in &flags {
        arguments.extend(["--set", flag]);
    }
    let id = home.run(&arguments).done().json()["execution_id"].as_str().unwrap().to_owned();
    eventually("the command is in progress", || home.path().join("begun").exists().then_some(()));
    let said = home.run(&["cancel", &id]).done();
    assert!(said.stderr.contains("1 command(s) running to its end:"), "{}", said.stderr);
    home.file("go", "");
    assert_eq!(home.run(&["wait", &id, "--for", "quiesced"]).done().stdout, "CANCELLED\n");
    let lines = std::fs::read_to_string(home.path().join("lines")).unwrap();
    assert_eq!(lines, "mine\n", "what ran has completed, the step after it has not begun");
    assert!(home.run(&["status", &id]).done().stdout.contains("Status:    CANCELLED\n"));
}

const RECURSIVE: &str = "WITH RECURSIVE children AS (
     SELECT execution_id FROM noetl.event WHERE execution_id = <id>
     UNION ALL
     SELECT e.execution_id
     FROM noetl.event e
     JOIN children c ON e.parent_execution_id = c.execution_id
   )
   SELECT DISTINCT execution_id FROM children;";

const CANCELLED: &str = "SELECT execution_id, created_at, context->>'reason' as reason 
             FROM noetl.event 
             WHERE event_type = 'execution.cancelled' 
             ORDER BY created_at DESC 
             LIMIT 10";

const STALE: &str = "SELECT DISTINCT execution_id 
             FROM noetl.event 
             WHERE status IN ('RUNNING', 'INITIALIZED') 
               AND created_at < NOW() - INTERVAL '10 minutes'
             ORDER BY execution_id DESC";

#[test]
fn the_recursive_query_finds_a_family_of_111_within_a_second() {
    let (home, _server) = idle();
    for (name, text) in FAMILY {
        home.file(name, text);
        home.run(&["register", "playbook", "--file", name]).done();
    }
    let root = start(&home, "test/family");
    eventually("all of them are there", || {
        let tree = home.run(&["tree", &root, "--json"]).json();
        (tree["executions"].as_array()?.len() == 111).then_some(())
    });
    // A bystander that must not be found.
    start(&home, "test/two");
    // The best of three: the machine may be busy with other tests, the query is not to blame for that.
    let mut took = Vec::new();
    for _ in 0..3 {
        let asked = std::time::Instant::now();
        let found = rows(&home, &RECURSIVE.replace("<id>", &root));
        took.push(asked.elapsed());
        assert_eq!(found.len(), 111);
    }
    assert!(took.iter().any(|took| took.as_secs_f64() < 1.0), "{took:?}");
}

#[test]
fn cancelled_executions_are_queried_with_their_reasons_latest_first() {
    let (home, _server) = idle();
    let mut ids = Vec::new();
    for number in 0..12 {
        let id = start(&home, "test/sleep");
        home.run(&["cancel", &id, "--reason", &format!("reason {number}")]).done();
        ids.push(id);
    }
    let found: Vec<Value> = rows(&home, CANCELLED);
    let expected: Vec<(String, String)> =
        (2..12).rev().map(|number| (ids[number].clone(), format!("reason {number}"))).collect();
    let found: Vec<(String, String)> =
        found.iter().map(|row| (id_of(row), row["reason"].as_str().unwrap().to_owned())).collect();
    assert_eq!(found, expected);
    // As a person types it.
    let table = home.shell(&format!("noetl query \"{CANCELLED}\"")).done().stdout;
    assert!(table.contains("│ reason") && table.ends_with("(10 rows)\n"), "{table}");
}

#[test]
fn stale_executions_are_queried_and_cancelled_in_a_batch() {
    let (home, server) = idle();
    let stale: Vec<String> = (0..3).map(|_| start(&home, "test/sleep")).collect();
    let finished = start(&home, "test/noop");
    home.run(&["wait", &finished]).done();
    assert_eq!(rows(&home, STALE).len(), 0, "nothing is that old");
    assert_eq!(server.stop(), Some(0));
    // Eleven minutes go by.
    home.rewrite(
        "UPDATE event SET created_at = strftime('%Y-%m-%dT%H:%M:%fZ', created_at, '-11 minutes')",
        "UPDATE noetl.event SET created_at = created_at - INTERVAL '11 minutes'",
    );
    let _server = Server::start(&home, &["--no-worker"]);
    let young = start(&home, "test/sleep");
    let found: Vec<String> = {
        let said = home.shell(&format!("noetl query \"{STALE}\" --format json")).done();
        let rows = said.json()["result"].as_array().unwrap().clone();
        rows.iter().map(id_of).collect()
    };
    let mut expected = [stale.clone(), vec![finished.clone()]].concat();
    expected.sort();
    expected.reverse();
    assert_eq!(found, expected, "`playbook.initialized` of what has ended since is INITIALIZED as well");
    assert!(!found.contains(&young));
    let ids = format!("{} {} {} {finished}", stale[0], stale[1], stale[2]);
    let said: Said = home.shell(&format!(
        "\
# Cancel multiple stale executions
for id in {ids}; do
  echo \"Cancelling $id...\"
  noetl cancel $id --reason \"Cleanup stale execution\" 2>/dev/null || echo \"  (already cancelled or completed)\"
done"
    ));
    let block = |id: &str| {
        format!(
            "Cancelling {id}...

============================================================
Execution: {id}
Status:    CANCELLED
Cancelled: 1 execution(s)
Message:   Cancelled 1 execution(s)
Reason:    Cleanup stale execution
============================================================

"
        )
    };
    let blocks: String = stale.iter().map(|id| block(id)).collect();
    assert_eq!(said.stdout, format!("{blocks}Cancelling {finished}...\n  (already cancelled or completed)\n"));
    assert!(home.run(&["status", &young]).done().stdout.contains("Status:    RUNNING\n"));
}
