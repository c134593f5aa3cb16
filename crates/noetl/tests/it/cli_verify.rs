//! `noetl verify`: what real runs leave behind keeps every promise, and what somebody changed does not.

use serde_json::{Value, json};

use crate::playbooks::{HELLO, SLEEP};
use crate::support::{Home, Said, Server, eventually};

/// A cancelled run that was interrupted while its tool ran, in a store that nobody owns any more.
fn interrupted(home: &Home) -> Run {
    let server = Server::start(home, &[]);
    for (name, text) in [("hello.yaml", HELLO), ("sleep.yaml", SLEEP)] {
        home.file(name, text);
        home.run(&["register", name]).done();
    }
    let started = home.run(&["run", "test/sleep", "-r", "distributed", "--json"]).done().json();
    let id = started["execution_id"].as_str().unwrap().to_owned();
    home.run(&["run", "test/hello", "-r", "distributed", "--follow"]).done();
    eventually("a worker holds it", || {
        (home.run(&["status", &id, "--json"]).json()["in_flight"].as_u64() > Some(0)).then_some(())
    });
    home.run(&["cancel", &id, "--interrupt", "--grace", "0s", "--wait", "-r", "seen enough"]).done();
    // By a running server: it goes on writing meanwhile.
    assert_eq!(home.run(&["verify", "--all"]).done().stdout, "2 execution(s) verified, 0 problem(s)\n");
    assert_eq!(home.run(&["db", "verify", &id]).done().stdout, "1 execution(s) verified, 0 problem(s)\n");
    let events = home.run(&["events", &id, "--json"]).done().stdout;
    let events = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(server.stop(), Some(0));
    Run { id, events }
}

/// A run and its log.
struct Run {
    id: String,
    events: Vec<Value>,
}

/// Verifies without a server: from the directory, or the database itself.
fn verify(home: &Home, arguments: &[&str]) -> Said {
    let place = home.database_url();
    let place: Vec<&str> = place.iter().flat_map(|url| ["--database-url", url]).collect();
    home.run(&[&["verify"], arguments, &place[..]].concat())
}

#[test]
fn the_log_of_a_real_run_keeps_every_promise_and_is_shown_line_by_line() {
    let home = Home::new();
    let Run { id, .. } = interrupted(&home);
    let said = verify(&home, &[&id, "--trace"]).done().stdout;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.last(), Some(&"1 execution(s) verified, 0 problem(s)"));
    for (number, line) in lines[..lines.len() - 1].iter().enumerate() {
        assert!(line.starts_with(&format!("{id} {:>5} ", number + 1)), "{line}");
    }
    for name in ["command.claimed", "execution.cancelled", "execution.quiesced"] {
        assert_eq!(lines.iter().filter(|line| line.contains(&format!("  {name} "))).count(), 1, "{name} in\n{said}");
    }
    assert!(said.contains("  seen enough\n"), "{said}");
    let all = verify(&home, &["--all", "--json"]).done().json();
    assert_eq!((&all["status"], &all["executions"], &all["problems"]), (&json!("ok"), &json!(2), &json!([])));
    assert!(all["events"].as_u64() > Some(10), "{all}");
}

#[test]
fn what_was_changed_is_found_with_its_number_and_its_events() {
    let home = Home::new();
    let Run { id, events } = interrupted(&home);
    let version = |name: &str| {
        events.iter().filter(|event| event["event_type"] == name).find_map(|event| event["version"].as_u64()).unwrap()
    };
    let (claimed, cancelled) = (version("command.claimed"), version("execution.cancelled"));
    // The claim and the decision change places: as if a worker had been given the command after the cancel.
    for (from, to) in [(claimed, 1_000), (cancelled, claimed), (1_000, cancelled)] {
        let set = format!("SET version = {to} WHERE execution_id = {id} AND version = {from}");
        home.rewrite(&format!("UPDATE event {set}"), &format!("UPDATE noetl.event {set}"));
    }
    let found = verify(&home, &[&id]);
    assert_eq!(found.exit, 1);
    assert!(found.stdout.contains("C1 no start after the decision"), "{}", found.stdout);
    assert!(found.stdout.contains(&format!("      {id} {cancelled:>5} ")), "{}", found.stdout);
    let body = verify(&home, &["--all", "--json"]).json();
    let started_late = |problem: &&Value| problem["property"] == "C1";
    let problem = body["problems"].as_array().unwrap().iter().find(started_late).unwrap();
    assert_eq!((&problem["execution_id"], &body["executions"]), (&json!(id), &json!(2)));
    assert_eq!(problem["events"].as_array().unwrap().len(), 2);
    let head = format!("SET status = 'COMPLETED' WHERE execution_id = {id}");
    home.rewrite(&format!("UPDATE execution {head}"), &format!("UPDATE noetl.execution {head}"));
    let found = verify(&home, &["--all"]);
    assert_eq!(found.exit, 1);
    assert!(found.stdout.contains("E2 the head is the folded log"), "{}", found.stdout);
}

#[test]
fn what_is_to_be_verified_must_be_said() {
    let home = Home::new();
    assert_eq!(home.run(&["verify"]).exit, 2);
    assert_eq!(home.run(&["verify", "--all", "7"]).exit, 2);
    assert_eq!(home.run(&["verify", "--all", "--trace"]).exit, 2);
    let both = home.run(&["verify", "7", "--database-url", "postgres://h/d", "--server-url", "http://h"]);
    assert!(both.exit == 2 && both.stderr.contains("leave one of them out"), "{}", both.stderr);
    let wrong = home.run(&["verify", "7", "--database-url", "mysql://h/d"]);
    assert!(wrong.exit == 2 && wrong.stderr.contains("it must begin with `postgres://`"), "{}", wrong.stderr);
    let _server = Server::start(&home, &["--no-worker"]);
    assert_eq!(home.run(&["verify", "4242"]).exit, 4);
}
