//! What a cancel leaves to be done, on a real server with real processes.

use serde_json::json;

use crate::support::{Home, Server, eventually};

/// Leaves a line for everything that it does and undoes.
const PLAYBOOK: &str = "\
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: trip, path: test/trip}
executor: {spec: {on_cancel: tell}}
workflow:
  - step: book
    tool: {kind: shell, command: 'echo booked >> log'}
    spec: {compensate: unbook}
    next: {arcs: [{step: wait}]}
  - {step: wait, tool: {kind: shell, command: 'sleep 600'}}
  - {step: unbook, tool: {kind: shell, command: 'echo unbooked >> log'}}
  - {step: tell, tool: {kind: shell, command: \"echo told: '{{ cancellation.reason }}' >> log\"}}
";

#[test]
fn a_cancel_is_cleaned_up_after_and_says_by_whom() {
    let home = Home::new();
    let _server = Server::start(&home, &[]);
    home.file("trip.yaml", PLAYBOOK);
    home.run(&["register", "trip.yaml"]).done();
    let started = home.run(&["run", "test/trip", "-r", "distributed", "--json"]).done().json();
    let id = started["execution_id"].as_str().unwrap();
    let status = |id: &str| home.run(&["status", id, "--json"]).done().json();
    eventually("it waits", || (status(id)["current_step"] == json!("wait")).then_some(()));
    let said =
        home.run(&["cancel", id, "-r", "rain", "--interrupt", "--wait", "--wait-for", "cleanup", "--json"]).done();
    let answer = said.json();
    let cleanup = answer["cleanup"].as_str().unwrap();
    assert_eq!((&answer["quiesced"], &answer["cleaned_up"]), (&json!(true), &json!(true)));
    assert!(said.stderr.contains(&format!("Execution {cleanup} cleans up after it.")), "{}", said.stderr);
    let log = std::fs::read_to_string(home.path().join("log")).unwrap();
    assert_eq!(log, "booked\nunbooked\ntold: rain\n");
    assert_eq!((&status(cleanup)["status"], &status(cleanup)["cleanup_of"]), (&json!("COMPLETED"), &json!(id)));
    assert_eq!(status(id)["cancellation"]["cleanup"], json!(cleanup));
    let why = home.run(&["why", id]).done().stdout;
    assert!(why.contains(&format!("\nExecution {cleanup} cleans up after it.\n")), "{why}");
    let why = home.run(&["why", cleanup]).done().stdout;
    assert!(why.contains(&format!("\nIt cleans up after the cancelled execution {id}.\n")), "{why}");
    assert!(home.run(&["status", cleanup]).done().stdout.contains(&format!("Cleans up: after {id}\n")));
    assert_eq!(home.run(&["rerun", cleanup]).exit, 1);
    assert_eq!(home.run(&["cancel", id, "--wait-for", "cleanup"]).exit, 2, "it goes with --wait");
    assert!(home.run(&["db", "verify"]).done().stdout.ends_with(" 0 problem(s)\n"));
}
