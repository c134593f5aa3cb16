//! Pausing and resuming from the command line.

use serde_json::json;

use crate::support::{Home, Server, eventually};

/// The first step waits for a file; the second leaves one.
const PLAYBOOK: &str = "\
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: gate, path: test/gate}
workflow:
  - {step: first, tool: {kind: shell, command: 'until [ -e open ]; do sleep 0.05; done'}, next: {arcs: [{step: second}]}}
  - {step: second, tool: {kind: shell, command: 'touch through'}}
";

#[test]
fn a_paused_execution_begins_nothing_until_it_is_resumed() {
    let home = Home::new();
    let _server = Server::start(&home, &[]);
    home.file("gate.yaml", PLAYBOOK);
    home.run(&["register", "gate.yaml"]).done();
    let started = home.run(&["run", "test/gate", "-r", "distributed", "--json"]).done().json();
    let id = started["execution_id"].as_str().unwrap();
    let status = || home.run(&["status", id, "--json"]).done().json();
    eventually("the first step runs", || (status()["in_flight"] == json!(1)).then_some(()));
    let said = home.run(&["pause", id, "-r", "the target is down"]).done();
    assert_eq!(said.stdout, "Paused 1 execution(s)\n");
    assert!(said.stderr.contains("step first (shell) runs on to its end at worker"), "{}", said.stderr);
    let again = home.run(&["pause", id, "--json"]).done().json();
    assert_eq!((&again["status"], &again["changed_executions"]), (&json!("paused"), &json!([])));
    assert_eq!(again["pause"]["reason"], "the target is down", "the first request stands");

    home.file("open", "");
    eventually("what ran is kept", || (status()["completed_steps"] == json!(["first"])).then_some(()));
    assert_eq!((&status()["status"], &status()["in_flight"]), (&json!("RUNNING"), &json!(0)));
    assert!(!home.path().join("through").exists());
    let block = home.run(&["status", id]).done().stdout;
    assert!(block.contains("Paused:    by cli (") && block.contains("Reason:    the target is down"), "{block}");
    let why = home.run(&["why", id]).done().stdout;
    assert!(why.contains("\nPaused by cli (") && why.contains("\nReason: the target is down\n"), "{why}");
    assert!(home.run(&["ps"]).done().stdout.contains("RUNNING (paused)"));
    // Somebody who cleans up what is stuck leaves it alone.
    assert!(!home.run(&["cleanup", "--older-than-minutes", "0", "--dry-run"]).stdout.contains(id));

    let said = home.run(&["resume", id]).done();
    assert_eq!(said.stdout, "Resumed 1 execution(s)\n");
    assert_eq!(home.run(&["wait", id]).done().stdout, "COMPLETED\n");
    assert!(home.path().join("through").exists());
    let ended = home.run(&["resume", id]);
    assert_eq!(ended.exit, 1);
    assert!(ended.stderr.contains(&format!("Execution {id} is already COMPLETED")), "{}", ended.stderr);
    // All are tried, and the worst wins.
    assert_eq!(home.run(&["pause", id, "12345"]).exit, 4);
    assert_eq!(home.run(&["pause", "x"]).exit, 2);
    assert!(home.run(&["db", "verify"]).done().stdout.ends_with(" 0 problem(s)\n"));
}

#[test]
fn a_family_that_is_paused_stands_in_the_jobs_as_what_it_is() {
    let home = Home::new();
    let _server = Server::start(&home, &["--no-worker"]);
    home.file("gate.yaml", PLAYBOOK);
    home.run(&["register", "gate.yaml"]).done();
    let started = home.run(&["run", "test/gate", "-r", "distributed", "--json"]).done().json();
    let id = started["execution_id"].as_str().unwrap();
    home.run(&["pause", id, "--cascade"]).done();
    home.run(&["resume", id, "--cascade"]).done();
    home.run(&["cancel", id, "--cascade"]).done();
    let jobs = home.run(&["jobs", "--json"]).done().json();
    let jobs: Vec<_> = jobs["jobs"].as_array().unwrap().iter().collect();
    let actions: Vec<_> = jobs.iter().map(|job| (&job["action"], &job["kind"], &job["cancelled"])).collect();
    let expected = ["cancel", "resume", "pause"].map(|action| (json!(action), json!("cascade"), json!(1)));
    assert_eq!(actions, expected.iter().map(|(a, k, c)| (a, k, c)).collect::<Vec<_>>());
    let list = home.run(&["jobs"]).done().stdout;
    assert!(list.contains(" pause ") && list.contains(" resume ") && list.contains(" cancel "), "{list}");
    let pause = home.run(&["jobs", jobs[2]["job_id"].as_str().unwrap()]).done().stdout;
    assert!(pause.contains("Action:      pause\n") && pause.contains("Paused:      1\n"), "{pause}");
}

#[test]
fn an_execution_is_paused_and_cancelled_with_nothing_running() {
    let home = Home::new();
    home.file("gate.yaml", PLAYBOOK);
    home.run(&["register", "gate.yaml"]).done();
    let started = {
        let _server = Server::start(&home, &["--no-worker"]);
        home.run(&["run", "test/gate", "-r", "distributed", "--json"]).done().json()
    };
    let id = started["execution_id"].as_str().unwrap().to_owned();
    assert_eq!(home.run(&["pause", &id]).done().stdout, "Paused 1 execution(s)\n");
    assert_eq!(home.run(&["status", &id, "--json"]).done().json()["commands"][0]["state"], "paused");
    assert_eq!(home.run(&["cancel", &id]).exit, 0);
    let counted = "SELECT event_type FROM noetl.event WHERE event_type LIKE 'execution.%' ORDER BY version";
    let log = home.run(&["query", counted, "--format", "json"]).done().stdout;
    for name in ["execution.paused", "execution.cancelled", "execution.quiesced"] {
        assert!(log.contains(name), "{log}");
    }
}
