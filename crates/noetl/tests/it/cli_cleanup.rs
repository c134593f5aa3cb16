//! What a cancel leaves to be done, on a real server with real processes.

use std::io::{BufRead as _, Read as _};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Home, Said, Server, eventually, signal};

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
    assert!(why.contains(&format!("\nExecution {cleanup} cleans up after it, and is COMPLETED.\n")), "{why}");
    let why = home.run(&["why", cleanup]).done().stdout;
    assert!(why.contains(&format!("\nIt cleans up after the cancelled execution {id}.\n")), "{why}");
    assert!(home.run(&["status", cleanup]).done().stdout.contains(&format!("Cleans up: after {id}\n")));
    assert_eq!(home.run(&["rerun", cleanup]).exit, 1);
    assert_eq!(home.run(&["cancel", id, "--wait-for", "cleanup"]).exit, 2, "it goes with --wait");
    assert!(home.run(&["db", "verify"]).done().stdout.ends_with(" 0 problem(s)\n"));
}

/// Undoes itself with something that waits for the file `open` and then fails softly, as a refused HTTP request does.
const STUCK: &str = "\
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: stuck, path: test/stuck}
executor: {spec: {on_cancel: tell}}
workflow:
  - {step: start, tool: {kind: shell, command: 'touch begun; sleep 600'}}
  - {step: tell, tool: {kind: shell, command: 'touch telling; until [ -e open ]; do sleep 0.05; done; exit 3'}}
";

/// Returns the only cancelled execution, and the status of what cleans up after it.
fn cancelled_and_cleanup(home: &Home) -> (String, Value) {
    let list = home.run(&["ps", "--json"]).done().json();
    let cancelled = list.as_array().unwrap().iter().find(|one| one["status"] == "CANCELLED").unwrap();
    let id = cancelled["execution_id"].as_str().unwrap().to_owned();
    let status = home.run(&["status", &id, "--json"]).done().json();
    let cleanup = status["cancellation"]["cleanup"].as_str().unwrap();
    (id, home.run(&["status", cleanup, "--json"]).done().json())
}

#[test]
fn ctrl_c_lets_the_cleanup_of_a_local_run_end() {
    let home = Home::new();
    home.file("stuck.yaml", STUCK);
    let there = |name: &str| home.path().join(name).exists().then_some(());
    let run = home.spawn(&["run", "stuck.yaml"]);
    eventually("it runs", || there("begun"));
    signal(&run, Signal::INT);
    eventually("it cleans up", || there("telling"));
    home.file("open", "");
    let said = Said::of(run.wait_with_output().unwrap());
    assert_eq!(said.exit, 130, "{}", said.stderr);
    let (cancelled, cleanup) = cancelled_and_cleanup(&home);
    let id = cleanup["execution_id"].as_str().unwrap();
    assert!(said.stderr.contains(&format!("execution {id} cleans up after it; letting that end")), "{}", said.stderr);
    assert_eq!(cleanup["status"], json!("COMPLETED"));
    let why = home.run(&["why", &cancelled]).done().stdout;
    assert!(why.contains("and is COMPLETED; step tell of it failed.\n"), "{why}");
}

#[test]
fn a_further_ctrl_c_leaves_the_cleanup_and_names_it() {
    let home = Home::new();
    home.file("stuck.yaml", STUCK);
    let there = |name: &str| home.path().join(name).exists().then_some(());
    let mut run = home.spawn(&["run", "stuck.yaml"]);
    let mut stderr = std::io::BufReader::new(run.stderr.take().unwrap());
    eventually("it runs", || there("begun"));
    signal(&run, Signal::TERM);
    let mut said = String::new();
    while !said.contains("letting that end") {
        assert!(stderr.read_line(&mut said).unwrap() > 0, "{said}");
    }
    signal(&run, Signal::INT);
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(130), "{said}");
    let (cancelled, cleanup) = cancelled_and_cleanup(&home);
    let id = cleanup["execution_id"].as_str().unwrap();
    assert!(said.contains(&format!("the cleanup has not ended: execution {id} goes on")), "{said}");
    assert_eq!(cleanup["status"], json!("RUNNING"));
    let why = home.run(&["why", &cancelled]).done().stdout;
    assert!(why.contains("Reason: noetl run was ended with SIGTERM\n"), "{why}");
}
