//! The cancellation patterns of workflow systems (19, 20, 25, 26, 27), each by its example, on a real server with real
//! processes: what is withdrawn stops and counts for nothing, and what is not goes on.

use std::path::Path;

use serde_json::Value;

use crate::support::{Home, Server, eventually};

/// Runs an example to `ending`, and returns its events.
fn run(home: &Home, name: &str) -> Vec<Value> {
    let id = start(home, name);
    let said = home.run(&["wait", &id, "--timeout", "60s"]);
    assert_eq!((said.exit, said.stdout.as_str()), (0, "COMPLETED\n"), "{name}: {}", said.stderr);
    events(home, &id)
}

fn start(home: &Home, name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/patterns").canonicalize().unwrap();
    let file = folder.join(format!("{name}.yaml"));
    let file = file.to_str().unwrap();
    home.run(&["register", file]).done();
    let started = home.run(&["run", file, "-r", "distributed", "--json"]).done().json();
    started["execution_id"].as_str().unwrap().to_owned()
}

fn events(home: &Home, id: &str) -> Vec<Value> {
    let printed = home.run(&["events", id, "--json"]).done().stdout;
    let events: Vec<Value> = printed.lines().flat_map(serde_json::from_str::<Value>).flat_map(listed).collect();
    assert!(!events.is_empty(), "{printed}");
    events
}

/// Takes one event per line, or all in one document.
fn listed(value: Value) -> Vec<Value> {
    match value {
        Value::Array(events) => events,
        Value::Object(mut map) if map.contains_key("events") => listed(map.remove("events").unwrap()),
        other => vec![other],
    }
}

/// The events of a step, in order.
fn of<'e>(events: &'e [Value], step: &str) -> Vec<&'e str> {
    let of = events.iter().filter(|event| event["node_name"] == step);
    of.map(|event| event["event_type"].as_str().unwrap()).collect()
}

fn counts(events: &[Value], step: &str, name: &str) -> usize {
    of(events, step).iter().filter(|known| **known == name).count()
}

/// Nothing of the step counts: it was cancelled once, had no outcome, and led nowhere.
fn is_withdrawn(events: &[Value], step: &str) {
    let names = of(events, step);
    assert_eq!(counts(events, step, "step.cancelled"), 1, "{step}: {names:?}");
    for outcome in ["step.exit", "call.done", "call.error", "loop.done"] {
        let before = names.iter().position(|name| *name == "step.cancelled").unwrap();
        assert!(!names[before..].contains(&outcome), "{step}: {names:?}");
    }
    let exits = events.iter().filter(|event| event["event_type"] == "step.exit");
    assert_eq!(exits.filter(|event| event["node_name"] == step).count(), 0);
}

/// The tools of a step that had been started have come to rest before the execution ended.
fn has_come_to_rest(events: &[Value], step: &str) {
    let started = counts(events, step, "command.claimed");
    let over = ["command.cancelled", "command.completed", "command.failed", "command.suspended"];
    let rested: usize = over.iter().map(|name| counts(events, step, name)).sum();
    assert!(rested >= started, "{step}: {:?}", of(events, step));
    assert_eq!(events.last().unwrap()["event_type"], "playbook.completed");
}

#[test]
fn pattern_19_one_activity_is_cancelled() {
    let home = Home::new();
    let _server = Server::start(&home, &[]);
    let events = run(&home, "cancel_activity");
    is_withdrawn(&events, "far");
    has_come_to_rest(&events, "far");
    assert_eq!(counts(&events, "report", "step.enter"), 1);
    assert!(home.run(&["db", "verify"]).done().stdout.ends_with(" 0 problem(s)\n"));
}

#[test]
fn pattern_20_the_case_is_cancelled() {
    let home = Home::new();
    let _server = Server::start(&home, &[]);
    let id = start(&home, "cancel_case");
    eventually("both run", || {
        let events = events(&home, &id);
        (counts(&events, "answer", "command.claimed") == 1 && counts(&events, "poll", "step.exit") > 2).then_some(())
    });
    let cancelled = home.run(&["cancel", &id, "--cascade", "--wait", "--json", "-r", "No longer needed"]).done().json();
    assert_eq!(cancelled["quiesced"], true, "{cancelled}");
    let events = events(&home, &id);
    let at = events.iter().position(|event| event["event_type"] == "execution.cancelled").unwrap();
    for event in &events[at..] {
        let name = event["event_type"].as_str().unwrap();
        assert!(!["command.issued", "command.claimed", "step.enter"].contains(&name), "{name} after the decision");
    }
    assert_eq!(events.last().unwrap()["event_type"], "execution.quiesced");
    assert!(home.run(&["db", "verify"]).done().stdout.ends_with(" 0 problem(s)\n"));
}

#[test]
fn pattern_25_a_region_is_cancelled() {
    let home = Home::new();
    let _server = Server::start(&home, &[]);
    let events = run(&home, "cancel_region");
    is_withdrawn(&events, "pick");
    has_come_to_rest(&events, "pick");
    is_withdrawn(&events, "pay");
    assert_eq!(counts(&events, "ship", "step.enter"), 0);
    for untouched in ["customer", "refund", "audit", "report"] {
        assert_eq!(counts(&events, untouched, "step.exit"), 1, "{untouched}");
        assert_eq!(counts(&events, untouched, "step.cancelled"), 0, "{untouched}");
    }
    assert!(home.run(&["db", "verify"]).done().stdout.ends_with(" 0 problem(s)\n"));
}

#[test]
fn pattern_26_every_instance_is_cancelled() {
    let home = Home::new();
    let _server = Server::start(&home, &[]);
    let events = run(&home, "cancel_instances");
    is_withdrawn(&events, "try_all");
    has_come_to_rest(&events, "try_all");
    assert_eq!(counts(&events, "try_all", "command.issued"), 3, "those that had not begun never do");
    assert_eq!(counts(&events, "report", "step.enter"), 1);
    assert!(home.run(&["db", "verify"]).done().stdout.ends_with(" 0 problem(s)\n"));
}

#[test]
fn pattern_27_the_instances_are_completed_early() {
    let home = Home::new();
    let _server = Server::start(&home, &[]);
    let events = run(&home, "complete_instances");
    assert_eq!(counts(&events, "ask", "loop.completing"), 1);
    assert_eq!(counts(&events, "ask", "loop.done"), 1);
    assert_eq!(counts(&events, "ask", "step.exit"), 1, "it ends as a success");
    assert_eq!(counts(&events, "ask", "call.done"), 2, "nothing else counts");
    has_come_to_rest(&events, "ask");
    let done = events.iter().find(|event| event["event_type"] == "loop.done").unwrap();
    assert_eq!(done["context"]["left_out"], 8, "{done}");
    assert!(home.run(&["db", "verify"]).done().stdout.ends_with(" 0 problem(s)\n"));
}
